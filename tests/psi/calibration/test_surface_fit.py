"""Few and bad frames: a smooth surface fitted to raw samples, against the truth, its own sigma, and what it must refuse."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.calibrate import calibrate_stack
from cpikan.pipeline.reconstruction.summary import describe_fits
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.calibration.calibrate import CalibrationSettings, calibrate
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.carrier import WholeRows
from cpikan.psi.calibration.surface_fit import fit as whole_fit
from cpikan.psi.calibration.surface_fit.fit import SurfaceFitOptions, fit_surface_to_frames, sample_noise
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameResiduals
from cpikan.psi.calibration.surface_fit.problem import Degrees, Samples, Spreads, frame_residuals, moved
from cpikan.psi.calibration.surface_fit.regularise import residual_diagnostics, spread_problem
from cpikan.psi.calibration.surface_fit.result import SurfaceFit
from cpikan.psi.calibration.surface_fit.starts import ROBUST
from cpikan.psi.calibration.surface_fit.verdict import Thresholds, judged
from cpikan.psi.model.acquisition import Acquisition
from small_stacks import stack_of

WAVE_NM = 632.8
NM_PER_RAD = WAVE_NM / (4 * np.pi)
SHAPE = (120, 160)
TOP_DN = 255.0
BLIND = Acquisition((WAVE_NM,))
# half the pixels of the fit leave half as much again of error, and half the random starts are enough for 2.5 fringes
FEW = SurfaceFitOptions(limits=Thresholds(least_pixels=1200, most_pixels=1200, starts_per_round=2))


def coordinates() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.indices(SHAPE, dtype=float)
    return 2 * y / (SHAPE[0] - 1) - 1, 2 * x / (SHAPE[1] - 1) - 1


def phase_rad() -> np.ndarray:
    """2.5 fringes: a slope, a bow and a wave."""
    y, x = coordinates()
    return 4.0 * x + 2.5 * y + 1.5 * (x**2 + y**2) + 0.8 * x * y + 0.4 * np.sin(3 * x + 2 * y)


def frames_of(steps_deg: tuple[float, ...], tilts: tuple[tuple[float, float], ...] | None = None) -> np.ndarray:
    """(1, K, H, W) in DN with 1 % of full scale of noise, uneven light; tilts in rad at the edges, y and x."""
    y, x = coordinates()
    rng = np.random.default_rng(5)
    light, power = 118 + 14 * x - 9 * y + 6 * x * y, 78 - 10 * y**2 + 8 * x
    rows = []
    for k, step in enumerate(steps_deg):
        ty, tx = tilts[k] if tilts else (0.0, 0.0)
        rows.append(light + power * np.cos(phase_rad() + np.radians(step) + ty * y + tx * x))
    frames = np.array(rows) + rng.normal(0, 0.01 * TOP_DN, (len(rows), *SHAPE))
    return np.round(np.clip(frames, 0, TOP_DN)).astype(np.uint8)[None]


@functools.cache
def sample_of(steps_deg: tuple[float, ...], tilts: tuple[tuple[float, float], ...] | None = None) -> Subsample:
    stack = stack_of(frames_of(steps_deg, tilts), (WAVE_NM,), None, "unknown")
    return take_subsample(stack, None)


TWO = (0.0, 71.0)
THREE, TILTS = (0.0, 75.0, 210.0), ((0.0, 0.0), (0.9, -0.6), (-0.5, 0.8))


@functools.cache
def two_frames() -> SurfaceFit:
    return fit_surface_to_frames(sample_of(TWO), BLIND, TOP_DN)


def error_nm(fit: SurfaceFit, sample: Subsample, sign: int = 1) -> np.ndarray:
    """Height error at the samples without piston: blind steps leave that and the sign open, nothing else."""
    truth = sign * phase_rad()[tuple(sample.position.T)] * NM_PER_RAD
    off = fit.height_nm(sample.position) - truth
    return off - off.mean()


def test_moving_between_layouts_keeps_every_number():
    small, large = Degrees(1, 2, fit_tilt=False, fit_gain=False), Degrees(3, 5, has_second_harmonic=True)
    before, after = small.layout(3), large.layout(3)
    vector = torch.arange(1.0, before.size + 1)[None]
    there = moved(vector, before, after)
    assert torch.equal(moved(there, after, before), vector)
    assert float(there.sum()) == float(vector.sum())


def test_two_frames_of_few_fringes_give_the_surface_where_closed_form_refuses():
    """The steps' closed form needs four fringes; here are 2.5 and an unknown step."""
    sample, fit = sample_of(TWO), two_frames()
    with pytest.raises(InputError, match="fringes"):
        calibrate(sample, BLIND, TOP_DN, CalibrationSettings())
    assert fit.determined, fit.reason
    assert fit.sign == "assumed"
    off = error_nm(fit, sample)
    assert np.sqrt((off**2).mean()) < 5.0  # the target; the predicted sigma is below 2 nm
    # smooth errors, few of them independent: three sigmas, and one of two of them would be too much luck
    ratio = np.sqrt((off**2).mean()) / np.sqrt((fit.sigma_nm(sample.position) ** 2).mean())
    assert 0.1 < ratio < 3.0
    assert fit.step_fit().steps_deg[1] == pytest.approx(TWO[1], abs=2.0)
    # sample noise squared: four rows of 160 pixels of two frames, of fourth differences 38 % count as independent: 7 %
    assert 0.8 < fit.chi2 < 1.2
    assert fit.held_chi2 < 1.1 * fit.chi2  # 2500 pixels of two frames on either side: 2 % each
    assert fit.noise_dn == pytest.approx(np.hypot(0.01 * TOP_DN, 12**-0.5), rel=0.11)  # three times its half of 7 %


