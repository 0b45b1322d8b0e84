"""Frames without the dark level of the camera, and as if the light and the pixels were even."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.readers.base import BaseReader, FrameLayout

_BLOCK_BYTES = 2**24
_DEAD = 0.02  # of the usual light: a pixel that sees less has no gain that could be known


class CorrectedReader(BaseReader):
    """Frames (I - dark) * g / (flat - dark), float32, where g is the mean of flat - dark over the image.

    ``dark`` and ``flat`` hold frames of the same size, of which the mean counts: one list entry for all frames, or one per
    wavelength. Without a flat the dark level alone is taken off. A sample at ``saturation_dn`` is infinite, for it is
    saturated whatever is divided; a pixel that hardly sees the flat (2 % of its mean) is NaN. Raises InputError for
    other sizes, and for a flat that is no brighter than the dark.
    """

    def __init__(
        self,
        reader: BaseReader,
        dark: Sequence[BaseReader] = (),
        flat: Sequence[BaseReader] = (),
        waves: Sequence[int] = (),
        saturation_dn: float = math.inf,
    ) -> None:
        """``waves`` says of which wavelength each frame is (default: all of the first)."""
        self._reader, self._dark, self._flat = reader, tuple(dark), tuple(flat)
        self._waves, self._saturation_dn = tuple(waves) or (0,) * reader.shape[0], saturation_dn
        for what, given in (("dark", dark), ("flat", flat)):
            for one in given:
                if one.shape[1:] != reader.shape[1:]:
                    raise InputError(
                        f"{what} {one.labels[0]} is {one.shape[1]} x {one.shape[2]} but the frames are {reader.shape[1]} x "
                        f"{reader.shape[2]}: take it with the same camera and the same part of it"
                    )
            if len(given) > 1 and len(given) != max(self._waves) + 1:
                raise InputError(
                    f"{len(given)} {what} for {max(self._waves) + 1} wavelengths: give one for all, or one per wavelength"
                )
        kind = np.dtype(np.float64 if reader.dtype == np.float64 else np.float32)
        super().__init__(FrameLayout(reader.shape, kind, reader.labels, reader.groups))
        self.take_over(reader)
        self._pairs = max(len(self._dark), len(self._flat)) if self._flat else 0  # of a flat and its dark
        self._light: list[float] | None = None  # of each pair, found when rows are first read

    def _rows(self, start: int, stop: int) -> np.ndarray:
        band = self._reader.read_rows(start, stop)
        out = band.astype(self.dtype)
        dark = [_mean_rows(one, start, stop) for one in self._dark]
        gain = [self._gain(number, dark, start, stop) for number in range(self._pairs)]
        for frame, wave in enumerate(self._waves):
            if dark:
                out[frame] -= _of(dark, wave)
            if gain:
                out[frame] *= _of(gain, wave)
        if self._saturation_dn < math.inf:
            out[band >= self._saturation_dn] = math.inf
        return out

    def _gain(self, number: int, dark: Sequence[np.ndarray], start: int, stop: int) -> np.ndarray:
        if self._light is None:
            self._light = [self._mean_light(index) for index in range(self._pairs)]
        light, usual = _mean_rows(_of(self._flat, number), start, stop), self._light[number]
        if dark:
            light = light - _of(dark, number)
        with np.errstate(divide="ignore"):
            return np.where(light > _DEAD * usual, usual / light, np.nan)

    def _mean_light(self, number: int) -> float:
        """Average a flat without its dark over the whole image."""
        flat = _of(self._flat, number)
        dark = _of(self._dark, number) if self._dark else None
        _, height, width = flat.shape
        total, count, rows = 0.0, 0, max(1, _BLOCK_BYTES // (8 * width))
        for start in range(0, height, rows):
            light = _mean_rows(flat, start, min(height, start + rows))
            if dark is not None:
                light = light - _mean_rows(dark, start, min(height, start + rows))
            known = light[np.isfinite(light)]
            total, count = total + float(known.sum()), count + known.size
        if not (count and total > 0):
            raise InputError(
                f"flat {flat.labels[0]} is no brighter than the dark: take it with even light, and the dark without any"
            )
        return total / count

    def files(self) -> list[Path]:
        return [path for one in (self._reader, *self._dark, *self._flat) for path in one.files()]

    def origin(self) -> tuple[Any, ...]:
        return (self._reader, self._dark, self._flat, self._waves, self._saturation_dn)

    def fingerprint(self) -> str:
        told = [[one.fingerprint() for one in part] for part in ((self._reader,), self._dark, self._flat)]
        return hashlib.sha256(f"corrected {told} {self._waves} {self._saturation_dn}".encode()).hexdigest()

    def close(self) -> None:
        for one in (self._reader, *self._dark, *self._flat):
            one.close()


def _of(parts: Sequence[Any], wave: int) -> Any:
    """Choose the part of a wavelength; the only one is that of all."""
    return parts[min(wave, len(parts) - 1)]


def _mean_rows(reader: BaseReader, start: int, stop: int) -> np.ndarray:
    """Average rows over all frames of a reader, in float64."""
    found: np.ndarray = reader.read_rows(start, stop).mean(axis=0, dtype=np.float64)
    return found
