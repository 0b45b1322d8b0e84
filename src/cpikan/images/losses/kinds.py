"""Losses by name, as a configuration asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cpikan.errors import InputError, check_name, check_names
from cpikan.images.losses.base import Loss, is_number
from cpikan.images.losses.interface import Interface, InterfaceAL
from cpikan.images.losses.physics import Physics
from cpikan.images.losses.smoothness import Smoothness
from cpikan.images.losses.supervised import Calibration, Height, Multiscale, Orders, Supervised

_KINDS: tuple[Any, ...] = (
    Supervised,
    Height,
    Orders,
    Calibration,
    Physics,
    Interface,
    InterfaceAL,
    Multiscale,
    Smoothness,
)
LOSSES: dict[str, Any] = {kind.name: kind for kind in _KINDS}


def build_losses(config: Mapping[str, Any], kinds: Mapping[str, Any] = LOSSES) -> list[tuple[float, Loss]]:
    """Make the weighted losses of a table of names: a number is the weight, a table holds ``weight`` (default 1) and options.

    A list for ``multiscale`` is its levels. A weight of 0 leaves the loss out. ``kinds`` are the classes by name: a loss of
    one's own is one more. Raises InputError for names, options and
    values that do not exist, and where nothing is left.

    >>> [(weight, loss.name) for weight, loss in build_losses({"supervised": 1, "interface": {"weight": 0.1}})]
    [(1.0, 'supervised'), (0.1, 'interface')]
    """
    built = []
    for name, given in config.items():
        check_name("loss", name, kinds)
        options = _options(name, given)
        weight = options.pop("weight", 1.0)
        if not is_number(weight) or weight < 0:
            raise InputError(f"weight {weight!r} of the loss {name}: give a number of zero or more")
        allowed = [field.name for field in fields(kinds[name])]
        check_names(f"option of the loss {name}", options, ["weight", *allowed])
        loss: Loss = kinds[name](**options)
        if weight > 0:
            built.append((float(weight), loss))
    if not built:
        raise InputError("no loss to train on: give one of " + ", ".join(kinds) + " a weight above zero")
    return built


def _options(name: str, given: Any) -> dict[str, Any]:
    if isinstance(given, dict):
        return dict(given)
    if isinstance(given, list | tuple) and name == Multiscale.name:
        return {"levels": given}
    if is_number(given):
        return {"weight": given}
    raise InputError(f"loss {name} = {given!r}: give its weight, or a table of weight and options")
