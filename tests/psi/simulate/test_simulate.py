"""The simulator against its model in plain float64 NumPy, against statistics, and against itself in other bands."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cpikan.errors import InputError
from cpikan.psi.simulate import (
    SURFACE_KINDS,
    Instrument,
    SimulationSettings,
    Simulator,
    SurfaceSettings,
    frame_rows,
    simulate_stack,
    surface_rows,
)
from cpikan.psi.simulate.random import normal_rows, row_key, sin_quarter
from cpikan.psi.simulate.settings import draw_faults

INFRARED = (5000.0, 5500.0, 6050.0, 6655.0)
FLAT = SurfaceSettings(
    disc=False, form_peak_nm=0.0, nano_rms_nm=0.0, die_step_nm=0.0, bumps=0, scratches=0, particles=0
)
ALL_FAULTS = Instrument(
    second_harmonic=0.05,
    third_harmonic=0.03,
    step_error_deg=4.0,
    piston_rad=0.1,
    tilt_rad=0.5,
    gain_drift=0.02,
    wavelength_piston_rad=0.3,
    wavelength_tilt_rad=0.2,
    dead_fraction=0.01,
)


def ideal_signal(simulator: Simulator, instrument: Instrument) -> np.ndarray:
    """A + B cos(phi + delta + t.r) with every fault but noise and dead pixels, in DN, (L, K, H, W) float64."""
    choice = simulator.settings
    height, kind = simulator.surface_rows(0, choice.shape[0])
    full = 2**choice.bit_depth - 1
    grid, faults = simulator.surface.grid, simulator.faults
    y, x = np.meshgrid(grid.y_mm, grid.x_mm, indexing="ij")
    corner = (x**2 + y**2) / (grid.x_mm[-1] ** 2 + grid.y_mm[-1] ** 2)
    light = np.choose(kind, [1.0, 0.15, 0.5])
    a = instrument.background * full * instrument.exposure * light * (1 - instrument.vignetting_background * corner)
    b = instrument.modulation * full * instrument.exposure * (kind == 0)
    b = b * (1 - instrument.vignetting_modulation * corner)
    out = np.empty(choice.stack_shape)
    for wave, wavelength in enumerate(choice.wavelengths_nm):
        phi = np.nan_to_num(4 * np.pi * height.astype(np.float64) / wavelength)
        for k in range(out.shape[1]):
            tilt = faults.tilt_rad[wave, k] + faults.offset_tilt_rad[wave]
            angle = phi + faults.step_rad[wave, k] + faults.offset_rad[wave]
            angle += (tilt[0] * x + tilt[1] * y) / grid.radius_mm
            wave_form = np.cos(angle) + instrument.second_harmonic * np.cos(2 * angle)
            wave_form += instrument.third_harmonic * np.cos(3 * angle)
            out[wave, k] = faults.gain[wave, k] * (a + b * wave_form)
    return out


# --- rows --------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(SURFACE_KINDS),
    seed=st.integers(0, 2**63 - 1),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    depth=st.sampled_from([8, 10, 16]),
    several=st.booleans(),
)
def test_rows_do_not_depend_on_their_band(kind: str, seed: int, cuts: list[int], depth: int, several: bool) -> None:
    choice = SimulationSettings(
        (60, 73), INFRARED[:3] if several else (632.8,), 5, None, seed, depth, surface=kind, instrument=ALL_FAULTS
    )
    simulator = Simulator(choice)
    height, frames = simulator.surface_rows(0, 60)[0], simulator.frame_rows(0, 60)
    edges = sorted({0, 60, *cuts})
    for start, stop in itertools.pairwise(edges):
        np.testing.assert_array_equal(simulator.surface_rows(start, stop)[0], height[start:stop])
        np.testing.assert_array_equal(simulator.frame_rows(start, stop), frames[:, :, start:stop])


def test_the_functions_are_pure() -> None:
    choice = SimulationSettings((64, 96), INFRARED, seed=5, instrument=ALL_FAULTS)
    frames, truth = simulate_stack(choice)
    assert frames.shape == (4, 4, 64, 96)
    assert frames.dtype == np.uint8
    assert truth.dtype == np.float32
    np.testing.assert_array_equal(frame_rows(choice, 20, 33), frames[:, :, 20:33])
    np.testing.assert_array_equal(surface_rows(choice, 20, 33), truth[20:33])


def test_threads_sharing_a_band_change_nothing() -> None:
    simulator = Simulator(SimulationSettings((40, 64), INFRARED, seed=1, instrument=ALL_FAULTS))
    height, kind = simulator.surface_rows(0, 40)
    out = np.zeros((16, 40, 64), np.uint8)
    for part in ((17, 40), (0, 3), (3, 17)):
        simulator.fill_frames(0, height, kind, out, part)
    np.testing.assert_array_equal(out.reshape(4, 4, 40, 64), simulator.frame_rows(0, 40))


def test_seeds_differ_in_surface_and_noise() -> None:
    one, other = (simulate_stack(SimulationSettings((64, 64), seed=seed, surface="smooth")) for seed in (0, 1))
    assert np.abs(one[1] - other[1]).max() > 50
    flat = [frame_rows(SimulationSettings((32, 64), seed=seed, surface=FLAT), 0, 32) for seed in (0, 1)]
    # the same flat signal under other noise: most of the pixels differ by the noise of 1.8 DN
    assert np.mean(flat[0] != flat[1]) > 0.5


def test_the_surface_does_not_change_with_the_sampling() -> None:
    form = replace(FLAT, form_peak_nm=5000.0, disc=True)
    coarse = surface_rows(SimulationSettings((65, 65), INFRARED, surface=form), 0, 65)
    fine = surface_rows(SimulationSettings((195, 195), INFRARED, surface=form), 0, 195)[1::3, 1::3]
    # the same field in three times as many pixels; the sizes of the pixels are rounded to 0.1 nm of 4.8 mm
    np.testing.assert_allclose(coarse[10:-10, 10:-10], fine[10:-10, 10:-10], atol=0.01)


# --- surfaces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_default_wafer_is_high_and_within_range(seed: int) -> None:
    height = surface_rows(SimulationSettings((200, 260), INFRARED, seed=seed), 0, 200)
    seen = height[np.isfinite(height)].astype(np.float64)
    assert seen.std() >= 4000
    assert np.abs(seen).max() <= 12000


@pytest.mark.parametrize("kind", SURFACE_KINDS)
@pytest.mark.parametrize("size", [64, 300])
def test_one_wavelength_can_be_unwrapped(kind: str, size: int) -> None:
    for seed in range(6):
        height, where = Simulator(SimulationSettings((size, size), seed=seed, surface=kind)).surface_rows(0, size)
        height[where != 0] = np.nan
        step = max(np.nanmax(np.abs(np.diff(height, axis=axis))) for axis in (0, 1))
        # an eighth of a wavelength by design, plus the same again for a preset with etched steps
        assert step < (0.25 if kind == "etched" else 0.2) * 632.8
        if kind != "etched":
            assert step > 1.0


def test_short_beats_get_lower_surfaces() -> None:
    visible = (632.8, 611.9)
    half_range = 632.8 * 611.9 / (632.8 - 611.9) / 4
    height = surface_rows(SimulationSettings((160, 160), visible, seed=2), 0, 160)
    assert 2000 < np.nanmax(np.abs(height)) < half_range


def test_disc_and_notch() -> None:
    height, kind = Simulator(SimulationSettings((400, 500), INFRARED)).surface_rows(0, 400)
    outside = np.isnan(height)
    np.testing.assert_array_equal(outside, kind == 1)
    radius = 0.48 * 400
    # the area of a disc counted in pixels is right to about its rim's length x 0.3 px; the notch takes 9 px
    assert abs((~outside).sum() - np.pi * radius**2) < 60
    middle = height[:, 249:251]
    bottom, top = np.isfinite(middle[::-1]).argmax(), np.isfinite(middle).argmax()
    assert bottom >= top + 2
    assert not np.isnan(surface_rows(SimulationSettings((50, 60), surface="smooth"), 0, 50)).any()


def test_nanotopography_has_its_rms_and_its_band() -> None:
    size = 768
    surface = replace(FLAT, nano_rms_nm=40.0, nano_band_mm=(8.0, 20.0))
    choice = SimulationSettings((size, size), INFRARED, surface=surface, seed=4)
    height = surface_rows(choice, 0, size).astype(np.float64)
    # 48 waves over 16 or more periods each: cross terms leave some 1/sqrt(48 * 16) of the variance
    assert height.std() == pytest.approx(40.0, rel=0.1)
    window = np.hanning(size)
    power = np.abs(np.fft.rfft2(height * window * window[:, None])) ** 2
    pixel_mm = choice.sampling_um / 1e3
    frequency = np.hypot(np.fft.fftfreq(size, pixel_mm)[:, None], np.fft.rfftfreq(size, pixel_mm))
    leak = 3 / (size * pixel_mm)  # a Hann window spreads a line over +-2 bins
    inside = (frequency > 1 / 20 - leak) & (frequency < 1 / 8 + leak)
    assert power[inside].sum() > 0.999 * power.sum()


def test_dies_are_steps_between_streets() -> None:
    base = SimulationSettings((600, 600), INFRARED, surface=replace(FLAT, disc=True), seed=3)
    etched = replace(base, surface=replace(FLAT, disc=True, die_step_nm=120.0, die_levels=3))
    depth = surface_rows(etched, 0, 600)
    levels = np.unique(depth[np.isfinite(depth)])
    assert set(levels) <= {0.0, -120.0, -240.0, -360.0}
    assert len(levels) >= 3
    # one die pitch further the pattern repeats: 26 mm are 26 / (300 / 576) = 49.92 px, so compare block interiors only
    assert np.mean(depth[290:310, 250:300] == depth[290:310, 300:350]) > 0.85
    assert np.nanmin(depth[:30]) == 0.0  # no die reaches over the edge


def test_bumps_scratches_particles() -> None:
    base = SimulationSettings((500, 500), INFRARED, seed=6)

    def made(**parts: float) -> tuple[np.ndarray, np.ndarray]:
        return Simulator(replace(base, surface=replace(FLAT, **parts))).surface_rows(0, 500)

    bumps, _ = made(bumps=5, bump_nm=400.0, bump_mm=6.0)
    assert 0.4 * 400 < bumps.max() < 2 * 400
    assert bumps.min() == 0.0
    scratch, _ = made(scratches=1, scratch_nm=200.0, scratch_mm=3.0)
    assert -200 <= scratch.min() < -95
    assert scratch.max() == 0.0
    rows, columns = np.nonzero(scratch < scratch.min() / 2)
    spread = np.linalg.svd(np.stack([rows - rows.mean(), columns - columns.mean()]), compute_uv=False)
    assert spread[0] > 8 * spread[1]  # a line
    height, kind = made(particles=3, particle_nm=900.0, particle_mm=5.0)
    np.testing.assert_array_equal(height > 0, kind == 2)
    assert 3 * np.pi * (0.4 * 5 / 0.625) ** 2 < (kind == 2).sum() < 3 * np.pi * (5 / 0.6) ** 2
    frames = Simulator(
        replace(base, surface=replace(FLAT, particles=3, particle_mm=5.0), instrument=Instrument.ideal())
    )
    swing = np.ptp(frames.frame_rows(0, 500).astype(int), axis=(0, 1))
    assert swing[kind == 2].max() == 0
    assert swing[kind == 0].min() == 200


def test_slope_limit_holds() -> None:
    for limit in (20.0, 80.0):
        surface = replace(SurfaceSettings(), max_slope_nm=limit, die_step_nm=0.0, particles=0, disc=False)
        height = surface_rows(SimulationSettings((150, 150), INFRARED, surface=surface), 0, 150).astype(np.float64)
        assert max(np.abs(np.diff(height, axis=axis)).max() for axis in (0, 1)) < limit


# --- frames ------------------------------------------------------------------------------------------------------


def test_frames_follow_the_model_to_a_hundred_thousandth() -> None:
    quiet = replace(ALL_FAULTS, read_noise_dn=0.0, shot_noise=False, dead_fraction=0.0)
    for steps in (None, ((0.0, 80.0, 200.0), (0.0, 100.0, 220.0), (10.0, 130.0, 250.0))):
        choice = SimulationSettings(
            (96, 112), INFRARED[:3], None, steps, 7, 16, surface="wafer", instrument=quiet, pixel_um=3000.0
        )
        simulator = Simulator(choice)
        expected = np.clip(ideal_signal(simulator, quiet), 0, 65535)
        error = np.abs(simulator.frame_rows(0, 96) - expected)
        # half a DN of rounding; float32 turns (6e-8 x 2 pi), cosine (2e-7) and sum: 1e-6 of B, some 0.04 DN
        assert error.max() < 0.5 + 0.05


def test_four_buckets_give_the_height_with_its_sign() -> None:
    choice = SimulationSettings((64, 80), bit_depth=16, surface="smooth", instrument=Instrument.ideal(), seed=8)
    frames, truth = simulate_stack(choice)
    one, two, three, four = frames[0].astype(np.float64)
    phase = np.arctan2(four - two, one - three)
    error = (phase * 632.8 / (4 * np.pi) - truth + 158.2) % 316.4 - 158.2
    # rounding of 1/sqrt(12) DN over B = 25700: 8e-6 rad, 4e-4 nm; the worst of 5120 pixels is 5 sigma
    assert np.abs(error).max() < 3e-3


def test_default_light_is_128_plus_100_and_does_not_clip() -> None:
    frames = frame_rows(SimulationSettings((64, 64), instrument=Instrument.ideal(), surface="smooth"), 0, 64)
    assert (frames.min(), frames.max()) == (28, 228)
    noisy = frame_rows(SimulationSettings((256, 256), INFRARED), 0, 256)
    assert noisy.min() > 0
    assert noisy.max() < 255
    ten_bit = frame_rows(SimulationSettings((64, 64), bit_depth=10, instrument=Instrument.ideal(), surface=FLAT), 0, 64)
    assert ten_bit.dtype == np.uint16
    assert ten_bit.max() == round(228 / 255 * 1023)


def test_saturation_clips_at_full_scale() -> None:
    for depth in (8, 12, 16):
        bright = SimulationSettings((64, 64), bit_depth=depth, instrument=Instrument(exposure=1.4), surface="smooth")
        frames = frame_rows(bright, 0, 64)
        assert frames.max() == 2**depth - 1
        assert 0.1 < np.mean(frames == 2**depth - 1) < 0.5


def flat_noise(instrument: Instrument, shape: tuple[int, int] = (200, 500)) -> tuple[np.ndarray, np.ndarray]:
    """Noise (DN at 16 bit, rounding included) and noise-free signal of a flat surface."""
    choice = SimulationSettings(shape, INFRARED[:2], bit_depth=16, surface=FLAT, instrument=instrument, seed=9)
    simulator = Simulator(choice)
    signal = ideal_signal(simulator, instrument)
    return simulator.frame_rows(0, shape[0]) - signal, signal


def test_read_noise_has_its_variance() -> None:
    noise, _ = flat_noise(replace(Instrument.ideal(), read_noise_dn=40.0))
    count = noise.size
    # read noise and rounding; the standard error of a variance is sqrt(2 / n), of a mean sigma / sqrt(n): 5 of each
    assert noise.var() == pytest.approx(40.0**2 + 1 / 12, rel=5 * np.sqrt(2 / count))
    assert abs(noise.mean()) < 5 * 40 / np.sqrt(count)


def test_shot_noise_grows_with_the_light() -> None:
    gain = 0.16
    noise, signal = flat_noise(replace(Instrument.ideal(), shot_noise=True, gain_e_per_dn=gain))
    for wave in range(2):
        for k in range(4):
            part, light = noise[wave, k], signal[wave, k].mean()
            assert part.var() == pytest.approx(light / gain + 1 / 12, rel=5 * np.sqrt(2 / part.size))


def test_default_noise_is_the_sensors() -> None:
    noise, signal = flat_noise(Instrument(vignetting_background=0.0, vignetting_modulation=0.0))
    electrons = 10400 / 65535
    expected = 8.0**2 + signal[0, 0].mean() * electrons
    assert noise[0, 0].var() * electrons**2 == pytest.approx(expected, rel=5 * np.sqrt(2 / noise[0, 0].size))


def test_noise_is_normal_and_white() -> None:
    noise, _ = flat_noise(replace(Instrument.ideal(), read_noise_dn=400.0), (256, 512))
    white = noise.reshape(8, 256, 512) / 400.0
    n = white.size
    assert stats.kstest(white[::3, ::3, ::5].ravel(), "norm").pvalue > 1e-4
    assert abs(stats.skew(white, axis=None)) < 5 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(white, axis=None)) < 5 * np.sqrt(24 / n)
    # neighbours along x, y, diagonal, frames (pairs share a call, halves do not): correlation 0 +- 1 / sqrt(n)
    for shift in ((0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (1, 0, 0), (2, 0, 0), (4, 0, 0), (0, 2, -1)):
        other = np.roll(white, shift, axis=(0, 1, 2))
        assert abs(np.mean(white * other)) < 5 / np.sqrt(n), shift
        assert abs(np.mean((white**2 - 1) * (other**2 - 1))) < 5 * 2 / np.sqrt(n), shift
    spectrum = np.abs(np.fft.fft2(white[0])) ** 2 / white[0].size
    assert spectrum.max() < 2 * np.log(spectrum.size)  # a line would stand out; the largest of n exponentials is ln n


def test_normals_reach_the_tails() -> None:
    first, second = np.empty(2_000_000, np.float32), np.empty(2_000_000, np.float32)
    normal_rows(row_key(3, 1, 2, 0), first, second)
    for values in (first, second):
        beyond = np.count_nonzero(np.abs(values) > 4)
        expected = 2 * stats.norm.sf(4) * len(values)
        assert abs(beyond - expected) < 5 * np.sqrt(expected)
        assert 4.5 < np.abs(values).max() < 6.7


def test_sine_of_turns() -> None:
    turns = np.linspace(-0.25, 0.25, 4001).astype(np.float32)
    values = np.array([sin_quarter(value) for value in turns])
    np.testing.assert_allclose(values, np.sin(2 * np.pi * turns.astype(np.float64)), atol=2.5e-7)


# --- faults ------------------------------------------------------------------------------------------------------

NOMINAL = np.tile(np.arange(12) * 30.0, (2, 1))


def pooled(instrument: Instrument, what: str) -> np.ndarray:
    faults = [draw_faults(instrument, NOMINAL, seed) for seed in range(150)]
    return np.stack([getattr(fault, what) for fault in faults])


def test_step_errors_have_their_rms_and_the_gauge() -> None:
    errors = np.degrees(pooled(Instrument(step_error_deg=5.0), "step_rad")) - NOMINAL
    assert np.abs(errors[:, :, 0]).max() < 1e-12
    # 3300 draws: the standard error of an rms is 1 / sqrt(2 n)
    assert np.sqrt(np.mean(errors[:, :, 1:] ** 2)) == pytest.approx(5.0, rel=5 / np.sqrt(2 * 3300))
    both = pooled(Instrument(step_error_deg=5.0, piston_rad=0.2), "step_rad") - np.radians(NOMINAL)
    expected = np.hypot(np.radians(5.0), 0.2)
    assert np.sqrt(np.mean(both[:, :, 1:] ** 2)) == pytest.approx(expected, rel=5 / np.sqrt(2 * 3300))


def test_true_steps_are_told_in_degrees() -> None:
    simulator = Simulator(SimulationSettings((16, 16), instrument=Instrument(step_error_deg=3.0), seed=2))
    steps = simulator.faults.steps_deg
    assert steps[0][0] == 0.0
    assert steps[0] != (0.0, 90.0, 180.0, 270.0)
    np.testing.assert_allclose(steps[0], (0, 90, 180, 270), atol=15)
    assert Simulator(SimulationSettings((16, 16), frames=3)).faults.steps_deg == ((0.0, 120.0, 240.0),)


def test_tilt_has_its_rms_at_the_edge() -> None:
    tilt = pooled(Instrument(tilt_rad=0.4), "tilt_rad")
    assert np.abs(tilt[:, :, 0]).max() == 0
    edge = np.hypot(tilt[:, :, 1:, 0], tilt[:, :, 1:, 1])
    assert np.sqrt(np.mean(edge**2)) == pytest.approx(0.4, rel=5 / np.sqrt(2 * 3300))
    # in the frames: the phase of frame 1 against frame 0 is a plane of that slope
    choice = SimulationSettings((65, 65), bit_depth=16, surface=replace(FLAT, disc=True), seed=4)
    tilted = Simulator(replace(choice, instrument=replace(Instrument.ideal(), tilt_rad=0.4)))
    swing = tilted.frame_rows(32, 33)[0, 1, 0].astype(np.float64)  # A - B sin(t.r) along the middle row
    inside = np.isfinite(tilted.surface_rows(32, 33)[0][0])
    slope = np.arcsin((128 / 255 * 65535 - swing[inside]) / (100 / 255 * 65535))
    span = tilted.surface.grid.x_mm[inside] / tilted.surface.grid.radius_mm
    np.testing.assert_allclose(np.polyfit(span, slope, 1), [tilted.faults.tilt_rad[0, 1, 0], 0], atol=1e-4)


def test_gain_drift_scales_whole_frames() -> None:
    gains = pooled(Instrument(gain_drift=0.03), "gain")
    assert gains.std() == pytest.approx(0.03, rel=5 / np.sqrt(2 * 3600))
    drifting = Simulator(
        SimulationSettings(
            (32, 32), surface=FLAT, bit_depth=16, instrument=replace(Instrument.ideal(), gain_drift=0.03)
        )
    )
    frames = drifting.frame_rows(0, 32)[0]
    assert frames[1].mean() == pytest.approx(128 / 255 * 65535 * drifting.faults.gain[0, 1], abs=1)


def test_wavelength_offsets_leave_the_first_alone() -> None:
    offset = pooled(Instrument(wavelength_piston_rad=0.7, wavelength_tilt_rad=0.3), "offset_rad")
    assert np.abs(offset[:, 0]).max() == 0
    assert offset[:, 1].std() == pytest.approx(0.7, rel=5 / np.sqrt(2 * 150))


def test_harmonics_are_those_of_the_argument() -> None:
    instrument = replace(Instrument.ideal(), second_harmonic=0.14, third_harmonic=0.05)
    choice = SimulationSettings((40, 50), frames=16, bit_depth=16, surface="smooth", instrument=instrument)
    orders = np.abs(np.fft.fft(frame_rows(choice, 0, 40)[0].astype(np.float64), axis=0)) / 8
    # rounding leaves sqrt(2/16)/sqrt(12) = 0.1 DN rms of B = 25700
    np.testing.assert_allclose(orders[2] / orders[1], 0.14, atol=5e-5)
    np.testing.assert_allclose(orders[3] / orders[1], 0.05, atol=5e-5)
    assert orders[4].max() < 1.0


def test_vignetting_in_both_fields() -> None:
    instrument = replace(Instrument.ideal(), vignetting_background=0.2, vignetting_modulation=0.4)
    frames = frame_rows(SimulationSettings((51, 51), surface="smooth", bit_depth=16, instrument=instrument), 0, 51)[0]
    one, two, three, four = frames.astype(np.float64)
    background = (one + two + three + four) / 4
    modulation = np.hypot(one - three, four - two) / 2
    assert background[0, 0] / background[25, 25] == pytest.approx(0.8, abs=1e-4)
    assert modulation[-1, 0] / modulation[25, 25] == pytest.approx(0.6, abs=1e-4)


def test_dead_pixels_are_stuck_in_every_frame() -> None:
    choice = SimulationSettings((300, 300), INFRARED, surface=FLAT, instrument=Instrument(dead_fraction=0.02))
    frames = frame_rows(choice, 0, 300).reshape(16, 300, 300)
    dark, hot = (frames == 0).all(axis=0), (frames == 255).all(axis=0)
    for stuck, share in ((dark, 0.01), (hot, 0.01), (dark | hot, 0.02)):
        assert stuck.mean() == pytest.approx(share, abs=5 * np.sqrt(share / stuck.size))
    assert not ((frames == 0) & ~dark).any()


# --- settings ----------------------------------------------------------------------------------------------------


def test_acquisition_says_what_the_steps_are_worth() -> None:
    exact = SimulationSettings((64, 64), INFRARED, phase_steps_deg=(0, 120, 240), bit_depth=12)
    assert exact.acquisition.steps == "trusted"
    assert exact.acquisition.phase_steps_deg == ((0.0, 120.0, 240.0),) * 4
    assert exact.acquisition.bit_depth == 12
    assert exact.acquisition.pixel_um == pytest.approx(300e3 / (0.96 * 64), abs=1e-4)
    for fault in ({"step_error_deg": 1.0}, {"tilt_rad": 0.1}, {"piston_rad": 0.1}):
        assert replace(exact, instrument=Instrument(**fault)).acquisition.steps == "nominal"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shape": (4, 64)}, "from 8 pixels"),
        ({"bit_depth": 7}, "8 to 16"),
        ({"bit_depth": 17}, "8 to 16"),
        ({"seed": -1}, "seed"),
        ({"frames": 2}, "three frames"),
        ({"frames": 4, "phase_steps_deg": (0, 120, 240)}, "3 phase steps for 4 frames"),
        ({"phase_steps_deg": ((0, 90, 180), (0, 90))}, "equal length"),
        ({"phase_steps_deg": (0, 360, 90)}, "distinct"),
        ({"wavelengths_nm": ()}, "no wavelength"),
        ({"wavelengths_nm": (500.0, 500.0)}, "repeat"),
        ({"surface": "waver"}, "did you mean 'wafer'"),
        ({"pixel_um": 0.0}, "pixel size"),
    ],
)
def test_bad_settings_are_refused(given: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SimulationSettings(**({"shape": (64, 64)} | given))


@pytest.mark.parametrize(
    "given",
    [{"tilt_rad": -1.0}, {"gain_e_per_dn": 0.0}, {"dead_fraction": 1.5}, {"read_noise_dn": float("nan")}],
)
def test_bad_instruments_are_refused(given: dict) -> None:
    with pytest.raises(InputError):
        Instrument(**given)


@pytest.mark.parametrize("given", [{"nano_band_mm": (5.0, 2.0)}, {"bump_nm": -1.0}, {"diameter_mm": 0.0}])
def test_bad_surfaces_are_refused(given: dict) -> None:
    with pytest.raises(InputError):
        SurfaceSettings(**given)


def test_rows_outside_the_image_are_refused() -> None:
    for start, stop in ((-1, 4), (4, 65), (5, 4)):
        with pytest.raises(InputError, match="rows"):
            surface_rows(SimulationSettings((64, 64)), start, stop)
