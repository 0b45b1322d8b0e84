"""Some of the damaged files of `benchmarks/fuzz.py`, by fixed seeds: each is read, or refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
FRAMES = "frames-npy frames-tif frames-png frames-png-16 frames-bmp frames-zarr-sharded frames-hdf5-gzip"
RECORDS = "acquisition-toml metropro map-npy map-tif map-zarr truth-npy compare-json journal document-resume"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="damaged files are read in forked children")
def test_damaged_files(tmp_path):
    kinds = f"{FRAMES} {RECORDS}"
    command = [
        sys.executable,
        FUZZ,
        "--count",
        "14",
        "--seed",
        "11",
        "--work",
        tmp_path,
        "--only",
        *kinds.split(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("'kind'") == len(kinds.split())
