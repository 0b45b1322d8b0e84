"""Gwyddion Simple Field, .gsf: a header of text lines, padded with NUL to a multiple of four, and float32 numbers.

Source: the format's page in the Gwyddion user guide. Row 0 is on top, a missing point is NaN, lengths are in m.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.storage.instruments.rasters import Block, Linear, MappedRaster, pixel_pair_um, stored_map
from cpikan.storage.maps import StoredMap
from cpikan.units import unit_nm

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_MAGIC = b"Gwyddion Simple Field 1.0\n"
_LONGEST = 2**16  # bytes of a header


def open_gsf_map(path: Path) -> StoredMap:
    """Open a .gsf; InputError for another file, one that is cut short, and heights without a unit."""
    with open(path, "rb") as file:
        head = file.read(_LONGEST)
    if not head.startswith(_MAGIC):
        raise InputError(f"{path} is no Gwyddion simple field: its first line is not {_MAGIC.decode().strip()!r}")
    end = head.find(b"\0")
    if end < 0:
        raise InputError(f"{path} has no end of its header (NUL) in {len(head)} bytes: it is damaged; export it again")
    fields = _fields(head[len(_MAGIC) : end].decode("utf-8"))
    lacking = [name for name in ("XRes", "YRes") if name not in fields]
    if lacking:
        raise InputError(f"{path} lacks {' and '.join(lacking)}: it is damaged; export it again")
    width, height = int(fields["XRes"]), int(fields["YRes"])
    unit = unit_nm(fields.get("ZUnits", ""))
    if unit is None:
        told = one_line(fields.get("ZUnits", "")) or "no unit"
        raise InputError(f"{path} has heights in {told}: a map needs a length; write ZUnits = m into it")
    heights = MappedRaster(Block(path, np.dtype("<f4"), end // 4 * 4 + 4, (height, width)), Linear(unit))
    pixel, notes = _pixel_um(path, fields, (height, width))
    wave = float(fields.get("Wavelength", "nan")) * 1e9
    return stored_map(path, heights, pixel_um=pixel, wavelengths_nm=[wave] if 0 < wave < math.inf else [], notes=notes)


def _fields(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _pixel_um(
    path: Path, fields: dict[str, str], shape: tuple[int, int]
) -> tuple[tuple[float, float] | None, list[str]]:
    """Find the pixel size (y, x) in um; a size without a unit is none, which is told."""
    if "XReal" not in fields and "YReal" not in fields:
        return None, []
    unit = unit_nm(fields.get("XYUnits", ""))
    if unit is None:
        told = fields.get("XYUnits") or "no unit"
        return None, [f"{path} has its lateral size in {told}: it is left out, lateral numbers are in pixels"]
    sizes = (float(fields.get(name, "1")) for name in ("YReal", "XReal"))
    y, x = (size * unit * 1e-3 / count for size, count in zip(sizes, shape, strict=True))
    return pixel_pair_um(y, x), []


def export_gsf(content: MapContent, path: Path) -> None:
    """Write heights in m as float32: each is off by 2**-24 of itself at most."""
    content.check_size()
    height, width = content.shape
    lines = [f"XRes = {width}", f"YRes = {height}"]
    if content.pixel_um is not None:
        y, x = content.pixel_um
        lines += [f"XReal = {x * width / 1e6!r}", f"YReal = {y * height / 1e6!r}", "XYUnits = m"]
    lines.append("ZUnits = m")
    if content.wavelength_nm is not None:
        lines.append(f"Wavelength = {content.wavelength_nm / 1e9!r}")
    head = _MAGIC + "\n".join([*lines, ""]).encode()
    with open(path, "wb") as file:
        file.write(head + b"\0" * (4 - len(head) % 4))
        for _, rows in content.bands():
            file.write((rows / 1e9).astype("<f4").tobytes())
