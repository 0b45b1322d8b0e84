"""Give faulty stacks to `reconstruct`: how many pixels come out wrong by more than a quarter wave without a word?

    python benchmarks/trust_matrix.py [--waves 1 2 3 4] [--seeds 0 1 2 3 4] [--methods pixel auto hybrid learned]
                                      [--faults NAME ...] [--sizes 0 1 2] [--workers 2] [--csv FILE] [--picture FILE]
    python benchmarks/trust_matrix.py --alarms 200          clean stacks alone: how many warn or flag? (false_alarms.csv)
    python benchmarks/trust_matrix.py --known CSV ...       judge and draw the rows of an earlier run

`benchmarks/faulty_stacks.py` makes the frames. Heights are compared after removing the median of every connected component. A
quarter wave is lambda / 4 of the shortest wavelength in height. Columns of results/trust_matrix.csv: `quiet` pixels that are
wrong and carry neither flag 4 nor 8, as a share of the measured ones; `kept` pixels that are right on the clean stack and stay
measured and unflagged; `median_nm` the median error, `clean_nm` that of the clean stack; `coverage` of 95 % intervals of
unflagged pixels; `names` of cautions; `refused` why, if so; `verdict`: right, repaired, flagged, refused, wrong, or traceless
where it is wrong and the fault leaves no trace in the frames. results/trust_coverage.csv has the coverage of every cell, its
seeds pooled, whether it lies within 92 to 98 %, and whether all maps outside said something.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

import cpikan
from cpikan.pipeline.reconstruction import calibrate
from cpikan.psi.calibration.wavelengths.planning import widest_range_nm
from faulty_stacks import FAULTS, FaultyStack, clean_bench, decided_bench, take

CSV = Path(__file__).parent / "results" / "trust_matrix.csv"
COVERAGE = CSV.with_name("trust_coverage.csv")
ALARMS = CSV.with_name("false_alarms.csv")
METHODS = ("pixel", "auto", "hybrid", "learned")
SILENT = 1e-3  # share of wrong pixels without a word that a cell may have
KEPT = 0.98
DOUBTED = 4 | 8


@dataclass(frozen=True)
class Found:
    """A map (None: refused), the reason or the names of cautions."""

    height_nm: np.ndarray | None
    sigma_nm: np.ndarray | None
    flags: np.ndarray | None
    component: np.ndarray | None
    names: tuple[str, ...]
    refused: str = ""


@dataclass(frozen=True)
class Part:
    """What one process works through."""

    waves: int
    seed: int
    methods: tuple[str, ...]
    faults: tuple[str, ...]
    sizes: tuple[int, ...]


def reconstructed(stack: FaultyStack, method: str, folder: Path) -> Found:
    """Reconstruct from files, as a user would: steps are given and nobody says what they are worth."""
    np.save(folder / "frames.npy", stack.frames.reshape(-1, *stack.frames.shape[2:]))
    told = {
        "wavelengths": [f"{wave} nm" for wave in stack.told.wavelengths_nm],
        "phase_steps": list(stack.told.steps_deg),
    }
    (folder / "acquisition.toml").write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items()))
    try:
        with cpikan.open_stack(folder) as opened:
            out = cpikan.reconstruct(
                opened, folder / "out.npy", method=method, all_quantities=True, progress=False, overwrite=True
            )
    except cpikan.InputError as error:
        return Found(None, None, None, None, (), str(error))
    names = tuple(out.summary["warning_names"])
    maps = [np.asarray(getattr(out, name)[:]) for name in ("height_nm", "sigma_nm", "flags")]
    one = len(stack.told.wavelengths_nm) == 1
    return Found(*maps, np.asarray(out.component[:]) if one else None, names)


@contextmanager
def calibrated_once() -> Iterator[None]:
    """Calibrate a stack once for all methods, which differ after it only: most of the time of a small run."""
    original, known = calibrate.calibrate_stack, {}

    def remembering(*args: Any, **named: Any) -> Any:
        key = blake2b(pickle.dumps((args, sorted(named.items())))).digest()
        if key not in known:
            known.clear()
            known[key] = original(*args, **named)
        return known[key]

    calibrate.calibrate_stack = remembering
    try:
        yield
    finally:
        calibrate.calibrate_stack = original


def errors_nm(found: Found, stack: FaultyStack) -> np.ndarray:
    """Compute errors (H, W) after removing the median of every component; NaN where nothing was measured."""
    error = np.where(stack.mask, found.height_nm - stack.height_nm, np.nan)
    labels = np.ones(error.shape, int) if found.component is None else found.component
    for label in np.unique(labels):
        here = (labels == label) & np.isfinite(error)
        if here.any():
            error[here] -= np.median(error[here])
    return error


def judged(found: Found, stack: FaultyStack, clean: tuple[Found, np.ndarray]) -> dict[str, object]:
    """Compute the columns of a row."""
    if found.height_nm is None:
        return {"refused": found.refused}
    error, quarter = errors_nm(found, stack), min(stack.told.wavelengths_nm) / 4
    there, told = np.isfinite(error), (found.flags & DOUBTED) > 0
    wrong = there & (np.abs(np.nan_to_num(error)) > quarter)
    right = (
        np.isfinite(clean[1]) & (np.abs(np.nan_to_num(clean[1])) < quarter) & ((clean[0].flags & DOUBTED) == 0)
        if clean[0].flags is not None
        else np.zeros_like(there)
    )
    sure = there & ~told
    row: dict[str, object] = {
        "measured": there.sum() / stack.mask.sum(),
        "quiet": (wrong & ~told).sum() / max(there.sum(), 1),
        "flagged": (there & told).sum() / max(there.sum(), 1),
        "kept": (right & sure).sum() / max(right.sum(), 1),
        "median_nm": float(np.median(np.abs(error[there]))) if there.any() else float("nan"),
        "clean_nm": float(np.nanmedian(np.abs(clean[1]))),
        "coverage": float((np.abs(error) < 1.96 * found.sigma_nm)[sure].mean()) if sure.sum() >= 1000 else float("nan"),
        "names": "+".join(sorted(set(found.names))),
    }
    return {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}


def range_nm(waves: tuple[float, ...], sigma_rad: float) -> float:
    """Choose a range that holds at that noise, so that the clean surface lies inside."""
    return widest_range_nm(waves, (float(np.hypot(sigma_rad, 0.03)),) * len(waves), rate=1e-8)


def rows_of(part: Part) -> list[dict[str, object]]:
    """Work through all cells of one bench."""
    bench = clean_bench(part.seed, part.waves, range_nm)
    names = [n for n in part.faults if FAULTS[n].least_waves <= part.waves <= FAULTS[n].most_waves]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, calibrated_once():
        plain = take(bench, None, 0, part.seed)
        clean = {}
        for method in part.methods:
            found = reconstructed(plain, method, Path(folder))
            error = np.full(plain.mask.shape, np.nan) if found.height_nm is None else errors_nm(found, plain)
            clean[method] = found, error
            cell = {"waves": part.waves, "seed": part.seed, "fault": "none", "size": 0, "method": method}
            rows.append(cell | judged(found, plain, clean[method]))
        for name in names:
            for size in part.sizes:
                stack = take(bench, name, size, part.seed)
                for method in part.methods:
                    cell = {"waves": part.waves, "seed": part.seed, "fault": name, "size": size, "method": method}
                    rows.append(cell | judged(reconstructed(stack, method, Path(folder)), stack, clean[method]))
    return rows


def alarm(seed: int) -> dict[str, object]:
    """Reconstruct one clean stack by the default method: what it warns of, and what it flags."""
    waves = 1 + seed % 4
    stack = take(decided_bench(seed, waves, range_nm), None, 0, seed)
    with tempfile.TemporaryDirectory() as folder:
        found = reconstructed(stack, "auto", Path(folder))
    flagged = 0.0 if found.flags is None else float(((found.flags & DOUBTED) > 0)[stack.mask].mean())
    row = {"seed": seed, "waves": waves, "flagged": flagged, "names": "+".join(found.names), "refused": found.refused}
    return {**row, "false_alarm": int(bool(row["names"] or row["refused"] or flagged > SILENT))}


def written(rows: list[dict[str, object]], path: Path) -> None:
    """Write the clean stacks and tell those of which something was said."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    loud = [row for row in rows if row["false_alarm"]]
    print(*loud, f"{len(loud)} of {len(rows)} clean stacks warn, are flagged or refused", sep="\n")


