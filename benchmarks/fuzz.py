"""Damaged files, made by a seed: does every one end in one line, within its time and memory, with nothing half-written?

    python benchmarks/fuzz.py [--count 10000] [--seed 1] [--only KIND ...] [--work DIR] [--keep]

Every kind of file that is read (`fuzz_inputs.KINDS`) is changed in one place: bits flipped, cut, bytes swapped, doubled, zeroed
or replaced, numbers exchanged for absurd ones. The command line then reads it in a forked child whose processor time and memory
are limited. results/fuzz.csv has a line a kind: how many were read, refused in one line, and how many broke a promise. What
broke one is printed with its kind and number: ``--only KIND --first NUMBER --count 1 --keep`` makes the same file again. No
damaged file is kept in the repository.
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
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz_inputs import KINDS, Kind, make_inputs

RESULTS = Path(__file__).parent / "results" / "fuzz.csv"
PROMISES = ("fault", "traceback", "crash", "hang", "memory", "lines", "partial", "wrong")
SECONDS, MIB = 30, 1024
_HEAD = 600  # bytes: half of all changes fall into them
_PROGRESS = re.compile(r"[\w ]+ \[[#.]{20}\] ")  # of a run that took longer than two seconds, on a busy machine
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_ABSURD = (
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"4294967296",
    b"9223372036854775808",
    b"1e-320",
    b"9" * 30,
    b"7" * 5000,
    b"null",
)
_NESTED = (b"[" * 20000, b'{"a":' * 3000, b"[[[[")


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Change one thing of a file."""
    return draw.choice(_CHANGES)(bytearray(data), draw)


def _place(data: bytearray, draw: random.Random) -> int:
    return draw.randrange(max(1, min(len(data), _HEAD) if draw.random() < 0.5 else len(data)))


def _flip(data: bytearray, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        if data:
            data[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(data)


def _cut(data: bytearray, draw: random.Random) -> bytes:
    lengths = (_place(data, draw), draw.randrange(len(data) + 1), max(0, len(data) - draw.randrange(1, 9)))
    return bytes(data[: draw.choice(lengths)])


def _swap(data: bytearray, draw: random.Random) -> bytes:
    size, a, b = draw.choice((1, 2, 4, 8, 64)), _place(data, draw), _place(data, draw)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return bytes(data)


def _double(data: bytearray, draw: random.Random) -> bytes:
    at, size = _place(data, draw), draw.choice((1, 4, 16, 200))
    return bytes(data[: at + size] + data[at:])


def _fill(data: bytearray, draw: random.Random) -> bytes:
    at, size = _place(data, draw), draw.choice((1, 2, 4, 8, 40))
    data[at : at + size] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80", draw.randbytes(1))) * len(
        data[at : at + size]
    )
    return bytes(data)


def _number(data: bytearray, draw: random.Random) -> bytes:
    found = list(_NUMBER.finditer(bytes(data[:20000])))
    if not found:
        return _fill(data, draw)
    one = draw.choice(found)
    return bytes(data[: one.start()]) + draw.choice(_ABSURD) + bytes(data[one.end() :])


def _nest(data: bytearray, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return bytes(data[:at]) + draw.choice(_NESTED) + bytes(data[at:])


_Change = Callable[[bytearray, random.Random], bytes]
_CHANGES: tuple[_Change, ...] = (_flip, _flip, _cut, _swap, _double, _fill, _number, _number, _nest)


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged file: ``what`` is read, refused, or a broken promise; ``line`` the last line on stderr."""

    what: str
    line: str


def one(kind: Kind, inputs: Path, work: Path, number: int, seed: int) -> Outcome:
    """Damage a file of a kind by its number and the seed, and read it in a child."""
    draw = random.Random(f"{seed} {kind.name} {number}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(inputs / kind.name, work)
    target = work / draw.choice(kind.targets(work))
    target.write_bytes(damaged(target.read_bytes(), draw))
    there = _names(work)
    status, used_mib = _in_child(kind, work)
    lines = (work.parent / "stderr").read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    lines = [line for line in lines if not _PROGRESS.match(line)]
    told = lines[-1] if lines else ""
    return Outcome(_judged(kind, work, status, lines, used_mib, there), told)


def _names(work: Path) -> set[str]:
    return {str(path.relative_to(work)) for path in work.rglob("*")}


def _in_child(kind: Kind, work: Path) -> tuple[int, float]:
    """Run the command line in a child of its own; its exit status and how much memory it took at most."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(os.open(work.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.dup2(os.open(work.parent / "stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            signal.alarm(4 * SECONDS)  # for what waits without working
            code = kind.read(work)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, status, used = os.wait4(child, 0)
    return status, max(0, used.ru_maxrss - before) / 1024


def _judged(kind: Kind, work: Path, status: int, lines: list[str], used_mib: float, there: set[str]) -> str:
    """Name what became of a run; the first promise that was broken counts."""
    if os.WIFSIGNALED(status):
        return "hang" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL) else "crash"
    code = os.WEXITSTATUS(status)
    if code == 99 or any("Traceback" in line for line in lines):
        return "traceback"
    if code not in (0, 2):
        return "fault"
    if used_mib > MIB:
        return "memory"
    if code == 2:
        if len(lines) != 1 or not lines[0].startswith("cpikan: error: ") or not lines[0].isprintable():
            return "lines"
        return "refused" if kind.may_leave or _names(work) <= there else "partial"
    if any(not line.startswith("cpikan: ") for line in lines):
        return "lines"
    return "read" if kind.right(work) else "wrong"


def run_kind(kind: Kind, inputs: Path, numbers: range, seed: int, keep: Path | None = None) -> Counter[str]:
    """Damage a file for each number, print what broke a promise, and count."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="cpikan-fuzz-") as folder:
        work = Path(folder, "work")
        for number in numbers:
            outcome = one(kind, inputs, work, number, seed)
            counts[outcome.what] += 1
            if outcome.what in PROMISES:
                print(f"{outcome.what}: {kind.name} {number}: {outcome.line[:300]}", flush=True)
            if keep is not None:
                shutil.copytree(work, keep / f"{kind.name}-{number}", dirs_exist_ok=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000, help="damaged files over all kinds, by their weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first damaged file of a kind")
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in KINDS])
    parser.add_argument("--work", type=Path, help="where inputs are made (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep the damaged files under --work")
    given = parser.parse_args()
    chosen = [kind for kind in KINDS if given.only is None or kind.name in given.only]
    with tempfile.TemporaryDirectory(prefix="cpikan-fuzz-") as folder:
        inputs = (given.work or Path(folder)) / "inputs"
        make_inputs(inputs, chosen)
        total, lines = sum(kind.weight for kind in chosen), []
        for kind in chosen:
            numbers = range(given.first, given.first + max(1, round(given.count * kind.weight / total)))
            counts = run_kind(kind, inputs, numbers, given.seed, inputs.parent / "kept" if given.keep else None)
            lines.append(
                {"kind": kind.name, "files": len(numbers), **{w: counts[w] for w in ("read", "refused", *PROMISES)}}
            )
            print(lines[-1], flush=True)
    if given.only is None:
        with open(RESULTS, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    return int(any(line[name] for line in lines for name in PROMISES))


if __name__ == "__main__":
    sys.exit(main())
