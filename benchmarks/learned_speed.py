"""What the shipped network costs: ``python benchmarks/learned_speed.py [--stack DIR] [--work DIR] [--model wafer]``.

Kept in results/learned_speed.csv. ``full``: frames of 9344 x 7000 pixels (DIR, simulated where it is not given) by the command
line with ``--method learned``, and the same by ``hybrid``, each in a process of its own. ``seams``: a map of 1536 x 1536 in
tiles against the same in one. ``processes``: a map of 7000 x 4096 by one and by two processes of one thread. ``features``: what
the network is shown, its channels alone, per megapixel.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cpikan
from cpikan.images.features import Planes, features
from cpikan.images.tiles import LearnedTiles, MapUnits
from cpikan.pipeline.simulation.simulate import simulate
from cpikan.pipeline.training.simulated_stacks import noisy_instrument
from cpikan.psi.simulate import SimulationSettings
from ledger import Row, keep

RESULTS = Path(__file__).parent / "results" / "learned_speed.csv"
PARTS = ("full", "seams", "processes", "features")
WAVES_NM = (5000.0, 5500.0, 6050.0, 6655.0)
SIGMA_NM = 45.0


def tiles_of(model: str, threads: int = 1) -> LearnedTiles:
    network, card = cpikan.load_model(model)
    return LearnedTiles(network, card.features, MapUnits(SIGMA_NM, 2500.0), fingerprint=model, threads=threads)


def planes(rows: int, columns: int) -> np.ndarray:
    """Height with steps and noise, sigma, validity."""
    rng = np.random.default_rng(3)
    y, x = np.indices((rows, columns), np.float32)
    height = 120 * ((x // 96 + y // 80) % 2) + 0.5 * x + rng.normal(0, SIGMA_NM, (rows, columns))
    return np.stack([height, np.full_like(height, SIGMA_NM), rng.random((rows, columns)) > 0.001]).astype(np.float32)


def full(stack: Path | None, work: Path, model: str) -> list[Row]:
    place = stack or work / "stack"
    if not place.exists():
        settings = SimulationSettings((7000, 9344), WAVES_NM, seed=910_000, instrument=noisy_instrument(0.2, 4))
        simulate(place, settings)
    rows = []
    for method in ("hybrid", "learned"):
        more = ["--model", model] if method == "learned" else []
        command = [
            sys.executable,
            "-m",
            "cpikan",
            "reconstruct",
            str(place),
            "-o",
            str(work / f"{method}.npy"),
            "--json",
        ]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--method", method, "--overwrite", *more], check=True, capture_output=True, text=True
        )
        seconds = time.perf_counter() - started
        told = json.loads(done.stdout)
        note = f"whole process {seconds:.1f} s, {told['megapixels_per_second']:.1f} MPix/s"
        if method == "learned":
            tiled = told["learned"]
            note += f", network {tiled['seconds']:.1f} s, tiles {tiled['tile']} overlap {tiled['overlap']}, p50 "
            note += f"{tiled['tile_ms_p50']:.0f} ms, p95 {tiled['tile_ms_p95']:.0f} ms a tile, "
            note += f"{tiled['tiles_per_second']:.1f} tiles/s"
        target = ("<= 60", told["seconds"] <= 60) if method == "learned" else ("", "")
        rows.append(Row(f"9344x7000 {method}: seconds", round(told["seconds"], 2), "s", *target, "", note))
        memory = told["peak_anonymous_mib"]
        rows.append(
            Row(f"9344x7000 {method}: memory", round(memory), "MiB", "<= 2048", memory <= 2048, "", "anonymous")
        )
    return rows


def seams(model: str) -> list[Row]:
    given, tiles = planes(1536, 1536), tiles_of(model)
    whole = tiles(given[None])[0]
    parts = cpikan.infer_tiled(tiles, given, tile=512, overlap=2 * (tiles.receptive_field_px // 2) + 8)
    gap = np.abs(whole - parts.values)
    relative = float(gap[0].max() / np.abs(given[0]).max())
    note = f"{parts.report['tiles']} tiles, {parts.report['exact']}; largest of correction and sigma over the largest height"
    return [
        Row(
            "seams",
            f"{max(relative, float(gap[1].max() / np.abs(given[0]).max())):.2g}",
            "",
            "<= 1e-6",
            relative <= 1e-6,
            "one tile",
            note,
        )
    ]


def processes(model: str) -> list[Row]:
    given = planes(7000, 4096)
    tiles = tiles_of(model)
    found: list[tuple[np.ndarray, dict[str, Any]]] = []
    for count in (1, 2):
        result = cpikan.infer_tiled(tiles, given, tile=512, overlap=144, processes=count, threads=1)
        found.append((np.array(result.values), result.report))
    gain = found[0][1]["seconds"] / found[1][1]["seconds"]
    note = f"{found[0][1]['seconds']:.1f} s and {found[1][1]['seconds']:.1f} s, start of the processes not counted"
    same = all(np.array_equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    return [
        Row("two processes: speed-up", round(gain, 2), "x", ">= 1.6", gain >= 1.6, "one process", note),
        Row("two processes: same bytes", int(same), "", "1", same, "one process", ""),
    ]


def channels(model: str) -> list[Row]:
    spec = cpikan.load_model(model)[1].features
    given = torch.from_numpy(planes(1024, 1024))
    shown = Planes(given[0][None], given[1][None], given[2][None] > 0.5)
    unit, times = torch.tensor([SIGMA_NM]), []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(5):
        started = time.perf_counter()
        features(shown, spec, unit)
        times.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    seconds = sorted(times)[2] / given[0].numel() * 1e6
    return [Row("features", round(1e3 * seconds, 1), "ms/MPix", "", "", "", f"{spec.channels} channels, one thread")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stack", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--model", default="wafer")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        parts = {
            "full": lambda: full(given.stack, work, given.model),
            "seams": lambda: seams(given.model),
            "processes": lambda: processes(given.model),
            "features": lambda: channels(given.model),
        }
        keep(RESULTS, [row for name in given.only for row in parts[name]()])


if __name__ == "__main__":
    main()