def test_the_residual_is_a_root_mean_square_in_counts():
    """Of chi squared four and noise of 2.5 DN twice 2.5 DN are left over; a pixel's phase errs by the excess over B."""
    fit = replace(two_frames(), chi2=4.0, noise_dn=2.5)
    assert fit.residual_dn == pytest.approx(5.0, rel=1e-12)
    modulation = float(fit.parameters[fit.layout.light]) * fit.unit_dn
    assert fit.misfit_rad == pytest.approx(np.sqrt(5.0**2 - 2.5**2) / modulation, rel=1e-12)
    assert fit.summary()["residual_dn"] == fit.step_fit().residual_dn == fit.residual_dn


@pytest.mark.parametrize(
    ("fit", "limits", "told"),
    [
        ({}, {"largest_sigma_rad": 1e-9}, "fringes are too few"),
        ({"runner_up": 30.0}, {"log_odds": 40.0}, "another surface"),
        ({"chi2": 1.0, "held_chi2": 1.2}, {"overfitted": 1.1}, "pixels that were not fitted"),
        ({"chi2": 1.2, "unevenness": 2.0}, {"unevenness": 1.5}, "false minimum"),
        ({"chi2": 1.1, "unevenness": 3.0}, {"uneven_chi2": 1.05}, "false minimum"),
        ({"chi2": 25.0, "unevenness": 1.0}, {"worst_share": 0.05}, "the surface is not smooth"),
    ],
)
def test_every_limit_decides_on_the_verdict(fit: dict, limits: dict, told: str):
    """The surface of two frames is determined, with numbers changed a little too, until a limit is made narrower."""
    points = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    changed = replace(two_frames(), **fit)
    assert judged(changed, points, Thresholds()).determined
    strict = judged(changed, points, replace(Thresholds(), **limits))
    assert strict.verdict == "not determined"
    assert told in strict.reason


@pytest.mark.parametrize(
    ("limits", "told"), [({"good_chi2": 1.1}, "times the noise"), ({"uneven_light": 0.0}, "varies")]
)
def test_every_limit_decides_on_the_warnings(limits: dict, told: str):
    points, fit = np.random.default_rng(0).uniform(-1, 1, (200, 2)), replace(two_frames(), chi2=1.2)
    loose = replace(Thresholds(), uneven_light=1.0)
    assert not any(told in one.text for one in judged(fit, points, loose).warnings)
    assert any(told in one.text for one in judged(fit, points, replace(loose, **limits)).warnings)


def test_light_of_the_fit_is_that_of_the_frames():
    y, x = coordinates()
    rows, columns = np.indices(SHAPE)
    background = two_frames().background_dn.at(rows, columns)
    # 2.5 fringes have parts that look like uneven light: a tenth of the modulation, which would be 5 nm if all were phase
    assert np.std(background - (118 + 14 * x - 9 * y + 6 * x * y)) < 7.8
    modulation = two_frames().modulation_dn.at(rows, columns)
    assert np.std(modulation - (78 - 10 * y**2 + 8 * x)) < 7.8


def test_tilted_frames_give_surface_steps_and_tilts():
    sample = sample_of(THREE, TILTS)
    fit = fit_surface_to_frames(sample, BLIND, TOP_DN, FEW)
    assert fit.determined, fit.reason
    assert np.std(error_nm(fit, sample)) < 5.0
    unit = (np.array(SHAPE) - 1) / 2
    assert np.allclose(fit.frame_model().tilt_rad_px * unit, TILTS, atol=0.05)
    centre = (np.array(SHAPE) - 1) / 2
    steps = np.degrees(fit.frame_model().steps_at(*centre))
    assert np.allclose(steps, THREE, atol=3.0)


