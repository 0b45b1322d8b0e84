"""The form of a surface: piston, tilt, power and more, fitted by normal equations over bands of rows and removed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped
from numpy.typing import NDArray

from cpikan.errors import InputError, check_name, unknown_name
from cpikan.masked import without_mask
from cpikan.surface.apertures.aperture import Circle, circle_around
from cpikan.surface.forms.chords import Chords, chord_moments, chord_values, degree, node_weights
from cpikan.surface.forms.zernike import MAX_ORDER, NUMBERINGS, Mode, ZernikeBasis, ansi_index, modes_up_to

FloatArray = NDArray[np.float64]

FORM_TERMS: dict[str, tuple[Mode, ...]] = {
    "piston": ((0, 0),),
    "tilt": ((1, 1), (1, -1)),
    "power": ((2, 0),),
    "astigmatism": ((2, 2), (2, -2)),
    "coma": ((3, 1), (3, -1)),
    "trefoil": ((3, 3), (3, -3)),
    "spherical": ((4, 0),),
}
FORM_SETS = {"zernike": "fringe", "noll": "noll", "ansi": "ansi"}
_ALIASES = {"sphere": "power", "fringe": "zernike"}
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")
_BLOCK_VALUES = 1 << 19  # basis values held at once: 4 MiB, inside the cache of a processor
_PIECE_PRODUCTS = 1 << 17


def check_form_terms(terms: str | Iterable[str]) -> tuple[str, ...]:
    """Return the terms without repeats, named ones first and from low to high order.

    Allowed are piston, tilt, power (or sphere), astigmatism, coma, trefoil, spherical, and whole sets: ``zernike:N``
    (fringe indices 1 to N; 36 is the usual set), ``noll:N`` (1 to N), ``ansi:N`` (0 to N), ``order:N`` (radial orders 0
    to N: every polynomial of that degree, so order:2 is the full second-order surface). A set may begin later:
    ``noll:5-8``, and ``noll:11-11`` is one term. One string may hold several, separated by commas. Raises InputError for
    anything else.
    """
    given = terms.split(",") if isinstance(terms, str) else list(terms)
    names = [_checked_term(name.strip()) for name in given if name.strip()]
    order = {name: place for place, name in enumerate(FORM_TERMS)}
    return tuple(sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order))))


def _checked_term(name: str) -> str:
    head, colon, count = name.partition(":")
    head = _ALIASES.get(head, head)
    if not colon:
        if head not in FORM_TERMS:
            raise unknown_name("term to remove", name, [*FORM_TERMS, *(f"{kind}:N" for kind in (*FORM_SETS, "order"))])
        return head
    check_name("set of terms", head, (*FORM_SETS, "order"))
    numbers = _RANGE.fullmatch(count)
    if numbers is None:
        raise InputError(f"term to remove {name!r} has no count: write {head}:N or {head}:A-B, such as zernike:36")
    canonical = f"{head}:{int(numbers[1])}" + (f"-{int(numbers[2])}" if numbers[2] else "")
    if not _term_modes(canonical):
        raise InputError(f"term to remove {name!r} names nothing: write {head}:A-B with A up to B")
    return canonical


def _term_modes(name: str) -> tuple[Mode, ...]:
    head, colon, count = name.partition(":")
    if not colon:
        return FORM_TERMS[head]
    first, dash, last = count.partition("-")
    final = int(last if dash else first)
    if head != "order":
        every, before = modes_up_to(FORM_SETS[head], final), 0
        if dash:
            modes_up_to(FORM_SETS[head], int(first))  # an index that exists
            before = int(first) - NUMBERINGS[FORM_SETS[head]].first
        return every[before:]
    if final > MAX_ORDER:
        raise InputError(f"Zernike order {final} is too high: at most {MAX_ORDER} is supported")
    lowest = int(first) if dash else 0
    return tuple(mode for mode in modes_up_to("ansi", ansi_index((final, final))) if mode[0] >= lowest)


def form_modes(terms: str | Iterable[str]) -> tuple[Mode, ...]:
    """List the Zernike modes that the terms name, each once, by radial order."""
    modes = {mode for name in check_form_terms(terms) for mode in _term_modes(name)}
    return tuple(sorted(modes, key=ansi_index))


def _pieces(matrix: FloatArray) -> FloatArray:
    """Cut a wide matrix (rows, points) into a stack (pieces, rows, some points), zeros at the end.

    Products of so small matrices run on the calling thread: a threaded BLAS loses far more on a shared machine than it
    wins here.
    """
    rows, points = matrix.shape
    size = min(1024, max(16, _PIECE_PRODUCTS // max(1, rows) ** 2))
    padded = np.zeros((rows, -(-points // size) * size))
    padded[:, :points] = matrix
    return padded.reshape(rows, -1, size).transpose(1, 0, 2)


def surface_rows(
    basis: ZernikeBasis,
    pupil: Circle,
    coefficients: Float64[np.ndarray, "surfaces modes"],
    start: int,
    wanted: Bool[np.ndarray, "rows w"],
) -> Float64[np.ndarray, "surfaces rows w"]:
    """Evaluate surfaces of coefficient rows (surfaces, modes) on the pupil pixels ``wanted``; NaN where not wanted.

    Along chords: as fast as a plane, and the same bits in any bands.
    """
    out = np.full((len(coefficients), *wanted.shape), np.nan)
    rows = _used_rows(wanted)
    part = np.ascontiguousarray(wanted[rows])
    chords = Chords.of(pupil, start + rows.start, len(part), wanted.shape[1])
    # one mode after the other: a product of matrices may sum in another order for another number of rows
    series = np.zeros((len(coefficients), *chords.half.shape, degree(basis) + 1))
    for column, values in zip(coefficients.T, chords.series(basis), strict=True):
        series += column[:, None, None, None] * values
    chord_values(series, part, chords.split, chords.centre, chords.half, out[:, rows])
    return out


def _used_rows(wanted: NDArray[np.bool_]) -> slice:
    """Find the rows from the first to the last wanted pixel; empty when there is none."""
    used = np.flatnonzero(wanted.any(1))
    return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0)


class ModeSums:
    """Normal equations of Zernike modes on one or more maps that share their weights, summed over rows in any order.

    Only pixels inside the pupil count. Every subset of the modes can be solved for afterwards. Memory is that of one
    block.
    """

    def __init__(self, modes: Sequence[Mode], pupil: Circle, maps: int = 1) -> None:
        self.pupil = pupil
        self.basis = ZernikeBasis(tuple(modes), pupil.obscuration)
        self.normal = np.zeros((len(modes), len(modes)))
        self.right = np.zeros((maps, len(modes)))
        self.pixels = 0

    def add(
        self,
        start: int,
        heights_nm: Float[np.ndarray, "maps rows w"],
        weights: Shaped[np.ndarray, "rows w"] | None = None,
    ) -> None:
        """Take rows from ``start`` of all maps, (maps, rows, W) in nm; a pixel counts where all are finite.

        ``weights`` (rows, W) is a mask or non-negative weights.
        """
        maps, count, width = heights_nm.shape
        used = np.isfinite(heights_nm).all(0) & self.pupil.inside(start, start + count, width)
        if weights is not None:
            used &= np.asarray(weights) > 0
        rows = _used_rows(used)
        if rows.stop == rows.start:
            return
        weight = used[rows] if weights is None or weights.dtype == np.bool_ else np.where(used, weights, 0.0)[rows]
        chords = Chords.of(self.pupil, start + rows.start, rows.stop - rows.start, width)
        order = degree(self.basis)
        of_weight = np.zeros((*chords.half.shape, 2 * order + 1))
        of_height = np.zeros((maps, *chords.half.shape, order + 1))
        # rows that may not be written to would be compiled for once more
        maps_rows = np.require(heights_nm[:, rows], requirements=("C", "W"))
        self.pixels += int(
            chord_moments(maps_rows, weight, chords.split, chords.centre, chords.half, of_weight, of_height)
        )
        # 2n + 1 nodes carry products of two modes exactly
        values = chords.node_values(self.basis, 2 * order + 1).reshape(len(self.normal), -1)
        heavy = node_weights(of_weight, 2 * order + 1).reshape(1, -1)
        high = node_weights(of_height, 2 * order + 1).reshape(maps, -1)
        pieces = _pieces(np.concatenate([values, values * heavy, high]))
        modes = len(values)
        sums = np.matmul(pieces[:, modes:], pieces[:, :modes].transpose(0, 2, 1)).sum(0)
        self.normal += (sums[:-maps] + sums[:-maps].T) / 2
        self.right += sums[-maps:]

    def solve(self, modes: Sequence[Mode], right: FloatArray | None = None) -> FloatArray:
        """Solve for coefficients in nm (maps, all modes) of a fit of the given modes only, 0 for the others.

        ``right`` replaces the maps' own sums. Directions that no pixel constrains get nothing.
        """
        right = self.right if right is None else right
        chosen = [self.basis.modes.index(mode) for mode in modes]
        found = np.zeros_like(right)
        if chosen and self.pixels:
            square = self.normal[np.ix_(chosen, chosen)]
            found[:, chosen] = np.linalg.lstsq(square, right[:, chosen].T, rcond=1e-12)[0].T
        return found


@dataclass(frozen=True)
class Form:
    """A fitted form: Zernike coefficients in nm (unit RMS over the pupil) of the terms that were asked for."""

    pupil: Circle
    basis: ZernikeBasis
    coefficients_nm: tuple[float, ...]

    def rows(self, start: int, stop: int, width: int) -> Float64[np.ndarray, "rows w"]:
        """Evaluate rows [start, stop) in nm, float64 (stop - start, width); outside the pupil the form goes on."""
        return self._at(start, np.ones((stop - start, width), bool))

    def remove(self, height_nm: Float[np.ndarray, "rows w"], start: int = 0) -> Float64[np.ndarray, "rows w"]:
        """Subtract the form from heights in nm, rows from ``start``; float64, NaN stays NaN."""
        heights = np.asarray(height_nm, np.float64)
        return heights - self._at(start, np.isfinite(heights))

    def _at(self, start: int, wanted: NDArray[np.bool_]) -> FloatArray:
        """Evaluate the pixels of ``wanted``, a few at a time; NaN where not wanted."""
        out = np.full(wanted.shape, np.nan)
        coefficients = np.array([self.coefficients_nm])
        step = max(1024, _BLOCK_VALUES // max(1, len(self.basis.modes)))
        rows, columns = np.nonzero(wanted)
        for first in range(0, rows.size, step):
            y, x = rows[first : first + step], columns[first : first + step]
            values = self.basis.values(*self.pupil.coordinates(start + y, x))
            out[y, x] = np.matmul(coefficients, _pieces(values)).reshape(-1)[: y.size]
        return out

    def summary(self) -> dict[str, float]:
        """List coefficients in nm (unit RMS) by radial order and azimuthal frequency, such as ``Z(2,0)``."""
        return {f"Z({n},{m})": value for (n, m), value in zip(self.basis.modes, self.coefficients_nm, strict=True)}

    def coefficient_nm(self, mode: Mode) -> float:
        """Return the coefficient of a mode in nm RMS, 0 when it was not asked for."""
        return dict(zip(self.basis.modes, self.coefficients_nm, strict=True)).get(mode, 0.0)


class FormFit:
    """Least-squares form of a map in a pupil, fed with rows through ``add``.

    A piston is always fitted along, so that ``("tilt",)`` or ``("power",)`` alone leaves the mean of the map at the
    pupil's own zero of that term. Only pixels inside the pupil count. Raises InputError for an unknown term.
    """

    def __init__(self, terms: str | Iterable[str], pupil: Circle) -> None:
        self._removed = form_modes(terms)
        self._fitted = fitted_modes(self._removed)
        self._sums = ModeSums(self._fitted, pupil)

    def add(
        self, start: int, height_nm: Float[np.ndarray, "rows w"], weights: Shaped[np.ndarray, "rows w"] | None = None
    ) -> None:
        """Take rows [start, start + n) of heights in nm (NaN ignored); ``weights`` (or a mask) has the same shape."""
        self._sums.add(start, height_nm[None], weights)

    def solve(self) -> Form:
        """Solve for the wanted terms' form; zero without a valid pixel, the smallest one where pixels leave it open."""
        found = dict(zip(self._fitted, self._sums.solve(self._fitted)[0], strict=True))
        basis = ZernikeBasis(self._removed, self._sums.pupil.obscuration)
        return Form(self._sums.pupil, basis, tuple(float(found[mode]) for mode in self._removed))


def fitted_modes(removed: Sequence[Mode]) -> tuple[Mode, ...]:
    """List the modes of a fit: those to remove, and the piston."""
    return tuple(sorted({(0, 0), *removed}, key=ansi_index))


def fit_form(
    height_nm: Float[np.ndarray, "h w"],
    weights: Shaped[np.ndarray, "h w"] | None = None,
    terms: str | Iterable[str] = ("piston", "tilt"),
    pupil: Circle | None = None,
) -> Form:
    """Fit the form of a whole map (H, W) in nm, NaN ignored; without a pupil, in the circle around the valid pixels.

    What NumPy masked arrays mask is ignored too. Raises InputError for an unknown term, a map that is not
    two-dimensional, or one without a valid pixel when no pupil is given.
    """
    height_nm, weights = without_mask(height_nm), None if weights is None else np.ma.filled(weights, 0)
    if np.ndim(height_nm) != 2:
        raise InputError(f"a height map has two dimensions, got {np.ndim(height_nm)}: give an array of shape (H, W)")
    weighed = True if weights is None else np.asarray(weights) > 0
    fit = FormFit(terms, pupil or circle_around([(0, np.isfinite(height_nm) & weighed)]))
    fit.add(0, height_nm, weights)
    return fit.solve()
