"""Damaged frames and documents, many a second: is every one read, or refused in one line, by its reader alone?

    python benchmarks/fuzz_readers.py [--count 20000] [--seed 1] [--only KIND ...]

The files are frames (``frames-*`` of `fuzz_inputs.KINDS`) and texts that are read back (`fuzz_inputs.DOCUMENTS`: recipes,
limits, acquisitions, jobs, documents of maps, lists, ledgers, queues), damaged as `fuzz.py` does; they are opened and read
whole in children that live for 2000 files each, so that a kind takes minutes for 20 000 of them. A damaged file that brings
out an answer that was not heard before is damaged further: faults that lie behind two checks are reached, too.
results/fuzz_readers.csv keeps a line a kind: how many were read, refused, ``broke`` (an exception other than InputError, or a
message of several lines), took more than ten processor seconds (``hang``) or ended a child (``crash``). What broke is printed
with its number; the child that begins at ``--first`` (a multiple of 2000) finds it again.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fuzz import damaged
from fuzz_inputs import DOCUMENTS, KINDS, Document, Kind

RESULTS = Path(__file__).parent / "results" / "fuzz_readers.csv"
OUTCOMES = ("read", "refused", "broke", "hang", "crash")
_MANY, _SECONDS, _MIB = 2000, 10, 3072
_LARGEST = 1 << 16  # of a file that is damaged further
_VARYING = re.compile(r"[0-9]+|'[^']*'|\"[^\"]*\"")


def reader_of(kind: Kind | Document) -> Callable[[str], object]:
    """Give what reads a damaged file of a kind whole; it is given the name of the file."""
    if isinstance(kind, Document):
        return lambda name: kind.read(Path(name))
    from cpikan.pipeline.stacks.stack import open_stack

    told = {} if kind.name == "frames-told" else {"wavelengths": ["5 um"], "phase_steps": [0, 90, 180, 270]}

    def frames(_: str) -> None:
        with open_stack(kind.arguments[1], **told) as stack:
            for start in range(0, stack.shape[2], 16):
                stack.rows(start, min(stack.shape[2], start + 16))

    return frames


class Corpus:
    """Whole files by name, and damaged ones that brought out an answer that no other did: the seeds of further damage.

    Answers are told apart by their words, without the numbers and names in them.
    """

    def __init__(self, whole: dict[str, bytes]) -> None:
        self.whole = whole
        self.kept: list[tuple[str, bytes]] = []
        self._answers: set[str] = set()

    def draw(self, draw: random.Random) -> tuple[str, bytes]:
        """Damage a file: half of the time one that was damaged before."""
        if self.kept and draw.random() < 0.5:
            name, data = draw.choice(self.kept)
        else:
            name = draw.choice(sorted(self.whole))
            data = self.whole[name]
        return name, damaged(data, draw)

    def take(self, name: str, data: bytes, answer: str) -> None:
        """Keep a file whose answer is new."""
        words = _VARYING.sub("", answer)[:200]
        if words not in self._answers and len(data) <= _LARGEST:
            self._answers.add(words)
            self.kept.append((name, data))


def one(read: Callable[[str], object], name: str, data: bytes) -> tuple[str, str]:
    """Read a damaged file; what became of it, and what was said."""
    from cpikan.errors import InputError

    whole = Path(name).read_bytes()
    Path(name).write_bytes(data)
    started, told = time.process_time(), ""
    try:
        read(name)
        found = "read"
    except InputError as error:
        told = str(error)
        found = "refused" if told.isprintable() else "broke"
    except Exception as error:
        found, told = "broke", f"{type(error).__name__}: {error}"
    Path(name).write_bytes(whole)
    return ("hang" if time.process_time() - started > _SECONDS else found), told


def _child(kind: Kind | Document, work: Path, numbers: range, seed: int, pipe: int) -> None:
    """Read many files and write a line for each."""
    os.chdir(work)
    resource.setrlimit(resource.RLIMIT_DATA, (_MIB * 2**20, _MIB * 2**20))
    signal.alarm(600)
    corpus, read = Corpus({name: Path(name).read_bytes() for name in kind.targets(work)}), reader_of(kind)
    draw = random.Random(f"{seed} {kind.name} {numbers.start}")
    with os.fdopen(pipe, "w") as out:
        for number in numbers:
            name, data = corpus.draw(draw)
            found, told = one(read, name, data)
            corpus.take(name, data, f"{found} {told}")
            out.write(
                f"{number} {found} {told[:200] if found in OUTCOMES[2:] else ''}".encode("ascii", "backslashreplace")
                .decode()
                .replace("\n", " ")
                .replace("\r", " ")
                + "\n"
            )
            out.flush()


def run_kind(kind: Kind | Document, count: int, seed: int, first: int = 0) -> Counter[str]:
    """Damage files of a kind in children; one that ends early counts as a crash of its file."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="cpikan-fuzz-") as folder:
        kind.make(Path(folder))
        number, stop = first, first + count
        while number < stop:
            numbers = range(number, min(stop, number + _MANY))
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
                what = line.split(" ")[1]
                counts[what] += 1
                if what in OUTCOMES[2:]:
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
    kinds = [*DOCUMENTS, *(kind for kind in KINDS if kind.name.startswith("frames-"))]
    parser.add_argument("--count", type=int, default=20000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first file; results are kept where it is 0")
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in kinds])
    given = parser.parse_args()
    lines = []
    for kind in kinds:
        if given.only is None or kind.name in given.only:
            counts = run_kind(kind, given.count, given.seed, given.first)
            lines.append({"kind": kind.name, "files": given.count, **{name: counts[name] for name in OUTCOMES}})
            print(lines[-1], flush=True)
            if not given.first:
                keep(lines[-1])
    return int(any(line[name] for line in lines for name in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
