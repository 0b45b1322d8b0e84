"""The citation file: what its format 1.2.0 requires, and the version of the package."""

from __future__ import annotations

import re
from pathlib import Path

from cpikan.version import VERSION

TEXT = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")


def test_required_keys_and_the_version() -> None:
    keys = re.findall(r"^([a-z-]+):", TEXT, re.MULTILINE)
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(keys)
    assert len(keys) == len(set(keys))
    assert re.search(rf"^version: {re.escape(VERSION)}$", TEXT, re.MULTILINE)
    assert re.search(r"^cff-version: 1\.2\.0$", TEXT, re.MULTILINE)
    assert "\t" not in TEXT
