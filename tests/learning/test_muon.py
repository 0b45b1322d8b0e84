"""Muon: singular values of its steps, torch's Muon and Adam as references; mini-batches of points."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.optim._muon import _single_tensor_muon, _zeropower_via_newtonschulz

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.iterate import placed
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.muon import Muon, MuonOptimizer, orthogonalised
from cpikan.learning.mini_batch import mini_batch
from cpikan.learning.recipes import RECIPES
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings
from cpikan.physics.catalogue import problem

D = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(20, 6), (6, 20), (7, 7)])
def test_a_step_turns_as_the_orthogonal_factor_does(shape):
    """U V' of the singular value decomposition: singular values are one, and the matrix is otherwise that of the gradient."""
    matrix = drawn(*shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    assert s[0] < 100 * s[-1]
    # three cubic steps from 0.68: the miss is 0.03 cubed at least twice
    assert torch.allclose(orthogonalised(matrix), u @ v, rtol=0, atol=1e-8)
    assert torch.allclose(orthogonalised(1e-9 * matrix), u @ v, rtol=0, atol=1e-8)
    assert not orthogonalised(torch.zeros(shape, dtype=D)).any()


def test_the_fast_steps_are_those_of_torch():
    matrix = drawn(20, 7)
    torchs = _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).double()
    ours = orthogonalised(matrix, exact=0)
    assert (ours - torchs).norm() < 0.03 * ours.norm()  # torch multiplies in bfloat16, 2^-8, in fifteen products


def test_steps_are_those_of_torchs_muon_made_exact():
    """The momentum with its look ahead and the rate of both are the same; only the orthogonal factor is sharper."""
    start = drawn(9, 4, seed=1)
    ours, torchs, momentum = torch.nn.Parameter(start.clone()), start.clone(), torch.zeros(9, 4, dtype=D)
    optimizer = MuonOptimizer([ours], lr=0.01)
    settings = {
        "weight_decay": 0.0,
        "momentum": 0.95,
        "nesterov": True,
        "ns_steps": 5,
        "eps": 1e-7,
        "has_complex": False,
    }
    for number in range(6):
        before = ours.detach().clone(), torchs.clone()
        ours.grad = drawn(9, 4, seed=10 + number)
        optimizer.step()
        _single_tensor_muon(
            *([torchs], [ours.grad], [momentum]),
            **settings, lr=0.01, adjust_lr_fn="match_rms_adamw", ns_coefficients=(3.4445, -4.7750, 2.0315),
        )  # fmt: skip
        mine, theirs = ours.detach() - before[0], torchs - before[1]
        assert torch.linalg.svdvals(mine) == pytest.approx([0.01 * 0.2 * 3] * 4, rel=1e-6)
        cosine = float((mine * theirs).sum() / (mine.norm() * theirs.norm()))
        assert (
            cosine > 0.97
        )  # singular values of torch's lie between 0.68 and 1.14, whose mean over root mean square is it


def test_vectors_and_columns_take_the_steps_of_adam():
    for shape in ((5,), (5, 1)):
        start = drawn(*shape)
        ours, adams = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
        pair = MuonOptimizer([ours], lr=0.1), torch.optim.Adam([adams], lr=0.1)
        for number in range(5):
            for parameter, optimizer in zip((ours, adams), pair, strict=True):
                parameter.grad = torch.cos(parameter.detach() + number)
                optimizer.step()
        assert torch.allclose(ours, adams, atol=1e-13)


def started(name="burgers"):
    one = problem(name)
    field = ScaledCPIKAN([one.dimension, 4, one.outputs], 3, (one.region.lower, one.region.upper), start=Start(2))
    return placed(one, field, Points(90, 30), MEAN_SQUARES)[0].objective, field


def test_batches_are_drawn_without_a_state_and_their_cost_is_that_of_all_in_the_mean():
    objective, field = started()
    whole = float(objective.cost(field).detach())
    batches = [mini_batch(objective, 30, number) for number in range(60)]
    assert len(batches[0].sets["equation"].points) == 30
    other = next(term.name for term in objective.terms if not term.inside)
    assert len(batches[0].sets[other].points) == math.ceil(len(objective.sets[other].points) / 3)
    assert torch.equal(batches[3].sets["equation"].points, mini_batch(objective, 30, 3).sets["equation"].points)
    assert not torch.equal(batches[3].sets["equation"].points, batches[4].sets["equation"].points)
    costs = torch.tensor([float(one.cost(field).detach()) for one in batches])
    assert abs(float(costs.mean()) - whole) < 4 * float(costs.std()) / len(costs) ** 0.5  # four standard errors
    assert mini_batch(objective, 90, 0) is objective
    assert mini_batch(objective, None, 0) is objective


def test_batches_of_weighted_densities_keep_their_integral():
    one = problem("poisson-2d")
    objective, field = started("poisson-2d")
    at = objective.sets["equation"]
    at = at._replace(weight=torch.rand(len(at.points), dtype=D, generator=torch.Generator().manual_seed(1)))
    term = replace(objective.terms[0], kind="density", function=lambda jet, at, _: {"e": jet.value[:, 0] ** 2 + 1})
    objective = replace(objective, terms=(term,), sets={"equation": at}, weights={"equation": 1.0})
    assert one.dimension == 2
    whole = float(objective.cost(field).detach())
    costs = torch.tensor([float(mini_batch(objective, 30, n).cost(field).detach()) for n in range(60)])
    assert abs(float(costs.mean()) - whole) < 4 * float(costs.std()) / len(costs) ** 0.5


def test_a_step_of_a_batch_is_that_of_its_points():
    objective, field = started()
    _, other = started()
    whole, batched = Adam(5, 1e-2, clip=None), Adam(5, 1e-2, clip=None, batch=20)
    state = batched.init(objective, field)
    state, cost = batched.step(objective, field, state)
    part = mini_batch(objective, 20, 0)
    _, same = whole.step(part, other, whole.init(part, other))
    assert cost == same
    assert torch.equal(parameter_vector(field), parameter_vector(other))


def test_what_goes_with_batches():
    assert RECIPES["adam"].batched(7).stages[0].batch == 7
    two = RECIPES["soap"].batched(7).stages
    assert two[0].batch == 7
    assert two[1] == RECIPES["soap"].stages[1]
    with pytest.raises(InputError, match="recipe trained takes no mini-batches"):
        SolveSettings(batch=5).applied(RECIPES["trained"], problem("poisson-2d"))
    with pytest.raises(InputError, match="levenberg-marquardt takes no mini-batches"):
        Levenberg().batched(5)
    with pytest.raises(InputError, match="mini-batches of 0 points for adam"):
        Adam(batch=0)
    with pytest.raises(InputError, match="inertia 1"):
        Muon(inertia=1.0)


def test_batches_keep_multipliers_beside_their_points_and_leave_sums_whole():
    objective, _ = started()
    at = objective.sets["equation"]
    shifted = at._replace(shift=at.points[:, 0][None].clone(), weight=at.points[:, 1].abs())
    sums = at._replace(mix=torch.ones(1, len(at.points), dtype=D))
    part = mini_batch(replace(objective, sets={**objective.sets, "equation": shifted}), 20, 3).sets["equation"]
    assert torch.equal(part.shift[0], part.points[:, 0])
    assert torch.equal(part.weight, part.points[:, 1].abs())
    whole = mini_batch(replace(objective, sets={**objective.sets, "equation": sums}), 20, 3)
    assert torch.equal(whole.sets["equation"].points, at.points)
    assert whole.weights["equation"] == objective.weights["equation"]
