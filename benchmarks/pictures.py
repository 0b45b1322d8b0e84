"""The pictures of the documentation, made from a demonstration run: ``python benchmarks/pictures.py``."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_rgba_array
from matplotlib.figure import Figure
from numpy.polynomial import legendre
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from cpikan.pipeline.maps.evaluate import align_to_truth, error_figures
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.stacks.stack import open_stack
from cpikan.report.demo import run_demo
from cpikan.surface.apertures.aperture import Circle

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
INK, PAPER = "#1c2836", "#ffffff"
MIRROR_PUPIL = (390, 295, 225)  # centre x, y and radius in pixels
_FORM_DEGREE = 8
_DPI = 130
_SMOOTH_COLOURS, _NOISE_COLOURS = 77, 21  # of the panels: with paper and ink 254, a palette has 256


@dataclass(frozen=True)
class Panel:
    """One picture of the row: values, its colours and limits, what it shows, the label of its colour bar."""

    values: NDArray[np.floating]
    colormap: str
    limits: tuple[float, float]
    title: str
    label: str
    extend: str = "neither"
    smooth: bool = True  # False shows single pixels: averaging would make noise look smaller than it is


def smooth_form(height: NDArray[np.floating], degree: int) -> NDArray[np.float64]:
    """Least-squares polynomial of total degree at most ``degree`` in x and y through the finite pixels; same shape."""
    y, x = (np.linspace(-1, 1, size) for size in height.shape)
    rows, columns = legendre.legvander(y, degree), legendre.legvander(x, degree)
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    sample = np.zeros(height.shape, bool)
    sample[::4, ::4] = True
    at = np.nonzero(sample & np.isfinite(height))
    matrix = np.stack([rows[at[0], i] * columns[at[1], j] for i, j in terms], axis=1)
    found = np.linalg.lstsq(matrix, height[at].astype(np.float64), rcond=None)[0]
    weights = np.zeros((degree + 1, degree + 1))
    for (i, j), value in zip(terms, found, strict=True):
        weights[i, j] = value
    return np.asarray(rows @ weights @ columns.T)


def demo_panels(folder: Path) -> tuple[list[Panel], float]:
    """A frame, the height, what lies below its smooth form, the error; and the width of the picture in mm."""
    frames = np.load(folder / "frames" / "frames.npy", mmap_mode="r", allow_pickle=False)
    height_map: HeightMap = open_height_map(folder / "height.zarr")
    height = np.asarray(height_map.height_nm[:, :], np.float64)
    comparison = align_to_truth(height_map, folder / "frames" / "truth.npy")
    figures = error_figures(comparison)
    error = np.concatenate([rows for _, rows in comparison.errors()])
    detail = height - smooth_form(height, _FORM_DEGREE)
    span = float(np.nanmax(np.abs(height))) / 1e3
    waves = [value / 1e3 for value in height_map.document["acquisition"]["wavelengths_nm"]]
    count = frames.shape[0] * frames.shape[1]
    wide = height.shape[1] * float(height_map.document["acquisition"]["pixel_um"]) / 1e3
    return [
        Panel(frames[0, 0].astype(float), "gray", (0, 255), f"one of {count} frames, λ = {waves[0]:g} µm", "DN"),
        Panel(height / 1e3, "viridis", (-span, span), "height", "µm"),
        Panel(detail, "magma", (-250, 250), "height without its smooth form", "nm", "both"),
        Panel(
            error, "RdBu_r", (-10, 10), f"error against the truth, {figures['rms_nm']:.1f} nm RMS", "nm", "both", False
        ),
    ], wide


def mirror_panels(data: Path, folder: Path) -> list[Panel]:
    """The real telescope mirror: a frame, the height, its standard deviation, cut to the pupil."""
    x, y, radius = MIRROR_PUPIL
    with open_stack(data, wavelengths=["654 nm"], steps="unknown") as stack:
        frame = stack.rows(0, stack.shape[2])[0, 0].astype(float)
        out, mask = folder / "mirror.npy", Circle(x, y, radius)
        found = reconstruct(stack, out, mask=mask, remove=("piston", "tilt"), all_quantities=True, progress=False)
    assert found.sigma_nm is not None
    part = np.s_[y - radius - 8 : y + radius + 9, x - radius - 8 : x + radius + 9]
    height, sigma = (np.asarray(values, np.float64)[part] for values in (found.height_nm, found.sigma_nm))
    low, high = np.nanquantile(height, [0.001, 0.999])
    return [
        Panel(frame[part], "gray", (0, 255), "one of 12 frames, λ = 654 nm", "DN"),
        Panel(height, "viridis", (low, high), "height, piston and tilt removed", "nm", "both"),
        Panel(sigma, "magma", (0, float(np.nanquantile(sigma, 0.99))), "standard deviation of a pixel", "nm", "max"),
    ]


def row_figure(panels: list[Panel], width_mm: float | None) -> Figure:
    """The panels side by side, a colour bar below each, a scale bar in the first where its width is known."""
    height, width = panels[0].values.shape
    side = min(height, width)
    left = (width - side) // 2
    figure = Figure(figsize=(2.9 * len(panels), 3.65), facecolor=PAPER, dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.03, wspace=0.01)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        shown = np.ma.masked_invalid(panel.values[:side, left : left + side])
        norm = Normalize(*panel.limits)
        colours = _colours(panel)
        kind = "antialiased" if panel.smooth else "nearest"
        axes.imshow(shown, cmap=colours, norm=norm, interpolation=kind, interpolation_stage="data")
        axes.set_axis_off()
        axes.set_title(panel.title, fontsize=10.5, color=INK, pad=6)
        bar = figure.colorbar(
            ScalarMappable(norm, colours),
            ax=axes,
            orientation="horizontal",
            extend=panel.extend,
            fraction=0.045,
            pad=0.03,
            aspect=28,
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9, colors=INK, width=0.6, length=3)
        bar.set_label(panel.label, size=9.5, color=INK, labelpad=1)
        if panel is panels[0] and width_mm is not None:
            _scale_bar(axes, side, width_mm / width)
    return figure


def _scale_bar(axes: Axes, side: int, mm_per_pixel: float, length_mm: float = 50.0) -> None:
    """A bar of ``length_mm`` in the lower left corner."""
    start, level = 0.035 * side, 0.955 * side
    axes.plot([start, start + length_mm / mm_per_pixel], [level, level], color=PAPER, linewidth=2.2)
    axes.text(start, level - 0.02 * side, f"{length_mm:g} mm", color=PAPER, fontsize=8.5, va="bottom")


def save(figure: Figure, panels: list[Panel], target: Path) -> None:
    """Write a PNG whose 256 colours are those of the panels: a third of the size, and no new colour anywhere."""
    tables = [to_rgba_array([PAPER, INK]), *(_table(panel) for panel in panels)]
    palette = np.round(255 * np.concatenate(tables)[:, :3]).astype(np.uint8)
    with io.BytesIO() as memory:
        figure.savefig(memory, format="png")
        pixels = np.asarray(Image.open(memory).convert("RGB"))
    nearest = cKDTree(palette).query(pixels.reshape(-1, 3))[1].astype(np.uint8)
    picture = Image.fromarray(nearest.reshape(pixels.shape[:2]))
    picture.putpalette(palette.tobytes())
    picture.save(target, optimize=True)


def _count(panel: Panel) -> int:
    return _SMOOTH_COLOURS if panel.smooth else _NOISE_COLOURS


def _colours(panel: Panel) -> Colormap:
    return colormaps[panel.colormap].resampled(_count(panel))


def _table(panel: Panel) -> NDArray[np.float64]:
    return np.asarray(_colours(panel)(np.linspace(0, 1, _count(panel))))


def make_demo_picture(folder: Path | None, target: Path) -> None:
    """Write the picture of the README; without a finished demo in ``folder``, run the small one."""
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary) / "demo"
            run_demo(folder, small=True, overwrite=True, progress=False)
        panels, width_mm = demo_panels(folder)
        save(row_figure(panels, width_mm), panels, target)


def make_mirror_picture(target: Path) -> bool:
    """Write the picture of the real mirror; False where its frames are not at hand."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("CPIKAN_DATA", default)) / "mlpeck_zernike"
    if not data.is_dir():
        print(f"{target.name}: no frames at {data}, left as it is", file=sys.stderr)
        return False
    with tempfile.TemporaryDirectory() as temporary:
        panels = mirror_panels(data, Path(temporary))
        save(row_figure(panels, None), panels, target)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="folder of a finished `cpikan demo`; default: run the small one")
    given = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    demo, mirror = IMAGES / "demo.png", IMAGES / "mirror.png"
    make_demo_picture(given.demo, demo)
    made = [demo, mirror] if make_mirror_picture(mirror) else [demo]
    for target in made:
        print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
