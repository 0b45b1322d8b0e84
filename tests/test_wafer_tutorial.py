"""The tutorial from frames to a wafer report, run as it stands, on fewer pixels."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cpikan.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "wafer-report.md"


def test_at_most_five_commands_lead_from_frames_to_a_report(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8")
    commands = re.findall(r"^cpikan .+$", text, re.MULTILINE)
    assert len(commands) <= 5
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command.replace("700x700", "260x260"))[1:]
        assert main(words) == 0, command
    told = capsys.readouterr().out
    labels = re.findall(r"^(\w+) {2,}", text, re.MULTILINE)  # of the outputs that the page shows
    assert {"output", "pixels", "shape", "sites"} <= set(labels)
    assert all(
        re.search(rf"^{label} ", told, re.MULTILINE) for label in labels if label not in ("phase_steps", "pixel_size")
    )
    page = (tmp_path / "wafer.html").read_text(encoding="utf-8")
    rows = re.search(r"All sites(.*?)</table>", page, re.DOTALL)
    assert rows is not None
    assert rows[1].count("<tr") > 300  # sites of 26 x 8 mm on a wafer of 300 mm, and a head
    assert "SFQR" in rows[1]
