"""Raw frames as residuals: against the formula written out, and their normal equations against autograd."""

from __future__ import annotations

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.robust import SQUARES, Huber
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameLayout, FrameResiduals, LinearPhase, NetworkPhase

KIND = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=KIND) - 1


def model_of(layout: FrameLayout, points: int = 30, phase: NetworkPhase | None = None) -> FrameResiduals:
    where = random(points, 2)
    light = torch.stack([torch.ones(points, dtype=KIND), where[:, 0], where[:, 1]], dim=1)
    form = phase or LinearPhase(random(points, layout.form, seed=1))
    precision = 0.5 + random(layout.size, seed=2).abs()
    frames = 5 * random(layout.frames, points, seed=3)
    return FrameResiduals(layout, where, frames, light, form, random(layout.size, seed=4), precision)


def written_out(model: FrameResiduals, p: torch.Tensor) -> torch.Tensor:
    """(K, B) of one vector, from the formula in the module's head."""
    parts = model.layout.split(p)
    phase = model.form.value(parts.form[None])[0]
    zero = torch.zeros(1, dtype=KIND)
    steps, gains = torch.cat([zero, parts.steps]), torch.cat([zero, parts.gains])
    tilts = torch.cat([torch.zeros(1, 2, dtype=KIND), parts.tilts])
    rows = []
    for k in range(model.layout.frames):
        angle = phase + steps[k] + model.points @ tilts[k]
        wave = torch.cos(angle) + parts.second * torch.cos(2 * angle)
        rows.append((1 + gains[k]) * (model.light @ parts.mean + (model.light @ parts.power) * wave))
    return torch.stack(rows) - model.frames


LAYOUTS = [
    FrameLayout(2, 3, 4, fit_tilt=False),
    FrameLayout(3, 3, 5, fit_gain=True),
    FrameLayout(4, 3, 2, fit_tilt=False, fit_gain=True, has_second_harmonic=True),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_residuals_are_those_of_the_formula(layout):
    model = model_of(layout)
    vectors = random(3, layout.size, seed=5)
    expected = torch.stack([written_out(model, one) for one in vectors])
    assert torch.allclose(model.residuals(vectors), expected, rtol=1e-12, atol=1e-12)
    cost = 0.5 * (expected**2).sum(dim=(1, 2)) + 0.5 * (model.precision * (vectors - model.mean) ** 2).sum(dim=1)
    assert torch.allclose(model.cost(vectors, SQUARES), cost, rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_normal_equations_agree_with_autograd(layout):
    """Gradient of the cost, and J'J from the Jacobian of the formula; a robust loss weights both."""
    model, vector = model_of(layout), random(1, layout.size, seed=6)
    for loss in (SQUARES, Huber(1.5)):
        cost, gradient, matrix = model.normal(vector, loss)
        leaf = vector.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model.cost(leaf, loss).sum(), leaf)
        assert torch.allclose(cost, model.cost(vector, loss), rtol=1e-12)
        assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-9)
        jacobian = torch.autograd.functional.jacobian(lambda p: written_out(model, p).flatten(), vector[0])
        weight = loss.weight(written_out(model, vector[0])).flatten()
        square = jacobian.mT @ (weight[:, None] * jacobian) + torch.diag(model.precision)
        assert torch.allclose(matrix[0], square, rtol=1e-9, atol=1e-9)


def test_the_prior_alone_has_its_precision_as_curvature():
    model = model_of(LAYOUTS[1])
    found = torch.autograd.functional.hessian(lambda p: model.prior(p[None])[0], random(model.layout.size, seed=7))
    assert torch.allclose(found, torch.diag(model.precision), atol=1e-12)


def test_a_network_is_a_phase_like_any_other():
    field = ScaledCPIKAN([2, 3, 1], 2)
    points = random(30, 2)
    phase = NetworkPhase(field, points, lambda where: where[:, 0])
    layout = FrameLayout(2, 3, phase.parameters)
    model = model_of(layout, phase=phase)
    vector = torch.cat([random(layout.size - layout.form, seed=8), parameter_vector(field)])
    expected = field(points).squeeze(-1).detach() + points[:, 0]
    assert torch.allclose(phase.value(parameter_vector(field)[None])[0], expected, rtol=1e-12)
    assert torch.allclose(phase.at(points[:5]).value(parameter_vector(field)[None])[0], expected[:5], rtol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda p: written_out(model, p).flatten(), vector)
    matrix = model.normal(vector[None], SQUARES)[2][0]
    assert torch.allclose(matrix, jacobian.mT @ jacobian + torch.diag(model.precision), rtol=1e-8, atol=1e-8)


def test_one_frame_is_refused():
    with pytest.raises(InputError, match="at least two frames"):
        model_of(FrameLayout(1, 3, 2, fit_tilt=False))
