"""``cpikan results``: rows asked for, tables, and the page of charts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cpikan.cli import main
from cpikan.fleet.results.store import ResultStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for number in range(12):
        value = None if number == 3 else 10.0 + number % 4
        verdict = "not measured" if value is None else "fail" if value > 12 else "pass"
        figures = {
            "wafer.bow_um": {"value": value, "low": None, "high": 12.0, "verdict": verdict},
            "reconstruct.n": {"value": 1.0},
        }
        row = {"key": f"{number:02d}", "name": f"w{number}", "lot": f"L{number // 4}", "tool": "=T1", "state": "done"}
        rows.append({**row, "verdict": verdict, "ended": f"2026-01-01T00:00:{number:02d}", "figures": figures})
    rows.append(
        {"key": "bad", "name": "bad<b>", "lot": "L2", "state": "dead", "reason": "cut off", "ended": "2026-01-02"}
    )
    store = ResultStore.open(tmp_path / "results.sqlite")
    store.put(rows)
    store.close()
    return tmp_path


def test_rows_are_asked_for_by_lot_and_verdict(folder: Path, capsys) -> None:
    asked = ["results", str(folder), "--lot", "L0,L1", "--verdict", "fail", "--figures", "wafer.bow_um"]
    assert main([*asked, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["name"], row["figures"]) for row in rows] == [("w7", {"wafer.bow_um": 13.0})]
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["w7", "L1", "done", "fail", "13"]


def test_tables_hold_every_row_and_no_formula(folder: Path, capsys) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    for name in ("t.csv", "t.parquet"):
        assert main(["results", str(folder), "--export", str(folder / name)]) == 0
    with open(folder / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    assert (rows[5]["name"], float(rows[5]["wafer.bow_um"]), rows[5]["tool"]) == ("w5", 11.0, "'=T1")
    assert rows[3]["wafer.bow_um"] == ""
    table = pq.read_table(folder / "t.parquet").to_pylist()
    assert [row["name"] for row in table] == [row["name"] for row in rows]
    assert table[3]["wafer.bow_um"] is None
    assert table[5]["wafer.bow_um"] == 11.0


def test_a_page_of_charts(folder: Path) -> None:
    page = folder / "bow.html"
    assert main(["results", str(folder), "--figures", "wafer.bow_um", "--chart", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "means and ranges of lots" in text
    assert "Cpk" in text
    assert "wafer.bow_um = 13" in text
    assert "bad&lt;b&gt;" in text
    assert "bad<b>" not in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--chart", "x.html"], "--chart needs --figures"),
        (["--figures", "wafer.bow_mm"], "did you mean 'wafer.bow_um'"),
        (["--export", "x.xlsx"], "ends in .xlsx"),
        (["--lot", "L9", "--figures", "wafer.bow_um", "--chart", "x.html"], "fewer than two wafers"),
        (["--figures", "wafer.bow_um", "--chart", "x.txt"], "suffix of other data"),
    ],
)
def test_bad_questions_are_one_line(folder: Path, more: list[str], said: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    assert main(["results", str(folder), *more]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert "\n" not in told


def test_no_database_is_made_by_a_question(tmp_path: Path, capsys) -> None:
    assert main(["results", str(tmp_path / "none.sqlite")]) == 2
    assert "holds no results" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
