"""Levenberg-Marquardt against SciPy and closed forms: batches, independence, losses, forms, failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from posed_least_squares import Cauchy, DualEquations, Pointwise, Residuals, Sum, WithJacobian, equations
from scipy.optimize import least_squares

from cpikan.errors import InputError
from cpikan.fields.functional import functional, named_parameters, parameter_vector, set_parameters
from cpikan.fields.parameter_jacobian import parameter_jacobian
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.levenberg_marquardt import Settings, StopReason, advance, begin, minimise
from cpikan.learning.normal_equations import NormalEquations
from cpikan.learning.robust import SQUARES, Huber

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
D = torch.float64


def tensor(*numbers):
    return torch.tensor(numbers, dtype=D)


def rosenbrock(p):
    return torch.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])


def powell(p):
    return torch.stack([p[0] + 10 * p[1], 5**0.5 * (p[2] - p[3]), (p[1] - 2 * p[2]) ** 2, 10**0.5 * (p[0] - p[3]) ** 2])


def helical(p):
    angle = torch.atan2(p[1], p[0]) / (2 * torch.pi)
    return torch.stack([10 * (p[2] - 10 * angle), 10 * (p[:2].norm() - 1), p[2]])


# More, Garbow and Hillstrom (1981): problem, start, solution; Powell's has a singular Jacobian there
PROBLEMS = [
    (rosenbrock, tensor(-1.2, 1), tensor(1, 1), 1e-12),
    (powell, tensor(3, -1, 0, 1), tensor(0, 0, 0, 0), 1e-6),
    (helical, tensor(-1, 0.1, 0.2), tensor(1, 0, 0), 1e-12),
]


@pytest.mark.parametrize("metric", ["running-max", "identity"])
@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
@pytest.mark.parametrize(("function", "start", "truth", "tolerance"), PROBLEMS, ids=["rosenbrock", "powell", "helical"])
def test_standard_problems(function, start, truth, tolerance, mode, metric):
    # Powell's converges linearly for ever, its residuals vanish like the square of the distance
    found = minimise(Residuals(function, mode=mode), start, Settings(metric=metric, target=1e-30))
    assert float((found.parameters - truth).abs().max()) <= tolerance
    assert StopReason(int(found.reason)).converged
    assert bool(found.converged)
    assert int(found.iterations) <= 60  # SciPy's own takes some 20 to 60


@pytest.mark.parametrize(("function", "start", "truth", "tolerance"), PROBLEMS, ids=["rosenbrock", "powell", "helical"])
def test_single_precision(function, start, truth, tolerance):
    found = minimise(Residuals(function), start.float(), Settings(target=1e-13))
    assert found.parameters.dtype == torch.float32
    # the cost of Powell's falls with the fourth power of the distance: eps^(1/4) = 2e-2 is what can be seen
    assert float((found.parameters - truth).abs().max()) <= (2e-2 if function is powell else 1e-5)
    assert int(found.reason) != StopReason.BUDGET


T = torch.linspace(0, 4, 40, dtype=D)


def decay(p, y):
    return p[0] * torch.exp(-p[1] * T) + p[2] - y


def decay_with_jacobian(p, y):
    e = torch.exp(-p[:, 1:2] * T)
    jacobian = torch.stack([e, -p[:, :1] * T * e, torch.ones_like(e)], dim=-1)
    return p[:, :1] * e + p[:, 2:] - y, jacobian


def decays(count, noise=0.01, seed=0):
    generator = torch.Generator().manual_seed(seed)
    true = torch.rand(count, 3, dtype=D, generator=generator) + 0.5
    clean = true[:, :1] * torch.exp(-true[:, 1:2] * T) + true[:, 2:]
    return clean + noise * torch.randn(count, 40, dtype=D, generator=generator)


@pytest.fixture(scope="module")
def many():
    y = decays(300)
    return y, minimise(WithJacobian(decay_with_jacobian, (y,)), torch.ones(300, 3, dtype=D))


def test_a_batch_finds_what_scipy_finds(many):
    y, found = many
    assert bool(found.converged.all())
    assert sum(found.counts().values()) == 300
    for n in range(0, 300, 30):
        truth = least_squares(
            lambda p, n=n: decay(torch.from_numpy(p), y[n]).numpy(), np.ones(3), xtol=1e-14, ftol=1e-14
        )
        assert float(found.cost[n]) <= truth.cost * (1 + 1e-12)
        # SciPy differentiates by differences: its gradient vanishes to 1e-8, its parameters are right to about that
        assert np.abs(found.parameters[n].numpy() - truth.x).max() <= 1e-6


def test_every_problem_runs_as_if_it_were_alone(many):
    y, found = many
    # Some problems start far off and take longer, one is at its end at once: nobody waits or hurries.
    start = torch.ones(300, 3, dtype=D)
    start[::7] *= 3
    start[5] = found.parameters[5]
    together = minimise(WithJacobian(decay_with_jacobian, (y,)), start)
    assert int(together.iterations.max()) > 2 * int(together.iterations.min())
    for n in (0, 5, 7, 8, 123, 299):
        alone = minimise(WithJacobian(decay_with_jacobian, (y[n : n + 1],)), start[n])
        assert alone.parameters.shape == (3,)
        # the same steps; batched products may add in another order, which damping does not amplify near the minimum
        assert float((alone.parameters - together.parameters[n]).abs().max()) <= 1e-9
        assert abs(int(alone.iterations) - int(together.iterations[n])) <= 2
    again = minimise(WithJacobian(decay_with_jacobian, (y,)), start)
    assert torch.equal(again.parameters, together.parameters)  # deterministic


def test_automatic_jacobians_and_a_cheap_cost_change_nothing(many):
    y, found = many
    calls = []

    def alone(p, data):
        calls.append(len(p))
        return decay_with_jacobian(p, data)[0]

    automatic = minimise(Residuals(decay, (y[:20],)), torch.ones(20, 3, dtype=D))
    cheap = minimise(WithJacobian(decay_with_jacobian, (y[:20],), residuals=alone), torch.ones(20, 3, dtype=D))
    assert calls
    for other in (automatic, cheap):
        assert float((other.parameters - found.parameters[:20]).abs().max()) <= 1e-9


def test_finished_problems_leave_the_batch():
    sizes = []

    def counted(p, y):
        sizes.append(len(p))
        return decay_with_jacobian(p, y)

    start = torch.ones(100, 3, dtype=D)
    y = decays(100)
    done = minimise(WithJacobian(decay_with_jacobian, (y,)), start).parameters
    start[20:] = done[20:]  # 80 are at their minimum
    minimise(WithJacobian(counted, (y,)), start)
    assert sizes[0] == 100
    assert sizes[-1] < 20


def test_chunks_of_residuals_sum_to_the_whole():
    y = decays(6)

    def part(lo, hi):
        def function(p, data):
            r, j = decay_with_jacobian(p, data)
            return r[:, lo:hi], j[:, lo:hi]

        return WithJacobian(function, (y,), loss=Huber(0.01))

    start = torch.ones(6, 3, dtype=D)
    whole = minimise(part(0, 40), start)
    chunked = minimise(Sum([part(0, 2), part(2, 17), part(17, 40)]), start)  # the first in dual form
    assert float((whole.parameters - chunked.parameters).abs().max()) <= 1e-8
    assert torch.allclose(whole.cost, chunked.cost, rtol=1e-12)


def test_residuals_point_by_point_are_the_same_residuals():
    y = decays(5)
    time = T.expand(5, -1)

    def at(p, t, value):
        r = p[0] * torch.exp(-p[1] * t) + p[2] - value
        return torch.stack([r, 0.1 * r**2])

    def whole(p, t, value):
        return at(p, t, value).T.flatten()

    start = torch.ones(5, 3, dtype=D)
    points, lists = Pointwise(at, (time, y), Huber(0.05)), Residuals(whole, (time, y), Huber(0.05))
    one, other = points.linearise(start), lists.linearise(start)
    assert torch.allclose(points.cost(start), lists.cost(start), rtol=1e-13)
    assert torch.allclose(one.gradient, other.gradient, rtol=1e-12)
    assert torch.allclose(one.matrix, other.matrix, rtol=1e-12)
    found = minimise(points, start)
    assert bool(found.converged.all())
    assert float((found.parameters - minimise(lists, start).parameters).abs().max()) <= 1e-7


def test_a_differential_equation_is_solved_through_jets():
    """u'' + u = f with u(+-1) = 0 and u = sin(2 pi x), all parameters at once, from the start as it is."""
    field = ScaledCPIKAN([1, 4, 1], 6, start=Start(1))
    jet = functional(field, "jet")
    x = torch.cos(torch.pi * (torch.arange(96, dtype=D) + 0.5) / 96)[None, :, None]

    def inside(p, point):
        u = jet(named_parameters(field, p), point, second="laplacian")
        return u.second + u.value - (1 - 4 * torch.pi**2) * torch.sin(2 * torch.pi * point)

    def ends(p, point):
        return 10 * functional(field)(named_parameters(field, p), point)

    problem = Sum([Pointwise(inside, (x,)), Pointwise(ends, (torch.tensor([[[-1.0], [1.0]]], dtype=D),))])
    found = minimise(problem, parameter_vector(field), Settings(iterations=60))
    set_parameters(field, found.parameters)
    grid = torch.linspace(-1, 1, 201, dtype=D)[:, None]
    truth = torch.sin(2 * torch.pi * grid)
    # sixty iterations come to some 1e-4; a wrong derivative anywhere would leave an error of order one
    assert float((field(grid).detach() - truth).norm() / truth.norm()) < 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.floats(1e-8, 1e3), st.integers(0, 2**31))
def test_normal_and_dual_form_solve_the_same_system(n, rows, columns, damping, seed):
    generator = torch.Generator().manual_seed(seed)
    j = torch.randn(n, rows, columns, dtype=D, generator=generator)
    r = torch.randn(n, rows, dtype=D, generator=generator)
    metric = torch.rand(n, columns, dtype=D, generator=generator) + 0.5
    m = torch.full((n,), damping, dtype=D)
    found = equations(r, j, SQUARES)
    assert isinstance(found, DualEquations if rows < columns else NormalEquations)
    gradient = (j.mT @ r[..., None])[..., 0]
    for form in (NormalEquations(found.cost, gradient, j.mT @ j), DualEquations(found.cost, gradient, j, r)):
        assert torch.allclose(form.diagonal, (j * j).sum(-2))
        step, exists = form.step(m, metric)
        for k in range(n):
            system = j[k].mT @ j[k] + damping * torch.diag(metric[k])
            if bool(exists[k]):
                # Cholesky leaves a small residual whatever the condition; the dual form does so where it is used, and
                # where rows are more than columns its matrix is singular but for the damping
                rest = system @ step[k] + gradient[k]
                size = system.norm() * step[k].norm() + gradient[k].norm()
                bound = 1e-11 + (1e-14 / damping if rows > columns and isinstance(form, DualEquations) else 0)
                assert float(rest.norm()) <= bound * float(size)
        assert bool(exists.all()) or damping < 1e-6


def test_more_parameters_than_residuals():
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(4, 3, 20, dtype=D, generator=generator)
    b = torch.randn(4, 3, dtype=D, generator=generator)
    problem = WithJacobian(lambda p, a, b: ((a @ p[..., None])[..., 0] - b, a), (a, b))
    found = minimise(problem, torch.zeros(4, 20, dtype=D))
    assert isinstance(problem.linearise(torch.zeros(4, 20, dtype=D)), DualEquations)
    assert bool(found.converged.all())
    assert float(found.cost.max()) <= 1e-24


@pytest.mark.parametrize("loss", [SQUARES, Huber(0.7), Cauchy(0.7)])
def test_losses_have_the_weights_they_say(loss):
    r = torch.linspace(-3, 3, 601, dtype=D, requires_grad=True)
    (slope,) = torch.autograd.grad(loss.value(r).sum(), r)
    assert torch.allclose(slope, loss.weight(r) * r, atol=1e-14)
    small = tensor(1e-4)
    assert torch.allclose(loss.value(small), small**2 / 2, rtol=1e-6)


@pytest.mark.parametrize(("name", "loss"), [("huber", Huber(0.02)), ("cauchy", Cauchy(0.02))])
def test_robust_fits_are_those_of_scipy_and_shrug_off_outliers(name, loss):
    y = decays(8, seed=3)
    y[:, ::9] += 2  # five of forty far off
    found = minimise(
        WithJacobian(decay_with_jacobian, (y,), loss=loss), torch.ones(8, 3, dtype=D), Settings(iterations=300)
    )
    plain = minimise(WithJacobian(decay_with_jacobian, (y,)), torch.ones(8, 3, dtype=D))
    clean = minimise(WithJacobian(decay_with_jacobian, (decays(8, seed=3),)), torch.ones(8, 3, dtype=D))
    for n in range(0, 8, 3):
        function = lambda p, n=n: decay(torch.from_numpy(p), y[n]).numpy()  # noqa: E731
        start = found.parameters[n].numpy() + 0.01
        truth = least_squares(function, start, loss=name, f_scale=0.02, xtol=1e-12, ftol=1e-12, gtol=1e-12)
        assert float(found.cost[n]) <= truth.cost * (1 + 1e-9)
    error, without = ((s.parameters - clean.parameters).abs().mean() for s in (found, plain))
    assert float(error) < 0.2 * float(without)


def test_a_wall_of_nan_is_stepped_back_from():
    def log(p):  # not a number for p < 0, and the first full step lands there
        return torch.stack([torch.log(p[0]), 0.1 * (p[1] - 3)])

    found = minimise(Residuals(log), tensor(5.0, 0.0), Settings(damping=1e-8))
    assert bool(found.converged)
    assert torch.allclose(found.parameters, tensor(1.0, 3.0), atol=1e-9)

    def trap(p):
        return torch.where(p[0] == 5, 1.0, torch.nan) * p

    stuck = minimise(Residuals(trap), tensor(5.0, 1.0))
    assert StopReason(int(stuck.reason)) is StopReason.DIVERGED
    assert torch.equal(stuck.parameters, tensor(5.0, 1.0))
    assert float(stuck.cost) == 13.0


def test_a_jacobian_that_is_not_finite_is_stepped_back_from():
    def function(p):
        r = p - 1
        jacobian = torch.where(p[:, 0] < 2, torch.nan, 1.0)[:, None, None] * torch.eye(2, dtype=D)
        return r, jacobian

    found = minimise(WithJacobian(function), tensor([5.0, 1.0], [4.0, 2.0]))
    assert not bool(found.converged.any())
    assert bool((found.parameters[:, 0] >= 2).all())  # the last with a Jacobian
    assert bool(found.cost.isfinite().all())


def test_reasons_are_values():
    bad = minimise(Residuals(lambda p: torch.log(p)), tensor([-1.0], [2.0]))
    assert StopReason(int(bad.reason[0])) is StopReason.BAD_START
    assert torch.equal(bad.parameters[0], tensor(-1.0))
    assert bool(bad.converged[1])

    short = minimise(Residuals(rosenbrock), tensor(-1.2, 1), Settings(iterations=3))
    assert StopReason(int(short.reason)) is StopReason.BUDGET
    assert int(short.iterations) == 3
    none = minimise(Residuals(rosenbrock), tensor(-1.2, 1), Settings(iterations=0))
    assert torch.equal(none.parameters, tensor(-1.2, 1))

    def wrong(p):  # the Jacobian points uphill
        return p - tensor(1, 2), -torch.eye(2, dtype=D).expand(len(p), 2, 2)

    uphill = minimise(WithJacobian(wrong), tensor(5.0, 1.0))
    assert StopReason(int(uphill.reason)) is StopReason.STALLED
    assert torch.equal(uphill.parameters, tensor(5.0, 1.0))

    for function, reason in (
        (lambda p: torch.cat([p, p]) - 1, StopReason.TARGET),
        (lambda p: torch.cat([p, p - 2]), StopReason.GRADIENT),
    ):
        there = minimise(Residuals(function), tensor(1.0))  # at the minimum, without and with a residual
        assert StopReason(int(there.reason)) is reason
        assert int(there.iterations) == 0
    assert all(reason.text for reason in StopReason)


def test_a_problem_that_is_good_enough_stops_at_its_target():
    y = decays(4)
    target = torch.tensor([0.0, 1e9, 0.1, 0.0], dtype=D)
    found = minimise(WithJacobian(decay_with_jacobian, (y,)), torch.ones(4, 3, dtype=D), Settings(target=target))
    assert [StopReason(int(v)) is StopReason.TARGET for v in found.reason] == [False, True, True, False]
    assert int(found.iterations[1]) == 0
    assert 0 < int(found.iterations[2]) < int(found.iterations[0])
    assert bool(found.converged.all())


def test_a_parameter_without_influence_stays_where_it_is():
    found = minimise(Residuals(lambda p: torch.stack([p[0] - 3, p[0] * p[0] - 9])), tensor(1.0, 7.0))
    assert bool(found.converged)
    assert torch.allclose(found.parameters, tensor(3.0, 7.0))


def test_scaling_a_parameter_changes_nothing():
    # Moré's metric: the same problem in units a million times smaller takes the same steps.
    scale = tensor(1e6, 1e-6)
    plain = minimise(Residuals(rosenbrock), tensor(-1.2, 1))
    scaled = minimise(Residuals(lambda p: rosenbrock(p * scale)), tensor(-1.2, 1) / scale)
    assert int(plain.iterations) == int(scaled.iterations)
    assert torch.allclose(scaled.parameters * scale, plain.parameters, rtol=1e-9)


def test_iterations_never_raise_the_cost_and_states_are_not_changed():
    problem, settings = Residuals(rosenbrock), Settings()
    state = begin(problem, tensor([-1.2, 1], [3, 3]), settings)
    for _ in range(12):
        before = state.parameters.clone()
        later = advance(problem, state, settings)
        assert torch.equal(state.parameters, before)
        assert bool((later.equations.cost <= state.equations.cost).all())
        state = later


def test_thousands_of_networks_at_once_and_one_alone():
    """Small fields fitted by their closed-form Jacobian; the surface of each is another one."""
    x = torch.rand(1, 100, 2, dtype=D, generator=torch.Generator().manual_seed(2)) * 2 - 1
    bend = torch.linspace(0.2, 1.5, 50, dtype=D)[:, None]
    y = torch.sin(2 * bend * x[..., 0]) * torch.exp(-bend * x[..., 1])
    field, shape = ScaledCPIKAN([2, 4, 1], 3, networks=50), ScaledCPIKAN([2, 4, 1], 3)

    def function(p, data):
        value, jacobian = parameter_jacobian(field, x, p)
        return value[..., 0] - data, jacobian[..., 0, :]

    start = parameter_vector(field)
    found = minimise(WithJacobian(function, (y,)), start, Settings(iterations=60))
    first = WithJacobian(function, (y,)).cost(start)
    assert float((found.cost / first).median()) < 1e-4
    assert float((found.cost / first).max()) < 0.05
    call = functional(shape)
    alone = Residuals(lambda p, data: call(named_parameters(shape, p), x[0])[:, 0] - data, (y[:1],))
    single = minimise(alone, start[0], Settings(iterations=10))
    batched = minimise(WithJacobian(function, (y[:1],)), start[:1], Settings(iterations=10))
    assert float((single.cost - batched.cost[0]).abs()) <= 1e-6 * float(first[0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: minimise(Residuals(rosenbrock), torch.zeros(2, dtype=torch.long)), r"give \(P,\) or \(N, P\) floats"),
        (lambda: minimise(Residuals(rosenbrock), torch.zeros(1, 2, 2)), "start of shape"),
        (lambda: minimise(Residuals(lambda p: p.sum()), tensor(1, 2)), "give one list"),
        (lambda: minimise(Residuals(rosenbrock, mode="back"), tensor(1, 2)), "give auto, forward or reverse"),
        (lambda: minimise(WithJacobian(lambda p: (p, p)), tensor(1, 2)), r"give \(1, R\) and \(1, R, 2\)"),
        (lambda: Settings(iterations=-1), "-1 iterations"),
        (lambda: Settings(damping=0), "from damping 0"),
        (lambda: Settings(metric="max"), "metric 'max': give running-max or identity"),
        (lambda: Huber(0.0), "width 0.0 of a robust loss"),
        (lambda: Huber(float("nan")), "width nan"),
    ],
)
def test_bad_input_is_refused(call, text):
    with pytest.raises(InputError, match=text):
        call()
