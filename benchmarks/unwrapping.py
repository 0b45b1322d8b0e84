"""One-wavelength unwrapping on the hard set, against scikit-image, kamui and SNAPHU; results/unwrapping.csv.

    python benchmarks/unwrapping.py --hard [--only TEXT ...] [--methods NAME ...] [--cache DIR]    the hard set
    python benchmarks/unwrapping.py --speed                                    4096 x 4096 against scikit-image, minutes
    python benchmarks/unwrapping_docs.py [--pictures] [--cache DIR]            tables and pictures of the page

kamui and snaphu are no dependencies of this project: ``pip install kamui PyMaxflow snaphu`` beside it for this script.
Each method runs in a process of its own with 60 s per case, not counting imports and compilation.

wrong     share of the valid pixels whose order is not the true one, each component of the mask first aligned by its
          median difference; a pixel without a value is wrong.
flagged   the same, flagged pixels counted as wrong as well. Flags are the method's own (``ambiguous`` here, component 0
          of SNAPHU) and, for every method alike, pixels that lie more than pi from a neighbour in its own answer: what
          the flag says here, so methods without flags are counted by the same rule.
coverage  share of the valid pixels that get a value.
agreement on a map: share of pixels on which the method and its closest rival have the same order.

Every method gets the same map; SNAPHU and kamui's ILP also get the coherence, and ``unwrap`` 1 / sigma^2 where it varies
over the map. Speed: ``unwrap`` with its two threads and scikit-image alternate in one process; best of the runs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from scipy import ndimage

import unwrap_cases
from unwrap_cases import TURN, Case

RESULTS = Path(__file__).parent / "results" / "unwrapping.csv"
LIMIT_S = 60
SPEED_SIZE = 4096
SPEED_CASES = {  # how many times as fast as scikit-image: smooth with noise, and denser than 0.1 cycle per pixel
    "noise 0.1": 20,
    "noise 0.5": 20,
    "dense 0.3 noise 0.3": 8,
    "dense 0.4 noise 0.3": 8,
    "carrier 0.2 noise 0.3": 8,
}
STARTUP_S = 120  # imports and compilation of a peer, beyond its time limit


@dataclass(frozen=True)
class Answer:
    """Orders (h, w) int64, ``given`` where there is a value, the method's own ``flagged``, and seconds."""

    orders: np.ndarray
    given: np.ndarray
    flagged: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Row:
    """One line of the CSV: one method on one case."""

    case: str
    size: int
    method: str
    wrong: float | str
    flagged: float | str
    coverage: float | str
    jumps: int | str
    residues: int
    congruence_rad: float | str
    agreement: float | str
    seconds: float | str
    note: str


# --- the methods


