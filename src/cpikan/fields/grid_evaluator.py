"""GridEvaluator: a fitted field on the pixels of an image, row by row, compiled; without torch in the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from cpikan.errors import InputError
from cpikan.fields.grid_kernels import add_network, add_tensor
from cpikan.partition.windows import Profile, window
from cpikan.streaming.threads import RowPool

_ROWS = 64  # of a band, per thread: tens of milliseconds of work, and 2.4 MB of a row of 9344 pixels


class Patch(Protocol):
    """Part of the image that one network covers: rows [first, last) and columns [left, right)."""

    first: int
    last: int
    left: int
    right: int

    def add(self, start: int, out: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where a network has weight on the grid: index ranges, coordinates there scaled to [-1, 1] at ``rate`` (y, x) per unit,
    and its windows with their derivatives."""

    first: int
    last: int
    left: int
    right: int
    y: np.ndarray
    x: np.ndarray
    rate: tuple[float, float]
    row_window: Profile
    column_window: Profile


@dataclass(frozen=True)
class Piece:
    """A network at its place: the coefficients of a tensor field, or weights and biases of layers."""

    place: Place
    weights: list[np.ndarray]
    biases: list[np.ndarray]

    @property
    def tensor(self) -> bool:
        return not self.biases


class GridEvaluator:
    """A field of two coordinates on the grid of ``y`` (H,) and ``x`` (W,), rising: float32 values (H, W).

    Takes a single ``ScaledCPIKAN`` or ``TensorChebyshev``, or a ``DecomposedField`` of them, and one of its outputs. The
    first layer of a network is a sum of a function of y and one of x, so it costs one addition per node. A pixel of a
    [2, 8, 8, 1] network of degree 5 then needs 2 * 8 * 8 * 5 + 2 * 8 * 5 operations in the layers, 16 * 8 for the
    polynomials and 16 hyperbolic tangents of 23: about 1220, which a core with 16-lane vectors and two multiply-adds per
    cycle does in no less than 6 ns at 3 GHz. No result depends on bands or threads.
    """

    def __init__(self, field: Any, y: np.ndarray, x: np.ndarray, output: int = 0) -> None:
        self.shape = (len(y), len(x))
        self._pieces = GridPieces(field, y, x, output)

    def fill(self, first: int, out: np.ndarray) -> None:
        """Fill the rows from ``first`` on, as many as ``out`` (rows, W), float32 and C-contiguous, has."""
        out[...] = 0
        last = first + len(out)
        for piece in self._pieces.between(first, last):  # made anew: those of all rows would grow with the image
            patch: Patch = _TensorPatch(piece.place, piece.weights[0]) if piece.tensor else _NetworkPatch(piece)
            start, stop = max(first, patch.first), min(last, patch.last)
            patch.add(start, out[start - first : stop - first, patch.left : patch.right])

    def bands(self, threads: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order, as (first row, (rows, W)); the array is used again for the next band."""
        height, width = self.shape
        buffer = np.empty((min(height, _ROWS * threads), width), np.float32)
        with RowPool(threads, "cpikan-grid") as pool:
            for row in range(0, height, len(buffer)):
                band = buffer[: height - row]
                pool.map(partial(self._fill_part, row, band), len(band), _ROWS)
                yield row, band

    def _fill_part(self, row: int, band: np.ndarray, start: int, stop: int) -> None:
        self.fill(row + start, band[start:stop])

    def write(self, target: Any, threads: int = 1) -> None:
        """Fill anything that takes ``target[a:b] = rows``: an array, a memory map, a Zarr array."""
        for row, band in self.bands(threads):
            target[row : row + len(band)] = band


class _NetworkPatch:
    """One Chebyshev network on its part of the image."""

    def __init__(self, piece: Piece) -> None:
        place, weights, biases = piece.place, piece.weights, piece.biases
        self.first, self.last, self.left, self.right = place.first, place.last, place.left, place.right
        degree = len(weights[0]) // 2
        y, x = (chebvander(scaled, degree)[:, 1:] for scaled in (place.y, place.x))
        self._rows = (y @ weights[0][0::2] + biases[0]).astype(np.float32)
        self._columns = np.ascontiguousarray((x @ weights[0][1::2]).T, np.float32)
        self._weights, self._biases, self._sizes = pack(len(biases[0]), weights[1:], biases[1:])
        self._row_window = place.row_window.value.astype(np.float32)
        self._column_window = place.column_window.value.astype(np.float32)

    def add(self, start: int, out: np.ndarray) -> None:
        """Add the patch's rows from ``start`` on."""
        rows = slice(start - self.first, start - self.first + len(out))
        add_network(
            self._rows[rows],
            self._columns,
            self._weights,
            self._biases,
            self._sizes,
            self._row_window[rows],
            self._column_window,
            out,
        )


class _TensorPatch:
    """One tensor Chebyshev field on its part of the image: the windows are multiplied into the two bases."""

    def __init__(self, place: Place, coefficients: np.ndarray) -> None:
        self.first, self.last, self.left, self.right = place.first, place.last, place.left, place.right
        m0, m1 = coefficients.shape
        rows = place.row_window.value[:, None] * (chebvander(place.y, m0 - 1) @ coefficients)
        self._rows = rows.astype(np.float32)
        columns = place.column_window.value[:, None] * chebvander(place.x, m1 - 1)
        self._columns = np.ascontiguousarray(columns.T, np.float32)

    def add(self, start: int, out: np.ndarray) -> None:
        """Add the patch's rows from ``start`` on."""
        add_tensor(self._rows[start - self.first : start - self.first + len(out)], self._columns, out)


class GridPieces:
    """The networks of a field on a grid, each made when its rows are asked for."""

    def __init__(self, field: Any, y: np.ndarray, x: np.ndarray, output: int = 0) -> None:
        self._y, self._x = np.asarray(y, np.float64), np.asarray(x, np.float64)
        rising = all(c.ndim == 1 and (np.diff(c) > 0).all() for c in (self._y, self._x))
        if field.dimension != 2 or not rising:
            raise InputError("a grid needs a field of two coordinates and two rising lists of coordinates")
        if not 0 <= output < field.outputs:
            raise InputError(f"output {output} of a field with {field.outputs}: give 0 to {field.outputs - 1}")
        self._output, self._whole = output, not hasattr(field, "partition")
        self._parts = field if self._whole else field.parts
        if self._whole:
            if field.networks is not None:
                raise InputError(
                    f"a grid of {field.networks} fields at once: give a single field, or a DecomposedField"
                )
            ends = ((0, len(c), Profile(np.ones_like(c), *np.zeros((2, *c.shape)))) for c in (self._y, self._x))
            self._spans = [[end] for end in ends]
            self._rows = [[(0, 0)]]
            return
        grid = zip(field.partition.axes, (self._y, self._x), strict=True)
        self._spans = [[_span(axis, i, c) for i in range(len(axis))] for axis, c in grid]
        self._rows = [[] for _ in self._spans[0]]
        for box in field.partition:  # row by row
            self._rows[box.position[0]].append((box.index, box.position[1]))

    def between(self, first: int, last: int) -> Iterator[Piece]:
        """Yield the networks that have weight on rows [first, last), always in the same order."""
        for (a, b, wy), boxes in zip(self._spans[0], self._rows, strict=True):
            if max(a, first) >= min(b, last):
                continue
            places = {}
            for index, column in boxes:
                c, d, wx = self._spans[1][column]
                if c < d:
                    places[index] = (self._y[a:b], self._x[c:d], wy, wx, a, b, c, d)
            yield from _of_networks(self._parts, places, self._output)


def grid_pieces(field: Any, y: np.ndarray, x: np.ndarray, output: int = 0) -> Iterator[Piece]:
    """List the networks of a field that have weight on the grid; raises InputError for a field or a grid that do not match."""
    return GridPieces(field, y, x, output).between(0, len(y))


def _span(axis: Any, i: int, coordinates: np.ndarray) -> tuple[int, int, Profile]:
    """Find the range of coordinates where window i is not zero, and the window there; the ends reach to infinity."""
    low, high = axis.support(i)
    a = int(np.searchsorted(coordinates, low)) if i else 0
    b = int(np.searchsorted(coordinates, high)) if i < len(axis) - 1 else len(coordinates)
    return a, b, window(axis, i, coordinates[a:b])


def _of_networks(field: Any, boxes: dict[int, tuple[Any, ...]], output: int) -> Iterator[Piece]:
    """Yield a piece per network that has pixels."""
    lower, upper = (_plain(bound) for bound in (field.scaling.lower, field.scaling.upper))
    tensor = hasattr(field, "coefficients")
    weights = [_plain(field.coefficients)] if tensor else [_plain(layer.weight) for layer in field.layers]
    biases = [] if tensor else [_plain(layer.bias) for layer in field.layers]
    for index, (y, x, row_window, column_window, a, b, c, d) in boxes.items():
        low, high = (bound[index] if bound.ndim == 2 else bound for bound in (lower, upper))
        scaled = [2 * ((v - low[k]) / (high[k] - low[k])) - 1 for k, v in enumerate((y, x))]
        rate = (2 / float(high[0] - low[0]), 2 / float(high[1] - low[1]))
        place = Place(a, b, c, d, scaled[0], scaled[1], rate, row_window, column_window)
        w, o = ([s if field.networks is None else s[index] for s in store] for store in (weights, biases))
        if not tensor:
            w[-1], o[-1] = w[-1][:, output : output + 1], o[-1][output : output + 1]
            if not (w[-1].any() or o[-1].any()):  # zero everywhere: nothing to add
                continue
        yield Piece(place, w, o)


def pack(inputs: int, weights: list[np.ndarray], biases: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pack the layers after the first into one array (layers, inputs, outputs, degree) padded with zeros, and their sizes."""
    sizes = []
    for weight, bias in zip(weights, biases, strict=True):
        sizes.append((inputs, len(bias), len(weight) // inputs))
        inputs = len(bias)
    most = np.max([*sizes, (1, 1, 1)], axis=0)
    packed = np.zeros((len(sizes), *most), np.float32)
    constants = np.zeros((len(sizes), most[1]), np.float32)
    for layer, ((n, m, k), weight, bias) in enumerate(zip(sizes, weights, biases, strict=True)):
        packed[layer, :n, :m, :k] = weight.reshape(k, n, m).transpose(1, 2, 0)
        constants[layer, :m] = bias
    return packed, constants, np.array(sizes, np.int64).reshape(-1, 3)


def _plain(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy(), np.float64)
