"""Balancers of points: their weights against the formulas, samplers that move the points, and what they go with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from sampler_contract import alike, resumed_and_whole
from test_term_balancers import moved, start

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.causal_weights import CausalWeights
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.kinds import BALANCERS, balancer_named
from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.balancers.residual_attention import ResidualAttention
from cpikan.learning.balancers.self_adaptive import SelfAdaptive
from cpikan.learning.combinators import BestSoFar
from cpikan.learning.directions.kinds import direction_named
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.objective import PointSet
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.kinds import make_sampler
from cpikan.learning.samplers.points import Points, interior_points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem

ADAM = Recipe("mine", "", (Adam(5),))
POINTWISE = [SelfAdaptive, ResidualAttention, lambda **more: CausalWeights(axis=1, **more)]


def residuals(objective, field, name):
    """Sizes of the residuals at every point, without any weight."""
    term = next(term for term in objective.terms if term.name == name)
    with torch.no_grad():
        return torch.stack(term.at(field, objective.sets[name]._replace(weight=None))).norm(dim=0)


@dataclass(frozen=True)
class Moving(Points):
    """A third of the interior points drawn anew, with weights of a sampler's own; it keeps those of the points that stay."""

    every: int = 5

    def init(self, problem):
        sets = dict(super().init(problem)[0])
        weight = torch.linspace(0.5, 1.5, len(sets["equation"].points), dtype=torch.float64)
        return {**sets, "equation": sets["equation"]._replace(weight=weight)}, {"round": 0}

    def update(self, problem, objective, field, state):
        rounds, at = state["round"] + 1, objective.sets["equation"]
        count = len(at.points) // 3
        fresh = torch.from_numpy(interior_points(problem, Points(count, 0, "random", rounds)))
        points = torch.cat([at.points[count:], fresh])
        weight = torch.cat([at.weight[count:], torch.full((count,), 1.0 + rounds, dtype=torch.float64)])
        return objective.replace_points("equation", PointSet(points, weight=weight)), {"round": rounds}


def test_self_adaptive_weights_climb_the_gradient_of_the_cost():
    """By the mask lambda^2: the slope is found by autograd, from the cost with the weights as leaves."""
    _, field, objective = start()
    own = torch.linspace(0.5, 2.0, len(objective.sets["equation"].points), dtype=torch.float64)
    sets = {**objective.sets, "equation": objective.sets["equation"]._replace(weight=own)}
    balancer = SelfAdaptive(rate=0.2)
    found, state = balancer.init(replace(objective, sets=sets), field)
    assert all(bool((weight == 1).all()) for weight in state["points"].values())
    for step in range(3):
        before = {name: weight.clone().requires_grad_() for name, weight in state["points"].items()}
        plain = balancer.lifted(found, state)
        for term in found.terms:
            at = plain.sets[term.name]
            given = 1.0 if at.weight is None else at.weight
            leaf = before[term.name]
            laid = replace(plain, sets={**plain.sets, term.name: at._replace(weight=given * leaf)})
            laid.only(term.name).cost(field).backward()
        found, state = balancer.update(found, field, state)
        for name, leaf in before.items():
            truth = leaf.detach() + 0.2 * leaf.grad / leaf.grad.max()
            assert torch.allclose(state["points"][name], truth, rtol=1e-12)
        moved(field, step)


def test_attention_remembers_residuals():
    _, field, objective = start()
    found, state = ResidualAttention(rate=0.3).init(objective, field)
    sizes = residuals(found, field, "equation")
    found, state = ResidualAttention(rate=0.3).update(found, field, state)
    truth = 0.7 + 0.3 * sizes / sizes.max()
    assert torch.allclose(found.sets["equation"].weight, truth, rtol=1e-12)
    moved(field, 1)
    sizes = residuals(found, field, "equation")
    found, state = ResidualAttention(rate=0.3).update(found, field, state)
    assert torch.allclose(found.sets["equation"].weight, 0.7 * truth + 0.3 * sizes / sizes.max(), rtol=1e-12)


