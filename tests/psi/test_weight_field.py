"""Weights that vary over the image, against exact least squares in every pixel of frames made without the package's help."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import plain_kernels as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.model import LONGEST_SEGMENT, Demodulation, PhaseRows, PixelModel, empty_rows
from cpikan.psi.kernels.select import make_kernels
from cpikan.psi.kernels.weight_field import EXTRAS, PHASE_ERROR_RAD, SUMS, WeightField, model_demodulation, node_spacing
from cpikan.psi.model.flags import Flag
from cpikan.psi.model.frame_model import FrameModel, Response, SmoothField
from cpikan.psi.model.noise import NoiseModel
from cpikan.psi.model.schemes import LEAST_SQUARES, phasor_weights

ULP = 2.0**-24
NOISE = NoiseModel(1.0, 0.0, "residuals", 1000)
SHAPE = (60, 701)


def make_model(
    seed: int, frames: int, shape: tuple[int, int], tilt_rad: float = 0.5, harmonics: tuple[int, ...] = ()
) -> FrameModel:
    """Steps near equal ones over a circle, up to ``tilt_rad`` of tilt across the image and half as much of defocus."""
    rng = np.random.default_rng(seed)
    span = np.array(shape, float) - 1
    tilt = rng.uniform(-1, 1, (frames, 2)) * tilt_rad / np.maximum(span, 1)
    defocus = rng.uniform(-0.5, 0.5, frames) * tilt_rad * 4 / (span @ span)
    gain, offset = rng.uniform(0.95, 1.05, frames), rng.uniform(-3, 3, frames)
    step = 2 * np.pi * rng.integers(1, 3) / max(frames, 5) if not harmonics else 2 * np.pi / frames
    steps = step * np.arange(frames) + rng.uniform(-0.15, 0.15, frames)
    steps[0] = tilt[0] = defocus[0] = offset[0] = 0
    gain[0] = 1
    return FrameModel(steps, tilt, defocus, gain, offset, (span[0] / 2, span[1] / 2), harmonics)


def step_maps(model: FrameModel, shape: tuple[int, int], first_row: int = 0) -> np.ndarray:
    """The step of every frame in every pixel (K, rows, W), spelled out."""
    y = np.arange(first_row, first_row + shape[0])[:, None] - model.pivot[0]
    x = np.arange(shape[1])[None, :] - model.pivot[1]
    return np.stack(
        [
            model.steps_rad[k]
            + model.tilt_rad_px[k, 0] * y
            + model.tilt_rad_px[k, 1] * x
            + model.defocus_rad_px2[k] * (y * y + x * x)
            for k in range(model.frames)
        ]
    )


def make_frames(
    model: FrameModel,
    phase: np.ndarray,
    second: float = 0.0,
    first_row: int = 0,
    light: tuple[float, float] = (110.0, 70),
) -> np.ndarray:
    """Frames (1, K, rows, W) of a phase map, without noise; ``second`` is the share of the second harmonic in B."""
    angle = phase + step_maps(model, phase.shape, first_row)
    mean, modulation = light
    clean = mean + modulation * (np.cos(angle) + second * np.cos(2 * angle))
    gain, offset = model.gain[:, None, None], model.offset_dn[:, None, None]
    return (gain * clean + offset)[None]


def any_phase(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, shape)


def exact_fit(frames: np.ndarray, model: FrameModel, at: tuple[int, int], first_row: int = 0) -> np.ndarray:
    """A, u, v of one pixel by least squares on all of its unknowns."""
    delta = step_maps(model, frames.shape[2:], first_row)[(slice(None), *at)]
    columns = [np.ones_like(delta)]
    for order in (1, *model.harmonics):
        columns += [np.cos(order * delta), -np.sin(order * delta)]
    design = np.stack(columns, axis=1) * model.gain[:, None]
    sample = frames[(0, slice(None), *at)].astype(float) - model.offset_dn
    return np.linalg.lstsq(design, sample, rcond=None)[0][:3]


def demodulation(model: FrameModel, shape: tuple[int, int], **changes: Any) -> Demodulation:
    return replace(model_demodulation((model,), (NOISE,), np.inf, shape), **changes)


def run(frames: np.ndarray, d: Demodulation, first_row: int = 0, threads: int = 1) -> PhaseRows:
    kernels = CpuKernels(PixelModel(d), threads)
    rows = PhaseRows(*empty_rows(*frames.shape[2:]))
    kernels.phases(np.ascontiguousarray(frames), None, rows, first_row)
    kernels.close()
    return rows


def wrapped(difference: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * np.asarray(difference, float))))


def rounding_rad(model: FrameModel, top: float, modulation: float) -> float:
    """Of float32 sums of K products with weights in three parts (value, slope, bend): K + 8 roundings of I |w|, over B.

    The |w| of u and of v sum to 4 / pi for equal steps; steps that are not quite, and harmonics, at most double that.
    """
    return (model.frames + 8) * ULP * top * 3.6 / modulation + 3e-8 * 2 * np.pi + 4 * ULP * np.pi


@pytest.mark.parametrize("dtype", ["u1", "f4"])
@pytest.mark.parametrize(("frames", "harmonics"), [(5, ()), (6, (2,)), (8, (2,)), (11, (2, 3)), (13, (2,))])
def test_phases_equal_exact_least_squares(dtype: str, frames: int, harmonics: tuple[int, ...]) -> None:
    model = make_model(frames, frames, SHAPE, harmonics=harmonics)
    clean = make_frames(model, any_phase(1, SHAPE), 0.1 if harmonics else 0.0, light=(110, 70))
    noisy = clean + np.random.default_rng(2).normal(0, 1, clean.shape)
    stack = (np.rint(noisy) if dtype != "f4" else noisy).astype(dtype)
    got = run(stack, demodulation(model, SHAPE))
    tolerance = PHASE_ERROR_RAD + rounding_rad(model, 220, 50)
    rng = np.random.default_rng(3)
    for at in [
        (0, 0),
        (59, 700),
        (0, 700),
        (59, 0),
        *zip(rng.integers(0, 60, 60), rng.integers(0, 701, 60), strict=True),
    ]:
        _, u, v = exact_fit(stack, model, at)
        assert wrapped(got.phase_rad[at] - np.arctan2(v, u)) < tolerance
        assert abs(got.modulation[at] / np.hypot(u, v) - 1) < tolerance
    assert (got.flags == 0).all()


@pytest.mark.parametrize("frames", [5, 9])
def test_true_phase_comes_back_where_uniform_steps_are_off(frames: int) -> None:
    """Without noise the truth is known; the same steps without their tilts miss it by far."""
    model = make_model(frames, frames, SHAPE)
    phase = any_phase(5, SHAPE)
    stack = make_frames(model, phase).astype(np.float32)
    tolerance = PHASE_ERROR_RAD + rounding_rad(model, 190, 70)
    assert wrapped(run(stack, demodulation(model, SHAPE)).phase_rad - phase).max() < tolerance
    flat = replace(model, tilt_rad_px=np.zeros((frames, 2)), defocus_rad_px2=np.zeros(frames))
    assert wrapped(run(stack, demodulation(flat, SHAPE)).phase_rad - phase).max() > 0.05


def test_second_harmonic_is_taken_out() -> None:
    phase = any_phase(6, SHAPE)
    model = make_model(7, 8, SHAPE, harmonics=(2,))
    stack = make_frames(model, phase, 0.14).astype(np.float32)
    assert wrapped(run(stack, demodulation(model, SHAPE)).phase_rad - phase).max() < 2 * PHASE_ERROR_RAD
    blind = replace(model, harmonics=())
    assert wrapped(run(stack, demodulation(blind, SHAPE)).phase_rad - phase).max() > 2e-3


def test_offsets_alone_use_the_same_way() -> None:
    model = make_model(8, 5, SHAPE, tilt_rad=0.0)
    assert model.is_uniform
    d = demodulation(model, SHAPE)
    assert d.models is not None
    phase = any_phase(7, SHAPE)
    got = run(make_frames(model, phase).astype(np.float32), d)
    assert wrapped(got.phase_rad - phase).max() < PHASE_ERROR_RAD


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    frames=st.integers(4, 13),
    second=st.booleans(),
    tilt=st.floats(0, 1.0),
    size=st.tuples(st.integers(2, 3000), st.integers(2, 6000)),
)
def test_interpolated_weights_stay_within_their_bound(
    seed: int, frames: int, second: bool, tilt: float, size: tuple[int, int]
) -> None:
    """Parabolas, as the compiled pass evaluates them but in float64, at pixels anywhere in the image."""
    model = make_model(seed, frames, size, tilt, (2,) if second and frames > 6 else ())
    try:
        d = model_demodulation((model,), (NOISE,), 255.0, size)
    except InputError:
        return
    assert d.models is not None
    rng = np.random.default_rng(seed)
    field = WeightField(d)
    for y in rng.integers(0, size[0], 4):
        x = rng.integers(0, size[1], 40)
        got, parity = np.split(interpolated(field, int(y), x, size[1], frames), [3], axis=1)
        exact = model.weights_at(np.full(x.shape, y), x)
        design = model.design_at(np.full(x.shape, y), x)
        noise = np.sqrt(frames / 4) * np.linalg.norm(exact[:, 1:], axis=(1, 2))
        size_of_rounding = 8 * ULP * np.abs(exact).max() * frames
        error = np.linalg.norm(((got - exact) @ design)[..., 1:], axis=(1, 2))
        assert (error <= PHASE_ERROR_RAD * np.maximum(noise, 1) + size_of_rounding).all()
        # the background drops out everywhere, nodes or not
        assert np.abs(((got - exact) @ design)[..., 0]).max() < size_of_rounding
        # nothing of the frames' light reaches the parity, which is judged at six sigmas: 1e-4 of a fringe a thousand times
        # the noise is a sixtieth of that
        reached = np.abs(parity @ design).max(axis=(1, 2))
        assert (reached <= 10 * PHASE_ERROR_RAD * np.maximum(noise, 1) + size_of_rounding).all()


def interpolated(field: WeightField, y: int, x: np.ndarray, width: int, frames: int) -> np.ndarray:
    """Weights (pixels, 4, K) for A, u, v and parity out of the nodes."""
    nodes, first, every_y, every_x, _ = field.rows(y, 1, width)
    assert nodes.shape[0] == 3
    assert first == y // every_y
    f = (y % every_y) / every_y
    share = np.array([(1 - f) * (1 - 2 * f), 4 * f * (1 - f), f * (2 * f - 1)])
    line = np.einsum("j,jq->q", share, nodes[:, 0].astype(float)).reshape(-1, 3, SUMS * frames + EXTRAS)
    t = (x % every_x)[:, None]
    start, slope, bend = (line[x // every_x, part, : SUMS * frames] for part in range(3))
    return np.moveaxis((start + t * (slope + t * bend)).reshape(len(x), frames, SUMS), 1, 2)[:, [2, 0, 1, 3]]


@pytest.mark.parametrize("harmonics", [(), (2,), (2, 3)])
def test_nodes_are_the_models_weights(harmonics: tuple[int, ...]) -> None:
    """The compiled normal equations against the pseudo-inverse; stored in float32. Constants and covariance follow."""
    model = make_model(9, 9, (300, 400), harmonics=harmonics)
    model = replace(model, contrast=np.linspace(1.0, 0.8, 9) if not harmonics else None)
    nodes, first, every_y, every_x, _ = WeightField(demodulation(model, (300, 400), node_px=(64, 32))).rows(
        130, 20, 400
    )
    assert (first, every_y, every_x, nodes.shape) == (2, 64, 32, (3, 1, 13 * 3 * (9 * SUMS + EXTRAS)))
    for j in range(3):
        start = nodes[j, 0].reshape(13, 3, 9 * SUMS + EXTRAS)[:, 0]
        x = np.arange(13) * 32.0
        y = np.full(13, 128 + 32.0 * j)
        weights = (*np.moveaxis(model.weights_at(y, x)[:, [1, 2, 0]], 1, 0), model.parity_at(y, x))
        np.testing.assert_allclose(start[:, :36].reshape(13, 9, SUMS), np.stack(weights, axis=-1), atol=2 * ULP)
        constants = -np.stack([w @ model.offset_dn for w in weights], axis=1)
        u, v = weights[:2]
        covariance = np.stack([(u * u).sum(1), (u * v).sum(1), (v * v).sum(1)], axis=1)
        np.testing.assert_allclose(start[:, 36:43], np.hstack([constants, covariance]), atol=8 * ULP)


def test_spacing_follows_the_tilt() -> None:
    """A camera's full frame with a little tilt has long segments; eight times the tilt an eighth of that, or nearly."""
    shape = (7000, 9344)
    gentle, steep = (node_spacing((make_model(1, 5, shape, tilt),), shape) for tilt in (0.25, 2.0))
    assert min(gentle) >= 512
    assert all(4 <= a / b <= 16 for a, b in zip(gentle, steep, strict=True))
    still = make_model(1, 5, shape, 0.0)
    assert node_spacing((still,), shape) == (LONGEST_SEGMENT, LONGEST_SEGMENT)
    assert node_spacing((still, make_model(1, 5, shape, 2.0)), shape) == steep


