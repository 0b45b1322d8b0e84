"""What the slow form and the trial are worth to ``--method learned``, and whether its sigma holds.

    python benchmarks/learned_trial.py                 the stacks below (learned_trial.csv)
    python benchmarks/learned_trial.py --scenes        scenes of `benchmarks/learned.py` as it is now (learned_coverage.csv)

Clean stacks of `benchmarks/faulty_stacks.py`, as they are and with detail added that a network may take for noise. Kept in
results/learned_trial.csv, one row per map and way:

    hybrid   the map that the network starts from
    bare     the network is shown the map with its slow form, and used with its own sigma whatever a trial says
    form     the slow form is taken off what it is shown
    tried    and the trial decides: the method as it is

``median_nm`` is the median error after removing the median of each component, ``coverage`` the share of 95 % intervals that
hold, ``found``, ``error``, ``said``, ``factor`` and ``used`` what the trial found, ``slope`` how many sigmas the form rises
from pixel to pixel.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

import cpikan
import learned
from cpikan.pipeline.reconstruction import shown_map, trial
from faulty_stacks import FaultyStack, clean_bench, take
from trust_matrix import DOUBTED, Found, calibrated_once, errors_nm, range_nm, reconstructed

CSV = Path(__file__).parent / "results" / "learned_trial.csv"
COVERAGE = CSV.with_name("learned_coverage.csv")
NOISES_RAD = (0.05, 0.2, 0.3)
KINDS: dict[str, Callable[[float], list[learned.Scene]]] = {
    "close": lambda noise: learned.simulated(512, 1, noise, learned.FULL_SCALE_UM),
    "simulated": lambda noise: learned.simulated(512, 1, noise),
    "independent": lambda noise: learned.independent(512, 2, noise),
    "steps": lambda noise: [learned.steps(512, noise)],
}
Y, X = np.mgrid[:256, :320]
ADDED = {  # in sigmas of the map
    "as it is": lambda rng: 0.0 * X,
    "steep waves": lambda rng: 60 * np.sin(2 * np.pi * X / 20) * np.sin(2 * np.pi * Y / 23),
    "rough": lambda rng: rng.normal(size=X.shape),
    "waves of 5 px": lambda rng: 1.5 * np.sin(2 * np.pi * X / 5),
    "lines of 3 px": lambda rng: 3.0 * (X // 3 % 2),
}
SCENES = [(waves, seed, "as it is") for waves in (1, 2, 3, 4) for seed in (0, 1)]
SCENES += [(1, 2, "steep waves"), (4, 1, "steep waves"), (1, 2, "rough"), (4, 2, "rough")]
SCENES += [(4, 2, "waves of 5 px"), (1, 1, "lines of 3 px")]
WAYS = ("hybrid", "bare", "form", "tried")


def rows_of(waves: int, seed: int, added: str, folder: Path) -> Iterator[dict[str, object]]:
    """Reconstruct one stack in all ways."""
    bench = clean_bench(seed, waves, range_nm)
    sigma_nm = float(np.nanmedian(reconstructed(take(bench, None, 0, seed), "hybrid", folder).sigma_nm))
    detail = sigma_nm * ADDED[added](np.random.default_rng(0))
    stack = take(replace(bench, height_nm=bench.height_nm + detail), None, 0, seed)
    for way in WAYS:
        with ExitStack() as patched:
            if way in ("bare", "form"):
                patched.enter_context(mock.patch.object(trial, "noise_left", return_value=None))
            if way == "bare":
                patched.enter_context(mock.patch.object(shown_map, "_STEEP", np.inf))
            found = reconstructed(stack, "hybrid" if way == "hybrid" else "learned", folder)
        row = {"waves": waves, "seed": seed, "added": added, "way": way, **figures(found, stack)}
        facts = json.loads((folder / "out.json").read_text())["summary"]["learned"]
        if way == "tried":
            left = facts["noise_left"]
            row |= {name: left[name] for name in ("found", "error", "said")}
            row |= {"factor": facts["sigma_factor"], "used": int(facts["used"])}
            row["slope"] = (facts["form_slope_nm"] or 0.0) / sigma_nm
        yield {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}


def figures(found: Found, stack: FaultyStack) -> dict[str, float]:
    """Compute the median error and the share of intervals that hold."""
    error = errors_nm(found, stack)
    sure = np.isfinite(error) & ((found.flags & DOUBTED) == 0)
    return {
        "median_nm": float(np.nanmedian(np.abs(error))),
        "coverage": float((np.abs(error) < 1.96 * found.sigma_nm)[sure].mean()),
    }


FIELDS = ("waves", "seed", "added", "way", "median_nm", "coverage", "found", "error", "said", "factor", "used", "slope")


def of_scene(scene: learned.Scene) -> dict[str, object]:
    """Reconstruct a scene of `learned.py` by hybrid and learned: noise left against hybrid, and intervals that hold."""
    with tempfile.TemporaryDirectory() as folder:
        hybrid, found = (
            cpikan.reconstruct(
                scene.stack,
                Path(folder) / f"{method}.npy",
                method=method,
                all_quantities=True,
                progress=False,
                range_nm=learned.RANGE_NM,
            )
            for method in ("hybrid", "learned")
        )
        maps = [np.array(one[...]) for one in (found.height_nm, found.sigma_nm, hybrid.height_nm)]
    told = learned.figures(scene, "learned", *maps)
    facts = found.summary["learned"]
    left = {name: facts["noise_left"][name] for name in ("found", "error", "said")}
    row = {**{name: told[name] for name in ("noise", "coverage")}, **left, "factor": facts["sigma_factor"]}
    named = {"scene": scene.name, "case": scene.case, "noise_rad": scene.noise_rad}
    return {**named, **{name: f"{value:.4g}" for name, value in row.items()}}


def write_scenes(path: Path) -> None:
    rows = [of_scene(scene) for noise in NOISES_RAD for kind in KINDS.values() for scene in kind(noise)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--scenes", action="store_true")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    if given.scenes:
        write_scenes(COVERAGE)
        return
    with given.csv.open("w", newline="") as file, tempfile.TemporaryDirectory() as folder, calibrated_once():
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for scene in SCENES:
            for row in rows_of(*scene, Path(folder)):
                writer.writerow(row)
                print(row, flush=True)


if __name__ == "__main__":
    main()
