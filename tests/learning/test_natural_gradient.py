"""Natural gradients: one step by parameters, by residuals and by products; preconditioner, stopping rules, SPRING."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, cg

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.damped_systems import DualSystem, Limits, PrimalSystem, ProductSystem, damped_system
from cpikan.learning.iterate import placed
from cpikan.learning.jacobian_products import JacobianProducts
from cpikan.learning.krylov import Nystroem, Stopping, conjugate_gradients
from cpikan.learning.methods.natural_gradient import GaussNewtonCG, NaturalGradient
from cpikan.learning.methods.spring import Spring
from cpikan.learning.mini_batch import mini_batch
from cpikan.learning.recipes import RECIPES
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem

D = torch.float64
FEW, MANY = Points(30, 10), Points(160, 40)  # fewer residuals than the 93 parameters, and more


def started(points, name="burgers"):
    one = problem(name)
    field = ScaledCPIKAN([one.dimension, 4, 4, one.outputs], 3, (one.region.lower, one.region.upper), start=Start(1))
    return placed(one, field, points, MEAN_SQUARES)[0].objective, field


def levenberg(objective, field, damping):
    """The dense step, by the normal equations in the order of parameters."""
    residuals, jacobian = objective.linearise(field)
    return torch.linalg.solve(
        jacobian.mT @ jacobian + damping * torch.eye(jacobian.shape[1], dtype=D), -jacobian.mT @ residuals
    )


@pytest.mark.parametrize("points", [FEW, MANY])
@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (Limits(), None),
        (Limits(0, rank=20, tolerance=1e-13), ProductSystem),
        (Limits(0, rank=0, tolerance=1e-13, products=900), ProductSystem),
    ],
)
def test_every_way_of_solving_gives_the_dense_step(points, limits, kind):
    objective, field = started(points)
    system = damped_system(objective, field, limits)
    assert type(system) is (kind or {FEW: DualSystem, MANY: PrimalSystem}[points])
    damping = 1e-4 * damped_system(objective, field).scale
    wanted = levenberg(objective, field, damping)
    assert (system.solver(damping)(system.residuals) - wanted).norm() < 1e-8 * wanted.norm()


def test_products_are_those_of_the_jacobian_wherever_the_field_goes_meanwhile():
    objective, field = started(MANY)
    residuals, jacobian = objective.linearise(field)
    products = JacobianProducts(objective, field)
    set_parameters(field, parameter_vector(field) + 1)
    generator = torch.Generator().manual_seed(0)
    vector, dual = (torch.randn(n, dtype=D, generator=generator) for n in reversed(jacobian.shape))
    assert torch.equal(products.residuals, residuals) or torch.allclose(products.residuals, residuals, atol=1e-13)
    assert torch.allclose(products.times(vector), jacobian @ vector, atol=1e-12 * float((jacobian @ vector).norm()))
    assert torch.allclose(
        products.transposed(dual), jacobian.mT @ dual, atol=1e-12 * float((jacobian.mT @ dual).norm())
    )


def decaying(size=60):
    """A symmetric matrix whose eigenvalues fall from 1 to 1e-8, and a right side."""
    generator = torch.Generator().manual_seed(4)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=D, generator=generator))[0]
    return basis @ torch.diag(torch.logspace(0, -8, size, dtype=D)) @ basis.mT, torch.randn(
        size, dtype=D, generator=generator
    )


def test_conjugate_gradients_are_those_of_scipy():
    matrix, right = decaying()
    damped = matrix + 1e-3 * torch.eye(60, dtype=D)
    for most in (1, 5, 12):
        ours, taken = conjugate_gradients(lambda v: damped @ v, right, Stopping(1e-12, most))
        theirs, _ = cg(LinearOperator((60, 60), lambda v: damped.numpy() @ v), right.numpy(), rtol=1e-12, maxiter=most)
        assert taken == most
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


def test_the_preconditioner_saves_products_and_is_exact_at_full_rank():
    """Of a spectrum that falls 1e8-fold 30 values hold the first 1e-4: the condition is some (1e-4 + m) / m, 2 for m = 1e-4."""
    matrix, right = decaying()
    damping = 1e-4
    counts = {}
    for rank in (0, 30, 60):
        how = ()
        if rank:
            sketch = Nystroem.of(lambda v: matrix @ v, 60, rank, right)
            assert torch.equal(sketch.values, Nystroem.of(lambda v: matrix @ v, 60, rank, right).values)
            approximation = sketch.vectors @ torch.diag(sketch.values) @ sketch.vectors.mT
            missed = torch.linalg.eigvalsh(matrix - approximation)
            assert float(missed.min()) > -1e-12  # an approximation from below
            how = (sketch.preconditioner(damping),)
        found, counts[rank] = conjugate_gradients(lambda v: matrix @ v + damping * v, right, Stopping(1e-10, 500), *how)
        wanted = torch.linalg.solve(matrix + damping * torch.eye(60, dtype=D), right)
        assert (found - wanted).norm() < 1e-7 * wanted.norm()
    # Chebyshev's bound for a condition of 4 at most: ln(2 / 1e-10) / (2 / sqrt(4)) products
    assert counts[30] <= math.ceil(math.log(2e10))
    assert counts[60] <= 3
    assert counts[0] > 2 * counts[30]


def test_martens_rule_ends_an_iteration_that_gains_little():
    matrix, right = decaying()
    damped = matrix + 1e-6 * torch.eye(60, dtype=D)

    def model(x):
        return float(0.5 * x @ (damped @ x) - right @ x)

    whole, most = conjugate_gradients(lambda v: damped @ v, right, Stopping(1e-10, 500))
    cut, taken = conjugate_gradients(lambda v: damped @ v, right, Stopping(1e-10, 500, progress=0.02))
    assert 10 < taken < most / 2
    earlier, _ = conjugate_gradients(lambda v: damped @ v, right, Stopping(1e-10, taken - 10))
    assert model(earlier) - model(cut) < 10 * 0.02 * -model(cut)
    assert model(whole) < model(cut) < 0


def test_steps_by_products_follow_those_by_factors():
    costs = []
    for limits in (Limits(), Limits(0, rank=20, tolerance=1e-12, products=500)):
        objective, field = started(FEW)
        method = NaturalGradient(9, limits=limits)
        state = {**method.init(objective, field), "damping": 1e-2}
        for _ in range(4):
            state, cost = method.step(objective, field, state)
        costs.append(cost)
    assert costs[1] == pytest.approx(costs[0], rel=1e-6)


@pytest.mark.parametrize("points", [FEW, MANY])
def test_without_momentum_spring_is_the_natural_gradient(points):
    objective, field = started(points)
    method = Spring(momentum=0.0)
    state, start = method.init(objective, field), parameter_vector(field)
    for _ in range(3):
        damping = state["damping"] or method.damping * damped_system(objective, field).scale
        wanted = levenberg(objective, field, damping)
        state, _ = method.step(objective, field, state)
        move = parameter_vector(field) - start
        length = float(move @ wanted) / float(wanted @ wanted)
        assert length in [pytest.approx(0.5**n, rel=1e-6) for n in range(10)]
        assert (move - length * wanted).norm() < 1e-8 * move.norm()
        start = parameter_vector(field)


def test_springs_step_solves_its_problem():
    """Least squares of J s + r over sqrt(m) (s - momentum times the last step), stacked; off the rows' span that step stays."""
    objective, field = started(FEW)
    residuals, jacobian = objective.linearise(field)
    before = torch.randn(jacobian.shape[1], dtype=D, generator=torch.Generator().manual_seed(2))
    damping, method = 1e-3 * float(jacobian.square().sum(0).amax()), Spring(momentum=0.8)
    move = method.move(damped_system(objective, field), damping, before)
    eye = damping**0.5 * torch.eye(jacobian.shape[1], dtype=D)
    stacked, right = torch.cat([jacobian, eye]), torch.cat([-residuals, 0.8 * eye @ before])
    wanted = torch.linalg.lstsq(stacked, right, driver="gelsd").solution
    assert (move - wanted).norm() < 1e-8 * wanted.norm()
    seen = torch.linalg.qr(jacobian.mT)[0]
    unseen = before - seen @ (seen.mT @ before)
    assert (move - seen @ (seen.mT @ move) - 0.8 * unseen).norm() < 1e-10 * before.norm()
    assert unseen.norm() > 0.1 * before.norm()


