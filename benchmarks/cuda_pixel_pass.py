"""Four wavelengths by four frames of uint8 to heights on a CUDA device: from pinned host memory, and already on the device.

Prints one line per figure with its target and keeps them in benchmarks/results/cuda_pixel_pass.csv. ``--device cpu`` runs the
same steps without a CUDA device, at a size that suits it; its times say nothing about one.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.cuda import TorchKernels
from cpikan.psi.kernels.model import Demodulation, HeightRows, OrderSearch, PixelModel, empty_rows
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.psi.kernels.torch_compute import TorchCompute
from cpikan.psi.kernels.torch_formula import Pixels
from cpikan.psi.model.schemes import phasor_weights

WAVES_NM = (632.8, 650.1, 690.3, 740.9)
STEPS_DEG = (0.0, 90.0, 180.0, 270.0)
RANGE_NM, NEAR_NM = 27e3, 9e3  # 86 orders, 29 of them near
FROM_HOST_MS, ON_DEVICE_MS, DIFFERENCE_NM = 60.0, 5.0, 0.01  # targets at 9344 x 7000
NOISE_DN = 1.0
BLOCK_ROWS = 100


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.device != "cpu" and not torch.cuda.is_available():
        print(
            "no CUDA device is there: nothing was measured (--device cpu runs the same steps slowly)", file=sys.stderr
        )
        return 2
    height, width = (int(side) for side in options.shape.split("x"))
    model = make_model((height, width))
    block = make_block(model, min(BLOCK_ROWS, height), width)
    kernels = TorchKernels(model, options.device, piece_pixels=options.piece)
    frames, out = _host_arrays(kernels, block, height)
    table = np.empty((height, COLUMNS))
    host_ms = best_ms(lambda: kernels.heights(frames, 0, None, out, table), options.repeats)
    compute = TorchCompute(model, torch.device(options.device), compiled=options.device != "cpu")
    pieces = upload(compute, frames, torch.device(options.device), options.piece)
    device_ms = best_ms(lambda: compute_all(compute, pieces), options.repeats)
    differ_nm, orders = compare(model, frames, out)
    figures = {
        "device": torch.cuda.get_device_name(options.device) if options.device != "cpu" else "cpu",
        "wavelengths": len(WAVES_NM),
        "frames": len(STEPS_DEG),
        "height": height,
        "width": width,
        "from_host_ms": round(host_ms, 3),
        "on_device_ms": round(device_ms, 3),
        "largest_difference_nm": round(differ_nm, 6),
        "other_orders": orders,
        "peak_device_mib": kernels.peak_device_mib(),
        "torch": torch.__version__,
    }
    kernels.close()
    _report(figures, Path(options.output))
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--shape", default="7000x9344", help="rows x columns")
    parser.add_argument("--piece", type=int, default=2**21, help="pixels that travel together")
    parser.add_argument("--repeats", type=int, default=5, help="the best of so many")
    parser.add_argument("--output", default=str(Path(__file__).parent / "results" / "cuda_pixel_pass.csv"))
    return parser.parse_args(arguments)


def make_model(shape: tuple[int, int]) -> PixelModel:
    """Four wavelengths, four frames in quadrature, a relative piston and tilt, heights mostly in a third of the range."""
    weights, count = phasor_weights("least-squares", STEPS_DEG), len(WAVES_NM)
    noise = np.tile([NOISE_DN**2 + 1 / 12, 0.0], (count, 1))
    floor = np.full(count, 1e-6)
    demodulation = Demodulation.of_weights(
        [weights] * count, noise, phase_floor_rad2=floor, saturation_dn=255.0, snr_min=40.0
    )
    waves = np.asarray(WAVES_NM)
    half = waves[0] / 2
    tilts = np.outer([0.0, 1.0, -1.0, 0.5], [0.0, -2e-4])  # none down the image, whose rows repeat
    centre = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    limits = (-RANGE_NM / 2, RANGE_NM, -NEAR_NM / 2, NEAR_NM)
    search = OrderSearch(
        tuple(range(count)),
        waves[0] / waves,
        half,
        np.array([0, 0.1, -0.2, 0.3]),
        tilts,
        centre,
        *limits,
        misfit_max=35.0,
    )
    return PixelModel(demodulation, search)


def make_block(model: PixelModel, rows: int, width: int) -> np.ndarray:
    """Frames (L, K, rows, width) of a wavy surface with dark, saturated and far pixels, repeated down the image later."""
    search = model.search
    assert search is not None
    rng = np.random.default_rng(1)
    y, x = np.arange(rows)[:, None] / BLOCK_ROWS, np.arange(width)[None] / width
    height = 0.3 * NEAR_NM * np.sin(9 * x + 6.28 * y) + 0.1 * NEAR_NM * np.cos(40 * x)
    height[:, width // 3 : width // 3 + 4] += 0.8 * NEAR_NM  # a step out of the near range
    plane = search.piston_turns[:, None] + search.tilt_turns[:, 1:] * (np.arange(width) - search.centre[1])
    turns = 2 * height / np.asarray(WAVES_NM)[:, None, None] + plane[:, None]
    block = np.empty((len(WAVES_NM), len(STEPS_DEG), rows, width), np.uint8)
    for i, wave in enumerate(turns):
        for k, step in enumerate(STEPS_DEG):
            light = 120 + 80 * np.cos(2 * np.pi * wave + np.radians(step)) + rng.normal(0, NOISE_DN, wave.shape)
            light[:, : width // 50] = 20
            light[0, -3:] = 255
            block[i, k] = np.clip(np.rint(light), 0, 255)
    return block


def _host_arrays(kernels: TorchKernels, block: np.ndarray, height: int) -> tuple[np.ndarray, HeightRows]:
    """The block repeated to the image's height in memory the device reads directly, and room for the results."""
    rows, width = block.shape[2:]
    frames = kernels.empty((*block.shape[:2], height, width), np.uint8)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        frames[:, :, start:stop] = block[:, :, : stop - start]
    singles = [kernels.empty((height, width), np.float32) for _ in range(3)]
    return frames, HeightRows(singles[0], singles[1], singles[2], kernels.empty((height, width), np.uint8))


