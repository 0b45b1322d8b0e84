"""What smooth errors have in common: sigma against errors that are drawn, and what it is made of."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.psi.calibration.wavelengths.common_error import common_error
from cpikan.psi.kernels.model import OrderSearch

SHAPE = (40, 60)
CENTRE = (19.5, 29.5)
POSITION = np.stack(np.mgrid[:40, :60], axis=-1).reshape(-1, 2) - CENTRE


def order_search(ratio: np.ndarray, tilt: np.ndarray, bow: np.ndarray | None = None) -> OrderSearch:
    plain = (np.zeros(len(ratio)), tilt, CENTRE, 0.0, 1e4, 0.0, 1e4, 40.0)
    return OrderSearch(tuple(range(len(ratio))), ratio, 300.0, *plain, bow_turns=bow)


def split(errors: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Part errors (L, ...) in turns into a height in turns, which they are taken for, and what is left."""
    height = np.tensordot(ratio, errors, 1) / (ratio @ ratio)
    return height, errors - np.multiply.outer(ratio, height)


@pytest.mark.parametrize("waves", [2, 4])
def test_sigma_is_on_average_the_error_of_the_height(waves: int) -> None:
    """Tilts drawn alike for all wavelengths: the mean of sigma squared is the variance of the heights' error."""
    rng, ratio, draws = np.random.default_rng(1), np.array([1.0, 0.97, 0.93, 0.9])[:waves], 3000
    sigmas, errors = [], []
    for tilt in rng.normal(0, 1e-3, (draws, waves, 2)):
        height, left = split(tilt, ratio)
        found = common_error(order_search(ratio, left), POSITION, 1e-9, explained=False)
        assert found is not None
        sigmas.append(found.sigma_nm(0, 1, 60)[0, [0, 59]] ** 2)
        errors.append((np.array([[-19.5, -29.5], [-19.5, 29.5]]) @ height * 300.0) ** 2)
    # squares of normal numbers scatter by sqrt(2): five standard errors of two means
    assert np.mean(sigmas, axis=0) == pytest.approx(np.mean(errors, axis=0), rel=5 * 2 / np.sqrt(draws))


def test_a_bow_of_one_of_two_wavelengths_is_what_sigma_says() -> None:
    ratio, bow = np.array([1.0, 0.95]), np.zeros((2, 5, 5))
    bow[1, 2, 0], bow[1, 0, 2] = 2e-5, 1e-5
    height, left = split(bow, ratio)
    found = common_error(order_search(ratio, np.zeros((2, 2)), left), POSITION, 0.5, explained=False)
    assert found is not None
    y, x = np.mgrid[:40, :60] - np.array(CENTRE)[:, None, None]
    error = 300.0 * np.polynomial.polynomial.polyval2d(y, x, height)
    error -= error.mean()
    sigma = found.sigma_nm(0, 40, 60)
    # equal but for the ratios, 0.95 against 1
    np.testing.assert_allclose(sigma, np.abs(error), rtol=0.06, atol=1e-9)
    np.testing.assert_allclose(found.sigma_nm(7, 21, 60), sigma[7:21], rtol=1e-12)
    np.testing.assert_allclose(found.at(POSITION), sigma.ravel(), rtol=1e-9)
    assert found.largest_nm == pytest.approx(sigma.max())
    assert found.typical_nm == pytest.approx(np.sqrt(np.mean(sigma**2)))


def test_nothing_is_added_where_nothing_was_taken_off_or_it_is_explained_or_small() -> None:
    ratio, none, bow = np.array([1.0, 0.95]), np.zeros((2, 2)), np.zeros((2, 5, 5))
    bow[:, 2, 0] = 1e-5, -1e-5
    assert common_error(order_search(ratio, none), POSITION, 0.1, explained=False) is None
    assert common_error(order_search(ratio, none, bow), POSITION, 0.1, explained=True) is None
    assert common_error(order_search(ratio, none, bow), POSITION, 1e4, explained=False) is None
    assert common_error(order_search(ratio, none, bow), POSITION, 0.1, explained=False) is not None
    tilted = common_error(order_search(ratio, np.array([[1e-3, 0], [-1e-3, 0]]), bow), POSITION, 0.1, explained=True)
    assert tilted is not None
    assert not np.ptp(tilted.sigma_nm(0, 40, 60), axis=1).any()  # the tilt alone, along the columns
