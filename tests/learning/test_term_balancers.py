"""Balancers of terms: their shares against the formulas, and what a scale of a loss does to a solve."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.protocol import Jet
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.annealing import LearningRateAnnealing
from cpikan.learning.balancers.grad_norm import GradNorm, last_layer
from cpikan.learning.balancers.kernel_traces import KernelTraces
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.balancers.relobralo import ReLoBRaLo
from cpikan.learning.balancers.soft_adapt import SoftAdapt
from cpikan.learning.methods.adam import Adam
from cpikan.learning.objective import Objective, PointSet, Term, make_objective
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Condition

MAKERS = [LearningRateAnnealing, GradNorm, ReLoBRaLo, SoftAdapt]
SUMMED = [GradNorm, ReLoBRaLo, SoftAdapt]


def start(name="diffusion", count=80):
    one = problem(name)
    field = ScaledCPIKAN([one.dimension, 4, one.outputs], 4, (one.region.lower, one.region.upper), start=Start(1))
    return one, field, make_objective(one, Points(count, 40).init(one)[0])


def moved(field, seed):
    """The field after a step at random."""
    vector = parameter_vector(field)
    step = torch.randn(len(vector), generator=torch.Generator().manual_seed(seed), dtype=vector.dtype)
    set_parameters(field, vector + 0.3 * step)


def mean_losses(objective, field):
    """Half the mean square of the residuals of every term, by its definition."""
    found = {}
    for term in objective.terms:
        with torch.no_grad():
            squares = torch.stack(term.at(field, objective.sets[term.name])).square().sum(dim=0)
        found[term.name] = 0.5 * float(squares.mean())
    return found


def by_hand(objective, field, name, parameters):
    """The gradient of a mean loss by some parameters, flat."""
    term = next(term for term in objective.terms if term.name == name)
    loss = 0.5 * torch.stack(term.at(field, objective.sets[name])).square().sum(dim=0).mean()
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters, materialize_grads=True)])


def scaled(one, factor, number=0):
    """The problem with one condition's residual multiplied."""
    old = one.conditions[number]
    new = replace(old, residual=lambda jet, side: factor * old.residual(jet, side))
    return replace(one, conditions=[new if c is old else c for c in one.conditions])


def test_the_cost_is_the_papers_loss_times_the_shares():
    """Weights multiply residuals, so that a share of s is a weight of sqrt(s / n): the costs add up as the papers' do."""
    _, field, objective = start()
    found, state = LearningRateAnnealing().init(objective, field)
    losses = mean_losses(objective, field)
    total = sum(state["shares"][name] * loss for name, loss in losses.items())
    assert float(found.cost(field).detach()) == pytest.approx(total, rel=1e-12)


def test_annealing_follows_its_quotients():
    _, field, objective = start()
    every = list(field.parameters())

    def quotients():
        top = float(by_hand(objective, field, "equation", every).abs().max())
        names = [name for name in objective.weights if name != "equation"]
        return {name: top / float(by_hand(objective, field, name, every).abs().mean()) for name in names}

    found, state = LearningRateAnnealing().init(objective, field)
    first = quotients()
    assert state["shares"] == pytest.approx({"equation": 1.0, **first}, rel=1e-10)
    moved(field, 3)
    _, state = LearningRateAnnealing().update(found, field, state)
    then = quotients()
    assert state["shares"] == pytest.approx(
        {"equation": 1.0, **{name: 0.9 * first[name] + 0.1 * then[name] for name in then}}, rel=1e-10
    )


def test_gradients_of_the_weighted_terms_are_equally_long_at_first_and_then_by_their_pace():
    _, field, objective = start()
    balancer = GradNorm(alpha=1.5, rate=1.0)
    found, state = balancer.init(objective, field)
    first = mean_losses(objective, field)

    def norms(shares):
        by_layer = {n: by_hand(objective, field, n, last_layer(field)) for n in shares}
        return torch.tensor([shares[n] * float(by_layer[n].norm()) for n in shares], dtype=torch.float64)

    assert norms(state["shares"]).numpy() == pytest.approx(float(norms(state["shares"])[0]), rel=1e-10)
    moved(field, 4)
    _, state = balancer.update(found, field, state)
    now = mean_losses(objective, field)
    ratio = torch.tensor([now[name] / first[name] for name in now], dtype=torch.float64)
    asked = (ratio / ratio.mean()) ** 1.5
    sizes = norms(state["shares"])
    assert (sizes / sizes.mean()).numpy() == pytest.approx((asked / asked.mean()).numpy(), rel=1e-9)
    assert {id(p) for p in last_layer(field)} == {id(p) for p in field.output_layer.parameters()}


