"""Networks by name: what a configuration or a model file may ask for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from cpikan.errors import InputError, unknown_name
from cpikan.images.models.fno import FNO
from cpikan.images.models.multigrid import MultigridTFNO
from cpikan.images.models.tucker import TFNO
from cpikan.images.models.unet import UNet

_KINDS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "fno": FNO,
    "tfno": TFNO,
    "mg-tfno": MultigridTFNO,
}
MODELS = tuple(_KINDS)
# least and most of every whole number: a file cannot ask for more layers than anyone has the patience to build
_RANGES = {
    "channels_in": (1, 1024),
    "channels_out": (1, 1024),
    "widths": (1, 4096),
    "width": (1, 4096),
    "depth": (1, 64),
    "modes": (1, 1024),
    "levels": (0, 4),
    "margin_px": (0, 1024),
    "padding_px": (0, 1024),
}
_MOST_WIDTHS = 10


def model_settings(kind: str) -> dict[str, Any]:
    """The settings of a kind of network and their defaults; those without a default have None.

    >>> model_settings("unet")
    {'channels_in': None, 'channels_out': None, 'widths': (32, 48, 64), 'depth': 1}
    """
    if not isinstance(kind, str) or kind not in _KINDS:
        raise unknown_name("kind of model", str(kind), MODELS)
    empty = inspect.Parameter.empty
    parameters = inspect.signature(_KINDS[kind]).parameters
    return {name: None if each.default is empty else each.default for name, each in parameters.items()}


def build_model(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """A network of ``kind``, one of MODELS, with the settings ``config`` (those left out have their defaults).

    The channels must be given. Raises InputError for a kind or a setting that does not exist, with the nearest name, and
    for a value of the wrong type or size.
    """
    defaults = model_settings(kind)
    for name in config:
        if name not in defaults:
            raise unknown_name(f"setting of model {kind!r}", str(name), defaults)
    for name, default in defaults.items():
        if default is None and name not in config:
            raise InputError(f"model {kind!r} needs {name}: give it, one of {', '.join(defaults)}")
    return _KINDS[kind](**{name: _checked(kind, name, value) for name, value in config.items()})


def _checked(kind: str, name: str, value: Any) -> Any:
    if name == "rank":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"rank {value!r} of model {kind!r}: give a share above 0 and up to 1, such as 0.1")
        return float(value)
    if name != "widths":
        return _count(kind, name, value)
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_WIDTHS:
        raise InputError(f"widths {value!r} of model {kind!r}: give a list of 1 to {_MOST_WIDTHS} whole numbers")
    return tuple(_count(kind, name, number) for number in value)


def _count(kind: str, name: str, value: Any) -> int:
    least, most = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name} {value!r} of model {kind!r}: give a whole number from {least} to {most}")
    return value
