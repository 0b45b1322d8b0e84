"""The verb ``compare``: two height maps, of ours or of an instrument."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from cpikan.cli_evaluate import FORM_HELP


def add(parser: argparse.ArgumentParser) -> None:
    """surface numbers of two height maps and of their difference"""
    parser.add_argument("first", metavar="A", help="height map: .npy, .tif or .zarr (nm), or Zygo MetroPro .dat")
    parser.add_argument("second", metavar="B", help="another of the same shape; the difference is A - B")
    parser.add_argument(
        "--remove",
        default="piston",
        metavar="TERMS",
        help=f"take off both and off the difference (default: piston): {FORM_HELP}",
    )
    parser.add_argument(
        "--circle", metavar="X,Y,R[,INNER]", help="pixels that count lie in this circle or annulus (pixels)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.set_defaults(run=_run, tell=_tell)


def _run(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.pipeline.maps.compare import compare_maps
    from cpikan.surface.aperture import aperture_of

    aperture = aperture_of(given.circle, None)
    result = compare_maps(given.first, given.second, remove=given.remove, aperture=aperture, progress=True).summary()
    for warning in result["warnings"]:
        print(f"cpikan: warning: {warning}", file=sys.stderr)
    return result


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
