"""Read one file with one other program's reader, in a process of its own, and hand the map over as plain numbers.

    PYTHON benchmarks/map_formats_reader.py READER FILE OUT.npz

Needs NumPy and the reader alone: nothing of this project is imported, so that programs under any licence may be asked. Rows are
as the reader gives them, heights in nm, the pixel (y, x) in um.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np

UNITS_NM = {"m": 1e9, "mm": 1e6, "um": 1e3, "\u00b5m": 1e3, "\u03bcm": 1e3, "nm": 1.0}


def surfalize(path):
    from surfalize import Surface

    found = Surface.load(path)
    return np.asarray(found.data) * 1e3, (found.step_y, found.step_x)


def SurfaceTopography(path):
    from SurfaceTopography import open_topography

    with open_topography(path) as file:
        found = file.topography()
    unit = UNITS_NM.get(found.unit, 1e9)  # points without a unit are in m
    heights = np.ma.filled(np.ma.masked_array(found.heights(), dtype=float), np.nan).T * unit  # x comes first
    extent = found.physical_sizes or (np.nan, np.nan)
    sizes = [size * unit / 1e3 / count for size, count in zip(extent, found.nb_grid_pts, strict=True)]
    return heights, (sizes[1], sizes[0])


def prysm(path):
    from prysm import io

    if path.endswith(".dat"):
        found = io.read_zygo_dat(path)
        size = found["meta"]["lateral_resolution"] * 1e6
    else:
        found = io.read_zygo_datx(path)
        size = np.nan
    return np.asarray(found["phase"], float), (size, size)


def rosettasciio(path):
    from rsciio.digitalsurf import file_reader

    found = file_reader(path)[0]
    unit = UNITS_NM[found["metadata"]["Signal"]["quantity"].split("(")[1].rstrip(")").strip()]
    axes = {axis["name"]: axis["scale"] * UNITS_NM[axis["units"]] / 1e3 for axis in found["axes"]}
    names = list(axes)
    return np.asarray(found["data"], float) * unit, (axes[names[0]], axes[names[1]])


def sdfio(path):
    import sdfio

    found = sdfio.read(path)
    return found.data * 1e9, (found.header.y_scale * 1e6, found.header.x_scale * 1e6)


def x3pio(path):
    import x3pio

    found = x3pio.read(path)
    return found.layers[0].z * 1e9, (found.header.y.increment * 1e6, found.header.x.increment * 1e6)


def gwyfile(path):
    import gwyfile

    field = gwyfile.load(path)["/0/data"]
    height, width = field.data.shape
    return field.data * 1e9, (field.yreal / height * 1e6, field.xreal / width * 1e6)


def numpy(path):
    if path.endswith(".csv"):
        return np.genfromtxt(path, delimiter=","), (np.nan, np.nan)
    points = np.loadtxt(path)
    shape = (len(np.unique(points[:, 1])), len(np.unique(points[:, 0])))
    step = [np.diff(np.unique(points[:, axis])).mean() * 1e6 for axis in (1, 0)]
    return points[:, 2].reshape(shape) * 1e9, tuple(step)


def pillow(path):
    from PIL import Image

    with Image.open(path) as picture:
        values, text = np.array(picture), picture.text
    low, high = float(text["Gwy::ZMin"]), float(text["Gwy::ZMax"])
    heights = np.where(values == 0, np.nan, (low + values / 65535 * (high - low)) * 1e9)
    sizes = [float(text[f"Gwy::{axis}Real"]) * 1e6 / count for axis, count in zip("YX", values.shape, strict=True)]
    return heights, tuple(sizes)


def tifffile(path):
    import tifffile

    with tifffile.TiffFile(path) as file:
        scale = file.pages[0].tags[33550].value
        return file.pages[0].asarray().astype(float), (scale[1] * 1e6, scale[0] * 1e6)


def h5py(path):
    import h5py

    with h5py.File(path) as file:
        dataset = next(iter(file["Data/Surface"].values()))
        heights = dataset[()]
        heights[heights >= dataset.attrs["No Data"][0]] = np.nan
        pixels = [dataset.attrs[f"{axis} Converter"][0][2][1] * 1e6 for axis in "YX"]
        return heights, tuple(pixels)


def trimesh(path):
    """Points of a mesh back on their grid, rows from the top."""
    import trimesh

    points = np.asarray(trimesh.load_mesh(path).vertices)
    places = [np.unique(np.round(points[:, axis], 7)) for axis in (1, 0)]
    step = [np.diff(one).min() for one in places]
    shape = [round(one[-1] / size) + 1 for one, size in zip(places, step, strict=True)]
    heights = np.full(shape, np.nan)
    y, x = (np.rint(points[:, axis] / size).astype(int) for axis, size in zip((1, 0), step, strict=True))
    heights[shape[0] - 1 - y, x] = points[:, 2] * 1e6
    return heights, (step[0] * 1e3, step[1] * 1e3)


READERS = {
    one.__name__: one
    for one in (
        surfalize, SurfaceTopography, prysm, rosettasciio, sdfio, x3pio, gwyfile, numpy, pillow, tifffile, h5py, trimesh,
    )
}  # fmt: skip

if __name__ == "__main__":
    name, source, target = sys.argv[1:]
    heights_nm, pixel_um = READERS[name](str(Path(source)))
    np.savez(
        target,
        heights=np.asarray(heights_nm, float),
        pixel_um=np.asarray(pixel_um, float),
        version=importlib.metadata.version(name),
    )
