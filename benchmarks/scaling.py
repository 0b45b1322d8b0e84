"""How work grows with processes and subdomains, measured on the cores there are, and what that predicts for other machines.

    python benchmarks/scaling.py measure      # results/scaling.csv: solves and maps by 1 and 2 processes
    python benchmarks/scaling.py measure solves     # only these lines of it: solves, coupled, speeds, maps or shared
    python benchmarks/scaling.py predict      # results/scaling_predicted.csv: from those, and the machines named here

Measured are processor seconds, of the process that used most of them, and bytes sent: others on the machine do not matter to
either. A wait is not in them. Whatever `predict` writes was not measured: `kind` says "predicted", and the machines are
assumptions.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import numpy as np

RESULTS = Path(__file__).parent / "results"
MEASURED, PREDICTED = RESULTS / "scaling.csv", RESULTS / "scaling_predicted.csv"
GRIDS = {
    1: ((8, 8), (16, 16), (32, 32)),
    2: ((8, 8), (16, 8), (16, 16), (32, 32)),
}  # boxes along both axes, by processes
MODES = 10
COUPLED = {
    "fbpinn 8x8 series": ((8, 8), "fbpinn", "default", None),
    "xpinn 16x16 series": ((16, 16), "xpinn", "default", None),
    "fbpinn 4x4 networks": ((4, 4), "fbpinn", "adam", 20),
    "xpinn 4x4 networks": ((4, 4), "xpinn", "adam", 20),
}  # boxes, coupling, recipe and steps of the other couplings
SIDES = (1024, 2048)  # of the maps
SHARED_SIDE = 1024  # of the map that processes share
DAY_S = 86400.0


# --- measured --------------------------------------------------------------------------------------------------------


def measure(which: Sequence[str] = ()) -> None:
    """Measure solves, maps, and the speed of a QR factorisation; lines that are there stay until theirs are measured."""
    known = {line["case"]: line for line in read(MEASURED)} if MEASURED.exists() else {}
    parts = {
        "solves": [lambda n=n: solved(n) for n in GRIDS],
        "coupled": [lambda name=name: coupled(name) for name in COUPLED],
        "speeds": [speeds],
        "maps": [lambda n=n: [mapped(n)] for n in SIDES],
        "shared": [shared_map],
    }
    for name in which or parts:
        for part in parts[name]:
            known |= {line["case"]: line for line in part()}
            write(MEASURED, list(known.values()))


def speeds() -> list[dict[str, Any]]:
    """Measure what a core does in a second."""
    return [{"case": "qr", "processor_s": qr_flops(), "what": "operations a second of a QR factorisation"}]


def started(processes: int, *arguments: str) -> list[Any]:
    """Start this script in several processes that share work; gives what each prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    return [json.loads(one.communicate()[0]) for one in running]


def solved(processes: int) -> list[dict[str, Any]]:
    """Solve by several processes, and take the figures of the one that worked longest."""
    found = started(processes, "worker")
    lines = []
    for (rows, columns), *each in zip(GRIDS[processes], *found, strict=True):
        longest = max(each, key=lambda one: float(one["processor_s"]))
        lines.append(
            {
                "case": f"solve {rows}x{columns} by {processes}",
                "boxes": rows * columns,
                "processes": processes,
                "processor_s": longest["processor_s"],
                "series_s": max(one["series_s"] for one in each),
                "bytes": max(one["bytes"] for one in each),
                "megabytes": round(max(one["bytes"] for one in each) / 1e6, 4),
                "relative_l2": each[0]["relative_l2"],
                "heldout_residual": each[0]["heldout_residual"],
                "what": "one solve: processor seconds, those of the series, bytes sent; of the process with most",
            }
        )
    return lines


