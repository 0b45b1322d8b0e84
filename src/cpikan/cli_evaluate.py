"""The verb ``evaluate``: a height map against the truth, or its surface numbers."""

from __future__ import annotations

import argparse
import sys
from typing import Any

FORM_HELP = (
    "piston, tilt, power (sphere), astigmatism, coma, trefoil, spherical, zernike:N (fringe 1 to N), noll:N, ansi:N, "
    "order:N; or a part of a set, such as noll:5-8 or noll:11-11; several with commas"
)


def add(parser: argparse.ArgumentParser) -> None:
    """compare a height map with the truth, in-painted pixels apart; without a truth: PV, PVr, RMS, Sa, slopes, ripple"""
    parser.add_argument("output", metavar="OUT", help="what reconstruct wrote; without a truth also Zygo MetroPro .dat")
    parser.add_argument(
        "truth", metavar="TRUTH.npy", nargs="?", help="true heights in nm, NaN where there is none; may be left out"
    )
    parser.add_argument(
        "--remove",
        metavar="TERMS",
        help=f"take off the error (a piston always goes), or the map (default: piston): {FORM_HELP}",
    )
    parser.add_argument(
        "--circle", metavar="X,Y,R[,INNER]", help="pixels that count lie in this circle or annulus (pixels)"
    )
    parser.add_argument("--mask", metavar="FILE", help="pixels that count are nonzero: .npy or a grey image")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.set_defaults(run=_run, tell=tell)


def _run(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.surface.aperture import aperture_of

    aperture = aperture_of(given.circle, given.mask)
    if given.truth is not None:
        from cpikan.pipeline.maps.evaluate import evaluate

        return evaluate(given.output, given.truth, remove=given.remove or "", aperture=aperture)
    from cpikan.pipeline.maps.surface import surface_figures

    remove = "piston" if given.remove is None else given.remove
    result = surface_figures(given.output, remove=remove, aperture=aperture, progress=True)
    for warning in result["warnings"]:
        print(f"cpikan: warning: {warning}", file=sys.stderr)
    return result


def tell(result: dict[str, Any]) -> str:
    """The result in a few lines."""
    return _tell_error(result) if "relative_l2" in result else _tell_surface(result)


def _tell_error(result: dict[str, Any]) -> str:
    coverage = result["coverage_95"]
    told = "not available without sigma" if coverage is None else f"{coverage:.2%} of the 95 % intervals hold"
    guessed = result["inpainted"]
    more = (
        f"\nin-painted {guessed['pixels']} pixels more: {_number(guessed['rms_nm'])} nm RMS, "
        f"{_number(guessed['max_abs_nm'])} nm at most"
        if guessed
        else ""
    )
    return (
        f"error      {_number(result['rms_nm'])} nm RMS, {_number(result['max_abs_nm'])} nm at most, relative L2 "
        f"{_number(result['relative_l2'], '.3g')}\n"
        f"orders     {_number(result['wrong_order_fraction'], '.3g')} of {result['pixels']} pixels wrong\n"
        f"coverage   {told}{more}"
    )


def _number(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else format(value, form)


def _tell_surface(result: dict[str, Any]) -> str:
    unit = "mrad" if result["pixel_um"] else "nm_per_pixel"
    heights = (("PV", "pv_nm"), ("PVr", "pvr_nm"), ("RMS", "rms_nm"), ("Sa", "sa_nm"), ("Sq", "sq_nm"))
    lines = [f"{label:<10} {_number(result[name], '.7g')} nm" for label, name in heights]
    slopes = ", ".join(f"{axis} {_number(result[f'slope_rms_{axis}_{unit}'])}" for axis in "xy")
    lines.append(f"slope RMS  {slopes} {unit.replace('_per_', '/')}")
    for wavelength, ripple in zip(result["wavelengths_nm"], result["ripple_mrad"] or (), strict=False):
        told = ", ".join(f"{k}x {value:.1f}" for k, value in ripple.items())
        lines.append(f"ripple     {told} mrad of fringes at {wavelength:g} nm")
    removed = ", ".join(result["removed"]) or "nothing"
    lines.append(f"pixels     {result['pixels']} valid ({result['valid_fraction']:.2%}); removed: {removed}")
    return "\n".join(lines)