def best_ms(job: Callable[[], object], repeats: int) -> float:
    """Shortest of ``repeats`` runs after one that compiles and touches everything."""
    job()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        job()
        times.append(time.perf_counter() - started)
    return 1e3 * min(times)


def upload(compute: TorchCompute, frames: np.ndarray, device: torch.device, length: int) -> list[Pixels]:
    """The image on the device in pieces of ``length`` pixels, the last one padded."""
    width = frames.shape[3]
    flat = frames.reshape(*frames.shape[:2], -1)
    inside = torch.ones(length, dtype=torch.uint8, device=device)
    pieces = []
    for start in range(0, flat.shape[2], length):
        part = flat[list(compute.order), :, start : start + length]
        samples = torch.zeros((*flat.shape[:2], length), dtype=torch.uint8, device=device)
        samples[:, :, : part.shape[2]] = torch.from_numpy(part).to(device)
        place = torch.tensor([start % width, width, start // width], dtype=torch.int32, device=device)
        pieces.append(Pixels(samples, inside, place))
    return pieces


def compute_all(compute: TorchCompute, pieces: list[Pixels]) -> None:
    """The whole image, frames and results on the device: piece after piece on one stream."""
    for piece in pieces:
        compute(piece)
    if pieces[0].samples.is_cuda:
        torch.cuda.synchronize()


def compare(model: PixelModel, frames: np.ndarray, got: HeightRows) -> tuple[float, int]:
    """Largest difference of the heights from the CPU's where the orders agree, and the number of pixels where they do not.

    Orders apart are whole halves of the shortest wave apart; a difference above a quarter of one counts as such.
    """
    assert model.search is not None
    rows, width = got.height_nm.shape
    kernels = CpuKernels(model, os.cpu_count() or 1)
    expected = HeightRows(*empty_rows(rows, width))
    kernels.heights(frames, 0, None, expected, np.empty((rows, COLUMNS)))
    kernels.close()
    differ = abs(got.height_nm - expected.height_nm)
    other = (differ > model.search.half_wave_nm / 2) | (np.isnan(got.height_nm) != np.isnan(expected.height_nm))
    return float(np.nanmax(np.where(other, 0, differ))), int(other.sum())


def _report(figures: dict[str, object], output: Path) -> None:
    print(f"{figures['height']} x {figures['width']} on {figures['device']}, torch {figures['torch']}")
    print(f"from host memory   {figures['from_host_ms']} ms (target {FROM_HOST_MS:g} ms at 7000 x 9344)")
    print(f"on the device      {figures['on_device_ms']} ms (target {ON_DEVICE_MS:g} ms at 7000 x 9344)")
    print(f"largest difference {figures['largest_difference_nm']} nm (target {DIFFERENCE_NM:g} nm)")
    print(f"pixels of another order {figures['other_orders']}, peak {figures['peak_device_mib']} MiB on the device")
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(figures))
        writer.writeheader()
        writer.writerow(figures)
    print(f"kept in {output}")


if __name__ == "__main__":
    sys.exit(main())
