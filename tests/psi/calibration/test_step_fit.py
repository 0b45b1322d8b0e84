"""Steps, tilts, gains and harmonics of the frames from the frames alone, against truth and on measured stacks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpikan.errors import InputError
from cpikan.psi.calibration.steps.fit import FitOptions, StepFit, fit_phase_steps
from cpikan.psi.calibration.steps.fringes import unwrap_scattered
from cpikan.psi.calibration.steps.iterate import first_spread, solve, start_state
from cpikan.psi.calibration.steps.model import Layout, Samples, State, evaluate
from cpikan.psi.calibration.steps.normal import assemble
from cpikan.psi.calibration.steps.selection import covariance_of
from independent_frames import Faults, make_scene

DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[4] / "shared" / "data"))
measured = pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set CPIKAN_DATA")
SHAPE = (120, 160)


@dataclass(frozen=True)
class Stack:
    frames: np.ndarray
    position: np.ndarray
    nominal_deg: tuple[float, ...]
    steps_deg: np.ndarray
    tilt_rad_px: np.ndarray
    gain: np.ndarray
    phase_rad: np.ndarray
    pivot: tuple[float, float]

    def fit(self, *, blind: bool = False, effects: frozenset | None = None) -> StepFit:
        options = FitOptions(effects=effects, pivot=self.pivot)
        return fit_phase_steps(self.frames, self.position, None if blind else self.nominal_deg, options)

    def off_deg(self, fit: StepFit) -> np.ndarray:
        return ((np.subtract(fit.steps_deg, self.steps_deg) + 180) % 360 - 180)[1:]


def make(
    seed: int,
    count: int,
    *,
    fringes: float = 12.0,
    tilt: float = 0.15,
    gain: float = 0.05,
    second: float = 0.08,
    third: float = 0.03,
    noise: float = 0.01,
    uneven: float = 0.3,
) -> Stack:
    """A stack of the independent generator; ``noise`` is a share of full scale, the modulation 0.3 of it."""
    rng = np.random.default_rng(seed)
    later = np.arange(count) > 0
    nominal = (120.0 if count == 3 else 90.0 if count < 6 else 60.0) * np.arange(count)
    steps = nominal + later * rng.uniform(-15, 15, count)
    faults = Faults(
        tilt_rad=tilt,
        harmonic2=second,
        harmonic3=third,
        background=uneven,
        modulation=uneven,
        bits=None,
        fringes=fringes,
        aperture=0.8,
    )
    scene = make_scene(seed, SHAPE, [633.0], steps, faults)
    gains = 1 + later * rng.uniform(-gain, gain, count)
    frames = scene.frames[0] * gains[:, None, None]
    frames = 255 * (frames + rng.normal(0, noise, frames.shape))
    where = np.argwhere(scene.mask)
    pivot = (float(where[:, 0].mean()), float(where[:, 1].mean()))
    where = where[::3]
    y, x = where.T
    return Stack(
        frames[:, y, x],
        where.astype(float),
        tuple(nominal),
        steps,
        scene.tilt_rad[0] * 2 / (np.array(SHAPE) - 1),
        gains,
        4 * np.pi * scene.height_nm[y, x] / 633.0,
        pivot,
    )


def ripple_rad(fit: StepFit, stack: Stack) -> float:
    """Amplitude of the phase error at twice the fringes, piston and tilt of the error taken off."""
    off = np.angle(np.exp(1j * (fit.phase_rad(stack.frames, stack.position) - stack.phase_rad)))
    off = np.angle(np.exp(1j * (off - np.angle(np.exp(1j * off).mean()))))
    plane = np.column_stack([np.ones(len(off)), stack.position - stack.position.mean(axis=0)])
    waves = np.stack([f(k * stack.phase_rad) for k in (1, 2, 3, 4) for f in (np.cos, np.sin)], axis=1)
    found = np.linalg.lstsq(np.column_stack([plane, waves]), off, rcond=None)[0]
    return float(np.hypot(found[5], found[6]))


@pytest.mark.parametrize("seed", range(8))
def test_random_stacks(seed: int) -> None:
    """3-13 frames with everything wrong at once.

    Standard errors are honest to a factor: 3 predicted sigmas hold for 95 % of steps, 6 for all (uneven light that the
    smooth fields miss is not Gaussian where fringes are few).
    """
    rng = np.random.default_rng(1000 + seed)
    stack = make(
        seed,
        int(rng.integers(3, 14)),
        fringes=float(np.exp(rng.uniform(np.log(2.5), np.log(30)))),
        tilt=float(rng.uniform(0, 0.2)),
        second=float(rng.uniform(0, 0.1)),
        third=float(rng.uniform(0, 0.05)),
    )
    fit = stack.fit()
    assert fit.sign == "nominal"
    if not fit.determined:
        assert fit.reason
        return
    off = np.abs(stack.off_deg(fit))
    assert (off < 6 * np.degrees(fit.step_error_rad[1:]) + 0.02).all()
    assert off.max() < 2.5
    assert ripple_rad(fit, stack) < 5e-3


def test_predicted_errors_are_those_of_repeated_noise() -> None:
    """Even light: noise alone decides, and 8 repeats of 5 steps have its standard error to 11 %."""
    clean = make(4, 6, uneven=0.0, noise=0.0, gain=0.0, tilt=0.1)
    rng = np.random.default_rng(0)
    offs, predicted = [], []
    for _ in range(8):
        noisy = clean.frames + rng.normal(0, 2.5, clean.frames.shape)
        options = FitOptions(effects=frozenset({"tilt", "harmonic2", "harmonic3"}), pivot=clean.pivot)
        fit = fit_phase_steps(noisy, clean.position, clean.nominal_deg, options)
        offs.append(clean.off_deg(fit))
        predicted.append(np.degrees(fit.step_error_rad[1:]))
    ratio = np.sqrt(np.mean(np.square(offs))) / np.sqrt(np.mean(np.square(predicted)))
    assert 0.6 < ratio < 1.25  # the prediction is the larger of two, so rather too large than too small


def test_every_part_is_found() -> None:
    stack = make(11, 9)
    fit = stack.fit()
    assert fit.determined
    assert fit.converged
    assert set(fit.effects) == {"tilt", "gain", "harmonic2", "harmonic3"}
    tilt_off = np.abs(fit.model.tilt_rad_px - stack.tilt_rad_px)
    assert (tilt_off <= 5 * fit.tilt_error_rad_px + 1e-9).all()
    assert np.abs(fit.model.gain - stack.gain).max() < 0.01
    assert (np.abs(fit.model.gain - stack.gain)[1:] <= 5 * fit.gain_error[1:]).all()
    assert fit.harmonic_ratio[2] == pytest.approx(0.08, abs=2e-3)
    assert fit.harmonic_ratio[3] == pytest.approx(0.03, abs=2e-3)
    assert fit.model.harmonics == (2,)  # nine frames: the third left free would cost too much noise
    # read noise of 1 % of 255 DN
    assert fit.noise_dn == pytest.approx(2.55, rel=0.03)
    assert fit.residual_dn == pytest.approx(2.55, rel=0.2)  # a median of chi with two degrees of freedom is 17 % low
    # 12 fringes peak to valley of the whole image; the field is round
    assert 6 < fit.fringes < 12.5
    assert fit.model.steps_rad[0] == 0
    assert not fit.model.tilt_rad_px[0].any()
    assert fit.model.gain[0] == 1


def test_nothing_wrong_gives_steps_alone() -> None:
    stack = make(2, 7, tilt=0.0, gain=0.0, second=0.0, third=0.0)
    fit = stack.fit()
    assert fit.effects == ()
    assert set(fit.omitted) == {"tilt", "gain", "harmonic2", "harmonic3"}
    assert all("not significant" in why or "not determined" in why for why in fit.omitted.values())
    assert fit.model.is_uniform
    assert fit.model.harmonics == ()
    assert (np.abs(stack.off_deg(fit)) < 5 * np.degrees(fit.step_error_rad[1:])).all()


def test_what_is_asked_for_is_fitted() -> None:
    stack = make(2, 7, tilt=0.0, gain=0.0, second=0.0, third=0.0)
    fit = stack.fit(effects=frozenset({"tilt", "defocus"}))
    assert fit.effects == ("tilt", "defocus")
    assert np.abs(fit.model.tilt_rad_px * 80).max() < 0.02
    assert np.abs(fit.model.defocus_rad_px2 * 80**2).max() < 0.02
    assert fit.omitted == {}


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_blind(count: int) -> None:
    """The sign is the convention's; true steps start with a positive one."""
    stack = make(30 + count, count)
    fit = stack.fit(blind=True)
    assert fit.sign == "assumed"
    assert 0 < fit.steps_deg[1] < 180
    assert fit.determined
    assert (np.abs(stack.off_deg(fit)) < 6 * np.degrees(fit.step_error_rad[1:]) + 0.05).all()
    assert any(one.name == "steps-few-frames" for one in fit.warnings) == (count <= 4)


