"""Faults that leave no trace: a stack with right settings has the same frames, so that nothing could tell.

docs/explanation/trust.md lists them with the argument; each is the equality of two stacks here.
"""

from __future__ import annotations

import numpy as np

WAVES_NM = (633.0, 612.0, 590.0)
STEPS = np.radians([0.0, 90.0, 180.0, 270.0])
Y, X = np.mgrid[:24, :30] / 24
HEIGHT_NM = 700 * X * Y + 90 * np.sin(5 * X)


def frames(height_nm, waves_nm, steps=STEPS, pistons=0.0):
    """Frames (L, K, H, W) by the formula of interference, without noise."""
    added = pistons if np.ndim(pistons) == 4 else np.reshape(pistons, (-1, 1, 1, 1))
    phase = 4 * np.pi * height_nm / np.reshape(waves_nm, (-1, 1, 1, 1)) + added
    return 110 + 60 * np.cos(phase + np.reshape(steps, (1, -1, 1, 1)))


def same(one, other):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_a_scale_that_all_wavelengths_share_is_that_of_the_surface():
    longer = [1.003 * wave for wave in WAVES_NM]
    same(frames(1.003 * HEIGHT_NM, longer), frames(HEIGHT_NM, WAVES_NM))


def test_all_frames_reversed_are_those_of_the_surface_upside_down():
    """But for a piston of -270 deg, the last step, which no map has."""
    same(frames(HEIGHT_NM, WAVES_NM)[:, ::-1], frames(-HEIGHT_NM, WAVES_NM, pistons=-STEPS[-1]))


def test_of_two_wavelengths_either_may_be_the_reversed_one():
    """The first reversed is the second reversed of the surface upside down, but for the pistons of those that run back."""
    first, second = frames(HEIGHT_NM, WAVES_NM[:2]), frames(-HEIGHT_NM, WAVES_NM[:2], pistons=[-STEPS[-1]] * 2)
    first[0], second[1] = first[0, ::-1].copy(), second[1, ::-1].copy()
    same(first, second)


def test_of_two_wavelengths_either_may_be_the_one_that_is_off():
    """The second 0.3 % longer than told, or the first 0.3 % shorter and all heights too."""
    told = np.array(WAVES_NM[:2])
    same(frames(HEIGHT_NM, told * [1, 1.003]), frames(HEIGHT_NM / 1.003, told / [1.003, 1]))


def test_of_two_wavelengths_either_may_have_the_smooth_error():
    """Defocus of the second is minus as much defocus of the first, on a surface that is bent by it."""
    bow = 0.2 * (X * X + Y * Y)
    none = np.zeros_like(bow)
    bent = HEIGHT_NM + bow * WAVES_NM[1] / (4 * np.pi)
    second = frames(HEIGHT_NM, WAVES_NM[:2], pistons=np.stack([none, bow])[:, None])
    first = frames(bent, WAVES_NM[:2], pistons=np.stack([-bow * WAVES_NM[1] / WAVES_NM[0], none])[:, None])
    same(second, first)


def test_a_paraboloid_that_moved_between_wavelengths_is_one_that_tilted():
    """But for a piston of its own."""
    height, moved = 400 * (X * X + 0.6 * Y * Y), 400 * ((X - 0.02) ** 2 + 0.6 * Y * Y)
    shifted = frames(np.stack([height, moved])[:, None], WAVES_NM[:2])
    tilt = 4 * np.pi * 400 * np.stack([0 * X, 0.02**2 - 0.04 * X])[:, None] / WAVES_NM[1]
    same(shifted, frames(height, WAVES_NM[:2], pistons=tilt))


def test_a_plateau_one_repeat_higher_has_the_same_phases():
    """633 and 612 nm are 211 and 204 times 3 nm: 204 half waves of one are 211 of the other."""
    repeat_nm = 204 * 633.0 / 2
    plateau = HEIGHT_NM + repeat_nm * (X > 0.6)
    same(frames(plateau, WAVES_NM[:2]), frames(HEIGHT_NM, WAVES_NM[:2]))


def test_three_frames_fit_any_steps():
    """Three numbers of a pixel are background, modulation and phase, whatever the steps are."""
    taken = frames(HEIGHT_NM, WAVES_NM[:1], np.radians([0.0, 80.0, 170.0]))[0].reshape(3, -1)
    for told in ((0.0, 90.0, 180.0), (0.0, 120.0, 240.0)):
        design = np.stack([np.ones(3), np.cos(np.radians(told)), -np.sin(np.radians(told))], axis=1)
        same(design @ np.linalg.solve(design, taken), taken)
