"""Directions: each keeps to the contract and to the property of its paper."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from direction_contract import DirectionContract

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.directions.conflict_free import ConFIG, MomentumConFIG, conflict_free
from cpikan.learning.directions.direction import Sum
from cpikan.learning.directions.dual_cone import DualCone, dual_cone
from cpikan.learning.directions.gradient_surgery import PCGrad
from cpikan.learning.directions.kinds import DIRECTIONS, direction_named

ANSWERS = json.loads((Path(__file__).parent / "conflictfree_answers.json").read_text())
RULES = ("projection", "average", "centre")


def drawn(terms, parameters, seed):
    """The gradients of the script that made the table, and others."""
    path = Path(__file__).parents[2] / "benchmarks" / "conflictfree_answers.py"
    spec = importlib.util.spec_from_file_location("conflictfree_answers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.gradients(terms, parameters, seed)


def cosines(gradients, direction):
    return gradients @ direction / (gradients.norm(dim=1) * direction.norm())


class TestSum(DirectionContract):
    def make(self):
        return Sum()


class TestConFIG(DirectionContract):
    def make(self):
        return ConFIG()


class TestMomentumConFIG(DirectionContract):
    def make(self):
        return MomentumConFIG()


@pytest.mark.parametrize("rule", RULES)
class TestDualCone(DirectionContract):
    @pytest.fixture(autouse=True)
    def _rule(self, rule):
        self.rule = rule

    def make(self):
        return DualCone(self.rule)


class TestPCGrad(DirectionContract):
    def make(self):
        return PCGrad(3)


@pytest.mark.parametrize("terms", [2, 3, 5, 8])
def test_conflict_free_directions_have_equal_positive_cosines(terms):
    for seed in range(40):
        gradients = drawn(terms, 60, seed)
        found = conflict_free(gradients)
        angles = cosines(gradients, found)
        assert float(angles.min()) > 0
        assert float(angles.max() - angles.min()) < 1e-6
        along = found / found.norm()
        assert float(found.norm()) == pytest.approx(float((gradients @ along).sum()), rel=1e-9)


@pytest.mark.parametrize("case", ANSWERS["config"], ids=lambda c: f"{c['terms']} of {c['parameters']}")
def test_conflict_free_directions_are_those_of_the_authors(case):
    gradients = drawn(case["terms"], case["parameters"], 0)
    found = conflict_free(gradients)
    for answer in ("answer", "least_squares"):
        truth = torch.tensor(case[answer], dtype=torch.float64)
        assert float((found - truth).norm()) < 1e-5 * float(truth.norm())


@pytest.mark.parametrize("case", ANSWERS["momentum"], ids=lambda c: f"{c['terms']} terms")
def test_momenta_are_those_of_the_authors(case):
    terms, direction, state = case["terms"], MomentumConFIG(), {}
    for step, answer in enumerate(case["answers"]):
        assert direction.asked(terms, state) == (step % terms,)
        gradient = drawn(terms, case["parameters"], step)[step % terms]
        found, state = direction.combine(gradient[None], [True] * terms, state)
        truth = torch.tensor(answer, dtype=torch.float64)
        assert float((found - truth).norm()) <= 1e-5 * float(truth.norm())


def test_simple_cases_of_conflict_free_directions():
    unit = torch.eye(4, dtype=torch.float64)
    assert torch.allclose(conflict_free(unit[:3]), unit[:3].sum(dim=0), rtol=1e-12)  # orthogonal units: their sum
    gradient = drawn(1, 9, 0)
    assert torch.allclose(conflict_free(gradient), gradient[0], rtol=1e-12)
    other = drawn(2, 9, 1)
    zero = torch.zeros(1, 9, dtype=torch.float64)
    assert torch.allclose(conflict_free(torch.cat([other, zero])), conflict_free(other), rtol=1e-12)
    doubled = torch.stack([other[0], 3 * other[0], other[1]])  # parallel: one direction, all lengths
    angles = cosines(doubled, conflict_free(doubled))
    assert float(angles.max() - angles.min()) < 1e-6
    opposed = torch.stack([other[0], -2 * other[0]])
    assert not bool(conflict_free(opposed).any())
    many = drawn(6, 3, 2)  # more than there are dimensions: never against any of them
    assert float((many @ conflict_free(many)).min()) >= -1e-9
    assert conflict_free(drawn(3, 9, 0).float()).dtype == torch.float32


@pytest.mark.parametrize("make", [ConFIG, DualCone], ids=["config", "dcgd"])
def test_a_small_step_lowers_every_term(make):
    """Of the equation and of all conditions together in the dual cone, which knows no more than two."""
    objective, field = TestConFIG().start("burgers")
    start = parameter_vector(field)
    before = {name: value.detach() for name, value in objective.values(field).items()}
    _, found, _ = make().follow(objective, field, {})
    set_parameters(field, start - 1e-6 / float(found.norm()) * found)
    after = objective.values(field)
    falls = {name: float(before[name] - after[name].detach()) for name in before}
    conditions = sum(fall for name, fall in falls.items() if name != "equation")
    assert min([falls["equation"], conditions, *(falls.values() if make is ConFIG else ())]) > 0


@pytest.mark.parametrize("rule", RULES)
def test_the_dual_cone_is_never_left(rule):
    for seed in range(60):
        r, b = drawn(2, 5, seed)
        found = dual_cone(r, b, rule)
        slack = 1e-12 * float(found.norm() * max(r.norm(), b.norm()))
        assert min(float(found @ r), float(found @ b)) >= -slack
        if rule == "centre":
            angles = cosines(torch.stack([r, b]), found)
            assert float(angles[0]) == pytest.approx(float(angles[1]), abs=1e-12)
        elif min(float((r + b) @ r), float((r + b) @ b)) >= 0:
            assert torch.equal(found, r + b)  # nothing is lost, nothing changes
    assert not bool(dual_cone(r, -0.3 * r, rule).any())


def test_projections_of_the_dual_cone_are_those_of_the_formulas():
    r, b = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 0.0], [-3.0, 1.0]))
    assert torch.allclose(dual_cone(r, b, "projection"), b + 3 * r)  # b against r
    assert torch.allclose(dual_cone(b, r, "projection"), b + 3 * r)
    mean = 0.5 * ((r + 0.3 * b) + (b + 3 * r))
    assert torch.allclose(dual_cone(r, b, "average"), mean)


def test_terms_are_grouped_as_equation_against_conditions():
    gradients = drawn(4, 9, 3)
    found, _ = DualCone("average").combine(gradients, [True, False, True, False], {})
    assert torch.equal(found, dual_cone(gradients[0] + gradients[2], gradients[1] + gradients[3], "average"))


def test_surgery_equals_a_plain_reference():
    """Ten steps, the orders being those that the seed gives; and the authors of ConFIG, where order does not matter."""
    state = {}
    for step in range(10):
        gradients = drawn(4, 3, step)
        found, state = PCGrad(5).combine(gradients, [True] * 4, state)
        chance = torch.Generator().manual_seed(5 + 7919 * step)
        total = np.zeros(3)
        for i in range(4):
            own = gradients[i].numpy().copy()
            for j in torch.randperm(4, generator=chance).tolist():
                other = gradients[j].numpy()
                if j != i and own @ other < 0:
                    own = own - own @ other / (other @ other) * other
            total += own
        assert found.numpy() == pytest.approx(total, rel=1e-12)
    (two,) = (case for case in ANSWERS["config"] if case["terms"] == 2)
    found, _ = PCGrad().combine(drawn(2, 9, 0), [True, False], {})
    assert found.tolist() == pytest.approx(two["surgery_in_order"], rel=1e-9)


def test_orders_of_surgery_differ_from_step_to_step():
    gradients = drawn(6, 3, 1)
    found = [PCGrad(2).combine(gradients, [True] * 6, {"step": step})[0] for step in range(8)]
    assert len({tuple(one.tolist()) for one in found}) > 1


def test_names():
    assert direction_named("m-config") == MomentumConFIG()
    assert list(DIRECTIONS) == ["sum", "config", "m-config", "dcgd", "dcgd-projection", "dcgd-average", "pcgrad"]
    with pytest.raises(InputError, match=r"unknown direction 'confg'.*did you mean 'config'"):
        direction_named("confg")
    with pytest.raises(InputError, match=r"unknown rule of the dual cone 'center'.*did you mean 'centre'"):
        DualCone("center")
    with pytest.raises(InputError, match="M-ConFIG of betas"):
        MomentumConFIG((0.9, 1.0))
