"""Schwarz methods against their analytic rates on strips, on boxes of series, and as a way to solve on subdomains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, diags_array, eye_array, kron, vstack
from test_blocks import found, quadratic

from cpikan.errors import InputError
from cpikan.learning.schwarz import VARIANTS, Schwarz
from cpikan.learning.strategies.coarse_space import CoarseSpace
from cpikan.learning.strategies.dissection import solve_dissected
from cpikan.learning.strategies.interface_system import InterfaceSystem
from cpikan.learning.strategies.patchwork import Patchwork
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem as problem_named

LINES, ACROSS = 14, 6  # inner grid lines of a strip, and inner points on each


def gradients(lines=LINES, across=ACROSS):
    """Differences between neighbours of a grid with zeros around it: their squares are the five-point Laplacian's energy."""

    def steps(n):
        return diags_array([np.ones(n), -np.ones(n)], offsets=[0, -1], shape=(n + 1, n))

    if across == 1:
        return csr_array(steps(lines))
    return csr_array(vstack([kron(steps(lines), eye_array(across)), kron(eye_array(lines), steps(across))]))


def strips(first, last, lines=LINES, across=ACROSS):
    """Two strips: the lines up to ``last``, and those from ``first`` on, counted from 1."""
    numbers = np.arange(lines * across).reshape(lines, across)
    return [numbers[:last].ravel(), numbers[first - 1 :].ravel()]


def rate(first, last, wave, lines=LINES, across=ACROSS):
    """Contraction of a mode sin(wave y) by a sweep over both strips: what each Dirichlet problem leaves at the other's end."""
    shift = math.acosh(2 - math.cos(math.pi * wave / (across + 1))) if across > 1 else None

    def size(n):
        return math.sinh(shift * n) if shift else float(n)

    return size(first - 1) / size(last + 1) * size(lines - last) / size(lines + 2 - first)


def posed(rows, parts, variant, coarse=None, seed=0):
    right = np.random.default_rng(seed).standard_normal(rows.shape[0])
    return Schwarz(rows, right, parts, variant, coarse)


@pytest.mark.parametrize("wave", [1, 2, 5])
@pytest.mark.parametrize(("first", "last"), [(7, 8), (5, 10), (8, 7)])  # (8, 7): strips that only touch
def test_alternating_strips_converge_at_the_analytic_rate(wave, first, last):
    """The error of a Fourier mode falls by the rate with every sweep, and with every two of restricted additive Schwarz."""
    rows, parts = gradients(), strips(first, last)
    mode = np.sin(math.pi * wave * np.arange(1, ACROSS + 1) / (ACROSS + 1))
    error = np.outer(np.random.default_rng(3).standard_normal(LINES), mode).ravel()
    for variant, steps in (("multiplicative", 1), ("restricted", 2)):
        if variant == "restricted" and first > last:
            continue  # parts that share no unknowns are not restricted: block Jacobi, at the same rate for two strips
        method = Schwarz(rows, np.zeros(rows.shape[0]), parts, variant)
        before = method.iterate(error, 1)  # from here on what is left is one function a strip
        after = method.iterate(before, steps)
        np.testing.assert_allclose(after, rate(first, last, wave) * before, rtol=0, atol=1e-13 * np.abs(error).max())


