"""Least squares of collocation where the matrix lacks rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cpikan.physics.collocation import collocate, least_squares
from cpikan.physics.problem import Problem, Unknown, dirichlet, measured
from cpikan.physics.regions import box


def test_least_squares_without_full_rank_equal_numpy():
    """The shortest minimiser, again and again, whatever lay in memory before: gelsy takes its pivots from there.

    The first columns are equal, so that a rank found without pivoting would be 1.
    """
    random = np.random.default_rng(17)
    for trial in range(60):
        rows, columns, rank = 30 + trial % 7, 18, 5 + trial % 9
        matrix = random.standard_normal((rows, rank)) @ random.standard_normal((rank, columns))
        matrix[:, 1:4] = matrix[:, :1]
        right = random.standard_normal((rows, 1))
        # kept far from the rank's edge: singular values are 1 to 30, or rounding at 1e-14
        expected = np.linalg.lstsq(matrix, right, rcond=1e-12)[0]
        left_behind = [torch.ones(columns, dtype=torch.int32) for _ in range(50)]
        del left_behind
        found = least_squares(torch.from_numpy(matrix), torch.from_numpy(right)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_what_it_cannot_pose_is_left_to_others():
    """Unknown coefficients, or measured values at points of their own, each alone."""

    def residual(jet, x, unknown=None):
        return jet.second[..., 0, 0] - (1.0 if unknown is None else unknown["f"])

    ends = dirichlet(0.0)
    plain = Problem("bar", box([0.0], [1.0]), residual, [ends])
    points = torch.tensor([[0.3], [0.6]], dtype=torch.float64)
    assert collocate(plain) is not None
    assert collocate(replace(plain, conditions=[ends, measured(points, points[:, 0])])) is None
    assert collocate(replace(plain, unknowns=[Unknown("f")])) is None
