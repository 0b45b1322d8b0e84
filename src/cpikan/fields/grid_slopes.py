"""GridSlopes: exact slopes and curvature of a fitted field on the pixels of an image, row by row, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebder, chebvander

from cpikan.fields.grid_evaluator import Patch, Piece, grid_pieces, pack
from cpikan.fields.grid_jet_kernels import add_network_jet
from cpikan.fields.grid_kernels import add_tensor
from cpikan.partition.windows import Profile

_Columns = dict[tuple[float, ...], tuple[np.ndarray, ...]]


class GridSlopes:
    """Derivatives of a field of two coordinates on the grid of ``y`` (H,) and ``x`` (W,), rising, per unit of the coordinates.

    Takes the fields that `cpikan.fields.grid_evaluator.GridEvaluator` takes, windows and their derivatives included. A tensor
    field costs four products of matrices where its values cost one; a network about five times its values. No result
    depends on bands or threads.
    """

    def __init__(self, field: Any, y: np.ndarray, x: np.ndarray, output: int = 0) -> None:
        self.shape = (len(y), len(x))
        self._patches: list[Patch] = [
            TensorSlopes(piece) if piece.tensor else _NetworkSlopes(piece) for piece in grid_pieces(field, y, x, output)
        ]

    def add(self, first: int, out: np.ndarray) -> None:
        """Add the rows from ``first`` on to ``out`` (3, rows, W) float32: slope in y, slope in x, and curvature, the sum of
        the second derivatives."""
        last = first + out.shape[1]
        for patch in self._patches:
            start, stop = max(first, patch.first), min(last, patch.last)
            if start < stop:
                patch.add(start, out[:, start - first : stop - first, patch.left : patch.right])


class TensorSlopes:
    """One tensor Chebyshev field: the windows are multiplied into the two bases by Leibniz' rule."""

    def __init__(self, piece: Piece, shared: _Columns | None = None) -> None:
        place, coefficients = piece.place, piece.weights[0]
        self.first, self.last, self.left, self.right = place.first, place.last, place.left, place.right
        rows = _windowed(place.row_window, place.y, place.rate[0], coefficients)
        plain, slope, bend = (part.astype(np.float32) for part in rows)
        self._rows = slope, plain, np.concatenate([bend, plain], axis=1)
        shared = {} if shared is None else shared
        key = (place.left, place.right, float(place.x[0]), place.rate[1], coefficients.shape[1])
        if key not in shared:  # tiles above one another have them in common: half of the memory
            parts = _windowed(place.column_window, place.x, place.rate[1], np.eye(coefficients.shape[1]))
            across, along, curve = (np.ascontiguousarray(part.T, np.float32) for part in parts)
            shared[key] = across, along, np.concatenate([across, curve])
        self._columns = shared[key]

    def add(self, start: int, out: np.ndarray) -> None:
        """Add rows from ``start`` on."""
        part = slice(start - self.first, start - self.first + out.shape[1])
        for target, rows, columns in zip(out, self._rows, self._columns, strict=True):
            add_tensor(rows[part], columns, target)


class _NetworkSlopes:
    """One Chebyshev network."""

    def __init__(self, piece: Piece) -> None:
        place = piece.place
        self.first, self.last, self.left, self.right = place.first, place.last, place.left, place.right
        first, bias = piece.weights[0], piece.biases[0]
        zeros = np.zeros((1, len(bias)))  # there is no constant polynomial: it is in the bias
        rows, columns = (
            np.stack(_derivatives(scaled, rate, np.concatenate([zeros, first[k::2]])))
            for k, (scaled, rate) in enumerate(zip((place.y, place.x), place.rate, strict=True))
        )
        rows[0] += bias
        self._rows = rows.astype(np.float32)
        self._columns = np.ascontiguousarray(columns.transpose(0, 2, 1), np.float32)
        self._packed = pack(len(bias), piece.weights[1:], piece.biases[1:])
        self._row_window = np.stack(place.row_window).astype(np.float32)
        self._column_window = np.stack(place.column_window).astype(np.float32)

    def add(self, start: int, out: np.ndarray) -> None:
        """Add rows from ``start`` on."""
        part = slice(start - self.first, start - self.first + out.shape[1])
        rows, window = np.ascontiguousarray(self._rows[:, part]), np.ascontiguousarray(self._row_window[:, part])
        add_network_jet(rows, self._columns, *self._packed, window, self._column_window, out)


def _derivatives(scaled: np.ndarray, rate: float, coefficients: np.ndarray) -> list[np.ndarray]:
    """Compute series with ``coefficients`` (m, n) and their first and second derivatives per unit, each (len(scaled), n)."""
    found = []
    for order in range(3):
        derived = chebder(coefficients, order, axis=0) if order else coefficients
        found.append(chebvander(scaled, len(derived) - 1) @ derived * rate**order)
    return found


def _windowed(window: Profile, scaled: np.ndarray, rate: float, coefficients: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute the series times the window, and the first and second derivatives of that product."""
    w, w1, w2 = (part[:, None] for part in window)
    f, f1, f2 = _derivatives(scaled, rate, coefficients)
    return w * f, w1 * f + w * f1, w2 * f + 2 * w1 * f1 + w * f2
