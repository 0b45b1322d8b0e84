"""The first two tutorials, followed to the letter: every command and block is run, and gives the figures of the pages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.cli import main

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
_NUMBER = r"-?\d+\.?\d*(?:e[-+]?\d+)?"
_ALIKE = 2e-2  # figures are of another machine: its last digits, and 0.98 to 1.02 of what noise alone leaves


def parts(name: str) -> list[tuple[str, str]]:
    """Give the code of a page in order, by language; outputs have none."""
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def numbers(line: str) -> list[float]:
    return [float(one) for one in re.findall(_NUMBER, line)]


def check_shown(shown: str, told: str, apart: tuple[str, ...] = ()) -> None:
    """Every line that a page shows was told, by its first word, with the same numbers; ``apart`` differ by machine."""
    for line in shown.strip().splitlines():
        label = line.strip().split("  ")[0]
        if label in apart:
            continue
        found = [one for one in told.splitlines() if re.match(rf"\s*{re.escape(label)}(\s|$)", one)]
        assert found, f"{label!r} is shown and was not told:\n{told}"
        assert numbers(found[-1]) == pytest.approx(numbers(line), rel=_ALIKE), line


def run_python(block: str, known: dict[str, Any], told: Any) -> None:
    """Run a block; numbers in the comments behind its prints are those that it printed."""
    exec(compile(block, "tutorial", "exec"), known)
    said = [line for line in told().splitlines() if line.strip()]
    prints = [line for line in block.splitlines() if line.startswith("print(")]
    assert len(said) == len(prints)
    for line, out in zip(prints, said, strict=True):
        comment = line.partition("#")[2]
        if comment and "to" not in comment.split():
            assert numbers(out) == pytest.approx(numbers(comment), rel=_ALIKE), line


def test_the_first_map_is_that_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"__name__": "tutorial"}
    told, seen = "", []
    for language, block in parts("first-map"):
        if language == "python":
            run_python(block, known, lambda: capsys.readouterr().out)
        elif language == "toml":
            written = (tmp_path / "wafer" / "acquisition.toml").read_text(encoding="utf-8")
            assert [" ".join(line.split()) for line in block.splitlines()] == [
                " ".join(line.split()) for line in written.splitlines() if line.strip() and not line.startswith("#")
            ][: len(block.splitlines())]
        elif language == "sh":
            for words in commands(block):
                assert words[0] == "cpikan"
                if "frames/" in words:
                    own_frames(tmp_path / "frames")
                assert main(words[1:]) == 0, words
                seen.append(words[1])
            told = capsys.readouterr().out
        else:
            check_shown(block, told, apart=("time",))
    assert seen == ["simulate", "info", "reconstruct", "evaluate", "evaluate", "compare", "reconstruct"]
    assert {"frames", "wavelengths", "phase steps"} <= {
        line.split("  ")[0] for line in told_of_info(tmp_path, capsys).splitlines()
    }
    assert (tmp_path / "mirror.html").stat().st_size > 10_000
    assert np.isfinite(np.load(tmp_path / "mirror.npy")).sum() > 0.9 * np.pi * 225**2


def told_of_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["info", str(folder / "wafer")]) == 0
    return capsys.readouterr().out


def own_frames(folder: Path) -> None:
    """Write five images of a mirror, a quarter wave apart, as a user's own."""
    folder.mkdir()
    y, x = np.mgrid[:600, :800]
    phase = 2e-4 * ((x - 390.0) ** 2 + (y - 295.0) ** 2)
    random = np.random.default_rng(1)
    for step in range(5):
        light = 120 + 80 * np.cos(phase + step * np.pi / 2 + 0.03 * step) + random.normal(0, 1.5, phase.shape)
        np.save(folder / f"frame_{step}.npy", np.clip(np.rint(light), 0, 255).astype(np.uint8))


def test_the_first_equations_are_solved_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"__name__": "tutorial"}
    found = []
    for language, block in parts("first-equation"):
        if language == "python":
            exec(compile(block, "tutorial", "exec"), known)
            found.append(known["solution"].metrics["relative_l2"])
        elif language == "sh":
            for words in commands(block):
                assert main(words[1:]) == 0, words
            told = capsys.readouterr().out
        else:
            labels = [line.split("  ")[0] for line in block.strip().splitlines()]
            assert [label for label in labels if re.search(rf"^{label}  ", told, re.MULTILINE)] == labels
            error = next(line for line in told.splitlines() if line.startswith("error"))
            assert numbers(error)[0] < 1e-6  # the last network may not have been ready in time
    assert (tmp_path / "solution.png").stat().st_size > 10_000
    assert found[0] < 1e-11
    assert found[1] < 1e-3  # what ten seconds are good for depends on the machine
