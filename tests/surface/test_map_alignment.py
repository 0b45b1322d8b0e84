from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms import alignment
from cpikan.surface.forms.alignment import Block, align
from cpikan.surface.forms.form import form_modes
from cpikan.surface.forms.zernike import ZernikeBasis

LIMIT = 158.2


def _sweep(difference: np.ndarray, labels: np.ndarray | None = None, band: int = 50):
    def blocks() -> Iterator[Block]:
        for start in range(0, len(difference), band):
            rows = slice(start, start + band)
            yield Block(start, difference[rows].copy(), None if labels is None else labels[rows])

    return blocks


def test_piston_is_the_mean_of_the_right_pixels() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2.0, (300, 301))
    difference = 40.0 + noise
    wrong = rng.random(difference.shape) < 0.3
    difference[wrong] += 316.4
    difference[:20] = np.nan
    found = align(_sweep(difference), difference.shape, LIMIT)
    right = ~wrong & np.isfinite(difference)
    assert found.pistons_nm == pytest.approx([40.0 + noise[right].mean()], abs=1e-10)
    assert found.form.coefficients_nm == ()


@pytest.mark.parametrize("terms", ["piston,tilt", "zernike:9"])
@pytest.mark.parametrize("sampled", [2_000_000, 5_000])
def test_form_and_pistons_per_component_in_spite_of_wrong_orders(
    sampled: int, terms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "_SAMPLE", sampled)
    rng = np.random.default_rng(1)
    shape = (400, 300)
    labels = np.zeros(shape, np.int64)
    labels[200:, :] = 2  # label 1 has no pixel
    labels[350:, 250:] = 3
    pistons = np.array([5.0, 0.0, -900.0, 77.0])
    # a tilt of several orders across the map: pistons alone would call most pixels wrong
    difference = (
        np.add.outer(np.linspace(-700, 700, shape[0]), np.linspace(1200, -1200, shape[1]))
        + pistons[labels]
        + rng.normal(0, 1.0, shape)
    )
    wrong = rng.random(shape) < 0.15
    difference[wrong] += rng.choice([-316.4, 316.4, 632.8], int(wrong.sum()))
    found = align(_sweep(difference, labels), shape, LIMIT, form_modes(terms))
    assert found.components == 3
    error = np.concatenate([found.error(block) for block in _sweep(difference, labels)()])
    assert np.array_equal(np.abs(error) > LIMIT, wrong)
    right = ~wrong
    # what is left is the noise: 1 nm, a dozen of 1e5 degrees of freedom fitted
    assert error[right].std() == pytest.approx(1.0, abs=0.02)
    if terms == "piston,tilt":
        # unit tilt is 2 / 250 pixels of radius; slope error: 1 nm / sqrt(1e5 * 1/3) = 0.006 within the halves (y spans
        # half: * 2); five sigma and more
        slope = np.array(found.form.coefficients_nm) * 2 / found.form.pupil.radius * (199.5, 149.5)
        assert slope == pytest.approx((700.0, -1200.0), abs=0.08)
        assert found.pistons_nm == pytest.approx(pistons, abs=0.3)


def test_a_form_in_spite_of_wrong_orders() -> None:
    """A power of several orders from edge to edge, a fifth of the pixels wrong."""
    rng = np.random.default_rng(6)
    pupil = Circle(100, 100, 100)
    rows, columns = np.indices((201, 201))
    values = ZernikeBasis(((2, 0), (3, 1))).values(*pupil.coordinates(rows, columns))
    difference = 50.0 + 400 * values[0] - 150 * values[1] + rng.normal(0, 2.0, rows.shape)
    wrong = rng.random(rows.shape) < 0.2
    difference[wrong] += rng.choice([-316.4, 316.4], int(wrong.sum()))
    difference[~pupil.inside(0, 201, 201)] = np.nan
    found = align(_sweep(difference), difference.shape, LIMIT, form_modes("piston,tilt,power,coma"))
    assert found.form.pupil == Circle(100, 100, 100)
    # 2 nm / sqrt(25000): 0.013 nm, six of them
    assert found.form.coefficient_nm((2, 0)) == pytest.approx(400.0, abs=0.08)
    assert found.form.coefficient_nm((3, 1)) == pytest.approx(-150.0, abs=0.08)
    assert found.pistons_nm == pytest.approx([50.0], abs=0.08)
    error = np.concatenate([found.error(block) for block in _sweep(difference)()])
    assert np.array_equal(np.abs(error) > LIMIT, wrong & np.isfinite(difference))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from(["", "tilt", "order:3"]))
def test_small_maps_never_break(height: int, width: int, seed: int, terms: str) -> None:
    rng = np.random.default_rng(seed)
    difference = rng.normal(0, 1, (height, width))
    difference[rng.random(difference.shape) < 0.4] = np.nan
    labels = rng.integers(0, 4, difference.shape)
    found = align(_sweep(difference, labels, 5), (height, width), LIMIT, form_modes(terms))
    error = np.concatenate([found.error(block) for block in _sweep(difference, labels, 5)()])
    assert np.array_equal(np.isfinite(error), np.isfinite(difference))
    for label in range(4):
        part = error[(labels == label) & np.isfinite(error)]
        if part.size:  # least squares leaves no mean in any component
            assert part.mean() == pytest.approx(0.0, abs=1e-9)


def test_the_sample_is_even_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_SAMPLE", 1000)
    sizes = np.array([100_000, 50, 0])
    steps = alignment._sample_steps(sizes, 300)
    assert np.all(np.gcd(steps, 300) == 1)
    assert steps[1] == 1
    points = alignment._sample(_sweep(np.zeros((1000, 300))), (1000, 300), np.array([300_000]))
    assert 500 < points.value.size <= 1000
    assert abs(points.column.mean() - 149.5) < 15  # not a few columns
    assert np.unique(points.column).size > 250


@pytest.mark.parametrize("number", [-3, 70_000, 1_532_690_433])
def test_a_component_beyond_the_pixels_of_the_map_is_refused(number):
    labels = np.ones((3, 4), np.int64)
    labels[1, 2] = number
    block = Block(0, np.zeros((3, 4)), labels)
    with pytest.raises(InputError, match=f"component {number} of a map of 12 pixels"):
        align(lambda: [block], (3, 4), 100.0)
