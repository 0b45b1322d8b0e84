"""Where the pixels of a block lie, and so by how much what they say together differs from the height at its centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.refine.protocol import BLOCK_PX


class Derivatives(NamedTuple):
    """Of a surface at the centres of the blocks: ``gradient`` (2, Hb, Wb) in nm per pixel, by y and by x, and ``second``
    (3, Hb, Wb) in nm per pixel^2: twice by y, twice by x, once by each."""

    gradient: np.ndarray
    second: np.ndarray


class Footprint(Protocol):
    """The pixels behind the height of every block; ``offset_px`` (2, Hb, Wb) is their weighted centroid from its centre."""

    @property
    def offset_px(self) -> np.ndarray: ...

    def part(self, rows: slice) -> Footprint:
        """Cut out rows of blocks, as views."""
        ...

    def shift_nm(self, derivatives: Derivatives) -> np.ndarray:
        """Compute how far a block of a surface with these derivatives lies above its centre, in nm (L, Hb, Wb)."""
        ...


@dataclass(frozen=True)
class MeanPixels:
    """Blocks whose height is the weighted mean of their pixels': their first moments ``offset_px`` (2, Hb, Wb) from the
    centre of the block, by y and by x, and their second ``spread_px2`` (3, Hb, Wb), in the order of `Derivatives`."""

    offset_px: np.ndarray
    spread_px2: np.ndarray

    def part(self, rows: slice) -> MeanPixels:
        return MeanPixels(self.offset_px[:, rows], self.spread_px2[:, rows])

    def shift_nm(self, derivatives: Derivatives) -> np.ndarray:
        """Average the Taylor series of the surface, exact for a quadratic one: the shift in nm, (1, Hb, Wb)."""
        by_y, by_x, mixed = derivatives.second * self.spread_px2
        slope = (derivatives.gradient * self.offset_px).sum(axis=0)
        return np.asarray(np.nan_to_num(slope + (by_y + by_x) / 2 + mixed)[None])


@dataclass(frozen=True)
class PhasorPixels:
    """Blocks whose height is that of the mean phasor: ``pixels`` (Hb, Wb) uint64 has a bit for each of the 64, row by row;
    ``offset_px`` (2, Hb, Wb) is their weighted centroid; ``nm_per_turn`` (L,)."""

    pixels: np.ndarray
    offset_px: np.ndarray
    nm_per_turn: np.ndarray

    def part(self, rows: slice) -> PhasorPixels:
        return PhasorPixels(self.pixels[rows], self.offset_px[:, rows], self.nm_per_turn)

    def shift_nm(self, derivatives: Derivatives) -> np.ndarray:
        """Compute the phase of the summed phasors of a block of a quadratic surface, as a height in nm (L, Hb, Wb).

        It is not the mean phase: by the third cumulant of the phases over the block it lies beside it, a nanometre or more
        where a surface is steep and bent. Weights within a block are taken as equal but for what they do to the centroid.
        """
        out = np.zeros((len(self.nm_per_turn), *self.pixels.shape))
        gradient, second = (np.ascontiguousarray(part, np.float64) for part in derivatives)
        offset = np.ascontiguousarray(self.offset_px)  # parts lie in memory in another way: compiled for once
        _shift(gradient, second, self.pixels, offset, self.nm_per_turn, out)
        return out


@compiled
def _shift(gradient, second, pixels, offset, nm_per_turn, out):  # type: ignore[no-untyped-def]
    one = np.uint64(1)
    for b in range(pixels.shape[0]):
        for c in range(pixels.shape[1]):
            bits = pixels[b, c]
            gy, gx = gradient[0, b, c], gradient[1, b, c]
            yy, xx, yx = second[0, b, c], second[1, b, c], second[2, b, c]
            if bits == 0 or not np.isfinite(gy + gx + yy + xx + yx):
                continue
            count, my, mx = 0, 0.0, 0.0
            for k in range(BLOCK_PX * BLOCK_PX):
                if (bits >> np.uint64(k)) & one:
                    count += 1
                    my += k // BLOCK_PX
                    mx += k % BLOCK_PX
            half = (BLOCK_PX - 1) / 2
            beside = gy * (offset[0, b, c] - my / count + half) + gx * (offset[1, b, c] - mx / count + half)
            for w in range(len(nm_per_turn)):
                rate = 2 * np.pi / nm_per_turn[w]
                total = _summed(rate * gy, rate * gx, rate * yy, rate * xx, rate * yx, bits)
                out[w, b, c] = np.arctan2(total.imag, total.real) / rate + beside


@compiled
def _summed(gy, gx, yy, xx, yx, bits):  # type: ignore[no-untyped-def]
    """Sum phasors of a quadratic phase, zero at the centre.

    Differences of the phase are linear, so two products lead to the next phasor.
    """
    one, at = np.uint64(1), -(BLOCK_PX - 1) / 2
    corner = (gy + gx) * at + (yy + xx + 2 * yx) * at * at / 2
    row, down, downs = _turn(corner), _turn(gy + yy * (at + 0.5) + yx * at), _turn(yy)
    first, firsts, across = _turn(gx + xx * (at + 0.5) + yx * at), _turn(yx), _turn(xx)
    total = 0j
    for _ in range(BLOCK_PX):
        here, step = row, first
        for _ in range(BLOCK_PX):
            if bits & one:
                total += here
            bits >>= one
            here *= step
            step *= across
        row *= down
        down *= downs
        first *= firsts
    return total


@compiled
def _turn(angle):  # type: ignore[no-untyped-def]
    return complex(np.cos(angle), np.sin(angle))
