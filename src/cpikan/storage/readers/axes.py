"""Which axis of an array of frames is which: letters that somebody says, and arrays put into the order of frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from cpikan.errors import InputError

LETTERS = "wsyx"  # wavelengths, steps, rows, columns: the order of frames
_EXAMPLE = 'axes = "syx" for (steps, rows, columns), "wsyx" with wavelengths first, or "yxs" with the frames last'


def parse_axes(value: object) -> str:
    """Check the letters of axes, slowest first as NumPy counts them: w wavelengths, s steps, y rows, x columns.

    Raises InputError for other letters, one given twice, and where y or x is not among them.
    """
    text = value.strip().lower() if isinstance(value, str) else ""
    if len(set(text)) != len(text) or not set(text) <= set(LETTERS) or not {"y", "x"} <= set(text):
        raise InputError(f"axes {value!r} are not letters of w, s, y and x, each once: give {_EXAMPLE}")
    return text


def check_axes(label: str, axes: str, shape: tuple[int, ...]) -> str:
    """Check that an array has as many axes as letters; InputError when it has not."""
    if len(axes) != len(shape):
        raise InputError(f"{label} has the shape {tuple(shape)} but axes {axes!r} are {len(axes)}: give {_EXAMPLE}")
    return axes


def default_axes(label: str, shape: tuple[int, ...], single: bool = False) -> str:
    """Give the letters of an array of which nothing is said: the order of frames; InputError for other shapes."""
    if len(shape) not in (3, 4) and not (single and len(shape) == 2):
        raise InputError(
            f"{label} has the shape {tuple(shape)}: give (wavelengths, steps, rows, columns) or (frames, rows, columns)"
        )
    return LETTERS[-len(shape) :]


def turned_axes(axes: str) -> tuple[str, bool]:
    """Tell whether columns come before rows, and give the axes with both exchanged: those of the transposed frames.

    Rows of such frames cannot be read one after the other: they are read as columns and transposed.
    """
    if axes.index("x") > axes.index("y"):
        return axes, False
    return axes.translate(str.maketrans("xy", "yx")), True


class InOrder:
    """An array of any library, whose axes are named by ``axes``, seen as (wavelengths, steps, rows, columns).

    An axis that it lacks is lacking here too. What is read is put into order when it is read.
    """

    def __init__(self, array: Any, axes: str) -> None:
        self._array, self._axes = array, axes
        self._logical = [letter for letter in LETTERS if letter in axes]
        self.shape = tuple(array.shape[axes.index(letter)] for letter in self._logical)
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        asked = dict(zip(self._logical, key, strict=True))
        found = np.asarray(self._array[tuple(asked[letter] for letter in self._axes)])
        kept = [letter for letter in self._axes if isinstance(asked[letter], slice)]
        return found.transpose([kept.index(letter) for letter in self._logical if letter in kept])
