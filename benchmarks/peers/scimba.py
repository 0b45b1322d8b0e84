"""Scimba: 3 tanh layers of 20 nodes, weak boundary conditions, energy natural gradient, points drawn anew in every step."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from scimba_torch.approximation_space.nn_space import NNxSpace
from scimba_torch.domain.meshless_domain.domain_1d import Segment1D
from scimba_torch.domain.meshless_domain.domain_2d import Square2D
from scimba_torch.domain.meshless_domain.domain_3d import Cube3D
from scimba_torch.integration.monte_carlo import DomainSampler, TensorizedSampler
from scimba_torch.integration.monte_carlo_parameters import UniformParametricSampler
from scimba_torch.neural_nets.coordinates_based_nets.mlp import GenericMLP
from scimba_torch.numerical_solvers.elliptic_pde.pinns import NaturalGradientPinnsElliptic
from scimba_torch.physical_models.elliptic_pde.abstract_elliptic_pde import StrongFormEllipticPDE
from scimba_torch.utils.scimba_tensors import LabelTensor
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, Side
from peers.clock import Clock, TimeUp
from peers.posed import equations, residuals
from peers.problems import BOUNDARY, INTERIOR, problem_named

# with its own default, 1e-6, the Gram matrix becomes singular on these problems; 1e-5 and 1e-3 end within a factor of 3
_REGULARISATION = 1e-5


def run(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Solve with Scimba's usual network by its natural gradient."""
    torch.manual_seed(seed)
    one = problem_named(name)
    if any(condition.period or condition.at is not None for condition in one.conditions):
        return {"note": "weak boundaries have no periodic conditions and no data inside"}
    solver = _solver(one)
    space, clock = solver.space, Clock(one, seconds)

    def values(x: Tensor) -> Tensor:
        return space.evaluate(LabelTensor(x), LabelTensor(torch.zeros(len(x), 0))).w  # type: ignore[no-any-return]

    kept = solver.losses.update_histories

    def after_epoch(*given: Any, **named: Any) -> None:
        kept(*given, **named)
        if clock.tick(values):
            raise TimeUp

    solver.losses.update_histories = after_epoch
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(TimeUp):
        named = {"n_collocation": INTERIOR[one.dimension], "n_bc_collocation": BOUNDARY[one.dimension]}
        solver.solve(epochs=10**6, silent=True, **named)
    if not clock.errors:
        clock.look(values)
    return clock.row() | {"parameters": space.ndof}


def _solver(one: Problem) -> Any:
    """Pose the problem in Scimba's strong form: whole residuals are the operator, the right side is zero."""
    torch.set_default_dtype(torch.float64)
    count = one.dimension
    bounds = list(zip(one.region.lower, one.region.upper, strict=True))
    kind = {1: lambda b, **k: Segment1D(b[0], **k), 2: Square2D, 3: Cube3D}[count]
    domain = kind(bounds, is_main_domain=True)
    sampler = TensorizedSampler([DomainSampler(domain), UniformParametricSampler([])])
    space = NNxSpace(one.outputs, 0, GenericMLP, domain, sampler, layer_sizes=[20, 20, 20], activation_type="tanh")
    equation = _posed(one)(space, residual_size=equations(one), bc_residual_size=len(one.conditions))
    named = {"bc_type": "weak", "one_loss_by_equation": True}
    return NaturalGradientPinnsElliptic(equation, matrix_regularization=_REGULARISATION, **named)


def _posed(one: Problem) -> type:
    """Make the class of an equation: once on batches, once on single points for the Gram matrix."""

    class Equation(StrongFormEllipticPDE):  # type: ignore[misc]
        def rhs(self, w: Any, x: Any, mu: Any) -> tuple[Tensor, ...]:
            return (torch.zeros(len(x.x), 1),) * self.residual_size

        def bc_rhs(self, w: Any, x: Any, n: Any, mu: Any) -> tuple[Tensor, ...]:
            return (torch.zeros(len(x.x), 1),) * self.bc_residual_size

        def operator(self, w: Any, x: Any, mu: Any) -> tuple[Tensor, ...]:
            slopes, bends = [], []
            for component in _parts(w.get_components(), one.outputs):
                gradient = _parts(self.grad(component, x), one.dimension)
                slopes.append(torch.cat(gradient, dim=1))
                second = [_parts(self.grad(part, x), one.dimension)[j] for j, part in enumerate(gradient)]
                bends.append(torch.cat(second, dim=1))
            jet = Jet(w.w, torch.stack(slopes, dim=1), torch.stack(bends, dim=1))
            return residuals(one, jet, x.x).split(1, dim=1)

        def bc_operator(self, w: Any, x: Any, n: Any, mu: Any) -> tuple[Tensor, ...]:
            parts = _parts(w.get_components(), one.outputs)
            slopes = [torch.cat(_parts(self.grad(part, x), one.dimension), dim=1) for part in parts]
            return _missed(one, w.w, torch.stack(slopes, dim=1), x.x, n.x).split(1, dim=1)

        def functional_operator(self, func: Any, x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
            slope = torch.func.jacrev(func, 0)
            hessian = torch.func.jacrev(slope, 0)(x, mu, theta)
            jet = Jet(func(x, mu, theta), slope(x, mu, theta), hessian.diagonal(dim1=-2, dim2=-1))
            return residuals(one, jet, x)

        def functional_operator_bc(self, func: Any, x: Tensor, n: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
            return _missed(one, func(x, mu, theta), torch.func.jacrev(func, 0)(x, mu, theta), x, n)

    return Equation


def _missed(one: Problem, value: Tensor, gradient: Tensor, x: Tensor, normals: Tensor) -> Tensor:
    """Evaluate what each condition misses at points (..., d) of the boundary, zero where it does not hold: (..., k)."""
    jet, found = Jet(value, gradient, gradient), []
    for condition in one.conditions:
        missed, on = condition.residual(jet, Side(x, normals)), torch.zeros_like(value[..., 0], dtype=torch.bool)
        for part in condition.on or one.region.walls:
            axis, end = one.region.side(part)  # type: ignore[attr-defined]
            place = (one.region.upper if end else one.region.lower)[axis]
            on = on | ((x[..., axis] - place).abs() < 1e-9)
        found.append(condition.weight * torch.where(on, missed, torch.zeros_like(missed)))
    return torch.stack(found, dim=-1)


def _parts(found: Any, count: int) -> list[Any]:
    return [found] if count == 1 else list(found)
