"""Damaged files of every format of heights, made by a seed: is every one read, or refused in one line that names it?

    python benchmarks/fuzz_formats.py [--count 20000] [--seed 1] [--only SUFFIX ...]

A small map is written in each format (`.nms` by hand), changed in one place (`fuzz.damaged`) and read whole, COUNT times a
format, in children of 500 files each whose processor time is limited. results/fuzz_formats.csv keeps a line a format: how
many were read, refused, and how many broke the promise: ``fault`` (another error, or one of ours behind the line), ``lines``,
``crash`` (with hangs), and the most memory that reading took. What broke it is printed with its number: ``--first NUMBER
--count 1`` makes the same file again.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import resource
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.maps.convert import convert_map
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.storage.formats import FORMATS
from fuzz import damaged

RESULTS = Path(__file__).parent / "results" / "fuzz_formats.csv"
KINDS = ("read", "refused", "fault", "lines", "crash")
BATCH, SECONDS = 500, 20
OURS = re.compile(r"\((NameError|AttributeError|AssertionError|UnboundLocalError|RecursionError)")


def inputs(folder: Path) -> dict[str, bytes]:
    """Write a small map in every format: its bytes by suffix, compressed Digital Surf and ASCII SDF besides."""
    rng = np.random.default_rng(7)
    heights = rng.normal(0, 300, (13, 17)).astype(np.float32)
    heights[2, 3:6] = np.nan
    acquisition = {"wavelengths_nm": [632.8], "pixel_um": [2.5, 2.5]}
    source = HeightMap(folder / "m.npy", {"height_nm": heights}, {"acquisition": acquisition})
    made = {}
    for known in FORMATS:
        if known.exporter is not None and known.heights is not None:
            path = folder / f"x{known.suffixes[0]}"
            convert_map(source, path)
            made[known.suffixes[0]] = path.read_bytes()
    head = bytearray(3468)
    struct.pack_into("<2d", head, 16, -1.0, 2.0)
    struct.pack_into("<2I2d", head, 1368, 17, 13, 500.0, 500.0)
    made[".nms"] = bytes(head) + rng.integers(0, 65536, 221).astype("<u2").tobytes()
    made["packed .sur"] = packed(made[".sur"])
    words = "\n".join(" ".join("BAD" if np.isnan(v) else f"{v:.5e}" for v in row) for row in heights)
    fields = (
        "NumPoints = 17\nNumProfiles = 13\nXscale = 1e-6\nYscale = 1e-6\nZscale = 1e-9\nCompression = 0\nDataType = 7\n"
    )
    made["ascii .sdf"] = f"aISO-1.0\n{fields}*\n{words}\n*\n".encode()
    return made


def packed(plain: bytes) -> bytes:
    data = [zlib.compress(plain[512:900]), zlib.compress(plain[900:])]
    lengths = struct.pack("<5I", 2, 388, len(data[0]), len(plain) - 900, len(data[1]))
    return b"DSCOMPRESSED" + plain[12:512] + lengths + b"".join(data)


def judged(path: Path) -> tuple[str, str]:
    """Read a file whole and name what became of it."""
    try:
        np.asarray(open_height_map(path).height_nm)
    except InputError as failure:
        told = str(failure)
        if OURS.search(told):
            return "fault", told
        return ("refused" if "\n" not in told and path.name in told else "lines"), told
    except Exception as failure:
        return "fault", f"{type(failure).__name__}: {failure}"
    return "read", ""


def batch(suffix: str, data: bytes, numbers: range, seed: int) -> tuple[Counter[str], float]:
    """Damage and read files in a child; what became of them, and the memory in MiB that it took besides its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        warnings.simplefilter("error")
        with tempfile.TemporaryDirectory() as folder, os.fdopen(write, "w") as out:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            path = Path(folder, "x" + suffix.split()[-1])
            for number in numbers:
                path.write_bytes(damaged(data, random.Random(f"{seed} {suffix} {number}")))
                what, told = judged(path)
                out.write(what + "\n")
                out.flush()
                if what not in ("read", "refused"):
                    print(f"{what}: {suffix} {number}: {told[:300]!r}", flush=True)
            out.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}\n")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as results:
        lines = results.read().split()
    os.waitpid(child, 0)
    counts = Counter(line for line in lines if line in KINDS)
    if counts.total() < len(numbers):
        counts["crash"] += 1
        print(f"crash: {suffix} {numbers.start + counts.total() - 1}", flush=True)
        more, mib = batch(suffix, data, range(numbers.start + counts.total(), numbers.stop), seed)
        return counts + more, mib
    return counts, int(lines[-1]) / 1024


def keep(line: dict[str, object]) -> None:
    """Put the line of a format in the place of the one that was there: a long run that is stopped leaves what it has."""
    with open(RESULTS, newline="", encoding="utf-8") as file:
        lines: dict[str, dict[str, object]] = {one["format"]: dict(one) for one in csv.DictReader(file)}
    lines[str(line["format"])] = line
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(line), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="+")
    given = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        made = inputs(Path(folder))
    for suffix, data in sorted(made.items(), key=lambda item: item[0] == ".datx"):  # the slowest last
        if given.only and suffix not in given.only:
            continue
        counts, most = Counter[str](), 0.0
        stop = given.first + given.count
        for start in range(given.first, stop, BATCH):
            found, mib = batch(suffix, data, range(start, min(start + BATCH, stop)), given.seed)
            counts, most = counts + found, max(most, mib)
        lines.append(
            {"format": suffix, "files": given.count, **{kind: counts[kind] for kind in KINDS}, "mib": f"{most:.0f}"}
        )
        print(lines[-1], flush=True)
        if not given.first:
            keep(lines[-1])
    return int(any(line[kind] for line in lines for kind in KINDS[2:]))


if __name__ == "__main__":
    sys.exit(main())
