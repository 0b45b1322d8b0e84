"""Figures in the documents: each is that of its CSV, no CSV is empty or unread, no document quotes one unmarked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import figures_table
    from inline_figures import figure, filled, problems, read_lines
finally:
    sys.path.remove(str(BENCHMARKS))

LINES = [
    {"case": "a one", "error": "1.5", "ok": "True"},
    {"case": "a two", "error": "0.123456", "ok": "False"},
    {"case": "b", "error": "", "ok": "True"},
]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("count", "3"),
        ("count;ok=True", "2"),
        ("count;ok=True&case=a*", "1"),
        ("max error;;nm", "1.5 nm"),
        ("min error;case=a*", "0.123"),
        ("value error;case=a two;%", "12.3 %"),
        ("sum error;ok=True", "1.5"),
        ("mean error", "0.812"),
    ],
)
def test_a_marker_asks_for_one_figure(asked: str, shown: str) -> None:
    assert figure(LINES, asked) == shown


@pytest.mark.parametrize("asked", ["value error", "max error;case=c", "value error;case=b"])
def test_a_figure_that_is_not_there_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match="lines for the figure"):
        figure(LINES, asked)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A document that shows a figure, and its CSV."""
    (tmp_path / "speed.csv").write_text("way,seconds\nnew,2.5\n")
    (tmp_path / "page.md").write_text("Run `speed.py`: <!--csv:speed:value seconds;;s-->9 s<!--/csv-->.\n")
    return tmp_path


def test_a_figure_follows_its_csv(house: Path) -> None:
    text = filled((house / "page.md").read_text(), house)
    assert text == "Run `speed.py`: <!--csv:speed:value seconds;;s-->2.5 s<!--/csv-->.\n"
    assert filled(text, house) == text


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("speed.csv", "way,seconds\n", "results/speed.csv has no line"),
        ("other.csv", "a\n1\n", "results/other.csv is read by nothing"),
        ("page.md", "<!--csv:speed:count-->1<!--/csv--> `other.py`", None),
        ("second.md", "`speed.csv`: 2.5 s", "second.md names speed and marks none"),
    ],
)
def test_what_is_not_complete_is_named(house: Path, name: str, text: str, told: str | None) -> None:
    assert list(problems(house, [house / "page.md"], [])) == []
    (house / name).write_text(text)
    found = list(problems(house, sorted(house.glob("*.md")), []))
    assert (len(found), told is None or found[0].startswith(told)) == (int(told is not None), True)


def test_a_table_that_a_script_fills_shows_its_csvs(house: Path) -> None:
    (house / "page.md").write_text("`speed.csv`\n<!-- fast:all:begin -->\n<!-- fast:all:end -->\n")
    assert len(list(problems(house, [house / "page.md"], []))) == 2
    script = house / "fast_docs.py"
    script.write_text("marks = '<!-- fast:all:begin -->'\nread('speed.csv')\n")
    assert list(problems(house, [house / "page.md"], [script])) == []


def test_the_documents_are_complete_and_up_to_date() -> None:
    documents = figures_table.DOCUMENTS
    scripts = [BENCHMARKS / "figures_table.py", *sorted(BENCHMARKS.glob("*_docs.py"))]
    assert list(problems(figures_table.RESULTS, documents, scripts)) == []
    for path in documents:
        text = path.read_text(encoding="utf-8")
        assert filled(text, figures_table.RESULTS) == text, f"{path.name}: run benchmarks/figures_table.py"
    assert read_lines(figures_table.RESULTS / "false_minima.csv")
