"""Fields behind an ansatz: derivatives are those of automatic differentiation, and values on walls hold for any network."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.func import jacrev, vmap

from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.protocol import Field
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.objective import make_terms
from cpikan.learning.samplers.points import Points
from cpikan.physics.catalogue import problem
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem, dirichlet, neumann, periodic
from cpikan.physics.regions import box

SQUARE = box([-1.0, 0.5], [2.0, 1.5])


def wall(x):
    return torch.sin(2 * x[..., 0]) * x[..., 1] ** 2 + 0.3


def laplace(jet, x):
    return jet.second.sum(dim=-1)[..., 0]


def posed(*conditions, outputs=1, region=SQUARE, second="axes"):
    return Problem("mine", region, laplace, list(conditions), outputs=outputs, second=second)


def behind(one, seed=1):
    """A drawn network behind the ansatz of a problem, of its coordinates alone, and the problem that is left."""
    rest, ansatz = with_exact_conditions(one)
    assert ansatz is not None
    ends = (one.region.lower, one.region.upper)
    network = ScaledCPIKAN([one.dimension, 4, 4, one.outputs], 3, ends, start=Start(seed))
    return ConstrainedField(network, ansatz), rest


def some_points(one, count=9):
    generator = torch.Generator().manual_seed(5)
    low, high = (torch.tensor(end, dtype=torch.float64) for end in (one.region.lower, one.region.upper))
    return low + (high - low) * torch.rand(count, one.dimension, generator=generator, dtype=torch.float64)


def missed(one, field):
    """The largest residual of every condition."""
    sets, _ = Points(20, 40, "random", 3).init(one)
    terms = [term for term in make_terms(one) if not term.inside]
    with torch.no_grad():
        return {term.name: float(torch.cat(term.at(field, sets[term.name])).abs().max()) for term in terms}


@pytest.mark.parametrize("second", ["axes", "full", "laplacian", "none"])
def test_the_jet_is_that_of_automatic_differentiation(second):
    field, _ = behind(posed(dirichlet(wall), dirichlet(1.0, ["x=min"], output=1), outputs=2))
    assert isinstance(field, Field)
    x = some_points(posed(dirichlet(wall)))
    jet = field.jet(x, second)

    def value(point):
        return field(point[None])[0]

    torch.testing.assert_close(jet.value, field(x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(jet.gradient, vmap(jacrev(value))(x), rtol=1e-11, atol=1e-11)
    full = vmap(jacrev(jacrev(value)))(x)
    wanted = {
        "axes": full.diagonal(dim1=-2, dim2=-1),
        "full": full,
        "laplacian": full.diagonal(dim1=-2, dim2=-1).sum(dim=-1),
        "none": x.new_zeros(len(x), 2, 0),
    }[second]
    torch.testing.assert_close(jet.second, wanted, rtol=1e-10, atol=1e-10)


def test_points_may_have_any_leading_axes():
    field, _ = behind(posed(dirichlet(wall)))
    x = some_points(posed(dirichlet(wall)), 6)
    assert torch.equal(field(x.reshape(2, 3, 2)), field(x).reshape(2, 3, 1))
    assert torch.equal(field.jet(x.reshape(2, 3, 2)).second, field.jet(x).second.reshape(2, 3, 1, 2))


@pytest.mark.parametrize(
    "name", ["helmholtz-2d-1-4", "burgers", "poisson-3d-mixed", "kovasznay", "wave", "beam", "allen-cahn"]
)
def test_values_on_walls_and_at_the_start_hold_whatever_the_network_is(name):
    one = problem(name)
    for seed in (1, 2):
        field, rest = behind(one, seed)
        left = {condition.name for condition in rest.conditions}
        found = missed(one, field)
        kept = {key for key, size in found.items() if size < 1e-14}
        assert kept == found.keys() - left
        assert kept


def test_all_other_conditions_stay_and_see_the_whole_field():
    one = posed(dirichlet(wall, ["x=min", "y=max"]), neumann(wall, ["x=max"]), *periodic(SQUARE, "y"))
    field, rest = behind(one)
    assert [condition.name for condition in rest.conditions] == [c.name for c in one.conditions[1:]]
    sets, _ = Points(20, 40, "random", 3).init(rest)
    for term in make_terms(rest):
        whole = next(other for other in make_terms(one) if other.name == term.name)
        at = sets[term.name]
        torch.testing.assert_close(term.at(field.network, at)[0], whole.at(field, at)[0], rtol=1e-11, atol=1e-11)


def test_a_second_value_for_the_same_end_stays_a_condition():
    one = posed(dirichlet(wall, ["x=min"]), dirichlet(0.0, ["x=min", "x=max"], name="again"))
    _, rest = behind(one)
    assert [condition.name for condition in rest.conditions] == ["again"]


@pytest.mark.parametrize(
    "one",
    [
        posed(neumann(0.0)),
        posed(*periodic(SQUARE)),
        dataclasses.replace(posed(dirichlet(0.0)), constants={0: 1.0}),
    ],
    ids=["slopes", "periods", "constants"],
)
def test_a_problem_without_such_values_is_left_as_it_is(one):
    assert with_exact_conditions(one) == (one, None)


def test_an_energy_sees_the_whole_field():
    def energy(jet, x):
        return 0.5 * jet.gradient.square().sum(dim=(-1, -2)) - jet.value[..., 0]

    one = dataclasses.replace(posed(dirichlet(wall)), energy=energy)
    field, rest = behind(one)
    x = some_points(one)
    assert rest.energy is not None
    torch.testing.assert_close(rest.energy(field.network.jet(x), x), energy(field.jet(x), x), rtol=1e-12, atol=1e-12)