@pytest.mark.parametrize("potential", ["quadratic", "exponential"])
def test_variational_attention_is_a_density(potential):
    """Squares of the weights, which are what the cost has, are the derivative of the potential, and their mean stays 1."""
    _, field, objective = start()
    balancer = ResidualAttention(potential=potential, rate=1.0, temperature=0.5)
    found, state = balancer.init(objective, field)
    found, state = balancer.update(found, field, state)
    share = residuals(found, field, "equation")
    share = share / share.max()
    asked = share if potential == "quadratic" else torch.exp(share / 0.5)
    weight = found.sets["equation"].weight
    assert torch.allclose(weight.square(), asked / asked.mean(), rtol=1e-9)
    for at in found.sets.values():
        assert float(at.weight.square().mean()) == pytest.approx(1.0, rel=1e-12)


def test_causal_weights_are_those_of_the_formula():
    _, field, objective = start(count=400)
    balancer = CausalWeights(axis=1, slabs=5, ladder=(0.4,))
    found, state = balancer.init(objective, field)
    times = found.sets["equation"].points[:, 1]
    edges = torch.linspace(float(times.min()), float(times.max()), 6, dtype=torch.float64)
    squares = residuals(found, field, "equation").square()
    before, weights = 0.0, []
    for slab in range(5):
        inside = (times >= edges[slab]) & ((times < edges[slab + 1]) | (slab == 4))
        weight = torch.exp(torch.tensor(-0.4 * before))
        weights.append(float(weight))
        assert found.sets["equation"].weight[inside].square().numpy() == pytest.approx(float(weight), rel=1e-6)
        before += float(squares[inside].mean() / squares.mean())
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == 1.0
    assert weights[-1] < 0.5
    assert state["points"].keys() == {"equation"}  # conditions hold at all times


def test_causal_weights_never_rise_with_time_and_the_ladder_is_climbed():
    """A field that solves the equation has weights 1, and each look takes the next rung."""
    _, field, objective = start(count=200)
    balancer = CausalWeights(axis=1, slabs=8)
    found, state = balancer.init(objective, field)
    for step in range(4):
        moved(field, step)
        found, state = balancer.update(found, field, state)
        order = torch.argsort(found.sets["equation"].points[:, 1])
        assert bool((found.sets["equation"].weight[order].diff() <= 0).all())
    rungs = [state["rung"]]
    network = ScaledCPIKAN([2, 4, 1], 4, ([-6, 0], [6, 1]), start=Start(1))
    network.set_output_coefficients(torch.zeros_like(network.output_coefficients()))
    for _ in range(6):
        found, state = balancer.update(found, network, state)  # u = 0 solves the equation of diffusion
        rungs.append(state["rung"])
    assert rungs == sorted(rungs)
    assert rungs[-1] == 4
    assert bool((found.sets["equation"].weight == 1).all())


def test_causal_weights_are_named_for_a_problem_that_evolves():
    assert balancer_named("causal", problem("burgers")) == CausalWeights(axis=1)
    text = "causal weights for poisson-2d, which does not evolve: give a problem with conditions at the start"
    with pytest.raises(InputError, match=text):
        solve("poisson-2d", recipe="adam", settings=SolveSettings(1.0, balancer="causal"))
    _, field, objective = start()
    with pytest.raises(InputError, match="along axis 2 of 2: count axes from 0"):
        CausalWeights(axis=2).init(objective, field)


