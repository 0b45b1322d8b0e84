"""Does training on coarse maps first pay? The same model, data and seconds, with and without a curriculum.

    python benchmarks/curriculum.py [--work DIR] [--seconds 120] [--seeds 3] [--size 128] [--stacks 16]

Every run is `cpikan.pipeline.training.train.train` on simulated stacks, judged at full resolution on stacks it has not seen.
Prints and keeps (results/curriculum.csv) the noise left after equal time, and the time after which the noise left by the plain
run is reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

from cpikan.images.patches.settings import PatchSettings
from cpikan.images.training.config import DataConfig, OptimizerConfig, TrainConfig, TrainingConfig
from cpikan.pipeline.training.train import train
from ledger import Row, keep

RESULTS = Path(__file__).parent / "results" / "curriculum.csv"
STAGES = {"full": [1], "half first": [2, 1], "quarter first": [4, 2, 1], "eighth first": [8, 4, 2, 1]}


def config(given: argparse.Namespace, work: Path, stages: list[int], seed: int) -> TrainConfig:
    """A run of so many seconds; a constant rate, since how many steps that is depends on the stages."""
    shape = [4 * given.size, 4 * given.size]
    return TrainConfig(
        seed=seed,
        data=DataConfig(
            simulated={"count": given.stacks, "first_seed": 100, "shape": shape},
            validation_simulated={"count": 4, "first_seed": 900, "shape": shape},
            validation_patches=16,
            cache=str(work / "cache"),
            batch=4,
        ),
        patches=PatchSettings(size=given.size),
        model={"kind": "unet", "widths": [16, 24, 32]},
        loss={"supervised": 1.0, "orders": 0.5},
        curriculum={"stages": stages, "patience": 3, "least_gain": 0.01} if stages != [1] else {},
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=20),
        training=TrainingConfig(steps=1_000_000, seconds=given.seconds, validate_steps=25),
    )


class Watch(threading.Thread):
    """Reads a log as it grows and notes when each validation came, in seconds after the first of them."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self.log, self.lines, self.over = log, [], threading.Event()

    def run(self) -> None:
        read, began = 0, 0.0
        while True:
            last = self.over.is_set()
            text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
            whole = text[: text.rfind("\n") + 1].splitlines()
            for line in map(json.loads, whole[read:]):
                if line["kind"] == "validation":
                    began = began or time.perf_counter()
                    self.lines.append((time.perf_counter() - began, line))
            read = len(whole)
            if last:
                return
            self.over.wait(0.1)


def run(given: argparse.Namespace, work: Path, name: str, seed: int) -> tuple[float, list[tuple[float, float]]]:
    """The noise left at the end, and (seconds, noise left) of the validations at full resolution."""
    output = work / f"{name.replace(' ', '_')}_{seed}"
    log = output.with_name(output.name + ".training") / "log.jsonl"
    log.unlink(missing_ok=True)
    watch = Watch(log)
    watch.start()
    summary = train(config(given, work, STAGES[name], seed), output, overwrite=True, progress=False)
    watch.over.set()
    watch.join()
    kept = [(at, line["noise_ratio"]) for at, line in watch.lines if line["resolution"] == 1 and line["step"]]
    told = f"{kept[-1][1]:.4g} of the guide's noise left" if kept else "full resolution never reached"
    print(f"{name}, seed {seed}: {summary['steps']} steps, {told}", flush=True)
    return (kept[-1][1] if kept else float("inf")), kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--stacks", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = given.work or Path(made)
        work.mkdir(parents=True, exist_ok=True)
        runs = {name: [run(given, work, name, seed) for seed in range(given.seeds)] for name in STAGES}
    plain = statistics.median(left for left, _ in runs["full"])
    note = f"{given.seeds} seeds, {given.seconds:g} s each, patches of {given.size}"
    rows = []
    for name, found in runs.items():
        left = statistics.median(one for one, _ in found)
        rows.append(
            Row(f"noise left: {name}", f"{left:.4g}", "x guide", f"<= {plain:.4g}", left <= plain, "full", note)
        )
        # of each seed: the time after which the run at full resolution was left behind
        pairs = [(line, own) for (_, line), (own, _) in zip(found, runs["full"], strict=True)]
        reached = [next((at for at, ratio in line if ratio <= own), float("inf")) for line, own in pairs]
        share = statistics.median(reached) / given.seconds
        rows.append(
            Row(f"time to the noise of full: {name}", f"{share:.3g}", "x", "<= 0.7", share <= 0.7, "full", note)
        )
    keep(RESULTS, rows)
    for row in rows:
        print(f"{row.figure}: {row.value} {row.unit} (target {row.target})")


if __name__ == "__main__":
    main()
