"""Settings of wafer numbers: the nominal diameter, the edge exclusion, the sites and the sectors; plain data, read fast."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cpikan.errors import WHOLE, InputError, check_name, check_type
from cpikan.option import option
from cpikan.units import parse_length_nm, parse_pixel_um

AXES = ("map", "notch")
BACK_AXES = ("front", "outward")
_PAIR = re.compile(r"\s*(.+?)\s*[x×]\s*(.+?)\s*")
_OFFSET = re.compile(r"\s*([+-]?[^,;]+?)\s*[,;]\s*([+-]?[^,;]+?)\s*")
_UNIT = re.compile(r"[^\W\d]+$")


@dataclass(frozen=True)
class WaferSettings:
    """How a wafer is cut into what numbers are of; lengths are text with a unit. Raises InputError for any that is none."""

    diameter: str | None = option(
        None, "nominal diameter, such as 300mm (default: the usual one nearest to the outline)", metavar="LENGTH"
    )
    edge: str = option("2mm", "edge exclusion from the nominal diameter", metavar="LENGTH")
    sites: str = option("26x8mm", "width and height of a site", metavar="WxH")
    site_offset: str | None = option(
        None, "centre of the middle site from that of the wafer, such as 13mm,4mm (default: 0)", metavar="X,Y"
    )
    axes: str = option(
        "map", "of the sites: map (rows and columns), or notch (turned so that the notch is at the bottom)"
    )
    sectors: int = option(72, "sectors of the edge, for ESFQR, ROA and ZDD", metavar="N")
    sector_length: str = option("30mm", "radial length of a sector for ESFQR", metavar="LENGTH")
    back_axis: str = option(
        "front",
        "which way heights of the back map count: front (the axis of the front map: thickness = front - back), or outward "
        "(as the face was measured: thickness = front + back)",
    )
    pixel_size: str | None = option(
        None, "size of a pixel where the map does not say it, such as '43 um'", metavar="LENGTH"
    )

    def __post_init__(self) -> None:
        check_name("axes", self.axes, AXES)
        check_name("back axis", self.back_axis, BACK_AXES)
        check_type("sectors", self.sectors, WHOLE, "a whole number")
        if not 1 <= self.sectors <= 3600:
            raise InputError(f"sectors {self.sectors} is not 1 to 3600: 72 are usual")
        _ = (self.diameter_mm, self.edge_mm, self.site_mm, self.offset_mm, self.sector_mm)
        if self.pixel_size is not None:
            parse_pixel_um(self.pixel_size)

    @property
    def diameter_mm(self) -> float | None:
        return None if self.diameter is None else _mm(self.diameter, "diameter")

    @property
    def edge_mm(self) -> float:
        """Give the edge exclusion, which may be zero."""
        return _mm_or_zero(self.edge, "edge exclusion")

    @property
    def site_mm(self) -> tuple[float, float]:
        """Give width and height of a site; one unit may stand for both."""
        pair = _PAIR.fullmatch(self.sites)
        if pair is None:
            raise InputError(f"sites {self.sites!r} is not WIDTHxHEIGHT with a unit: give a size such as 26x8mm")
        width, height = pair.groups()
        unit = _UNIT.search(height)
        return _mm(width if _UNIT.search(width) or unit is None else width + unit[0], "site"), _mm(height, "site")

    @property
    def offset_mm(self) -> tuple[float, float]:
        if self.site_offset is None:
            return 0.0, 0.0
        pair = _OFFSET.fullmatch(self.site_offset)
        if pair is None:
            raise InputError(f"site offset {self.site_offset!r} is not X,Y: give two lengths such as 13mm,4mm")
        x, y = (_signed_mm(text) for text in pair.groups())
        return x, y

    @property
    def sector_mm(self) -> float:
        return _mm(self.sector_length, "sector length")


def _mm(text: str, what: str) -> float:
    return parse_length_nm(text, what) / 1e6


def _mm_or_zero(text: str, what: str) -> float:
    return 0.0 if re.fullmatch(r"\s*0+(\.0*)?\s*(nm|um|mm|cm|m)?\s*", str(text)) else _mm(text, what)


def _signed_mm(text: str) -> float:
    size = text.lstrip("+-")
    value = _mm_or_zero(size, "site offset")
    return -value if text.startswith("-") else value
