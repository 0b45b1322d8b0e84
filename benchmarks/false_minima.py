"""What refuses a false minimum of the fit of raw frames: ``python benchmarks/false_minima.py``, kept in false_minima.csv.

The fit finds the right surface of all stacks of ``frame_fits.py``, so its refusals are tried apart: of 16 stacks the search
is left only starts that end more than 15 nm off. A line per stack that has such: the verdict, the error in nm, chi squared,
and ``unevenness``, how much more power is left over at an eighth of the field than at a 32nd.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.calibration.surface_fit.fit import RawFrames, SurfaceFitOptions, fit_surface_to_frames
from cpikan.psi.calibration.surface_fit.starts import descend_coarse_to_fine, smooth_candidates
from cpikan.psi.model.acquisition import Acquisition
from frame_fits import FAMILIES, WAVE_NM, error_nm, scene_of

RESULTS = Path(__file__).resolve().parent / "results" / "false_minima.csv"
COLUMNS = ("family", "seed", "verdict", "error_nm", "sigma_nm", "chi2", "unevenness", "warnings", "reason")
WRONG_NM = 15.0
SEEDS, STARTS = 8, 8


def row_of(family: str, seed: int) -> dict[str, Any] | None:
    """One stack, None where no start ends in a wrong surface."""
    scene = scene_of(family, seed)
    stack = FrameStack.from_array(scene.frames, Acquisition((WAVE_NM,)))
    sample = take_subsample(stack, None)
    nothing: list[bool] = []

    def only_false(raw: RawFrames, *_: Any) -> list[Any]:
        found = descend_coarse_to_fine(raw.pixels.fitted, smooth_candidates(raw.samples, [], 3)[:STARTS])
        many = len(raw.samples.points)
        chosen = np.unique(np.linspace(0, many - 1, min(len(raw.pixels.fitted.points), many)).round().astype(int))
        truth = scene.height_nm[tuple(raw.position[chosen].astype(int).T)]
        wrong = [one for one in found if error_nm(one.phase_rad * WAVE_NM / (4 * np.pi), truth) > WRONG_NM]
        nothing.append(not wrong)
        return wrong or found

    options = SurfaceFitOptions(search=only_false)
    fit = fit_surface_to_frames(sample, stack.acquisition, stack.saturation_dn, options)
    error = error_nm(fit.height_nm(sample.position), scene.height_nm[tuple(sample.position.T)])
    if any(nothing) or error <= WRONG_NM / 3:  # more terms may lead a wrong start to the right surface after all
        return None
    sigma = float(np.sqrt(np.mean(fit.sigma_nm(sample.position) ** 2)))
    numbers = {"error_nm": round(error, 1), "sigma_nm": round(sigma, 2), "chi2": round(fit.chi2, 3)}
    warned = sum("uneven" in text or "background" in text for text in fit.warnings)
    told = {"unevenness": round(fit.unevenness, 2), "warnings": warned, "reason": fit.reason}
    return {"family": family, "seed": seed, "verdict": fit.verdict, **numbers, **told}


def main() -> None:
    rows = []
    with threadpool_limits(limits=1):
        for family in FAMILIES[:2]:
            for seed in range(SEEDS):
                row = row_of(family, seed)
                if row is not None:
                    rows.append(row)
                    print(*row.values(), sep="  ", flush=True)
    with open(
        RESULTS, "w", newline="", encoding="utf-8"
    ) as file:  # only now: a run that was stopped leaves the old figures
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
