"""Seconds and memory of a Laplacian's forward pass and parameter gradient, on one core: writes results/jets.csv.

    python benchmarks/jets.py [--points 4096] [--repeats 9]

The cost is the mean square of the Laplacian of a [2, 64, 64, 64, 1] network of degree 3 in float64; every way finds its
gradient by all parameters. Ways: nested (autograd twice by x, then by the parameters), plain (jets layer by layer), fused
(the jets that the field uses), compiled (plain under torch.compile, the compiler's time apart). A ratio is to nested, round
by round, and the median over rounds. Memory: bytes of all distinct tensors that autograd saved for the way back, as
saved_tensors_hooks sees them (parameters and points left out), and growth of the process's anonymous memory
(the largest RssAnon while it ran, less that before), each way in a process of its own after one small warm-up.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.scaled_cpikan import ScaledCPIKAN

RESULTS = Path(__file__).parent / "results" / "jets.csv"
WIDTHS, DEGREE = [2, 64, 64, 64, 1], 3
WAYS = ("nested", "plain", "fused", "compiled")
COLUMNS = ("way", "points", "milliseconds", "ratio", "saved_mib", "growth_mib", "difference", "compile_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory", metavar="WAY", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(json.dumps(memory(given.memory, given.points)))
        return
    field, x = setting(given.points)
    gradients, costs, compile_s = {}, {}, {}
    for way in WAYS:
        started = time.perf_counter()
        costs[way] = cost_of(way, field)
        gradients[way] = gradient(costs[way], field, x)
        compile_s[way] = time.perf_counter() - started
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(given.repeats):  # in turn, so that what else the machine does meets all of them
        for way in WAYS:
            started = time.perf_counter()
            gradient(costs[way], field, x)
            seconds[way].append(time.perf_counter() - started)
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for way in WAYS:
            ratios = [one / other for one, other in zip(seconds["nested"], seconds[way], strict=True)]
            off = max(
                float((a - b).abs().max() / b.abs().max().clamp_min(1e-300))
                for a, b in zip(gradients[way], gradients["nested"], strict=True)
            )
            row = {
                "way": way,
                "points": given.points,
                "milliseconds": f"{1e3 * min(seconds[way]):.1f}",
                "ratio": f"{statistics.median(ratios):.2f}",
                **measured_apart(way, given.points),
                "difference": f"{off:.1e}",
                "compile_seconds": f"{compile_s[way]:.1f}" if way == "compiled" else "",
            }
            writer.writerow(row)
            print("  ".join(f"{name} {value}" for name, value in row.items() if value != ""), flush=True)


def setting(points: int) -> tuple[ScaledCPIKAN, Tensor]:
    """The network, and points drawn evenly."""
    generator = torch.Generator().manual_seed(0)
    return ScaledCPIKAN(WIDTHS, DEGREE), 2 * torch.rand(points, 2, dtype=torch.float64, generator=generator) - 1


def cost_of(way: str, field: ScaledCPIKAN) -> Callable[[Tensor], Tensor]:
    """The mean square of the Laplacian, found one way."""
    if way == "nested":
        return lambda x: nested_laplacian(field, x).square().mean()

    def plain(x: Tensor) -> Tensor:
        streams, batch = field.start_streams(x, "laplacian")
        return field.through(streams, BasisLayer.streams).jet(batch).second.square().mean()

    if way == "plain":
        return plain
    if way == "compiled":
        return torch.compile(plain)
    return lambda x: field.jet(x, "laplacian").second.square().mean()


def nested_laplacian(field: ScaledCPIKAN, x: Tensor) -> Tensor:
    """As it is usually written: a gradient by x, and another for each of its parts."""
    x = x.clone().requires_grad_()
    slope = torch.autograd.grad(field(x).sum(), x, create_graph=True)[0]
    bends = [torch.autograd.grad(slope[:, a].sum(), x, create_graph=True)[0][:, a] for a in range(x.shape[1])]
    return torch.stack(bends).sum(dim=0)


def gradient(cost: Callable[[Tensor], Tensor], field: ScaledCPIKAN, x: Tensor) -> list[Tensor]:
    """By all parameters; the last constant does not take part and gets zero."""
    return list(torch.autograd.grad(cost(x), list(field.parameters()), allow_unused=True, materialize_grads=True))


def memory(way: str, points: int) -> dict[str, float]:
    """MiB saved for the way back, and growth of anonymous memory, in this process."""
    field, few = setting(points // 8 if way != "compiled" else points)
    cost = cost_of(way, field)
    gradient(cost, field, few)  # code and pools are there
    _, x = setting(points)
    peak = Peak()
    with peak:
        gradient(cost, field, x)
    known = {p.untyped_storage().data_ptr() for p in [*field.parameters(), x]}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = cost(x)
    del kept
    return {"saved_mib": sum(storages.values()) / 2**20, "growth_mib": peak.growth_mib}


def measured_apart(way: str, points: int) -> dict[str, str]:
    """``memory`` in a fresh process."""
    call = [sys.executable, __file__, "--memory", way, "--points", str(points)]
    found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    return {name: f"{value:.1f}" for name, value in found.items()}


class Peak:
    """The growth of this process's anonymous memory while the context is open, looked at every millisecond."""

    growth_mib = 0.0

    def __enter__(self) -> None:
        self._before, self._open, self._largest = anonymous_kib(), True, 0
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._watch.join()
        self.growth_mib = max(0, self._largest - self._before) / 1024

    def _look(self) -> None:
        while self._open:
            self._largest = max(self._largest, anonymous_kib())
            time.sleep(0.001)


def anonymous_kib() -> int:
    """RssAnon of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise RuntimeError("no RssAnon: this benchmark needs Linux")


if __name__ == "__main__":
    main()
