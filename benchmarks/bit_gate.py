"""Fixed runs of `cpikan reconstruct` whose arrays must not change by a bit when only the code's order does.

Frames are drawn by the tests' own generator (which imports nothing of the package), each run is a process of its own, and
the hash of every array it wrote is compared with results/bit_gate.csv. Compiled kernels follow the processor: on another
kind of processor make the file with the older build first, ``--record --source OLD/src``, then compare the newer one.

    python benchmarks/bit_gate.py [--source DIR/src] [--record] [--only NAME ...] [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CSV = ROOT / "benchmarks" / "results" / "bit_gate.csv"
FOUR_NM = (5000.0, 5500.0, 6050.0, 6655.0)
FOUR_DEG, FIVE_DEG = (0, 90, 180, 270), (0, 90, 180, 270, 360)

# name: (stack, suffix, flags); {mask} is a mask file; a run whose name begins with "resumed" is killed once
RUNS: dict[str, tuple[str, str, list[str]]] = {
    "pixel-trusted-npy": ("four", ".npy", ["--method", "pixel", "--all"]),
    "auto-tif": ("noisy", ".tif", ["--method", "auto"]),
    "hybrid-circle-zarr": ("noisy", ".zarr", ["--method", "hybrid", "--circle", "350,300,280"]),
    "field-npy": ("noisy", ".npy", ["--method", "field", "--all"]),
    "learned-npy": ("noisy", ".npy", ["--method", "learned", "--all"]),
    "two-waves-removed-npy": (
        "two",
        ".npy",
        ["--method", "pixel", "--range", "11 um", "--remove", "piston,tilt", "--all"],
    ),
    "two-waves-nominal-zarr": ("two", ".zarr", ["--method", "auto", "--steps", "nominal"]),
    "one-wave-mask-npy": ("one", ".npy", ["--mask", "{mask}", "--all"]),
    "one-wave-hybrid-nominal-npy": ("one", ".npy", ["--method", "hybrid", "--steps", "nominal", "--inpaint", "--all"]),
    "one-wave-field-unknown-zarr": ("one", ".zarr", ["--method", "field", "--steps", "unknown"]),
    "one-wave-learned-tif": ("one", ".tif", ["--method", "learned", "--remove", "piston,tilt,power"]),
    "finest-threads-npy": ("four", ".npy", ["--combine", "finest", "--threads", "3", "--band-rows", "40", "--all"]),
    "resumed-pixel-npy": ("four", ".npy", ["--method", "pixel", "--band-rows", "8", "--all"]),
    "resumed-hybrid-zarr": ("noisy", ".zarr", ["--method", "hybrid", "--remove", "piston", "--band-rows", "8"]),
    "resumed-one-wave-npy": ("one", ".npy", ["--method", "hybrid", "--band-rows", "8", "--all"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, default=ROOT / "src", help="folder that holds the package (default: this tree)"
    )
    parser.add_argument("--record", action="store_true", help="write the hashes instead of comparing them")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    known = {} if given.record else {(r["run"], r["array"]): r["blake2b"] for r in csv.DictReader(given.csv.open())}
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory(prefix="bit_gate_") as place:
        folder = Path(place)
        _stacks(folder)
        for name in given.only:
            found = dict(_hashes(_run(given.source, folder, name)))
            rows += [{"run": name, "array": array, "blake2b": value} for array, value in found.items()]
            if not given.record:
                expected = {array: value for (run, array), value in known.items() if run == name}
                bad = sorted(a for a in expected.keys() | found.keys() if expected.get(a) != found.get(a))
                wrong += len(bad)
                print(f"{name:32s} {'same' if not bad else 'DIFFERS: ' + ', '.join(bad)}", flush=True)
            else:
                print(f"{name:32s} {len(found)} arrays", flush=True)
    if given.record:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["run", "array", "blake2b"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    sys.exit(f"{wrong} arrays differ" if wrong else 0)


def _stacks(folder: Path) -> None:
    """Frames of one, two and four wavelengths, of bench quality, and a mask."""
    sys.path.insert(0, str(ROOT / "tests"))
    from independent_frames import Faults, make_scene

    shape = (600, 700)
    bench = Faults(read_noise=0.004, background=0.2, modulation=0.2, fringes=6.0, aperture=0.8, holes=3)
    noisy = Faults(read_noise=0.05, background=0.2, modulation=0.2, fringes=4.0, aperture=0.9, holes=2)
    moved = Faults(read_noise=0.01, step_error_deg=2.0, tilt_rad=0.3, fringes=8.0, aperture=0.9, holes=3)
    scenes = {
        "four": make_scene(11, shape, FOUR_NM, FOUR_DEG, bench),
        "noisy": make_scene(12, shape, FOUR_NM, FOUR_DEG, noisy),
        "two": make_scene(13, shape, FOUR_NM[:2], FIVE_DEG, bench),
        "one": make_scene(14, shape, (632.8,), (*FIVE_DEG, 450), moved),
    }
    for name, scene in scenes.items():
        place = folder / name
        place.mkdir()
        np.save(place / "frames.npy", np.asarray(scene.frames))
        waves = FOUR_NM if scene.frames.shape[0] == 4 else FOUR_NM[:2] if scene.frames.shape[0] == 2 else (632.8,)
        steps = {4: FOUR_DEG, 5: FIVE_DEG, 6: (*FIVE_DEG, 450)}[scene.frames.shape[1]]
        lines = [f"wavelengths = {json.dumps([f'{wave} nm' for wave in waves])}", f"phase_steps = {list(steps)}"]
        (place / "acquisition.toml").write_text("\n".join([*lines, 'pixel_size = "5 um"', ""]))
    y, x = np.indices(shape)
    np.save(folder / "mask.npy", ((y - 300) ** 2 + (x - 330) ** 2 < 270**2) & ((y // 97 + x // 89) % 7 > 0))


def _run(source: Path, folder: Path, name: str) -> Path:
    stack, suffix, flags = RUNS[name]
    output = folder / f"out-{name}{suffix}"
    flags = [flag.format(mask=folder / "mask.npy") for flag in flags]
    if "--steps" in flags and "unknown" in flags:
        flags += ["--phase-steps", "unknown"]
    command = [sys.executable, "-m", "cpikan", "reconstruct", str(folder / stack), "-o", str(output), *flags]
    environment = {**os.environ, "PYTHONPATH": str(source), "CUDA_VISIBLE_DEVICES": ""}
    if name.startswith("resumed"):
        _kill_once(command, environment, output)
        command.append("--resume")
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    return output


def _kill_once(command: list[str], environment: dict[str, str], output: Path) -> None:
    """Start a run and end it with SIGKILL once its journal tells of a few finished bands."""
    journal = output.with_name(output.name + ".journal")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 12:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    process.wait()
    if not journal.exists():
        output.unlink(missing_ok=True) if output.is_file() else None
        sys.exit(f"{output.name}: the run ended before it could be killed: run again on a quieter machine")


def _hashes(output: Path) -> Iterator[tuple[str, str]]:
    """Every array of an output and the hash of its values, kind and shape."""
    if output.suffix == ".zarr":
        import zarr

        group = zarr.open_group(output, mode="r")
        arrays = {f"{name}/0": np.asarray(group[f"{name}/0"]) for name, _ in sorted(group.groups()) if name != "OME"}
    elif output.suffix == ".tif":
        import tifffile

        with tifffile.TiffFile(output) as file:
            arrays = {f"page{i}": page.asarray() for i, page in enumerate(file.pages)}
    else:
        files = sorted(output.parent.glob(f"{output.stem}*.npy"))
        arrays = {path.name.removeprefix(output.stem): np.load(path, allow_pickle=False) for path in files}
    for name, array in arrays.items():
        digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(array).tobytes())
        yield name, digest.hexdigest()


if __name__ == "__main__":
    main()
