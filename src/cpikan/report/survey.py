"""What a report shows of a height map, gathered band by band: reduced pictures, histogram, profiles, numbers, seams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cpikan.pipeline.maps.evaluate import Comparison
from cpikan.pipeline.maps.height_map import MapRows
from cpikan.report.seams import SeamCheck, SeamSums, borders_of
from cpikan.report.stored_map import stored_reduction
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Events
from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms.form import form_modes
from cpikan.surface.forms.grouped_form import GroupedForm, GroupedFormFit
from cpikan.surface.sums.tallies import HeightTally

if TYPE_CHECKING:
    from cpikan.pipeline.maps.height_map import HeightMap


_LONGEST = 1200  # pixels of the longer side of a picture


def reduction(shape: tuple[int, int], pixels: int) -> int:
    """Compute the block size that brings an image below ``pixels`` in all and 1200 along its longer side."""
    return max(1, math.ceil(max(shape) / _LONGEST), math.ceil(math.sqrt(shape[0] * shape[1] / pixels)))


class _Blocks:
    """Where blocks of ``factor`` x ``factor`` pixels, or of (rows, columns), lie; the last row and column of blocks may be
    smaller."""

    def __init__(self, shape: tuple[int, int], factor: int | tuple[int, int]) -> None:
        self.block = (factor, factor) if isinstance(factor, int) else factor
        self.shape = shape
        self.reduced = (-(-shape[0] // self.block[0]), -(-shape[1] // self.block[1]))
        self._columns = np.arange(0, shape[1], self.block[1])

    def _fold(self, start: int, rows: NDArray, add: np.ufunc) -> tuple[slice, NDArray]:
        """Combine rows [start, start + n) by blocks; returns the block rows they belong to and the result."""
        size = self.block[0]
        first = start // size
        borders = np.arange(first, (start + len(rows) - 1) // size + 1) * size - start
        folded = add.reduceat(add.reduceat(rows, self._columns, axis=1), np.maximum(borders, 0), axis=0)
        return slice(first, first + len(folded)), folded


class BlockMean(_Blocks):
    """Mean of the finite values of each block, float64; NaN where a block has none."""

    def __init__(self, shape: tuple[int, int], factor: int | tuple[int, int]) -> None:
        super().__init__(shape, factor)
        self._sums, self._counts = np.zeros(self.reduced), np.zeros(self.reduced)

    def add(self, start: int, rows: NDArray) -> None:
        finite = np.isfinite(rows)
        where, sums = self._fold(start, np.where(finite, rows, 0).astype(np.float64), np.add)
        self._sums[where] += sums
        self._counts[where] += self._fold(start, finite.astype(np.int64), np.add)[1]

    def result(self) -> NDArray[np.float64]:
        return np.divide(self._sums, self._counts, out=np.full(self.reduced, np.nan), where=self._counts > 0)


class BlockOr(_Blocks):
    """All flags that occur in each block."""

    def __init__(self, shape: tuple[int, int], factor: int | tuple[int, int]) -> None:
        super().__init__(shape, factor)
        self._flags = np.zeros(self.reduced, np.int64)

    def add(self, start: int, rows: NDArray[np.integer]) -> None:
        where, flags = self._fold(start, rows.astype(np.int64), np.bitwise_or)
        self._flags[where] |= flags

    def result(self) -> NDArray[np.int64]:
        return self._flags


FloatArray = NDArray[np.floating]

# so that six noisy pictures and the stored map stay below 3 MB
MAIN_PIXELS, SIDE_PIXELS = 240_000, 120_000
_BINS = 240
_SIGMA_SAMPLE = 500_000
_SLOPE = "slope"  # the length of the gradient


@dataclass(frozen=True)
class Histogram:
    """Counts per bin, bin edges in the unit of the values, and how many values lie outside the edges."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    outside: int


@dataclass(frozen=True)
class ErrorSurvey:
    """Against a truth: reduced error in nm, its histogram, and the check of each family of borders."""

    picture: FloatArray
    histogram: Histogram | None
    limit_nm: float
    seams: dict[str, SeamCheck]