def test_additive_corrections_have_the_eigenvalues_of_the_theory():
    """On a line: 2 where both hold an unknown, 1, and 1 +- the root of the rate; their share keeps all below one."""
    first, last, lines = 5, 8, 11
    method = posed(gradients(lines, 1), strips(first, last, lines, 1), "additive")
    matrix = np.stack([method.correction(method.product(unit)) for unit in np.eye(lines)], axis=1)
    root = math.sqrt(rate(first, last, 1, lines, 1))
    inside = last - first + 1  # unknowns of both
    wanted = [1 - root, *[1.0] * (lines - 2 - inside), 1 + root, *[2.0] * inside]
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(matrix).real), np.sort(wanted), rtol=0, atol=1e-10)
    assert method.relaxation == 0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_part_is_one_correction_and_parts_are_solved_together(variant):
    rows = gradients()
    whole = posed(rows, [np.arange(rows.shape[1])], variant)
    wanted = np.linalg.lstsq(rows.toarray(), -whole.right)[0]
    np.testing.assert_allclose(whole.iterate(np.zeros(rows.shape[1]), 1), wanted, rtol=0, atol=1e-12)
    assert whole.solve().iterations <= 3  # with the look that tells that nothing is left
    split = posed(rows, strips(6, 9), variant)
    solved = split.solve(1e-13)
    np.testing.assert_allclose(solved.x, wanted, rtol=0, atol=1e-11)
    assert 3 < solved.iterations < 30


def test_additive_corrections_do_not_depend_on_the_order_of_parts():
    rows, parts = gradients(), [np.arange(n, min(n + 30, 84)) for n in range(0, 72, 18)]
    s = np.random.default_rng(1).standard_normal(84)
    found = [posed(rows, order, "additive").correction(s) for order in (parts, parts[::-1])]
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-14 * np.abs(found[0]).max() * len(parts))
    others = [posed(rows, order, "multiplicative").correction(s) for order in (parts, parts[::-1])]
    assert np.abs(others[0] - others[1]).max() > 1e-3 * np.abs(others[0]).max()


def test_each_unknown_has_one_owner_in_restricted_corrections():
    """Parts that each solve exactly for what they hold: their sum is that of owners alone."""
    rows = csr_array(eye_array(6))
    method = posed(rows, [np.array([0, 1, 2, 3]), np.array([2, 3, 4, 5])], "restricted")
    np.testing.assert_allclose(method.correction(np.arange(6.0)), np.arange(6.0), rtol=1e-14)
    double = posed(rows, method.parts, "additive").correction(np.arange(6.0))
    np.testing.assert_allclose(double, [0, 1, 4, 6, 4, 5], rtol=1e-14)


def interfaces(n, modes=6, coupling="cpinn", name="poisson-2d"):
    """The faces of n x n boxes of series, their coarse space, and the solution by nested dissection."""
    problem = problem_named(name)
    cut = Subdomains(n, coupling, modes=modes)
    patches = Patchwork(problem, cut, (modes,) * problem.dimension, torch.ones(problem.outputs, dtype=torch.float64))
    rows = [one.rows() for one in patches.sets()]
    system = InterfaceSystem(rows, patches.places, 1e-15)
    space = CoarseSpace(patches.partitions[-1], patches.modes, problem.outputs)
    return system, system.prolongation(space), solve_dissected(rows, patches.places, 1e-15)


def test_a_coarse_level_keeps_iterations_flat():
    """From 2 x 2 to 8 x 8 boxes: at most half as many again with it, several times as many without."""
    taken = {}
    for n in (2, 8):
        system, coarse, _ = interfaces(n, modes=6)
        for variant, space in (*((name, coarse) for name in VARIANTS), ("alone", None)):
            method = Schwarz(
                system.rows, system.right, system.parts, "additive" if variant == "alone" else variant, space
            )
            taken[n, variant] = method.solve(1e-6, 100).iterations
    for variant in VARIANTS:
        assert taken[8, variant] <= 1.5 * taken[2, variant]
    assert taken[8, "alone"] > 4 * taken[2, "alone"]


