"""Heights as points, .xyz: a line of x, y and z a point, behind lines with # that say the unit.

Points may come in any order and missing ones may be left out or be ``nan``, as long as all lie on one grid. y grows
downwards, with the rows, unless a line says ``# y: up``: that is a guess for files of others, and told.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size
from cpikan.storage.instruments.csv import digits, head_lines, read_head
from cpikan.storage.instruments.rasters import pixel_pair_um, stored_map, whole_map
from cpikan.storage.maps import StoredMap

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_PIECE = 1 << 16  # lines
_POINTS = 2**27  # 24 bytes each
_ON_GRID = 0.01  # of a pixel that a point may lie beside its place
_SPARSE = 64  # pixels a point, at most


def open_xyz_map(path: Path) -> StoredMap:
    """Open points on a grid, all in memory; InputError without a unit, for scattered points, and for a line of no numbers.

    The unit is that of all three columns.
    """
    head = read_head(path)
    unit = head.unit_nm
    up = head.said.get("y", "").lower()
    points = _points(path, head.lines)
    columns, step_x = _places(path, points[:, 0], "x")
    rows, step_y = _places(path, points[:, 1], "y")
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    check_frame_size(str(path), *shape)
    if shape[0] * shape[1] > _SPARSE * len(points):
        raise InputError(f"{path} has {len(points)} points for a grid of {shape[0]} x {shape[1]}: they lie on no grid")
    heights = np.full(shape, np.nan)
    heights[rows, columns] = points[:, 2] * unit
    heights[~np.isfinite(heights)] = np.nan
    if up == "up":
        heights = heights[::-1]
    notes = (
        []
        if up
        else [f"{path} does not say whether y grows upwards: downwards is taken; else write '# y: up' at its top"]
    )
    said = head.pixel_um or pixel_pair_um(step_y * unit * 1e-3, step_x * unit * 1e-3)
    return stored_map(path, whole_map(heights), pixel_um=said, wavelengths_nm=head.wavelengths_nm, notes=notes)


def _points(path: Path, skipped: int) -> np.ndarray:
    pieces, count = [], 0
    with open(path, encoding="utf-8", errors="replace") as file:
        list(islice(file, skipped))
        while lines := list(islice(file, _PIECE)):
            kept = [line.replace(",", " ").replace(";", " ") for line in lines if line.strip()]
            if not kept:
                continue
            piece = np.array([[float(word) for word in line.replace("No Data", "nan").split()[:3]] for line in kept])
            count += len(piece)
            if piece.ndim != 2 or piece.shape[1] != 3 or count > _POINTS:
                raise InputError(
                    f"{path} has lines of other than x, y and z, or more than {_POINTS}: give three numbers a line"
                )
            pieces.append(piece)
    if not pieces:
        raise InputError(f"{path} holds no points: give x, y and z in a line each")
    return np.concatenate(pieces)


def _places(path: Path, values: np.ndarray, axis: str) -> tuple[np.ndarray, float]:
    """Number the points along an axis, and find their distance (nan where there is one place only)."""
    if not np.isfinite(values).all():
        raise InputError(f"{path} has a point without {axis}: give x and y of every point")
    sorted_ = np.unique(values)
    span = float(sorted_[-1] - sorted_[0])
    if span == 0:
        return np.zeros(len(values), np.int64), np.nan
    gaps = np.diff(sorted_)
    gaps = gaps[gaps > 1e-9 * max(span, float(np.abs(sorted_).max()))]  # equal numbers, printed differently
    step = span / max(1, round(span / float(np.median(gaps[gaps < 1.5 * gaps.min()]))))
    exact = (values - sorted_[0]) / step
    places = np.rint(exact)
    if np.abs(exact - places).max() > _ON_GRID:
        raise InputError(f"{path} has points whose {axis} lie on no grid (step {step:g}): put them on one first")
    return places.astype(np.int64), step


def export_xyz(content: MapContent, path: Path) -> None:
    """Write every point in m, row by row, ``nan`` for a missing height; y grows downwards."""
    y, x = content.some_pixel_um()
    waves = content.acquisition.get("wavelengths_nm") or ()
    lines = head_lines(content.pixel_um, [float(wave) for wave in waves], "m")
    across = [f"{column * x / 1e6:.12g}" for column in range(content.shape[1])]
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write("\n".join([*lines, "# y: down", "# x y z", ""]))
        for start, rows in content.bands():
            for number, words in enumerate(digits(rows), start):
                down = f"{number * y / 1e6:.12g}"
                file.writelines(
                    f"{place} {down} {word if word == 'nan' else _metres(word)}\n"
                    for place, word in zip(across, words, strict=True)
                )


def _metres(nm: str) -> str:
    """Move the point of a decimal number by nine places, so that no digit changes."""
    digits_, _, exponent = nm.partition("e")
    return f"{digits_}e{int(exponent or 0) - 9}"