@dataclass(frozen=True)
class Survey:
    """Pictures are block means (flags: block OR) of the map; heights and sigma in nm, slopes (length of the
    gradient) in nm per pixel, None where the map has none. ``stored`` are the means of blocks of ``stored_block`` (rows,
    columns) that the page carries."""

    shape: tuple[int, int]
    height: FloatArray
    levelled: FloatArray
    sigma: FloatArray | None
    modulation: FloatArray | None
    slope: FloatArray | None
    flags: NDArray[np.integer] | None
    flag_shares: dict[int, float]
    plane: GroupedForm
    raw: HeightTally
    flat: HeightTally
    sigma_median_nm: float | None
    histogram: Histogram | None
    row: FloatArray
    column: FloatArray
    error: ErrorSurvey | None = None
    stored: FloatArray | None = None
    stored_block: tuple[int, int] = (1, 1)


def survey(height_map: HeightMap, comparison: Comparison | None = None, *, progress: bool | Events = False) -> Survey:
    """Read a map twice (with a comparison: its error once more) in bands and keep what the report shows."""
    reader = MapRows(height_map, "report", progress=progress)
    shape = height, width = reader.shape
    picture, fit, raw = BlockMean(shape, reduction(shape, MAIN_PIXELS)), _plane_fit(shape), HeightTally()
    stored = BlockMean(shape, stored_reduction(shape))
    side = _SidePictures(height_map, shape)
    row, column = np.zeros(width), np.empty(height)
    for band, rows in reader.heights(", pass 1 of 2"):
        picture.add(band.start, rows)
        stored.add(band.start, rows)
        fit.add(band.start, rows)
        raw.add(rows)
        side.add(reader, band)
        column[band.start : band.stop] = rows[:, width // 2]
        if band.start <= height // 2 < band.stop:
            row = np.asarray(rows[height // 2 - band.start], np.float64)
    plane, flat = fit.solve(), HeightTally()
    bins = _Bins(picture.result())
    for band, rows in reader.heights(", pass 2 of 2"):
        flat.add(plane.remove(band.start, rows))
        bins.add(rows)
    return Survey(
        shape=shape,
        height=picture.result(),
        levelled=_levelled(picture, plane),
        sigma=side.mean("sigma_nm"),
        modulation=side.mean("modulation"),
        slope=side.mean(_SLOPE),
        flags=side.flags.result() if side.flags else None,
        flag_shares=side.flag_shares(),
        plane=plane,
        raw=raw,
        flat=flat,
        sigma_median_nm=side.sigma_median(),
        histogram=bins.result(),
        row=row,
        column=column,
        error=None if comparison is None else _survey_error(comparison, height_map.document),
        stored=stored.result(),
        stored_block=stored.block,
    )


def _plane_fit(shape: tuple[int, int]) -> GroupedFormFit:
    """Set up the fit of piston and tilt over all pixels of an image."""
    middle_y, middle_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    return GroupedFormFit(form_modes("piston,tilt"), Circle(middle_x, middle_y, max(1.0, np.hypot(middle_y, middle_x))))


def _levelled(picture: BlockMean, plane: GroupedForm) -> FloatArray:
    """Subtract the plane, averaged over the same blocks, from the reduced heights."""
    tilt = BlockMean(picture.shape, picture.block)
    step = max(1, (1 << 20) // picture.shape[1])
    for start in range(0, picture.shape[0], step):
        every = np.ones((min(step, picture.shape[0] - start), picture.shape[1]), bool)
        tilt.add(start, plane.rows(start, every) + plane.constants_nm[1])
    return picture.result() - tilt.result()


class _SidePictures:
    """Sigma, modulation, slopes and flags on the way to their pictures."""

    def __init__(self, height_map: HeightMap, shape: tuple[int, int]) -> None:
        factor = reduction(shape, SIDE_PIXELS)
        names = [name for name in ("sigma_nm", "modulation") if getattr(height_map, name) is not None]
        self._means = {name: BlockMean(shape, factor) for name in names}
        axes = (height_map.slope_y_nm_per_px, height_map.slope_x_nm_per_px)
        if all(axis is not None for axis in axes):
            self._means[_SLOPE] = BlockMean(shape, factor)
        self.flags = BlockOr(shape, factor) if height_map.flags is not None else None
        self._pixels = shape[0] * shape[1]
        self._counts: dict[int, int] = {}
        self._sigma: list[FloatArray] = []

    def add(self, reader: MapRows, band: Band) -> None:
        for name, mean in self._means.items():
            rows = _steepness(reader, band) if name == _SLOPE else reader.read(name, band)
            assert rows is not None
            mean.add(band.start, rows)
            if name == "sigma_nm":
                step = max(1, self._pixels // _SIGMA_SAMPLE) | 1
                sample = rows.ravel()[::step]
                self._sigma.append(sample[np.isfinite(sample)].astype(np.float64))
        flags = reader.read("flags", band)
        if flags is not None and self.flags is not None:
            self.flags.add(band.start, flags)
            for bit in range(8):
                share = int(np.count_nonzero(flags & (1 << bit)))
                self._counts[1 << bit] = self._counts.get(1 << bit, 0) + share

    def mean(self, name: str) -> FloatArray | None:
        return self._means[name].result() if name in self._means else None

    def flag_shares(self) -> dict[int, float]:
        return {bit: count / self._pixels for bit, count in self._counts.items()}

    def sigma_median(self) -> float | None:
        sample = np.concatenate(self._sigma) if self._sigma else np.zeros(0)
        return float(np.median(sample)) if sample.size else None


def _steepness(reader: MapRows, band: Band) -> FloatArray:
    """Compute the length of the gradient in nm per pixel."""
    rows = [reader.read(name, band) for name in ("slope_y_nm_per_px", "slope_x_nm_per_px")]
    assert rows[0] is not None
    assert rows[1] is not None
    return np.hypot(rows[0], rows[1])


class _Bins:
    """A histogram whose edges come from a reduced picture: its range without the outermost thousandth, and some air."""

    def __init__(self, picture: FloatArray, keep: float = 99.9) -> None:
        finite = picture[np.isfinite(picture)]
        self._edges = None
        self._outside = 0
        if finite.size:
            low, high = (float(v) for v in np.percentile(finite, [100 - keep, keep]))
            air = 0.1 * (high - low) or 1.0
            self._edges = np.linspace(low - air, high + air, _BINS + 1)
            self._counts = np.zeros(_BINS, np.int64)

    def add(self, rows: FloatArray) -> None:
        if self._edges is None:
            return
        finite = rows[np.isfinite(rows)]
        counts = np.histogram(finite, self._edges)[0]
        self._counts += counts
        self._outside += int(finite.size - counts.sum())

    def result(self) -> Histogram | None:
        return None if self._edges is None else Histogram(self._counts, self._edges, self._outside)


def _survey_error(comparison: Comparison, document: dict[str, Any]) -> ErrorSurvey:
    shape = comparison.rows.shape
    factor = reduction(shape, SIDE_PIXELS)
    of_right, of_all, wrong_share = (BlockMean(shape, factor) for _ in range(3))
    sums = SeamSums(shape)
    sample: list[FloatArray] = []
    for band, error in comparison.errors():
        right = np.where(np.abs(error) <= comparison.limit_nm, error, np.nan)
        of_right.add(band.start, right)
        of_all.add(band.start, error)
        wrong_share.add(band.start, np.where(np.isfinite(error), np.isnan(right), np.nan))
        sums.add(band.start, right)
        step = max(1, shape[0] * shape[1] // _SIGMA_SAMPLE) | 1
        sample.append(right.ravel()[::step])
    values = np.concatenate(sample)
    bins = _Bins(values)
    bins.add(values)
    # one wrong order would colour a block of hundreds of right pixels: it shows where it holds a quarter of the block
    picture = np.where(wrong_share.result() >= 0.25, of_all.result(), of_right.result())
    return ErrorSurvey(picture, bins.result(), comparison.limit_nm, sums.checks(borders_of(document, shape)))
