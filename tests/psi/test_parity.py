"""The sum of frames that holds noise alone: what it is blind to, and what it makes of samples that contradict each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.model import Demodulation, PhaseRows, PixelModel, empty_rows
from cpikan.psi.kernels.weight_field import model_demodulation
from cpikan.psi.model.flags import Flag
from cpikan.psi.model.frame_model import FrameModel, fringe_columns, parity_vector
from cpikan.psi.model.noise import NoiseModel
from cpikan.psi.model.schemes import CARRE, LEAST_SQUARES, SCHEMES, phasor_weights

NOISE_DN = 0.3
B, A = 60.0, 110.0


def equal_steps(count: int) -> tuple[float, ...]:
    return tuple(360.0 * k / count for k in range(count))


@given(steps=st.lists(st.floats(0, 360), min_size=2, max_size=13), second=st.booleans())
def test_nothing_of_the_fringes_reaches_it(steps: list[float], second: bool) -> None:
    columns = fringe_columns(np.radians(steps), (2,) if second else ())
    parity = parity_vector(columns)
    if np.linalg.matrix_rank(columns) == len(steps):
        assert not parity.any()
    else:
        assert np.linalg.norm(parity) == pytest.approx(1.0)
        assert np.abs(parity @ columns).max() < 1e-9  # the rank leaves out singular values of 1e-15 of the largest


@pytest.mark.parametrize("count", range(4, 14))
def test_every_frame_has_a_share(count: int) -> None:
    """With equal steps every frame's weight is at least 0.4 of what it would be if all had the same.

    Five frames cannot have more than 0.43: their vectors are cos(144 k + any) degrees.
    """
    parity = phasor_weights(LEAST_SQUARES, equal_steps(count)).parity
    assert np.abs(parity).min() >= 0.4 / np.sqrt(count)


def test_three_frames_and_unknown_steps_have_none() -> None:
    assert not phasor_weights(LEAST_SQUARES, equal_steps(3)).parity.any()
    assert not phasor_weights(CARRE, (0.0, 80.0, 160.0, 240.0)).parity.any()
    for scheme in SCHEMES.values():
        weights = phasor_weights(scheme.name, scheme.steps_deg)
        assert np.abs(weights.parity @ fringe_columns(np.radians(scheme.steps_deg))).max() < 1e-12


def models(count: int) -> dict[str, Demodulation]:
    """The same weights in every pixel, and weights that vary over the image, offsets with them."""
    plain = FrameModel.plain(equal_steps(count))
    tilted = replace(
        plain,
        tilt_rad_px=np.linspace(0, 4e-3, count)[:, None] * [1.0, -0.5],
        offset_dn=np.linspace(0, 5, count),
        pivot=(8.0, 32.0),
    )
    noise = (NoiseModel(NOISE_DN**2, 0.0, "residuals", 1),)
    return {
        "plain": Demodulation.of_weights(
            [phasor_weights(LEAST_SQUARES, equal_steps(count))], np.array([[NOISE_DN**2, 0.0]])
        ),
        "tilted": model_demodulation((tilted,), noise, np.inf, (16, 64)),
    }


def frames_of(d: Demodulation, phase: np.ndarray) -> np.ndarray:
    steps, offset = np.zeros((d.frames, *phase.shape)), np.zeros(d.frames)
    if d.models is not None:
        steps, offset = d.models[0].steps_at(*np.mgrid[: phase.shape[0], : phase.shape[1]]), d.models[0].offset_dn
    else:
        steps += np.radians(equal_steps(d.frames))[:, None, None]
    return A + B * np.cos(phase + steps) + offset[:, None, None]


def phases_of(d: Demodulation, frames: np.ndarray) -> PhaseRows:
    kernels = CpuKernels(PixelModel(d), 1)
    out = kernels.phases(
        np.ascontiguousarray(frames[None], np.float32), None, PhaseRows(*empty_rows(*frames.shape[1:]))
    )
    kernels.close()
    return out


@pytest.mark.parametrize("count", [4, 5, 8])
@pytest.mark.parametrize("kind", ["plain", "tilted"])
def test_sigma_covers_a_struck_sample(kind: str, count: int) -> None:
    """One sample of a pixel is off by 15 to 60 DN, in any of the frames: sigma follows, and only there."""
    d, rng = models(count)[kind], np.random.default_rng(count)
    phase = rng.uniform(-3, 3, (16, 64))
    clean = frames_of(d, phase)
    struck, frame = rng.random(phase.shape) < 0.2, rng.integers(0, count, phase.shape)
    by = rng.choice([-1, 1], phase.shape) * rng.uniform(15, 60, phase.shape)
    frames = clean + np.where(struck & (np.arange(count)[:, None, None] == frame), by, 0.0)
    before, after = phases_of(d, clean), phases_of(d, frames)
    error = np.abs(np.angle(np.exp(1j * (after.phase_rad - phase))))
    # |w| / (sqrt(var u) v) with |w| = 2 / K, var u = 2 / K and v from 0.4 / sqrt(K) on: at most 3.6; beside it the arc's bend
    assert (error[struck] <= 4 * after.sigma_rad[struck]).all()
    assert (after.sigma_rad[struck] > 3 * before.sigma_rad[struck]).all()
    assert (after.sigma_rad[~struck] == before.sigma_rad[~struck]).all()


def test_noise_alone_changes_nothing() -> None:
    """Noise as stated passes six sigma once in 500 million pixels."""
    d = models(5)["plain"]
    rng = np.random.default_rng(3)
    frames = frames_of(d, np.full((16, 64), 0.4)) + rng.normal(0, NOISE_DN, (5, 16, 64))
    blind = replace(d, parity=np.zeros_like(d.parity))
    for got, expected in zip(phases_of(d, frames), phases_of(blind, frames), strict=True):
        assert (got == expected).all()


def test_a_pixel_that_contradicts_itself_grossly_is_no_measurement() -> None:
    """Rows of one frame that were lost are holes, through which no phase is unwrapped."""
    d = replace(models(5)["plain"], snr_min=30.0)
    frames = frames_of(d, np.full((16, 64), 1.1))
    frames[3, 6:9] = 0.0
    flags = phases_of(d, frames).flags
    assert (flags[6:9] == Flag.INVALID | Flag.LOW_MODULATION).all()
    assert not flags[[5, 9]].any()
