"""Surface numbers by other packages, in an interpreter of their own: ``python surface_numbers_peer.py MAP.npz``.

The file has ``height_nm`` (H, W) without holes and ``pixel_um`` (y, x). Prints a JSON object of numbers by program, with the
keys of docs/reference/surface-numbers.md. It imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np


def of_surfalize(height_nm: np.ndarray, pixel_um: tuple[float, float]) -> dict[str, float]:
    from surfalize import Surface

    surface = Surface(height_nm / 1000, pixel_um[1], pixel_um[0])
    in_nm = {
        name: getattr(surface, name)() * 1000 for name in ("Sa", "Sq", "Sp", "Sv", "Sz", "Sk", "Spk", "Svk", "Sxp")
    }
    in_nm |= {name: getattr(surface, name)() * 1000 for name in ("Spkx", "Svkx", "Vmp", "Vmc", "Vvc", "Vvv")}
    in_nm |= {name: getattr(surface, name)() * 1000 for name in ("S5p", "S5v", "S10z")}
    found = {f"{name.lower()}_nm": value for name, value in in_nm.items()}
    found |= {"ssk": surface.Ssk(), "sku": surface.Sku(), "sdq": surface.Sdq(), "sdr_percent": surface.Sdr()}
    found |= {"smr1_percent": surface.Smr1(), "smr2_percent": surface.Smr2()}
    found |= {"spd_per_mm2": surface.Spd() * 1e6, "svd_per_mm2": surface.Svd() * 1e6}
    found |= {"spc_per_mm": surface.Spc() * 1e3, "svc_per_mm": surface.Svc() * 1e3}
    return found | {"sal_um": surface.Sal(), "str": surface.Str(), "std_deg": surface.Std()}


def of_surface_topography(height_nm: np.ndarray, pixel_um: tuple[float, float]) -> dict[str, float]:
    from SurfaceTopography import Topography

    sizes = (height_nm.shape[1] * pixel_um[1], height_nm.shape[0] * pixel_um[0])  # x first
    surface = Topography((height_nm / 1000).T, sizes, unit="um", periodic=False)
    return {
        "sq_nm": surface.rms_height_from_area() * 1000,
        "sz_nm": float(np.ptp(surface.heights())) * 1000,
        "sdq": surface.rms_gradient(),
    }


def of_prysm(height_nm: np.ndarray, pixel_um: tuple[float, float]) -> dict[str, float]:
    from prysm.interferogram import Interferogram

    surface = Interferogram(height_nm.copy(), dx=pixel_um[1] / 1000)
    found = {"pv_nm": surface.pv, "rms_nm": surface.rms, "sa_nm": surface.Sa}
    if pixel_um[0] == pixel_um[1]:
        density = surface.psd()  # nm^2 mm^2 at 1/mm, Hann window
        step = 1 / (density.shape[0] * pixel_um[0] / 1000) / (density.shape[1] * pixel_um[1] / 1000)
        found["psd_mean_square_nm2"] = float(
            np.asarray(density.data if hasattr(density, "data") else density).sum() * step
        )
    return found


PROGRAMS = {"surfalize": of_surfalize, "SurfaceTopography": of_surface_topography, "prysm": of_prysm}


def main() -> None:
    with np.load(sys.argv[1], allow_pickle=False) as file:
        height_nm, pixel_um = file["height_nm"], tuple(float(size) for size in file["pixel_um"])
    found: dict[str, dict[str, float | str]] = {}
    for program, measure in PROGRAMS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                numbers = measure(height_nm, pixel_um)
            found[program] = {key: float(value) for key, value in numbers.items()}
        except Exception as failure:  # a program that is not there, or cannot
            found[program] = {"failed": f"{type(failure).__name__}: {failure}"[:200]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
