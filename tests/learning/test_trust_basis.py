"""The polynomials that check a solution: orthonormal on their box, with derivatives equal to NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre

from cpikan.learning.trust.polynomials import Polynomials, order_for, polynomials_on
from cpikan.physics.regions import box


def test_values_and_derivatives_equal_numpy():
    basis = Polynomials((-1.0, 2.0), (3.0, 2.5), 6)
    x = torch.from_numpy(np.random.default_rng(3).uniform([-1, 2], [3, 2.5], (9, 2)))
    scaled, slopes = (x.numpy() - [1, 2.25]) / [2, 0.25], np.array([1 / 2, 1 / 0.25])
    full, axes = basis.jet(x, "full"), basis.jet(x, "axes")
    for k, powers in enumerate(basis.powers):

        def factor(axis, order, powers=powers):
            series = np.sqrt(2 * powers[axis] + 1) * np.eye(6)[powers[axis]]
            return legendre.legval(scaled[:, axis], legendre.legder(series, order)) * slopes[axis] ** order

        expected = factor(0, 1) * factor(1, 1)
        np.testing.assert_allclose(full.second[:, k, 0, 1], expected, atol=1e-12 * (1 + abs(expected).max()))
        np.testing.assert_allclose(full.second[:, k, 0, 0], factor(0, 2) * factor(1, 0), atol=1e-10)
        np.testing.assert_allclose(axes.gradient[:, k, 1], factor(0, 0) * factor(1, 1), atol=1e-11)
    torch.testing.assert_close(axes.second, full.second.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(basis.jet(x, "laplacian").second, axes.second.sum(-1))


def test_they_are_orthonormal():
    basis = Polynomials((0.0,), (5.0,), 12)
    nodes, weights = legendre.leggauss(16)  # exact to degree 31
    value = basis.jet(torch.from_numpy(2.5 * (nodes[:, None] + 1)), "none").value.numpy()
    np.testing.assert_allclose(value.T @ (value * weights[:, None] / 2), np.eye(12), atol=1e-13)


@pytest.mark.parametrize(("dimension", "functions"), [(1, 40), (2, 560), (3, 560), (4, 100)])
def test_as_many_functions_as_are_allowed(dimension, functions):
    order = order_for(dimension, functions)
    assert len(Polynomials((0.0,) * dimension, (1.0,) * dimension, order)) <= functions
    assert len(Polynomials((0.0,) * dimension, (1.0,) * dimension, order + 1)) > functions


def test_many_axes_make_no_list_of_all_products():
    assert len(Polynomials((0.0,) * 12, (1.0,) * 12, order_for(12, 560))) <= 560


def test_pieces_between_breaks_have_polynomials_of_their_own():
    region = box([0, -1], [3, 1], breaks={"x": [1.0, 2.5]})
    basis = polynomials_on(region, 60)
    assert len(basis) == 3 * 15
    x = torch.tensor([[0.5, 0.3], [1.0, 0.0], [1.0 + 1e-12, 0.0], [2.7, -0.2]], dtype=torch.float64)
    value, gradient, _ = basis.jet(x, "none")
    # beside the function that is 1 everywhere, a point sees its own piece alone; on a break that is the one below
    seen = [[bool(row[1 + 15 * n : 15 + 15 * n].any()) for n in range(3)] for row in value]
    assert seen == [[True, False, False], [True, False, False], [False, True, False], [False, False, True]]
    assert bool((value[:, 0] == 1).all())
    assert not bool(gradient[:, 0].any())