def worker() -> None:
    """Solve as one of the processes, after a small solve that loads what is needed, and print figures."""
    from cpikan.learning.solver import SolveSettings, solve
    from cpikan.learning.strategies import blocks
    from cpikan.learning.subdomains import Subdomains
    from cpikan.streaming.ranks import ranks_here

    plain, series = blocks.solve_series, [0.0]

    def timed(*given: Any) -> Any:
        begun = time.process_time()
        found = plain(*given)
        series[0] = time.process_time() - begun
        return found

    blocks.solve_series = timed
    lines = []
    with ranks_here() as ranks:
        for counts in ((2, 2), *GRIDS[ranks.size]):
            before, begun = ranks.sent, time.process_time()
            cut = Subdomains(counts, "cpinn", modes=MODES)
            found = solve("poisson-2d", settings=SolveSettings(seconds=1e5, subdomains=cut, ranks=ranks))
            took = time.process_time() - begun
            figures = {"processor_s": round(took, 3), "series_s": round(series[0], 3), "bytes": ranks.sent - before}
            lines.append({**figures, **{name: found.metrics[name] for name in ("relative_l2", "heldout_residual")}})
    print(json.dumps(lines[1:]))


def coupled(name: str) -> list[dict[str, Any]]:
    """Solve under windows or XPINN by one process and by two, and compare their iterations and fields."""
    counts = COUPLED[name][0]
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            each = started(processes, "coupled-worker", folder, name)
            longest = max(each, key=lambda one: float(one["processor_s"]))
            lines.append(
                {
                    "case": f"{name} by {processes}",
                    "boxes": math.prod(counts),
                    "processes": processes,
                    "processor_s": longest["processor_s"],
                    "bytes": max(one["bytes"] for one in each),
                    "megabytes": round(max(one["bytes"] for one in each) / 1e6, 4),
                    "iterations": each[0]["iterations"],
                    "relative_l2": each[0]["relative_l2"],
                    "what": "one solve: processor seconds, bytes sent; of the process with most",
                }
            )
        one, two = (np.load(f"{folder}/{processes}.npy") for processes in (1, 2))
    lines[1]["difference"] = float(np.linalg.norm(two - one) / np.linalg.norm(one))
    lines[1]["speed_up"] = round(lines[0]["processor_s"] / lines[1]["processor_s"], 3)
    return lines


