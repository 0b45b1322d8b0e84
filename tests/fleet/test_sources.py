"""Stacks of a batch: what is found in folders, patterns, lists and tables, and how each is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.fleet.identity import Pattern
from cpikan.fleet.sources import find_sources
from small_stacks import folder_of


@pytest.fixture
def lots(tmp_path: Path) -> Path:
    frames = np.zeros((1, 5, 4, 4), np.uint8)
    for name in ("A/w10", "A/w2", "B/w1"):
        folder_of(tmp_path / "lots" / name, frames)
    np.save(tmp_path / "lots" / "B" / "single.npy", frames)
    (tmp_path / "lots" / "B" / "notes.txt").write_text("none of ours")
    (tmp_path / "lots" / ".hidden").mkdir()
    np.save(tmp_path / "lots" / ".hidden" / "w.npy", frames)
    np.save(tmp_path / "lots" / "made.npy", frames[0, 0])
    (tmp_path / "lots" / "made.json").write_text("{}")
    return tmp_path / "lots"


def names(given: list[str]) -> list[str]:
    return [one.name for one in find_sources(given, {})]


def test_a_folder_is_searched_in_natural_order_and_maps_of_ours_are_no_stacks(lots: Path) -> None:
    assert names([str(lots)]) == ["A/w2", "A/w10", "B/single", "B/w1"]
    assert names([str(lots / "A" / "w2")]) == ["w2"]
    assert names([str(lots / "B" / "single.npy"), str(lots / "A")]) == ["single", "w2", "w10"]


def test_patterns_name_stacks_after_what_varies(lots: Path) -> None:
    assert names([f"{lots}/*/w*"]) == ["A/w2", "A/w10", "B/w1"]
    assert names([f"{lots}/B/*.npy"]) == ["single"]


def test_lists_and_tables_start_where_they_lie(lots: Path) -> None:
    (lots / "todo.txt").write_text("# two\nA/w2\n\nB/single.npy\n")
    assert names([str(lots / "todo.txt")]) == ["A/w2", "B/single"]
    (lots / "todo.csv").write_text('source,Lot,name,slot\nA/w2,L1,first,7\nB/w1,,"../up/2nd one",\n')
    found = find_sources([str(lots / "todo.csv")], {"tool": "T", "lot": "all"}, Pattern.parsed("{lot}/{wafer}"))
    assert [one.name for one in found] == ["first", "up/2nd_one"]
    assert found[0].identity == {"tool": "T", "lot": "L1", "wafer": "w2", "slot": "7"}
    assert found[1].identity == {"tool": "T", "lot": "B", "wafer": "w1"}
    assert Path(found[0].path) == lots / "A" / "w2"


def test_the_same_stack_twice_is_one_and_two_of_a_name_are_refused(lots: Path) -> None:
    assert names([str(lots / "A"), str(lots / "A" / "w2")]) == ["w2", "w10"]
    folder_of(lots / "C" / "w2", np.zeros((1, 5, 4, 4), np.uint8))
    with pytest.raises(InputError, match="would both be called 'w2'"):
        find_sources([str(lots / "A" / "w2"), str(lots / "C" / "w2")], {})


def test_links_do_not_lead_round_in_circles(lots: Path) -> None:
    (lots / "A" / "up").symlink_to(lots, target_is_directory=True)
    assert names([str(lots / "A")]) == ["w2", "w10"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("a.csv", "path,lot\nx,y\n", "unknown column"),
        ("a.csv", "lot\ny\n", "no column 'source'"),
        ("a.csv", "source,lot\n,y\n", "row 2 of .* no source"),
        ("a.csv", "source,name\nx,../..\n", "gives no name"),
        ("a.txt", "", "holds no stack"),
    ],
)
def test_bad_lists_are_refused_in_one_line(tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=said) as refused:
        find_sources([str(tmp_path / file)], {})
    assert "\n" not in str(refused.value)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    for given, said in (("nowhere", "does not exist"), ("no*where", "does not exist"), ("empty", "holds no stack")):
        with pytest.raises(InputError, match=said):
            find_sources([str(tmp_path / given)], {})
    with pytest.raises(InputError, match="no UTF-8 text"):
        find_sources([str(tmp_path / "binary.txt")], {})
