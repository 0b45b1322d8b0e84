"""How often a test tries: few times in the suite, many in its long form (`benchmarks/reliability.py`)."""

from __future__ import annotations

import os


def times(short: int, long: int) -> int:
    """Give the number of tries of this run."""
    return long if os.environ.get("RELIABILITY") == "long" else short
