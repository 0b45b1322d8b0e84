"""What accumulation, activation checkpointing, bf16 and more processes cost and save in training.

    python benchmarks/training.py [--steps 20] [--size 256] [--only accumulation checkpointing precision processes]

Prints each figure and keeps them in results/training.csv. Every run is a process of its own, on simulated patches that are read
once; times are medians over the steps after the first three.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ledger import Row, keep

RESULTS = Path(__file__).parent / "results" / "training.csv"
PARTS = ("accumulation", "checkpointing", "precision", "processes")


def one(settings: dict[str, Any]) -> dict[str, Any]:
    """Train in this process: seconds of a step, peak anonymous memory above that before the first step, the gradient."""
    import torch

    from cpikan.images.features import FeatureSpec, PatchBatch, Planes, stack_patches
    from cpikan.images.losses.kinds import build_losses
    from cpikan.images.models.unet import UNet
    from cpikan.images.training.config import config_of
    from cpikan.images.training.engine import Engine
    from cpikan.images.training.step import FeatureModel, group_gradient
    from cpikan.streaming.memory import PeakMemory, anonymous_mib

    def patch(seed: int) -> PatchBatch:
        draw, size = torch.Generator().manual_seed(seed), settings["size"]
        truth = (torch.rand(size, size, generator=draw).cumsum(dim=1) * 3)[None]
        sigma = torch.full((1, size, size), 4.0)
        height = truth + sigma * torch.randn(1, size, size, generator=draw)
        valid = torch.rand(1, size, size, generator=draw) < 0.5 + 0.4 * (seed % 2)
        place = torch.tensor([[0, 0, seed]])
        return PatchBatch(Planes(height, sigma, valid), torch.tensor([4.0]), torch.tensor([300.0]), place, truth)

    training = {"device": "cpu", "precision": settings["precision"], "threads": settings["threads"]}
    engine = Engine(config_of({"training": training}))
    torch.manual_seed(0)
    network = UNet(FeatureSpec().channels, 3, tuple(settings["widths"]))
    torch.nn.init.normal_(network.unfold.weight, std=0.02)
    network.checkpointing = settings["checkpointing"]
    if settings["double"]:  # what float32 rounds away is no fault of the way gradients are added up
        network.double().register_forward_pre_hook(lambda _, given: (given[0].double(),))
    prepared, optimizer = engine.prepare(network, torch.optim.AdamW(network.parameters(), lr=1e-3))
    model, terms = (
        FeatureModel(prepared, FeatureSpec(), settings["size"]),
        build_losses({"supervised": 1.0, "orders": 0.1}),
    )
    numbers = list(range(settings["batch"]))[engine.rank :: engine.processes]
    parts, at = [], 0
    for count in settings["parts"] or [len(numbers)]:
        parts.append(stack_patches([patch(number) for number in numbers[at : at + count]]))
        at += count
    seconds, first = [], None
    before = anonymous_mib()
    with PeakMemory(0.002) as memory:
        for _ in range(settings["steps"]):
            started = time.perf_counter()
            optimizer.zero_grad()
            group_gradient(engine, model, terms, parts)
            if first is None:
                first = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).double()
            optimizer.step()
            seconds.append(time.perf_counter() - started)
    main = engine.main
    engine.close()
    assert first is not None
    return {
        "main": main,
        "seconds": statistics.median(seconds[3:] or seconds),
        "mib": memory.mib - before,
        "gradient": first.tolist() if settings["gradient"] else [],
    }


def run(base: dict[str, Any], processes: int = 1, **changes: Any) -> dict[str, Any]:
    """One run in processes of its own."""
    settings = json.dumps({**base, **changes})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        more = {"OMP_NUM_THREADS": str(base["threads"] if processes == 1 else 1)}
        if processes > 1:
            more |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
            more |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        command = [sys.executable, __file__, "--one", settings]
        started.append(subprocess.Popen(command, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True))
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return next(each for each in found if each["main"])


def relative(a: list[float], b: list[float]) -> float:
    """Length of the difference of two gradients over that of the second."""
    top = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return float((top / sum(y * y for y in b)) ** 0.5)


def measure(part: str, base: dict[str, Any]) -> list[Row]:
    """The rows of one part."""
    size, batch, more = base["size"], base["batch"], []
    what = f"{batch} patches of {size}, widths {base['widths']}, {base['threads']} threads"
    if part == "processes":
        one_process, two = run(base, parts=None), run(base, 2, parts=None, threads=1)
        gain = one_process["seconds"] / two["seconds"]
        return [Row("speed of 2 processes", gain, "x", "", "", f"one process, {base['threads']} threads", what)]
    if part == "accumulation":
        whole, parts = run(base, gradient=True, parts=None), [batch // 2, batch // 4, batch - batch // 2 - batch // 4]
        other = run(base, gradient=True, parts=parts)
        name, note = "accumulation", f"{what}, in parts of {parts}"
        exactly = [run(base, gradient=True, double=True, parts=each)["gradient"] for each in (parts, None)]
        rounded = relative(*exactly)
        more = [Row(f"{name}: gradient in float64", rounded, "", "<= 1e-6", rounded <= 1e-6, "", note)]
    elif part == "checkpointing":
        whole, other = run(base, gradient=True), run(base, gradient=True, checkpointing=True)
        name, note = "checkpointing", what
    else:
        whole, other = run(base, gradient=True), run(base, gradient=True, precision="bf16")
        name, note = "bf16", what
    difference = relative(other["gradient"], whole["gradient"])
    exact = part != "precision"
    return [
        *more,
        Row(
            f"{name}: gradient",
            difference,
            "",
            "<= 1e-6" if exact else "",
            difference <= 1e-6 if exact else "",
            "",
            note,
        ),
        Row(f"{name}: memory", other["mib"] / whole["mib"] - 1, "", "", "", f"{whole['mib']:.0f} MiB", note),
        Row(f"{name}: time", other["seconds"] / whole["seconds"] - 1, "", "", "", f"{whole['seconds']:.3f} s", note),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(json.loads(given.one))))
        return
    base = {
        "steps": given.steps,
        "size": given.size,
        "batch": given.batch,
        "threads": given.threads,
        "widths": [32, 48, 64],
        "checkpointing": False,
        "precision": "off",
        "parts": None,
        "gradient": False,
        "double": False,
    }
    rows = [row for part in given.only for row in measure(part, base)]
    for row in rows:
        print(f"{row.figure:28} {row.value:.4g} {row.unit} {row.baseline} {row.note}")
    keep(RESULTS, rows)


if __name__ == "__main__":
    main()