def test_sigma_is_the_scatter_of_noisy_frames() -> None:
    """Monte Carlo over 60 x 701 pixels, left, middle and right apart, as the tilt unbalances the steps of one side.

    The spread of n normal numbers is good to 1 / sqrt(2 n): 0.6 % for a third, three sigmas are 1.8 %; what the first order
    leaves out is (sigma / B)^2 = 0.04 %.
    """
    steps = np.radians([0.0, 90, 180, 270, 360])
    tilt = np.zeros((5, 2))
    tilt[1:, 1] = [1.0 / 701, 1.5 / 701, 0, -1.5 / 701]
    gain, offset = np.array([1, 0.96, 1.05, 1.02, 0.98]), np.array([0.0, 2, -2, 1, 3])
    model = FrameModel(steps, tilt, np.zeros(5), gain, offset, (0.0, 0.0))
    phase = any_phase(11, SHAPE)
    stack = make_frames(model, phase) + np.random.default_rng(12).normal(0, 1.0, (1, 5, *SHAPE))
    got = run(stack.astype(np.float32), demodulation(model, SHAPE))
    error = np.angle(np.exp(1j * (got.phase_rad - phase))) / got.sigma_rad
    for third in np.array_split(np.arange(SHAPE[1]), 3):
        assert abs(error[:, third].std() - 1) < 0.019
    # and the sigma is not one number for all: that of the pivot would be off by more than the tolerance
    assert got.sigma_rad[:, -100:].mean() / got.sigma_rad[:, :100].mean() > 1.1
    want = reference.phases(stack.astype(np.float32), PixelModel(demodulation(model, SHAPE)))
    np.testing.assert_allclose(got.sigma_rad, want.sigma_rad, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 149), max_size=6), threads=st.integers(1, 3))
