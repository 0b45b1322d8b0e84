"""Arithmetic behind docs/explanation/claims.md, printed and kept in results/claims.csv: ``python benchmarks/claims.py``.

Times and accuracies are psi.py's; here are counts, sizes and bounds, and what tiling does to a height map.
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpikan import blend_tiles, tile_image
from cpikan.partition import Partition
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.simulation.simulate import simulate
from cpikan.pipeline.stacks.stack import open_stack
from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.simulate import SimulationSettings

RESULTS = Path(__file__).resolve().parent / "results" / "claims.csv"
SHAPE = (7000, 9344)
WAVES_NM = (5000.0, 5500.0, 6050.0, 6655.0)


class Row(NamedTuple):
    """One line of the CSV, in the columns of psi.csv."""

    figure: str
    value: float | str
    unit: str
    target: str
    met: str
    baseline: str
    note: str


def row(figure: str, value: float | str, unit: str, note: str, baseline: str = "") -> Row:
    return Row(figure, value, unit, "", "", baseline, note)


def counts() -> Iterator[Row]:
    """Tiles of 512 on the full frame, and the pixels they are together."""
    pixels = math.prod(SHAPE)
    for overlap in (0, 64, 128, 256):
        boxes = Partition.tiles(SHAPE, 512, overlap)
        cost = sum(math.prod(box.shape) for box in boxes) / pixels
        yield row(f"tiles_{overlap}", len(boxes), "tiles", f"512 with at least {overlap} overlap, all pixels covered")
        yield row(f"overlap_cost_{overlap}", round(cost, 2), "x", "pixels of all tiles over pixels of the image")
    starts = [range(0, side - 512 + 1, 384) for side in SHAPE]  # the loop of the sketch
    yield row("sketch_tiles", len(starts[0]) * len(starts[1]), "tiles", "range(0, H - T + 1, S)", "364 promised")
    covered = [start[-1] + 512 for start in starts]
    yield row("sketch_rows_lost", SHAPE[0] - covered[0], "rows", f"rows from {covered[0]} on are never processed")
    yield row("sketch_share_lost", round(100 * (1 - math.prod(covered) / pixels), 2), "%", "of the image")


def sizes() -> Iterator[Row]:
    pixels = math.prod(SHAPE)
    yield row("map_float32", round(pixels * 4 / 2**20, 1), "MiB", "one map of the full frame")
    yield row("frames_uint8", round(16 * pixels / 1e9, 2), "GB", "16 frames, as stored")
    yield row("frames_float32", round(64 * pixels / 1e9, 2), "GB", "16 frames, converted on reading")
    yield row("activation_64", round(64 * 4 * pixels / 1e9, 1), "GB", "one float32 tensor of 64 channels at full size")
    yield row("half_step_200rad", float(np.spacing(np.float16(200.0))), "rad", "spacing of float16 at 200 rad")
    yield row("bfloat_step_200rad", 2.0 ** (math.floor(math.log2(200.0)) - 7), "rad", "spacing of bfloat16 at 200 rad")


def blending() -> Iterator[Row]:
    """The sketch's Hann window divided by its sum + 1e-8, and our ramp, on an image of ones."""
    window = np.hanning(512)
    corner = np.outer(window[:2], window[:2])
    for y in (0, 1):
        share = corner[y, y] / (corner[y, y] + 1e-8)
        yield row(f"hann_corner_{y}", f"{share:.3g}", "", f"what is left of a value at pixel ({y}, {y})", "1")
    image = np.random.default_rng(1).normal(0, 1000, (1000, 1200)).astype(np.float32)
    out = blend_tiles(*tile_image(image, 512, 128))
    yield row(
        "blend_error", f"{np.linalg.norm(out - image) / np.linalg.norm(image):.3g}", "", "tiles that agree, blended"
    )


def bounds() -> Iterator[Row]:
    """Noise floor of the height, what it means for a relative error, and what the wavelengths resolve."""
    sigma_rad = math.sqrt(2 / 4) * 2.0 / 100.0  # 4 frames, 2 DN noise, B = 100 DN
    joint = sigma_rad / math.sqrt(sum((4 * math.pi / wave) ** 2 for wave in WAVES_NM))
    single = sigma_rad * 632.8 / (4 * math.pi)
    note = "4 frames, sigma_I = 2 DN, B = 100 DN"
    yield row("floor_phase", round(1e3 * sigma_rad, 1), "mrad", note)
    yield row("floor_joint", round(joint, 2), "nm", f"{note}, 5.0/5.5/6.05/6.655 um together")
    yield row("floor_single", round(single, 2), "nm", f"{note}, 632.8 nm")
    yield row("rms_needed_joint", round(joint, 2), "um", "surface rms whose relative L2 error is 1e-3 at that floor")
    yield row("rms_needed_single", round(single, 2), "um", "the same at 632.8 nm")
    yield row("relative_l2_flat", f"{joint / 40:.2g}", "", "at that floor on 40 nm rms of nanotopography")
    for range_um in (27, 100):
        distance = planning.smallest_distance_rad(WAVES_NM, range_um * 1e3)
        rate = planning.expected_wrong_order_rate(WAVES_NM, [0.1] * 4, range_um * 1e3)
        yield row(f"d_min_{range_um}um", round(distance, 2), "rad", "5.0/5.5/6.05/6.655 um")
        yield row(f"bound_{range_um}um", f"{rate:.1e}", "", "expected wrong orders at 0.1 rad")
    beat_nm = 5000.0 * 5500.0 / 500.0
    sigma_order = 0.1 / (2 * math.pi) * math.hypot(beat_nm / 5000 - 1, beat_nm / 5000)
    wrong = math.erfc(0.5 / sigma_order / math.sqrt(2))
    yield row("beat_wrong_0.1rad", f"{wrong:.2g}", "", "5.0 + 5.5 um by their beat alone, 27.5 um range, 0.1 rad")


def tilings(folder: Path) -> Iterator[Row]:
    """Heights under tiles of 256 against tiles of 1024."""
    for name, waves in (("one", (632.8,)), ("four", WAVES_NM)):
        frames = 5 if len(waves) == 1 else 4
        simulate(folder / name, SimulationSettings((1200, 1400), waves, frames, seed=5), progress=False)
        maps = []
        for tile in (256, 1024):
            with open_stack(folder / name) as stack:
                out = folder / f"{name}{tile}.npy"
                maps.append(np.array(reconstruct(stack, out, tile=tile, progress=False).height_nm, np.float64))
        valid = np.isfinite(maps[0]) & np.isfinite(maps[1])
        centred = maps[1][valid] - maps[1][valid].mean()
        change = np.linalg.norm(maps[0][valid] - maps[1][valid]) / np.linalg.norm(centred)
        note = "relative L2 of the change from tiles of 256 to tiles of 1024"
        yield row(f"tiling_l2_{name}", f"{change:.3g}", "", f"{note}, {len(waves)} wavelength(s), 1200 x 1400")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        rows = [*counts(), *sizes(), *blending(), *bounds(), *tilings(Path(temporary))]
    for line in rows:
        print(f"{line.figure:22} {line.value!s:>10} {line.unit:6} {line.note}")
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
