"""Tables and pictures of docs/explanation/unwrapping.md from results/unwrapping.csv: ``python benchmarks/unwrapping_docs.py``.

Tables go between ``<!-- unwrapping:NAME:begin -->`` and ``<!-- unwrapping:NAME:end -->``. ``--check`` changes nothing and
fails when the document is out of date. ``--pictures`` draws docs/images/unwrap_*.png anew; ``--cache`` says where the
peers' answers of benchmarks/unwrapping.py are kept, without it each peer runs again.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

import unwrap_cases
from unwrap_cases import REAL_MAPS, TURN, Case
from unwrapping import RESULTS, SPEED_CASES, SPEED_SIZE, Answer, aligned_difference, jump_pairs, run

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "explanation" / "unwrapping.md"
IMAGES = ROOT / "docs" / "images"
METHODS = ("cpikan", "cpikan, tiles of 128", "scikit-image", "kamui ILP", "kamui PUMA", "SNAPHU")
PEERS = METHODS[2:]
SHEETS = {
    "unwrap_faults.png": ("shear", "ramp shear", "steps 2.6 rad"),
    "unwrap_speckle.png": ("speckle 0.5-0.95", "speckle 0.2-0.9", "speckle 4 looks"),
    "unwrap_dense.png": ("dense 0.4 noise 0.3", "carrier 0.4 noise 0.3", "scratches 30% noise 0.5", "islands"),
}
Rows = dict[tuple[str, str, str], dict[str, str]]


def read_rows() -> Rows:
    with open(RESULTS, newline="", encoding="utf-8") as file:
        return {(r["case"], r["size"], r["method"]): r for r in csv.DictReader(file)}


# --- tables


def _share(text: str) -> str:
    return "0" if float(text) == 0 else f"{float(text):.2g}"


def _cell(row: dict[str, str] | None) -> str:
    if row is None:
        return ""
    if not row["coverage"]:
        return "> 60 s" if "no answer" in row["note"] else row["note"][:30]
    return f"{_share(row['flagged'])} ({_share(row['wrong'])})"


def hard_table(rows: Rows) -> str:
    lines = [f"| case | pixels | {' | '.join(METHODS)} | over the best |", "|---|--:|" + "--:|" * (len(METHODS) + 1)]
    for name, size in _cases(rows):
        found = [rows.get((name, size, method)) for method in METHODS]
        ours, best = float(found[0]["flagged"]), min(_flagged(row) for row in found[2:])
        ratio = "1.00" if ours <= best + 1e-6 and best < 1e-6 else f"{ours / max(best, 1e-9):.2f}"
        lines.append(f"| {name} | {size}² | {' | '.join(_cell(row) for row in found)} | {ratio} |")
    return "\n".join(lines)


def _cases(rows: Rows) -> list[tuple[str, str]]:
    """Cases with a truth, in the order of the hard set, 1024 x 1024 last."""
    made = {n: i for i, n in enumerate(unwrap_cases.CASES)}
    keys = {(n, s) for n, s, m in rows if m == "cpikan" and s in ("512", "1024") and n not in REAL_MAPS}
    return sorted(keys, key=lambda k: (int(k[1]), made[k[0]]))


def _flagged(row: dict[str, str] | None) -> float:
    return float(row["flagged"]) if row and row["flagged"] else np.inf


def real_table(rows: Rows) -> str:
    lines = [
        "| map | residues | " + " | ".join(METHODS[:4]) + " | SNAPHU |",
        "|---|--:|" + "--:|" * 5,
    ]
    for name in REAL_MAPS:
        found = {m: r for (n, _, m), r in rows.items() if n == name}
        cells = [
            f"{int(found[m]['jumps']):,}; {float(found[m]['agreement']):.3f}"
            if m in found and found[m]["jumps"]
            else ""
            for m in (*METHODS[:4], "SNAPHU")
        ]
        lines.append(f"| {name} | {int(found['cpikan']['residues']):,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_table(rows: Rows) -> str:
    lines = [
        "| case | cpikan | scikit-image | ratio | target | wrong or flagged here | there |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, target in SPEED_CASES.items():
        found = [rows.get((name, str(SPEED_SIZE), method)) for method in ("cpikan", "scikit-image")]
        if found[0] is None or found[1] is None:
            continue
        ours, theirs = found
        ratio = float(theirs["seconds"]) / float(ours["seconds"])
        lines.append(
            f"| {name} | {float(ours['seconds']):.2f} s | {float(theirs['seconds']):.1f} s | {ratio:.1f} × | ≥ {target} × | "
            f"{_share(ours['flagged'])} | {_share(theirs['flagged'])} |"
        )
    return "\n".join(lines)


def filled(text: str, rows: Rows) -> str:
    for name, table in (("hard", hard_table), ("real", real_table), ("speed", speed_table)):
        between = re.compile(rf"(<!-- unwrapping:{name}:begin -->\n).*?(<!-- unwrapping:{name}:end -->)", re.DOTALL)
        content = table(rows)
        text = between.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


# --- pictures


def _show(axis: Axes, values: np.ndarray, title: str, **how: object) -> None:
    axis.imshow(values, interpolation="nearest", **how)
    axis.set_title(title, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_facecolor("white")


def _errors(case: Case, answer: Answer, labels: np.ndarray) -> tuple[np.ndarray, str]:
    error = aligned_difference(answer.orders, case.true_orders(), labels)
    near, _ = jump_pairs(case.phase_rad, answer.orders, labels)
    valid = labels > 0
    flagged = (error != 0) | near | (answer.flagged & valid)
    wider = ndimage.grey_dilation(error, 3), ndimage.grey_erosion(error, 3)  # single pixels would not be seen
    shown = np.where(valid, np.where(wider[0] > -wider[1], *wider), np.nan)
    return shown, f"wrong {np.mean(error[valid] != 0):.2g}, or flagged {flagged[valid].mean():.2g}"


def hard_sheet(file: str, names: tuple[str, ...], cache: Path, rows: Rows) -> None:
    """Per case: the wrapped map, the truth, the answer here, its errors, and those of the best peer."""
    figure = Figure(figsize=(10.5, 2.25 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 5, squeeze=False)
    for line, name in zip(grid, names, strict=True):
        case = unwrap_cases.make(name, 512)
        labels = ndimage.label(np.isfinite(case.phase_rad))[0]
        best = min(PEERS, key=lambda method: _flagged(rows.get((name, "512", method))))
        ours, theirs = (run(method, name, 512, cache) for method in ("cpikan", best))
        assert isinstance(ours, Answer), ours
        truth = np.where(labels > 0, case.phase_rad + TURN * case.true_orders(), np.nan)
        shift = np.where(labels > 0, ours.orders - aligned_difference(ours.orders, case.true_orders(), labels), 0)
        turns = ours.orders - (shift - case.true_orders())  # each component on the level of its truth
        limits = {"vmin": float(np.nanpercentile(truth, 1)), "vmax": float(np.nanpercentile(truth, 99))}
        _show(line[0], case.phase_rad, name, cmap="twilight")
        _show(line[1], truth, "truth", cmap="viridis", **limits)
        _show(line[2], np.where(labels > 0, case.phase_rad + TURN * turns, np.nan), "cpikan", cmap="viridis", **limits)
        for axis, method, answer in ((line[3], "cpikan", ours), (line[4], best, theirs)):
            if isinstance(answer, Answer):
                shown, label = _errors(case, answer, labels)
                _show(axis, shown, f"errors of {method}", cmap="coolwarm", vmin=-2, vmax=2)
                axis.set_xlabel(label, fontsize=7)
    _save(figure, file)


def real_sheet(cache: Path) -> None:
    """Per measured map: the wrapped map, three answers, and where the answer here is flagged."""
    figure = Figure(figsize=(10.5, 2.3 * len(REAL_MAPS)), layout="constrained")
    for line, name in zip(figure.subplots(len(REAL_MAPS), 5), REAL_MAPS, strict=True):
        case = unwrap_cases.make(name, 512)
        size = case.phase_rad.shape[0]
        _show(line[0], case.phase_rad, f"{name}, {size}²", cmap="twilight")
        limits: dict[str, float] = {}
        for axis, method in zip(line[1:4], ("cpikan", "kamui ILP", "scikit-image"), strict=True):
            answer = run(method, name, 512, cache)
            if not isinstance(answer, Answer):
                continue
            unwrapped = case.phase_rad + TURN * (answer.orders - np.median(answer.orders))
            limits = limits or {"vmin": float(np.percentile(unwrapped, 2)), "vmax": float(np.percentile(unwrapped, 98))}
            _show(axis, unwrapped, method, cmap="viridis", **limits)
            if method == "cpikan":
                _show(line[4], answer.flagged, f"flagged by cpikan: {answer.flagged.mean():.2g}", cmap="Greys")
    _save(figure, "unwrap_real.png")


def _save(figure: Figure, file: str) -> None:
    """256 colours: a third of the size of full colour."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGES / file, optimize=True)
    print(IMAGES / file, f"{(IMAGES / file).stat().st_size / 1000:.0f} kB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when the document is out of date")
    parser.add_argument("--pictures", action="store_true", help="draw the pictures as well")
    parser.add_argument("--cache", type=Path, help="where the answers of the peers are kept")
    given = parser.parse_args()
    rows = read_rows()
    old = DOCUMENT.read_text(encoding="utf-8")
    new = filled(old, rows)
    if not given.check:
        DOCUMENT.write_text(new, encoding="utf-8")
    if given.pictures:
        with tempfile.TemporaryDirectory() as scratch:
            cache = given.cache or Path(scratch)
            for file, names in SHEETS.items():
                hard_sheet(file, names, cache, rows)
            real_sheet(cache)
    print(
        f"{DOCUMENT.name} is {'as measured' if new == old else 'out of date' if given.check else 'brought up to date'}"
    )
    return 1 if given.check and new != old else 0


if __name__ == "__main__":
    sys.exit(main())
