"""The reference surface of an instrument: a map that is taken off the heights of every measurement."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.maps import MapArray, open_map
from cpikan.units import PixelUm, pixel_pair

_SAMPLED_ROWS = 5
_SAME = 0.01  # relative, of pixel sizes
_TURNED = "turned: "


def sampled_rows(height: int) -> list[int]:
    """Choose a few rows from the first to the last, by which an image is told from another."""
    return sorted({(height - 1) * part // (_SAMPLED_ROWS - 1) for part in range(_SAMPLED_ROWS)})


@dataclass(frozen=True)
class Reference:
    """Heights of a reference surface in nm, (H, W), NaN where unknown, and their standard deviation (None: not known)."""

    path: Path
    height_nm: MapArray
    sigma_nm: MapArray | None

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Read rows [start, stop) of the heights and of their variance in nm2 (0 where there is none), float64."""
        heights = np.array(self.height_nm[start:stop], np.float64)
        if self.sigma_nm is None:
            return heights, np.zeros_like(heights)
        sigma = np.array(self.sigma_nm[start:stop], np.float64)
        return np.where(sigma >= 0, heights, np.nan), np.square(sigma)

    def fingerprint(self) -> str:
        """Hash a few whole rows: cheap, and the same for a copy of the map."""
        digest = hashlib.sha256(f"{self.height_nm.shape} {self.sigma_nm is not None}".encode())
        for row in sampled_rows(self.height_nm.shape[0]):
            for part in self.rows(row, row + 1):
                digest.update(part.tobytes())
        return digest.hexdigest()


def open_reference(path: Any, shape: tuple[int, int], pixel_um: PixelUm | None, prepared: Sequence[str]) -> Reference:
    """Open the map of a reference surface for a map of ``shape``, whose frames were ``prepared`` so.

    Both lie alike: as frames do after they were turned.

    Raises InputError where it cannot be read, has another shape, pixels of another size, or is known to lie otherwise.
    """
    if not isinstance(path, str):
        raise InputError(f'reference {path!r} is no path: write reference = "flat.zarr", a map of heights')
    try:
        stored = open_map(path)
    except InputError as error:
        raise InputError(f"reference: {error}") from error
    if stored.shape != shape:
        hint = "give a map of the same pixels (cpikan map crop, register)"
        if stored.shape == shape[::-1]:
            hint = "it lies on its side: measure it with the same rotate and flip"
        found, wanted = (f"{rows} x {columns}" for rows, columns in (stored.shape, shape))
        raise InputError(f"reference {path} has {found} pixels, the map {wanted} (rows x columns): {hint}")
    _check_pixels(path, pixel_pair((stored.document.get("acquisition") or {}).get("pixel_um")), pixel_um)
    done = (stored.document.get("provenance") or {}).get("prepared")
    if isinstance(done, list) and _turn(done) != _turn(prepared):
        raise InputError(
            f"reference {path} was measured {_turn(done)}, this stack {_turn(prepared)}: measure both with the same "
            "rotate and flip"
        )
    return Reference(stored.path, stored.arrays["height_nm"], stored.arrays.get("sigma_nm"))


def _check_pixels(path: str, found: tuple[float, float] | None, pixel_um: PixelUm | None) -> None:
    """Refuse pixels of another size where both are known."""
    wanted = pixel_pair(pixel_um)
    if found and wanted and any(abs(a / b - 1) > _SAME for a, b in zip(found, wanted, strict=True)):
        raise InputError(
            f"reference {path} has pixels of {found[0]:g} x {found[1]:g} um, the stack of {wanted[0]:g} x {wanted[1]:g} um: "
            "resample it, or correct pixel_size"
        )


def _turn(prepared: Any) -> str:
    """Find how frames were turned in what is said of their preparation."""
    turns = [str(one).removeprefix(_TURNED) for one in prepared if str(one).startswith(_TURNED)]
    return f"from frames turned ({turns[0]})" if turns else "from frames as stored"
