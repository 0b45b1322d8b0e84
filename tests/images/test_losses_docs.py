"""The page on losses: its program runs, its tables of configs are taken, and no loss is missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from cpikan.images.curriculum import Curriculum
from cpikan.images.losses import LOSSES, build_losses

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "losses.md").read_text(encoding="utf-8")


def table(name: str) -> dict[str, object]:
    found = re.search(rf"^    \[{name}\]\n((?:    .*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    return tomllib.loads(re.sub("^    ", "", found[1], flags=re.MULTILINE))


def test_the_program_runs() -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    exec(found[1], {})


def test_the_configs_are_taken() -> None:
    assert [(weight, loss.name) for weight, loss in build_losses(table("loss"))] == [
        (1.0, "supervised"),
        (0.5, "orders"),
        (1.0, "multiscale"),
    ]
    Curriculum(**table("curriculum"))  # type: ignore[arg-type]


def test_every_loss_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    assert {name for name, _ in rows} == set(LOSSES)
    words = {"truth": "truth", "frames": "frames", "joints": "pairs"}
    for name, needs in rows:
        assert {key for key, word in words.items() if word in needs} == set(LOSSES[name].needs)