def test_bands_and_threads_change_no_bit(seed: int, cuts: set[int], threads: int) -> None:
    shape = (150, 333)
    model = make_model(seed, 6, shape, tilt_rad=2.0)
    d = demodulation(model, shape, node_px=(32, 16))
    stack = np.rint(make_frames(model, any_phase(seed, shape))).astype(np.uint8)
    whole = run(stack, d)
    edges = [0, *sorted(cuts), 150]
    kernels = CpuKernels(PixelModel(d), threads)
    for a, b in pairwise(edges):
        part = PhaseRows(*empty_rows(b - a, shape[1]))
        kernels.phases(np.ascontiguousarray(stack[:, :, a:b]), None, part, a)
        for name in PhaseRows._fields:
            assert getattr(part, name).tobytes() == getattr(whole, name)[a:b].tobytes()
    kernels.close()


def test_saturation_and_dead_pixels_are_flagged_as_ever() -> None:
    """Saturation is judged on the samples as they are, before offsets and gains are taken off."""
    model = make_model(13, 5, SHAPE)
    stack = make_frames(model, any_phase(14, SHAPE)).astype(np.float32)
    stack[0, 2, 7, 300], stack[0, 3, 8, 301] = np.nan, 250.0
    got = run(stack, demodulation(model, SHAPE, saturation_dn=250.0, snr_min=50.0))
    assert got.flags[7, 300] == Flag.INVALID | Flag.LOW_MODULATION
    assert got.flags[8, 301] == Flag.INVALID | Flag.SATURATED
    assert np.isnan(got.phase_rad[[7, 8], [300, 301]]).all()
    assert (got.flags != 0).sum() == 2


