"""The slow form of a map: exact on polynomials, blind to steps and pieces, free of the rows asked for together."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.surface.forms.slow_form import SlowForm

SHAPE = (90, 120)
FIRSTS = list(range(0, 88, 4))


def polynomial_nm(rng: np.random.Generator) -> np.ndarray:
    """Degree four in y and x together, some 3 nm from pixel to pixel."""
    y, x = (np.linspace(-1, 1, n) for n in SHAPE)
    terms = [(i, j) for i in range(5) for j in range(5 - i)]
    return sum(rng.uniform(-200, 200) * y[:, None] ** i * x**j for i, j in terms)


def fitted(height_nm: np.ndarray, valid: np.ndarray | None = None, firsts: list[int] = FIRSTS) -> SlowForm:
    inside = np.ones(height_nm.shape, bool) if valid is None else valid
    cut = [np.stack([a[first : first + 2] for first in firsts]) for a in (height_nm, inside)]
    return SlowForm.fitted(*cut, firsts, height_nm.shape)


def test_a_polynomial_is_found_to_rounding_but_for_its_constant():
    height = polynomial_nm(np.random.default_rng(0)) + 1e4
    form = fitted(height)
    left = height - form.rows(0, SHAPE[0])
    assert np.ptp(left) <= 1e-8 * np.ptp(height)
    slopes = [np.median(np.abs(np.diff(height, axis=axis))) for axis in (0, 1)]
    assert form.slope_nm == pytest.approx(np.hypot(*slopes), rel=0.1)  # of sampled pixels, axis by axis


def test_steps_pieces_and_what_is_not_valid_bend_nothing():
    """A chequerboard of 500 nm (a tenth of the differences cross an edge), one piece 1 mm higher, garbage where invalid.

    Cauchy's weights leave a difference of ``s`` scales 1 / (1 + s^2 / 4) of its pull: a step pulls like less than 1e-2 of a
    scale there, which the noise of 0.1 nm is.
    """
    rng = np.random.default_rng(1)
    form_nm = polynomial_nm(rng)
    y, x = np.indices(SHAPE)
    height = form_nm + 500.0 * ((y // 20 + x // 20) % 2) + np.where(x > 70, 1e6, 0.0) + rng.normal(0, 0.1, SHAPE)
    valid = rng.uniform(size=SHAPE) > 0.2
    found = fitted(np.where(valid, height, np.nan), valid).rows(0, SHAPE[0])
    for axis, rises in ((0, np.diff(found - form_nm, axis=0)), (1, np.diff(found - form_nm, axis=1))):
        assert np.sqrt(np.mean(rises**2)) <= 0.05, axis  # nm per pixel, of 3


def test_rows_are_the_same_bits_however_many_are_asked_for():
    form = fitted(polynomial_nm(np.random.default_rng(2)))
    whole = form.rows(0, SHAPE[0])
    for rows in (1, 7, 64):
        parts = [form.rows(start, min(start + rows, SHAPE[0])) for start in range(0, SHAPE[0], rows)]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 4)])
def test_small_maps_get_the_degree_that_they_can_carry(shape):
    height = np.add.outer(2.0 * np.arange(shape[0]), 3.0 * np.arange(shape[1]))
    form = fitted(height, firsts=list(range(max(shape[0] - 1, 1))))
    differences = shape[0] * (shape[1] - 1) + (shape[0] - 1) * shape[1]
    left = height - form.rows(0, shape[0])
    if differences < 40:  # twenty for each of two slopes
        assert np.array_equal(left, height)
        assert form.slope_nm == 0
    else:
        assert np.ptp(left) <= 1e-8 * np.ptp(height)


def test_nothing_valid_is_flat():
    form = fitted(np.full(SHAPE, np.nan), np.zeros(SHAPE, bool))
    assert form.slope_nm == 0
    assert not form.rows(0, 5).any()
