"""The page for those who come from other packages: its programs run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "from-other-packages.md"


def test_the_programs_run_and_hold_what_they_assert(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 9
    names: dict[str, Any] = {}
    # as long as it takes: a busy machine must not change what is found
    exec(re.sub(r"seconds=20", "seconds=1e4", "\n".join(blocks)), names)
    assert {path.name for path in tmp_path.iterdir()} == {"rod.json", "rod.safetensors"}
    assert names["values"].shape == (2, 1)
    assert len(names["figure"].axes) == 4


def test_every_concept_has_a_name_here():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 12
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5
        assert cells[-1] not in ("", "–"), row
