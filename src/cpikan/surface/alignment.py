"""How one height map lies on another: a piston per component and a common tilt, undisturbed by wrong fringe orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.surface.levelling import scaled_coordinates

_SAMPLE = 2_000_000  # pixels behind the medians
_TILT_SAMPLE = 200_000  # pixels behind the robust start of the tilt
_FEWEST = 1_000  # a smaller component goes into the sample whole
_ROUNDS = 25


@dataclass(frozen=True)
class Block:
    """A run of rows of a difference of two maps in nm, NaN where either is invalid, starting at row ``start``.

    ``labels`` has the shape of the difference and numbers the components from 0; None means that all pixels are of one.
    """

    start: int
    difference_nm: NDArray[np.float64]
    labels: NDArray[np.int64] | None


Sweep = Callable[[], Iterable[Block]]


@dataclass(frozen=True)
class Alignment:
    """Pistons in nm (one per component) and tilt in nm (at y = 1 and x = 1 of coordinates in [-1, 1]) of a difference
    of maps.

    ``components`` counts the components that have a valid pixel.
    """

    shape: tuple[int, int]
    pistons_nm: NDArray[np.float64]
    tilt_nm: tuple[float, float] = (0.0, 0.0)
    components: int = 1

    def error(self, block: Block) -> NDArray[np.float64]:
        """The difference of a block without pistons and tilt, in nm, float64."""
        pistons = self.pistons_nm[0] if block.labels is None else self.pistons_nm[block.labels]
        error = block.difference_nm - pistons
        if self.tilt_nm != (0.0, 0.0):
            y = scaled_coordinates(self.shape[0])[block.start : block.start + len(error), None]
            error -= self.tilt_nm[0] * y + self.tilt_nm[1] * scaled_coordinates(self.shape[1])
        return error


@dataclass(frozen=True)
class _Points:
    """Single pixels of a difference: value in nm, component, coordinates in [-1, 1]."""

    value: NDArray[np.float64]
    label: NDArray[np.int64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]

    def every(self, step: int) -> _Points:
        return _Points(self.value[::step], self.label[::step], self.y[::step], self.x[::step])


def component_sizes(sweep: Sweep) -> NDArray[np.int64]:
    """Number of valid pixels per component."""
    sizes = np.zeros(1, np.int64)
    for block in sweep():
        valid = np.isfinite(block.difference_nm)
        if block.labels is None:
            sizes[0] += np.count_nonzero(valid)
            continue
        found = np.bincount(block.labels.ravel(), valid.ravel(), sizes.size).astype(np.int64)
        found[: sizes.size] += sizes
        sizes = found
    return sizes


def align(sweep: Sweep, shape: tuple[int, int], limit_nm: float, *, tilt: bool = False) -> Alignment:
    """Fit the pistons, and the tilt when asked, of a difference of maps of ``shape`` (H, W) that ``sweep()`` yields in
    blocks.

    The start is the median of an even sample per component (with tilt: least absolute deviations), which a minority of
    wrong orders does not move; then the mean (with tilt: least squares) over all pixels within ``limit_nm`` of it.
    Memory is that of one block and of about two million sampled pixels; the data are swept three times.
    """
    sizes = component_sizes(sweep)
    points = _sample(sweep, shape, sizes)
    slope = _robust_tilt(points, sizes.size, limit_nm) if tilt else (0.0, 0.0)
    level = _medians(points.value - slope[0] * points.y - slope[1] * points.x, points.label, sizes.size)
    start = Alignment(shape, level, slope)
    sums = _Moments(sizes.size)
    y, x = scaled_coordinates(shape[0]), scaled_coordinates(shape[1])
    for block in sweep():
        error = start.error(block)
        rows, columns = np.nonzero(np.abs(error) <= limit_nm)
        labels = np.zeros(rows.size, np.int64) if block.labels is None else block.labels[rows, columns]
        if tilt:
            sums.add(error[rows, columns], labels, y[block.start + rows], x[columns])
        else:
            sums.add(error[rows, columns], labels)
    pistons, change = sums.solve()
    total = (slope[0] + change[0], slope[1] + change[1]) if tilt else (0.0, 0.0)
    return Alignment(shape, level + pistons, total, int(np.count_nonzero(sizes)))


def _sample(sweep: Sweep, shape: tuple[int, int], sizes: NDArray[np.int64]) -> _Points:
    """Evenly spaced valid pixels, small components whole."""
    steps = _sample_steps(sizes, shape[1])
    parts = [_sample_block(block, shape, steps) for block in sweep()]
    return _Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "label", "y", "x")))


def _sample_block(block: Block, shape: tuple[int, int], steps: NDArray[np.int64]) -> _Points:
    index = np.arange(block.difference_nm.size).reshape(block.difference_nm.shape) + block.start * shape[1]
    step = steps[0] if block.labels is None else steps[block.labels]
    rows, columns = np.nonzero((index % step == 0) & np.isfinite(block.difference_nm))
    labels = np.zeros(rows.size, np.int64) if block.labels is None else block.labels[rows, columns]
    y, x = scaled_coordinates(shape[0])[block.start + rows], scaled_coordinates(shape[1])[columns]
    return _Points(block.difference_nm[rows, columns], labels, y, x)


def _sample_steps(sizes: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Step between sampled pixels of each component; never a divisor of the width, which would pick out columns."""
    fewest = max(1, min(_FEWEST, _SAMPLE // sizes.size))
    common = max(1, -(-int(sizes.sum()) // _SAMPLE))
    steps = np.clip(sizes // fewest, 1, common)
    while np.any(shared := np.gcd(steps, width) > 1):
        steps = steps + shared
    return steps


def _medians(values: NDArray[np.float64], labels: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Median per label; 0 for a label without values."""
    if count == 1:
        return np.array([np.median(values) if values.size else 0.0])
    values = values[np.lexsort((values, labels))]
    sizes = np.bincount(labels, minlength=count)
    ends = np.cumsum(sizes)
    low = np.clip(ends - sizes + (sizes - 1) // 2, 0, values.size - 1)
    high = np.clip(ends - sizes + sizes // 2, 0, values.size - 1)
    return np.where(sizes > 0, (values[low] + values[high]) / 2, 0.0) if values.size else np.zeros(count)


class _Moments:
    """Weighted least squares of values on a piston per component and a common slope, from sums."""

    def __init__(self, components: int) -> None:
        self._components = components
        self._sums = np.zeros((4, components))  # weight, value, y, x per component
        self._square = np.zeros((2, 2))
        self._cross = np.zeros(2)

    def add(
        self,
        value: NDArray[np.float64],
        label: NDArray[np.int64],
        y: NDArray[np.float64] | None = None,
        x: NDArray[np.float64] | None = None,
        weight: NDArray[np.float64] | None = None,
    ) -> None:
        weight = np.ones_like(value) if weight is None else weight
        for row, factor in enumerate(self._factors(value, y, x)):
            product = weight if factor is None else weight * factor
            self._sums[row] += np.bincount(label, product, self._components)
        if y is not None and x is not None:
            basis = np.stack([y, x])
            self._square += (basis * weight) @ basis.T
            self._cross += basis @ (weight * value)

    @staticmethod
    def _factors(
        value: NDArray[np.float64], y: NDArray[np.float64] | None, x: NDArray[np.float64] | None
    ) -> Iterator[NDArray[np.float64] | None]:
        yield None
        yield value
        if y is not None and x is not None:
            yield y
            yield x

    def solve(self) -> tuple[NDArray[np.float64], tuple[float, float]]:
        """Pistons per component (0 for an empty one) and slope along y and x."""
        weight = np.where(self._sums[0] > 0, self._sums[0], 1.0)
        value, position = self._sums[1] / weight, self._sums[2:] / weight
        # the pistons are eliminated: moments about the mean of each component
        square = self._square - (position * self._sums[0]) @ position.T
        cross = self._cross - position @ self._sums[1]
        size, direction = np.linalg.eigh(square)
        # a direction without spread within the components gets no slope: its eigenvalue is rounding of the full moment
        inverse = np.divide(1.0, size, out=np.zeros(2), where=size > 1e-10 * np.trace(self._square))
        slope = direction @ (inverse * (direction.T @ cross))
        return value - slope @ position, (float(slope[0]), float(slope[1]))


def _robust_tilt(points: _Points, components: int, limit_nm: float) -> tuple[float, float]:
    """Slope of least absolute deviations by reweighting, then least squares within the limit, on a sample."""
    points = points.every(max(1, points.value.size // _TILT_SAMPLE))
    slope = (0.0, 0.0)
    for round_ in range(_ROUNDS):
        rest = points.value - slope[0] * points.y - slope[1] * points.x
        rest -= _medians(rest, points.label, components)[points.label]
        size = np.abs(rest)
        # least absolute deviations: weights 1 / |r|, held where a residual is already far below the limit
        robust = round_ < _ROUNDS - 5
        weight = 1 / np.maximum(size, 1e-3 * limit_nm) if robust else (size <= limit_nm).astype(np.float64)
        sums = _Moments(components)
        sums.add(rest, points.label, points.y, points.x, weight)
        _, change = sums.solve()
        slope = (slope[0] + change[0], slope[1] + change[1])
    return slope