def test_spring_lowers_the_cost_of_all_points_by_mini_batches():
    """A third of the points a step, each step of other ones."""
    objective, field = started(MANY)
    method = Spring(batch=54)
    assert RECIPES["spring"].batched(54).stages[0].batch == 54
    state, first = method.init(objective, field), float(objective.cost(field).detach())
    for number in range(25):
        at = parameter_vector(field)
        state, cost = method.step(objective, field, state)
        assert torch.isfinite(parameter_vector(field)).all()
        if number == 0:
            part = mini_batch(objective, 54, 0)
            assert cost == pytest.approx(float(part.cost(field).detach()), rel=1e-12)
            assert not torch.equal(at, parameter_vector(field))
    assert float(objective.cost(field).detach()) < 0.4 * first  # measured: 0.24


def test_a_step_that_helps_nowhere_is_left():
    """At a minimum of the cost no length helps: the field stays, damping rises, and the method ends."""
    objective, field = started(MANY)
    flat = objective.reweighted(dict.fromkeys(objective.weights, 0.0))
    start, method = parameter_vector(field), Spring()
    state = {**method.init(flat, field), "damping": 1.0}
    state, cost = method.step(flat, field, state)
    assert cost == 0
    assert torch.equal(parameter_vector(field), start)
    assert state["damping"] == 4.0
    assert method.stop(state) is StopReason.STALLED  # the scale of J'J is zero
    assert "move" not in state


def test_what_does_not_go_together_is_one_line():
    for recipe in ("natural-gradient", "gauss-newton-cg", "spring"):
        with pytest.raises(InputError, match="takes no direction"):
            SolveSettings(direction="config").applied(RECIPES[recipe], problem("burgers"))
        with pytest.raises(InputError, match="weights that climb"):
            SolveSettings(balancer="self-adaptive").applied(RECIPES[recipe], problem("burgers"))
    for recipe in ("natural-gradient", "gauss-newton-cg"):
        with pytest.raises(InputError, match="takes no mini-batches"):
            SolveSettings(batch=9).applied(RECIPES[recipe], problem("burgers"))
    objective, field = started(FEW)
    energy = replace(objective, terms=tuple(replace(term, kind="density") for term in objective.terms))
    for method in (NaturalGradient(), GaussNewtonCG(), Spring()):
        with pytest.raises(InputError, match="is a density without residuals"):
            method.init(energy, field)
    for bad in (
        lambda: Spring(momentum=1.0),
        lambda: Spring(damping=0.0),
        lambda: Spring(batch=0),
        lambda: NaturalGradient(0),
        lambda: GaussNewtonCG(products=0),
        lambda: Limits(-1),
        lambda: Limits(tolerance=0.0),
    ):
        with pytest.raises(InputError, match="give"):
            bad()
