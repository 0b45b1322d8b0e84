"""The example of docs/how-to/tiling.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "tiling.md"


@pytest.mark.skipif(not GUIDE.is_file(), reason="docs/ is not beside the tests")
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    assert code is not None
    exec(compile(code[1], str(GUIDE), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.startswith("guaranteed by the receptive field 0.0 ")