@pytest.mark.parametrize("make", POINTWISE)
def test_weights_follow_points_that_a_sampler_moves(make):
    """Its own weights stay its own; new points have the weights of where they are, until the balancer looks again."""
    one = problem("diffusion")
    run = Runner(one)
    balancer = make(every=4)
    run.place(ScaledCPIKAN([2, 4, 1], 4, ([-6, 0], [6, 1]), start=Start(1)), Moving(60, 20), balancer)
    held = run.iterate.heldout
    run.run(Adam(15, 1e-2))
    state, objective = run._hooks["balancer"], run.iterate.objective
    at, bare = objective.sets["equation"], balancer.lifted(objective, state).sets["equation"]
    assert bare.weight.tolist() == [*([2.0] * 20), *([3.0] * 20), *([4.0] * 20)]  # three rounds, nothing compounded
    own = state["points"]["equation"]
    assert torch.equal(at.weight, bare.weight * own)
    assert not bool((own == own[0]).all())
    assert run.iterate.heldout is held  # neither points nor their weights move the yardstick
    moved_on, _ = balancer.moved(objective, balancer.lifted(objective, state), state)
    assert torch.equal(moved_on.sets["equation"].weight, at.weight)


def test_new_points_take_the_weight_of_their_neighbours():
    _, field, objective = start()
    found, state = ResidualAttention(rate=1.0).init(objective, field)
    found, state = ResidualAttention().update(found, field, state)
    at = found.sets["equation"]
    near = PointSet(at.points[[7, 3, 30]] + 1e-6)
    bare = ResidualAttention().lifted(found, state).replace_points("equation", near)
    after, _ = ResidualAttention().moved(found, bare, state)
    assert torch.equal(after.sets["equation"].weight, at.weight[[7, 3, 30]])


@pytest.mark.parametrize("make", POINTWISE)
def test_a_solve_with_moving_points_goes_on_to_the_bit(make, tmp_path):
    recipe = Recipe("mine", "", (Adam(21, 1e-2),), balancer=make(every=4))
    resumed, whole = resumed_and_whole(tmp_path, "diffusion", recipe, points=Moving(40, 20))
    assert torch.equal(parameter_vector(resumed.field), parameter_vector(whole.field))
    assert resumed.history.records[-1]["cost"] == whole.history.records[-1]["cost"]


@pytest.mark.parametrize("make", POINTWISE)
def test_densities_are_refused(make):
    _, field, objective = start()
    posed = replace(objective, terms=(replace(objective.terms[0], kind="density"), *objective.terms[1:]))
    with pytest.raises(
        InputError, match=r"equation is a density, which has no residuals at points: .* give a balancer of"
    ):
        make().init(posed, field)


@pytest.mark.parametrize("method", [Levenberg(3), QuasiNewton("ssbroyden", 3)])
def test_weights_that_climb_need_a_method_that_follows_the_gradient(method):
    for recipe, given in (
        (Recipe("mine", "", (Adam(5), method), balancer=SelfAdaptive()), SolveSettings(1.0)),
        (Recipe("mine", "", (method,)), SolveSettings(1.0, balancer="self-adaptive")),
    ):
        with pytest.raises(InputError, match=f"SelfAdaptive with {method.name}: weights that climb"):
            solve("poisson-1d", recipe=recipe, settings=given)


def test_directions_go_into_the_stages_that_follow_a_gradient():
    settings = SolveSettings(1.0, direction="config")
    stages = (Adam(5), BestSoFar(Adam(6)), QuasiNewton("lbfgs", 5), BestSoFar(Levenberg(3)))
    mixed = settings.applied(Recipe("mine", "", stages), problem("poisson-1d"))
    along = direction_named("config")
    assert mixed.stages == (Adam(5, direction=along), BestSoFar(Adam(6, direction=along)), *stages[2:])
    for name in ("default", "levenberg-marquardt", "march", "last-layer"):
        with pytest.raises(InputError, match=f"recipe {name} takes no direction, as none of its methods follows"):
            solve("poisson-1d", recipe=name, settings=settings)
    with pytest.raises(InputError, match="MomentumConFIG in adam: both remember gradients"):
        solve("poisson-1d", recipe="adam", settings=SolveSettings(1.0, direction="m-config"))