@pytest.mark.parametrize(
    ("variant", "coupling", "name"),
    [
        ("additive", "xpinn", "poisson-2d"),
        ("multiplicative", "cpinn", "poisson-2d"),
        ("restricted", "cpinn", "kovasznay"),
    ],
)
def test_series_are_those_of_the_direct_solution(variant, coupling, name):
    """To what the residual that is left says of the error, and to rounding times the condition of the rows."""
    system, coarse, direct = interfaces(3, 5, coupling, name)
    method = Schwarz(system.rows, system.right, system.parts, variant, coarse)
    solved = method.solve()
    values = np.linalg.svd(system.rows.toarray(), compute_uv=False)
    left = np.linalg.norm(method.steepest(solved.x)) / values[-1] ** 2  # |T'T e| >= s^2 |e|
    rounding = 2.2e-16 * values[0] / values[-1] * np.linalg.norm(solved.x)
    exact = np.linalg.lstsq(system.rows.toarray(), -system.right)[0]
    assert np.linalg.norm(solved.x - exact) <= left + 10 * rounding
    assert left <= 1e-9 * np.linalg.norm(solved.x)
    torch.testing.assert_close(system.filled(solved.x), direct, rtol=0, atol=1e-9 * float(direct.abs().max()))


def test_boxes_of_one_shape_are_factored_once():
    """Of 6 x 6 boxes those in the middle are alike: their neighbours count, so that 5 x 5 kinds are left."""
    system, coarse, _ = interfaces(6, modes=4)
    method = Schwarz(system.rows, system.right, system.parts, "additive", coarse)
    sizes = sorted(len(group.parts) for group in method._colours[0])
    assert sum(sizes) == 36
    assert len(sizes) == 25
    assert sizes[-1] == 4


@pytest.mark.parametrize(("modes", "known"), [(5, 2), (7, 3)])
def test_coarse_functions_hold_cubics_and_quintics(modes, known):
    """x^p y with p = 3 or 5, given by its derivatives along each axis at the corners of boxes."""
    partition = Subdomains(3, "cpinn").partition(problem_named("poisson-2d"))
    space = CoarseSpace(partition, (modes, modes), 1)
    power, step = 2 * known - 1, 0.5 / 3  # slopes are counted in half a box
    along = [np.polynomial.Polynomial(np.eye(power + 1)[power]), np.polynomial.Polynomial([0, 1])]
    table = np.zeros(space.size)
    for place, (i, j) in enumerate(np.ndindex(4, 4)):
        for orders in np.ndindex(known, known):
            derived = [one.deriv(k)(at / 3) * step**k for one, k, at in zip(along, orders, (i, j), strict=True)]
            table[known**2 * place + orders[0] + known * orders[1]] = derived[0] * derived[1]
    box = 4  # the middle one
    series = (space.coefficients[box] @ table[space.index[box]]).reshape(modes, modes)
    u, v = np.random.default_rng(0).uniform(-1, 1, (2, 9))
    values = np.polynomial.chebyshev.chebval2d(u, v, series)
    np.testing.assert_allclose(values, (0.5 + step * u) ** power * (0.5 + step * v), rtol=1e-12)


def test_it_solves_on_subdomains():
    solution = found(quadratic(), 3, 2, coupling="cpinn", modes=3, schwarz="multiplicative")
    assert solution.metrics["relative_l2"] < 1e-10
    assert solution.metrics["schwarz_iterations"] > 1
    alone = found(quadratic(), 1, coupling="cpinn", modes=3, schwarz="additive")
    assert alone.metrics["schwarz_iterations"] == 0
    assert alone.metrics["relative_l2"] < 1e-11


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"Schwarz method 'additiv'.*additive"):
        Subdomains(3, "cpinn", schwarz="additiv")
    with pytest.raises(InputError, match=r"additive Schwarz for fbpinn.*give coupling xpinn or cpinn"):
        Subdomains(3, "fbpinn", schwarz="additive")
    with pytest.raises(InputError, match="schwarz of subdomains for recipe adam"):
        found("poisson-1d", 3, recipe="adam", coupling="cpinn", schwarz="additive")
    with pytest.raises(InputError, match="Schwarz method 'jacobi'"):
        posed(gradients(), strips(5, 9), "jacobi")
    assert Subdomains.read("3x2", schwarz="restricted").coupling == "cpinn"
