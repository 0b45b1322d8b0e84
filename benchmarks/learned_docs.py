"""Tables of docs/explanation/learned.md and figures of docs/explanation/claims.md from the CSVs.

    python benchmarks/learned_docs.py [--check] [--picture]

Tables go between ``<!-- learned:NAME:begin -->`` and ``<!-- learned:NAME:end -->`` of the first; in the second
``<!--image:FILE:FIGURE-->`` to ``<!--/image-->`` holds the value of a figure of results/FILE.csv with its unit. ``--check``
changes nothing and fails when a document is out of date; ``--picture`` draws docs/images/learned.png anew.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LEARNED, CLAIMS = ROOT / "docs" / "explanation" / "learned.md", ROOT / "docs" / "explanation" / "claims.md"
COLUMNS = ("pixel", "hybrid", "mean3", "bilateral", "bilateral_85", "nlm", "nlm_85", "learned")
SCENES = {
    "close": "full-scale wafers",
    "simulated": "whole wafers on 512 × 512",
    "independent": "another generator",
    "steps": "chequerboard of 120 nm",
}
_INLINE = re.compile(r"(<!--image:([\w.]+):([^>]+?)-->).*?(<!--/image-->)")
Line = dict[str, str]


def read(name: str) -> list[Line]:
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mean(rows: list[Line], key: str) -> float | None:
    values = [float(row[key]) for row in rows if row[key] not in ("", "nan")]
    return statistics.mean(values) if values else None


def _cell(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def noise_table(noise: str, key: str) -> str:
    lines = read("learned")
    text = ["| scene | maps | " + " | ".join(COLUMNS) + " |", "|---|--:|" + "--:|" * len(COLUMNS)]
    for scene, name in SCENES.items():
        mine = [row for row in lines if row["scene"] == scene and row["noise_rad"] == noise]
        if not mine:
            continue
        cells = [_cell(mean([row for row in mine if row["column"] == c], key)) for c in COLUMNS]
        text.append(f"| {name} | {len(mine) // len(COLUMNS)} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def other_noises() -> str:
    lines = read("learned")
    noises = sorted({row["noise_rad"] for row in lines if row["noise_rad"]}, key=float)
    text = [
        "| noise | scene | noise left | of nlm | intervals of 95 % hold for | wrong orders of pixel | of learned |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for noise in noises:
        for scene, name in SCENES.items():
            mine = {
                c: [r for r in lines if (r["scene"], r["noise_rad"], r["column"]) == (scene, noise, c)] for c in COLUMNS
            }
            if not mine["learned"]:
                continue
            coverage = mean(mine["learned"], "coverage")
            cells = [
                noise + " rad",
                name,
                _cell(mean(mine["learned"], "noise")),
                _cell(mean(mine["nlm"], "noise")),
                _cell(None if coverage is None else 100 * coverage, ".1f") + " %",
                *(_cell(mean(mine[column], "wrong"), ".2g") for column in ("pixel", "learned")),
            ]
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def steps_table() -> str:
    rows = [row for row in read("learned") if row["scene"] == "steps"]
    text = ["| noise | " + " | ".join(COLUMNS) + " |", "|--:|" + "--:|" * len(COLUMNS)]
    for noise in sorted({row["noise_rad"] for row in rows}, key=float):
        cells = [
            _cell(mean([r for r in rows if (r["noise_rad"], r["column"]) == (noise, c)], "step"), ".2f")
            for c in COLUMNS
        ]
        text.append(f"| {noise} rad | " + " | ".join(cells) + " |")
    return "\n".join(text)


def waves_table() -> str:
    rows = [row for row in read("learned") if row["scene"] == "waves" and row["column"] == "learned"]
    periods = list(dict.fromkeys(row["case"] for row in rows))
    text = ["| noise | " + " | ".join(periods) + " |", "|--:|" + "--:|" * len(periods)]
    for noise in sorted({row["noise_rad"] for row in rows}, key=float):
        mine = {row["case"]: row for row in rows if row["noise_rad"] == noise}
        text.append(f"| {noise} rad | " + " | ".join(f"{float(mine[p]['step']):.2f}" for p in periods) + " |")
    return "\n".join(text)


def mirror_table() -> str:
    rows = [row for row in read("learned") if row["scene"] == "mirror"]
    text = [
        "| noise | method | RMS against the other frames' map | of it details below 31 pixels |",
        "|---|---|--:|--:|",
    ]
    text += [f"| {r['case']} | {r['column']} | {float(r['rms_nm']):.2f} nm | {float(r['near']):.2f} nm |" for r in rows]
    return "\n".join(text)


def cost_table() -> str:
    text = ["| figure | measured | target | remark |", "|---|--:|---|---|"]
    text += [
        f"| {r['figure']} | {r['value']} {r['unit']} | {r['target']} | {r['note']} |" for r in read("learned_speed")
    ]
    return "\n".join(text)


def coverage_table() -> str:
    """Intervals of 95 % that hold now, by scene and noise."""
    lines = read("learned_coverage")
    noises = sorted({row["noise_rad"] for row in lines}, key=float)
    text = ["| scene | " + " | ".join(f"{noise} rad" for noise in noises) + " |", "|---|" + "--:|" * len(noises)]
    for scene, name in SCENES.items():
        cells = []
        for noise in noises:
            mine = [100 * float(r["coverage"]) for r in lines if (r["scene"], r["noise_rad"]) == (scene, noise)]
            cells.append(", ".join(f"{value:.1f} %" for value in mine))
        text.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def trial_table() -> str:
    """What the slow form and the trial do, map by map: median errors in nm, and intervals of 95 % that hold."""
    ways = {"hybrid": "hybrid", "bare": "without either", "form": "slow form", "tried": "and trial"}
    text = [
        "| wavelengths | surface | slope, sigmas | " + " | ".join(ways.values()) + " | found | said | sigma × |",
        "|--:|---|--:|" + "--:|" * (len(ways) + 3),
    ]
    maps: dict[tuple[str, ...], dict[str, Line]] = {}
    for row in read("learned_trial"):
        maps.setdefault((row["waves"], row["seed"], row["added"]), {})[row["way"]] = row
    for (waves, seed, added), found in maps.items():
        cells = [f"{found[way]['median_nm']} nm, {100 * float(found[way]['coverage']):.1f} %" for way in ways]
        last = found["tried"]
        left = f"{float(last['found']):.3f} ± {float(last['error']):.3f}"
        told = [left, f"{float(last['said']):.3f}", last["factor"] if last["used"] == "1" else "not used"]
        head = [waves, f"{added} (seed {seed})", f"{float(last['slope']):.3g}"]
        text.append("| " + " | ".join([*head, *cells, *told]) + " |")
    return "\n".join(text)


def tables() -> Iterator[tuple[str, str]]:
    yield "noise", noise_table("0.2", "noise")
    yield "far", noise_table("0.2", "far")
    yield "noises", other_noises()
    yield "steps", steps_table()
    yield "waves", waves_table()
    yield "mirror", mirror_table()
    yield "trial", trial_table()
    yield "coverage", coverage_table()
    yield "cost", cost_table()


def inline(text: str) -> str:
    """Values in the sentences of docs/explanation/claims.md."""
    cache: dict[str, dict[str, Line]] = {}

    def put(found: re.Match[str]) -> str:
        name, figure = found[2], found[3]
        if name not in cache:
            cache[name] = {row["figure"]: row for row in read(name)}
        row = cache[name].get(figure)
        return found[0] if row is None else f"{found[1]}{shown(row)}{found[4]}"

    return _INLINE.sub(put, text)


def shown(row: Line) -> str:
    """A value for people: signed shares as per cent."""
    value, unit = row["value"], row["unit"]
    if not unit and row["figure"].endswith((": memory", ": time")):
        return f"{100 * float(value):+.0f} %"
    number = value if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", value) else f"{float(value):.3g}"
    return f"{number} {unit}".strip()


def picture() -> None:
    """Truth, hybrid and learned of a part of a wafer at 0.2 rad, its smooth form taken off, and the error of learned."""
    import numpy as np
    from matplotlib.figure import Figure
    from scipy.ndimage import gaussian_filter

    from learned import FULL_SCALE_UM, run, simulated

    scene = simulated(320, 1, 0.2, FULL_SCALE_UM)[0]
    found = run(scene, "wafer")
    form = gaussian_filter(scene.truth_nm, 10)
    maps = [scene.truth_nm - form, *(found[name][0] - form for name in ("hybrid", "learned"))]
    maps.append(found["learned"][0] - scene.truth_nm)
    maps = [(one - np.nanmedian(one))[24:-24, 24:-24] for one in maps]  # the form is not known at the rim
    figure = Figure(figsize=(13, 3.6), dpi=110, layout="constrained")
    for axis, one, title in zip(
        figure.subplots(1, 4), maps, ("truth", "hybrid", "learned", "error of learned"), strict=True
    ):
        shown = axis.imshow(one, cmap="viridis", vmin=-100, vmax=100)
        axis.set_title(title)
        axis.set_axis_off()
    figure.colorbar(shown, ax=figure.axes, label="nm", shrink=0.9)
    figure.savefig(ROOT / "docs" / "images" / "learned.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--picture", action="store_true")
    given = parser.parse_args()
    if given.picture:
        picture()
    learned = LEARNED.read_text(encoding="utf-8")
    for name, text in tables():
        pattern = rf"(<!-- learned:{name}:begin -->\n).*?(<!-- learned:{name}:end -->)"
        learned = re.sub(pattern, lambda m, text=text: f"{m[1]}{text}\n{m[2]}", learned, flags=re.DOTALL)
    stale = []
    for path, new in ((LEARNED, learned), (CLAIMS, inline(CLAIMS.read_text(encoding="utf-8")))):
        if path.read_text(encoding="utf-8") != new:
            stale.append(path.name)
            if not given.check:
                path.write_text(new, encoding="utf-8")
    if stale:
        print(f"{'out of date' if given.check else 'updated'}: {', '.join(stale)}")
    sys.exit(bool(stale and given.check))


if __name__ == "__main__":
    main()
