"""Make pictures and tables of docs/explanation/refiners.md: ``python benchmarks/refiners_docs.py [--pictures]``.

Tables go between ``<!-- refiners:NAME:begin -->`` and ``<!-- refiners:NAME:end -->``; ``--check`` changes nothing and fails
when the document is out of date.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import refiners
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import PixelModel, empty_demodulated

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, IMAGES = ROOT / "docs" / "explanation" / "refiners.md", ROOT / "docs" / "images"
# Okabe and Ito (2008)
COLOURS = dict(zip(refiners.COLUMNS, ("#8d96a0", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2"), strict=True))
Line = dict[str, str]


def lines(**wanted: str) -> list[Line]:
    """The lines of the CSV that agree with ``wanted``; what is not named is that of the central case."""
    central = {"frames": "4", "missing": "0", "step_error_deg": "0", "hole": "False", **wanted}
    with open(refiners.RESULTS, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row[k] == v for k, v in central.items() if v != "*")]


def _wrong(row: Line) -> str:
    per_million = 1e6 * int(row["wrong"]) / int(row["pixels"])
    return f"{per_million:.0f}" if per_million >= 100 else f"{per_million:.2g}"


def table(cases: list[tuple[str, dict[str, str]]], value: str = "wrong") -> str:
    """One line per case, one column per way of deciding."""
    text = ["| | " + " | ".join(refiners.COLUMNS) + " |", "|---|" + "--:|" * len(refiners.COLUMNS)]
    for name, wanted in cases:
        rows = {row["column"]: row for row in lines(**wanted)}
        if rows:
            cells = (_wrong(rows[c]) if value == "wrong" else f"{float(rows[c][value]):.3g}" for c in refiners.COLUMNS)
            text.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def tables() -> Iterator[tuple[str, str]]:
    kinds, at = refiners.SURFACES, {"noise": "0.25"}
    yield (
        "noise",
        table([(f"{k}, {n:g} rad", {"surface": k, "noise": f"{n:g}"}) for k in kinds for n in refiners.NOISES]),
    )
    yield (
        "frames",
        table([(f"{k}, {n} frames", {"surface": k, "frames": n, **at}) for k in kinds for n in ("2", "3", "4")]),
    )
    gaps = [
        (f"{k}, {float(n):.0%} missing", {"surface": k, "missing": n, **at}) for k in kinds for n in ("0", "0.2", "0.4")
    ]
    yield "missing", table(gaps)
    yield "steps", table([(f"{k}, 5° rms", {"surface": k, "step_error_deg": "5", **at}) for k in kinds])
    yield "surface", table([(k, {"surface": k, **at}) for k in kinds], "surface_rms_nm")
    yield "edge", table([(f"{n:g} rad", {"surface": "etched", "noise": f"{n:g}"}) for n in refiners.NOISES], "step")


def _axes(figure: Figure, count: int) -> list:
    axes = list(np.atleast_1d(figure.subplots(1, count, sharey=True)))
    for one in axes:
        one.grid(True, color="#d5dce4", linewidth=0.5)
        one.spines[["top", "right"]].set_visible(False)
    return axes


def wrong_orders() -> Figure:
    """Share of wrong orders over noise, one panel per surface."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = _axes(figure, len(refiners.SURFACES))
    for one, kind in zip(axes, refiners.SURFACES, strict=True):
        for k, name in enumerate(refiners.COLUMNS):
            rows = sorted(lines(surface=kind, column=name), key=lambda row: float(row["noise"]))
            # a zero is drawn at the bottom, columns side by side
            share = [max(int(row["wrong"]) / int(row["pixels"]), 4e-7 * 1.12**k) for row in rows]
            style = {"linewidth": 2.2} if name == "hybrid" else {"linewidth": 1.2}
            one.semilogy(
                [float(row["noise"]) for row in rows], share, "o-", ms=3, color=COLOURS[name], label=name, **style
            )
        one.set_title(kind, fontsize=10)
        one.set_xlabel("phase noise / rad")
    axes[0].set_ylabel("wrong orders (none: at the bottom)")
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def edges() -> Figure:
    """The part of a step of 120 nm that is left two pixels from its edge."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    (axes,) = _axes(figure, 1)
    for name in refiners.COLUMNS:
        rows = sorted(lines(surface="etched", column=name), key=lambda row: float(row["noise"]))
        axes.plot(
            [float(r["noise"]) for r in rows],
            [float(r["step"]) for r in rows],
            "o-",
            ms=3,
            color=COLOURS[name],
            label=name,
        )
    axes.set_xlabel("phase noise / rad")
    axes.set_ylabel("share of a step of 120 nm drawn")
    axes.set_ylim(-0.05, 1.15)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc=(0.3, 0.22))
    return figure


def mesas(size: int = 256, noise: float = 0.4) -> Figure:
    """Errors of heights on a crop of the mesas, the same frames for all."""
    truth, case = refiners.surface("mesas", size), refiners.Case("mesas", noise)
    noise_dn = noise * refiners.MODULATION * np.sqrt(2)
    search = refiners.order_search(size)
    kernels = DemodulationKernels(PixelModel(refiners.demodulation(4, noise_dn), search), 1)
    rows = empty_demodulated(len(refiners.WAVES_NM), size, size)
    kernels.demodulate(refiners.frames_of(truth, case, noise_dn, np.random.default_rng(0)), 0, None, rows)
    kernels.close()
    shown = [name for name in refiners.COLUMNS if name != "cpikan"]
    figure = Figure(figsize=(13, 3.0), layout="constrained")
    axes = figure.subplots(1, len(shown) + 1)
    crop = (slice(64, 192), slice(64, 192))
    axes[0].imshow(truth[crop] / 1000, cmap="viridis")
    axes[0].set_title("truth", fontsize=10)
    for one, name in zip(axes[1:], shown, strict=True):
        error = refiners.BY[name](rows, search)[0] - truth
        share = np.mean(np.abs(error[crop]) > refiners.HALF_NM / 2)
        image = one.imshow(error[crop] / 1000, cmap="RdBu_r", vmin=-3, vmax=3, interpolation="none")
        one.set_title(f"{name}: {share:.2%} wrong", fontsize=10)
    for one in axes:
        one.set_xticks([])
        one.set_yticks([])
    figure.colorbar(image, ax=list(axes), shrink=0.85, label="error / µm")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    text = old = DOCUMENT.read_text(encoding="utf-8")
    for name, body in tables():
        begin, end = f"<!-- refiners:{name}:begin -->", f"<!-- refiners:{name}:end -->"
        text = re.sub(f"{begin}.*?{end}", lambda _, b=begin, e=end, t=body: f"{b}\n{t}\n{e}", text, flags=re.DOTALL)
    if given.check:
        sys.exit("docs/explanation/refiners.md is out of date: run benchmarks/refiners_docs.py" if text != old else 0)
    DOCUMENT.write_text(text, encoding="utf-8")
    if given.pictures:
        for name, draw in (("refiners_wrong", wrong_orders), ("refiners_edge", edges), ("refiners_mesas", mesas)):
            draw().savefig(IMAGES / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
