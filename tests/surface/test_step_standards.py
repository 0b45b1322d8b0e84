"""Round grooves, step edges at any angle, and specimens of roughness (ISO 5436-1) against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.surface.profiles.map_step import map_step
from cpikan.surface.profiles.path import Profile
from cpikan.surface.profiles.roughness import profile_numbers
from cpikan.surface.profiles.steps import round_groove_depth


def profile_of(heights: np.ndarray, step: float = 1.0) -> Profile:
    return Profile(step, heights, np.arange(heights.size, dtype=float), np.zeros(heights.size))


@pytest.mark.parametrize(
    ("depth", "radius", "slope"),
    [(-200.0, 500.0, 0.0), (-900.0, 120.0, 2.0), (350.0, 300.0, -1.0), (-6000.0, 20.0, 0.0)],
)
def test_a_round_groove_is_an_arc_below_a_line(depth: float, radius: float, slope: float) -> None:
    """Depth in nm, radius in um: chord 2 sqrt(2 R d - d^2); the whole profile is tilted by a slope in nm/um."""
    way = np.arange(1200) * 0.05
    size = abs(depth) / 1000
    half = np.sqrt(2 * radius * size - size**2)
    arc = radius - size - np.sqrt(radius**2 - np.clip((way - 30.3) ** 2, 0, radius**2))  # below the chord, in um
    heights = np.where(np.abs(way - 30.3) < half, -1000 * np.sign(depth) * arc, 0.0) + 3 + slope * way
    heights[[5, 600]] = np.nan
    for edges in (None, (30.3 - half, 30.3 + half)):
        found = round_groove_depth(profile_of(heights, 0.05), edges)
        assert found.height_nm == pytest.approx(depth, rel=1e-6)
        assert found.radius_um == pytest.approx(radius, rel=1e-5)
        assert found.rest_nm < 1e-6 * abs(depth)
    # edges by a tenth of the depth: inside of the chord by 1 - sqrt(0.9) of its half, less what a circle is steeper
    found = round_groove_depth(profile_of(heights, 0.05))
    assert found.edges_um == pytest.approx((30.3 - 0.949 * half, 30.3 + 0.949 * half), abs=0.02 * half)


def test_noise_of_a_round_groove_averages_out() -> None:
    way = np.arange(2000) * 0.1
    clean = np.minimum(0.0, -800 + 0.5 * (way - 100) ** 2)
    noise = np.random.default_rng(0).normal(0, 5, way.size)
    found = round_groove_depth(profile_of(clean + noise, 0.1), (60.0, 140.0))
    # the vertex of a parabola over n points has 9 / 4 of the variance of a mean; the line beside it adds as much again
    assert found.height_nm == pytest.approx(-800, abs=5 * 5 * np.sqrt(2 * 9 / 4 / 267))
    assert found.rest_nm == pytest.approx(5, rel=0.2)


def test_what_is_no_round_groove_is_refused() -> None:
    flat = np.where(np.abs(np.arange(300) - 150) < 50, -10.0, 0.0)
    with pytest.raises(InputError, match="is straight: measure it as a flat groove"):
        round_groove_depth(profile_of(flat), (100.0, 200.0))
    narrow = np.minimum(0, -10 + np.abs(np.arange(60.0) - 30))
    with pytest.raises(InputError, match="an arc needs 5"):
        round_groove_depth(profile_of(narrow), (25.0, 35.0))
    with pytest.raises(InputError, match="beyond both edges"):
        round_groove_depth(profile_of(flat[120:180]), (0.0, 50.0))


ANGLES = [0.0, 90.0, 45.0, 12.3, -30.0, -77.7, 63.1]


def stepped(
    angle: float, edges: tuple[float, ...], height: float, pixel: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """A tilted map of 160 x 200 pixels whose pixels lie past an odd number of edges; angle across, up is positive."""
    y, x = np.mgrid[:160, :200] * np.array(pixel)[:, None, None]
    turn = np.radians(angle)
    across = x * np.cos(turn) - y * np.sin(turn)
    middle = (x.max() / 2) * np.cos(turn) - (y.max() / 2) * np.sin(turn)
    past = sum((across > middle + edge).astype(int) for edge in edges) % 2
    return height * past + 0.3 * x - 0.2 * y + 11


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("height", [25.0, -40.0])
def test_a_groove_or_ridge_at_any_angle(angle: float, height: float) -> None:
    heights = stepped(angle, (-17.2, 21.4), height)
    heights[40:44, 50:60] = np.nan
    found = map_step(heights)
    assert found.height_nm == pytest.approx(height, rel=1e-9)
    assert found.rest_nm < 1e-9
    assert abs((found.angle_deg - angle + 90) % 180 - 90) < 0.2  # edges of 160 pixels, each known to half of one
    assert found.edges_um[1] - found.edges_um[0] == pytest.approx(38.6, abs=1.0)  # each to half a pixel


@pytest.mark.parametrize("angle", ANGLES)
def test_a_single_step_with_noise_and_other_pixels(angle: float) -> None:
    heights = stepped(angle, (4.0,), 30.0, (1.0, 1.5)) + np.random.default_rng(1).normal(0, 3, (160, 200))
    found = map_step(heights, (1.0, 1.5))
    pixels = 160 * 200 / 3  # a third of the map and more counts: a difference of means, five times
    assert abs(found.height_nm) == pytest.approx(30, abs=5 * 3 * np.sqrt(16 / pixels))
    # from the lower number to the higher across the edge, whichever way that is seen
    assert (found.height_nm > 0) == (np.cos(np.radians(angle - found.angle_deg)) > 0)
    assert abs((found.angle_deg - angle + 90) % 180 - 90) < 0.3
    assert len(found.edges_um) == 1
    assert found.rest_nm == pytest.approx(3, rel=0.05)


def test_maps_without_one_step_are_refused() -> None:
    with pytest.raises(InputError, match=r"one level alone|are no edge"):
        map_step(np.zeros((50, 60)))
    with pytest.raises(InputError, match="3 parallel edges"):
        map_step(stepped(20.0, (-40.0, 0.0, 40.0), 20.0))
    with pytest.raises(InputError, match="with few heights has no step"):
        map_step(np.full((50, 60), np.nan))
    with pytest.raises(InputError, match="no valid pixel"):
        map_step(stepped(0.0, (-90.0, 90.0), 20.0)[:, 8:192])


@pytest.mark.parametrize(
    ("kind", "ra", "rq", "rz"),
    [
        ("C1, a sine", 2 / np.pi, 1 / np.sqrt(2), 2.0),
        ("C2, a triangle", 0.5, 1 / np.sqrt(3), 2.0),
        ("C4, arcs", None, 2 / np.sqrt(5) * 2 / 3, 2.0),
    ],
)
def test_periodic_specimens_have_the_roughness_of_their_form(kind: str, ra: float | None, rq: float, rz: float) -> None:
    """Amplitude 1; a period of 40 um in 400 samples, fifty of them: Ra, Rq, Rz and RSm of types C by their integrals."""
    turn = (np.arange(20000) + 0.5) / 400 % 1
    heights = {
        "C1": np.sin(2 * np.pi * turn),
        "C2": 1 - 4 * np.abs(turn - 0.5),
        "C4": 1 - 2 * (2 * turn - 1) ** 2,  # parabolas that meet in points: their mean is a third above the middle
    }[kind[:2]]
    found = profile_numbers(profile_of(100 * heights, 0.1))
    if ra is None:  # |z - 1/3| for 1 - 2 u^2: 2 * integral to u = 1 / sqrt 3
        ra = 8 / (9 * np.sqrt(3))
    assert found["ra_nm"] == pytest.approx(100 * ra, rel=1e-4)
    assert found["rq_nm"] == pytest.approx(100 * rq, rel=1e-4)
    assert found["rz_nm"] == pytest.approx(100 * rz, rel=0.01)  # the sample nearest to a tip lies beside it
    assert found["rsm_um"] == pytest.approx(40, rel=1e-3)


def test_irregular_specimens_repeat_themselves() -> None:
    """Type D: an irregular profile that repeats over five sections has the Ra, Rz and Rt of one of them."""
    one = np.random.default_rng(3).normal(0, 20, 400).cumsum()
    one -= np.linspace(one[0], one[-1], 400)
    one -= one.mean()
    found = profile_numbers(profile_of(np.tile(one, 5)))
    assert found["ra_nm"] == pytest.approx(np.abs(one).mean(), rel=1e-12)
    assert found["rz_nm"] == pytest.approx(np.ptp(one), rel=1e-12)
    assert found["rt_nm"] == pytest.approx(np.ptp(one), rel=1e-12)