def test_a_part_of_the_way_is_gone_in_logarithms():
    _, field, objective = start()
    found, state = GradNorm(rate=0.25).init(objective, field)
    moved(field, 4)
    _, whole = GradNorm(rate=1.0).update(found, field, state)
    _, part = GradNorm(rate=0.25).update(found, field, state)
    steps = [math.log(part["shares"][n] / state["shares"][n]) for n in found.weights]
    asked = [0.25 * math.log(whole["shares"][n] / state["shares"][n]) for n in found.weights]
    assert [s - steps[0] for s in steps] == pytest.approx([a - asked[0] for a in asked], abs=1e-9)  # but for the sum


def test_relative_losses_are_those_of_the_formula():
    _, field, objective = start()
    balancer = ReLoBRaLo(alpha=0.7, lookback=0.5, temperature=0.4, seed=2)
    found, state = balancer.init(objective, field)
    names = list(found.weights)
    losses, shares = [mean_losses(objective, field)], dict.fromkeys(names, 1.0)
    drawn = []
    for look in range(1, 7):
        moved(field, look)
        found, state = balancer.update(found, field, state)
        losses.append(mean_losses(objective, field))

        def balance(then, now=losses[-1]):
            quotients = {n: now[n] / (0.4 * then[n]) for n in names}
            powers = {n: math.exp(q - max(quotients.values())) for n, q in quotients.items()}
            return {n: len(names) * p / sum(powers.values()) for n, p in powers.items()}

        since, last = balance(losses[0]), balance(losses[-2])
        rho = float(torch.rand((), generator=torch.Generator().manual_seed(2 + 7919 * look)) < 0.5)
        drawn.append(rho)
        shares = {n: 0.7 * (rho * shares[n] + (1 - rho) * since[n]) + 0.3 * last[n] for n in names}
        assert state["shares"] == pytest.approx(shares, rel=1e-6)
        shares = state["shares"]
    assert len(set(drawn)) == 2


def test_rates_of_losses_are_those_of_the_formula():
    _, field, objective = start()
    for by_loss in (False, True):
        balancer = SoftAdapt(beta=2.0, by_loss=by_loss)
        found, state = balancer.init(objective, field)
        before = mean_losses(objective, field)
        moved(field, 5)
        _, state = balancer.update(found, field, state)
        now = mean_losses(objective, field)
        rates = {n: now[n] / before[n] - 1 for n in now}
        total = sum(abs(rate) for rate in rates.values())
        asked = {n: math.exp(2.0 * rate / total) for n, rate in rates.items()}
        if by_loss:  # in the weights of the start, in which all balancers of this kind count
            asked = {n: a * state["last"][n] for n, a in asked.items()}
        mean = sum(asked.values()) / len(asked)
        assert state["shares"] == pytest.approx({n: a / mean for n, a in asked.items()}, rel=1e-9)


