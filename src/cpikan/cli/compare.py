"""The verb ``compare``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.cli.verb import CommandVerb, Place
from cpikan.messages import one_line, say
from cpikan.option import FORM_HELP, option


@dataclass(frozen=True)
class CompareOptions:
    remove: str = option(
        "piston", f"take off both and off the difference (default: piston): {FORM_HELP}", metavar="TERMS"
    )
    circle: str | None = option(
        None, "pixels that count lie in this circle or annulus (pixels)", metavar="X,Y,R[,INNER]"
    )


def _run(places: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    from cpikan.pipeline.maps.surface import compare_maps
    from cpikan.surface.apertures.aperture import aperture_of

    options = CompareOptions(**settings)
    aperture = aperture_of(options.circle, None)
    result = compare_maps(places["first"], places["second"], remove=options.remove, aperture=aperture, progress=True)
    found: dict[str, Any] = result.summary()
    for warning in found["warnings"]:
        say(f"cpikan: warning: {one_line(warning)}")
    return found


_ROWS = (
    ("PV", "pv_nm", "nm"),
    ("PVr", "pvr_nm", "nm"),
    ("RMS", "rms_nm", "nm"),
    ("Sa", "sa_nm", "nm"),
    ("slope x", "slope_rms_x", ""),
    ("slope y", "slope_rms_y", ""),
)


def _tell(result: dict[str, Any]) -> str:
    unit = "mrad" if result["pixel_um"] else "nm_per_pixel"
    lines = [f"{'':<10} {'A':>12} {'B':>12} {'A - B':>12}"]
    for label, name, name_unit in _ROWS:
        key = name if name_unit else f"{name}_{unit}"
        values = [result[surface][key] for surface in ("a", "b", "difference")]
        cells = " ".join(f"{'-' if value is None else format(value, '.6g'):>12}" for value in values)
        lines.append(f"{label:<10} {cells} {name_unit or unit.replace('_per_', '/')}")
    removed = ", ".join(result["removed"]) or "nothing"
    lines.append(f"pixels     {result['pixels']} valid in both ({result['common_fraction']:.2%}); removed: {removed}")
    return "\n".join(lines)


VERB = CommandVerb(
    (
        Place("first", "A", "height map of any format that is read, by its suffix"),
        Place("second", "B", "another of the same shape; the difference is A - B"),
    ),
    (CompareOptions,),
    _run,
    _tell,
)