def coupled_worker(folder: str, name: str) -> None:
    """Solve as one of the processes, after a small solve that loads what is needed; keep values, and print figures."""
    import torch

    from cpikan.learning.solver import SolveSettings, solve
    from cpikan.learning.subdomains import Subdomains
    from cpikan.streaming.ranks import ranks_here

    counts, coupling, recipe, steps = COUPLED[name]
    with ranks_here() as ranks:
        for size, most in (((2, 2), 3), (counts, steps)):
            before, begun = ranks.sent, time.process_time()
            cut = Subdomains(size, coupling, modes=MODES if recipe == "default" else None)
            settings = SolveSettings(seconds=1e5, steps=steps and most, subdomains=cut, ranks=ranks)
            found = solve("poisson-2d", recipe=recipe, settings=settings)
            took = time.process_time() - begun
        sent = ranks.sent - before
        if ranks.rank == 0:
            at = torch.rand(2000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            np.save(f"{folder}/{ranks.size}.npy", found(at))
    figures = {"processor_s": round(took, 3), "bytes": sent, "iterations": found.metrics["iterations"]}
    print(json.dumps({**figures, "relative_l2": found.metrics["relative_l2"]}))


def shared_map() -> list[dict[str, Any]]:
    """Reconstruct frames of four wavelengths by method field, by one process and by two."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        simulated_frames(folder, SHARED_SIDE)
        for processes in (1, 2):
            each = started(processes, "map-worker", folder)
            lines.append(
                {
                    "case": f"field {SHARED_SIDE} by {processes}",
                    "boxes": SHARED_SIDE**2,
                    "processes": processes,
                    "processor_s": max(one["processor_s"] for one in each),
                    "bytes": max(one["bytes"] for one in each),
                    "megabytes": round(max(one["bytes"] for one in each) / 1e6, 4),
                    "sha256": each[0]["sha256"],
                    "what": "one map by method field: processor seconds, bytes sent; of the process with most",
                }
            )
    return lines


def map_worker(folder: str) -> None:
    """Make a map twice, as one of the processes, and print the figures of the second time."""
    from hashlib import sha256

    import cpikan
    from cpikan.pipeline.reconstruction.reconstruct import reconstruct_shared
    from cpikan.pipeline.reconstruction.settings import ReconstructSettings
    from cpikan.streaming.ranks import ranks_here

    with ranks_here() as ranks:
        output = Path(folder) / f"{ranks.size}.npy"
        for _ in range(2):  # the first loads kernels
            before, begun = ranks.sent + ranks.moved, time.process_time()
            settings = ReconstructSettings(method="field", threads=1)
            reconstruct_shared(
                ranks, cpikan.open_stack(f"{folder}/s"), output, settings, progress=False, overwrite=True
            )
            took = time.process_time() - begun
        sent = ranks.sent + ranks.moved - before
    found = sha256(output.read_bytes()).hexdigest()[:12] if ranks.rank == 0 else ""
    print(json.dumps({"processor_s": round(took, 3), "bytes": sent, "sha256": found}))


def simulated_frames(folder: str, side: int) -> None:
    """Simulate 16 frames of four wavelengths in ``folder``/s."""
    run = [sys.executable, "-m", "cpikan", "simulate", f"{folder}/s", "--shape", f"{side}x{side}"]
    for wavelength in ("5 um", "5.5 um", "6.05 um", "6.655 um"):
        run += ["--wavelength", wavelength]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*run, "--frames", "4", "--json"], check=True, **quiet)


def mapped(side: int) -> dict[str, Any]:
    """Reconstruct 16 frames of four wavelengths on one core: processor seconds, bytes in and out."""
    import cpikan

    with tempfile.TemporaryDirectory() as folder:
        simulated_frames(folder, side)
        took = []
        for number in range(3):  # the first compiles
            begun = time.process_time()
            cpikan.reconstruct(cpikan.open_stack(f"{folder}/s"), f"{folder}/{number}.npy")
            took.append(time.process_time() - begun)
        size = Path(f"{folder}/s/frames.npy").stat().st_size
        out = sum(path.stat().st_size for path in Path(folder).glob("2.*"))
    return {
        "case": f"map {side}",
        "boxes": side * side,
        "processes": 1,
        "processor_s": round(min(took[1:]), 3),
        "bytes": size,
        "bytes_out": out,
        "what": "one map of 16 frames on one core: processor seconds, bytes read, bytes written",
    }


def qr_flops() -> float:
    """Count the operations a second of a QR factorisation of a tall matrix, on one core."""
    import torch

    torch.set_num_threads(1)
    matrix = torch.randn(1200, 600, dtype=torch.float64)
    torch.linalg.qr(matrix, mode="r")
    begun, times = time.process_time(), 4
    for _ in range(times):
        torch.linalg.qr(matrix, mode="r")
    operations = 2 * 600**2 * (1200 - 600 / 3)
    return round(times * operations / (time.process_time() - begun), -6)


# --- predicted -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """A machine that is not here: ``workers`` that each do ``speed`` times the work of a core here, what storage gives them
    all together, and what the network gives each."""

    name: str
    workers: int
    speed: float
    storage_bytes_s: float
    link_bytes_s: float
    latency_s: float


# assumptions, none of them measured: a worker of 8 cores as those here at 80 %; a GPU that reads frames at 20 GB/s;
# storage of one disk array, of eight drives in one host, of a cluster; 10 Gbit/s and 400 Gbit/s networks
MACHINES = (
    Machine("one worker of 8 cores", 1, 6.4, 2e9, 1.25e9, 5e-5),
    Machine("8 GPUs in one host", 8, 0.0, 2.5e10, 5e10, 1e-5),
    Machine("100 workers of 8 cores, one store of 10 GB/s", 100, 6.4, 1e10, 1.25e9, 5e-5),
    Machine("10 workers of 8 cores, one store of 10 GB/s", 10, 6.4, 1e10, 1.25e9, 5e-5),
)
GPU_BYTES_S = 2e10
WAFER_PIXELS, WAFERS = 9344 * 7000, 400


@dataclass(frozen=True)
class Wafer:
    """What one wafer takes: bytes in, seconds of a worker, bytes out."""

    bytes_in: float
    compute_s: float
    bytes_out: float


def predict() -> None:
    """Fit the cost model to what was measured, and write what it says of other machines."""
    measured = {line["case"]: line for line in read(MEASURED)}
    lines = [wafers(machine, wafer_on(machine, measured)) for machine in MACHINES]
    lines.append(enough(measured))
    own, judged, fixed = fitted([line for name, line in measured.items() if name.startswith("solve")])
    lines.append(
        {
            "case": "fit",
            "kind": "fitted",
            "own_s": round(own, 6),
            "judged_s": round(judged, 6),
            "fixed_s": round(fixed, 4),
        }
    )
    for boxes in (1024, 16384, 102400):
        for processes in (1, 2, 8, 100):
            lines.append(solve_by(boxes, processes, (own, judged, fixed), measured))
    write(PREDICTED, lines)


def wafer_on(machine: Machine, measured: dict[str, dict[str, str]]) -> Wafer:
    """Extend the line through two maps to the pixels of a wafer; on a GPU the bus is what takes time."""
    small, large = (measured[f"map {side}"] for side in SIDES)
    share = WAFER_PIXELS / float(large["boxes"])
    bytes_in, bytes_out = share * float(large["bytes"]), share * float(large["bytes_out"])
    pixels, seconds = ([float(one[name]) for one in (small, large)] for name in ("boxes", "processor_s"))
    core_s = seconds[1] + (WAFER_PIXELS - pixels[1]) * (seconds[1] - seconds[0]) / (pixels[1] - pixels[0])
    busy = core_s / machine.speed if machine.speed else (bytes_in + bytes_out) / GPU_BYTES_S
    return Wafer(bytes_in, busy, bytes_out)


def wafers(machine: Machine, wafer: Wafer) -> dict[str, Any]:
    """Simulate a row of wafers, and name what is busiest."""
    seconds, busy = simulated(machine, wafer, WAFERS)
    bottleneck = max(busy, key=lambda name: busy[name])
    return {
        "case": f"wafers: {machine.name}",
        "kind": "predicted",
        "workers": machine.workers,
        "seconds": round(seconds / WAFERS, 4),
        "a_day": round(DAY_S * WAFERS / seconds),
        "busy": round(busy[bottleneck], 2),
        "bottleneck": bottleneck,
    }


def enough(measured: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Find how many workers of 8 cores make 100 000 wafers a day."""
    for workers in range(1, 1000):
        machine = Machine("", workers, 6.4, 1e10, 1.25e9, 5e-5)
        found = wafers(machine, wafer_on(machine, measured))
        if found["a_day"] >= 1e5:
            break
    return {**found, "case": "wafers: enough workers of 8 cores for 100 000 a day"}


def simulated(machine: Machine, wafer: Wafer, count: int) -> tuple[float, dict[str, float]]:
    """Let workers take wafers from a common list: each reads one ahead of what it computes, and writes behind.

    Storage serves one transfer after the other at its full rate; a transfer ends no sooner than the link of its worker lets
    it. Gives the seconds for ``count`` wafers and the share of time that storage, workers and links were busy.
    """
    storage_free, worker_free = 0.0, [0.0] * machine.workers
    waiting = [(0.0, number, "read", number) for number in range(min(count, machine.workers))]
    order, taken, end = len(waiting), len(waiting), 0.0
    while waiting:
        now, _, what, worker_ = heapq.heappop(waiting)
        if what == "compute":
            begun = max(now, worker_free[worker_])
            worker_free[worker_] = begun + wafer.compute_s
            following = [(worker_free[worker_], "write")]
            if taken < count:
                following.append((begun, "read"))
                taken += 1
        else:
            size = wafer.bytes_in if what == "read" else wafer.bytes_out
            begun = max(now, storage_free)
            storage_free = begun + size / machine.storage_bytes_s
            there = max(storage_free, begun + size / machine.link_bytes_s) + machine.latency_s
            following = [(there, "compute")] if what == "read" else []
            end = max(end, there)
        for at, stage in following:
            heapq.heappush(waiting, (at, order, stage, worker_))
            order += 1
    moved = count * (wafer.bytes_in + wafer.bytes_out)
    return end, {
        "storage": moved / machine.storage_bytes_s / end,
        "compute": count * wafer.compute_s / machine.workers / end,
        "network": count
        * max(wafer.bytes_in, wafer.bytes_out)
        / machine.workers
        / machine.link_bytes_s
        / end,  # both ways at once
    }


def fitted(lines: Sequence[dict[str, str]]) -> tuple[float, float, float]:
    """Fit processor seconds of the series as own * boxes of the process, of all else as judged * those + fixed."""
    from scipy.optimize import nnls

    names = ("boxes", "processes", "series_s", "processor_s")
    boxes, processes, series, whole = (np.array([float(one[name]) for one in lines]) for name in names)
    own = float(np.mean(series * processes / boxes))
    rest = whole - series
    table = np.stack([boxes / processes, np.ones_like(boxes)], axis=1)
    judged, fixed = nnls(table / rest[:, None], np.ones_like(rest))[0]  # errors relative
    return own, float(judged), float(fixed)


def solve_by(
    boxes: int, processes: int, costs: tuple[float, float, float], measured: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """Say what a solve on so many boxes takes by so many processes, and what of it takes longest.

    The topmost separator is a line of faces across the square; its triangle is
    joined and sent, those below it have half the unknowns every other level. Bytes in are none; out go the coefficients.
    """
    own, judged, fixed = costs
    line = math.sqrt(boxes) * 2 * MODES  # a mode of a face has two unknowns, the coefficients of the boxes at it
    levels = math.ceil(math.log2(processes)) if processes > 1 else 0
    shrink = [2.0 ** -(level // 2) for level in range(levels)]
    rate = float(measured["qr"]["processor_s"])
    joined = sum((line * share) ** 3 * 10 / 3 for share in shrink) / rate
    inside = (
        2 * 10 / 3 * (line / math.sqrt(processes)) ** 3 / rate
    )  # separators of a share, which grow faster than its boxes
    network, latency = 1.25e9, 5e-5
    sent = sum(8 * (line * share) ** 2 for share in shrink)
    parts = {
        "own subdomains": own * boxes / processes + inside,
        "judging": judged * boxes / processes,
        "what every process does": fixed,
        "joining separators": joined,
        "bytes exchanged": sent / network + 2 * levels * latency,
        "bytes out": 8 * MODES**2 * boxes / network * (processes > 1),
    }
    longest = max(parts, key=lambda name: parts[name])
    return {
        "case": f"solve: {boxes} boxes by {processes}",
        "kind": "predicted",
        "workers": processes,
        "seconds": round(sum(parts.values()), 3),
        "bytes": round(sent),
        "busy": round(parts[longest] / sum(parts.values()), 2),
        "bottleneck": longest,
    }


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "predict", "worker", "coupled-worker", "map-worker"))
    parser.add_argument("more", nargs="*", help="parts to measure; the folder of a map or solve")
    given = parser.parse_args()
    {
        "measure": measure,
        "predict": lambda _: predict(),
        "worker": lambda _: worker(),
        "coupled-worker": lambda m: coupled_worker(*m),
        "map-worker": lambda m: map_worker(*m),
    }[given.what](given.more)


if __name__ == "__main__":
    main()
