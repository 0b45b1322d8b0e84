"""A counter that was burnt into three frames, which do not betray it: it is found, told and left out, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cpikan
from cpikan.pipeline.stacks.burnt import find_text
from cpikan.psi.model.acquisition import Acquisition
from independent_frames import Faults, Scene, make_scene
from small_stacks import folder_of

STEPS_DEG = (0.0, 120.0, 240.0)
QUIET = Faults(read_noise=0.004, background=0.1, modulation=0.1, fringes=4.0)
# rows of five pixels, from the top
DIGITS = ("01110 10001 10001 10001 01110", "00100 01100 00100 00100 01110", "11110 00001 00110 01000 11111")
TOP, LEFT = 20, 30


def written(frames: np.ndarray, value: int, *, moving: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Frames with a number of three digits in each, another one per frame, and where any of them has ink (H, W)."""
    frames, ink = np.array(frames), np.zeros(frames.shape[2:], bool)
    for n, frame in enumerate(frames.reshape(-1, *frames.shape[2:])):
        for place in range(3):
            bits = np.array([[bit == "1" for bit in row] for row in DIGITS[(n * moving + place) % 3].split()])
            glyph = np.kron(bits, np.ones((3, 3), bool))
            here = (slice(TOP, TOP + 15), slice(LEFT + 18 * place, LEFT + 18 * place + 15))
            frame[here][glyph] = value
            ink[here] |= glyph
    return frames, ink


def scene_of(bits: int, waves: tuple[float, ...] = (632.8,)) -> Scene:
    return make_scene(6, (96, 160), waves, STEPS_DEG, Faults(**{**vars(QUIET), "bits": bits}))


def text_in(frames: np.ndarray) -> np.ndarray:
    """Where text is found (H, W)."""
    waves = tuple(500.0 + 20 * i for i in range(len(frames)))
    found = find_text(cpikan.FrameStack.from_array(frames, Acquisition(waves, None, "unknown")))
    mask = found.without(None)
    return np.zeros(frames.shape[2:], bool) if mask is None else mask.rows(0, frames.shape[2], frames.shape[3]) == 0


@pytest.mark.parametrize(("bits", "value"), [(8, 128), (8, 60), (8, 200), (12, 2000), (12, 1000)])
def test_all_of_the_ink_lies_in_what_is_left_out(bits: int, value: int) -> None:
    frames, ink = written(np.array(scene_of(bits).frames), value)
    found = text_in(frames)
    assert found[ink].mean() > 0.97  # but for the end of a letter, where its value is nearly that of the fringes
    assert found.mean() < 0.25
    box = np.zeros_like(found)
    box[TOP - 20 : TOP + 40, LEFT - 24 : LEFT + 80] = True
    assert not found[~box].any()


@pytest.mark.parametrize("bits", [8, 12])
def test_frames_without_moving_text_hold_none(bits: int) -> None:
    """Plain fringes; still text and a dark rim; a step with hardly any noise; noise that is clipped at black; dense fringes."""
    top = 2**bits - 1
    plain = np.array(scene_of(bits).frames)
    still, _ = written(plain, top // 2, moving=False)
    still[..., 60:75, 100:120] = 0
    still[..., :20] = 0
    y, x = np.mgrid[:96, :160]
    rng = np.random.default_rng(2)
    phase = {"step": 0.05 * x + 2.0 * (x > 83) + 0.02 * y, "dense": 2.4 * x + 0.3 * y}
    made = {
        name: np.array([[0.45 + 0.4 * np.cos(one + 2 * np.pi * k / 3) for k in range(3)]])
        for name, one in phase.items()
    }
    dark = 0.03 + 0.04 * rng.normal(size=plain.shape)
    dark[..., 30:60, 40:120] += 0.5 * made["step"][..., 30:60, 40:120]
    for name, frames in [*made.items(), ("dark", dark)]:
        counts = np.clip(np.rint(top * frames), 0, top).astype(plain.dtype)
        assert not text_in(counts).any(), name
    assert not text_in(plain).any()
    assert not text_in(still).any()


@pytest.mark.parametrize(("waves", "method"), [((632.8,), "auto"), ((600.0, 620.0, 660.0), "pixel")])
def test_the_map_is_right_outside_and_says_where_the_text_is(
    waves: tuple[float, ...], method: str, tmp_path: Path
) -> None:
    scene = scene_of(8, waves)
    frames, ink = written(np.array(scene.frames), 128)
    folder = folder_of(tmp_path / "stack", frames, waves_nm=waves, steps_deg=STEPS_DEG)
    with cpikan.open_stack(folder) as stack:
        found = cpikan.reconstruct(stack, tmp_path / "out.npy", method=method, all_quantities=True, progress=False)
    assert "text-in-frames" in found.summary["warning_names"]
    said = found.summary["warnings"][found.summary["warning_names"].index("text-in-frames")]
    assert "switch the overlay of the camera off" in said
    height = np.asarray(found.height_nm[:])
    assert np.isnan(height[ink]).all()
    error = height - scene.height_nm
    error -= np.nanmedian(error)
    assert np.isfinite(error).mean() > 0.75
    assert np.nanmax(np.abs(error)) < 30
