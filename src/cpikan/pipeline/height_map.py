"""The result of a reconstruction, as it lies on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpikan.storage.maps import MapArray, open_map


@dataclass(frozen=True)
class HeightMap:
    """A height map with what is known about each pixel; the arrays, of shape (H, W), are read from disk when indexed.

    ``height_nm`` (NaN where there is no measurement), ``sigma_nm`` (standard deviation of the height), ``modulation``
    (in the units of the frames), ``flags`` (bits of ``cpikan.psi.flags.Flag``), ``component`` (number of the connected
    component). What was not stored is None. ``document`` holds acquisition, settings and summary.
    """

    path: Path
    height_nm: MapArray
    sigma_nm: MapArray | None
    modulation: MapArray | None
    flags: MapArray | None
    component: MapArray | None
    document: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.height_nm.shape
        return height, width

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of the run, {} when the document is absent."""
        summary: dict[str, Any] = self.document.get("summary", {})
        return summary


def open_height_map(path: Path | str) -> HeightMap:
    """Open a finished output (.npy, .tif, .zarr) lazily; InputError when it is missing, unfinished or damaged."""
    stored = open_map(path)
    return HeightMap(
        path=stored.path,
        height_nm=stored.arrays["height_nm"],
        sigma_nm=stored.arrays.get("sigma_nm"),
        modulation=stored.arrays.get("modulation"),
        flags=stored.arrays.get("flags"),
        component=stored.arrays.get("component"),
        document=stored.document,
    )