def cpikan_method(case: Case, tile: int = 512) -> Answer:
    from cpikan.psi.unwrap.unwrap import unwrap

    quality = None if np.ptp(case.coherence) == 0 else (1 / case.sigma_rad() ** 2).astype(np.float32)
    unwrap(np.random.default_rng(0).uniform(-3, 3, (64, 64)).astype(np.float32))  # compiled code is read from disk
    started = time.perf_counter()
    result = unwrap(case.phase_rad, quality, tile=tile, overlap=tile // 8 if tile > 256 else tile // 4)
    seconds = time.perf_counter() - started
    return Answer(result.orders.astype(np.int64), result.component > 0, result.ambiguous, seconds)


def scikit_image_method(case: Case) -> Answer:
    from skimage.restoration import unwrap_phase

    outside = ~np.isfinite(case.phase_rad)
    given = np.ma.array(np.where(outside, 0, case.phase_rad), mask=outside) if outside.any() else case.phase_rad
    started = time.perf_counter()
    unwrapped = np.ma.filled(unwrap_phase(given, rng=0), 0)
    return _answer(case, unwrapped, started)


def snaphu_method(case: Case) -> Answer:
    import snaphu

    valid = np.isfinite(case.phase_rad)
    phasor = np.where(valid, np.exp(1j * np.nan_to_num(case.phase_rad)), 0).astype(np.complex64)
    started = time.perf_counter()
    unwrapped, label = snaphu.unwrap(
        phasor, case.coherence.astype(np.float32), nlooks=1, cost="smooth", init="mcf", mask=valid
    )
    answer = _answer(case, unwrapped, started)
    return Answer(answer.orders, answer.given, valid & (np.asarray(label) == 0), answer.seconds)


def kamui_ilp_method(case: Case) -> Answer:
    import kamui

    valid = np.isfinite(case.phase_rad)
    weights = np.where(valid, np.maximum(np.rint(100 * case.coherence), 1), 0).astype(np.int64)
    phase = np.nan_to_num(case.phase_rad).astype(np.float64)
    started = time.perf_counter()
    return _answer(case, kamui.unwrap_dimensional(phase, weights=weights, merging_method="min"), started)


def kamui_puma_method(case: Case) -> Answer:
    """Graph cuts know no weights, so each component is a graph of its own."""
    import kamui

    valid = np.isfinite(case.phase_rad)
    started = time.perf_counter()
    number = np.full(valid.shape, -1)
    unwrapped = np.zeros(valid.shape)
    labels, count = ndimage.label(valid)
    for label in range(1, count + 1):
        mask = labels == label
        number[mask] = np.arange(np.count_nonzero(mask))
        pairs = [
            np.stack((number[a][both], number[b][both]), axis=1)
            for a, b in (((slice(None), slice(None, -1)), (slice(None), slice(1, None))), (np.s_[:-1], np.s_[1:]))
            for both in [mask[a] & mask[b]]
        ]
        phase = case.phase_rad[mask].astype(np.float64)
        edges = np.concatenate(pairs)
        unwrapped[mask] = kamui.unwrap_arbitrary(phase, edges, method="gc") if edges.size else phase
    return _answer(case, unwrapped, started)


METHODS: dict[str, Callable[[Case], Answer]] = {
    "cpikan": cpikan_method,
    "cpikan, tiles of 128": partial(cpikan_method, tile=128),
    "scikit-image": scikit_image_method,
    "kamui ILP": kamui_ilp_method,
    "kamui PUMA": kamui_puma_method,
    "SNAPHU": snaphu_method,
}


def _answer(case: Case, unwrapped: np.ndarray, started: float) -> Answer:
    seconds = time.perf_counter() - started
    valid = np.isfinite(case.phase_rad)
    given = valid & np.isfinite(unwrapped)
    turns = np.rint((np.where(given, unwrapped, 0) - np.where(given, case.phase_rad, 0)) / TURN)
    return Answer(turns.astype(np.int64), given, np.zeros(valid.shape, bool), seconds)


# --- figures of merit


def aligned_difference(orders: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Orders minus reference, minus the (lower) median of each component."""
    difference = orders - reference
    flat, owner = difference[labels > 0], labels[labels > 0]
    by = np.lexsort((flat, owner))
    sizes = np.bincount(owner)[1:]
    ends = np.cumsum(sizes)
    medians = flat[by][ends - sizes + (sizes - 1) // 2]
    return np.where(labels > 0, difference - np.append(0, medians)[labels], 0)


def jump_pairs(phase: np.ndarray, orders: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Pixels more than pi from a 4-neighbour in the answer, and the number of such pairs."""
    value = np.where(labels > 0, phase, 0) + TURN * orders
    near, count = np.zeros(phase.shape, bool), 0
    for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        far = (np.abs(value[b] - value[a]) > np.pi + 1e-4) & (labels[a] > 0) & (labels[b] > 0)
        near[a] |= far
        near[b] |= far
        count += int(far.sum())
    return near, count


def residue_count(phase: np.ndarray) -> int:
    from cpikan.psi.unwrap.residues import count_residues

    return int(count_residues(phase, *phase.shape))


def judge(case: Case, name: str, size: int, method: str, answer: Answer, others: list[Answer]) -> Row:
    labels = ndimage.label(np.isfinite(case.phase_rad))[0]
    pixels = int(np.count_nonzero(labels))
    near, jumps = jump_pairs(case.phase_rad, answer.orders, labels)
    lost = (labels > 0) & ~answer.given
    wrong = flagged = ""
    if case.surface_rad is not None:
        bad = lost | (aligned_difference(answer.orders, case.true_orders(), labels) != 0)
        wrong, flagged = bad.sum() / pixels, (bad | near | (answer.flagged & (labels > 0))).sum() / pixels
    same = [1 - np.count_nonzero(aligned_difference(answer.orders, o.orders, labels)) / pixels for o in others]
    excess = (case.phase_rad[answer.given] + TURN * answer.orders[answer.given]) - case.phase_rad[answer.given]
    worst = float(np.abs(excess - TURN * np.rint(excess / TURN)).max())
    return Row(
        name, size, method, wrong, flagged, 1 - lost.sum() / pixels, jumps, residue_count(case.phase_rad), worst,
        max(same, default=""), round(answer.seconds, 4), "",
    )  # fmt: skip


# --- running


def run(method: str, name: str, size: int, cache: Path) -> Answer | str:
    """The answer of a method, in a process of its own; or why there is none."""
    case = unwrap_cases.make(name, size)
    digest = hashlib.sha256(case.phase_rad.tobytes() + case.coherence.tobytes()).hexdigest()[:16]
    path = cache / f"{method.replace(' ', '_')}-{digest}.npz"
    failed = path.with_suffix(".txt")
    ours = method.startswith("cpikan")
    if not ours and failed.exists():
        return failed.read_text()
    if ours or not path.exists():
        command = [sys.executable, __file__, "--worker", method, name, str(size), str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S + STARTUP_S * ours)
        except subprocess.TimeoutExpired:
            failed.write_text(f"no answer in {LIMIT_S} s")
            return failed.read_text()
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["failed"])[-1][:100]
            if "No module named" in reason:
                return reason
            failed.write_text(reason)
            return reason
    with np.load(path, allow_pickle=False) as kept:
        return Answer(kept["orders"].astype(np.int64), kept["given"], kept["flagged"], float(kept["seconds"]))


def work(method: str, name: str, size: int, path: Path) -> None:
    answer = METHODS[method](unwrap_cases.make(name, size))
    with open(path, "wb") as file:
        np.savez_compressed(
            file,
            orders=answer.orders.astype(np.int32),
            given=answer.given,
            flagged=answer.flagged,
            seconds=answer.seconds,
        )


def measure(jobs: list[tuple[str, int]], methods: list[str], cache: Path) -> Iterator[Row]:
    for name, size in jobs:
        case = unwrap_cases.make(name, size)
        answers = {method: run(method, name, size, cache) for method in methods}
        good = {m: a for m, a in answers.items() if isinstance(a, Answer)}
        for method, answer in answers.items():
            if isinstance(answer, str):
                yield Row(
                    name,
                    case.phase_rad.shape[0],
                    method,
                    "",
                    "",
                    "",
                    "",
                    residue_count(case.phase_rad),
                    "",
                    "",
                    "",
                    answer,
                )
                continue
            own = method.split(",")[0]  # the same method in other tiles is no rival
            others = [a for m, a in good.items() if m.split(",")[0] != own]
            yield judge(case, name, case.phase_rad.shape[0], method, answer, others)


def speed() -> Iterator[Row]:
    """4096 x 4096, both in turn within one process: best of three."""
    for name, target in SPEED_CASES.items():
        case = unwrap_cases.make(name, SPEED_SIZE)
        pairs = [(cpikan_method(case), scikit_image_method(case)) for _ in range(3)]
        ours, theirs = (min(answers, key=lambda a: a.seconds) for answers in zip(*pairs, strict=True))
        ratio = f"{theirs.seconds / ours.seconds:.1f} times scikit-image, target {target}"
        yield replace(judge(case, name, SPEED_SIZE, "cpikan", ours, [theirs]), note=ratio)
        yield judge(case, name, SPEED_SIZE, "scikit-image", theirs, [ours])


def keep(rows: list[Row]) -> None:
    """Write the CSV, keeping older lines that were not measured now."""
    old: dict[tuple[str, str, str], dict[str, str]] = {}
    if RESULTS.exists():
        with open(RESULTS, newline="", encoding="utf-8") as file:
            old = {(r["case"], r["size"], r["method"]): r for r in csv.DictReader(file)}
    for row in rows:
        text = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in asdict(row).items()}
        old[row.case, str(row.size), row.method] = text
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(old.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hard", action="store_true", help="the hard set (also when neither mode is given)")
    parser.add_argument("--speed", action="store_true", help="the speed at 4096 x 4096")
    parser.add_argument("--only", nargs="*", default=[""], help="cases whose name contains one of these")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--cache", type=Path, help="keep the answers of the peers here between runs")
    parser.add_argument("--sizes", nargs="*", type=int, default=[512, 1024])
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        method, name, size, path = given.worker
        work(method, name, int(size), Path(path))
        return
    with tempfile.TemporaryDirectory() as scratch:
        cache = given.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        jobs = [(n, 512) for n in unwrap_cases.CASES] + [(n, 1024) for n in unwrap_cases.LARGE]
        jobs = [(n, s) for n, s in jobs if s in given.sizes and any(text in n for text in given.only)]
        rows: list[Iterator[Row]] = [speed()] if given.speed else []
        if given.hard or not given.speed:
            rows.append(measure(jobs, given.methods, cache))
        for row in chain.from_iterable(rows):
            keep([row])
            print(*(f"{v:.3g}" if isinstance(v, float) else v for v in asdict(row).values()), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
