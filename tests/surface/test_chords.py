"""Sums and surfaces along chords against the same written out pixel by pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms.chords import Chords
from cpikan.surface.forms.form import ModeSums, surface_rows
from cpikan.surface.forms.zernike import ZernikeBasis, ansi_index, modes_up_to

SHAPE = (41, 300)  # rows longer than a block of the kernels

pupils = st.builds(
    lambda x, y, radius, inner: Circle(x, y, radius, inner * radius),
    st.floats(-40, 340),
    st.floats(-30, 70),
    st.floats(0.7, 260),
    st.sampled_from([0.0, 0.0, 0.05, 0.5, 0.97]),
)


def plain_rows(basis: ZernikeBasis, pupil: Circle, coefficients: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Evaluate surfaces (surfaces, rows, W) pixel by pixel; NaN where not wanted."""
    out = np.full((len(coefficients), *wanted.shape), np.nan)
    out[:, wanted] = coefficients @ basis.values(*pupil.coordinates(*np.nonzero(wanted)))
    return out


@settings(deadline=None, max_examples=60)
@given(pupil=pupils, start=st.integers(-5, 5), width=st.integers(1, 300))
def test_every_pixel_of_a_pupil_lies_on_its_chord(pupil: Circle, start: int, width: int) -> None:
    inside = pupil.inside(start, start + 41, width)
    chords = Chords.of(pupil, start, 41, width)
    rows, columns = np.nonzero(inside)
    second = (columns >= chords.split[rows]).astype(int)
    place = (columns - chords.centre[rows, second]) / chords.half[rows, second]
    # a rounding of the ends of the chord
    assert np.all(np.abs(place) <= 1 + 1e-9)


@settings(deadline=None, max_examples=40)
@example(pupil=Circle(1.5, 0.0, 0.71875, 0.0359375), order=8, seed=0, kind="n")
@given(pupil=pupils, order=st.integers(0, 12), seed=st.integers(0, 2**32 - 1), kind=st.sampled_from("nmw"))
def test_sums_are_those_over_the_pixels(pupil: Circle, order: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.normal(1e3, 100.0, (2, *SHAPE))
    maps[:, rng.random(SHAPE) < 0.2] = np.nan
    weights = {"n": None, "m": rng.random(SHAPE) < 0.7, "w": rng.random(SHAPE) * (rng.random(SHAPE) < 0.7)}[kind]
    modes = modes_up_to("ansi", ansi_index((order, order)))
    sums = ModeSums(modes, pupil, 2)
    for first in (17, 0, 29):  # bands in any order
        part = slice(first, {17: 29, 0: 17, 29: 41}[first])
        sums.add(part.start, maps[:, part], None if weights is None else weights[part])
    weight = np.isfinite(maps).all(0) & pupil.inside(0, *SHAPE)
    weight = weight * (1.0 if weights is None else weights)
    rows, columns = np.nonzero(weight)
    basis = ZernikeBasis(modes, pupil.obscuration)
    values = basis.values(*pupil.coordinates(rows, columns))
    assert sums.pixels == rows.size
    # The sums go over nodes of the chords, which may reach farther than the pixels where a pupil is a pixel or two wide
    # (a chord is at least one pixel long): their largest value rounds. 25 nodes at most: 1e-13 of the sum of squares.
    reached = np.abs(Chords.of(pupil, 0, *SHAPE).node_values(basis, 2 * order + 1)[:, np.unique(rows)]).max(initial=1.0)
    scale = max(1.0, float(weight.sum())) * float(max(reached, np.abs(values).max(initial=0))) ** 2
    np.testing.assert_allclose(sums.normal, (values * weight[rows, columns]) @ values.T, atol=1e-12 * scale)
    right = (maps[:, rows, columns] * weight[rows, columns]) @ values.T
    np.testing.assert_allclose(sums.right, right, atol=1e-12 * scale * 1e3)


@pytest.mark.parametrize("inner", [0.0, 0.3, 0.95])
def test_order_thirty_keeps_its_digits(inner: float) -> None:
    pupil = Circle(150.3, 20.2, 149.0, 149.0 * inner)
    basis = ZernikeBasis(((30, 0), (30, -30), (29, 13), (4, 0)), pupil.obscuration)
    wanted = pupil.inside(0, *SHAPE)
    coefficients = np.array([[1.0, 2.0, -3.0, 4.0], [0.0, 0.0, 0.0, 1.0]])
    found = surface_rows(basis, pupil, coefficients, 0, wanted)
    expected = plain_rows(basis, pupil, coefficients, wanted)
    assert np.isnan(found[:, ~wanted]).all()
    # values up to a hundred at the edge; 31 nodes and a Clenshaw sum of as many terms
    np.testing.assert_allclose(found[:, wanted], expected[:, wanted], atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(pupil=pupils, seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 40), max_size=4, unique=True))
def test_surfaces_are_the_same_bits_in_any_bands(pupil: Circle, seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    basis = ZernikeBasis(modes_up_to("fringe", 16), pupil.obscuration)
    coefficients = rng.normal(0, 10.0, (2, 16))
    wanted = pupil.inside(0, *SHAPE) & (rng.random(SHAPE) < 0.8)
    whole = surface_rows(basis, pupil, coefficients, 0, wanted)
    np.testing.assert_allclose(whole, plain_rows(basis, pupil, coefficients, wanted), atol=1e-9)
    edges = [0, *sorted(cuts), SHAPE[0]]
    parts = [surface_rows(basis, pupil, coefficients, a, wanted[a:b]) for a, b in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)