@pytest.mark.parametrize("name", BALANCERS)
def test_every_name_makes_a_balancer_that_solves(name):
    recipe = Recipe("mine", "", (Adam(12, 1e-2),))
    field = ScaledCPIKAN([2, 3, 1], 3, ([-6, 0], [6, 1]), start=Start(1))
    run = Runner(problem("diffusion"))
    run.place(field, Points(40, 20), balancer_named(name, run.problem))
    before = run.iterate.heldout_cost()
    run.run(recipe.stages[0])
    assert run.iterate.heldout_cost() < before or isinstance(run._balancer, MeanSquares)
    assert balancer_named("kernel-traces", run.problem) == KERNEL_TRACES


def test_unknown_names_and_bad_settings():
    with pytest.raises(InputError, match=r"unknown balancer 'grad-norm': .*did you mean 'gradnorm'"):
        balancer_named("grad-norm", problem("poisson-1d"))
    for make, text in (
        (lambda: SelfAdaptive(rate=0.0), "self-adaptive weights at rate 0.0: give more than 0"),
        (lambda: ResidualAttention(rate=2.0), "residual attention at rate 2.0"),
        (lambda: ResidualAttention(potential="cubic"), "unknown potential 'cubic'"),
        (lambda: CausalWeights(slabs=1), "in 1 slabs"),
        (
            lambda: CausalWeights(ladder=(1.0, 0.1)),
            r"ladder \(1.0, 0.1\) of causal weights: give rising values above 0",
        ),
    ):
        with pytest.raises(InputError, match=text):
            make()


@pytest.mark.parametrize("name", ["annealing", "gradnorm", "relobralo", "softadapt", "residual-attention", "causal"])
def test_weights_stay_where_nothing_is_finite(name):
    one, field, objective = start()
    balancer = balancer_named(name, one)
    found, state = balancer.init(objective, field)
    found, state = balancer.update(found, field, state)
    with torch.no_grad():
        next(iter(field.parameters())).fill_(float("nan"))
    again, kept = balancer.update(found, field, state)
    assert again.weights == found.weights
    assert all(again.sets[term].weight is at.weight for term, at in found.sets.items())
    assert alike(kept, state)


def test_what_is_no_balancer_or_direction_is_refused():
    for balancer, words in ((3, "balancer 3"), (ResidualAttention, r"balancer <class '.*ResidualAttention'>")):
        with pytest.raises(InputError, match=f"{words} of recipe adam: give a Balancer"):
            solve("poisson-1d", recipe="adam", settings=SolveSettings(1.0, balancer=balancer))
    with pytest.raises(InputError, match=r"points by <class '.*Points'>: give Points\(interior, boundary\)"):
        SolveSettings(1.0, points=Points)
    for settings in (lambda: Adam(5, direction="config"), lambda: SolveSettings(1.0, direction=3).applied(ADAM, None)):
        with pytest.raises(InputError, match=r"direction (3|'config') of adam: give a Direction, as ConFIG\(\)"):
            settings()


@pytest.mark.parametrize("name", ["causal-slabs", "multi-resolution", "r3", "rad-unbiased", "rar-g", "volume"])
def test_weights_stand_on_the_points_of_every_sampler(name):
    """Their own weights come back as they put them, however many points there are now."""
    run = Runner(problem("diffusion"))
    sampler = make_sampler(name, Points(40, 20), None if name == "volume" else 3)
    balancer = ResidualAttention(every=2)
    run.place(ScaledCPIKAN([2, 3, 1], 3, ([-6, 0], [6, 1]), start=Start(1)), sampler, balancer)
    run.run(Adam(7, 1e-2))
    objective, state = run.iterate.objective, run._hooks["balancer"]
    at, bare = objective.sets["equation"], balancer.lifted(objective, state).sets["equation"]
    own = state["points"]["equation"]
    assert len(at.points) == len(own)
    assert bool((own > 0).all() & (own <= 1).all())
    assert torch.equal(at.weight, own if bare.weight is None else own * bare.weight)
    if name == "volume":
        assert torch.equal(bare.weight, sampler.init(run.problem)[0]["equation"].weight)