@pytest.mark.parametrize("sign", [1, -1])
def test_nominal_steps_fix_the_sign(sign: int) -> None:
    stack = make(5, 6)
    mirrored = tuple(sign * step for step in stack.nominal_deg)
    fit = fit_phase_steps(stack.frames, stack.position, mirrored, FitOptions(pivot=stack.pivot))
    off = (np.subtract(fit.steps_deg, sign * stack.steps_deg) + 180) % 360 - 180
    assert np.abs(off).max() < 0.5
    assert np.abs(fit.model.tilt_rad_px - sign * stack.tilt_rad_px).max() * 80 < 0.02


def test_harmonics_left_out_pass_for_tilt() -> None:
    """Few fringes and a nonlinear camera: without its harmonics the fit invents tilts and moves the steps by degrees."""
    stack = make(0, 12, fringes=2.5, tilt=0.05, gain=0.0, second=-0.16, third=-0.04)
    with_them, without = stack.fit(), stack.fit(effects=frozenset({"tilt"}))
    assert np.abs(stack.off_deg(with_them)).max() < 1.0
    assert np.abs(stack.off_deg(without)).max() > 3 * np.abs(stack.off_deg(with_them)).max()


def test_half_a_fringe_is_not_determined() -> None:
    fit = make(6, 5, fringes=0.4).fit()
    assert not fit.determined
    assert "fringes" in fit.reason


