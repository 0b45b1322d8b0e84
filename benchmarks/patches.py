"""Patches of giant stacks for training: rate, bytes read and memory, against reading the whole stack for every patch.

    python benchmarks/patches.py [--work DIR] [--shape 7000x9344] [--size 256] [--batches 60] [--repeat 3]

Simulates a stack of four wavelengths and four frames into DIR (or takes the one in DIR/stack), makes its height map once, then
draws batches of eight random patches: heights alone, heights with frames, and with phases demodulated from the frames. Each
run is a process of its own; "cold" ones begin with the files out of the page cache, "warm" ones with what the last run left
there. Prints each figure and keeps them in results/patches.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cpikan.images.patches.dataset import PatchLoader, PatchSettings, WaferPatchDataset
from cpikan.pipeline.simulation.simulate import simulate
from cpikan.pipeline.training.training_stacks import open_training_stacks
from cpikan.psi.simulate import SimulationSettings
from cpikan.streaming.memory import PeakMemory, anonymous_mib
from ledger import Row, keep

RESULTS = Path(__file__).parent / "results" / "patches.csv"
WAVES_NM = (5000.0, 5500.0, 6050.0, 6655.0)
BATCH = 8
KINDS = {
    "heights": {},
    "frames": {"frames": True},
    "phases": {"frames": True, "phases": True},
}
LOADERS = {
    "no workers": {"workers": 0},
    "1 thread": {"workers": 1},
    "2 threads": {"workers": 2},
    "2 processes": {"workers": 2, "processes": True},
}


def drop(folder: Path) -> None:
    """Ask the kernel to forget the pages of the files in a folder."""
    for path in folder.rglob("*.npy"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_mib() -> float:
    """What this process, and those it waited for, had read from the disk, in MiB."""
    return sum(resource.getrusage(who).ru_inblock for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2048


def child_patches(work: str, size: str, batches: str, kind: str, loader: str) -> dict:
    """Draw batches; the first, which starts threads or processes, is not counted in the time."""
    source = open_training_stacks([Path(work) / "stack"], Path(work) / "cache", progress=False, frames=True)
    settings = PatchSettings(size=int(size), count=BATCH * (int(batches) + 1), **KINDS[kind])
    dataset = WaferPatchDataset(source, settings)
    base, read = anonymous_mib(), disk_mib()
    with PeakMemory(0.002) as memory:
        drawn = PatchLoader(dataset, BATCH, **LOADERS[loader]).epoch(0)
        next(drawn)
        started = time.perf_counter()
        patches = sum(len(batch) for batch in drawn)
        seconds = time.perf_counter() - started
    return {
        "rate": patches / seconds,
        "mib_per_patch": (disk_mib() - read) / (patches + BATCH),
        "peak_mib": memory.mib - base,
    }


def child_whole(work: str, size: str, batches: str) -> dict:
    """What the published code does: load the whole stack, cut one patch, forget it."""
    path, side = Path(work) / "stack" / "frames.npy", int(size)
    draw, count = np.random.default_rng(0), max(3, int(batches) // 10)
    base, read = anonymous_mib(), disk_mib()
    with PeakMemory(0.002) as memory:
        started = time.perf_counter()
        for _ in range(count):
            frames = np.load(path, allow_pickle=False)
            row, column = (int(draw.integers(0, length - side + 1)) for length in frames.shape[2:])
            _ = frames[..., row : row + side, column : column + side].astype(np.float32)
            del frames
        seconds = time.perf_counter() - started
    return {"rate": count / seconds, "mib_per_patch": (disk_mib() - read) / count, "peak_mib": memory.mib - base}


def child(*arguments: object) -> dict:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--child", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measured(work: Path, repeat: int, *arguments: object, cold: bool) -> dict:
    """Medians of ``repeat`` runs."""
    runs = []
    for _ in range(repeat):
        if cold:
            drop(work)
        runs.append(child(*arguments))
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def figures(work: Path, given: argparse.Namespace) -> list[Row]:
    """All rows, printed as they come."""
    height, width = given.shape
    name = f"{height}x{width}x16, {given.size} px"
    rows: list[Row] = []

    def add(figure: str, found: dict, baseline: str, note: str) -> None:
        rows.append(Row(f"{name}, {figure}: rate", f"{found['rate']:.4g}", "patches/s", "", "", baseline, note))
        rows.append(
            Row(f"{name}, {figure}: read", f"{found['mib_per_patch']:.4g}", "MiB/patch", "", "", baseline, note)
        )
        rows.append(Row(f"{name}, {figure}: memory", f"{found['peak_mib']:.4g}", "MiB", "", "", baseline, note))
        for row in rows[-3:]:
            print(f"{row.figure}: {row.value} {row.unit} ({row.note})", flush=True)

    stack_mib = 16 * height * width / 2**20
    for cold in (True, False):
        state = "cold" if cold else "warm"
        whole = measured(work, given.repeat, "whole", work, given.size, given.batches, cold=cold)
        add(f"whole stack, {state}", whole, "", f"stack {stack_mib:.0f} MiB; only the first load is cold")
        for kind in KINDS:
            for loader in LOADERS if not cold else ("2 threads",):
                arguments = ("patches", work, given.size, given.batches, kind, loader)
                found = measured(work, given.repeat, *arguments, cold=cold)
                ratio = found["rate"] / whole["rate"]
                add(f"{kind}, {loader}, {state}", found, "whole stack", f"{ratio:.1f} x the whole stack's rate")
    return rows


def shape_of(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--shape", type=shape_of, default=(7000, 9344))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kinds = {"patches": child_patches, "whole": child_whole}
        print(json.dumps(kinds[given.child[0]](*given.child[1:])))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        if not (work / "stack").exists():
            simulate(work / "stack", SimulationSettings(shape=given.shape, wavelengths_nm=WAVES_NM), resume=True)
        started = time.perf_counter()
        source = open_training_stacks([work / "stack"], work / "cache", frames=True)[0]
        given.shape = source.shape
        print(f"{source}: opened in {time.perf_counter() - started:.1f} s", flush=True)
        keep(RESULTS, figures(work, given))


if __name__ == "__main__":
    main()