def test_memory_is_that_of_a_band() -> None:
    """Forty bands of a tall image hold what three hold, though the nodes of the whole image would take 4 MB."""
    shape, rows = (64 * 40, 512), 64
    model = make_model(15, 5, shape)
    d = demodulation(model, shape, node_px=(16, 16))
    frames, out = np.zeros((1, 5, rows, shape[1]), np.uint8), PhaseRows(*empty_rows(rows, shape[1]))
    kernels = CpuKernels(PixelModel(d), 1)
    kernels.phases(frames, None, out, 0)
    tracemalloc.start()
    peaks = []
    for bands in (3, 40):
        tracemalloc.reset_peak()
        for i in range(bands):
            kernels.phases(frames, None, out, rows * i)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    kernels.close()
    whole = 2 * (shape[0] // 16) * (shape[1] // 16) * 3 * (4 * 5 + EXTRAS) * 4
    # the interpreter's own memory, which is counted too, wanders by some ten kB
    assert peaks[1] - peaks[0] < whole / 20


def test_plain_models_give_the_plain_demodulation() -> None:
    steps = (0.0, 80.0, 170.0, 265.0)
    weights = phasor_weights(LEAST_SQUARES, steps)
    d = model_demodulation((FrameModel.plain(steps),) * 2, (NOISE, NOISE), 255.0, SHAPE)
    assert d.models is None
    for name in ("cosine", "sine", "mean", "covariance"):
        np.testing.assert_allclose(getattr(d, name), np.stack([getattr(weights, name)] * 2), atol=1e-14)
    assert d.saturation_dn == 255.0
    np.testing.assert_array_equal(d.noise, [[1.0, 0.0]] * 2)


def test_gains_of_uniform_frames_stay_in_the_plain_weights() -> None:
    model = replace(FrameModel.plain((0.0, 90.0, 180.0, 270.0, 360.0)), gain=np.array([1, 0.9, 1.1, 1.05, 0.97]))
    d = demodulation(model, SHAPE)
    assert d.models is None
    phase = any_phase(16, SHAPE)
    assert wrapped(run(make_frames(model, phase).astype(np.float32), d).phase_rad - phase).max() < 5e-6


def test_models_that_determine_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="4 frames for 5 unknowns"):
        model_demodulation((make_model(1, 4, SHAPE, harmonics=(2,)),), (NOISE,), 255.0, SHAPE)
    with pytest.raises(InputError, match="do not determine the phase"):
        model_demodulation((FrameModel.plain((0.0, 0.1, 0.2, 0.3)),), (NOISE,), 255.0, SHAPE)
    with pytest.raises(InputError, match="same number"):
        model_demodulation((make_model(1, 4, SHAPE), make_model(1, 5, SHAPE)), (NOISE, NOISE), 255.0, SHAPE)


