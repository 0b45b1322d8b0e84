"""A surface fitted to two frames from the command line: killed at the first bands, it goes on to the same bytes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.storage.scratch import ScratchArrays
from forked import exit_code_of_fork
from small_stacks import contents, folder_of, leftovers


def _kill_at_third_band(*arguments: str) -> None:
    """Run the command line, and kill the process when the third band of the scratch files is written: nothing is tidied up."""
    write, count = ScratchArrays.write_rows, [0]

    def counted(self: ScratchArrays, *args: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, *args, **named)

    ScratchArrays.write_rows = counted  # type: ignore[method-assign]
    main(arguments)


def _frames() -> np.ndarray:
    """Two frames of 2.5 fringes under uneven light."""
    y, x = np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 160), indexing="ij")
    phase = 4 * x + 2.5 * y + 1.5 * (x**2 + y**2) + 0.8 * x * y
    rng = np.random.default_rng(4)
    rows = [118 + 14 * x - 9 * y + (78 + 8 * x) * np.cos(phase + step) for step in (0.0, 1.25)]
    return np.round(np.array(rows) + rng.normal(0, 2.5, (2, 120, 160))).astype(np.uint8)[None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork is killed")
def test_a_killed_fit_goes_on_to_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = folder_of(tmp_path / "two", _frames(), (632.8,), None)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    base = ["reconstruct", str(stack), "--method", "field", "--all", "--band-rows", "16", "--threads", "1", "--json"]
    assert main([*base, "-o", str(whole / "out.npy")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["steps_by"] == "frames fit"
    # the sigma that is written contains what the pixels share; it is larger towards the rim
    shared = summary["field_fit"]["sigma_nm_median"]
    assert float(np.nanmin(np.load(whole / "out.sigma.npy"))) > 0.3 * shared > 0
    assert float(np.nanmedian(np.load(whole / "out.sigma.npy"))) > 0.9 * shared
    # the fit itself is known to the fork: what is killed is the pass over the frames
    assert exit_code_of_fork(lambda: _kill_at_third_band(*base, "-o", str(parts / "out.npy"))) == -signal.SIGKILL
    assert not (parts / "out.npy").exists()
    assert main([*base, "-o", str(parts / "out.npy"), "--resume"]) == 0
    wanted, found = contents(whole, "out"), contents(parts, "out")
    assert wanted.keys() == found.keys()
    assert [name for name in found if found[name] != wanted[name]] == []
    assert leftovers(parts) == []