def test_dust_and_shadow_do_not_move_the_steps() -> None:
    stack = make(9, 8)
    rng = np.random.default_rng(1)
    spoiled = stack.frames.copy()
    dusty = rng.random(spoiled.shape[1]) < 0.02
    spoiled[:, dusty] = rng.uniform(0, 255, (8, int(dusty.sum())))
    dark = rng.random(spoiled.shape[1]) < 0.2
    spoiled[:, dark] = 5 + rng.normal(0, 1, (8, int(dark.sum())))
    spoiled[2, 7] = np.nan
    fit = fit_phase_steps(spoiled, stack.position, stack.nominal_deg, FitOptions(pivot=stack.pivot))
    assert np.abs(stack.off_deg(fit)).max() < 0.3


def test_bad_input_is_refused() -> None:
    stack = make(1, 5)
    with pytest.raises(InputError, match="three or more"):
        fit_phase_steps(stack.frames[:2], stack.position, None)
    with pytest.raises(InputError, match="one per frame"):
        fit_phase_steps(stack.frames, stack.position, (0.0, 90.0))
    with pytest.raises(InputError, match="usable pixels"):
        fit_phase_steps(stack.frames[:, :50], stack.position[:50], None)
    with pytest.raises(InputError, match="do not change"):
        fit_phase_steps(np.repeat(stack.frames[:1], 5, axis=0), stack.position, None)
    with pytest.raises(InputError, match="positions"):
        fit_phase_steps(stack.frames, stack.position[:-1], None)


def small_problem(every: int = 37) -> tuple[Samples, Layout]:
    stack = make(3, 5)
    some = slice(None, None, every)
    y, x = ((stack.position[some] - stack.pivot) / 80).T
    fields = np.stack([np.ones_like(y), y, x])
    waves = np.stack([np.ones_like(y), y, x, y * y + x * x])
    effects = frozenset({"tilt", "defocus", "gain", "offset", "harmonic2", "harmonic3"})
    return Samples(stack.frames[:, some] / 76, waves, fields), Layout(5, effects, 3)


