"""Weak forms: bubbles, integration by parts, the dual norm, and the Galerkin solution."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre

from cpikan.errors import InputError
from cpikan.fields.constrained import function_jet
from cpikan.fields.protocol import Jet
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.objective import PointSet, make_terms
from cpikan.physics.bubbles import bubbles
from cpikan.physics.problem import Problem, Unknown, dirichlet
from cpikan.physics.quadrature import over_box, rule
from cpikan.physics.regions import box, disc
from cpikan.physics.weak import Mesh, counts_for, weak_form

LINE, FLAT = ([0.5], [2.5]), ([0.0, -1.0], [2.0, 0.0])


class Known:
    """A function as a field."""

    def __init__(self, function):
        self.function = function

    def jet(self, x, second="axes"):
        return function_jet(lambda points: self.function(points)[:, None], x, second)


def rows(problem, field, mesh, by_parts=1):
    """The weak residuals (R,) of a field."""
    posed = replace(problem, form=weak_form(problem, lambda count, held: mesh, by_parts))
    places = posed.form.place(100, 0, False)
    at = PointSet(places.points, tests=places.tests, element=places.element)
    with torch.no_grad():
        (found,) = make_terms(posed)[0].at(field, at)
    assert len(found) == at.rows
    return found


@pytest.mark.parametrize("box_", [LINE, FLAT])
def test_bubbles_vanish_on_the_boundary_and_are_orthonormal_in_gradients_and_orthogonal_in_l2(box_):
    one, (lower, upper) = over_box(rule("gauss-legendre", 8), *box_), box_
    found = bubbles(one.nodes, lower, upper, 5)
    slopes = np.einsum("n,nki,nli->kl", one.weights, found.gradient, found.gradient)
    assert np.abs(slopes - np.eye(5 ** len(lower))).max() <= 1e-13
    squares = np.einsum("n,nk,nl->kl", one.weights, found.value, found.value)
    assert np.abs(squares - np.diag(np.diag(squares))).max() <= 1e-14
    for axis in range(len(lower)):
        for end in (lower, upper):
            wall = one.nodes.copy()
            wall[:, axis] = end[axis]
            assert np.abs(bubbles(wall, lower, upper, 5).value).max() <= 1e-14


def test_derivatives_of_bubbles_are_those_of_differences():
    nodes, step = over_box(rule("fejer", 3), *FLAT).nodes, 1e-5
    here = bubbles(nodes, *FLAT, 4)
    for axis in range(2):
        ends = [bubbles(nodes + sign * step * np.eye(2)[axis], *FLAT, 4) for sign in (1, -1)]
        slope = (ends[0].value - ends[1].value) / (2 * step)
        assert (
            np.abs(slope - here.gradient[..., axis]).max() <= 1e-8
        )  # third derivatives times step^2, rounding over step
        bend = (ends[0].gradient - ends[1].gradient)[..., axis] / (2 * step)
        assert np.abs(bend - here.second[..., axis]).max() <= 1e-7


def varied(u, x):
    """An equation with factors of x, a product with a slope, and several powers: ((1 + x^2) u_x)_x + y u_yy + u u_x - u^3."""
    slope, second = u.gradient[..., 0, :], u.second[..., 0, :]
    diffusion = (
        (1 + x[..., 0] ** 2) * second[..., 0] + 2 * x[..., 0] * slope[..., 0] + torch.sin(x[..., 1]) * second[..., 1]
    )
    return diffusion + u.value[..., 0] * slope[..., 0] - u.value[..., 0] ** 3


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_forms_integrated_by_parts_none_once_and_twice_agree(overlap):
    one = Problem("varied", box(*FLAT), varied, [dirichlet(0.0)])
    field, mesh = Known(lambda x: torch.exp(x[:, 0]) * torch.sin(2 * x[:, 1] + x[:, 0])), Mesh((2, 3), 3, 14, overlap)
    found = [rows(one, field, mesh, times) for times in (0, 1, 2)]
    size = float(found[0].abs().max())
    assert size > 1
    # 14 nodes are exact up to degree 27, beyond which nothing of such functions is left on an element
    assert float((found[1] - found[0]).abs().max()) <= 1e-11 * size
    assert float((found[2] - found[0]).abs().max()) <= 1e-11 * size


def test_systems_and_laplacians_have_weak_forms():
    def residual(u, x):
        return {"one": u.second[..., 0] - u.value[..., 1], "two": u.second[..., 1] + u.gradient[..., 0, 0]}

    one = Problem("system", box(*FLAT), residual, [], outputs=2, second="laplacian")
    field = ScaledCPIKAN([2, 2], 5, FLAT, start=Start(2))  # without hidden layers: polynomials
    found = [rows(one, field, Mesh((2, 1), 3, 8), times) for times in (0, 1, 2)]
    assert len(found[0]) == 2 * 2 * 9
    for other in found[1:]:
        assert float((other - found[0]).abs().max()) <= 1e-12 * float(found[0].abs().max())


@pytest.mark.parametrize("by_parts", [0, 1, 2])
def test_residuals_of_a_polynomial_solution_vanish(by_parts):
    def truth(x):
        return x[:, 0] ** 3 * x[:, 1] - 2 * x[:, 1] ** 2 + x[:, 0]

    def residual(u, x):
        return u.second[..., 0, :].sum(-1) + u.value[..., 0] - (6 * x[:, 0] * x[:, 1] - 4 + truth(x))

    one = Problem("polynomial", box(*FLAT), residual, [dirichlet(0.0)])
    found = rows(one, Known(truth), Mesh((2, 2), 4, 6, 0.5), by_parts)
    other = rows(one, Known(lambda x: 1.01 * truth(x)), Mesh((2, 2), 4, 6, 0.5), by_parts)
    assert float(found.abs().max()) <= 1e-12
    assert float(other.abs().max()) >= 1e-3


def test_squares_of_residuals_are_those_of_the_error_in_gradients():
    """For -Laplacian, u off by a sum of bubbles: the residuals are its coefficients (the dual norm is that of the error)."""
    drawn = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    class Off:
        def jet(self, x, second):
            parts = (torch.from_numpy(np.ascontiguousarray(part)) for part in bubbles(x.numpy(), *FLAT, 3))
            return Jet(*(torch.tensordot(part, drawn, ([1], [0])).unsqueeze(1) for part in parts))

    one = Problem("laplace", box(*FLAT), lambda u, x: -u.second[..., 0, :].sum(-1), [dirichlet(0.0)])
    found = rows(one, Off(), Mesh((1, 1), 3, 6))
    mean = found / math.sqrt(9 / 2.0)  # the scale: their mean of squares is the mean over the volume of 2
    assert torch.allclose(mean, drawn, atol=1e-12)


def test_the_weak_solution_of_a_linear_space_is_the_galerkin_solution():
    """-u'' = f with as many bubbles as a polynomial has free coefficients: u' is the Legendre series of the truth's, cut."""
    from cpikan.learning.losses.weak import Weak
    from cpikan.learning.recipes import RECIPES
    from cpikan.learning.solver import SolveSettings, solve

    def truth(x):
        return torch.exp(x[..., 0]) * torch.sin(3 * x[..., 0])

    def residual(u, x):
        return -u.second[..., 0, 0] + torch.exp(x[..., 0]) * (
            6 * torch.cos(3 * x[..., 0]) - 8 * torch.sin(3 * x[..., 0])
        )

    degree = 9
    one = Problem("line", box([-1], [1]), residual, [dirichlet(truth)], truth)
    mode = Weak(functions=degree - 1, elements=(1,), nodes=30)
    field = ScaledCPIKAN([1, 1], degree, ([-1], [1]))
    solve(one, field, RECIPES["last-layer"], settings=SolveSettings(1e4, loss_mode=mode))

    nodes, weights = legendre.leggauss(40)
    slope = np.exp(nodes) * (np.sin(3 * nodes) + 3 * np.cos(3 * nodes))
    series = [(k + 0.5) * weights @ (slope * legendre.legval(nodes, np.eye(k + 1)[k])) for k in range(degree)]
    x = np.linspace(-1, 1, 30)
    galerkin = legendre.legval(x, legendre.legint(series, lbnd=-1)) + math.exp(-1) * math.sin(-3)
    with torch.no_grad():
        found = field(torch.from_numpy(x)[:, None])[:, 0].numpy()
    assert np.abs(found - galerkin).max() <= 1e-11
    assert np.abs(found - truth(torch.from_numpy(x)[:, None]).numpy()).max() >= 1e-6  # and not the truth itself


def test_elements_are_as_many_as_rows_ask_for_and_nearly_cubes():
    long = Problem("long", box([0, 0], [8, 1]), varied, [])
    counts = counts_for(long, 16 * 36, 6)
    assert math.prod(counts) >= 16
    assert counts[0] >= 4 * counts[1]
    assert counts_for(Problem("line", box([0], [1]), varied, []), 60, 6) == (10,)


def linear(u, x):
    return u.second[..., 0, 0]


@pytest.mark.parametrize(
    ("problem", "by_parts", "text"),
    [
        (Problem("round", disc(), linear, []), 1, "weak form of round: its region is a Annulus|a disc"),
        (Problem("bent", box([0], [1]), lambda u, x: u.value[..., 0] * linear(u, x), []), 1, "depend on the solution"),
        (Problem("bent", box([0], [1]), lambda u, x: linear(u, x) ** 2, []), 1, "depend on the solution"),
        (
            Problem("full", box([0], [1]), lambda u, x: u.second[..., 0, 0, 0], [], second="full"),
            1,
            "mixed derivatives",
        ),
        (
            Problem("open", box([0], [1]), lambda u, x, k: k["k"] * linear(u, x), [], unknowns=[Unknown("k", 1.0)]),
            1,
            "depend on the solution",
        ),
        (Problem("line", box([0], [1]), linear, []), 3, "give 0, 1 or 2"),
        (Problem("broken", box([0], [1], breaks={"x": [0.5]}), linear, []), 1, "a box with breaks"),
    ],
)
def test_what_has_no_weak_form_is_refused_in_one_line(problem, by_parts, text):
    with pytest.raises(InputError, match=text) as told:
        weak_form(problem, lambda count, held: Mesh((1,), 3, 6), by_parts)
    assert "\n" not in str(told.value)
