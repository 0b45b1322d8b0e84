"""Forms of solutions: conditions hold to rounding for any network, on boxes and on outlines, and jets are exact."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import jacrev, vmap

from cpikan.errors import InputError
from cpikan.fields.constrained import ConstrainedField, function_jet
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.objective import linearise_any, linearise_term, make_terms
from cpikan.learning.samplers.points import Points
from cpikan.physics.bound_condition import bound
from cpikan.physics.distances import distance_to
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.outline import circle, difference, outline_of, polygon, wafer
from cpikan.physics.problem import Condition, Problem, dirichlet, initial, initial_rate, neumann, periodic
from cpikan.physics.regions import Annulus, LShape, box, disc

SQUARE = box([-1.0, 0.5], [2.0, 1.5])
LATER = box([0.0, 0.0], [2.0, 3.0], ["x", "t"])


def wall(x):
    return torch.sin(2 * x[..., 0]) * x[..., 1] ** 2 + 0.3


def slope_of_wall(axis, sign):
    """The outward slope of ``wall`` at an end of an axis, so that data agree in corners."""

    def slope(x):
        by_x = 2 * torch.cos(2 * x[..., 0]) * x[..., 1] ** 2
        return sign * (by_x if axis == 0 else 2 * torch.sin(2 * x[..., 0]) * x[..., 1])

    return slope


def robin(c, data, on):
    """Impose du/dn + c u = data, written with other factors."""
    return Condition(
        "robin",
        lambda jet, side: (
            2 * (jet.gradient[..., 0, :] * side.normals).sum(-1) + 2 * c * jet.value[..., 0] - 2 * data(side.points)
        ),
        (on,),
    )


def laplace(jet, x):
    return jet.second.sum(dim=-1)[..., 0]


def posed(*conditions, region=SQUARE, outputs=1, second="axes"):
    return Problem("mine", region, laplace, list(conditions), outputs=outputs, second=second)


def behind(one, seed=1):
    """A drawn network behind the form of a problem's solutions, and what is left of the problem."""
    rest, ansatz = with_exact_conditions(one, embedded=True)
    assert ansatz is not None
    widths = [4, 4, one.outputs]
    if ansatz.point_map is None:
        network = ScaledCPIKAN([one.dimension, *widths], 3, (one.region.lower, one.region.upper), start=Start(seed))
    else:
        network = MappedCPIKAN([len(ansatz.point_map.lower), *widths], 3, ansatz.point_map, start=Start(seed))
    return ConstrainedField(network, ansatz), rest


def missed(one, field):
    """The largest residual of every condition, relative to the field and its slopes there."""
    sets, _ = Points(20, 60, "random", 3).init(one)
    found = {}
    for term in make_terms(one)[1:]:
        with torch.no_grad():
            jet = field.jet(sets[term.name].points, "none")
            size = 1 + float(jet.value.abs().max()) + float(jet.gradient.abs().max())
            found[term.name] = float(torch.cat(term.at(field, sets[term.name])).abs().max()) / size
    return found


def robin_of_wall(c, axis, sign, on):
    return robin(c, lambda x: slope_of_wall(axis, sign)(x) + c * wall(x), on)


