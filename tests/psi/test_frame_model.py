"""The forward model of the frames: columns and weights against the formula written out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cpikan.psi.model.frame_model import FrameModel, fringe_columns


@given(st.integers(0, 2**32 - 1), st.sampled_from([(), (2,), (2, 3)]))
def test_columns_times_coefficients_are_the_frames(seed, harmonics):
    rng = np.random.default_rng(seed)
    steps, background = rng.uniform(0, 7, (2, 3, 9)), rng.uniform(50, 90)
    amplitude, phase = rng.uniform(1, 20, 1 + len(harmonics)), rng.uniform(-3, 3, 1 + len(harmonics))
    coefficients = [background]
    expected = np.full(steps.shape, background)
    for order, b, phi in zip((1, *harmonics), amplitude, phase, strict=True):
        coefficients += [b * np.cos(phi), b * np.sin(phi)]
        expected = expected + b * np.cos(phi + order * steps)
    # sums of at most 7 numbers of at most 90
    np.testing.assert_allclose(fringe_columns(steps, harmonics) @ coefficients, expected, rtol=0, atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_the_weights_of_a_pixel_bring_back_what_its_frames_were_made_of(seed):
    rng = np.random.default_rng(seed)
    k = 7
    steps, tilt = np.arange(k) * 1.3 + rng.normal(0, 0.1, k), rng.normal(0, 2e-3, (k, 2))
    defocus, gain, offset = rng.normal(0, 1e-6, k), rng.uniform(0.8, 1.2, k), rng.normal(0, 3, k)
    model = FrameModel(steps, tilt, defocus, gain, offset, (20.0, 30.0), harmonics=(2,))
    y, x, phase = 45.0, 11.0, rng.uniform(-3, 3)
    delta = steps + tilt @ [y - 20, x - 30] + defocus * ((y - 20) ** 2 + (x - 30) ** 2)
    frames = gain * (90 + 40 * np.cos(phase + delta) + 5 * np.cos(2 * (phase + delta))) + offset
    weights, constants, _ = model.linear_at(np.array(y), np.array(x))
    # steps that are spread evenly over the circle: the condition is below ten, and ten digits are left
    np.testing.assert_allclose(
        weights @ frames + constants, [90, 40 * np.cos(phase), 40 * np.sin(phase)], rtol=0, atol=1e-9
    )