@pytest.mark.parametrize("make", SUMMED)
def test_shares_are_positive_and_their_sum_stays(make):
    _, field, objective = start()
    found, state = make().init(objective, field)
    for step in range(12):
        moved(field, step)
        found, state = make().update(found, field, state)
        assert min(state["shares"].values()) > 0
        assert sum(state["shares"].values()) == pytest.approx(len(found.terms), rel=1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_equal_losses_have_equal_weights(make):
    """The same residual as equation and twice as a condition, at the same points."""
    _, field, _ = start()
    at = PointSet(torch.rand(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))

    def function(jet, at, partner):
        return {"r": jet.value[:, 0] - at.points[:, 0]}

    terms = tuple(Term(name, function, inside=name == "equation") for name in ("equation", "one", "two"))
    names = [term.name for term in terms]
    objective = Objective(terms, dict.fromkeys(names, at), dict.fromkeys(names, 1.0))
    found, state = make().init(objective, field)
    for step in range(3):
        moved(field, step)
        found, state = make().update(found, field, state)
    equal = found.weights["one"]
    assert found.weights["two"] == pytest.approx(equal, rel=1e-12)
    if make is not LearningRateAnnealing:  # which compares the largest with the mean entry
        assert found.weights["equation"] == pytest.approx(equal, rel=1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_the_scale_of_a_loss_does_not_matter(make):
    """A condition in other units, so that its loss is 1000 times as large: weights undo it, and the solve stays as it was.

    GradNorm keeps the sum of its weights, so that its whole cost changes by a factor that varies a little from look to look:
    of that Adam, which else knows no scale, has a memory.
    """
    one, _, _ = start()
    ends = []
    for factor in (1.0, 1000**0.5):
        run = Runner(scaled(one, factor))
        run.place(ScaledCPIKAN([2, 4, 1], 4, ([-6, 0], [6, 1]), start=Start(1)), Points(60, 40), make(every=5))
        run.run(Adam(20, 1e-2, clip=None))
        ends.append(parameter_vector(run.iterate.field))
    bound = 1e-2 if make is GradNorm else 1e-5
    assert float((ends[1] - ends[0]).norm()) < bound * float(ends[0].norm())
    plain = []
    for factor in (1.0, 1000**0.5):  # what mean squares make of it
        run = Runner(scaled(one, factor))
        run.place(ScaledCPIKAN([2, 4, 1], 4, ([-6, 0], [6, 1]), start=Start(1)), Points(60, 40), MEAN_SQUARES)
        run.run(Adam(20, 1e-2, clip=None))
        plain.append(parameter_vector(run.iterate.field))
    assert float((plain[1] - plain[0]).norm()) > 3e-2 * float(plain[0].norm())


@pytest.mark.parametrize("make", [LearningRateAnnealing, GradNorm])
def test_a_term_without_a_gradient_keeps_its_weight(make):
    """A wall that is met exactly says nothing of its scale, and must not push all other terms away."""
    one, _, objective = start()
    met = Condition("met", lambda jet, side: 0.0 * jet.value[..., 0], ("x=min",))
    posed = replace(one, conditions=[*one.conditions, met])
    field = ScaledCPIKAN([2, 4, 1], 4, ([-6, 0], [6, 1]), start=Start(1))
    objective = make_objective(posed, Points(80, 40).init(posed)[0])
    found, state = make().init(objective, field)
    moved(field, 1)
    found, state = make().update(found, field, state)
    others = [share for name, share in state["shares"].items() if name != "met"]
    assert min(others) > 1e-4
    assert 1e-3 < state["shares"]["met"] < 1e3


def test_traces_are_those_of_a_brute_force_jacobian():
    """Of the kernel J J' of the output's coefficients, one reverse pass per residual; the equation has fewer than 256 rows."""
    _, field, objective = start(count=30)
    found, _ = KernelTraces().init(objective, field)
    output = list(field.output_layer.parameters())
    for term in objective.terms:
        at = objective.sets[term.name]
        rows = []
        for residual in torch.cat(term.at(field, at)):
            parts = torch.autograd.grad(residual, output, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
        jacobian = torch.stack(rows)
        trace = float(torch.trace(jacobian @ jacobian.mT))
        assert found.weights[term.name] == pytest.approx(trace**-0.5, rel=1e-9)


class Bent(torch.nn.Module):
    """A field of one's own that is linear in nothing: the sine of a network."""

    networks, dimension, outputs = None, 2, 1

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).sin()

    def jet(self, x, second="axes"):
        u = self.network.jet(x, "axes")
        sine, cosine = u.value.sin(), u.value.cos()
        bend = cosine[..., None] * u.second - sine[..., None] * u.gradient.square()
        return Jet(sine, cosine[..., None] * u.gradient, bend)


@pytest.mark.parametrize("make", [KernelTraces, ReLoBRaLo, SoftAdapt, LearningRateAnnealing, GradNorm])
def test_fields_that_are_linear_in_nothing_are_balanced_too(make):
    """The kernel is then that of all parameters."""
    _, network, objective = start(count=20)
    field = Bent(network)
    found, state = make().init(objective, field)
    again, _ = make().update(found, field, state)
    assert all(0 < weight < math.inf for weight in again.weights.values())
    if make is KernelTraces:
        for term in objective.terms:
            jacobian = found.only(term.name).linearise(field).jacobian
            assert float(jacobian.square().sum()) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("make", [GradNorm, ReLoBRaLo, SoftAdapt])
def test_densities_are_refused(make):
    _, field, objective = start()
    energy = replace(objective.terms[0], kind="density")
    posed = replace(objective, terms=(energy, *objective.terms[1:]))
    with pytest.raises(InputError, match=r"equation is a density, .* needs residuals, give LearningRateAnnealing"):
        make().init(posed, field)
    found, state = LearningRateAnnealing().init(posed, field)
    top = posed.only("equation").gradient(field)[1].abs().max()
    name = posed.terms[1].name
    mean = by_hand(posed, field, name, list(field.parameters())).abs().mean()
    assert state["shares"][name] == pytest.approx(float(top / mean), rel=1e-9)
    assert found.weights["equation"] == 1.0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LearningRateAnnealing(rate=0.0), "annealing by 0.0 of the way: give more than 0, at most 1"),
        (lambda: GradNorm(alpha=-1.0), "GradNorm of alpha -1.0 and rate 0.1"),
        (lambda: ReLoBRaLo(temperature=0.0), "ReLoBRaLo of alpha .* temperature 0.0"),
        (lambda: SoftAdapt(beta=float("nan")), "SoftAdapt of beta nan: give 0 or more"),
    ],
)
def test_bad_settings(make, text):
    with pytest.raises(InputError, match=text):
        make()
