"""A frame that was stored twice among five: told, and its step fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cpikan
from independent_frames import Scene
from small_stacks import FIVE_DEG, folder_of


@pytest.mark.parametrize(("first", "second"), [(1, 2), (0, 3)])
def test_the_map_is_right_and_the_frames_are_named(first: int, second: int, mirror: Scene, tmp_path: Path) -> None:
    frames = np.array(mirror.frames)
    frames[0, second] = frames[0, first]
    folder = folder_of(tmp_path / "stack", frames, waves_nm=(632.8,), steps_deg=FIVE_DEG)
    with cpikan.open_stack(folder) as stack:
        found = cpikan.reconstruct(stack, tmp_path / "out.npy", method="pixel", all_quantities=True, progress=False)
    assert found.summary["warning_names"][:2] == ["frames-identical", "steps-replaced"]
    assert f"{first + 1} and {second + 1} of wavelength 1 are identical" in found.summary["warnings"][0]
    error = np.asarray(found.height_nm[:]) - mirror.height_nm
    known = np.isfinite(error) & (np.asarray(found.flags[:]) == 0) & mirror.mask
    error = error[known] - np.median(error[known])
    # the surface is repaired to the noise of the frames that are left: 1 DN of 80, four of five frames, 50 nm a radian
    assert np.median(np.abs(error)) < 2.0
