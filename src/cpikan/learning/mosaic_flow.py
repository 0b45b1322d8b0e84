"""Mosaic Flow: a large domain solved by a solver of one small box alone, box by box, in the alternating Schwarz method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csc_array, dia_array, diags_array, eye_array, kron
from scipy.sparse.linalg import splu

from cpikan.errors import WHOLE, InputError, check_type

Local = Callable[
    [np.ndarray], np.ndarray
]  # values on the edges of boxes (B, 4 cells) to those inside (B, cells - 1, cells - 1)


class HarmonicBox:
    """Solve Laplace's equation by five points on one box of ``cells`` x ``cells``, factored once for any values on its edge.

    Raises InputError for an odd number of cells, whose middle is no grid line, or less than two.
    """

    def __init__(self, cells: int) -> None:
        check_cells(cells)
        factor = splu(five_points(cells - 1, cells - 1))
        self._answer = factor.solve(edge_neighbours(cells))

    def __call__(self, edges: np.ndarray) -> np.ndarray:
        """Find the values inside, (B, cells - 1, cells - 1), for those on the edges (B, 4 cells), see ``edge_places``."""
        n = math.isqrt(len(self._answer))
        return (edges @ self._answer.T).reshape(len(edges), n, n)


@dataclass(frozen=True)
class Flow:
    """The grid of values, how many sweeps they took, and the largest change of the last one relative to the largest value."""

    values: np.ndarray
    sweeps: int
    change: float


@dataclass(frozen=True)
class MosaicFlow:
    """Boxes of ``cells`` x ``cells``, half over each other, on a domain of ``halves`` (rows, columns) half boxes.

    ``local`` solves in one box: exactly (`HarmonicBox`) or as a network learned to (`LearnedBox`); nothing else knows the
    equation. A sweep takes the boxes in four colours; those of a colour share edges only, and are one batch. Of each the values
    on its middle lines are kept, on which the edges of others lie. Source: Wang, Planas, Chandramowlishwaran and Bostanabad,
    Comput. Methods Appl. Mech. Eng. 389, 114424 (2022). Raises InputError for less than one box.
    """

    local: Local
    cells: int
    halves: tuple[int, int]
    _colours: list[np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_cells(self.cells)
        check_type("half boxes of a domain", self.halves, Sequence, "two whole numbers, as (4, 4)")
        if len(self.halves) != 2:
            raise InputError(f"half boxes {tuple(self.halves)} of a domain: give two numbers, rows and columns")
        if min(self.halves) < 2:
            raise InputError(
                f"a domain of {self.halves[0]} x {self.halves[1]} half boxes: give at least 2 x 2, one box"
            )
        half, width = self.cells // 2, self.shape[1]
        firsts = [
            np.add.outer(half * width * np.arange(row, rows - 1, 2), half * np.arange(column, columns - 1, 2)).ravel()
            for rows, columns in [self.halves]
            for row in (0, 1)
            for column in (0, 1)
        ]
        object.__setattr__(self, "_colours", [one for one in firsts if len(one)])

    @property
    def shape(self) -> tuple[int, int]:
        """Return the grid points, edges included."""
        half = self.cells // 2
        return self.halves[0] * half + 1, self.halves[1] * half + 1

    def sweep(self, values: np.ndarray) -> float:
        """Take every box once, in place; gives the largest change of a value from before the sweep."""
        edges, cross, middle = self._places()
        flat, before = values.reshape(-1), values.copy()
        for first in self._colours:
            inside = self.local(flat[first[:, None] + edges])
            flat[first[:, None] + middle] = inside.reshape(len(first), -1)[:, cross]
        return float(np.abs(values - before).max())

    def solve(self, values: np.ndarray, tolerance: float = 1e-10, most: int = 10_000) -> Flow:
        """Sweep from ``values`` (shape), whose edge stays, until a sweep changes less than ``tolerance`` of the largest value.

        Then every box is filled. Raises InputError for values of another shape.
        """
        self.check(values)
        found = np.array(values, dtype=float, order="C")
        size, change, sweeps = max(float(np.abs(found).max()), 1e-300), math.inf, 0
        while sweeps < most and not change <= tolerance:
            change, sweeps = self.sweep(found) / size, sweeps + 1
        self.fill(found)
        return Flow(found, sweeps, change)

    def check(self, values: np.ndarray) -> None:
        """Raise InputError for values of another shape than the grid."""
        if values.shape != self.shape:
            raise InputError(f"values of shape {values.shape}: give {self.shape}, for the grid with its edge")

    def fill(self, values: np.ndarray) -> None:
        """Put the values inside of all boxes, in place, one colour after the other."""
        edges, _, _ = self._places()
        flat, n = values.reshape(-1), self.cells - 1
        inside = (np.add.outer(np.arange(1, n + 1) * self.shape[1], np.arange(1, n + 1))).ravel()
        for first in self._colours:
            flat[first[:, None] + inside] = self.local(flat[first[:, None] + edges]).reshape(len(first), -1)

    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """List the edge of a box in the flat grid, and its middle lines among the values inside, and in the grid."""
        rows, columns = edge_places(self.cells)
        n, half, width = self.cells - 1, self.cells // 2, self.shape[1]
        down, across = np.divmod(np.arange(n * n), n)
        cross = np.flatnonzero((down == half - 1) | (across == half - 1))
        return rows * width + columns, cross, (down[cross] + 1) * width + across[cross] + 1


def check_cells(cells: int) -> None:
    """Raise InputError for a box whose middle is no grid line."""
    check_type("cells of a box", cells, WHOLE, "an even number from 2 on")
    if cells < 2 or cells % 2:
        raise InputError(
            f"a box of {cells} x {cells} cells: give an even number from 2 on, so that its middle is a grid line"
        )


def edge_places(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """List rows and columns of the grid points on the edge of a box, (4 cells,) each: once around from its first corner."""
    way, end = np.arange(cells), np.full(cells, cells)
    none = np.zeros(cells, dtype=int)
    return np.concatenate([none, way, end, cells - way]), np.concatenate([way, end, cells - way, none])


def edge_neighbours(cells: int) -> np.ndarray:
    """Tell which points inside, (n^2), are beside which on the edge (4 cells)."""
    rows, columns = edge_places(cells)
    inside = np.stack(np.divmod(np.arange((cells - 1) ** 2), cells - 1), axis=1) + 1
    distance = np.abs(inside[:, :1] - rows) + np.abs(inside[:, 1:] - columns)
    return np.asarray(distance == 1, dtype=float)


def smooth_start(values: np.ndarray) -> np.ndarray:
    """Blend the edges of a grid into it, as a start: linear between them (Coons 1967)."""
    y, x = (np.linspace(0, 1, n) for n in values.shape)
    y = y[:, None]
    along = (1 - y) * values[0] + y * values[-1] + (1 - x) * values[:, :1] + x * values[:, -1:]
    corners = [
        (1 - y, 1 - x, values[0, 0]),
        (1 - y, x, values[0, -1]),
        (y, 1 - x, values[-1, 0]),
        (y, x, values[-1, -1]),
    ]
    return edged(np.asarray(along - sum(a * b * value for a, b, value in corners)), values)


def five_points(rows: int, columns: int) -> csc_array:
    """Make the five-point Laplacian, times -1, of a grid of so many points inside an edge of zeros."""

    def line(n: int) -> dia_array:
        return diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1], shape=(n, n))

    return (kron(line(rows), eye_array(columns)) + kron(eye_array(rows), line(columns))).tocsc()


def harmonic(values: np.ndarray) -> np.ndarray:
    """Solve the five-point equations inside the edge of a grid by one sparse factor of the whole: what boxes should find."""
    rows, columns = (n - 2 for n in values.shape)
    right = np.zeros((rows, columns))
    right[0] += values[0, 1:-1]
    right[-1] += values[-1, 1:-1]
    right[:, 0] += values[1:-1, 0]
    right[:, -1] += values[1:-1, -1]
    found = np.array(values, dtype=float)
    inside = splu(five_points(rows, columns), permc_spec="MMD_AT_PLUS_A").solve(right.ravel())
    found[1:-1, 1:-1] = inside.reshape(rows, columns)
    return found


def edged(inside: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Put the edge of ``values`` around what is inside, in place."""
    for side in (0, -1):
        inside[side], inside[:, side] = values[side], values[:, side]
    return inside
