"""Networks, points and weights of subdomains' own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sampler_contract import unjudged

from cpikan.errors import InputError
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.files import load_field, save_field
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.local import Local
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.subdomains import Subdomains
from cpikan.partition import Partition
from cpikan.physics.catalogue import problem

SMALL = Recipe("small", "", (Adam(10, 1e-2),), hidden=(3,), degree=3)
PLANE, LINE = problem("poisson-2d"), problem("poisson-1d")


def network(cut, of=PLANE):
    return cut.network(of, SMALL, 1)


@pytest.mark.parametrize("coupling", ["fbpinn", "cpinn"])
def test_each_subdomain_has_its_own_network_where_it_is_alone(coupling):
    """The values of a network made for one box, and to the bit those of all alike where none differs."""
    wide = {(0, 1): Local(hidden=(5, 4), degree=2), (1, 1): Local(degree=6)}
    field = network(Subdomains((2, 2), coupling, local=wide))
    shapes = [(level.parts.widths, level.members) for level in field.levels]
    assert shapes == [((2, 3, 1), (0, 2)), ((2, 5, 4, 1), (1,)), ((2, 3, 1), (3,))]
    x = torch.rand(40, 2, dtype=torch.float64) * 0.2 + torch.tensor([0.05, 0.75])  # the middle of box (0, 1)
    alone = field.levels[1].parts
    for found, wanted in zip(field.jet(x, "full"), alone.jet(x[None], "full"), strict=True):
        torch.testing.assert_close(found, wanted[0], rtol=0, atol=1e-11 * float(wanted.detach().abs().max()))
    order = torch.randperm(40)
    assert torch.equal(field(x[order]), field(x)[order])
    same = network(Subdomains((2, 2), coupling, local={(0, 0): Local(points=2.0)}))
    assert torch.equal(parameter_vector(same), parameter_vector(network(Subdomains((2, 2), coupling))))


def test_fields_of_some_subdomains_add_up_to_that_of_all(tmp_path):
    partition = Partition.subdomains([0.0], [1.0], [3], 0.5)
    boxes = DecomposedField.boxes(partition)
    whole = DecomposedField(partition, ScaledCPIKAN([1, 3, 1], 4, boxes, networks=3))
    x = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
    parts = []
    for members in ((0, 2), (1,)):
        some = ScaledCPIKAN([1, 3, 1], 4, tuple([b[n] for n in members] for b in boxes), networks=len(members))
        some.load_state_dict({name: t[list(members)] for name, t in whole.parts.state_dict().items()})
        parts.append(DecomposedField(partition, some, members))
    for second in ("axes", "none"):
        for all_of_it, *some in zip(*(field.jet(x, second) for field in (whole, *parts)), strict=True):
            torch.testing.assert_close(
                some[0] + some[1], all_of_it, rtol=0, atol=1e-12 * (1 + float(all_of_it.detach().abs().sum()))
            )
    features = [part.features_jet(x) for part in parts]
    torch.testing.assert_close(
        features[0].value @ parts[0].output_coefficients() + features[1].value @ parts[1].output_coefficients(),
        whole(x),
    )
    far = torch.full((2, 1), 0.02, dtype=torch.float64)  # where the second part has no subdomain
    assert float(parts[1](far).detach().abs().max()) == 0
    assert float(parts[1].features_jet(far).gradient.detach().abs().max()) == 0
    save_field(parts[0], tmp_path / "some")
    assert torch.equal(load_field(tmp_path / "some")(x), parts[0](x))
    with pytest.raises(InputError, match=r"members \[2, 0\] of 3 subdomains: give numbers from 0, rising"):
        DecomposedField(partition, parts[0].parts, (2, 0))
    with pytest.raises(InputError, match="2 networks for 1 subdomains"):
        DecomposedField(partition, parts[0].parts, (2,))


@pytest.mark.parametrize("rule", ["chebyshev", "random"])
def test_a_subdomain_has_its_share_of_points_and_its_weight(rule):
    local = {(0, 1): Local(points=3.0, weight=2.0), (1, 0): Local(points=0.5)}
    placed = Subdomains((2, 2), "cpinn", local=local).placing(PLANE, Points(800, 40, rule))
    for points in (placed, placed.held_out_sampler()):
        at = points.init(PLANE)[0]["equation"]
        box = 2 * (at.points[:, 0] >= 0.5) + (at.points[:, 1] >= 0.5).long()
        counts = np.bincount(box.numpy())
        expected = points.interior / 4 * np.array([1, 3, 0.5, 1])
        np.testing.assert_allclose(counts, expected, rtol=0.25)
        weight = [at.weight[box == n] for n in range(4)]
        assert all(float(w.max() - w.min()) == 0 for w in weight)
        one, dense, sparse, _ = (float(w[0]) for w in weight)
        assert dense / one == pytest.approx(2 / 3**0.5)  # its weight, of a third of the volume a point
        assert sparse / one == pytest.approx(2**0.5)
        own = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)[box]
        assert float((at.weight / own).square().mean()) == pytest.approx(1)
    plain = Points(800, 40)
    assert Subdomains((2, 2), local={(0, 0): Local(degree=2)}).placing(PLANE, plain) is plain


def test_they_are_trained():
    cut = Subdomains(3, "fbpinn", local={(1,): Local(hidden=(6,), degree=5, points=2.0, weight=1.5)})
    with unjudged():
        found = solve(LINE, recipe=SMALL, settings=SolveSettings(seconds=1e4, subdomains=cut))
        plain = solve(LINE, recipe=SMALL, settings=SolveSettings(seconds=1e4, subdomains=Subdomains(3)))
        default = solve(LINE, settings=SolveSettings(seconds=1e4, steps=1, subdomains=cut))
    assert found.metrics["iterations"] == 10
    assert found.metrics["collocation_points"] > 1.2 * plain.metrics["collocation_points"]
    assert len(default.field.levels) == 2  # of networks, where the default recipe would solve for series


@pytest.mark.parametrize("coupling", ["fbpinn", "cpinn"])
def test_methods_with_a_jacobian_train_them(coupling):
    """Points are sorted within the transform that differentiates by the parameters."""
    recipe = Recipe("levenberg", "", (Levenberg(3),), hidden=(3,), degree=3)
    start, found = (
        solve(
            LINE,
            recipe=one,
            settings=SolveSettings(seconds=1e4, points=Points(40, 2), subdomains=Subdomains(2, coupling)),
        )
        for one in (replace(recipe, stages=()), recipe)
    )
    assert found.metrics["iterations"] == 3
    assert found.metrics["heldout_relative"] < 0.5 * start.metrics["heldout_relative"]


def test_what_cannot_be_is_refused():
    for make, text in (
        (lambda: Local(degree=0), "a width or degree 0 of a subdomain: give whole numbers"),
        (lambda: Local(points=0), "points 0 of a subdomain: give more than 0"),
        (lambda: Local(weight=-1.0), "weight -1.0 of a subdomain: give more than 0"),
        (lambda: Subdomains(3, local={1: Local()}), "place 1 of local is 1: give numbers from 0"),
        (lambda: Subdomains(3, local={(1,): 4}), r"local of \(1,\) is 4: give a Local"),
        (lambda: network(Subdomains(3, local={(3,): Local(degree=1)}), LINE), r"subdomain \(3,\) in a grid of 3"),
    ):
        with pytest.raises(InputError, match=text):
            make()
    cut = Subdomains(3, local={(1,): Local(points=2.0)})
    with pytest.raises(InputError, match="a sampler and points or weights of subdomains' own: give one"):
        solve(LINE, recipe=SMALL, settings=SolveSettings(subdomains=cut, points="rad"))
    with pytest.raises(InputError, match="modes of subdomains for recipe default"):
        solve(LINE, settings=SolveSettings(subdomains=Subdomains(3, modes=5, local={(1,): Local(degree=2)})))