def test_normal_equations_are_those_of_the_dense_problem() -> None:
    """Schur complement, right side and pixel step against numpy's least squares with a numerical Jacobian."""
    samples, layout = small_problem()
    samples = samples.some(np.arange(12))
    rng = np.random.default_rng(0)
    theta = layout.neutral() + rng.normal(0, 0.05, layout.size)
    theta[layout.blocks["step"][:, 0]] = np.radians([90, 180, 270, 355])
    state = start_state(samples, layout, theta)
    spread = first_spread(samples, layout, state)
    weight = rng.uniform(0.2, 1, 12)

    def residuals(vector: np.ndarray) -> np.ndarray:
        found = evaluate(samples, layout, State(vector[: layout.size], vector[layout.size :].reshape(3, 12)))
        rows = [found.rest / spread.noise, found.off_background[None] / spread.background]
        return (np.vstack([*rows, found.off_modulation[None] / spread.modulation]) * np.sqrt(weight)).ravel()

    start = np.concatenate([state.theta, state.pixel.ravel()])
    unit = 1e-6 * np.eye(len(start))
    jacobian = np.stack([(residuals(start + e) - residuals(start - e)) / 2e-6 for e in unit], axis=1)
    dense = jacobian.T @ jacobian
    n = layout.size
    schur = dense[:n, :n] - dense[:n, n:] @ np.linalg.solve(dense[n:, n:], dense[n:, :n])
    pull = -jacobian.T @ residuals(start)
    right = pull[:n] - dense[:n, n:] @ np.linalg.solve(dense[n:, n:], pull[n:])
    normal = assemble(samples, layout, state, evaluate(samples, layout, state), spread, weight)
    # central differences of 1e-6 on terms of size dense.max() are good to about 1e-8 of it
    np.testing.assert_allclose(normal.matrix, schur, atol=1e-6 * np.abs(dense[:n, :n]).max())
    np.testing.assert_allclose(normal.right, right, atol=1e-6 * np.abs(pull).max())
    step = rng.normal(0, 0.01, n)
    follow = np.linalg.solve(dense[n:, n:], pull[n:] - dense[n:, :n] @ step).reshape(3, 12)
    np.testing.assert_allclose(normal.pixel_step(step), follow, atol=1e-6 * np.abs(follow).max())


def test_the_fit_ends_in_a_minimum() -> None:
    samples, layout = small_problem()
    layout = Layout(5, frozenset({"tilt"}), 3)
    theta = layout.neutral()
    theta[layout.blocks["step"][:, 0]] = np.radians([90, 180, 270, 360])
    found = solve(samples, layout, theta, 20)
    assert found.converged
    right = found.normal.right - layout.prior_precision() * (found.state.theta - layout.neutral())
    decrease = right @ found.covariance() @ right
    assert decrease < 0.1 * layout.own  # a fraction of a standard error everywhere


def test_errors_grow_by_what_neighbours_leave_over_together() -> None:
    """The covariance against the cluster-robust sandwich with scores by differences, and correlations as of white noise.

    The background is uneven beyond the smooth fields, which are planes here, so that residuals are alike in a cell.
    """
    samples, _ = small_problem(every=5)
    y, x = samples.waves[1:3]
    samples = replace(samples, values=samples.values + 0.1 * np.sin(4 * y) * np.cos(5 * x))
    layout = Layout(5, frozenset({"tilt", "gain", "harmonic2"}), 3)
    theta = layout.neutral()
    theta[layout.blocks["step"][:, 0]] = np.radians([90, 180, 270, 360])
    solution = solve(samples, layout, theta, 20)
    spread, state, held = solution.spread, solution.state, np.zeros(layout.size)
    for _ in range(6):
        normal = assemble(samples, layout, state, evaluate(samples, layout, state), spread, solution.weight)
        state = State(state.theta, state.pixel + normal.pixel_step(held))

    def half_squares(theta: np.ndarray) -> np.ndarray:
        return (
            -solution.weight
            * (evaluate(samples, layout, State(theta, state.pixel)).squares().T @ (spread.squares() ** -1))
            / 2
        )

    # by the envelope theorem a pixel's own unknowns, now at their best, may be held
    unit = 1e-5 * np.eye(layout.size)
    scores = np.stack([(half_squares(state.theta + e) - half_squares(state.theta - e)) / 2e-5 for e in unit])
    plain = solution.covariance()
    variance = np.diag(plain).copy()
    for cells in (16, 6):
        place = [np.minimum(((c - c.min()) / np.ptp(c) * cells).astype(int), cells - 1) for c in (y, x)]
        _, owner = np.unique(place[0] * cells + place[1], return_inverse=True)
        sums = np.stack([np.bincount(owner, row) for row in scores])
        lost = layout.own + 3 if cells == 16 else 1
        ratio = min(sums.shape[1] / (sums.shape[1] - lost), 4.0)
        variance = np.maximum(variance, ratio * np.diag(plain @ sums @ sums.T @ plain))
    found = covariance_of(samples, solution)
    own = slice(0, layout.own)
    # the last iteration left the pixels' own unknowns a little off: scores differ by less than a thousandth
    np.testing.assert_allclose(np.diag(found)[own], variance[own], rtol=2e-3)
    grown = np.sqrt(np.diag(found) / np.diag(plain))[own]
    assert grown.max() > 1.5
    assert np.ptp(grown) > 0.1  # or a factor on one side of the matrix would pass for the correlations
    correlation, white = (m / np.sqrt(np.outer(np.diag(m), np.diag(m))) for m in (found, plain))
    np.testing.assert_allclose(correlation, white, atol=1e-9)


