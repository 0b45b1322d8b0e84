"""Meshes, .stl and .ply, of a crop: what 3D programs show and print. They are only written.

Lengths are in mm, heights not exaggerated; x grows with the columns, y against the rows, so that row 0 is on top seen from
above. A square of four valid points is two triangles, of three one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpikan.errors import InputError

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_POINTS = 2**22  # of the rectangle around the valid points


@dataclass(frozen=True)
class _Crop:
    """The rectangle around the valid points, and the pixel in mm (y, x)."""

    rows: range
    columns: range
    pixel_mm: tuple[float, float]

    def bands(self, content: MapContent) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row in the crop, points in mm (n, W, 3)), each band with the last row of the one before."""
        last: np.ndarray | None = None
        for start, rows in content.bands():
            top, bottom = max(start, self.rows.start), min(start + len(rows), self.rows.stop)
            if top >= bottom:
                continue
            heights = rows[top - start : bottom - start, self.columns.start : self.columns.stop] / 1e6
            points = np.empty((*heights.shape, 3))
            points[..., 0] = self.pixel_mm[1] * np.arange(len(self.columns))
            points[..., 1] = (
                self.pixel_mm[0] * np.arange(self.rows.stop - 1 - top, self.rows.stop - 1 - bottom, -1)[:, None]
            )
            points[..., 2] = heights
            yield (
                (top - self.rows.start, points)
                if last is None
                else (top - self.rows.start - 1, np.concatenate([last, points]))
            )
            last = points[-1:]


def _crop(content: MapContent) -> _Crop:
    valid_rows, valid_columns = [], np.zeros(content.shape[1], bool)
    for start, rows in content.bands():
        valid = ~np.isnan(rows)
        valid_rows.append(start + np.flatnonzero(valid.any(axis=1)))
        valid_columns |= valid.any(axis=0)
    found, across = np.concatenate(valid_rows), np.flatnonzero(valid_columns)
    if not found.size:
        raise InputError(f"output {content.name}: the map has no valid point, of which a mesh is made")
    rows_, columns = range(int(found[0]), int(found[-1]) + 1), range(int(across[0]), int(across[-1]) + 1)
    if len(rows_) * len(columns) > _POINTS:
        raise InputError(
            f"output {content.name}: a mesh of {len(rows_)} x {len(columns)} points is more than any program shows: at most "
            f"{_POINTS} are written; cut the map first (map.within(cpikan.Rectangle(...)).save(...))"
        )
    y, x = content.some_pixel_um()
    content.warnings.append(
        f"{content.name} says no unit: its lengths are mm, heights not exaggerated; rows {rows_.start} to {rows_.stop - 1} and "
        f"columns {columns.start} to {columns.stop - 1} are written, those with valid points"
    )
    return _Crop(rows_, columns, (y / 1e3, x / 1e3))


def _triangles(numbers: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """List the triangles (n, 3) of a grid of numbered points, counter-clockwise seen from above.

    A square whose second diagonal has a hole is cut along the other one.
    """
    a, b, c, d = (array.ravel() for array in (numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, :-1], numbers[1:, 1:]))
    va, vb, vc, vd = (array.ravel() for array in (valid[:-1, :-1], valid[:-1, 1:], valid[1:, :-1], valid[1:, 1:]))
    picked = [
        np.stack([a, c, b], 1)[va & vb & vc],
        np.stack([b, c, d], 1)[vb & vc & vd],
        np.stack([a, d, b], 1)[va & vb & vd & ~vc],
        np.stack([a, c, d], 1)[va & vc & vd & ~vb],
    ]
    return np.concatenate(picked)


_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])


def export_stl(content: MapContent, path: Path) -> None:
    """Write a binary STL, float32, a facet a triangle; InputError for more points than a mesh may have."""
    crop, count = _crop(content), 0
    with open(path, "wb") as file:
        file.write(b"cpikan, lengths in mm".ljust(80) + struct.pack("<I", 0))
        for _, points in crop.bands(content):
            flat = points.reshape(-1, 3)
            numbers = np.arange(len(flat)).reshape(points.shape[:2])
            corners = flat[_triangles(numbers, ~np.isnan(points[..., 2]))]
            normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            facets = np.zeros(len(corners), _FACET)
            facets["normal"] = normal / np.linalg.norm(normal, axis=1, keepdims=True)
            facets["corners"] = corners
            file.write(facets.tobytes())
            count += len(facets)
        file.seek(80)
        file.write(struct.pack("<I", count))


_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def export_ply(content: MapContent, path: Path) -> None:
    """Write a binary PLY, points as doubles, then triangles; InputError for more points than a mesh may have."""
    crop = _crop(content)
    shape = (len(crop.rows), len(crop.columns))
    numbers, valid = np.zeros(shape, np.int64), np.zeros(shape, bool)
    for start, points in crop.bands(content):
        valid[start : start + len(points)] = ~np.isnan(points[..., 2])
    numbers[valid] = np.arange(np.count_nonzero(valid))
    triangles = _triangles(numbers, valid)
    with open(path, "wb") as file:
        file.write(_ply_head(int(np.count_nonzero(valid)), len(triangles)))
        done = 0
        for start, points in crop.bands(content):
            fresh = points[done - start :]
            file.write(fresh[~np.isnan(fresh[..., 2])].astype("<f8").tobytes())
            done = start + len(points)
        faces = np.zeros(len(triangles), _FACE)
        faces["count"], faces["corners"] = 3, triangles
        file.write(faces.tobytes())


def _ply_head(points: int, triangles: int) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", "comment lengths in mm", f"element vertex {points}"]
    lines += [f"property double {axis}" for axis in "xyz"]
    lines += [f"element face {triangles}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(lines).encode()
