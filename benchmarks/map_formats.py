"""A map with marked corners, holes and pixels that are not square into every format, and what other programs read there.

    python benchmarks/map_formats.py [--python INTERPRETER] [--work DIR]

Every other reader runs in a process of its own (``map_formats_reader.py``) under INTERPRETER, which needs those of surfalize,
SurfaceTopography, prysm, rosettasciio, sdfio, x3pio, gwyfile, trimesh and h5py that shall be asked. results/map_formats.csv has
a line a format and reader: how the rows lie (same, or what they have to be turned by), sign, ratio of heights, the piston that
is off, ratio of the pixels (y, x), how many points are missing too many or too few, and the worst difference in nm once sign,
ratio and piston are taken off; a reader that refuses a file has its words. results/map_formats_real.csv has what each reader
makes of measured files (CPIKAN_DATA, default ../shared/data): shape, pixel, missing points, PV and the standard deviation
of heights. The project's own reader is the first of each format.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cpikan.pipeline.maps.convert import convert_map
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.version import VERSION

RESULTS = Path(__file__).parent / "results" / "map_formats.csv"
READER = Path(__file__).with_name("map_formats_reader.py")
FORMATS = {
    "dat": ("prysm", "surfalize", "SurfaceTopography"),
    "datx": ("h5py", "prysm", "SurfaceTopography"),
    "opd": ("surfalize", "SurfaceTopography"),
    "sur": ("surfalize", "SurfaceTopography", "rosettasciio"),
    "sdf": ("sdfio", "surfalize", "SurfaceTopography"),
    "x3p": ("x3pio", "surfalize", "SurfaceTopography"),
    "gwy": ("gwyfile", "surfalize", "SurfaceTopography"),
    "gsf": (),
    "csv": ("numpy",),
    "xyz": ("numpy", "surfalize", "SurfaceTopography"),
    "png": ("pillow",),
    "tif": ("tifffile",),
    "stl": ("trimesh",),
    "ply": ("trimesh",),
}
REAL_COLUMNS = (
    "file", "reader", "version", "rows", "columns", "pixel_y_um", "pixel_x_um", "missing", "pv_nm", "sq_nm", "first_nm",
    "refused",
)  # fmt: skip
ONLY_READ = {"nms": ("surfalize", "SurfaceTopography")}
PIXEL_UM = (2.5, 1.25)
SQUARE = ("dat",)  # formats that have no other pixels
DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = (
    "zygo/valid_zygo_dat_file.dat",
    "zygo/metropro-1.dat",
    "surfaces/opd-1.opd",
    "surfaces/sur-2.sur",
    "surfaces/x3p-2.x3p",
    "surfaces/nms-1.nms",
)
TURNS = {
    "same": lambda a: a,
    "upside down": lambda a: a[::-1],
    "left to right": lambda a: a[:, ::-1],
    "half a turn": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T,
    "quarter turn": lambda a: np.rot90(a),
    "three quarter turns": lambda a: np.rot90(a, 3),
    "transposed the other way": lambda a: a[::-1, ::-1].T,
}
COLUMNS = (
    "format", "reader", "version", "orientation", "sign", "height_ratio", "piston_nm", "pixel_ratio_y", "pixel_ratio_x",
    "missing_difference", "worst_nm", "refused",
)  # fmt: skip


def marked() -> np.ndarray:
    """Heights in nm, no symmetry: four corners apart, a ramp, a block of holes and single ones."""
    rng = np.random.default_rng(15)
    y, x = np.mgrid[:41, :60]
    heights = (rng.normal(0, 30, y.shape) + 4 * y - 7 * x).astype(np.float32)
    heights[0, 0], heights[0, -1], heights[-1, 0] = 900, -700, 500
    heights[8:12, 40:47] = np.nan
    heights[30, 5] = heights[20, 33] = np.nan
    return heights


def compared(truth: np.ndarray, found: np.ndarray, pixel_um: np.ndarray) -> dict[str, object]:
    """Find how a reader's map lies on the truth, and by what factor and piston it differs."""
    best: dict[str, object] = {}
    for name, turn in TURNS.items():
        turned = turn(found)
        if turned.shape != truth.shape:
            continue
        both = np.isfinite(turned) & np.isfinite(truth)
        if both.sum() < 2:
            continue
        ratio, piston = np.polyfit(truth[both].astype(float), turned[both], 1)
        worst = np.abs((turned[both] - piston) / ratio - truth[both]).max()
        if not best or worst < best["worst_nm"]:  # type: ignore[operator]
            best = {"orientation": name, "sign": int(np.sign(ratio)), "height_ratio": f"{abs(ratio):.9g}"}
            best |= {"piston_nm": f"{piston:.4g}", "worst_nm": worst}
            best["missing_difference"] = int(np.isnan(turned).sum() - np.isnan(truth).sum())
    best["pixel_ratio_y"], best["pixel_ratio_x"] = (f"{ratio:.9g}" for ratio in np.asarray(pixel_um, float) / PIXEL_UM)
    best["worst_nm"] = f"{best['worst_nm']:.3g}" if "worst_nm" in best else ""
    return best


