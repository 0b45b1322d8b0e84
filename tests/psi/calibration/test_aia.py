"""Phase steps from the frames themselves: as exact as noise allows, however uneven the light."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.psi.calibration.steps.aia import estimate_steps

SHAPE = (96, 128)


def make_frames(
    seed: int, steps_deg: tuple[float, ...], noise_dn: float, uneven: float = 0.3, fringes: float = 4.0
) -> np.ndarray:
    """Frames (K, P): a few fringes of tilt and bowl, background and modulation that vary over the field."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    a, b, c = rng.uniform(0.5, 1, 3) * rng.choice([-1, 1], 3)
    phase = np.pi * fringes * (a * x + b * y + c * (x * x + y * y) / 2)
    background = 110 * (1 + uneven * rng.uniform(-1, 1) * x - uneven * y * y)
    modulation = 60 * (1 - uneven * rng.uniform(-1, 1) * x * y - uneven * (x * x + y * y) / 2)
    frames = background + modulation * np.cos(phase + np.radians(steps_deg)[:, None, None])
    return (frames + rng.normal(0, noise_dn, frames.shape)).reshape(len(steps_deg), -1)


def off_deg(found: tuple[float, ...], true: tuple[float, ...]) -> float:
    return float(np.abs((np.subtract(found, true) + 180) % 360 - 180).max())


def predicted_deg(noise_dn: float) -> float:
    """Standard error of a step: sqrt(2 / P) sigma / B for each of the two frames it lies between, B about 45."""
    return float(np.degrees(np.sqrt(2) * np.sqrt(2 / (SHAPE[0] * SHAPE[1])) * noise_dn / 45))


step_lists = st.lists(st.floats(45, 130), min_size=5, max_size=10).map(
    lambda d: tuple(float(s) for s in np.concatenate([[0], np.cumsum(d)]))
)


@settings(max_examples=8, deadline=None)
@given(step_lists, st.integers(0, 999))
def test_six_or_more_frames_give_their_steps_blind(steps: tuple[float, ...], seed: int) -> None:
    places = np.sort(np.mod(steps, 360))
    # five places on the circle fix an ellipse, and frames almost on top of each other count as one
    assume((np.diff([*places, places[0] + 360]) > 20).sum() >= 5)
    noise = 1.5
    found = estimate_steps(make_frames(seed, steps, noise), None)
    true = np.array(steps)  # 0 < first step < 180 already: the sign is the convention's
    assert found.converged
    assert 0 < found.steps_deg[1] < 180
    assert all(0 <= step < 360 for step in found.steps_deg)
    # the shape of the ellipse rests on few degrees of freedom: some ten times the error of a single step; the light
    # correlates with cos phi a little where fringes are few
    assert off_deg(found.steps_deg, tuple(true)) < 12 * predicted_deg(noise) + 0.05


def test_error_is_that_of_the_noise_when_frames_are_many() -> None:
    steps = tuple(77.0 * k for k in range(9))
    rng = np.random.default_rng(0)
    clean = make_frames(9, steps, 0.0)
    errors = [estimate_steps(clean + rng.normal(0, 3.0, clean.shape), steps).steps_deg for _ in range(12)]
    scatter = np.std(((np.array(errors) - steps + 180) % 360 - 180)[:, 1:])
    # 96 values: their standard deviation is good to 8 %, the mean modulation used in the prediction to 20 %
    assert 0.6 * predicted_deg(3.0) < scatter < 1.5 * predicted_deg(3.0)


@pytest.mark.parametrize("seed", range(6))
def test_nominal_steps_fix_the_sign(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for sign in (1, -1):
        nominal = tuple(sign * 60.0 * k for k in range(7))
        true = tuple(float(s) for s in nominal + np.concatenate([[0], rng.uniform(-8, 8, 6)]))
        found = estimate_steps(make_frames(seed, true, 1.0), nominal)
        assert found.converged
        assert off_deg(found.steps_deg, true) < 12 * predicted_deg(1.0) + 0.05


@pytest.mark.parametrize("seed", range(6))
def test_three_and_four_frames_blind_lean_on_even_modulation(seed: int) -> None:
    """No residual tells their steps: the shape of the ellipse does, as far as modulation does not follow the phase."""
    rng = np.random.default_rng(seed)
    for count, allowed in ((3, 10.0), (4, 2.5)):
        steps = tuple(float(s) for s in np.concatenate([[0], np.cumsum(rng.uniform(60, 125, count - 1))]))
        found = estimate_steps(make_frames(seed, steps, 1.0, fringes=8.0), None)
        assert off_deg(found.steps_deg, steps) < allowed
        even = estimate_steps(make_frames(seed, steps, 0.3, uneven=0.0, fringes=8.0), None)
        assert off_deg(even.steps_deg, steps) < 0.5


@pytest.mark.parametrize("steps", [(0.0, 120.0, 240.0), (0.0, 90.0, 180.0, 270.0)])
def test_few_frames_keep_good_nominal_steps(steps: tuple[float, ...]) -> None:
    found = estimate_steps(make_frames(3, steps, 0.5), steps)
    assert off_deg(found.steps_deg, steps) < 0.1


def test_uneven_light_does_not_pass_for_a_shift() -> None:
    """Background that varies more than the fringes modulate: a common background would move the steps by degrees."""
    steps = (0.0, 83.0, 187.0, 265.0, 342.0, 431.0)
    found = estimate_steps(make_frames(5, steps, 0.3, uneven=0.8), None)
    assert off_deg(found.steps_deg, steps) < 0.2


def test_drift_of_the_light_level_is_taken_up() -> None:
    steps = tuple(60.0 * k for k in range(8))
    frames = make_frames(6, steps, 0.3) + np.linspace(0, 10, 8)[:, None]
    found = estimate_steps(frames, steps)
    # an offset per frame of 10 DN on 110: its part along the steps leaks into the background, not into the angles
    assert off_deg(found.steps_deg, steps) < 0.5


def test_frames_that_do_not_shift_are_refused() -> None:
    one = make_frames(1, (0.0,), 0.0)
    with pytest.raises(InputError, match="do not shift"):
        estimate_steps(np.repeat(one, 4, axis=0), None)


def test_conditioning_tells_bad_steps() -> None:
    good = estimate_steps(make_frames(1, tuple(60.0 * k for k in range(6)), 0.5), tuple(60.0 * k for k in range(6)))
    bad = estimate_steps(make_frames(1, (0.0, 4.0, 8.0, 12.0, 16.0), 0.5), (0.0, 4.0, 8.0, 12.0, 16.0))
    assert good.conditioning == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert bad.conditioning < 0.05
