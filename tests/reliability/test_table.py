"""The table of the thirty tests names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"\| (\d+) \|.*\|([^|]*)\|")


def rows() -> dict[int, list[tuple[str, str]]]:
    """Read the table: the file and the name of each test, by number."""
    found = {}
    for line in (Path(__file__).parent / "README.md").read_text(encoding="utf-8").splitlines():
        row = ROW.fullmatch(line)
        if row is not None:
            found[int(row[1])] = re.findall(r"`([\w/]+\.py)::(\w+)`", row[2])
    return found


def test_the_table_has_thirty_rows_of_tests_that_are_there() -> None:
    table = rows()
    assert sorted(table) == list(range(1, 31))
    assert [number for number, tests in table.items() if not tests] == [10]  # a speed
    for file, name in {one for tests in table.values() for one in tests}:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
