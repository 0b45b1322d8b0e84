"""Heights of any file that has them: maps of ours, plain .npy, and files of an instrument."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.map_rows import MapRows
from cpikan.storage.zygo import ZygoFile, open_zygo
from cpikan.streaming.bands import Band
from cpikan.surface.form import Form
from cpikan.surface.pupil import Pupil
from cpikan.surface.zernike import ZernikeBasis

_KINDS = (".npy", ".tif", ".tiff", ".zarr")


@dataclass(frozen=True)
class HeightSource:
    """Heights in nm of one file, read in bands; ``pixel_um`` is None when the file does not say.

    ``wavelengths_nm`` and ``fringes_nm`` (the height of one fringe of each) are empty when it does not say them;
    ``removed`` is the form that was taken off before the map was stored. ``main_part`` gives the pixels of the largest
    component, where there are several.
    """

    path: Path
    shape: tuple[int, int]
    rows: Callable[[Band], NDArray[np.floating]]
    pixel_um: float | None
    notes: tuple[str, ...] = ()
    wavelengths_nm: tuple[float, ...] = ()
    fringes_nm: tuple[float, ...] = ()
    removed: Form | None = None
    main_part: Callable[[Band], NDArray[np.bool_]] | None = None


def open_heights(path: str | Path) -> HeightSource:
    """Open a map of ours (.npy, .tif, .zarr), a .npy of heights in nm, or a Zygo MetroPro .dat, without its pixels.

    Raises InputError for a file that is missing, damaged or of another kind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".dat":
        return _zygo_source(open_zygo(path))
    if suffix not in _KINDS:
        raise InputError(
            f"{path} is not a height map: allowed are .npy, .tif and .zarr of heights in nm, and Zygo MetroPro .dat"
        )
    return _map_source(open_height_map(path))


def _zygo_source(file: ZygoFile) -> HeightSource:
    header = file.header
    notes = (f"{file.path} was saved with inverted data sign: heights are as stored",) if header.inverted else ()
    return HeightSource(
        file.path,
        file.shape,
        lambda band: file.height_rows(band.start, band.stop),
        header.pixel_um,
        notes,
        (header.wavelength_nm,),
        (header.nm_per_code * header.resolution,),
    )


def _map_source(height_map: HeightMap) -> HeightSource:
    stored = MapRows(height_map)

    def read(band: Band) -> NDArray[np.floating]:
        heights = stored.read("height_nm", band)
        assert heights is not None
        return heights

    def largest(band: Band) -> NDArray[np.bool_]:
        return np.asarray(stored.read("component", band)) == 1

    acquisition = height_map.document.get("acquisition") or {}
    wavelengths = tuple(float(value) for value in acquisition.get("wavelengths_nm") or ())
    parts = height_map.summary.get("components") or 1
    notes = (
        (f"{height_map.path} has {parts} components, whose relative heights are not known",)
        if parts > 1 and len(wavelengths) == 1
        else ()
    )
    pixel = acquisition.get("pixel_um")
    return HeightSource(
        height_map.path,
        stored.shape,
        read,
        float(pixel) if isinstance(pixel, int | float) and pixel > 0 else None,
        notes,
        wavelengths,
        tuple(value / 2 for value in wavelengths),
        _removed(height_map.summary.get("form")),
        largest if parts > 1 and height_map.component is not None else None,
    )


def _removed(form: Any) -> Form | None:
    """The form that a summary tells of, without its pistons; None where it tells of none, or not of one."""
    try:
        pupil = Pupil(*(float(value) for value in form["circle_pixels"]))
        named = form["coefficients_nm"]
        modes = tuple((int(n), int(m)) for n, m in (re.findall(r"-?\d+", name) for name in named))
        return Form(pupil, ZernikeBasis(modes, pupil.obscuration), tuple(float(value) for value in named.values()))
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
