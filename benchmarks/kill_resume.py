"""SIGKILL at random moments, then --resume: are the arrays those of an uninterrupted run, byte for byte?

    python benchmarks/kill_resume.py [--work DIR] [--shape 4096x4096] [--kills 20] [--seed 1]

Prints one line per kill and keeps them in results/kill_resume.csv. Exit code 1 when any array differs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ledger import command

RESULTS = Path(__file__).parent / "results" / "kill_resume.csv"
WAVES = ("5um", "5.5um", "6.05um", "6.655um")
# what is reconstructed, the form of the output, more options
CASES = (
    ("several", "npy", ("--all",)),
    ("several", "zarr", ()),
    ("several", "tif", ()),
    ("several", "npy", ("--remove", "piston,tilt")),
    ("one", "npy", ("--all",)),
    ("one", "zarr", ()),
)


@dataclass(frozen=True)
class Kill:
    """One line of the CSV: where the kill fell, and what came of it.

    ``killed_after_s`` and ``whole_s`` count from the journal's creation, ``resume_s`` is the whole process of the resume.
    """

    kill: int
    frames: str
    output: str
    megapixels: float
    killed_after_s: float
    stage: str
    rows_done: int
    rows: int
    resume_s: float
    whole_s: float
    byte_identical: bool


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an output but its document, which holds times."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "out.json"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def last_step(journal: Path) -> tuple[str, int]:
    """Stage and rows of the newest whole line of a journal."""
    lines = journal.read_bytes().split(b"\n")[1:-1]
    if not lines:
        return "calibration", 0
    step = json.loads(lines[-1].partition(b" ")[2])
    return step["stage"], int(step.get("rows", 0))


def begin(arguments: list[str], journal: Path) -> subprocess.Popen[bytes]:
    """Start a run; returns when its journal is there, just before calibration."""
    process = subprocess.Popen([sys.executable, "-m", "cpikan", *arguments], stdout=subprocess.DEVNULL)
    while not journal.exists() and process.poll() is None:
        time.sleep(0.001)
    return process


def finish(process: subprocess.Popen[bytes], journal: Path) -> tuple[float, float]:
    """Let a run end; seconds from now to its first finished rows, and to its end."""
    started = time.perf_counter()
    first = 0.0
    while process.poll() is None:
        if not first and journal.exists() and journal.read_bytes().count(b"\n") > 1:
            first = time.perf_counter() - started
        time.sleep(0.001)
    if process.returncode:
        raise SystemExit("the uninterrupted run failed")
    return first, time.perf_counter() - started


def kill_once(
    arguments: list[str], journal: Path, draw: random.Random, between_s: tuple[float, float]
) -> tuple[float, str, int]:
    """Start a run, kill it at a random moment of its work; seconds since the journal was there, and how far it was."""
    while True:
        process = begin(arguments, journal)
        delay = draw.uniform(*between_s)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL and journal.exists():
            return delay, *last_step(journal)
        shutil.rmtree(journal.parent)  # it was faster than that: once more
        journal.parent.mkdir()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for frames and outputs (default: a temporary one)")
    parser.add_argument("--shape", default="4096x4096")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        kills = run(Path(name), given.shape, given.kills, random.Random(given.seed))
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Kill)])
        writer.writeheader()
        writer.writerows(asdict(kill) for kill in kills)
    good = sum(kill.byte_identical for kill in kills)
    print(f"{good} of {len(kills)} resumed runs are byte-identical")
    return 0 if good == len(kills) else 1


def run(place: Path, shape: str, kills: int, draw: random.Random) -> list[Kill]:
    """All kills; the cases take turns."""
    command("simulate", place / "several", "--shape", shape, "--wavelength", *WAVES, "--seed", "1")
    command("simulate", place / "one", "--shape", shape, "--wavelength", "632.8nm", "--frames", "5", "--seed", "1")
    rows, columns = (int(part) for part in shape.split("x"))
    whole: dict[int, tuple[dict[str, str], float, float]] = {}
    found = []
    for number in range(kills):
        which = number % len(CASES)
        frames, suffix, options = CASES[which]
        base = ["reconstruct", str(place / frames), *options]
        if which not in whole:
            folder = place / f"whole{which}"
            folder.mkdir()
            log = folder / f"out.{suffix}.journal"
            times = finish(begin([*base, "-o", str(folder / f"out.{suffix}")], log), log)
            whole[which] = digests(folder), *times
            shutil.rmtree(folder)
        folder = place / "killed"
        folder.mkdir()
        wanted, first_s, busy_s = whole[which]
        output = folder / f"out.{suffix}"
        journal = folder / f"out.{suffix}.journal"
        # one kill in four anywhere, calibration included; the others where rows are under way
        between_s = (0.0 if number % 4 == 0 else first_s, busy_s)
        delay, stage, done = kill_once([*base, "-o", str(output)], journal, draw, between_s)
        started = time.perf_counter()
        command(*base, "-o", output, "--resume")
        resume_s = time.perf_counter() - started
        same = digests(folder) == wanted
        shutil.rmtree(folder)
        label = " ".join([suffix, *options])
        megapixels = rows * columns / 1e6
        kill = Kill(number + 1, frames, label, megapixels, delay, stage, done, rows, resume_s, busy_s, same)
        found.append(kill)
        print(
            f"{kill.kill:3d} {frames:8s} {label:28s} killed after {delay:5.2f} s in {stage:12s} row {done:5d} of {rows}, "
            f"resumed in {kill.resume_s:5.2f} s: {'identical' if same else 'DIFFERENT'}",
            flush=True,
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
