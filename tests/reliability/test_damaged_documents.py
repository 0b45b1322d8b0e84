"""Texts that are read back, damaged by fixed seeds: recipes, limits, jobs, documents of maps, lists, ledgers, queues."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="damaged files are read in forked children")
def test_damaged_documents_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import fuzz_readers
from pathlib import Path
fuzz_readers.RESULTS = Path({str(tmp_path / "found.csv")!r})
names = [one.name for one in fuzz_readers.DOCUMENTS]
sys.argv = ["fuzz_readers", "--count", "60", "--seed", "5", "--only", *names]
sys.exit(fuzz_readers.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(tmp_path / "found.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 11
    assert all(int(line["read"]) + int(line["refused"]) == 60 for line in found)
    assert sum(int(line["refused"]) for line in found) > 100  # damage is seen
