"""Points: counts, ranges, seeds and the spread of every rule."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from cpikan.errors import InputError
from cpikan.learning.samplers.points import RULES, Points, boundary_points, interior_points, measured_part, unit_points
from cpikan.physics.catalogue import problem


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("rule", RULES)
def test_rules_fill_the_open_cube(rule, dimension):
    points = unit_points(100, dimension, rule, 4)
    assert len(points) >= 100
    assert points.shape[1] == dimension
    assert ((points > 0) & (points < 1)).all()
    assert np.array_equal(points, unit_points(100, dimension, rule, 4))
    if rule not in ("grid", "chebyshev"):
        assert not np.array_equal(points, unit_points(100, dimension, rule, 5))


def test_latin_hypercubes_have_one_point_per_cell():
    points = unit_points(50, 3, "latin-hypercube", 0)
    assert (np.sort((points * 50).astype(int), axis=0) == np.arange(50)[:, None]).all()


def test_sobol_is_more_even_than_chance():
    even, drawn = unit_points(256, 2, "sobol", 0), unit_points(256, 2, "random", 0)
    assert qmc.discrepancy(even) < 0.2 * qmc.discrepancy(drawn)


def test_one_axis_has_chebyshev_nodes():
    points = interior_points(problem("helmholtz-1d"), Points(9, 2))[:, 0]
    np.testing.assert_allclose(points, -np.cos(np.pi * (np.arange(9) + 0.5) / 9), atol=1e-14)


def test_conditions_get_their_parts():
    one = problem("diffusion")
    walls, start = one.conditions
    positions, normals = boundary_points(one, walls, Points(10, 40))
    assert len(positions) == 20
    assert set(positions[:, 0]) == {-6.0, 6.0}
    np.testing.assert_array_equal(normals[:, 0], np.sign(positions[:, 0]))
    assert (boundary_points(one, start, Points(10, 40))[0][:, 1] == 0).all()
    line = problem("helmholtz-1d")
    assert boundary_points(line, line.conditions[0], Points(10, 40))[0].tolist() == [[-1.0], [1.0]]


def test_measured_values_are_held_out_once():
    fitted, held = (measured_part(401, Points(1, 0, held_out=out)) for out in (False, True))
    assert len(held) == 100
    assert np.array_equal(np.sort(np.concatenate([fitted, held])), np.arange(401))


def test_bad_points_are_told():
    with pytest.raises(InputError, match="did you mean 'chebyshev'"):
        Points(10, 10, "chebychev")
    with pytest.raises(InputError, match="at least 1 and 0"):
        Points(0, 10)
