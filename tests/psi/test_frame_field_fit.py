"""Few and bad frames: a smooth surface fitted to raw samples, against the truth, its own sigma, and what it must refuse."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.pipeline.frame_fitting import calibrate_stack
from cpikan.pipeline.subsample import take_subsample
from cpikan.pipeline.summary import describe_fits
from cpikan.psi.acquisition import Acquisition
from cpikan.psi.calibrate import CalibrationSettings, Subsample, calibrate
from cpikan.psi.field_fit.fit import FieldFitOptions, fit_frames
from cpikan.psi.field_fit.problem import Degrees, features, moved, terms
from cpikan.psi.field_fit.result import FrameFieldFit
from cpikan.psi.steps_fit.carrier import WholeRows
from small_stacks import stack_of

WAVE_NM = 632.8
NM_PER_RAD = WAVE_NM / (4 * np.pi)
SHAPE = (120, 160)
TOP_DN = 255.0
BLIND = Acquisition((WAVE_NM,))


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
def two_frames() -> FrameFieldFit:
    return fit_frames(sample_of(TWO), BLIND, TOP_DN)


def error_nm(fit: FrameFieldFit, sample: Subsample, sign: int = 1) -> np.ndarray:
    """Height error at the samples without piston: blind steps leave that and the sign open, nothing else."""
    truth = sign * phase_rad()[tuple(sample.position.T)] * NM_PER_RAD
    off = fit.height_nm(sample.position) - truth
    return off - off.mean()


def test_terms_of_a_degree_are_those_of_a_lower_one_and_more():
    assert (terms(5)[: len(terms(3))] == terms(3)).all()
    points = np.array([[0.3, -0.7]])
    expected = np.polynomial.chebyshev.chebval2d(0.3, -0.7, [[0, 0, 0], [0, 1.0, 0]])
    which = int(np.flatnonzero((terms(2) == [1, 1]).all(axis=1))[0])
    assert features(points, 2)[0, which] == pytest.approx(float(expected))


def test_moving_between_layouts_keeps_every_number():
    import torch

    small, large = Degrees(1, 2, tilted=False, gained=False), Degrees(3, 5, bent=True)
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
    # the sigma is that of a linear model of a few hundred terms: smooth errors, few of them independent
    assert np.sqrt((off**2).mean()) < 4 * np.sqrt((fit.sigma_nm(sample.position) ** 2).mean())
    assert fit.frame_fit().steps_deg[1] == pytest.approx(TWO[1], abs=2.0)
    # the noise of neighbours is that of a sample to a few per cent; quantisation adds 1/12 DN^2 to 6.5
    assert 0.9 < fit.chi2 < 1.4


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
    fit = fit_frames(sample, BLIND, TOP_DN)
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
    fit = fit_frames(replace(sample, frames=frames, valid=sample.valid & ~broken), given, TOP_DN)
    assert fit.sign == "nominal"
    assert np.std(error_nm(fit, sample, sign=-1)) < 5.0
    assert fit.frame_fit().steps_deg[1] == pytest.approx(360 - TWO[1], abs=2.0)


def test_a_network_as_the_phase_finds_the_same_surface():
    fit = fit_frames(sample_of(TWO), BLIND, TOP_DN, FieldFitOptions("cpikan"))
    assert fit.network is not None
    assert np.std(error_nm(fit, sample_of(TWO))) < 5.0


def test_the_pipeline_takes_the_fit_where_steps_are_refused():
    settings = CalibrationSettings()
    calibration, facts = calibrate_stack(sample_of(TWO), BLIND, TOP_DN, settings, "field")
    assert facts is not None
    assert facts["steps_by"] == "frames fit"
    assert facts == two_frames().summary()  # the same frames give the same bits
    json.dumps([facts, describe_fits(calibration)], allow_nan=False)
    assert calibration.steps.sign == "assumed"
    assert any("sign of the height is assumed" in text for text in calibration.warnings)
    assert calibration.steps_deg[0][1] == pytest.approx(TWO[1], abs=2.0)
    with pytest.raises(InputError, match="do not determine"):  # other methods refuse as before
        calibrate_stack(sample_of(TWO), BLIND, TOP_DN, settings, "auto")


def test_enough_good_frames_are_left_to_the_closed_form():
    steps = (0.0, 90.0, 180.0, 270.0, 360.0)
    known = Acquisition((WAVE_NM,), (steps,), "trusted")
    assert calibrate_stack(sample_of(steps), known, TOP_DN, CalibrationSettings(), "field")[1] is None


def noise_only() -> Subsample:
    rng = np.random.default_rng(1)
    y, x = np.divmod(np.arange(3000), 60)
    frames = rng.normal(100, 20, (1, 2, 3000))
    rows = WholeRows(rng.normal(100, 20, (1, 2, 4, 60)), np.arange(4))
    return Subsample(frames, np.stack([y, x], axis=1), rows, np.ones(3000, bool), (50, 60))


def test_frames_without_a_surface_are_not_determined_and_refused_in_one_line():
    with pytest.raises(InputError, match="nor do the frames fit a smooth surface") as caught:
        calibrate_stack(noise_only(), BLIND, np.inf, CalibrationSettings(), "field")
    assert "\n" not in str(caught.value)


def test_too_few_pixels_and_single_frames_are_refused():
    sample = noise_only()
    with pytest.raises(InputError, match="are usable"):
        fit_frames(replace(sample, valid=np.arange(3000) < 100), BLIND, np.inf)
    with pytest.raises(InputError, match="needs two or more"):
        fit_frames(replace(sample, frames=sample.frames[:, :1]), BLIND, np.inf)
    with pytest.raises(InputError, match="did you mean 'cpikan'"):
        FieldFitOptions("cpikann")  # type: ignore[arg-type]
