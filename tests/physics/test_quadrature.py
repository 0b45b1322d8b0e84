"""Quadrature: degrees of exactness, rates of convergence, products and elements, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.physics.quadrature import RULES, over_box, pieced, product, rule


def integral(one, function):
    return float(one.weights @ function(one.nodes[:, 0]))


@pytest.mark.parametrize(
    ("name", "degree"),
    [("gauss-legendre", lambda n: 2 * n - 1), ("clenshaw-curtis", lambda n: n - 1), ("fejer", lambda n: n - 1)],
)
@pytest.mark.parametrize("count", [2, 5, 8, 15])
def test_polynomials_up_to_a_degree_are_integrated_exactly_and_the_next_are_not(name, degree, count):
    one, exact = rule(name, count), degree(count)
    assert (one.weights > 0).all()
    assert (np.abs(one.nodes) <= 1).all()
    for power in range(exact + 1):
        truth = (1 - (-1) ** (power + 1)) / (power + 1)
        assert integral(one, lambda x, k=power: x**k) == pytest.approx(truth, abs=1e-14 * count)
    even = exact + 1 if (exact + 1) % 2 == 0 else exact + 2  # odd powers vanish by symmetry
    # T_k with k above the degree, and even: the first that a rule of n nodes takes for another
    missed = integral(one, lambda x: np.polynomial.chebyshev.chebval(x, np.eye(even + 1)[even])) - 2 / (1 - even**2)
    assert abs(missed) > 1e-3 / even**2


def test_gauss_chebyshev_converges_with_the_square_of_the_nodes_for_plain_integrals():
    """Four times smaller for twice the nodes; 2.0e-2 at 8 nodes for exp, where Gauss-Legendre is at rounding."""
    truth = math.e - 1 / math.e
    errors = [abs(integral(rule("gauss-chebyshev", n), np.exp) - truth) for n in (8, 16, 32, 64)]
    assert errors[0] == pytest.approx(2.0e-2, rel=0.05)
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert ratios == pytest.approx([4, 4, 4], rel=0.02)  # the next power is n^-4
    for name in ("gauss-legendre", "clenshaw-curtis", "fejer"):
        assert integral(rule(name, 16), np.exp) == pytest.approx(truth, abs=1e-13)


def test_gauss_chebyshev_is_exact_for_the_integrals_it_is_for():
    """Of T_k / sqrt(1 - x^2): pi for k = 0, else zero, up to degree 2 n - 1."""
    one = rule("gauss-chebyshev", 7)
    weighed = one.weights / np.sqrt(1 - one.nodes[:, 0] ** 2)
    found = [weighed @ np.cos(k * np.arccos(one.nodes[:, 0])) for k in range(14)]
    assert found == pytest.approx([math.pi, *[0.0] * 13], abs=1e-13)


def test_products_over_boxes_and_pieces_of_an_interval():
    one = over_box(rule("gauss-legendre", 4), [0, -1], [2, 3])
    x, y = one.nodes.T
    assert one.weights.sum() == pytest.approx(8, rel=1e-14)
    assert one.weights @ (x**3 * y**6) == pytest.approx(4 * (3**7 + 1) / 7, rel=1e-13)
    assert (np.diff(x) >= 0).all()
    pieces = pieced(rule("fejer", 3), [0.0, 0.5, 0.7, 2.0])
    assert integral(pieces, lambda x: np.where(x < 0.5, 3 * x**2, x)) == pytest.approx(
        0.125 + (4 - 0.25) / 2, rel=1e-13
    )
    both = product([pieces, rule("fejer", 2)])
    assert both.weights.sum() == pytest.approx(4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rule("gauss-legender", 3), "gauss-legendre"),
        (lambda: rule("fejer", 0), "0 nodes of fejer: give at least 1"),
        (lambda: rule("clenshaw-curtis", 1), "1 nodes of clenshaw-curtis: give at least 2"),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError, match=text) as told:
        call()
    assert "\n" not in str(told.value)
    assert len(RULES) == 4