def test_nominal_steps_fix_the_sign_and_broken_pixels_are_not_looked_at():
    """Steps given with the other sign: phase and steps come out mirrored, and not as an assumption."""
    given = Acquisition((WAVE_NM,), ((0.0, -80.0),), "nominal")
    sample = sample_of(TWO)
    rng = np.random.default_rng(0)
    broken = rng.random(len(sample.position)) < 0.2
    frames = sample.frames.copy()
    frames[0, :, broken] = rng.integers(0, 200, (int(broken.sum()), 2))
    fit = fit_surface_to_frames(replace(sample, frames=frames, valid=sample.valid & ~broken), given, TOP_DN, FEW)
    assert fit.sign == "nominal"
    assert np.std(error_nm(fit, sample, sign=-1)) < 5.0
    assert fit.step_fit().steps_deg[1] == pytest.approx(360 - TWO[1], abs=2.0)


def test_trusted_steps_of_two_frames_fix_step_and_sign():
    given = Acquisition((WAVE_NM,), (TWO,), "trusted")
    sample, fit = sample_of(TWO), fit_surface_to_frames(sample_of(TWO), given, TOP_DN, FEW)
    assert fit.sign == "steps"
    assert fit.step_fit().steps_deg[1] == pytest.approx(TWO[1], abs=0.1)  # the prior of a trusted step has 0.006 deg
    assert np.std(error_nm(fit, sample)) < min(5.0, 3 * fit.sigma_nm(sample.position).max())


def test_contrast_lost_by_vibration_gives_a_right_surface_or_none():
    """The second frame's fringes are weaker than the first's, its background is not: no gain makes that of it."""
    y, x = coordinates()
    rng = np.random.default_rng(6)
    rows = [
        118 + 14 * x - 9 * y + share * (78 - 10 * y**2) * np.cos(phase_rad() + step)
        for share, step in ((1.0, 0.0), (0.4, np.radians(TWO[1])))
    ]
    frames = np.round(np.array(rows) + rng.normal(0, 0.01 * TOP_DN, (2, *SHAPE))).astype(np.uint8)[None]
    sample = take_subsample(stack_of(frames, (WAVE_NM,), None, "unknown"), None)
    fit = fit_surface_to_frames(sample, BLIND, TOP_DN, FEW)
    error, sigma = np.std(error_nm(fit, sample)), np.sqrt((fit.sigma_nm(sample.position) ** 2).mean())
    assert not fit.determined or error < max(5.0, 3 * sigma), (error, sigma)


def test_noise_of_samples_grows_with_light_and_is_not_biased_by_whole_numbers():
    rng = np.random.default_rng(2)
    x = np.arange(1000)
    light = 100 + 80 * np.cos(2 * np.pi * x / 40)
    sigma = np.sqrt(2.0 + 0.05 * light)
    found = sample_noise(np.round(light + rng.normal(0, sigma, (2, 20, 1000))), 1.0)
    # 40 000 fourth differences, 38 % of them independent: 1.1 % of the variance each at their mean
    assert found.variance(np.array([100.0]))[0] == pytest.approx(7.0 + 1 / 12, rel=0.05)
    assert found.gain_dn == pytest.approx(0.05, rel=0.15)


def test_spreads_of_terms_are_found_with_the_gradient_of_their_evidence():
    model, degrees, vector = linear_frames()
    problem = spread_problem(model, degrees, vector, ROBUST, Spreads(), 1.0)
    at = np.array([-2.0, -0.5, -3.0, -0.8, 0.5, -0.6])
    step = 1e-4  # evidence of 1e7 is rounded to 2e-9, and its differences over a step of 1e-5 to no better than 2e-4
    for i, slope in enumerate(problem.negative_evidence(at)[1]):
        off = np.zeros(6)
        off[i] = step
        up, down = (problem.negative_evidence(at + sign * off)[0] for sign in (1, -1))
        assert slope == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-4)
    best = problem.spreads().logs
    assert best is not None
    assert problem.negative_evidence(best.ravel())[0] <= problem.negative_evidence(at)[0]


