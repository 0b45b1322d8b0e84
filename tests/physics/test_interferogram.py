"""The forward model as residuals: against autograd, against the truth, where closed form ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.least_squares import WithJacobian
from cpikan.learning.levenberg_marquardt import Settings, minimise
from cpikan.physics.interferogram import FrameModelFit, PhasorResiduals, phasor_misfit

NM_PER_TURN = torch.tensor([2500.0, 2750.0, 3025.0], dtype=torch.float64)


def test_misfit_is_half_the_squared_distance_of_phasors():
    generator = torch.Generator().manual_seed(0)
    height = 5000 * torch.rand(7, generator=generator, dtype=torch.float64)
    turns = torch.rand(3, 7, generator=generator, dtype=torch.float64)
    weight = torch.rand(3, 7, generator=generator, dtype=torch.float64)
    cost = phasor_misfit(height, turns, weight, NM_PER_TURN)[0]
    predicted = torch.exp(2j * math.pi * height / NM_PER_TURN[:, None])
    measured = torch.exp(2j * math.pi * turns)
    expected = (weight / (2 * math.pi) ** 2 * (predicted - measured).abs() ** 2 / 2).sum(dim=0)
    assert torch.allclose(cost, expected, rtol=1e-12, atol=1e-15)


def test_whole_turns_change_nothing_and_a_small_error_counts_as_its_sigma():
    height = torch.tensor([1234.5], dtype=torch.float64)
    turns = (height / NM_PER_TURN)[:, None] + torch.tensor([[3.0], [-2.0], [7.0]])
    assert float(phasor_misfit(height, turns, torch.ones(3, 1, dtype=torch.float64), NM_PER_TURN)[0]) < 1e-25
    # 0.001 turns off with a sigma of 0.001 turns: half a unit per wavelength, less a quarter of angle^2 / 3
    off = phasor_misfit(height, turns + 1e-3, torch.full((3, 1), 1e6, dtype=torch.float64), NM_PER_TURN)[0]
    assert float(off) == pytest.approx(1.5, rel=1e-5)


def problem_of(networks: int, points: int) -> tuple[ScaledCPIKAN, PhasorResiduals, torch.Tensor]:
    field = ScaledCPIKAN([2, 4, 1], 3, networks=networks)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    residuals = PhasorResiduals(
        field,
        2 * random(1, points, 2) - 1,
        1000 * random(networks, points),
        random(networks, 3, points),
        1 + random(networks, 3, points),
        NM_PER_TURN,
        50.0,
    )
    return field, residuals, parameter_vector(field)


def test_gradient_and_cost_agree_with_autograd():
    field, residuals, start = problem_of(3, 20)
    vector = start.clone().requires_grad_()
    value = functional(field)(named_parameters(field, vector), residuals.points).squeeze(-1)
    height = residuals.base_nm + residuals.unit_nm * value
    cost = phasor_misfit(height, residuals.turns, residuals.weight, NM_PER_TURN)[0].sum(dim=-1)
    (gradient,) = torch.autograd.grad(cost.sum(), vector)
    found, slope, matrix = residuals.normal(start)
    assert torch.allclose(found, cost, rtol=1e-12)
    assert torch.allclose(residuals.cost(start), cost, rtol=1e-12)
    assert torch.allclose(slope, gradient, rtol=1e-9, atol=1e-12 * float(gradient.abs().max()))
    assert torch.allclose(matrix, matrix.mT)
    assert bool((torch.linalg.eigvalsh(matrix) > -1e-9 * matrix.amax()).all())


def test_take_leaves_the_problems_that_were_asked_for():
    _, residuals, start = problem_of(3, 20)
    index = torch.tensor([2, 0])
    assert torch.equal(residuals.take(index).cost(start[index]), residuals.cost(start)[index])


SIZE = 24


def stack(
    frames: int, steps: np.ndarray, tilts: np.ndarray, noise: float
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Points in [-1, 1], frames in units of their noise and the true phase: tilted fringes on a curved surface."""
    y, x = (np.linspace(-1, 1, SIZE) for _ in range(2))
    v, u = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
    phase = 4.0 * u + 2.5 * v + 1.2 * (u**2 + v**2) + 0.5 * u * v
    bright, power = 128 + 10 * u - 6 * v, 100 - 8 * v**2 + 5 * u
    rng = np.random.default_rng(2)
    rows = [
        bright + power * np.cos(phase + s + t[0] * v + t[1] * u) + rng.normal(0, noise, u.size)
        for s, t in zip(steps, tilts, strict=True)
    ]
    assert len(rows) == frames
    return torch.from_numpy(np.stack([v, u], axis=1)), torch.from_numpy(np.array(rows) / noise), phase


