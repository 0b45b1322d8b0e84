"""Loss modes by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cpikan.errors import InputError, unknown_name
from cpikan.learning.losses.loss_mode import LossMode
from cpikan.learning.losses.ritz import Ritz
from cpikan.learning.losses.sobolev import Sobolev
from cpikan.learning.losses.weak import Weak

LOSS_MODES: Mapping[str, Callable[[], LossMode]] = {
    "strong": LossMode,
    "residual": LossMode,  # another word for it
    "ritz": Ritz,
    "weak": Weak,
    "sobolev": Sobolev,
}


def loss_mode_of(given: Any) -> LossMode:
    """Take a loss mode, or make the one of a name; raises InputError for an unknown name and for what is none."""
    if isinstance(given, LossMode):
        return given
    if not isinstance(given, str):
        raise InputError(f"loss mode {given!r}: give {', '.join(LOSS_MODES)}, or one as Weak(functions=6)")
    if given not in LOSS_MODES:
        raise unknown_name("loss mode", given, LOSS_MODES)
    return LOSS_MODES[given]()
