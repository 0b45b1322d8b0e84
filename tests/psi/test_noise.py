"""The noise fit recovers what was planted, within its own standard error."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.psi.model.noise import fit_noise, noise_from_neighbours

STEPS = (0.0, 90.0, 180.0, 270.0)


def make_frames(
    seed: int,
    read_dn: float,
    gain_dn: float,
    steps: tuple[float, ...] = STEPS,
    pixels: int = 20_000,
    quantum: bool = False,
) -> np.ndarray:
    """Frames (K, P) over backgrounds of 40 to 160 DN."""
    rng = np.random.default_rng(seed)
    background = rng.uniform(40, 160, pixels)
    clean = background + 0.6 * background * np.cos(rng.uniform(0, 6.3, pixels) + np.radians(steps)[:, None])
    frames = clean + rng.normal(0, 1, clean.shape) * np.sqrt(read_dn**2 + gain_dn * np.maximum(clean, 0))
    return np.rint(frames) if quantum else frames


@pytest.mark.parametrize("steps", [STEPS, (0.0, 40.0, 95.0, 180.0, 260.0), tuple(60.0 * k for k in range(12))])
@pytest.mark.parametrize(("read_dn", "gain_dn"), [(2.0, 0.0), (3.0, 0.1), (1.0, 0.25)])
def test_read_noise_and_gain_are_recovered(read_dn: float, gain_dn: float, steps: tuple[float, ...]) -> None:
    model = fit_noise(make_frames(1, read_dn, gain_dn, steps), steps, 0.0)
    dof = len(steps) - 3
    # RSS / dof scatters by variance sqrt(2 / dof); over 20 000 pixels on 40 to 160 DN a straight line through it has at its
    # middle the error e = variance sqrt(2 / dof / P), and in slope e / 35 (the spread of uniform backgrounds); bins and
    # weights cost little. Four standard errors.
    level = read_dn**2 + 100 * gain_dn
    error = level * np.sqrt(2 / dof / 20_000)
    assert model.variance(np.array(100.0)) == pytest.approx(level, abs=5 * error)
    assert model.gain_dn == pytest.approx(gain_dn, abs=5 * error / 35)
    assert model.read_dn2 == pytest.approx(read_dn**2, abs=5 * error * 100 / 35 + 1e-9)
    assert (model.source, model.pixels) == ("residuals", pytest.approx(20_000, rel=2e-3))


def test_a_few_broken_pixels_do_not_matter() -> None:
    frames = make_frames(2, 2.0, 0.0)
    clean = fit_noise(frames, STEPS, 0.0)
    frames[1, :200] += 500.0  # one pixel in a hundred jumped
    frames[2, 200:230] = np.nan
    broken = fit_noise(frames, STEPS, 0.0)
    # the clip at 30 times the median leaves all but 2e-4 of a chi squared of one degree of freedom
    level = clean.variance(np.array(100.0))
    assert broken.variance(np.array(100.0)) == pytest.approx(level, rel=0.03)


def test_quantisation_is_part_of_the_noise_and_its_floor() -> None:
    noisy = fit_noise(make_frames(3, 2.0, 0.0, quantum=True), STEPS, 1.0)
    assert noisy.variance(np.array(100.0)) == pytest.approx(4 + 1 / 12, rel=0.06)
    silent = fit_noise(make_frames(3, 0.0, 0.0, quantum=True), STEPS, 1.0)
    assert silent.variance(np.array(100.0)) == pytest.approx(1 / 12, rel=0.06)
    still = fit_noise(np.full((4, 100), 7.0), STEPS, 1.0)
    assert still.read_dn2 == 1 / 12


def test_three_frames_take_it_from_neighbours() -> None:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[0:8, 0:3000]
    phase = 2 * np.pi * (x / 80 + y / 60)
    rows = 100 + 50 * np.cos(phase + np.radians([0, 120, 240])[:, None, None]) + rng.normal(0, 2, (3, 8, 3000))
    rows[:, 3, 500:520] = 900.0  # a scratch: two edges
    rows[:, 5, 100] = np.nan
    model = noise_from_neighbours(rows, 0.0)
    # fringes of 80 pixels have second differences of 50 (2 pi / 80)^2 / sqrt 2 = 0.22 DN: 0.2 % of 6 * 4; the median of
    # 72 000 correlated values scatters by about 1 %
    assert model.read_dn2 == pytest.approx(4.0, rel=0.05)
    assert model.gain_dn == 0
    assert model.source == "neighbours"


def test_neighbours_of_nothing_give_the_floor() -> None:
    assert noise_from_neighbours(np.full((3, 2, 50), 9.0), 1.0).read_dn2 == 1 / 12
    assert noise_from_neighbours(np.full((3, 2, 2), np.nan), 1.0).read_dn2 == 1 / 12


def test_variance_never_falls_below_the_read_noise() -> None:
    model = fit_noise(make_frames(6, 2.0, 0.1), STEPS, 0.0)
    assert model.variance(np.array([-50.0, 0.0])).tolist() == [model.read_dn2, model.read_dn2]
