"""The verb ``wafer``."""

from __future__ import annotations

from typing import Any

from cpikan.cli.verb import Place, job_verb


def tell(result: dict[str, Any]) -> str:
    """Format the numbers of a wafer as a few lines."""
    x, y = result["center_px"]
    notch = "no notch seen" if result["notch_deg"] is None else f"notch at {result['notch_deg']:.3f} deg"
    flat, shape = result["flatness_of"], result["surface"]
    lines = [
        f"wafer      {result['diameter_mm']:g} mm, centre {x:.2f}, {y:.2f} px, radius {result['radius_px']:.2f} px, {notch}",
        _line("shape", result, (("bow", "bow_um"), ("warp", "warp_um"), ("sori", "sori_um")), "um", f"of the {shape}"),
        _line(
            "global",
            result,
            (("GBIR", "gbir_um"), ("GFLR", "gflr_um"), ("GFLD", "gfld_um"), ("GF3R", "gf3r_um"), ("GF3D", "gf3d_um")),
            "um",
            f"of the {flat}",
        ),
        _line(
            "sites",
            result,
            (
                ("SFQR", "sfqr_max_um"),
                ("SFQD", "sfqd_max_um"),
                ("PSFQR", "psfqr_max_um"),
                ("SFLR", "sflr_max_um"),
                ("SBIR", "sbir_max_um"),
            ),
            "um",
            f"largest of {result['sites_full']} full and {len(result['sites']) - result['sites_full']} partial sites",
        ),
        _line(
            "edge",
            result,
            (("ESFQR", "esfqr_max_um"), ("ROA", "roa_max_um")),
            "um",
            f"largest of {len(result['sectors'])}",
        )
        + f"; ZDD {_number(result['zdd_mean_nm_per_mm2'])} nm/mm^2 on average",
        _line("nanotopo", result, (("THA 2 mm", "tha_2mm_nm"), ("THA 10 mm", "tha_10mm_nm")), "nm", "of the front"),
    ]
    return "\n".join(lines)


def _line(head: str, result: dict[str, Any], named: tuple[tuple[str, str], ...], unit: str, rest: str) -> str:
    numbers = ", ".join(f"{label} {_number(result[key])}" for label, key in named)
    return f"{head:<10} {numbers} {unit}, {rest}"


def _number(value: float | None) -> str:
    return "-" if value is None else format(value, ".5g")


VERB = job_verb("wafer", (Place("source", "MAP", "height map of the front face"),), tell)