BOXES = {
    "values": posed(dirichlet(wall)),
    "a slope at an end": posed(dirichlet(wall, ["x=min", "y=min", "y=max"]), neumann(slope_of_wall(0, 1), "x=max")),
    "slopes at both ends": posed(neumann(slope_of_wall(1, -1), "y=min"), neumann(slope_of_wall(1, 1), "y=max")),
    "slopes all round": posed(
        *(neumann(slope_of_wall(a, s), f"{'xy'[a]}={'max' if s > 0 else 'min'}") for a in (0, 1) for s in (-1, 1))
    ),
    "Robin": posed(dirichlet(wall, "x=min"), robin_of_wall(3.0, 0, 1, "x=max"), robin_of_wall(-0.4, 1, 1, "y=max")),
    "value and rate": posed(
        initial(lambda x: torch.sin(x[..., 0])),
        initial_rate(lambda x: torch.cos(x[..., 0])),
        dirichlet(lambda x: x[..., 1], "x=min"),
        region=LATER,
    ),
    "period": posed(*periodic(LATER), initial(lambda x: torch.sin(math.pi * x[..., 0])), region=LATER),
    "two outputs": posed(dirichlet(wall, output=1), dirichlet(0.0, "x=min"), outputs=2),
}
RING = Annulus(0.5, 1.0)
REGIONS = {
    "disc": posed(dirichlet(wall), region=disc(1.3)),
    "annulus": posed(dirichlet(wall, "outer"), dirichlet(1.0, "inner"), region=RING),
    "insulated hole": posed(dirichlet(wall, "outer"), neumann(wall, "inner"), region=RING),
    "Robin all round": posed(robin(2.0, wall, "outer"), robin(0.5, wall, "inner"), region=RING),
    "L": posed(dirichlet(wall), region=LShape()),
    "triangle": posed(dirichlet(wall, ["a", "b"]), neumann(wall, "c"), region=polygon([(0, 0), (2, 0.3), (0.5, 1.5)])),
    "plate with a hole": posed(dirichlet(wall), region=difference(box([0, 0], [2, 1]), circle((0.8, 0.5), 0.25))),
    "wafer": posed(dirichlet(0.0, "edge"), dirichlet(0.0, "notch"), region=wafer(2.0, 0.2)),
}
ALL = BOXES | REGIONS


@pytest.mark.parametrize("name", ALL)
def test_conditions_hold_to_rounding_for_any_network(name):
    for seed in (1, 2):
        field, rest = behind(ALL[name], seed)
        assert rest.conditions == ()
        # quotients of distances lose some digits near the vertices where two of them vanish
        assert max(missed(ALL[name], field).values()) < (1e-13 if name in BOXES else 1e-10)


