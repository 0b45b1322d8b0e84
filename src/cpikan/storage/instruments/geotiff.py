"""Heights in one page of a .tif of other programs, as GDAL writes elevations: a unit, a pixel size, a value for no data.

The unit of the heights is that of ``unittype`` in GDAL_METADATA (tag 42112), where scale and offset may stand too; the value of
missing points tag 42113; the pixel that of ModelPixelScale (33550), in m, or of a
resolution in cm. Row 0 is on top.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_compressed_size, check_frame_size
from cpikan.storage.instruments.rasters import (
    Block,
    Linear,
    MappedRaster,
    pixel_pair_um,
    positive,
    stored_map,
    whole_map,
)
from cpikan.storage.maps import LazyMap, StoredMap
from cpikan.units import unit_nm

if TYPE_CHECKING:
    import tifffile

_SCALE, _METADATA, _NO_DATA = 33550, 42112, 42113
_CENTIMETRE = 3


def open_geotiff_map(path: Path) -> StoredMap | None:
    """Open a page of heights with a unit; None for any other file. Tiles and compressed strips are read into memory whole.

    Raises InputError for a scale of zero and for more pixels than the file can hold.
    """
    from cpikan.storage.writers.tiff import BAD_TIFF

    try:
        return _opened(path)
    except InputError:
        raise
    except (*BAD_TIFF, ElementTree.ParseError):
        return None


def _opened(path: Path) -> StoredMap | None:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage) or page.dtype is None or page.dtype.kind not in "iuf":
            return None
        said = _said(page)
        unit = unit_nm(said.get("unittype", ""))
        if unit is None or len(page.shape) != 2:
            return None
        check_frame_size(str(path), *page.shape)
        decode = _decode(path, page, said, unit)
        heights: LazyMap
        if page.is_memmappable:
            dtype = page.dtype.newbyteorder(file.byteorder)
            heights = MappedRaster(Block(path, dtype, page.dataoffsets[0], (page.shape[0], page.shape[1])), decode)
        else:
            check_compressed_size(str(path), page.nbytes, path.stat().st_size)
            heights = whole_map(decode(page.asarray()))
        pixel, notes = _pixel_um(path, page)
    return stored_map(path, heights, pixel_um=pixel, notes=notes)


def _tag(page: tifffile.TiffPage, code: int) -> Any:
    found = page.tags.get(code)
    return None if found is None else found.value


def _said(page: tifffile.TiffPage) -> dict[str, str]:
    text = _tag(page, _METADATA)
    if not isinstance(text, str) or "<!" in text or '"quantity"' in page.description:  # ours, and damaged
        return {}
    root = ElementTree.fromstring(text)
    return {item.get("role", ""): (item.text or "").strip() for item in root.iter("Item")}


def _decode(path: Path, page: tifffile.TiffPage, said: dict[str, str], unit: float) -> Linear:
    scale = positive(path, float(said.get("scale", 1)), "a scale of")
    mark = _tag(page, _NO_DATA)
    number = float(mark.strip("\0 ")) if isinstance(mark, str) and mark.strip("\0 ") else np.nan
    stored = np.float32(number) if page.dtype == np.float32 else number  # as the page can hold it
    missing = None if np.isnan(number) else lambda numbers: numbers == stored
    return Linear(scale * unit, float(said.get("offset", 0)) * unit, missing)


def _pixel_um(path: Path, page: tifffile.TiffPage) -> tuple[tuple[float, float] | None, list[str]]:
    scale = _tag(page, _SCALE)
    if scale is not None:
        found = pixel_pair_um(float(scale[1]) * 1e6, float(scale[0]) * 1e6)
        return found, [f"{path} has a pixel size without a unit: m is taken, as GDAL does for one without a projection"]
    if _tag(page, 296) == _CENTIMETRE and page.resolution[0] > 0:
        x, y = page.resolution
        return pixel_pair_um(1e4 / y, 1e4 / x), []
    return None, []