def test_what_is_left_over_is_smooth_under_a_wrong_surface_and_even_under_the_right_one():
    """A wrong bow is a false minimum in small: power at large scales."""
    model, _, vector = linear_frames()
    right = residual_diagnostics(model, vector, ROBUST)
    wrong = vector.copy()
    wrong[-1] += 0.5
    assert right.unevenness < 1.6  # 128 sums against 2048: 13 % of scatter
    assert right.temperature < 1.6
    assert residual_diagnostics(model, wrong, ROBUST).unevenness > 2.5


def linear_frames() -> tuple[FrameResiduals, Degrees, np.ndarray]:
    """The model of two frames that it made itself, with unit noise, and what they were made of."""
    rng = np.random.default_rng(3)
    degrees = Degrees(2, 4, fit_tilt=False, fit_gain=False)
    points = rng.uniform(-1, 1, (4000, 2))
    layout = degrees.layout(2)
    parts = [np.r_[50.0, 3.0, -2.0, 0.5, 0.3, -0.4], np.r_[30.0, 1.0, 1.0, 0.2, -0.3, 0.1], [1.2]]
    vector = np.concatenate([*parts, rng.normal(0, 0.7, layout.form)])
    blank = Samples(points, rng.normal(50, 20, (2, 4000)), np.ones((2, 4000)), None, "unknown")
    made = frame_residuals(blank, degrees).residuals(torch.from_numpy(vector)[None])[0].numpy()
    frames = blank.frames + made + rng.normal(size=made.shape)
    return frame_residuals(replace(blank, frames=frames), degrees), degrees, vector


def test_a_network_as_the_phase_finds_the_same_surface():
    fit = fit_surface_to_frames(sample_of(TWO), BLIND, TOP_DN, replace(FEW, field="cpikan"))
    assert fit.network is not None
    assert np.std(error_nm(fit, sample_of(TWO))) < 5.0


def test_the_pipeline_takes_the_fit_where_steps_are_refused():
    settings = CalibrationSettings()
    calibration, fit = calibrate_stack(sample_of(TWO), BLIND, TOP_DN, settings, by_surface=True)
    assert fit is not None
    facts = fit.summary
    assert np.median(fit.sigma_nm) == pytest.approx(facts["sigma_nm_median"], rel=0.5)
    assert facts["steps_by"] == "frames fit"
    assert facts == two_frames().summary()  # the same frames give the same bits
    json.dumps([facts, describe_fits(calibration)], allow_nan=False)
    assert calibration.steps.sign == "assumed"
    assert any(one.name == "sign-assumed" for one in calibration.warnings)
    assert calibration.steps_deg[0][1] == pytest.approx(TWO[1], abs=2.0)
    with pytest.raises(InputError, match="do not determine"):  # other methods refuse as before
        calibrate_stack(sample_of(TWO), BLIND, TOP_DN, settings, by_surface=False)


def test_enough_good_frames_are_left_to_the_closed_form():
    steps = (0.0, 90.0, 180.0, 270.0, 360.0)
    known = Acquisition((WAVE_NM,), (steps,), "trusted")
    assert calibrate_stack(sample_of(steps), known, TOP_DN, CalibrationSettings(), by_surface=True)[1] is None


def noise_only() -> Subsample:
    rng = np.random.default_rng(1)
    y, x = np.divmod(np.arange(600), 40)
    frames = rng.normal(100, 20, (1, 2, 600))
    rows = WholeRows(rng.normal(100, 20, (1, 2, 4, 40)), np.arange(4))
    return Subsample(frames, np.stack([y, x], axis=1), rows, np.ones(600, bool), (15, 40))


def test_frames_without_a_surface_are_not_determined_and_refused_in_one_line(monkeypatch: pytest.MonkeyPatch):
    few = SurfaceFitOptions(
        limits=Thresholds(rounds=2, starts_per_round=2)
    )  # others end in other minima of the same kind
    monkeypatch.setattr(whole_fit, "fit_surface_to_frames", functools.partial(fit_surface_to_frames, options=few))
    with pytest.raises(InputError, match="nor do the frames fit a smooth surface") as caught:
        calibrate_stack(noise_only(), BLIND, np.inf, CalibrationSettings(), by_surface=True)
    assert "\n" not in str(caught.value)


def test_too_few_pixels_and_single_frames_are_refused():
    sample = noise_only()
    with pytest.raises(InputError, match="are usable"):
        fit_surface_to_frames(replace(sample, valid=np.arange(600) < 100), BLIND, np.inf)
    with pytest.raises(InputError, match="needs two or more"):
        fit_surface_to_frames(replace(sample, frames=sample.frames[:, :1]), BLIND, np.inf)
    with pytest.raises(InputError, match="did you mean 'cpikan'"):
        SurfaceFitOptions("cpikann")  # type: ignore[arg-type]
