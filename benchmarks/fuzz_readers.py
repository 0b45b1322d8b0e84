"""Damaged frames, many a second: is every one read, or refused in one line, by its reader alone?

    python benchmarks/fuzz_readers.py [--count 20000] [--seed 1] [--only KIND ...]

The files are those of `fuzz.py` (``frames-*`` of `fuzz_inputs.KINDS`), damaged in the same way; here they are opened and all
their rows read in children that live for many files, so that a kind takes minutes for 20 000 of them.
results/fuzz_readers.csv keeps a line a kind: how many were read, refused, ``broke`` (an exception other than InputError, or a
message of several lines), took more than ten processor seconds (``hang``) or ended a child (``crash``). What broke is printed
with its number.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from fuzz import damaged
from fuzz_inputs import KINDS, Kind

RESULTS = Path(__file__).parent / "results" / "fuzz_readers.csv"
OUTCOMES = ("read", "refused", "broke", "hang", "crash")
_MANY, _SECONDS, _MIB = 500, 10, 3072


def one(kind: Kind, whole: dict[str, bytes], work: Path, number: int, seed: int) -> str:
    """Damage a file by its number and read it; what became of it, and what was said where a promise broke."""
    from cpikan.errors import InputError
    from cpikan.pipeline.stacks.stack import open_stack

    draw = random.Random(f"{seed} {kind.name} {number}")
    name = draw.choice(sorted(whole))
    (work / name).write_bytes(damaged(whole[name], draw))
    source = kind.arguments[1]
    told = (
        {}
        if kind.name in ("frames-told", "acquisition-toml")
        else {"wavelengths": ["5 um"], "phase_steps": [0, 90, 180, 270]}
    )
    started = time.process_time()
    try:
        with open_stack(source, **told) as stack:
            for start in range(0, stack.shape[2], 16):
                stack.rows(start, min(stack.shape[2], start + 16))
        found = "read"
    except InputError as error:
        found = "refused" if str(error).isprintable() else f"broke {str(error)[:200]!r}"
    except Exception as error:
        found = f"broke {type(error).__name__}: {str(error)[:200]}"
    (work / name).write_bytes(whole[name])
    return "hang" if time.process_time() - started > _SECONDS else found


def _child(kind: Kind, work: Path, numbers: range, seed: int, pipe: int) -> None:
    """Read many files and write a line for each."""
    os.chdir(work)
    resource.setrlimit(resource.RLIMIT_DATA, (_MIB * 2**20, _MIB * 2**20))
    signal.alarm(600)
    whole = {name: (work / name).read_bytes() for name in kind.targets(work)}
    with os.fdopen(pipe, "w") as out:
        for number in numbers:
            out.write(f"{number} {one(kind, whole, work, number, seed)}\n".replace("\r", " "))
            out.flush()


def run_kind(kind: Kind, count: int, seed: int) -> Counter[str]:
    """Damage files of a kind in children; one that ends early counts as a crash of its file."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="cpikan-fuzz-") as folder:
        kind.make(Path(folder))
        number = 0
        while number < count:
            numbers = range(number, min(count, number + _MANY))
            inner, outer = os.pipe()
            copy = Path(folder).with_name(f"{Path(folder).name}-copy")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            child = os.fork()
            if child == 0:
                os.close(inner)
                try:
                    _child(kind, copy, numbers, seed, outer)
                finally:
                    os._exit(0)
            os.close(outer)
            with os.fdopen(inner) as told:
                lines = told.read().splitlines()
            os.waitpid(child, 0)
            for line in lines:
                what = line.split(" ", 1)[1]
                counts[what.split(" ", 1)[0]] += 1
                if what not in ("read", "refused"):
                    print(f"{kind.name} {line}", flush=True)
            number += len(lines)
            if len(lines) < len(numbers):
                counts["crash"] += 1
                print(f"{kind.name} {number} crash", flush=True)
                number += 1
            shutil.rmtree(copy, ignore_errors=True)
    return counts


def keep(line: dict[str, object]) -> None:
    """Put the line of a kind in the place of the one that was there: a run that is stopped leaves what it has."""
    lines: dict[str, dict[str, object]] = {}
    if RESULTS.exists():
        with open(RESULTS, newline="", encoding="utf-8") as file:
            lines = {str(one["kind"]): dict(one) for one in csv.DictReader(file)}
    lines[str(line["kind"])] = line
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(line), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = [kind for kind in KINDS if kind.name.startswith("frames-")]
    parser.add_argument("--count", type=int, default=20000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in kinds])
    given = parser.parse_args()
    lines = []
    for kind in kinds:
        if given.only is None or kind.name in given.only:
            counts = run_kind(kind, given.count, given.seed)
            lines.append({"kind": kind.name, "files": given.count, **{name: counts[name] for name in OUTCOMES}})
            print(lines[-1], flush=True)
            keep(lines[-1])
    return int(any(line[name] for line in lines for name in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
