"""Volumes of points: weighted means are integrals, at the edges too, in any region."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.objective import make_objective
from cpikan.learning.samplers.adaptive_residual import AdaptiveResidualSampler
from cpikan.learning.samplers.points import Points, unit_points
from cpikan.learning.samplers.volume_weighted import VolumeWeightedSampler
from cpikan.learning.samplers.volumes import ESTIMATES, volumes
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import LShape, box, disc

WIDE = box([-30, 1], [50, 1.5])


def squeezed(count, seed, region=WIDE):
    """Random points, three times as dense at one end of each axis as evenly, and sparse at the other."""
    return region.inside(np.random.default_rng(seed).random((count, 2)) ** 1.5, clustered=False)


def smooth(points):
    unit = (points - np.array(WIDE.lower)) / (np.array(WIDE.upper) - np.array(WIDE.lower))
    return np.exp(unit[:, 0]) * (1 + unit[:, 1] ** 2)


TRUTH = (np.e - 1) * 4 / 3


@pytest.mark.parametrize(("estimate", "close"), [("neighbours", 0.0016), ("kernel", 0.011)])
def test_weighted_means_converge_to_integrals(estimate, close):
    """Plain means are wrong by 16 %, whatever the number. ``close`` is twice the largest of ten seeds at 1600 points."""

    def missed(count):
        found = [volumes(WIDE, points, estimate) @ smooth(points) for points in (squeezed(count, s) for s in range(3))]
        return np.abs(np.array(found) / TRUTH - 1).max()

    assert missed(1600) < min(close, missed(100) / 4)
    assert smooth(squeezed(1600, 0)).mean() / TRUTH - 1 < -0.12


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_grid_has_equal_volumes_at_its_edges_too(axes):
    """Kernels and their images are those of an endless grid: equal to rounding. Neighbours are counted by probes."""
    region = box([0, -5, 2][:axes], [1, 5, 2.5][:axes])
    grid = region.inside(unit_points(5**axes * 8, axes, "grid", 0), clustered=False)
    even = 1 / len(grid)
    assert np.abs(volumes(region, grid, "kernel") / even - 1).max() < 1e-12
    counted = volumes(region, grid) / even
    assert np.abs(counted - 1).max() < 5 / np.sqrt(50)  # five standard errors of random probes; these are better
    assert counted.std() < 1 / np.sqrt(50)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_the_density_of_even_points_does_not_fall_at_the_edge(estimate):
    """A kernel that is not reflected gives points at an edge twice, at a corner four times the volume."""
    points = WIDE.inside(np.random.default_rng(3).random((4000, 2)), clustered=False)
    unit = (points - np.array(WIDE.lower)) / (np.array(WIDE.upper) - np.array(WIDE.lower))
    found = 4000 * volumes(WIDE, points, estimate)
    edge = np.minimum(unit, 1 - unit).min(axis=1) < 0.02
    corner = (np.minimum(unit, 1 - unit) < 0.06).all(axis=1)
    assert found[edge].mean() == pytest.approx(1, abs=0.15)  # some 310 points there
    assert found[corner].mean() == pytest.approx(1, abs=0.35)  # some 58


@pytest.mark.parametrize("region", [disc(3.0), LShape()])
def test_neighbours_know_regions_that_are_no_boxes(region):
    """The mean of x^2 + y over points clustered towards the boundary: 9 / 4 of the disc, 1 / 3 - 1 / 6 of the L.

    Cells at the boundary have their points at one side: errors fall as 1 / N, and with them the tolerance of 18 / N.
    """
    points = region.inside(unit_points(1500, 2, "sobol", 2), clustered=True)
    truth = 1 / 3 - 1 / 6 if isinstance(region, LShape) else 9 / 4
    found = volumes(region, points) @ (points[:, 0] ** 2 + points[:, 1])
    assert found == pytest.approx(truth, abs=18 / 1500)
    assert abs((points[:, 0] ** 2 + points[:, 1]).mean() - truth) > 0.04
    with pytest.raises(InputError, match="which is no box: give estimate='neighbours'"):
        volumes(region, points, "kernel")


@pytest.mark.parametrize("energy", [False, True])
def test_the_cost_is_an_integral_over_points_of_any_density(energy):
    """Of (2 x)^2 / 2 on the square [0, 1]^2: 2 / 3; of the energy 2 x y: 1 / 2."""
    one = Problem(
        "known",
        box([0, 0], [1, 1]),
        lambda u, x: 2 * x[..., 0] + 0 * u.value[..., 0],
        [dirichlet(0.0)],
        energy=(lambda u, x: 2 * x[..., 0] * x[..., 1] + 0 * u.value[..., 0]) if energy else None,
    )
    field = ScaledCPIKAN([2, 2, 1], 2, ([0, 0], [1, 1]))
    adaptive = AdaptiveResidualSampler(Points(800, 8), "rad", 1, 8000, unbiased=energy)
    sampler = VolumeWeightedSampler(adaptive)
    sets, state = sampler.init(one)
    for _ in range(2):
        objective = make_objective(one, sets).only("equation")
        share = 1.0 if energy else 1 / 800
        assert share * float(objective.cost(field).detach()) == pytest.approx(0.5 if energy else 2 / 3, rel=0.01)
        sets = sampler.update(one, make_objective(one, sets), field, state)[0].sets


def test_points_that_stay_are_weighed_once():
    one = problem("poisson-2d")
    sampler = VolumeWeightedSampler(Points(100, 16))
    sets, state = sampler.init(one)
    objective = make_objective(one, sets)
    assert sampler.every == 0
    assert sampler.update(one, objective, ScaledCPIKAN([2, 2, 1], 2), state)[0] is objective
    assert all(at.weight is None for name, at in sets.items() if name != "equation")
    assert all(at.weight is None for at in sampler.held_out_sampler().init(one)[0].values())


def test_a_solve_by_weighted_points_gets_as_far():
    """The solution lies in the span of the output layer's functions to some 1e-9, however squares are weighed."""
    field = ScaledCPIKAN([1, 12, 1], 8, ([-1], [1]), start=Start(1))
    settings = SolveSettings(1e4, VolumeWeightedSampler(Points(250, 2)))
    assert solve("helmholtz-1d", field, "last-layer", settings=settings).metrics["relative_l2"] < 1e-8


def test_an_unknown_estimate_is_refused():
    with pytest.raises(InputError, match=r"estimate of volumes.*neighbours"):
        VolumeWeightedSampler(Points(10, 2), "neighbors")
    with pytest.raises(InputError, match=r"estimate of volumes.*kernel"):
        volumes(WIDE, squeezed(10, 0), "kernels")


def test_weights_multiply_residuals_by_the_root_of_the_volume():
    one = problem("poisson-2d")
    at = VolumeWeightedSampler(Points(200, 16), "kernel").init(one)[0]["equation"]
    shares = volumes(one.region, at.points.numpy(), "kernel")
    assert torch.allclose(at.weight, torch.from_numpy(np.sqrt(200 * shares)), rtol=1e-12)
    assert float(at.weight.square().mean()) == pytest.approx(1, rel=1e-12)