def test_fringe_count() -> None:
    y, x = np.mgrid[0:60, 0:80]
    position = np.column_stack([y.ravel(), x.ravel()]).astype(float)
    phase = 2 * np.pi * (3.0 * position[:, 1] / 79 + 2.0 * position[:, 0] / 59)
    found = unwrap_scattered(np.angle(np.exp(1j * phase)), position)
    assert found.resolved
    np.testing.assert_allclose(found.unwrapped_rad - found.unwrapped_rad[0], phase - phase[0], atol=1e-9)
    assert found.fringes == pytest.approx(5.0, abs=0.35)  # the corners beyond the quantiles 0.002 and 0.998
    dense = np.random.default_rng(0).uniform(-np.pi, np.pi, len(position))
    assert not unwrap_scattered(dense, position).resolved


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return (pixels if pixels.ndim == 2 else pixels[..., 0]).astype(float)


def mirror() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:600, 0:800]
    where = np.argwhere((y - 295) ** 2 + (x - 390) ** 2 <= 225**2)[::29]
    names = [DATA / "mlpeck_zernike" / f"Image{i}.jpg" for i in range(5, 17)]
    return np.stack([grey(name) for name in names])[:, where[:, 0], where[:, 1]], where.astype(float)


@measured
def test_mirror_blind() -> None:
    """The published increments are those of a fit without harmonics, which bends the steps: with the tilt alone they are
    found again; with the camera's curve, which bends the brightest fringes most, the residual halves as well."""
    frames, where = mirror()
    reference = [66.0, 59.1, 60.9, 55.7, 60.0, 58.4, 62.0, 61.2, 60.6, 54.4, 62.8]
    pivot = (295.0, 390.0)
    tilted = fit_phase_steps(frames, where, None, FitOptions(effects=frozenset({"tilt"}), pivot=pivot))
    np.testing.assert_allclose(np.diff(tilted.steps_deg) % 360, reference, atol=1.5)
    assert tilted.residual_over_three_dn == pytest.approx(10.95, abs=0.15)
    fit = fit_phase_steps(frames, where, None, FitOptions(pivot=pivot))
    assert fit.determined
    assert fit.model.response is not None
    assert fit.residual_over_three_dn < 9
    np.testing.assert_allclose(np.diff(fit.steps_deg) % 360, reference, atol=1.5)
    for first in (0, 6):
        half = fit_phase_steps(frames[first : first + 6], where, None, FitOptions(pivot=pivot))
        together = np.array(fit.steps_deg)[first : first + 6]
        off = (np.subtract(half.steps_deg, together - together[0]) + 180) % 360 - 180
        assert np.abs(off).max() < 3 * np.degrees(max(half.step_error_rad.max(), fit.step_error_rad.max()))


@measured
def test_fringe_projection_blind() -> None:
    frames = np.stack([grey(DATA / "nzhagen_fpp" / f"lens_orig_{step:03d}.jpg") for step in (0, 90, 180, 270)])
    where = np.argwhere(np.ones(frames.shape[1:], bool))[::67]
    fit = fit_phase_steps(frames[:, where[:, 0], where[:, 1]], where.astype(float), None)
    np.testing.assert_allclose(np.diff(fit.steps_deg), 90, atol=0.5)