def fitted(
    points: torch.Tensor, frames: torch.Tensor, *, tilted: bool, steps: list[float]
) -> tuple[FrameModelFit, torch.Tensor]:
    """Fit from nominal steps and a phase that is right to a few tenths of a radian."""
    model = FrameModelFit(points, frames, light=3, shape=3, tilted=tilted)
    guess = torch.zeros(9, dtype=torch.float64)
    guess[0], guess[1], guess[3], guess[2], guess[6] = 1.1, 3.8, 2.4, 0.5, 0.5  # T_2 = 2 x^2 - 1 carries the bow
    start = model.start(torch.tensor(steps, dtype=torch.float64), guess)
    problem = WithJacobian(lambda p: model.residuals(p))
    return model, minimise(problem, start[None], Settings(200)).parameters[0]


def test_frame_jacobian_agrees_with_autograd():
    points, frames, _ = stack(3, np.array([0, 1.4, 3.1]), np.zeros((3, 2)), 1.0)
    model = FrameModelFit(points[::40], frames[:, ::40], light=2, shape=3)
    vector = torch.randn(1, sum(model.sizes), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(lambda p: model.residuals(p[None])[0][0], vector[0])
    assert torch.allclose(model.residuals(vector)[1][0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tilted", [False, True])
def test_unknown_steps_with_vibration_are_recovered_within_five_nanometres(tilted: bool):
    """Three frames with steps 20 to 40 degrees off and, in one case, tilted: least squares at nominal steps is far off."""
    steps = np.array([0.0, np.radians(120) + 0.5, np.radians(240) - 0.7])
    tilts = np.array([[0, 0], [0.4, -0.3], [-0.2, 0.5]]) * tilted
    points, frames, phase = stack(3, steps, tilts, 1.0)
    model, found = fitted(points, frames, tilted=tilted, steps=[math.radians(120), math.radians(240)])
    error = model.phase_rad(found).numpy() - phase
    to_nm = 632.8 / (4 * np.pi)
    assert np.std(error) * to_nm < 0.5
    nominal = np.radians([0, 120, 240])
    matrix = np.stack([np.ones(3), np.cos(nominal), -np.sin(nominal)], axis=1)
    _, u, v = np.linalg.pinv(matrix) @ frames.numpy()
    closed = np.angle(np.exp(1j * (np.arctan2(v, u) - phase)))
    closed -= np.angle(np.exp(1j * closed).mean())
    assert np.std(np.angle(np.exp(1j * closed))) * to_nm > 5  # where closed form fails


def test_two_frames_are_enough_for_a_smooth_surface():
    """No per-pixel formula exists for two frames: three unknowns each; smooth light and a smooth surface close the gap."""
    points, frames, phase = stack(2, np.array([0.0, 1.9]), np.zeros((2, 2)), 1.0)
    model, found = fitted(points, frames, tilted=False, steps=[math.radians(90)])
    assert np.std(model.phase_rad(found).numpy() - phase) * 632.8 / (4 * np.pi) < 0.5
    assert float(found[18]) == pytest.approx(1.9, abs=0.01)


def test_one_frame_is_refused():
    with pytest.raises(InputError, match="at least two frames"):
        FrameModelFit(torch.zeros(4, 2), torch.zeros(1, 4), light=1, shape=1)
