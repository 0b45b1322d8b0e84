"""Axes with names: which of the leading axes of frames is the wavelength, and which the phase step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cpikan.errors import InputError

WAVELENGTH, STEPS = "C", "ZT"  # letters of ImageJ and OME: a channel is a wavelength; a focus or a time is a phase step
_WORDS = {
    "C": ("c", "channel", "wavelength", "lambda"),
    "T": ("t", "time", "z", "step", "phase", "phase step", "phase shift", "frame"),
}
_LETTER = {word: letter for letter, words in _WORDS.items() for word in words}


def is_step_major(label: str, names: Sequence[str | None] | None, axes: int) -> bool:
    """Tell whether an array of four axes has its steps before its wavelengths, by the names of its axes.

    Names such as c, channel or wavelength and t, z, time or step count, in any case and number; where neither of the
    first two is known the order is wavelength-major. Raises InputError where both mean the same.
    """
    if axes != 4 or names is None or len(names) != 4:
        return False
    told = [
        _LETTER.get(" ".join(str(name or "").lower().replace("_", " ").split()).removesuffix("s")) for name in names[:2]
    ]
    if told[0] is not None and told[0] == told[1]:
        what = "wavelengths" if told[0] == "C" else "steps"
        raise InputError(
            f"{label} has its frames along {names[0]} and {names[1]}, both of which are {what}: name one of the two axes "
            "for the wavelengths (c) and one for the steps (t)"
        )
    return told[0] == "T" or told[1] == "C"


class StepMajor:
    """An array (K, L, H, W) of any library seen as (L, K, H, W); rows are turned when they are read."""

    ndim = 4

    def __init__(self, array: Any) -> None:
        steps, wavelengths, height, width = array.shape
        self.shape = (wavelengths, steps, height, width)
        self._array = array

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        wavelength, step, rows, columns = key
        found = np.asarray(self._array[step, wavelength, rows, columns])
        return found.swapaxes(0, 1) if found.ndim == 4 else found


def in_stored_order(index: Iterable[int], step_major: bool) -> tuple[int, ...]:
    """Turn the place (wavelength, step) of a frame into its place in the file; any other index stays."""
    found = tuple(int(part) for part in index)
    return found[::-1] if step_major and len(found) == 2 else found
