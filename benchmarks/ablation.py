"""Which parts help a small network in five processor seconds: docs/how-to/ablate.md.

    python benchmarks/ablation.py [FOLDER] [--jobs N]

About six minutes of one core; FOLDER (by default results/ablation) keeps the runs, so that a killed one goes on.
results/ablation.csv has a row per run, results/ablation_effects.csv the ratios with their sign tests; the heat map is
docs/images/ablation.png.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from cpikan.pipeline.jobs.job import Job, run
from cpikan.streaming.events import ProgressLine

HERE = Path(__file__).resolve().parent
SETTINGS = {
    "plain": "field=mlp+recipe=ssbroyden",
    "problems": ["helmholtz-1d", "poisson-2d"],
    "parts": [
        "field=scaled-cpikan",
        "recipe=soap",
        "sampler=rad",
        "balancer=residual-attention",
        "balancer=residual-attention+sampler=rad",
    ],
    "seconds": 5.0,
    "seeds": 5,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "results" / "ablation")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    settings = {**SETTINGS, "jobs": given.jobs, "resume": True}
    run(Job("ablate", output=str(given.folder), settings=settings), ProgressLine("runs", 1))
    shutil.copyfile(given.folder / "runs.csv", HERE / "results" / "ablation.csv")
    shutil.copyfile(given.folder / "effects.csv", HERE / "results" / "ablation_effects.csv")
    shutil.copyfile(given.folder / "heat_map.png", HERE.parent / "docs" / "images" / "ablation.png")


if __name__ == "__main__":
    main()
