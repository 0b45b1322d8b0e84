"""Heights as text, .csv: a line a row, row 0 first, behind lines with # that say the unit, the pixel and the wavelength.

Numbers may be cut by commas, semicolons (then a comma may be the decimal point), tabs or spaces. Nothing, ``nan``, ``BAD``,
``No Data`` and ``***`` are missing points; empty lines do not count. Without a line ``# unit: nm`` a
file is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size
from cpikan.storage.instruments.rasters import StreamedRaster, stored_map
from cpikan.storage.maps import StoredMap
from cpikan.units import parse_length_nm, parse_pixel_um, pixel_pair, unit_nm

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_MISSING = ("", "nan", "bad", "no data", "***", "-")
_LONGEST = 2**24  # bytes of a line
_HEADS = ("#", "%")
_LINES = 256  # decoded at once
_SIGNS = re.compile(r"[#%\s]*([a-z ]+?)\s*[:=]\s*(.*?)\s*", re.I)


@dataclass(frozen=True)
class TextHead:
    """What the lines with # say: by name in small letters; ``lines`` are how many there are."""

    path: Path
    said: dict[str, str]
    lines: int

    @cached_property
    def unit_nm(self) -> float:
        """Give the unit of the heights; InputError where it is not said."""
        unit = unit_nm(self.said.get("unit", ""))
        if unit is None:
            told = (
                f"names the unit {self.said['unit']!r}"
                if self.said.get("unit")
                else "does not say the unit of its heights"
            )
            raise InputError(f"{self.path} {told}: put a line '# unit: nm' (um, mm, m) at its top")
        return unit

    @cached_property
    def pixel_um(self) -> tuple[float, float] | None:
        """Give the pixel size (y, x), None where it is not said."""
        with _named(self.path):
            return pixel_pair(parse_pixel_um(self.said["pixel"])) if "pixel" in self.said else None

    @cached_property
    def wavelengths_nm(self) -> list[float]:
        """List the wavelengths that are said."""
        with _named(self.path):
            said = self.said.get("wavelength", "").split(",")
            return [parse_length_nm(part.strip(), "wavelength") for part in said if part]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the name of the file before what refuses a length in it."""
    try:
        yield
    except InputError as failure:
        raise InputError(f"{path}: {failure}") from failure


def read_head(path: Path) -> TextHead:
    """Read the lines with # at the top of a text file."""
    said: dict[str, str] = {}
    count = 0
    with open(path, "rb") as file:
        while (line := file.readline(_LONGEST)).lstrip()[:1].decode("latin-1") in _HEADS or (line and not line.strip()):
            found = _SIGNS.fullmatch(line.decode("utf-8", "replace").strip())
            if found:
                said[found[1].lower()] = found[2]
            count += 1
    return TextHead(path, said, count)


def head_lines(pixel_um: tuple[float, float] | None, wavelengths_nm: Sequence[float], unit: str) -> list[str]:
    """Write the lines that `read_head` reads."""
    lines = [f"# unit: {unit}"]
    if pixel_um is not None:
        lines.append(f"# pixel: {pixel_um[0]!r} um x {pixel_um[1]!r} um")
    if wavelengths_nm:
        lines.append(f"# wavelength: {', '.join(f'{wave!r} nm' for wave in wavelengths_nm)}")
    return lines


def open_csv_map(path: Path) -> StoredMap:
    """Open a .csv of heights; InputError where it does not say their unit, and for lines of different lengths."""
    head = read_head(path)
    unit = head.unit_nm
    width, height, delimiter = _size(path, head.lines)
    check_frame_size(str(path), height, width)
    heights = StreamedRaster(str(path), (height, width), partial(_rows, path, head.lines, (width, delimiter), unit))
    return stored_map(path, heights, pixel_um=head.pixel_um, wavelengths_nm=head.wavelengths_nm)


def _size(path: Path, skipped: int) -> tuple[int, int, str | None]:
    """Count columns and rows, and find what cuts the numbers; lines without anything at the end do not count."""
    rows, width, delimiter = 0, 0, None
    with open(path, "rb") as file:
        for number, line in enumerate(iter(partial(file.readline, _LONGEST), b"")):
            if number < skipped or not line.strip():
                continue
            if len(line) == _LONGEST:
                raise InputError(f"{path} has a line of more than {_LONGEST} bytes: it is no table of heights")
            if rows == 0:
                text = line.decode("latin-1")
                delimiter = next((sign for sign in ";\t," if sign in text), None)
                width = len(text.split(delimiter))
            rows += 1
    return width, rows, delimiter


def _rows(path: Path, skipped: int, form: tuple[int, str | None], unit: float) -> Iterator[np.ndarray]:
    width, delimiter = form
    kept: list[list[float]] = []
    with open(path, encoding="utf-8", errors="replace", newline=None) as file:
        for number, line in enumerate(file, 1):
            if number <= skipped or not line.strip():
                continue
            words = line.rstrip("\n").split(delimiter)
            if len(words) != width:
                raise InputError(f"{path}, line {number}, has {len(words)} numbers, where the first row has {width}")
            kept.append([_number(word, delimiter == ";", path, number) for word in words])
            if len(kept) == _LINES:
                yield _heights(kept, unit)
                kept = []
    if kept:
        yield _heights(kept, unit)


def _heights(rows: list[list[float]], unit: float) -> np.ndarray:
    heights = np.array(rows)
    heights[~np.isfinite(heights)] = np.nan
    return heights * unit


def _number(word: str, comma: bool, path: Path, line: int) -> float:
    try:
        return float(word)
    except ValueError:
        text = word.strip().strip('"')
    if text.lower() in _MISSING:
        return math.nan
    try:
        return float(text.replace(",", ".") if comma else text)
    except ValueError as failure:
        raise InputError(
            f"{path}, line {line}, holds {text[:40]!r}: give a number, or nothing for a missing point"
        ) from failure


def export_csv(content: MapContent, path: Path) -> None:
    """Write heights in nm, a comma between two, nothing for a missing one, with as many digits as they have."""
    waves = content.acquisition.get("wavelengths_nm") or ()
    lines = head_lines(content.pixel_um, [float(wave) for wave in waves], "nm")
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write("\n".join([*lines, "# row 0 on top", ""]))
        for _, rows in content.bands():
            for words in digits(rows):
                file.write((",".join(words).replace("nan", "") or "nan") + "\n")


def digits(rows: np.ndarray) -> Iterator[list[str]]:
    """Write numbers with the digits that give them back: nine where all are of single precision."""
    single = rows.astype(np.float32)
    if np.array_equal(single, rows, equal_nan=True):
        for line in single.tolist():
            yield [f"{value:.9g}" for value in line]
    else:
        for line in rows.tolist():
            yield list(map(repr, line))
