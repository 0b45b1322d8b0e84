"""The verb ``evaluate``."""

from __future__ import annotations

from typing import Any

from cpikan.cli.verb import Place, job_verb


def tell(result: dict[str, Any]) -> str:
    """Format the errors against a truth, or the figures of a surface, as a few lines."""
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
    lines += [f"{label:<10} {_number(result[key], '.7g')} {unit}".rstrip() for key, label, unit in _whole_map(result)]
    removed = ", ".join([*result["removed"], *result.get("filters", ())]) or "nothing"
    lines.append(f"pixels     {result['pixels']} valid ({result['valid_fraction']:.2%}); removed: {removed}")
    return "\n".join(lines)


def _whole_map(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """List keys, symbols and units of numbers of the families that the result has."""
    from cpikan.surface.areal.families import FAMILIES

    labels = {key: label for family in FAMILIES.values() for key, label in family.labels.items()}
    return [(key, *labels[key]) for key in result if key in labels]


VERB = job_verb(
    "evaluate",
    (
        Place("source", "OUT", "what reconstruct wrote; without a truth a height map of any format that is read"),
        Place("truth", "TRUTH.npy", "true heights in nm, NaN where there is none; may be left out", needed=False),
    ),
    tell,
)
