"""The time limit within a step, by a clock that counts looks at it; what many axes take at the start."""

from __future__ import annotations

import math

import pytest
import torch

from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.combinators import BestSoFar
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.natural_gradient import GaussNewtonCG
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.methods.variable_projection import VariableProjection
from cpikan.learning.objective import linearise_any, make_objective
from cpikan.learning.runner import Budget, Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import test_points as points_of
from cpikan.learning.stop_reason import OutOfTime, StopReason
from cpikan.learning.strategies.grow import Grow, level_points, level_size
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box
from cpikan.streaming.run_store import RunStore

METHODS = (
    GeodesicLevenberg(40),
    Levenberg(40),
    VariableProjection(40),
    GaussNewtonCG(8, products=10),
    QuasiNewton("ssbroyden", 40),
    Adam(26),
)


class Counted(Runner):
    """A runner whose clock goes on by one second with every look of a method, and stands else."""

    looks = 0

    @property
    def seconds(self):
        return float(self.looks)

    def watch(self, operations=0.0):
        self.looks += 1
        super().watch(operations)


def started(seconds, store=None):
    run = Counted(problem("helmholtz-1d"), Budget(seconds), store=store)
    if not (store is not None and run.resume(field(), Points(60, 2))):
        run.place(field(), Points(60, 2))
    return run


def field():
    return ScaledCPIKAN([1, 4, 1], 5, start=Start(2))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_step_that_the_limit_finds_is_undone_and_the_solve_goes_on_from_there(method, tmp_path):
    """Not one look after the limit; what a resumed solve then reaches is what one with more time reaches, to the bit."""
    whole = started(1e9)
    whole.run(method)
    for limit in (0, 7, 22):
        folder = tmp_path / str(limit)
        with RunStore(folder, {}, resume=True) as store:
            run = started(limit + 0.5, store)
            assert run.run(method) is StopReason.TIME
        assert run.looks <= limit + 1  # the one that found it
        assert run.iterate.heldout_cost() == run.iterate.best_cost
    with RunStore(folder, {}, resume=True) as store:
        rest = started(1e9, store)
        assert rest.run(method) is not StopReason.TIME
    assert torch.equal(parameter_vector(rest.iterate.field), parameter_vector(whole.iterate.field))
    assert rest.iterations == whole.iterations


def test_no_step_begins_that_takes_longer_than_what_is_left():
    """Steps of Adam take one look each: of a limit between two looks nothing is wasted; one of eight looks waits for eight."""
    run = started(20.5)
    run.run(Adam(1000))
    assert run.looks == 20
    slow = started(60.5)
    slow.run(QuasiNewton("ssbroyden", 1000))
    took = [b["seconds"] - a["seconds"] for a, b in zip(slow.history.records, slow.history.records[1:], strict=False)]
    assert took
    assert slow.looks <= 60


def test_what_cannot_fit_is_refused_before_it_begins():
    run = started(5.0)
    run.watch(1e9)
    with pytest.raises(OutOfTime):
        run.watch(1e30)


def test_long_linearisations_look_at_the_clock_between_batches():
    """A field without a tape: 300 points are ten batches of 32."""
    one, looks = problem("helmholtz-1d"), []
    objective = make_objective(one, Points(300, 2).init(one)[0])
    linearise_any(field(), objective.terms[0], objective.sets["equation"], lambda: looks.append(1))
    assert len(looks) == math.ceil(300 / 32)

    def end():
        raise OutOfTime

    with pytest.raises(OutOfTime):
        linearise_any(field(), objective.terms[0], objective.sets["equation"], end)


def cosines(d):
    def right(x):
        return math.pi**2 * torch.cos(math.pi * x).sum(-1)

    def value(x):
        return torch.cos(math.pi * x).sum(-1)

    return Problem(
        f"poisson-{d}d",
        box([0.0] * d, [1.0] * d, [f"x{n}" for n in range(d)]),
        lambda u, x: u.second[..., 0, :].sum(-1) + right(x),
        [dirichlet(value)],
        exact=lambda x: value(x)[..., None],
    )


@pytest.mark.parametrize("d", [4, 5, 6])
def test_many_axes_begin_with_what_a_second_takes(d):
    """The first level has some hundred parameters, and no more boundary points than four for each of them and one a side."""
    one = cosines(d)
    run = Runner(one)
    (first, *_) = Grow()._fitting(run, Grow().init(run))
    parameters = first.parameters(1)
    assert 50 < parameters <= 700
    assert first == level_size(one, first.degree, None)
    assert level_points(one, first, 0).boundary <= 4 * parameters + 2 * d
    assert 40_000 <= len(points_of(one)) <= 70_000


def test_a_field_that_the_limit_finds_on_trial_is_put_back():
    class Trying(Adam):
        def step(self, objective, field, state):
            with torch.no_grad():
                for parameter in field.parameters():
                    parameter += 1
            objective.look()
            return state, 1.0

    run = started(0.5)
    before = parameter_vector(run.iterate.field)
    one = BestSoFar(Trying(9))
    state = one.init(run)
    assert one.step(run, state) is state
    assert run.looks == 1
    assert torch.equal(parameter_vector(run.iterate.field), before)
    assert run.iterations == 0