FIELDS = (
    "waves", "seed", "fault", "size", "method", "measured", "quiet", "flagged", "kept", "median_nm", "clean_nm", "coverage",
    "names", "refused", "verdict",
)  # fmt: skip
ORDER = ("right", "repaired", "flagged", "refused", "wrong")


def verdict(cell: list[dict[str, object]]) -> str:
    """Judge a cell, its seeds together: the worst of them."""
    kinds = set()
    for row in cell:
        if row.get("refused"):
            kinds.add("refused")
        elif float(row["quiet"]) > SILENT:
            kinds.add("wrong")
        elif float(row["kept"]) < KEPT:
            kinds.add("flagged")
        else:
            kinds.add("repaired" if row["names"] else "right")
    return max(kinds, key=ORDER.index)


def traceless(name: str, waves: int) -> bool:
    """Tell whether a fault leaves no trace in the frames of so many wavelengths."""
    fault = FAULTS.get(name)
    return fault is not None and bool(fault.traceless or (waves == 2 and fault.traceless_of_two))


def with_verdict(row: dict[str, object]) -> dict[str, object]:
    """Add the verdict on a single row."""
    kind = verdict([row])
    return {
        **row,
        "verdict": "traceless" if kind == "wrong" and traceless(str(row["fault"]), int(row["waves"])) else kind,
    }