@pytest.mark.parametrize("name", ["slopes at both ends", "Robin", "period", "triangle"])
def test_jets_are_those_of_automatic_differentiation(name):
    field, _ = behind(ALL[name])
    one = ALL[name]
    x = torch.from_numpy(one.region.inside(np.random.default_rng(2).random((4, 2)), False))

    def value(point):
        return field(point[None])[0]

    hessian = vmap(jacrev(jacrev(value)))(x)
    size = float(hessian.detach().abs().max())
    for second, wanted in (
        ("full", hessian),
        ("axes", hessian.diagonal(dim1=-2, dim2=-1)),
        ("laplacian", hessian.diagonal(dim1=-2, dim2=-1).sum(-1)),
        ("none", x.new_zeros(4, 1, 0)),
    ):
        jet = field.jet(x, second)
        torch.testing.assert_close(jet.value, field(x), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(jet.gradient, vmap(jacrev(value))(x), rtol=1e-9, atol=1e-11 * size)
        torch.testing.assert_close(jet.second, wanted, rtol=1e-9, atol=1e-11 * size)


def test_networks_of_embedded_coordinates_are_linearised_as_others():
    one = BOXES["slopes all round"]
    field, rest = behind(one)
    term, at = make_terms(rest)[0], Points(9, 0).init(rest)[0]["equation"]
    for found, wanted in zip(
        linearise_term(field.network, term, at, "all"), linearise_any(field.network, term, at), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


def ring_function(x):
    radius = x.square().sum(-1).sqrt()
    return torch.exp(x[..., 0] / radius) * (radius - 0.5) ** 3 + torch.cos(3 * radius + x[..., 1])


def ring_slope(x):
    """The slope towards the hole, where its radius is 1/2."""
    return torch.sin(1.5 + x[..., 1]) * (3 + 2 * x[..., 1])


def line_function(x):
    return torch.sin(3 * x[..., 0]) + x[..., 0] ** 2


ENDS = {
    "x=min": lambda x: -3 * math.cos(3) + 2 + 0 * x[..., 0],
    "x=max": lambda x: 3 * math.cos(3) + 2 + 0 * x[..., 0],
}
FREE = [
    # the third derivatives at ends with slopes do not vanish: powers of t^2, or cosines, alone would not do
    (BOXES["a slope at an end"], wall),
    (posed(*(neumann(slope, end) for end, slope in ENDS.items()), region=box([-1], [1])), line_function),
    (posed(dirichlet(ring_function, "outer"), neumann(ring_slope, "inner"), region=RING), ring_function),
]


@pytest.mark.parametrize(("one", "function"), FREE, ids=["an end", "both ends", "ring"])
def test_a_form_may_be_any_function_that_satisfies_the_conditions(one, function):
    """Fit a function with these data by polynomials of the form's coordinates: the error falls with the degree."""
    rest, ansatz = with_exact_conditions(one, embedded=True)
    assert rest.conditions == ()
    x = torch.from_numpy(one.region.inside(np.random.default_rng(5).random((900, one.dimension)), False))
    point_map = ansatz.point_map
    low, high = (torch.tensor(end, dtype=x.dtype) for end in (point_map.lower, point_map.upper))
    scaled = (2 * (point_map.function(x) - low) / (high - low) - 1).clamp(-1, 1)
    wanted, errors = function(x) - ansatz.lift(x)[:, 0], []
    for degree in (4, 9):
        powers = [p for p in itertools.product(range(degree), repeat=len(low)) if sum(p) < degree]
        waves = torch.cos(torch.tensor(powers, dtype=x.dtype)[:, None] * torch.arccos(scaled))
        basis = ansatz.distance(x) * waves.prod(dim=-1).mT
        found = torch.linalg.lstsq(basis[:700], wanted[:700], driver="gelsd").solution
        errors.append(float((basis[700:] @ found - wanted[700:]).norm() / wanted[700:].norm()))
    assert errors[1] < 0.03 * errors[0]


@pytest.mark.parametrize("region", [disc(2.0), RING, LShape(), wafer(300.0, 20.0), polygon([(0, 0), (1, 0), (0, 1)])])
def test_distances_are_normalised(region):
    """Zero on the boundary with a slope of 1, and above zero inside."""
    outline, random = outline_of(region), np.random.default_rng(1)
    distance = distance_to(outline)
    inside = torch.from_numpy(outline.inside(random.random((400, 2)), False))
    assert bool((distance(inside) > 0).all())
    for part in outline.parts:
        points, normals = outline.on(part, 0.02 + 0.96 * random.random((50, 1)), False)
        jet = function_jet(lambda x: distance(x)[:, None], torch.from_numpy(points), "full")
        assert float(jet.value.abs().max()) < 1e-15 * outline.size * 10
        torch.testing.assert_close(jet.gradient[:, 0], -torch.from_numpy(normals), rtol=0, atol=1e-11)
        assert bool(jet.second.isfinite().all())


def test_values_that_differ_in_a_corner_are_not_both_held():
    """A lid that moves over walls at rest: transfinite interpolation would spoil the walls along their length."""
    one = posed(dirichlet(0.0, ["x=min", "x=max", "y=min"], name="walls"), dirichlet(1.0, "y=max", name="lid"))
    field, rest = behind(one)
    left = [condition.name for condition in rest.conditions]
    assert left == ["walls"]
    assert missed(one, field)["lid"] < 1e-13


def test_conditions_are_read():
    def read(condition, **more):
        return bound(posed(condition, **more), posed(condition, **more).conditions[0], "1")

    x = torch.rand(5, 2, dtype=torch.float64)
    normals = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(5, -1)
    h, c = read(robin(3.0, wall, "y=max")).flux(x, normals)
    torch.testing.assert_close(h, wall(x))
    torch.testing.assert_close(c, torch.full_like(c, 3.0))
    torch.testing.assert_close(read(dirichlet(wall, output=1), outputs=2).value(x, normals), wall(x))
    others = {
        "square": lambda jet, side: jet.value[..., 0] ** 2,
        "slope along": lambda jet, side: jet.gradient[..., 0, 0] - jet.gradient[..., 0, 1],
        "bend": lambda jet, side: jet.second[..., 0, 0],
        "two": lambda jet, side: jet.value[..., 0] + jet.value[..., 1],
        "nothing": lambda jet, side: side.points[:, 0],
        "vanishing": lambda jet, side: (side.points[:, 1] - 1.5) * jet.value[..., 0],
    }
    for name, residual in others.items():
        outputs = 2 if name == "two" else 1
        assert read(Condition(name, residual, ("x=min", "y=max")), outputs=outputs) is None


class Bean:
    """A region of a user's: a disc with a distance of its own."""

    lower, upper, parts, walls = (-1.0, -1.0), (1.0, 1.0), ("rim",), ("rim",)

    def __init__(self, distance):
        self.distance, self._disc = (lambda parts: distance), disc(1.0)

    def inside(self, unit, clustered=True):
        return self._disc.inside(unit, clustered)

    def on(self, part, unit, clustered=True):
        return self._disc.on("outer", unit, clustered)

    def contains(self, points):
        return self._disc.contains(points)


def test_a_region_may_give_its_own_distance():
    one = posed(dirichlet(wall), region=Bean(lambda x: 1 - x.square().sum(-1)))
    field, rest = behind(one)
    assert rest.conditions == ()
    assert missed(one, field)["dirichlet"] < 1e-14
    for wrong, text in (
        (lambda x: (1 - x.square().sum(-1)) * x[:, 0], r"distance of mine is -.* inside: give one that is above 0"),
        (lambda x: 1 - 0.5 * x.square().sum(-1), "distance of mine is 0.5 on the boundary"),
        (lambda x: x, r"has shape \(200, 2\) for 200 points"),
    ):
        with pytest.raises(InputError, match=text) as told:
            with_exact_conditions(posed(dirichlet(wall), region=Bean(wrong)))
        assert "\n" not in str(told.value)


def test_what_needs_other_coordinates_is_left_where_the_network_is_given():
    one = BOXES["a slope at an end"]
    rest, ansatz = with_exact_conditions(one)
    assert ansatz.point_map is None
    assert [condition.name for condition in rest.conditions] == ["neumann"]
    assert with_exact_conditions(replace(one, constants={0: 1.0})) == (replace(one, constants={0: 1.0}), None)


@pytest.mark.parametrize("kind", [dirichlet, neumann])
@pytest.mark.parametrize(
    ("what", "held", "data"),
    [
        ("by NumPy", False, lambda x: torch.from_numpy(np.sin(x[..., 0].numpy()))),
        ("detached", False, lambda x: torch.sin(x.detach()[..., 0])),
        ("rounded on the way", False, lambda x: torch.sin(x[..., 0].detach()) + x[..., 0]),
        ("a number", True, 0.3),
        ("the same everywhere", True, lambda x: torch.full_like(x[..., 0], 0.3)),
        ("a step", True, lambda x: (x[..., 0] > 0.7).double()),
        ("fast", True, lambda x: 1 + 1e-3 * torch.sin(90 * x[..., 0])),
    ],
)
def test_data_that_torch_cannot_differentiate_stay_residuals(kind, what, held, data):
    """A form would take their slopes for zero, and solve another equation."""
    one = posed(kind(data, "y=max"))
    rest, ansatz = with_exact_conditions(one, embedded=True)
    assert (ansatz is not None, len(rest.conditions)) == ((True, 0) if held else (False, 1)), what


def test_nothing_is_held_at_the_ends_of_free_axes():
    """A condition on all walls is held on the others, one on these alone stays as it is."""
    fixed = dirichlet(wall, name="all")
    for conditions, held, left in (
        ([fixed], {"y=min", "y=max"}, [("x=min", "x=max")]),
        ([fixed, neumann(0.0, "x=max")], {"y=min", "y=max"}, [("x=min", "x=max"), ("x=max",)]),
        ([dirichlet(wall, ["x=min"])], set(), [("x=min",)]),
        ([dirichlet(wall, ["y=min"])], {"y=min"}, []),
    ):
        one = posed(*conditions)
        rest, ansatz = with_exact_conditions(one, free=[0])
        assert [condition.on for condition in rest.conditions] == left
        assert (ansatz is None) == (not held)
        if ansatz is None:
            assert rest is one
            continue
        assert ansatz.free == (0,)
        field = ConstrainedField(ScaledCPIKAN([2, 4, 1], 3, (SQUARE.lower, SQUARE.upper), start=Start(2)), ansatz)
        for part in SQUARE.parts:
            x = torch.from_numpy(SQUARE.on(part, np.linspace(0, 1, 7)[:, None], False)[0])
            off = float((field(x).detach()[:, 0] - wall(x)).abs().max())
            assert (off < 1e-13) == (part in held)
    assert with_exact_conditions(posed(fixed, region=disc(1.0)), free=[0])[0].conditions == ()
