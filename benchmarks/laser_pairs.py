"""Give clean stacks of usual pairs of lasers to `reconstruct`: does a wrong order pass for a right one by default?

    python benchmarks/laser_pairs.py [--size 1024] [--methods pixel auto] [--csv FILE]

Four frames of 8 bit a wavelength, phase noise of 0.01, 0.03 and 0.1 rad. Surfaces span four fifths of the range that is
searched by default at that noise (at most 40 um), or three times that range (only where the fringes of so steep a surface can
be sampled): `within` or `beyond` the range that the run then states. Heights are compared after their median is taken off.
Columns of results/laser_pairs.csv: `range_um` as the run states it, `span_um` of the surface, `pixels`, `wrong_sure` those off
by more than a quarter wave without flag 4 or 8, `flagged` the share with one, `names` of the cautions.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import cpikan
from cpikan.psi.calibration.wavelengths.planning import default_range_nm
from faulty_stacks import Bench

CSV = Path(__file__).parent / "results" / "laser_pairs.csv"
PAIRS_NM = (
    (632.8, 543.5), (632.8, 594.1), (632.8, 611.9), (632.8, 650.0), (632.8, 635.0), (632.8, 532.0), (632.8, 785.0),
    (532.0, 561.0), (532.0, 650.0), (488.0, 514.5), (457.9, 514.5), (405.0, 450.0), (780.0, 785.0), (780.0, 852.0),
    (1064.0, 1550.0),
)  # fmt: skip
NOISES_RAD = (0.01, 0.03, 0.1)
STEPS_DEG = (0.0, 90.0, 180.0, 270.0)
LONGEST_NM = 40e3
STEEPEST = 0.2  # fringes a pixel
TRUE_NOISE = 1.1  # of the phase, digitised, over what was put on the samples
DOUBTED = 4 | 8
FIELDS = (
    "first_nm", "second_nm", "noise_rad", "surface", "method", "range_um", "span_um", "pixels", "wrong_sure", "flagged",
    "names",
)  # fmt: skip


def surface_nm(size: int, span_nm: float, seed: int) -> np.ndarray:
    """Draw a bowl with a saddle, and a plateau over a tenth of it, (size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    form = rng.uniform(0.4, 1) * (x * x + y * y) + rng.uniform(-1, 1) * x * y + rng.uniform(-0.5, 0.5) * x
    form /= np.ptp(form)
    return span_nm * (0.9 * form + 0.1 * ((np.abs(x) < 0.3) & (np.abs(y) < 0.3)) - 0.5)


def steepest(height_nm: np.ndarray, wave_nm: float) -> float:
    """Give the fringes a pixel of the smooth part."""
    rows, columns = (np.percentile(np.abs(np.diff(height_nm, axis=axis)), 99.5) for axis in (0, 1))
    return float(max(rows, columns) / (wave_nm / 2))


def frames(height_nm: np.ndarray, waves_nm: tuple[float, float], noise_rad: float, seed: int) -> np.ndarray:
    """Take counts (2 x 4, H, W); the noise of a phase of four frames is that of a sample over sqrt(2) fringe."""
    ones = np.ones_like(height_nm)
    bench = Bench(
        height_nm,
        ones > 0,
        waves_nm,
        np.tile(STEPS_DEG, (2, 1)),
        0.5 * ones,
        0.35 * ones,
        noise=noise_rad * 0.35 * np.sqrt(2),
    )
    return bench.digitised(bench.frames(np.random.default_rng((seed, 3)))).reshape(8, *height_nm.shape)


def row(height_nm: np.ndarray, waves_nm: tuple[float, float], counts: np.ndarray, method: str) -> dict[str, object]:
    """Reconstruct from files with nothing but wavelengths and steps told, and count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "frames.npy", counts)
        told = {"wavelengths": [f"{wave} nm" for wave in waves_nm], "phase_steps": list(STEPS_DEG)}
        (folder / "acquisition.toml").write_text("".join(f"{key} = {json.dumps(told[key])}\n" for key in told))
        with cpikan.open_stack(folder) as stack:
            out = cpikan.reconstruct(stack, folder / "out.npy", method=method, all_quantities=True, progress=False)
        found, flags = np.asarray(out.height_nm[:]), np.asarray(out.flags[:])
        error = found - height_nm
        error -= np.nanmedian(error)
        sure = np.isfinite(error) & ((flags & DOUBTED) == 0)
        return {
            "surface": "within" if np.ptp(height_nm) < out.summary["range_nm"] else "beyond",
            "method": method,
            "range_um": f"{out.summary['range_nm'] / 1e3:.4g}",
            "span_um": f"{np.ptp(height_nm) / 1e3:.4g}",
            "pixels": int(np.isfinite(error).sum()),
            "wrong_sure": int((np.abs(error[sure]) > min(waves_nm) / 4).sum()),
            "flagged": f"{((flags & DOUBTED) > 0).mean():.4g}",
            "names": "+".join(out.summary["warning_names"]),
        }


def rows(size: int, methods: list[str]) -> Iterator[dict[str, object]]:
    """Go through pairs, noises and surfaces."""
    for seed, waves in enumerate(PAIRS_NM):
        for noise in NOISES_RAD:
            length = default_range_nm(waves, (TRUE_NOISE * noise, TRUE_NOISE * noise))
            for span in (min(0.8 * length, LONGEST_NM), 3 * length):
                height = surface_nm(size, span, seed)
                if steepest(height, min(waves)) > STEEPEST:
                    continue
                counts = frames(height, waves, noise, seed)
                for method in methods:
                    yield {"first_nm": waves[0], "second_nm": waves[1], "noise_rad": noise} | row(
                        height, waves, counts, method
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--methods", nargs="+", default=["pixel", "auto"])
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    pixels = {"within": 0, "beyond": 0}
    wrong, silent = dict(pixels), 0
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for found in rows(given.size, given.methods):
            writer.writerow(found)
            file.flush()
            kind = str(found["surface"])
            pixels[kind] += int(str(found["pixels"]))
            wrong[kind] += int(str(found["wrong_sure"]))
            silent += kind == "beyond" and not found["names"]
            print(*found.values())
    for kind, count in pixels.items():
        print(f"{kind}: {wrong[kind]} of {count} pixels wrong without a flag")
    print(f"beyond, and nothing said: {silent}")


if __name__ == "__main__":
    main()
