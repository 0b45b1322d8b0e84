"""Tutorials, followed to the letter: every block of Python is run, one after the other, and holds what it asserts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
# without frames: those with frames compile kernels
RUN = ("flags-and-sigma", "many-boxes", "march", "thin-layer", "unknown-coefficient")


@pytest.mark.parametrize("name", RUN)
def test_a_tutorial_does_what_it_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"__name__": "tutorial"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{name}.md, block {number}", "exec"), known)
