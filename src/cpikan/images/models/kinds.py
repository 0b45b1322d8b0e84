"""Networks by name: what a configuration or a model file may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpikan.errors import InputError, check_names, unknown_name
from cpikan.images.models.fno import FNO
from cpikan.images.models.multigrid import MultigridTFNO
from cpikan.images.models.network import ImageNetwork
from cpikan.images.models.tucker import TFNO
from cpikan.images.models.unet import UNet

MODELS: dict[str, type[ImageNetwork]] = {kind.kind: kind for kind in (UNet, FNO, TFNO, MultigridTFNO)}
_MOST_WIDTHS = 10


def model_settings(kind: str) -> dict[str, Any]:
    """List the settings of a kind of network and their defaults; those without a default have None.

    >>> model_settings("unet")
    {'channels_in': None, 'channels_out': None, 'widths': (32, 48, 64), 'depth': 1}
    """
    if not isinstance(kind, str) or kind not in MODELS:
        raise unknown_name("kind of model", str(kind), MODELS)
    return MODELS[kind].settings()


def build_model(kind: str, config: Mapping[str, Any]) -> ImageNetwork:
    """Build a network of ``kind``, one of MODELS, with the settings ``config`` (those left out have their defaults).

    The channels must be given. Raises InputError for a kind or a setting that does not exist, with the nearest name, and
    for a value of the wrong type or size.
    """
    defaults = model_settings(kind)
    check_names(f"setting of model {kind!r}", config, defaults)
    for name, default in defaults.items():
        if default is None and name not in config:
            raise InputError(f"model {kind!r} needs {name}: give it, one of {', '.join(defaults)}")
    return MODELS[kind](**{name: _checked(MODELS[kind], name, value, defaults[name]) for name, value in config.items()})


def _checked(model: type[ImageNetwork], name: str, value: Any, default: Any) -> Any:
    """Check a setting of a model against its default's type and its range."""
    if isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(
                f"{name} {value!r} of model {model.kind!r}: give a share above 0 and up to 1, such as {default}"
            )
        return float(value)
    if not isinstance(default, tuple):
        return _count(model, name, value)
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_WIDTHS:
        raise InputError(f"{name} {value!r} of model {model.kind!r}: give a list of 1 to {_MOST_WIDTHS} whole numbers")
    return tuple(_count(model, name, number) for number in value)


def _count(model: type[ImageNetwork], name: str, value: Any) -> int:
    least, most = model.ranges[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name} {value!r} of model {model.kind!r}: give a whole number from {least} to {most}")
    return value
