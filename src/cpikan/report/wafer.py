"""One self-contained HTML page about a wafer: its map, the die map, the edge, nanotopography, and all numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.maps.wafer.numbers import WaferNumbers
from cpikan.report import numbers as shown
from cpikan.report.content import Section, columns, drawing, remark, table
from cpikan.report.html import render_page
from cpikan.report.wafer_figures import Picture, die_figure, edge_figure, map_figure, threshold_figure
from cpikan.storage.atomic import write_text

_PICTURE_PX = 900
_WORST = 12
_SHAPE = {
    "bow": "bow_um",
    "bow, best fit": "bow_best_fit_um",
    "warp": "warp_um",
    "warp, three points": "warp_three_points_um",
    "sori": "sori_um",
}
_FLAT = ("ttv", "gbir", "gflr", "gfld", "gf3r", "gf3d")
_SITES = ("sfqr", "sfqd", "psfqr", "psfqd", "sflr", "sfld", "sf3r", "sbir", "sbid")


def write_wafer_report(path: Path, front: HeightMap, numbers: WaferNumbers) -> Path:
    """Write the page of a wafer; returns its path."""
    summary = numbers.summary()
    lead = (
        f"{summary['diameter_mm']:g} mm wafer · {summary['edge_mm']:g} mm edge exclusion · sites of "
        f"{summary['site_mm'][0]:g} × {summary['site_mm'][1]:g} mm · {summary['sites_full']} of "
        f"{len(summary['sites'])} sites are full · flatness of the {summary['flatness_of']}"
    )
    sections = list(_sections(numbers, summary, picture_of(front, numbers)))
    write_text(path, render_page(Path(front.path).name, lead, numbers.warnings, list(_keys(summary)), sections))
    return path


def picture_of(front: HeightMap, numbers: WaferNumbers) -> Picture:
    """Take every n-th pixel of the front within the wafer's box, less its least-squares plane, with its extent in mm."""
    wafer, (height, width) = numbers.wafer, front.shape
    top, left = (max(0, int(v)) for v in np.floor(wafer.pixel(-wafer.radius_mm, wafer.radius_mm)))
    bottom, right = (int(v) + 1 for v in np.ceil(wafer.pixel(wafer.radius_mm, -wafer.radius_mm)))
    bottom, right = min(height, bottom), min(width, right)
    step = max(1, -(-max(bottom - top, right - left) // _PICTURE_PX))
    rows = [np.asarray(front.height_nm[row, left:right:step], np.float64) for row in range(top, bottom, step)]
    heights = np.stack(rows)
    x = np.asarray((np.arange(left, right, step) - wafer.x) * wafer.pixel_mm[1], np.float64)
    y = np.asarray((wafer.y - np.arange(top, bottom, step)) * wafer.pixel_mm[0], np.float64)
    return Picture(_levelled(heights, x[None, :], y[:, None], numbers.grid.radius_mm), x, y)


def _levelled(
    heights: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], radius_mm: float
) -> NDArray[np.float64]:
    used = np.isfinite(heights) & (x * x + y * y <= radius_mm**2)
    terms = [np.ones(heights.shape), x + 0 * y, y + 0 * x]
    design = np.stack([term[used] for term in terms], 1)
    plane = np.linalg.lstsq(design, heights[used], rcond=None)[0]
    found: NDArray[np.float64] = heights - sum(a * term for a, term in zip(plane, terms, strict=True))
    return found


def _keys(summary: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for label, name in (("bow", "bow_um"), ("warp", "warp_um"), ("TTV", "ttv_um"), ("SFQR, largest", "sfqr_max_um")):
        yield (label, *_um(summary[name]))
    yield ("ESFQR, largest", *_um(summary["esfqr_max_um"]))
    for label, name in (("THA 2 mm", "tha_2mm_nm"), ("THA 10 mm", "tha_10mm_nm")):
        yield (label, *shown.length(summary[name]))


def _sections(numbers: WaferNumbers, summary: dict[str, Any], picture: Picture) -> Iterator[Section]:
    figure = map_figure(picture, numbers)
    note = "Front face less its least-squares plane, every n-th pixel. Dashed: the fixed quality area and the sites."
    yield Section("Wafer", note, [drawing(figure, "wafer", "map of the wafer with its sites")], wide=True)
    title = "Die map: SFQR, and PSFQR of partial sites"
    note = f"Range of the {summary['flatness_of']} about the least-squares plane of each site, in µm."
    yield Section(title, note, [drawing(die_figure(numbers), "dies", "die map of site flatness")], wide=True)
    note = f"{summary['sectors'].__len__()} sectors, by polar angle, counter-clockwise from +x; the mark is the notch."
    yield Section("Edge", note, [drawing(edge_figure(numbers), "edge", "ESFQR and roll-off by angle")])
    note = "Share of the windows whose peak to valley exceeds a height; the dashed line is 0.05 %."
    yield Section("Nanotopography", note, [drawing(threshold_figure(numbers), "tha", "threshold height curves")])
    yield Section(
        f"Shape of the {summary['surface']}", "", [table((k, _joined(summary[v])) for k, v in _SHAPE.items())]
    )
    flat = [(name.upper(), _joined(summary[f"{name}_um"])) for name in _FLAT]
    sites = [(f"{name.upper()}, largest", _joined(summary[f"{name}_max_um"])) for name in _SITES]
    yield Section(f"Flatness of the {summary['flatness_of']}", "", [table([*flat, *sites])])
    yield _edge_table(summary)
    yield _sites(summary, "Sites of the largest SFQR", _WORST)
    yield _sites(summary, "All sites")
    yield _place(summary)


def _edge_table(summary: dict[str, Any]) -> Section:
    rows = {
        f"{label}, {word}": f"{shown.digits(summary[f'{name}_{key}_{unit}'])} {told}"
        for label, name, unit, told in (
            ("ESFQR", "esfqr", "um", "µm"),
            ("ESFQD", "esfqd", "um", "µm"),
            ("ROA", "roa", "um", "µm"),
            ("ZDD", "zdd", "nm_per_mm2", "nm/mm²"),
        )
        for word, key in (("largest", "max"), ("mean", "mean"))
        if summary[f"{name}_{key}_{unit}"] is not None
    }
    return Section("Near-edge geometry", "", [table(rows.items()) if rows else remark("Nothing was measured there.")])


def _sites(summary: dict[str, Any], title: str, worst: int | None = None) -> Section:
    """Make the table of the full sites of the largest SFQR, or of all sites from the top row on."""
    names: tuple[str, ...] = ("sfqr", "sfqd", "psfqr", "psfqd", "sflr")
    chosen = sorted(summary["sites"], key=lambda site: (-site["y_mm"], site["x_mm"]))
    if worst is not None:
        names = "sfqr", "sfqd", "sflr"
        full = [site for site in chosen if site["sfqr_um"] is not None]
        chosen = sorted(full, key=lambda site: -site["sfqr_um"])[:worst]
    cells = {
        "x / mm": [shown.digits(site["x_mm"]) for site in chosen],
        "y / mm": [shown.digits(site["y_mm"]) for site in chosen],
        "pixels": [str(site["pixels"]) for site in chosen],
        **{name.upper(): [_joined(site[f"{name}_um"]) for site in chosen] for name in names},
    }
    return Section(title, "", [columns(cells)])


def _place(summary: dict[str, Any]) -> Section:
    rows = [
        ("centre / px", ", ".join(f"{value:.3f}" for value in summary["center_px"])),
        ("radius / px", f"{summary['radius_px']:.3f}"),
        ("notch / deg", shown.plain(summary["notch_deg"])),
        *(
            (name, shown.plain(summary[name]))
            for name in ("diameter_measured_mm", "pixel_um", "pixels", "back", "thickness")
        ),
    ]
    return Section("Where the wafer lies", "", [table(rows)])


def _um(value: float | None) -> tuple[str, str]:
    return shown.length(None if value is None else value * 1e3)


def _joined(value: float | None) -> str:
    return shown.joined(_um(value))
