"""Overlap-tile inference: speed, memory, exactness, processes, and MONAI on the same array.

    python benchmarks/tiling.py [--work DIR] [--only speed memory processes exact monai] [--repeat 3]

Prints each figure and keeps them in results/tiling.csv. Every timed run is a process of its own. The comparison needs MONAI
in the environment (``pip install monai``), which the package itself does not; without it that part is left out, saying so.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import cpikan
from cpikan.streaming.memory import PeakMemory, anonymous_mib
from ledger import Row, keep

RESULTS = Path(__file__).parent / "results" / "tiling.csv"
SHAPES = ((7000, 9344), (16384, 16384))
PARTS = ("speed", "memory", "processes", "exact", "monai")
TILES = {"tile": 512, "overlap": 64}
BATCH = {"identity": 4, "conv": 1}  # of one tile MONAI hands out a view and weights it in place: its input would change


def same(tiles: np.ndarray) -> np.ndarray:
    """The identity."""
    return tiles


def boxes(tiles: np.ndarray) -> np.ndarray:
    """Sixteen box filters of 5 x 5 in a row, separable, on one core: a model that takes its time (receptive field 65)."""
    from scipy.ndimage import uniform_filter

    for _ in range(16):
        tiles = uniform_filter(tiles, (1, 1, 5, 5), mode="constant")
    return tiles


IDENTITY = cpikan.TileFunction(same, receptive_field_px=1)
BOXES = cpikan.TileFunction(boxes, receptive_field_px=65, batch=1)


def make_image(path: Path, shape: tuple[int, int]) -> None:
    """Heights of a few hundred nm with noise, written in bands, where it is not there already."""
    if path.exists():
        return
    image = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(1, *shape))
    rng = np.random.default_rng(shape[0])
    for top in range(0, shape[0], 1024):
        rows = image[0, top : top + 1024]
        rows[:] = 300 * np.sin(np.arange(shape[1]) / 900) + rng.standard_normal(rows.shape, np.float32)
    image.flush()


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def child(*arguments: object) -> dict:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--child", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def child_file(source: str, output: str, window: str, model: str, processes: str) -> dict:
    """From file to durable file; ``wall`` counts from opening the source."""
    chosen = {"identity": IDENTITY, "boxes": BOXES}[model]
    base, started = anonymous_mib(), time.perf_counter()
    options = {"window": window, "processes": int(processes), "threads": 1, "overwrite": True}
    report = cpikan.infer_tiled(chosen, source, output, **TILES, **options).report
    return report | {"wall": time.perf_counter() - started, "base_mib": base}


def child_ours(source: str, model: str) -> dict:
    """Array in memory to array in memory."""
    image = np.load(source, allow_pickle=False)
    run, module = _network(model)
    tiled = (
        run if module is None else cpikan.TorchTiles(module, receptive_field_px=3, channels=(1, 1), batch=BATCH["conv"])
    )
    out = np.zeros_like(image)  # touched: its pages are not counted
    cpikan.infer_tiled(tiled, image[:, :600, :3000], **TILES, window="hann")  # warm
    with PeakMemory(0.002) as memory:
        base, started = anonymous_mib(), time.perf_counter()
        cpikan.infer_tiled(tiled, image, out, **TILES, window="hann")
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "buffer_mib": memory.mib - base, "error": _error(out, image, module)}


def child_monai(source: str, model: str) -> dict:
    """The same with MONAI: the result it allocates is taken off its memory, as ours is."""
    import torch
    from monai.inferers import sliding_window_inference

    image = torch.from_numpy(np.load(source, allow_pickle=False))[None]
    module = _network(model)[1] or (lambda tiles: tiles)
    options = {"sw_batch_size": BATCH[model], "predictor": module, "overlap": 64 / 512, "mode": "gaussian"}
    with torch.inference_mode():
        sliding_window_inference(image[:, :, :600, :3000], (512, 512), **options)
        with PeakMemory(0.002) as memory:
            base, started = anonymous_mib(), time.perf_counter()
            out = sliding_window_inference(image, (512, 512), **options)
            seconds = time.perf_counter() - started
    result_mib = out.numel() * out.element_size() / 2**20
    found = _error(out[0].numpy(), image[0].numpy(), None if model == "identity" else module)
    return {"seconds": seconds, "buffer_mib": memory.mib - base - result_mib, "error": found}


def _network(model: str) -> tuple[cpikan.TileFunction, object]:
    if model == "identity":
        return IDENTITY, None
    import torch

    torch.manual_seed(1)
    return IDENTITY, torch.nn.Conv2d(1, 1, 3, padding=1).eval()


def _error(out: np.ndarray, image: np.ndarray, module: object) -> float:
    """The largest difference from the untiled result, over the largest value, on the upper 2048 rows."""
    if module is None:
        truth = image[:, :2048]
    else:
        import torch

        with torch.inference_mode():
            truth = module(torch.from_numpy(image[None, :, :2049]))[0].numpy()[:, :2048]  # type: ignore[operator]
    return float(np.abs(out[:, :2048] - truth).max() / np.abs(truth).max())


def floor(image: Path, out: Path) -> float:
    """Seconds to read a file and write a file of the same size, flushed, in pieces of 32 MiB."""
    started = time.perf_counter()
    with open(image, "rb", buffering=0) as source, open(out, "wb", buffering=0) as target:
        while piece := source.read(2**25):
            target.write(piece)
        os.fsync(target.fileno())
    return time.perf_counter() - started


def speed(work: Path, repeat: int) -> list[Row]:
    """Identity from .npy to .npy, and the floor: a copy of the file."""
    rows = []
    for height, width in SHAPES:
        image = work / f"image{height}.npy"
        make_image(image, (height, width))
        plain = min(floor(image, work / "out.npy") for _ in range(repeat))
        copied = round(height * width / 1e6 / plain, 1)
        rows.append(Row(f"{width}x{height}: plain copy of the file, flushed", copied, "MPix/s", "", "", "", ""))
        for window in ("halo", "hann"):
            (work / "out.npy").unlink(missing_ok=True)
            runs = [child("file", image, work / "out.npy", window, "identity", 1) for _ in range(repeat)]
            best = min(runs, key=lambda run: run["wall"])
            exact = digest(work / "out.npy") == digest(image)
            name = f"identity {width}x{height} {window}"
            rate, mib = height * width / 1e6 / best["wall"], max(run["peak_anonymous_mib"] for run in runs)
            note = f"read {best['seconds_read']:.2f} s, write {best['seconds_write']:.2f} s, p50 {best['tile_ms_p50']:.2f} ms,"
            note += f" p95 {best['tile_ms_p95']:.2f} ms a tile, {best['tiles_per_second']:.0f} tiles/s"
            rows += [
                Row(f"{name}: speed", round(rate, 1), "MPix/s", ">= 40", rate >= 40, "", note),
                Row(
                    f"{name}: anonymous memory",
                    round(mib),
                    "MiB",
                    "<= 400",
                    mib <= 400,
                    "",
                    f"process {best['base_mib']:.0f}",
                ),
                Row(f"{name}: same bytes", int(exact), "", "1", exact, "input", ""),
            ]
    return rows


def memory(work: Path, repeat: int) -> list[Row]:
    """Growth of memory with the height of the image."""
    peaks = []
    for height in (4096, 32768):
        image = work / f"tall{height}.npy"
        make_image(image, (height, 4096))
        peaks.append(child("file", image, work / "out.npy", "hann", "identity", 1)["peak_anonymous_mib"])
    growth = 100 * (peaks[1] / peaks[0] - 1)
    note = f"4096 wide: {peaks[0]:.0f} MiB at 4096 rows, {peaks[1]:.0f} MiB at 32768"
    return [Row("memory growth with eight times the height", round(growth, 1), "%", "<= 5", growth <= 5, "", note)]


def processes(work: Path, repeat: int) -> list[Row]:
    """Two processes against one, a model that computes on one core."""
    image = work / "image7000.npy"
    make_image(image, SHAPES[0])
    best, sums = {}, {}
    for count in (1, 2):
        runs = [child("file", image, work / "out.npy", "halo", "boxes", count) for _ in range(repeat)]
        best[count], sums[count] = min(run["wall"] for run in runs), digest(work / "out.npy")
    factor, equal = best[1] / best[2], sums[1] == sums[2]
    note = f"{best[1]:.1f} s and {best[2]:.1f} s, start of the processes included"
    return [
        Row("two processes: speed-up", round(factor, 2), "x", ">= 1.6", factor >= 1.6, "one process", note),
        Row("two processes: same bytes", int(equal), "", "1", equal, "one process", ""),
    ]


def exact(work: Path, repeat: int) -> list[Row]:
    """A model of finite receptive field, tiled and untiled."""
    image = np.random.default_rng(1).standard_normal((1, 3000, 4000), np.float32)
    untiled = boxes(image[None])[0]
    rows = []
    for window, overlap in (("halo", 64), ("hann", 128)):
        tiled = cpikan.infer_tiled(BOXES, image, tile=512, overlap=overlap, window=window).values
        error = float(np.abs(tiled - untiled).max() / np.abs(untiled).max())
        rows.append(Row(f"16 box filters, {window}: largest error", error, "", "<= 1e-6", error <= 1e-6, "untiled", ""))
    return rows


def monai(work: Path, repeat: int) -> list[Row]:
    """The same array in memory, identity and one 3 x 3 convolution."""
    if importlib.util.find_spec("monai") is None:
        print("MONAI is not installed: its comparison is left out", file=sys.stderr)
        return []
    image = work / "image7000.npy"
    make_image(image, SHAPES[0])
    rows = []
    for model in ("identity", "conv"):
        found = {"ours": [], "monai": []}
        for _ in range(repeat):  # in turn, so that both see the same machine
            for who, runs in found.items():
                runs.append(child(who, image, model))
        mine, theirs = (min(found[who], key=lambda run: run["seconds"]) for who in ("ours", "monai"))
        factor = theirs["seconds"] / mine["seconds"]
        mib = [max(run["buffer_mib"] for run in found[who]) for who in ("ours", "monai")]
        share = mib[0] / mib[1]
        errors = f"errors {mine['error']:.1e} and {theirs['error']:.1e}"
        note = f"{mine['seconds']:.2f} s and {theirs['seconds']:.2f} s; {errors}"
        sizes = f"{mib[0]:.0f} MiB and {mib[1]:.0f} MiB beyond input, output and process"
        rows += [
            Row(f"MONAI, {model}: speed", round(factor, 2), "x", ">= 1", factor >= 1, "MONAI 1.6.1", note),
            Row(f"MONAI, {model}: buffers", round(share, 4), "x", "<= 0.05", share <= 0.05, "MONAI 1.6.1", sizes),
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kinds = {"file": child_file, "ours": child_ours, "monai": child_monai}
        print(json.dumps(kinds[given.child[0]](*given.child[1:])))
        return
    parts = {"speed": speed, "memory": memory, "processes": processes, "exact": exact, "monai": monai}
    with tempfile.TemporaryDirectory() as folder:
        for part in given.only:
            rows = parts[part](given.work or Path(folder), given.repeat)
            for row in rows:
                print(
                    f"{row.figure}: {row.value} {row.unit} (target {row.target}, met {row.met}) {row.note}", flush=True
                )
            keep(RESULTS, rows)


if __name__ == "__main__":
    main()