def test_steps_that_meet_at_one_side_are_refused() -> None:
    """Good in the middle, three equal steps at the right edge: found by looking everywhere, not at the centre."""
    tilt = np.zeros((3, 2))
    tilt[1:, 1] = [-np.radians(120) / 350, -np.radians(240) / 350]
    zeros = np.zeros(3)
    model = FrameModel(np.radians([0.0, 120, 240]), tilt, zeros, zeros + 1, zeros, (29.5, 350.0))
    with pytest.raises(InputError, match="everywhere in the image"):
        model_demodulation((model,), (NOISE,), 255.0, SHAPE)


def test_other_devices_say_they_do_not_serve_such_models() -> None:
    d = demodulation(make_model(1, 5, SHAPE), SHAPE)
    with pytest.raises(InputError, match="--device cpu"):
        make_kernels(PixelModel(d), "cuda:0", 1)


@pytest.mark.parametrize(
    "changes", [{"node_px": (0, 8)}, {"node_px": (12, 8)}, {"node_px": (8, 4096)}, {"carre": True}]
)
def test_a_demodulation_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"powers of two|least squares"):
        demodulation(make_model(1, 5, SHAPE), SHAPE, **changes)


# --- cameras that bend, harmonics of a fixed share, backgrounds known beforehand

CURVE = Response(20.0, 230.0, (-8.0, 11.0, 6.0, -2.0, 1.5))


def bent(light: np.ndarray, curve: Response) -> np.ndarray:
    """Samples that stand for the light: the curve turned round."""
    samples = np.linspace(-20, 300, 200_001)
    return np.interp(light, curve.light_dn(samples), samples)


@pytest.mark.parametrize("frames", [4, 6, 7])
def test_a_bent_camera_is_straightened(frames: int) -> None:
    shape = (24, 2100)
    model = replace(make_model(frames, frames, shape), response=CURVE)
    phase = any_phase(4, shape)
    light = make_frames(model, phase, light=(110.0, 60.0))
    stack = bent(light, CURVE).astype(np.float32)
    assert np.abs(stack - light).max() > 5
    got = run(stack, demodulation(model, shape))
    # a float32 sample of 200 DN is known to 1e-5 DN, seven times that after the curve; against B = 60
    assert wrapped(got.phase_rad - phase).max() < PHASE_ERROR_RAD + 2 * rounding_rad(model, 220, 60)
    straight = run(stack, demodulation(replace(model, response=None), shape))
    assert wrapped(straight.phase_rad - phase).max() > 0.01


