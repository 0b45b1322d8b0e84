"""Does the interface loss close seams? The same model and data with no such loss, `interface` and `interface_al`.

    python benchmarks/interface_loss.py [--work DIR] [--kind unet] [--steps 800] [--seeds 3] [--size 64] [--overlap 16]

The model is a U-Net (or an FNO, --kind fno) on patches smaller than what it looks at, so that neighbours disagree (with the
overlap that inference asks for there are no seams to close). Trained by `cpikan.pipeline.training.train.train` on pairs of
simulated
patches, judged on neighbouring patches of stacks it has not seen. Prints and keeps (results/interface_loss.csv) the rms
disagreement on overlaps before blending in sigmas, and the noise left, everywhere and in a rim of an eighth of the patch.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpikan.images.features import PatchBatch, Prediction, predict
from cpikan.images.losses.base import right_order
from cpikan.images.losses.interface import Interface
from cpikan.images.model_file import load_model
from cpikan.images.patches.dataset import PatchLoader, WaferPatchDataset
from cpikan.images.patches.settings import PatchSettings
from cpikan.images.training.config import DataConfig, OptimizerConfig, TrainConfig, TrainingConfig
from cpikan.pipeline.training.simulated_stacks import SimulatedSpec, simulated_stacks
from cpikan.pipeline.training.train import train
from ledger import Row, keep

RESULTS = Path(__file__).parent / "results" / "interface_loss.csv"
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "interface 0.1": {"interface": 0.1},
    "interface 1": {"interface": 1.0},
    "interface_al": {"interface_al": {"weight": 0.1, "every": 5}},
}
NOISE_RAD = (0.1, 0.3)
FIGURES = (("seams", "sigma"), ("noise left", "x guide"), ("noise left in the rim", "x guide"))


def config(given: argparse.Namespace, work: Path, terms: dict[str, Any], seed: int) -> TrainConfig:
    """Regular pairs without augmentation, which multipliers ask for; the same for all."""
    shape = [4 * given.size, 4 * given.size]
    return TrainConfig(
        seed=seed,
        data=DataConfig(
            simulated={"count": 16, "first_seed": 100, "shape": shape, "phase_noise_rad": NOISE_RAD},
            validation_simulated={"count": 1, "first_seed": 800, "shape": shape, "phase_noise_rad": NOISE_RAD},
            validation_patches=8,
            cache=str(work / "cache"),
            batch=4,
        ),
        patches=PatchSettings(size=given.size, order="regular", overlap=given.overlap, pairs=True, turned=False),
        model={"kind": given.kind, **({"widths": [16, 24]} if given.kind == "unet" else {})},
        optimizer=OptimizerConfig(rate=3e-3),
        loss={"supervised": 1.0, "orders": 0.5, **terms},
        training=TrainingConfig(steps=given.steps, validate_steps=max(1, given.steps // 4)),
    )


@torch.no_grad()
def judge(model: Path, batches: list[PatchBatch]) -> tuple[float, float, float]:
    """Disagreement in sigmas, noise left over that of the guide, and the same in the rim."""
    network, card = load_model(model)
    network.eval()
    seams, pixels = 0.0, 0.0
    squares = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        prediction = predict(network, batch.planes, card.features, batch.unit_nm)
        seams += float(Interface().sum(prediction, batch))
        pixels += float(Interface().weight(batch))
        squares += errors(prediction, batch)
    whole, rim = (squares[::2] / squares[1::2]).sqrt().tolist()
    return math.sqrt(seams / pixels), whole, rim


def errors(prediction: Prediction, batch: PatchBatch) -> Tensor:
    """Sums of squares of prediction and guide less the truth over pixels of right order: everywhere, then in the rim (4,)."""
    assert batch.truth_nm is not None
    known, size = right_order(batch), batch.truth_nm.shape[-1]
    rim = torch.ones(size, size, dtype=torch.bool)
    rim[size // 8 : -(size // 8), size // 8 : -(size // 8)] = False
    found = []
    for chosen in (known, known & rim):
        for height in (prediction.height_nm, batch.planes.height_nm):
            found.append((height - batch.truth_nm)[chosen].double().square().sum())
    return torch.stack(found)


def held_out(given: argparse.Namespace, work: Path) -> list[PatchBatch]:
    """Neighbouring patches of stacks that no run has seen."""
    spec = SimulatedSpec(count=2, first_seed=900, shape=(4 * given.size, 4 * given.size), phase_noise_rad=NOISE_RAD)
    stacks = simulated_stacks(work / "cache", spec, progress=False, frames=False)
    asked = PatchSettings(size=given.size, order="regular", overlap=given.overlap, pairs=True, turned=False)
    return list(PatchLoader(WaferPatchDataset(stacks, replace(asked, piston_units=0.0)), 4, workers=0).epoch(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--kind", choices=("unet", "fno"), default="unet")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--overlap", type=int, default=16)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory() as made:
        work = given.work or Path(made)
        work.mkdir(parents=True, exist_ok=True)
        batches = held_out(given, work)
        for name, terms in KINDS.items():
            for seed in range(given.seeds):
                output = work / f"{name.replace(' ', '_')}_{seed}"
                train(config(given, work, terms, seed), output, overwrite=True, progress=False)
                seams, left, rim = judge(output, batches)
                found[name].append((seams, left, rim))
                print(f"{name}, seed {seed}: seams {seams:.4g} sigma, noise left {left:.4g}, rim {rim:.4g}", flush=True)
    rows = []
    note = f"{given.kind}, {given.steps} steps, {given.seeds} seeds, pairs of {given.size} with {given.overlap} shared"
    for index, (figure, unit) in enumerate(FIGURES):
        plain = statistics.median(one[index] for one in found["none"])
        for name, values in found.items():
            value, target = statistics.median(one[index] for one in values), 0.95 * plain
            met = value <= target
            rows.append(Row(f"{figure}: {name}", f"{value:.4g}", unit, f"<= {target:.4g}", met, "none", note))
    keep(RESULTS, rows)
    for row in rows:
        print(f"{row.figure}: {row.value} {row.unit} (target {row.target})")


if __name__ == "__main__":
    main()
