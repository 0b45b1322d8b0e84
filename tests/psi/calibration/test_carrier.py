"""Steps and tilts from a carrier, and a camera's curve from the frames: against what made them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.psi.calibration.steps.carrier import WholeRows, carrier_of
from cpikan.psi.calibration.steps.fit import FitOptions, fit_phase_steps
from cpikan.psi.model.frame_model import Response

WIDTH = 960
LINES = np.array([10, 200, 390, 580])


def rows_of(
    steps_deg: list[float], tilt: np.ndarray, *, fringes: float = 60.0, bend: float = 3.0, noise: float = 3.0
) -> WholeRows:
    x, y = np.arange(WIDTH) / WIDTH, LINES[:, None] / 600
    phase = 2 * np.pi * (fringes * x + 5 * y) + bend * np.sin(4 * x + 2 * y)
    delta = np.radians(steps_deg)[:, None, None] + tilt[:, 0, None, None] * (LINES[:, None] - 295.0)
    delta = delta + tilt[:, 1, None, None] * (np.arange(WIDTH) - WIDTH / 2 + 0.5)
    light = 100 + 30 * np.sin(5 * x) + 50 * np.cos(phase + delta)
    return WholeRows(light + np.random.default_rng(0).normal(0, noise, light.shape), LINES)


def test_steps_and_tilts_of_a_carrier() -> None:
    tilt = np.array([[0, 0], [1e-3, -1e-3], [-8e-4, 1.6e-3]])
    steps = [0.0, 145.0, -16.0]
    found = carrier_of(rows_of(steps, tilt))
    assert found is not None
    # 4 rows of 960 pixels at sigma / B = 0.06: a thousandth of a radian; side bands of the bent background add some
    np.testing.assert_allclose(np.degrees(found.steps_at((295.0, WIDTH / 2 - 0.5))), steps, atol=1.5)
    np.testing.assert_allclose(found.tilt_rad_px, tilt, atol=1e-4)


@pytest.mark.parametrize("rows", [{"fringes": 2.0}, {"noise": 1000.0}])
def test_no_carrier_no_answer(rows: dict[str, float]) -> None:
    assert carrier_of(rows_of([0.0, 90.0, 180.0], np.zeros((3, 2)), **rows)) is None


def test_three_dense_frames_with_uneven_light_need_the_carrier() -> None:
    """Steps of 145 and 344 deg, the third frame tilted: the fit from the carrier's start ends near them."""
    rng = np.random.default_rng(3)
    where = np.stack(np.meshgrid(np.arange(0, 600, 7), np.arange(0, WIDTH, 7), indexing="ij"), -1).reshape(-1, 2)
    y, x = where.T / np.array([[600.0], [WIDTH]])
    tilt = np.array([[0, 0], [0, 4e-4], [2e-4, 1.5e-3]])
    steps = np.radians([0.0, 145.0, 344.0])
    centre = where - where.mean(axis=0)
    delta = steps[:, None] + tilt @ centre.T
    phase = 2 * np.pi * (60 * x + 5 * y) + 3 * np.sin(4 * x + 2 * y)
    modulation = 50 * (1 + 0.1 * np.sin(9 * x) * np.cos(7 * y))
    frames = 100 + 20 * np.sin(5 * x) + modulation * np.cos(phase + delta) + rng.normal(0, 1.5, delta.shape)
    carrier = carrier_of(rows_of([0.0, 145.0, 344.0], tilt))
    fit = fit_phase_steps(frames, where.astype(float), None, FitOptions(effects=frozenset({"tilt"}), carrier=carrier))
    off = (np.subtract(fit.steps_deg, [0.0, 145.0, 344.0]) + 180) % 360 - 180
    assert np.abs(off).max() < 2.0


def stack_of(count: int, curve: Response, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (K, P) of a camera whose light is the curve of the sample, their positions and the steps in degrees."""
    rng = np.random.default_rng(seed)
    where = np.stack(np.meshgrid(np.arange(0, 200, 2), np.arange(0, 240, 2), indexing="ij"), -1).reshape(-1, 2)
    y, x = where.T / 200 - 0.5
    steps = np.arange(count) * 60.0 + (np.arange(count) > 0) * rng.uniform(-8, 8, count)
    phase = 2 * np.pi * (2.5 * x + 1.5 * y) + 4 * (x * x + y * y)
    light = 125 + 20 * x + (75 + 10 * y) * np.cos(phase + np.radians(steps)[:, None])
    samples = np.linspace(0, 255, 100_001)
    bent = np.interp(light, curve.light_dn(samples), samples)
    return bent + rng.normal(0, 1.0, bent.shape), where.astype(float), steps


def test_a_camera_that_saturates_softly_is_straightened() -> None:
    """Bright fringes bend most, so that harmonics of a fixed share leave something over: the curve is preferred."""
    true = Response(40.0, 215.0, (-6.0, 14.0, 8.0, 3.0))
    frames, where, steps = stack_of(9, true)
    fit = fit_phase_steps(frames, where, None)
    found = fit.model.response
    assert found is not None
    assert "harmonic2" not in fit.effects
    off = (np.subtract(fit.steps_deg, steps) + 180) % 360 - 180
    # steps to 3 predicted errors, which are a few hundredths of a degree; curves of degree 5 for one of degree 4
    assert np.abs(off).max() < 0.3
    # the curve is known up to a straight line
    samples = np.linspace(50, 205, 200)
    light, exact = found.light_dn(samples), true.light_dn(samples)
    straight = np.polynomial.polynomial.polyfit(light, exact, 1)
    assert np.abs(np.polynomial.polynomial.polyval(light, straight) - exact).max() < 1.0
    # residuals are in counts of the samples
    assert fit.residual_dn == pytest.approx(1.0, rel=0.1)
    harmonics = fit_phase_steps(frames, where, None, FitOptions(effects=frozenset({"harmonic2", "harmonic3"})))
    assert harmonics.model.response is None
    assert harmonics.noise_dn > 1.1 * fit.noise_dn


def test_a_straight_camera_stays_straight() -> None:
    frames, where, _ = stack_of(9, Response(40.0, 215.0, (0.0,)))
    assert fit_phase_steps(frames, where, None).model.response is None


def test_a_curve_needs_frames() -> None:
    frames, where, _ = stack_of(5, Response(40.0, 215.0, (-6.0, 14.0, 8.0, 3.0)))
    with pytest.raises(InputError, match="6 or more frames"):
        fit_phase_steps(frames, where, None, FitOptions(effects=frozenset(), response=True))


def test_response_curve() -> None:
    curve = Response(10.0, 200.0, (-5.0, 9.0, 3.0, 1.0, -0.5))
    samples = np.linspace(-30, 260, 2001)
    light = curve.light_dn(samples)
    # the derivative that is told is that of the curve, inside and beyond
    np.testing.assert_allclose(np.gradient(light, samples)[1:-1], curve.slope(samples)[1:-1], atol=2e-2)
    assert curve.is_rising
    assert not replace(curve, coefficients_dn=(0.0, 60.0)).is_rising
    assert np.isnan(curve.light_dn(np.array([np.nan]))[0])
    t = curve.at(samples[(samples > 10) & (samples < 200)])
    inside = samples[(samples > 10) & (samples < 200)]
    np.testing.assert_allclose(
        inside + np.polynomial.polynomial.polyval(t, curve.monomials()), curve.light_dn(inside), atol=1e-9
    )