def test_saturation_is_that_of_the_samples() -> None:
    """The largest count is saturated, whatever light it stands for; a count below is not."""
    model = replace(make_model(3, 5, (4, 50)), response=CURVE)
    stack = np.rint(bent(make_frames(model, any_phase(1, (4, 50)), light=(110.0, 60.0)), CURVE)).astype(np.uint8)
    stack[0, 2, 1, 7], stack[0, 4, 2, 9] = 255, 254
    got = run(stack, demodulation(model, (4, 50), saturation_dn=255.0))
    clipped = got.flags & Flag.SATURATED != 0
    assert clipped.sum() == 1
    assert clipped[1, 7]


@pytest.mark.parametrize(("frames", "locked"), [(3, ((2, 0.08),)), (4, ((3, -0.05),)), (5, ((2, -0.1), (3, 0.05)))])
def test_harmonics_of_a_fixed_share_are_taken_off(frames: int, locked: tuple[tuple[int, float], ...]) -> None:
    shape = (20, 300)
    model = replace(make_model(frames, frames, shape), locked=locked)
    phase = any_phase(7, shape)
    angle = phase + step_maps(model, shape)
    clean = 110 + 60 * (np.cos(angle) + sum(share * np.cos(order * angle) for order, share in locked))
    stack = (model.gain[:, None, None] * clean + model.offset_dn[:, None, None])[None].astype(np.float32)
    got = run(stack, demodulation(model, shape))
    # six rounds leave (order x share)^6 of the share at worst; leaks are interpolated like weights
    left = sum(abs(share) for _, share in locked) * sum(order * abs(share) for order, share in locked) ** 6
    assert wrapped(got.phase_rad - phase).max() < PHASE_ERROR_RAD + 2 * rounding_rad(model, 220, 50) + 2 * left
    plain = run(stack, demodulation(replace(model, locked=()), shape))
    assert wrapped(plain.phase_rad - phase).max() > 0.01


def test_two_frames_and_a_smooth_background() -> None:
    """A as another sample: exact where the background is what was said, and worth what its weight says where not."""
    shape = (40, 700)
    steps, zeros = np.array([0.0, 1.4]), np.zeros(2)
    coefficients = np.zeros((3, 4))
    coefficients[0, 0], coefficients[1, 2], coefficients[2, 0] = 110.0, 6.0, -9.0
    field = SmoothField(((0.0, 39.0), (0.0, 699.0)), coefficients)
    model = FrameModel(
        steps,
        np.zeros((2, 2)),
        zeros,
        np.array([1.0, 1.02]),
        zeros,
        (0.0, 0.0),
        background=field,
        background_weight=4.0,
    )
    phase = any_phase(2, shape)
    y, x = np.mgrid[:40, :700]
    light = field.at(y, x) + 60 * np.cos(phase + steps[:, None, None])
    stack = (model.gain[:, None, None] * light)[None].astype(np.float32)
    d = demodulation(model, shape)
    got = run(stack, d)
    # a field of degree three is all but its own parabola over segments of 4 pixels
    assert wrapped(got.phase_rad - phase).max() < 2e-5
    _, variance, *_ = reference.demodulate(stack, d, (y, x))
    design = np.vstack(
        [np.column_stack([np.ones(2), np.cos(steps), -np.sin(steps)]) * model.gain[:, None], [2.0, 0, 0]]
    )
    spread = np.linalg.inv(design.T @ design)
    toward = np.stack([np.zeros_like(phase), -np.sin(phase), np.cos(phase)], axis=-1) / 60
    exact = np.einsum("...i,ij,...j->...", toward, spread, toward)
    np.testing.assert_allclose(variance[0], exact, rtol=1e-3)
    np.testing.assert_allclose(got.sigma_rad**2, exact, rtol=1e-3)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.integers(4, 8), st.booleans(), st.booleans())
def test_the_fast_pass_is_the_reference(seed: int, frames: int, curve: bool, second: bool) -> None:
    shape = (9, 130)
    locked = ((2, 0.07),) if second else ()
    model = replace(make_model(seed, frames, shape), response=CURVE if curve else None, locked=locked)
    light = make_frames(model, any_phase(seed, shape), 0.07, light=(110.0, 60.0))
    stack = np.rint(bent(light, CURVE)).astype(np.uint8)
    d = demodulation(model, shape)
    got, plain = run(stack, d), reference.phases(stack, PixelModel(d))
    tolerance = PHASE_ERROR_RAD + 2 * rounding_rad(model, 220, 40) + 1e-5 * second
    assert wrapped(got.phase_rad - plain.phase_rad).max() < tolerance
    np.testing.assert_allclose(got.sigma_rad, plain.sigma_rad, rtol=1e-3)
    assert np.array_equal(got.flags, plain.flags)
