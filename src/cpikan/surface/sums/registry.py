"""The table of surface parameters: what each is called, its unit and standard, the sums it needs, and how it follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cpikan.surface.sums.tallies import AreaTally, FitTally, HeightTally, SlopeTally
from cpikan.units import PixelUm, pixel_pair

Need = Literal["heights", "slopes", "fit", "area", "pixel_um"]
_ISO = "ISO 25178-2:2021"


@dataclass(frozen=True)
class Sums:
    """What was summed of one surface whose form was removed; None for what was not, or is not known."""

    heights: HeightTally | None = None
    slopes: SlopeTally | None = None
    fit: FitTally | None = None
    area: AreaTally | None = None
    pixel_um: PixelUm | None = None


@dataclass(frozen=True)
class Parameter:
    """A number of a surface: ``value`` is called with the sums of ``needs``, in their order, where all of them are there.

    ``label`` is its name for people, None for one that reports leave out.
    """

    name: str
    label: str | None
    unit: str
    standard: str
    needs: tuple[Need, ...]
    value: Callable[..., float | int | None]


def _slope(kind: str, axis: str, unit: str) -> Parameter:
    """Describe the RMS about zero or PV of differences of neighbouring pixels; 1 nm per um is a slope of 1/1000."""

    def per_pixel(slopes: Any) -> float | None:
        found: float | None = getattr(slopes, kind)(axis)
        return found

    def in_mrad(slopes: Any, pixel_um: PixelUm) -> float | None:
        found, pair = per_pixel(slopes), pixel_pair(pixel_um)
        return None if found is None or pair is None else found / pair["yx".index(axis)]

    label, name = f"slope {kind.upper()} along {axis}", f"slope_{kind}_{axis}_{unit}"
    if unit == "mrad":
        return Parameter(name, label, "mrad", "", ("slopes", "pixel_um"), in_mrad)
    return Parameter(name, label, "nm per pixel", "", ("slopes",), per_pixel)


def _gradient(slopes: Any, pixel_um: PixelUm) -> float | None:
    x, y, pair = slopes.rms("x"), slopes.rms("y"), pixel_pair(pixel_um)
    return None if x is None or y is None or pair is None else math.hypot(x / pair[1], y / pair[0]) / 1000


PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("pixels", "pixels", "", "", ("heights",), lambda h: h.pixels),
        # what is left of a mean after the form was removed
        Parameter("mean_nm", None, "nm", "", ("heights",), lambda h: h.mean_nm),
        Parameter("pv_nm", "PV", "nm", "ISO 10110-5", ("heights",), lambda h: h.pv_nm),
        # the robust PV of Evans (OSA Optical Fabrication and Testing 2008, OWA4): PV, over the valid pixels, of the fit of
        # fringe terms 1 to 36 plus three times the RMS of what it leaves
        Parameter(
            "pvr_nm", "PVr (36 Zernike terms + 3 RMS of the rest)", "nm", "Evans 2008", ("fit",), lambda f: f.pvr_nm
        ),
        Parameter("rms_nm", "RMS", "nm", "ISO 10110-5", ("heights",), lambda h: h.rms_nm),
        Parameter("sa_nm", "Sa", "nm", _ISO, ("heights",), lambda h: h.sa_nm),
        Parameter("sq_nm", "Sq", "nm", _ISO, ("heights",), lambda h: h.rms_nm),
        Parameter("sp_nm", "Sp", "nm", _ISO, ("heights",), lambda h: h.max_nm - h.mean_nm if h.pixels else None),
        Parameter("sv_nm", "Sv", "nm", _ISO, ("heights",), lambda h: h.mean_nm - h.min_nm if h.pixels else None),
        Parameter("sz_nm", None, "nm", _ISO, ("heights",), lambda h: h.pv_nm),
        Parameter("ssk", "Ssk", "", _ISO, ("heights",), lambda h: h.skewness),
        Parameter("sku", "Sku", "", _ISO, ("heights",), lambda h: h.kurtosis),  # 3 for a normal distribution
        *(
            _slope(kind, axis, unit)
            for unit in ("nm_per_pixel", "mrad")
            for kind in ("rms", "pv")
            for axis in ("x", "y")
        ),
        Parameter("sdq", "Sdq", "", _ISO, ("slopes", "pixel_um"), _gradient),
        # the mean of both triangulations of every cell of four pixels (annex D)
        Parameter("sdr_percent", "Sdr", "%", _ISO, ("area",), lambda a: None if a.excess is None else 100 * a.excess),
    )
}


@dataclass(frozen=True)
class SurfaceParameters:
    """Numbers of one surface over its valid pixels, heights in nm about their mean; None where one does not exist.

    ``values`` has every parameter of the table by name; each is an attribute too.
    """

    values: Mapping[str, float | int | None]

    @classmethod
    def of(cls, sums: Sums) -> SurfaceParameters:
        """Evaluate the table on the sums of one surface."""
        return cls({name: _value(parameter, sums) for name, parameter in PARAMETERS.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "values" or name not in self.values:
            raise AttributeError(f"there is no surface parameter {name!r}")
        return self.values[name]

    def summary(self) -> dict[str, float | int | None]:
        """Copy the parameters' values by name."""
        return dict(self.values)


def _value(parameter: Parameter, sums: Sums) -> float | int | None:
    given = [getattr(sums, need) for need in parameter.needs]
    return None if any(part is None for part in given) else parameter.value(*given)
