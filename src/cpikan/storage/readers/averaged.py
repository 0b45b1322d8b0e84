"""Frames that are the mean of the same frames of several stacks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.readers.base import BaseReader, FrameLayout


class AveragedReader(BaseReader):
    """The mean of each frame over ``readers``, float32; NaN where one has NaN.

    A sample that is at ``saturation_dn`` in one of them is infinite: it is saturated in the mean too, whatever that is.
    Raises InputError where the stacks differ in shape, type or wavelengths.
    """

    def __init__(self, readers: Sequence[BaseReader], saturation_dn: float = math.inf) -> None:
        first = readers[0]
        for reader in readers:
            if (reader.shape, reader.dtype, reader.groups) != (first.shape, first.dtype, first.groups):
                raise InputError(
                    f"{reader.labels[0]} is of a stack of {reader.shape} {reader.dtype}, {first.labels[0]} of one of "
                    f"{first.shape} {first.dtype}: stacks that are averaged have the same frames"
                )
        kind = np.dtype(np.float64 if first.dtype == np.float64 else np.float32)
        super().__init__(FrameLayout(first.shape, kind, first.labels, first.groups))
        self.take_over(first)
        self._readers, self._saturation_dn = tuple(readers), saturation_dn

    def _rows(self, start: int, stop: int) -> np.ndarray:
        total = np.zeros((self.shape[0], stop - start, self.shape[2]), self.dtype)
        for reader in self._readers:
            band = reader.read_rows(start, stop)
            total += band
            if self._saturation_dn < math.inf:
                total[band >= self._saturation_dn] = math.inf
        total /= len(self._readers)
        return total

    def files(self) -> list[Path]:
        return [path for reader in self._readers for path in reader.files()]

    def origin(self) -> tuple[Any, ...]:
        return (self._readers, self._saturation_dn)

    def fingerprint(self) -> str:
        told = " ".join(reader.fingerprint() for reader in self._readers)
        return hashlib.sha256(f"mean {told} {self._saturation_dn}".encode()).hexdigest()

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
