"""The table of numbers that need a whole map: families that are computed together, and what each number is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from cpikan.errors import unknown_name
from cpikan.surface.areal.features import feature_numbers
from cpikan.surface.areal.material_ratio import functional_numbers
from cpikan.surface.areal.spatial import spatial_numbers
from cpikan.surface.filters.gaussian import Rows
from cpikan.units import PixelUm

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Family:
    """Numbers that come from one computation: ``measure(heights (H, W) in nm, pixel in um)`` gives all of ``labels``.

    Heights are an array, or a map on disk. ``labels`` has for each key the symbol of the standard and the unit.
    """

    labels: dict[str, tuple[str, str]]
    measure: Callable[[Rows, PixelUm | None], Numbers]


FAMILIES: dict[str, Family] = {
    "functional": Family(
        {
            "sk_nm": ("Sk", "nm"),
            "spk_nm": ("Spk", "nm"),
            "svk_nm": ("Svk", "nm"),
            "smr1_percent": ("Smr1", "%"),
            "smr2_percent": ("Smr2", "%"),
            "spkx_nm": ("Spkx", "nm"),
            "svkx_nm": ("Svkx", "nm"),
            "sxp_nm": ("Sxp", "nm"),
            "vmp_nm": ("Vmp", "nm"),
            "vmc_nm": ("Vmc", "nm"),
            "vvc_nm": ("Vvc", "nm"),
            "vvv_nm": ("Vvv", "nm"),
        },
        lambda heights, pixel_um: functional_numbers(np.asarray(heights)),
    ),
    "spatial": Family(
        {"sal_um": ("Sal", "um"), "str": ("Str", ""), "std_deg": ("Std", "deg")},
        spatial_numbers,
    ),
    "features": Family(
        {
            "s10z_nm": ("S10z", "nm"),
            "s5p_nm": ("S5p", "nm"),
            "s5v_nm": ("S5v", "nm"),
            "spd_per_mm2": ("Spd", "1/mm2"),
            "svd_per_mm2": ("Svd", "1/mm2"),
            "spc_per_mm": ("Spc", "1/mm"),
            "svc_per_mm": ("Svc", "1/mm"),
            "sha_um2": ("Sha", "um2"),
            "sda_um2": ("Sda", "um2"),
            "shv_um3": ("Shv", "um3"),
            "sdv_um3": ("Sdv", "um3"),
        },
        feature_numbers,
    ),
}


def families_of(names: Iterable[str]) -> tuple[str, ...]:
    """Find the families that hold ``names``, keys of numbers or families themselves, each once; InputError for others."""
    found: dict[str, None] = {}
    keys = {key: family for family, entry in FAMILIES.items() for key in entry.labels}
    for name in names:
        family = name if name in FAMILIES else keys.get(name)
        if family is None:
            raise unknown_name("surface number", name, [*FAMILIES, *keys])
        found[family] = None
    return tuple(found)
