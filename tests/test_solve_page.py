"""The page on solving: its program is as short as it says and solves its equation, and it names every stop reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cpikan.learning.recipes import Recipe
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.march import Level, March

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "solve.md").read_text(encoding="utf-8")


def program() -> list[str]:
    """The lines of the first program."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def test_the_program_is_short_and_solves_its_equation():
    lines = program()
    assert sum(bool(line.strip()) for line in lines) <= 15
    *setting, last = lines
    assert last.startswith("print(cpikan.solve(sine_gordon)")
    names: dict[str, Any] = {}
    exec("\n".join(setting), names)
    one_level = Recipe("one level", "", (), own=March(levels=(Level(1e-3, (8, 6)),)))
    found = solve(names["sine_gordon"], recipe=one_level, settings=SolveSettings(seconds=1e4))
    # coefficients are followed down to 1e-3 of the largest value; errors are below that, whatever the machine's speed
    assert found.metrics["relative_l2"] < 1e-3


def test_every_reason_has_a_line():
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {reason.name.lower() for reason in StopReason if reason is not StopReason.RUNNING}
