"""How one height map lies on another: a piston per component and a common form, undisturbed by wrong fringe orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.apertures.aperture import Circle, ExtentScan
from cpikan.surface.forms.grouped_form import GroupedForm, GroupedFormFit
from cpikan.surface.forms.zernike import Mode, ZernikeBasis

_SAMPLE = 2_000_000  # pixels behind the medians
_FORM_SAMPLE = 200_000  # pixels behind the robust start of the form
_FORM_VALUES = 2_000_000  # and values of its modes at these: 16 MiB
_FEWEST = 1_000  # a smaller component goes into the sample whole
_ROUNDS = 25
_FEW_LABELS = 2**16  # numbers that any map may have


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
    """Pistons in nm (one per component) and the form that all components share, of a difference of maps.

    ``components`` counts the components that have a valid pixel.
    """

    form: GroupedForm
    components: int = 1

    @property
    def pistons_nm(self) -> NDArray[np.float64]:
        """Return the pistons in nm by the number of the component, from 0."""
        return self.form.constants_nm[1:]

    def error(self, block: Block) -> NDArray[np.float64]:
        """Subtract pistons and form from the difference of a block, in nm, float64."""
        return self.form.remove(block.start, block.difference_nm, None if block.labels is None else block.labels + 1)


@dataclass(frozen=True)
class _Points:
    """Single pixels of a difference: value in nm, component, row and column."""

    value: NDArray[np.float64]
    label: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]

    def every(self, step: int) -> _Points:
        return _Points(self.value[::step], self.label[::step], self.row[::step], self.column[::step])


def component_sizes(sweep: Sweep, pixels: int) -> NDArray[np.int64]:
    """Count the valid pixels of every component; InputError for a number that is negative, or above ``pixels`` of the map and
    so large that counting up to it could take all memory."""
    sizes = np.zeros(1, np.int64)
    for block in sweep():
        valid = np.isfinite(block.difference_nm)
        if block.labels is None:
            sizes[0] += np.count_nonzero(valid)
            continue
        low, high = int(block.labels.min(initial=0)), int(block.labels.max(initial=0))
        if low < 0 or high > max(pixels, _FEW_LABELS):
            raise InputError(
                f"component {low if low < 0 else high} of a map of {pixels} pixels: its map of components is damaged; make it "
                "again, or remove it"
            )
        found = np.bincount(block.labels.ravel(), valid.ravel(), sizes.size).astype(np.int64)
        found[: sizes.size] += sizes
        sizes = found
    return sizes


def align(
    sweep: Sweep,
    shape: tuple[int, int],
    limit_nm: float,
    modes: Sequence[Mode] = (),
    pupil: Circle | None = None,
    aspect: float = 1.0,
) -> Alignment:
    """Fit the pistons, and the ``modes`` common to all components, of a difference of maps of ``shape`` (H, W) that
    ``sweep()`` yields in blocks.

    The start is the median of an even sample per component (with modes: least absolute deviations), which a minority of
    wrong orders does not move; then the mean (with modes: least squares) over all pixels within ``limit_nm`` of it.
    Without a pupil the modes are those of the circle around the valid pixels (rows ``aspect`` columns apart); pixels
    outside one do not count. Memory is that of one block and of about two million sampled pixels; the data are swept
    three times.
    """
    sizes, around = _survey(sweep, shape, aspect)
    pupil = pupil or around
    modes = tuple(mode for mode in modes if mode != (0, 0))
    basis = ZernikeBasis(modes, pupil.obscuration)
    points = _sample(sweep, shape, sizes)
    coefficients = _robust_form(points, basis, pupil, sizes.size, limit_nm) if modes else np.zeros(0)
    level = _medians(points.value - _form_at(points, basis, pupil, coefficients), points.label, sizes.size)
    start = Alignment(GroupedForm(pupil, basis, tuple(coefficients.tolist()), np.concatenate([[0.0], level])))
    fit = GroupedFormFit(modes, pupil, sizes.size)
    for block in sweep():
        error = start.error(block)
        fit.add(block.start, error, None if block.labels is None else block.labels + 1, np.abs(error) <= limit_nm)
    change = fit.solve()
    total = coefficients + [change.coefficient_nm(mode) for mode in modes]
    form = GroupedForm(pupil, basis, tuple(total.tolist()), start.form.constants_nm + change.constants_nm)
    return Alignment(form, int(np.count_nonzero(sizes)))


def _survey(sweep: Sweep, shape: tuple[int, int], aspect: float) -> tuple[NDArray[np.int64], Circle]:
    """Count the valid pixels of every component, and find the circle around all of them."""
    extent = ExtentScan()

    def watched() -> Iterator[Block]:
        for block in sweep():
            extent.add(block.start, np.isfinite(block.difference_nm))
            yield block

    sizes = component_sizes(watched, shape[0] * shape[1])
    return sizes, extent.pupil(aspect) if extent.pixels else Circle(0.0, 0.0, 1.0)


def _at(points: _Points, basis: ZernikeBasis, pupil: Circle) -> NDArray[np.float64]:
    """Evaluate the modes at the points, (modes, points)."""
    return basis.values(*pupil.coordinates(points.row, points.column))


def _form_at(
    points: _Points, basis: ZernikeBasis, pupil: Circle, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Evaluate the form at the points, some at a time."""
    found = np.zeros(points.value.size)
    step = max(1, _FORM_VALUES // max(1, len(basis.modes)))
    for first in range(0, found.size if basis.modes else 0, step):
        part = slice(first, first + step)
        found[part] = coefficients @ basis.values(*pupil.coordinates(points.row[part], points.column[part]))
    return found


def _sample(sweep: Sweep, shape: tuple[int, int], sizes: NDArray[np.int64]) -> _Points:
    """Pick evenly spaced valid pixels, small components whole."""
    steps = _sample_steps(sizes, shape[1])
    parts = [_sample_block(block, shape, steps) for block in sweep()]
    names = ("value", "label", "row", "column")
    return _Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _sample_block(block: Block, shape: tuple[int, int], steps: NDArray[np.int64]) -> _Points:
    index = np.arange(block.difference_nm.size).reshape(block.difference_nm.shape) + block.start * shape[1]
    step = steps[0] if block.labels is None else steps[block.labels]
    rows, columns = np.nonzero((index % step == 0) & np.isfinite(block.difference_nm))
    labels = np.zeros(rows.size, np.int64) if block.labels is None else block.labels[rows, columns]
    return _Points(block.difference_nm[rows, columns], labels, block.start + rows, columns)


def _sample_steps(sizes: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Choose the step between sampled pixels per component; no divisor of the width, which would pick out columns."""
    fewest = max(1, min(_FEWEST, _SAMPLE // sizes.size))
    common = max(1, -(-int(sizes.sum()) // _SAMPLE))
    steps = np.clip(sizes // fewest, 1, common)
    while np.any(shared := np.gcd(steps, width) > 1):
        steps = steps + shared
    return steps


def _medians(values: NDArray[np.float64], labels: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Compute the median per label; 0 for a label without values."""
    if count == 1:
        return np.array([np.median(values) if values.size else 0.0])
    values = values[np.lexsort((values, labels))]
    sizes = np.bincount(labels, minlength=count)
    ends = np.cumsum(sizes)
    low = np.clip(ends - sizes + (sizes - 1) // 2, 0, values.size - 1)
    high = np.clip(ends - sizes + sizes // 2, 0, values.size - 1)
    return np.where(sizes > 0, (values[low] + values[high]) / 2, 0.0) if values.size else np.zeros(count)


def _robust_form(
    points: _Points, basis: ZernikeBasis, pupil: Circle, components: int, limit_nm: float
) -> NDArray[np.float64]:
    """Fit coefficients by reweighted least absolute deviations, then least squares within the limit, on a sample."""
    most = min(_FORM_SAMPLE, _FORM_VALUES // len(basis.modes))
    points = points.every(max(1, points.value.size // most))
    values = _at(points, basis, pupil)
    found = np.zeros(len(values))
    for round_ in range(_ROUNDS):
        rest = points.value - found @ values
        rest -= _medians(rest, points.label, components)[points.label]
        size = np.abs(rest)
        # least absolute deviations: weights 1 / |r|, held where a residual is already far below the limit
        robust = round_ < _ROUNDS - 5
        weight = 1 / np.maximum(size, 1e-3 * limit_nm) if robust else (size <= limit_nm).astype(np.float64)
        found = found + _weighted(values, rest, points.label, weight, components)
    return found


def _weighted(
    values: NDArray[np.float64],
    rest: NDArray[np.float64],
    label: NDArray[np.int64],
    weight: NDArray[np.float64],
    components: int,
) -> NDArray[np.float64]:
    """Fit ``rest`` by weighted least squares of modes and a piston per component; return the modes' coefficients."""
    heavy = np.bincount(label, weight, components)
    heavy = np.where(heavy > 0, heavy, 1.0)

    def centred(row: NDArray[np.float64]) -> NDArray[np.float64]:
        return row - (np.bincount(label, weight * row, components) / heavy)[label]

    modes = np.stack([centred(row) for row in values])
    weighted = modes * weight
    size, direction = np.linalg.eigh(weighted @ modes.T)
    # a direction without spread within the components gets nothing: its eigenvalue is rounding
    large = size > 1e-10 * max(float(weight.sum()), 1e-300)
    change: NDArray[np.float64] = direction @ (
        np.divide(1.0, size, out=np.zeros_like(size), where=large) * (direction.T @ (weighted @ rest))
    )
    return change
