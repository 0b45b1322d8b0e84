"""Waves in the data of problems: found where they are, of sources, walls and starts, and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import cpikan
from cpikan.physics.problem import Condition, Problem, dirichlet, initial, neumann
from cpikan.physics.regions import box, disc
from cpikan.physics.waves import known_waves

TAU = 2 * math.pi


def poisson(source, region=None, conditions=(), dimension=2):
    region = box([-1.0] * dimension, [2.0] * dimension) if region is None else region

    def residual(u, x):
        return u.second.sum(-1)[..., 0] - source(x)

    return Problem("waves", region, residual, [*conditions] or [dirichlet(0.0)])


def share(x, axis):
    return (x[..., axis] + 1) / 3


@pytest.mark.parametrize(("axis", "count"), [(0, 5.0), (1, 4.5), (1, 27.0), (0, 118.5)])
def test_a_source_tells_how_many_waves_there_are_from_end_to_end(axis, count):
    found = known_waves(poisson(lambda x: torch.exp(x[..., 1 - axis]) * torch.sin(TAU * count * share(x, axis) + 0.4)))
    assert found == ((axis, count),)  # half waves in whole numbers, exactly


def test_waves_of_any_length_are_found_to_a_small_part_of_one():
    (found,) = known_waves(poisson(lambda x: torch.cos(TAU * 6.21 * share(x, 0))))
    assert found[0] == 0
    assert found[1] == pytest.approx(6.21, abs=0.02)  # the parabola's error behind this window


def test_waves_behind_an_envelope_and_beside_others_are_found_in_the_order_of_their_power():
    def source(x):
        s = share(x, 0)
        return torch.exp(-20 * (s - 0.4) ** 2) * (
            3 * torch.sin(TAU * 9 * s) + torch.sin(TAU * 30 * s) + 2 * torch.cos(TAU * 20 * s)
        )

    found = known_waves(poisson(source))
    assert [axis for axis, _ in found] == [0, 0, 0]
    assert [count for _, count in found] == pytest.approx([9, 20, 30], abs=0.05)


@pytest.mark.parametrize(
    "shape",
    [
        lambda s: torch.tanh(200 * (s - 0.4)),  # a front
        lambda s: (s > 0.31).double(),
        lambda s: torch.exp(-400 * (s - 0.5) ** 2),
        lambda s: torch.sin(80 * math.pi * s**2),  # waves of all lengths
        lambda s: s**9,
        lambda s: torch.sin(TAU * 3 * s),  # too few to be worth it
        lambda s: torch.from_numpy(np.random.default_rng(1).standard_normal(s.shape)),
        lambda s: 0 * s,
        lambda s: torch.sin(TAU * 9 * s) / (s - 0.5).abs().sub(0.4).relu(),  # not finite
    ],
)
def test_what_is_no_wave_is_taken_for_none(shape):
    assert known_waves(poisson(lambda x: shape(share(x, 0)))) == ()


def test_values_and_slopes_on_walls_tell_of_waves_along_them():
    walls = [
        dirichlet(lambda x: torch.sin(TAU * 6 * share(x, 1)), ["x=min"]),
        neumann(lambda x: torch.sin(TAU * 8 * share(x, 0)), ["y=max"]),
        dirichlet(0.0, ["x=max", "y=min"]),
    ]
    assert sorted(known_waves(poisson(lambda x: 0 * x[..., 0], conditions=walls))) == [(0, 8.0), (1, 6.0)]


def test_a_start_tells_of_waves_in_space_not_in_time():
    region = box([0.0, 0.0], [3.0, 1.0], ["x", "t"])

    def residual(u, x):
        return u.gradient[..., 0, 1] - u.second[..., 0, 0]

    start = initial(lambda x: 2.0 + torch.sin(TAU * 7 * x[..., 0] / 3))
    assert known_waves(Problem("heat", region, residual, [start, dirichlet(2.0)])) == ((0, 7.0),)


def test_systems_tell_by_each_equation_and_other_regions_and_unknowns_do_not():
    def residual(u, x):
        return {"a": u.second[..., 0, :].sum(-1), "b": u.value[..., 1] - torch.sin(TAU * 5 * share(x, 1))}

    region = box([-1.0, -1.0], [2.0, 2.0])
    assert known_waves(Problem("two", region, residual, [dirichlet(0.0)], outputs=2)) == ((1, 5.0),)
    assert known_waves(poisson(lambda x: torch.sin(40 * x[..., 0]), disc(1.0))) == ()
    assert known_waves(cpikan.problem("helmholtz-inverse")) == ()


def test_residuals_of_a_wrong_shape_are_left_to_the_solve_to_tell_of():
    """A column and a row would make a matrix of all points by all points."""
    column = Condition("column", lambda jet, side: jet.value - torch.sin(9 * side.points[:, :1]), ("x=min",))
    assert known_waves(poisson(lambda x: torch.sin(TAU * 5 * share(x, 0)), conditions=[column])) == ((0, 5.0),)


def test_the_data_need_not_be_differentiable_nor_keep_their_shape():
    def source(x):
        return torch.from_numpy(np.sin(TAU * 5 * share(x, 0).numpy()))

    constant = dirichlet(lambda x: torch.tensor(0.5), ["x=min", "x=max", "y=min", "y=max"])
    assert known_waves(poisson(source, conditions=[constant])) == ((0, 5.0),)
