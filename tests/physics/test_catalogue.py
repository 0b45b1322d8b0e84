"""The catalogue: every reference satisfies its own equation and conditions, and bad problems are told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.learning.samplers.points import Points, boundary_points, interior_points
from cpikan.physics.catalogue import describe_problems, number, parameters_of, problem, problems
from cpikan.physics.problem import Problem, Side, dirichlet, measured
from cpikan.physics.regions import Box, box, disc

# References that are tables or special functions are differentiated by differences: their tolerance is that of a stencil
# of eighth order, see ``by_differences``.
NUMERICAL = {"burgers": 2e-3, "allen-cahn": 2e-4, "acoustic": 1e-6}
_EXACT = 1e-9
_AT_WALLS = {"allen-cahn": 4 / (np.pi**2 * 2048)}  # the sum of cosines beyond, at the kink of the start
_STENCIL = np.array([-1 / 280, 4 / 105, -1 / 5, 4 / 5])  # first derivative, eighth order, offsets -4 ... -1 negated
_CURVE = np.array([-1 / 560, 8 / 315, -1 / 5, 8 / 5, -205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560])


def by_autograd(one: Problem, x: torch.Tensor) -> Jet:
    """The jet of the reference by reverse mode, output by output."""
    x = x.clone().requires_grad_()
    value = one.exact(x)
    value = value.unsqueeze(-1) if value.ndim == 1 else value
    gradients, seconds = [], []
    for output in range(value.shape[1]):
        if not value.requires_grad or not value[:, output].requires_grad:
            gradients.append(torch.zeros_like(x))
            seconds.append(torch.zeros_like(x))
            continue
        (g,) = torch.autograd.grad(value[:, output].sum(), x, create_graph=True)
        curves = []
        for axis in range(x.shape[1]):
            if not g.requires_grad:
                curves.append(torch.zeros_like(x[:, 0]))
                continue
            (h,) = torch.autograd.grad(g[:, axis].sum(), x, retain_graph=True, allow_unused=True)
            curves.append(torch.zeros_like(x[:, 0]) if h is None else h[:, axis])
        gradients.append(g)
        seconds.append(torch.stack(curves, -1))
    return Jet(value.detach(), torch.stack(gradients, 1).detach(), torch.stack(seconds, 1).detach())


def by_differences(one: Problem, x: torch.Tensor) -> Jet:
    """The jet by central differences of eighth order, steps of 1 / 1000 of the box: truncation h^8 u^(9) / 630 stays below
    1e-4 where features are wider than 0.01, rounding 1e-13 / h^2 = 1e-7."""
    value = one.reference_values(x)
    gradient, second = [], []
    for axis in range(x.shape[1]):
        h = (one.region.upper[axis] - one.region.lower[axis]) / 1000
        shifted = []
        for offset in range(-4, 5):
            moved = x.clone()
            moved[:, axis] += offset * h
            shifted.append(one.reference_values(moved))
        gradient.append(sum(c * (shifted[4 + 4 - k] - shifted[k]) for k, c in enumerate(_STENCIL)) / h)
        second.append(sum(c * s for c, s in zip(_CURVE, shifted, strict=True)) / h**2)
    return Jet(value, torch.stack(gradient, -1), torch.stack(second, -1))


def jet_of(one: Problem, x: torch.Tensor) -> Jet:
    return by_differences(one, x) if one.name in NUMERICAL else by_autograd(one, x)


@pytest.mark.parametrize("name", problems())
def test_the_reference_satisfies_the_equation(name):
    one = problem(name)
    x = torch.from_numpy(interior_points(one, Points(200, 40, "random", 3)))
    if name in NUMERICAL:  # room for the stencil
        low, high = torch.tensor(one.region.lower), torch.tensor(one.region.upper)
        x = low + (high - low) * (0.02 + 0.96 * (x - low) / (high - low))
    jet = jet_of(one, x)
    # relative to the largest derivative that enters: rounding grows with it
    scale = max(1.0, float(jet.gradient.abs().max()), float(jet.second.abs().max()))
    for label, residual in one.interior(jet, x).items():
        assert residual.shape == (len(x),)
        assert float(residual.abs().max()) <= NUMERICAL.get(name, _EXACT) * scale, label


@pytest.mark.parametrize("name", problems())
def test_the_reference_satisfies_the_conditions(name):
    one = problem(name)
    noisy = "noise" in name
    for condition in one.conditions:
        positions, normals = boundary_points(one, condition, Points(50, 64, "random", 3))
        # keep off corners, where the reference of the L has no gradient
        x = torch.from_numpy(positions)
        jet = jet_of(one, x) if one.name == "acoustic" or name not in NUMERICAL else _values(one, x)
        partner = None
        if condition.period is not None:
            assert isinstance(one.region, Box)
            other = x.clone()
            other[:, one.region.axes.index(condition.period)] = one.region.upper[0]
            partner = _values(one, other) if name in NUMERICAL else jet_of(one, other)
        data = None if condition.data is None else condition.data[np.arange(len(condition.data)) % 4 != 3]
        residual = condition.residual(jet, Side(x, torch.from_numpy(normals), partner, data))
        scale = max(1.0, float(jet.gradient.nan_to_num().abs().max()))
        # five sigma of the noise; the integral of Burgers' is taken to 1e-12
        tolerance = 0.25 if noisy else _AT_WALLS.get(name, 1e-8) * scale
        assert float(residual.abs().max()) <= tolerance, condition.name


# by a name with other parameters than usual, what stands for the reference there
FAMILIES = [
    "helmholtz-1d:k=2pi,kappa=3,upper=1.5",
    "helmholtz-1d-k4pi:k=2pi,upper=1.1",
    "helmholtz-2d-1-4:a=2,b=3",
    "diffusion:half=2,diffusivity=0.05,end=2",
    "advection:speed=3,end=2",
    "kovasznay:reynolds=20",
    "reaction-diffusion:end=1",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_its_reference_for_other_parameters_too(name):
    test_the_reference_satisfies_the_equation(name)
    test_the_reference_satisfies_the_conditions(name)
    family, _, written = name.partition(":")
    values = {key: number(value) for key, value in (part.split("=") for part in written.split(","))}
    one = problem(family, **values)
    assert problem(one.name).name == one.name  # which says all that it takes to make it again
    x = torch.from_numpy(interior_points(one, Points(20, 4, "random", 3)))
    assert torch.equal(problem(name).reference_values(x), one.reference_values(x))
    assert one.region != problem(family).region or not torch.equal(
        one.reference_values(x), problem(family).reference_values(x)
    )


def test_burgers_with_more_viscosity_satisfies_its_equation():
    """At 0.1 there is no front: differences are right to rounding, 1e-13 / h^2 with steps of 1 / 500 and a longer time."""
    one = problem("burgers", nu=0.1, end=2)
    assert one.region.upper == (1.0, 2.0)
    low, high = torch.tensor(one.region.lower), torch.tensor(one.region.upper)
    x = low + (high - low) * (
        0.05 + 0.9 * torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    residual = one.interior(by_differences(one, x), x)["equation"]
    assert float(residual.abs().max()) < 1e-6


def test_parameters_have_their_usual_values():
    assert parameters_of("helmholtz-1d") == {"kappa": 1.0, "upper": 1.0, "k": 4 * np.pi}
    assert problem("helmholtz-1d", k=4 * np.pi).name == "helmholtz-1d"
    assert problem("helmholtz-1d", k=np.pi, upper=1).name == f"helmholtz-1d:k={np.pi!r}"
    assert problem("allen-cahn", end=0.5).region.upper == (1.0, 0.5)
    assert parameters_of("beam") == {}
    assert [number(text) for text in ("pi", "-pi", "2*pi", "0.5pi", "1e-3", "-2")] == [
        *(np.pi, -np.pi, 2 * np.pi, 0.5 * np.pi, 1e-3, -2.0)
    ]


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("helmholtz-1d", {"kapa": 2.0}, "unknown parameter of helmholtz-1d 'kapa': allowed are kappa, .*mean 'kappa'"),
        ("beam", {"k": 2.0}, "beam has no parameter 'k', and no other: give the name alone"),
        ("burgers", {"nu": "thin"}, "nu of burgers is 'thin': give a number"),
        ("burgers", {"nu": float("nan")}, "nu=nan of burgers: give a finite number"),
        ("burgers", {"nu": 0.0}, "burgers of viscosity 0: give more than 0"),
        ("kovasznay", {"reynolds": -1.0}, "kovasznay at Reynolds number -1: give more than 0"),
        ("burgers", {"end": -1.0}, "give"),
        ("helmholtz-2d-1-4", {"a": 1.5}, "1.5 and 4 half waves of .*: give whole numbers"),
        ("allen-cahn", {"end": 2.0}, "allen-cahn until t = 2: give 1 at most"),
        ("burgers:nu", {}, "problem 'burgers:nu': give parameters behind the colon"),
        ("burgers:nu=thin", {}, "'thin' is no number: give one, as 0.5, 2pi or pi"),
        ("burger:nu=1", {}, "did you mean 'burgers'"),
    ],
)
def test_parameters_that_are_none(name, parameters, text):
    with pytest.raises(InputError, match=text) as told:
        problem(name, **parameters)
    assert "\n" not in str(told.value)


def _values(one: Problem, x: torch.Tensor) -> Jet:
    """Values, and slopes that are equal at both ends of a period because the reference is even (zero)."""
    value = one.reference_values(x)
    return Jet(value, torch.zeros(*value.shape, x.shape[1], dtype=value.dtype), torch.zeros(*value.shape, 0))


def test_cole_hopf_agrees_with_published_values():
    # Basdevant et al. (1986): the largest slope is 152.00516 at t = 1.6037 / pi
    one, h = problem("burgers"), 1e-4
    x = torch.tensor([[-h, 1.6037 / np.pi], [h, 1.6037 / np.pi]])
    value = one.exact(x.double())
    assert float((value[0] - value[1]) / (2 * h)) == pytest.approx(152.00516, rel=1e-3)  # third derivative h^2: 3e-4


def test_the_list_names_everything_once():
    rows = describe_problems()
    assert [row["name"] for row in rows] == list(problems())
    assert len(set(problems())) == len(problems())
    for row in rows:
        assert row["dimension"] in (1, 2, 3)
        assert row["reference"]
        assert row["summary"]


def test_bad_problems_are_told():
    with pytest.raises(InputError, match="did you mean 'helmholtz-1d'"):
        problem("helmholz-1d")
    with pytest.raises(InputError, match="part of the boundary"):
        Problem("p", box([0], [1]), lambda u, x: u.value[..., 0], [dirichlet(0.0, ["left"])])
    wrong = Problem("p", box([0], [1]), lambda u, x: u.value, [dirichlet(0.0)])
    with pytest.raises(InputError, match="residual 'equation' of p"):
        wrong.interior(Jet(torch.zeros(4, 1), torch.zeros(4, 1, 1), torch.zeros(4, 1, 1)), torch.zeros(4, 1))
    with pytest.raises(InputError, match="no reference"):
        wrong.reference_values(torch.zeros(4, 1))
    with pytest.raises(InputError, match="give \\(n,\\)"):
        measured(torch.zeros(4, 1), torch.zeros(3))
    from cpikan.physics.problem import Condition

    with pytest.raises(InputError, match="needs a box"):
        Problem("p", disc(), lambda u, x: u.value[..., 0], [Condition("c", lambda u, s: u.value[..., 0], None, "x")])
