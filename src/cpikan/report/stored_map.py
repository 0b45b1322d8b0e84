"""A map inside a page: heights in steps of half their own noise, packed, with what a reader needs to show them."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from cpikan.report.figures import Lateral, length_unit

FloatArray = NDArray[np.floating]

COLUMNS = 1000  # at least so many where the map has them
_MOST_PIXELS = 2_300_000  # 3.6 bits a pixel of noise, in base 64: below 1.4 MB
_DEGREES = (1, 2, 4)  # of the polynomials that can be taken off
_FIT_PIXELS = 200_000
_STEPS = 1 << 23
_MOST_BYTES = 1_500_000  # of the packed map


def stored_reduction(shape: tuple[int, int]) -> tuple[int, int]:
    """Compute the rows and columns of a block: the widest that leaves 1000 columns, as many rows unless they were too many."""
    columns = rows = max(1, (shape[1] - 1) // (COLUMNS - 1))
    while -(-shape[0] // rows) * -(-shape[1] // columns) > _MOST_PIXELS:
        rows += 1
    return rows, columns


def noise_of(heights: FloatArray) -> float:
    """Estimate the noise of a pixel from second differences along rows, whose median size no form and no step moves.

    0 where there are no three pixels in a row, or no noise.
    """
    second = heights[:, :-2] - 2 * heights[:, 1:-1] + heights[:, 2:]
    size = np.abs(second[np.isfinite(second)])
    return float(np.median(size) / 0.6745 / np.sqrt(6)) if size.size else 0.0  # of a normal distribution; 1, -2, 1


@dataclass(frozen=True)
class StoredMap:
    """Whole numbers of ``quantum_nm`` above ``low_nm``, deflated, and the pixels that are valid, as `packed` lays them out."""

    shape: tuple[int, int]
    quantum_nm: float
    low_nm: float
    data: str

    @classmethod
    def of(cls, heights: FloatArray, sigma_nm: float | None = None) -> StoredMap:
        """Store heights (H, W) in nm; NaN is kept as a pixel without a value.

        The noise is ``sigma_nm`` where that is known and below what neighbours scatter, as on a rough surface; where the steps
        of such a map would take more than 1.5 MB, it is the scatter.
        """
        scatter = noise_of(heights)
        if sigma_nm is not None and 0 < sigma_nm < scatter:
            fine = cls._with_noise(heights, sigma_nm)
            if len(fine.data) <= _MOST_BYTES:
                return fine
        return cls._with_noise(heights, scatter)

    @classmethod
    def _with_noise(cls, heights: FloatArray, noise_nm: float) -> StoredMap:
        finite = np.isfinite(heights)
        low, high = (float(heights[finite].min()), float(heights[finite].max())) if finite.any() else (0.0, 0.0)
        quantum = max(noise_nm / 2, (high - low) / _STEPS) or 1.0
        steps = np.rint((np.where(finite, heights, low) - low) / quantum).astype(np.int64)
        return cls((heights.shape[0], heights.shape[1]), quantum, low, packed(steps, finite))


def packed(steps: NDArray[np.int64], valid: NDArray[np.bool_]) -> str:
    """Pack whole numbers as base 64 of deflated bytes.

    A pixel is the difference to the one on its left, the first of a row to that above; a pixel that is not valid repeats
    what came before it. The sign goes to the lowest bit. First the lowest bytes of all pixels, then the second, the third
    and the fourth, then the valid pixels as bits, the highest first.
    """
    flat = steps.reshape(-1)
    last = np.maximum.accumulate(np.where(valid.reshape(-1), np.arange(flat.size), -1))
    filled = np.where(last >= 0, flat[np.maximum(last, 0)], 0).reshape(steps.shape)
    before = np.empty_like(filled)
    before[:, 1:] = filled[:, :-1]
    before[1:, 0] = filled[:-1, 0]
    before[:1, :1] = 0
    difference = (filled - before).astype(np.int32)
    folded = ((difference << 1) ^ (difference >> 31)).astype("<u4")
    planes = folded.reshape(-1).view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(planes.tobytes() + np.packbits(valid).tobytes(), 9)).decode()


def polynomials(heights: FloatArray) -> list[dict[str, Any]]:
    """Fit polynomials in x and y from -1 to 1 over the picture, by least squares of an even sample of its pixels.

    Each is ``degree`` and ``coefficients_nm`` of 1, x, y, x^2, x y, y^2, ...; degrees that the pixels do not determine are left
    out.
    """
    valid = np.isfinite(heights)
    rows, columns = np.nonzero(valid)
    every = max(1, rows.size // _FIT_PIXELS)
    rows, columns = rows[::every], columns[::every]
    found = []
    for degree in _DEGREES:
        design = _terms(heights.shape, rows, columns, degree)
        if rows.size < 4 * design.shape[1]:
            break
        fit, _, rank, _ = np.linalg.lstsq(design, heights[rows, columns], rcond=None)
        if rank == design.shape[1]:
            found.append({"degree": degree, "coefficients_nm": [float(value) for value in fit]})
    return found


def residual(heights: FloatArray, polynomial: dict[str, Any]) -> FloatArray:
    """Subtract a polynomial of `polynomials` from the heights."""
    rows, columns = np.indices(heights.shape)
    terms = _terms(heights.shape, rows.reshape(-1), columns.reshape(-1), polynomial["degree"])
    left: FloatArray = heights - (terms @ np.array(polynomial["coefficients_nm"])).reshape(heights.shape)
    return left


def _terms(shape: tuple[int, ...], rows: NDArray[np.intp], columns: NDArray[np.intp], degree: int) -> FloatArray:
    y = (2 * rows + 1) / shape[0] - 1
    x = (2 * columns + 1) / shape[1] - 1
    return np.stack([x ** (n - k) * y**k for n in range(degree + 1) for k in range(n + 1)], axis=1)


def explorer_data(
    heights: FloatArray, block: tuple[int, int], shape: tuple[int, int], lateral: Lateral, sigma_nm: float | None
) -> dict[str, Any]:
    """Collect what the page's script needs to show a map of ``shape`` that was reduced by ``block`` (rows, columns).

    ``sigma_nm`` is that of a pixel of the file.
    """
    stored = StoredMap.of(heights, None if sigma_nm is None else sigma_nm / (block[0] * block[1]) ** 0.5)
    forms = polynomials(heights)
    shown = residual(heights, forms[0]) if forms else heights
    finite = shown[np.isfinite(shown)]
    scale, unit = length_unit(float(np.ptp(finite)) if finite.size else 1.0)
    colours = (mpl.colormaps["viridis"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    return {
        "rows": stored.shape[0],
        "columns": stored.shape[1],
        "block": list(block),
        "per_row": lateral.size[0] / shape[0] * block[0],
        "per_column": lateral.size[1] / shape[1] * block[1],
        "quantum_nm": stored.quantum_nm,
        "low_nm": stored.low_nm,
        "unit": unit,
        "per_nm": scale,
        "size": list(lateral.size),
        "lateral": lateral.unit,
        "forms": forms,
        "colours": base64.b64encode(colours.tobytes()).decode(),
        "data": stored.data,
    }
