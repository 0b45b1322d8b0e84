"""Phasors as residuals: against their definition and against autograd."""

from __future__ import annotations

import math

import pytest
import torch

from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.physics.interferogram import PhasorResiduals, phasor_misfit

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
