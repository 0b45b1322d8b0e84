"""Regions: points lie where they should, boundaries are boundaries, normals point outwards and have length one."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.physics.edges import Arc, Segment
from cpikan.physics.outline import Outline, circle, difference, intersection, outline_of, polygon, union, wafer
from cpikan.physics.regions import Annulus, Box, LShape, box, corners, disc

REGIONS = {
    "box": box([-1, 0, 2], [1, 3, 2.5]),
    "space-time": box([-6, 0], [6, 1], ["x", "t"]),
    "disc": disc(2.0),
    "annulus": Annulus(0.5, 1.0),
    "l": LShape(),
    "polygon": polygon([(0, 0), (3, 1), (2, 3), (1, 1.5)]),
    "circle": circle((1.0, -2.0), 0.5),
    "with a hole": difference(box([0, 0], [2, 1]), circle((0.9, 0.5), 0.3)),
    "joined": union(box([0, 0], [1, 1]), box([1, 0.25], [2, 0.5])),
    "lens": intersection(disc(1.0), circle((0.5, 0.0))),
    "island": union(difference(disc(1.0), circle((0.3, 0.0), 0.4)), circle((0.3, 0.0), 0.1)),
    "wafer": wafer(300.0, 30.0),
}
NOTCH = np.pi / 4 - np.arcsin(0.8 * np.sin(np.pi / 4))
AREAS = {
    "box": 2 * 3 * 0.5,
    "space-time": 12.0,
    "disc": 4 * np.pi,
    "annulus": 0.75 * np.pi,
    "l": 3.0,
    "polygon": 3.5,
    "circle": 0.25 * np.pi,
    "with a hole": 2 - 0.09 * np.pi,
    "joined": 1.25,
    "lens": 2 * np.arccos(0.25) - 0.25 * np.sqrt(4 - 0.25),
    "island": np.pi * (1 - 0.16 + 0.01),
    # the tip is 120 from the centre: by the sine rule the notch opens half the angle pi/4 - asin(0.8 sin(pi/4)) there
    "wafer": np.pi * 150**2 - 150**2 * NOTCH + 150 * 120 * np.sin(NOTCH),
}


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
        (lambda: outline_of(disc(1.0)).on("inner", np.zeros((1, 1))), "part of the boundary"),
        (lambda: polygon([(0, 0), (1, 1)]), "at least 3"),
        (lambda: polygon([(0, 0), (1, 0), (0, 1)], "ab"), "2 names for 3 sides"),
        (lambda: polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "sides a and c of a polygon meet"),
        (lambda: circle(radius=-1.0), "radius -1.0"),
        (lambda: wafer(300.0, 151.0), "notch 151.0 deep"),
        (lambda: Outline(()), "without edges"),
        (lambda: Outline((("a", Segment((0, 0), (1, 0))),)), "where no edge begins"),
        (lambda: Outline((("a", Arc((0.0, 0.0), 1.0, 0.0, -2 * np.pi)),)), "an area of -3.14"),
        (lambda: intersection(disc(1.0), circle((3.0, 0.0))), "nothing is left"),
        (lambda: union(disc(1.0), box([0], [1])), "no outline of a Box"),
    ],
)
def test_bad_regions_are_told(make, text):
    with pytest.raises(InputError, match=text):
        make()


OUTLINES = [name for name, region in REGIONS.items() if isinstance(region, Outline)]


@pytest.mark.parametrize("name", OUTLINES)
def test_areas_of_outlines_are_exact(name):
    assert REGIONS[name].area == pytest.approx(AREAS[name], rel=1e-12)


@pytest.mark.parametrize("name", [*OUTLINES, "disc", "annulus", "l"])
def test_signed_distances_are_those_to_the_nearest_of_many_boundary_points(name):
    """The nearest of points that lie a step apart is too far by less than the step."""
    region = outline_of(REGIONS[name])
    random, ticks = np.random.default_rng(4), (np.arange(4000) + 0.5)[:, None] / 4000
    low, high = np.asarray(region.lower), np.asarray(region.upper)
    points = low - 0.2 * (high - low) + 1.4 * (high - low) * random.random((60, 2))
    boundary = np.concatenate([region.on(part, ticks, False)[0] for part in region.parts])
    brute = np.linalg.norm(points[:, None] - boundary, axis=2).min(axis=1)
    found = region.signed_distance(points)
    step = sum(edge.length for _, edge in region.edges) / 4000
    assert (np.abs(found) <= brute + 1e-12).all()
    np.testing.assert_allclose(np.abs(found), brute, atol=step)
    assert np.array_equal(found > 0, REGIONS[name].contains(points))


def test_distances_by_formula():
    points = np.array([[0.0, 0.0], [0.75, 0.0], [2.0, 0.0], [0.0, -0.6]])
    np.testing.assert_allclose(outline_of(disc(1.0)).signed_distance(points), [1, 0.25, -1, 0.4], atol=1e-15)
    np.testing.assert_allclose(outline_of(Annulus(0.5, 1.0)).signed_distance(points), [-0.5, 0.25, -1, 0.1], atol=1e-15)
    square = outline_of(box([0, 0], [1, 1]))
    np.testing.assert_allclose(square.signed_distance(np.array([[0.5, 0.4], [-3.0, -4.0]])), [0.4, -5.0], atol=1e-15)


def test_regions_of_regions_are_their_sets():
    """Membership in a union, an intersection and a difference is that of logic, also where edges lie on each other."""
    pairs = [
        (disc(1.0), circle((0.5, 0.2), 0.7)),
        (box([0, 0], [1, 1]), box([1, 0.2], [2, 0.8])),
        (box([0, 0], [2, 2]), box([1, 1], [2, 2])),
        (LShape(), box([-0.5, -0.5], [0.5, 0.5])),
        (wafer(2.0, 0.3), polygon([(0.0, 0.0), (2.0, -0.3), (1.0, 1.5)])),
    ]
    points = -1.2 + 3.4 * np.random.default_rng(5).random((3000, 2))
    for one, other in pairs:
        a, b = (region.contains(points) for region in (one, other))
        assert np.array_equal(union(one, other).contains(points), a | b)
        assert np.array_equal(difference(one, other).contains(points), a & ~b)
        if (a & b).any():
            assert np.array_equal(intersection(one, other).contains(points), a & b)


def test_parts_keep_their_names_and_clashes_are_numbered():
    both = union(box([0, 0], [1, 1]), box([0.5, 0.5], [2, 2]))
    assert both.parts == ("y=min", "x=max", "y=max", "x=min", "y=min 2", "x=max 2", "y=max 2", "x=min 2")
    assert wafer(300.0, 1.0).parts == ("edge", "notch")
    clockwise = polygon([(0, 0), (0, 1), (1, 0)], ["left", "slope", "floor"])
    points, normals = clockwise.on("left", np.full((1, 1), 0.5))
    np.testing.assert_allclose(points, [[0, 0.5]], atol=1e-15)
    np.testing.assert_allclose(normals, [[-1, 0]], atol=1e-15)


def test_corners_that_point_inwards_are_listed():
    (corner,) = corners(outline_of(LShape()))
    assert corner == LShape().corners[0]
    assert corners(REGIONS["joined"])[0].opening_rad == pytest.approx(1.5 * np.pi)
    assert corners(REGIONS["circle"]) == ()
