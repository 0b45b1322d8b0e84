"""docs/tutorials/many-wafers.md, literally: its commands give what stands under them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "many-wafers.md"
NUMBER = re.compile(r"\d+\.\d+")


def test_the_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    shown: list[str] = []
    told: list[str] = []
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "cpikan"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cpikan "$@"\n')
    command.chmod(0o755)
    around = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for kind, text in re.findall(r"```(sh|toml|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if kind == "toml":
            (tmp_path / "recipe.toml").write_text(text)
        elif kind == "text":
            shown += text.splitlines()
        else:
            done = subprocess.run(
                ["bash", "-ec", text], cwd=tmp_path, env=around, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            told += [line for line in done.stdout.splitlines() if "frames 4 x 4" not in line]
    told.sort(), shown.sort()  # rows come in the order in which they ended, and two end at a time
    assert [NUMBER.sub("", line) for line in told] == [NUMBER.sub("", line) for line in shown]
    # heights of simulated frames agree between processors to far more than the digits that are shown differ
    wanted, found = ([float(one) for line in lines for one in NUMBER.findall(line)] for lines in (shown, told))
    assert found == pytest.approx(wanted, rel=1e-3)
    assert (tmp_path / "rms.html").read_text(encoding="utf-8").count("means and ranges of lots") == 1
    assert (tmp_path / "failed.csv").read_text().count("\n") == 2