def cells(rows: list[dict[str, object]]) -> Iterator[tuple[tuple, list[dict[str, object]]]]:
    """Group rows over seeds."""
    grouped: dict[tuple, list] = {}
    for row in rows:
        grouped.setdefault((row["fault"], int(row["size"]), int(row["waves"]), row["method"]), []).append(row)
    yield from sorted(grouped.items())


def told(rows: list[dict[str, object]]) -> None:
    """Print what matters: cells that are wrong in silence, harmless ones that were flagged away, coverage."""
    found = {key: (verdict(cell), cell) for key, cell in cells(rows)}
    for key, (kind, cell) in found.items():
        if kind == "wrong" and not traceless(key[0], key[2]):
            worst = max(float(row["quiet"]) for row in cell if not row.get("refused"))
            print(f"WRONG {key}: {worst:.2%} of the pixels without a word")
        if key[1] == 0 and kind in ("flagged", "refused"):
            print(f"harmless, but {kind}: {key} {sorted({str(r.get('refused') or r['names'])[:60] for r in cell})}")
    for kind in ORDER:
        print(f"{kind}: {sum(k == kind for k, _ in found.values())} of {len(found)} cells")


def covered(rows: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Pool the coverage of a cell's seeds, weighted by their unflagged pixels; faults without a trace are left out."""
    for (fault, size, waves, method), cell in cells(rows):
        counted = [row for row in cell if row.get("coverage") not in (None, "", "nan")]
        if not counted or traceless(fault, waves):
            continue
        weights = [float(row["measured"]) * (1 - float(row["flagged"])) for row in counted]
        pooled = float(np.average([float(row["coverage"]) for row in counted], weights=weights))
        place = {"fault": fault, "size": size, "waves": waves, "method": method}
        said = all(row["names"] for row in counted if not 0.92 <= float(row["coverage"]) <= 0.98)
        yield place | {"coverage": f"{pooled:.4f}", "inside": int(0.92 <= pooled <= 0.98), "said": int(said)}


def picture(rows: list[dict[str, object]], target: Path) -> None:
    """Draw fault x (method, wavelengths, size)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    kinds = (*ORDER, "traceless")
    found = {key: kinds.index(verdict(cell)) for key, cell in cells(rows)}
    found = {
        key: len(ORDER) if ORDER[kind] == "wrong" and traceless(key[0], key[2]) else kind for key, kind in found.items()
    }
    names = list(dict.fromkeys(["none", *FAULTS]))
    columns = sorted({(key[3], key[2], key[1]) for key in found}, key=lambda c: (METHODS.index(c[0]), *c[1:]))
    table = np.full((len(names), len(columns)), np.nan)
    for (fault, size, waves, method), kind in found.items():
        table[names.index(fault), columns.index((method, waves, size))] = kind
    figure, axes = plt.subplots(figsize=(13, 11))
    colours = ListedColormap(["#2a9d4b", "#9bd5a5", "#e9c46a", "#8d99ae", "#d62828", "#c9b8e8"])
    axes.pcolormesh(table[::-1], cmap=colours, vmin=-0.5, vmax=5.5, edgecolors="white", linewidth=0.4)
    axes.set_yticks(np.arange(len(names)) + 0.5, names[::-1], fontsize=8)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [f"{w}λ {s}" for _, w, s in columns], rotation=90, fontsize=6)
    for i, method in enumerate(m for m in METHODS if any(c[0] == m for c in columns)):
        width = sum(c[0] == method for c in columns)
        axes.text((i + 0.5) * width, len(names) + 0.3, method, ha="center", fontsize=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours(i)) for i in range(len(kinds))]
    figure.legend(handles, kinds, loc="lower center", ncol=len(kinds))
    figure.tight_layout(rect=(0, 0.04, 1, 0.98))
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waves", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), metavar="NAME")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--alarms", type=int, metavar="N")
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--known", type=Path, metavar="CSV")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with ProcessPoolExecutor(given.workers) as pool:
        if given.alarms:
            written(list(pool.map(alarm, range(given.alarms))), ALARMS if given.csv == CSV else given.csv)
            return
        rows: list[dict[str, object]] = []
        parts = [
            Part(waves, seed, tuple(given.methods), tuple(given.faults), tuple(given.sizes))
            for seed in given.seeds
            for waves in given.waves
        ]
        if given.known:
            parts, rows = [], [with_verdict(row) for row in csv.DictReader(given.known.open())]
        started = time.perf_counter()
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            for part, found in zip(parts, pool.map(rows_of, parts), strict=True):
                found = [with_verdict(row) for row in found]
                rows += found
                writer.writerows(found)
                file.flush()
                print(
                    f"{time.perf_counter() - started:6.0f} s: {part.waves} wavelengths, seed {part.seed}",
                    file=sys.stderr,
                )
    told(rows)
    if given.csv == CSV:
        with COVERAGE.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, ("fault", "size", "waves", "method", "coverage", "inside", "said"), lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(covered(rows))
    if given.picture:
        picture(rows, given.picture)


if __name__ == "__main__":
    main()
