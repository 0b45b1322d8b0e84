"""Regions: points lie where they should, boundaries are boundaries, normals point outwards and have length one."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.physics.regions import Annulus, Box, LShape, box, disc

REGIONS = {
    "box": box([-1, 0, 2], [1, 3, 2.5]),
    "space-time": box([-6, 0], [6, 1], ["x", "t"]),
    "disc": disc(2.0),
    "annulus": Annulus(0.5, 1.0),
    "l": LShape(),
}
AREAS = {"box": 2 * 3 * 0.5, "space-time": 12.0, "disc": 4 * np.pi, "annulus": 0.75 * np.pi, "l": 3.0}


@pytest.fixture(params=list(REGIONS))
def name(request):
    return request.param


@pytest.mark.parametrize("clustered", [False, True])
def test_points_lie_inside_and_on_the_boundary(name, clustered):
    region, random = REGIONS[name], np.random.default_rng(1)
    d = len(region.lower)
    inside = region.inside(random.random((500, d)), clustered)
    assert inside.shape == (500, d)
    assert region.contains(inside).all()
    for part in region.parts:
        points, normals = region.on(part, random.random((50, d - 1)), clustered)
        assert points.shape == normals.shape == (50, d)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-14)
        step = 1e-6  # larger than rounding, smaller than any feature of the regions but for points in their corners
        out, back = region.contains(points + step * normals), region.contains(points - step * normals)
        assert not out.any()
        assert back.mean() > 0.9


def test_even_points_are_even(name):
    """A region's share of its bounding box is the share of even points of the box inside it; and the other way round, the
    mean of x^2 over even points of the region is that over the box's points inside it."""
    region, random = REGIONS[name], np.random.default_rng(2)
    low, high = np.asarray(region.lower), np.asarray(region.upper)
    drawn = low + (high - low) * random.random((40_000, len(low)))
    within = region.contains(drawn)
    assert within.mean() * np.prod(high - low) == pytest.approx(AREAS[name], rel=0.02)  # 1 / sqrt(40 000) is 0.5 %
    mine = region.inside(random.random((40_000, len(low))), clustered=False)
    for axis in range(len(low)):
        expected = (drawn[within, axis] ** 2).mean()
        assert (mine[:, axis] ** 2).mean() == pytest.approx(expected, rel=0.03)


def test_clustered_points_follow_the_arcsine_law():
    points = box([-1], [1]).inside(np.linspace(0, 1, 4001)[:, None])
    # E[T_k^2] = 1 / 2 under the arcsine law, for any k
    assert (np.cos(7 * np.arccos(points[:, 0])) ** 2).mean() == pytest.approx(0.5, abs=1e-3)


def test_time_is_no_wall():
    region = box([-6, 0], [6, 1], ["x", "t"])
    assert region.walls == ("x=min", "x=max")
    assert region.parts == ("x=min", "x=max", "t=min", "t=max")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Box((0.0,), (0.0,)), "empty"),
        (lambda: Box((0.0, 0.0), (1.0,)), "one finite number per axis"),
        (lambda: Box((0.0,), (float("nan"),)), "finite"),
        (lambda: box([0, 0], [1, 1], ["x", "x"]), "all different"),
        (lambda: Annulus(1.0, 0.5), "inner < outer"),
        (lambda: box([0], [1]).on("y=min", np.zeros((1, 0))), "part of the boundary"),
        (lambda: LShape().on("g", np.zeros((1, 1))), "part of the boundary"),
        (lambda: disc().on("inner", np.zeros((1, 1))), "part of the boundary"),
    ],
)
def test_bad_regions_are_told(make, text):
    with pytest.raises(InputError, match=text):
        make()