Line = dict[str, object]
Map = tuple[np.ndarray, np.ndarray, str]  # heights, pixel (y, x), version


def ours(path: Path) -> Map:
    """Read a file with the project's own reader."""
    opened = open_height_map(path)
    pixel = np.broadcast_to(np.nan if opened.pixel_um is None else opened.pixel_um, 2)
    return np.asarray(opened.height_nm, float), pixel, VERSION


def theirs(path: Path, reader: str, python: str, folder: Path) -> Map | str:
    """Read a file with another reader in a process of its own; its words where it refuses."""
    target = folder / f"{path.name}.{reader}.npz"
    done = subprocess.run([python, str(READER), reader, str(path), str(target)], capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return told.replace(str(path.parent), "").strip()[:120]
    with np.load(target) as found:
        return found["heights"], found["pixel_um"], str(found["version"])


def asked(path: Path, python: str | None, folder: Path) -> Iterator[tuple[str, Map | str]]:
    """Yield every reader of a file's format with what it makes of the file."""
    suffix = path.suffix[1:]
    if suffix not in ("stl", "ply"):
        yield "cpikan", ours(path)
    for reader in (FORMATS | ONLY_READ)[suffix] if python else ():
        yield reader, theirs(path, reader, str(python), folder)


def written(folder: Path, python: str | None) -> list[Line]:
    """Write every format and ask every reader."""
    truth, lines = marked(), []
    for suffix in FORMATS:
        pixel = (PIXEL_UM[0],) * 2 if suffix in SQUARE else PIXEL_UM
        acquisition = {"wavelengths_nm": [632.8], "pixel_um": list(pixel)}
        source = HeightMap(folder / "marked.npy", {"height_nm": truth}, {"acquisition": acquisition})
        path = folder / f"marked.{suffix}"
        convert_map(source, path, overwrite=True)
        for reader, found in asked(path, python, folder):
            line: Line = {"format": suffix, "reader": reader}
            if isinstance(found, str):
                line["refused"] = found
            else:
                line |= {"version": found[2], **compared(truth, found[0], found[1] / np.divide(pixel, PIXEL_UM))}
            lines.append(line)
            print(line, flush=True)
    return lines


def measured(folder: Path, python: str | None) -> list[Line]:
    """Ask every reader for every measured file."""
    lines = []
    for name in REAL:
        for reader, found in asked(DATA / name, python, folder):
            line: Line = {"file": Path(name).name, "reader": reader}
            if isinstance(found, str):
                line["refused"] = found
            else:
                heights, pixel, version = found
                line |= {"version": version, "rows": heights.shape[0], "columns": heights.shape[1]}
                line |= {"pixel_y_um": f"{pixel[0]:.9g}", "pixel_x_um": f"{pixel[1]:.9g}"}
                line |= {
                    "missing": int(np.isnan(heights).sum()),
                    "pv_nm": f"{np.nanmax(heights) - np.nanmin(heights):.9g}",
                }
                line |= {"sq_nm": f"{np.nanstd(heights):.9g}", "first_nm": f"{heights.flat[0]:.9g}"}
            lines.append(line)
            print(line, flush=True)
    return lines


def save(path: Path, columns: tuple[str, ...], lines: list[Line]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter that has the other readers")
    parser.add_argument("--work", type=Path, help="folder for the files (default: a temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.work or Path(made)
        lines, real = written(folder, given.python), measured(folder, given.python) if DATA.is_dir() else []
    if given.python:
        save(RESULTS, COLUMNS, lines)
        save(RESULTS.with_name("map_formats_real.csv"), REAL_COLUMNS, real)
    return 0


if __name__ == "__main__":
    sys.exit(main())
