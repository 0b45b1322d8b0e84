"""Zernike polynomials against closed forms, exact sums and quadrature; forms against planted ones and plain lstsq."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.surface.apertures.aperture import Circle, ExtentScan
from cpikan.surface.forms.form import FormFit, check_form_terms, fit_form, form_modes
from cpikan.surface.forms.zernike import (
    MAX_ORDER,
    NUMBERINGS,
    ZernikeBasis,
    ansi_index,
    fringe_mode,
    modes_up_to,
    noll_mode,
)

NOLL = [
    (0, 0),
    (1, 1),
    (1, -1),
    (2, 0),
    (2, -2),
    (2, 2),
    (3, -1),
    (3, 1),
    (3, -3),
    (3, 3),
    (4, 0),
]  # Noll 1976, table I
FRINGE = [(0, 0), (1, 1), (1, -1), (2, 0), (2, 2), (2, -2), (3, 1), (3, -1), (4, 0), (3, 3), (3, -3)]
ANSI = [(0, 0), (1, -1), (1, 1), (2, -2), (2, 0), (2, 2), (3, -3), (3, -1), (3, 1), (3, 3), (4, -4)]


def test_the_published_orders_of_terms() -> None:
    assert list(modes_up_to("noll", 11)) == NOLL
    assert list(modes_up_to("fringe", 11)) == FRINGE
    assert list(modes_up_to("ansi", 10)) == ANSI
    # squares end with the spherical terms of the fringe set; Noll 36 is the last of order 7
    assert [fringe_mode(k * k) for k in (5, 6, 7)] == [(8, 0), (10, 0), (12, 0)]
    assert fringe_mode(37) == (6, 6)
    assert noll_mode(36) == (7, 7)


@pytest.mark.parametrize("name", NUMBERINGS)
def test_indices_count_every_mode_once(name: str) -> None:
    numbering = NUMBERINGS[name]
    every = [(n, m) for n in range(MAX_ORDER + 1) for m in range(-n, n + 1, 2)]
    indices = [numbering.index(mode) for mode in every]
    assert len(set(indices)) == len(every)
    assert [numbering.mode(index) for index in indices] == every
    if name != "fringe":  # fringe fills its orders late
        assert sorted(indices) == list(range(numbering.first, numbering.first + len(every)))


def points(count: int = 300, inner: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    r, angle = np.sqrt(inner**2 + (1 - inner**2) * rng.random(count)), rng.uniform(-np.pi, np.pi, count)
    return r * np.sin(angle), r * np.cos(angle), r, angle


def test_low_orders_in_closed_form() -> None:
    y, x, r, a = points()
    modes = ((0, 0), (1, 1), (1, -1), (2, 0), (2, -2), (3, 1), (4, 0), (6, 0))
    truth = [
        np.ones_like(r),
        2 * x,
        2 * y,
        math.sqrt(3) * (2 * r**2 - 1),
        math.sqrt(6) * r**2 * np.sin(2 * a),
        math.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(a),
        math.sqrt(5) * (6 * r**4 - 6 * r**2 + 1),
        math.sqrt(7) * (20 * r**6 - 30 * r**4 + 12 * r**2 - 1),
    ]
    np.testing.assert_allclose(ZernikeBasis(modes).values(y, x), truth, atol=2e-14)


@pytest.mark.parametrize("e", [0.2, 0.6, 0.95])
def test_annular_low_orders_in_closed_form(e: float) -> None:
    """Mahajan 1981, table I."""
    y, x, r, a = points(inner=e)
    b = math.sqrt((1 - e**2) ** 2 * (1 + e**2) * (1 + 4 * e**2 + e**4))
    truth = [
        2 * r / math.sqrt(1 + e**2) * np.cos(a),
        math.sqrt(3) * (2 * r**2 - 1 - e**2) / (1 - e**2),
        math.sqrt(6) * r**2 / math.sqrt(1 + e**2 + e**4) * np.cos(2 * a),
        math.sqrt(8) * (3 * (1 + e**2) * r**3 - 2 * (1 + e**2 + e**4) * r) / b * np.sin(a),
        math.sqrt(5) * (6 * r**4 - 6 * (1 + e**2) * r**2 + 1 + 4 * e**2 + e**4) / (1 - e**2) ** 2,
    ]
    found = ZernikeBasis(((1, 1), (2, 0), (2, 2), (3, -1), (4, 0)), e).values(y, x)
    # the closed forms themselves cancel to (1 - e^2)^2 of their terms
    np.testing.assert_allclose(found, truth, atol=1e-14 * 20 / (1 - e**2) ** 2)


@pytest.mark.parametrize("inner", [0.0, 0.3, 0.9])
def test_orthonormal_by_quadrature(inner: float) -> None:
    """Gauss-Legendre in r^2 and equal angles integrate products of order 20 exactly."""
    basis = ZernikeBasis(modes_up_to("ansi", ansi_index((20, 20))), inner)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    r = np.sqrt(((1 + inner**2) + (1 - inner**2) * nodes) / 2)[:, None]
    angle = np.arange(48) * 2 * np.pi / 48
    values = basis.values(r * np.sin(angle), r * np.cos(angle))
    products = np.einsum("iab,jab,a->ij", values, values, weights / 2 / 48, optimize=True)
    np.testing.assert_allclose(products, np.eye(len(basis.modes)), atol=1e-12)


@pytest.mark.parametrize("mode", [(30, 0), (30, 2), (29, -13), (30, 30), (24, 10)])
def test_high_orders_against_exact_sums(mode: tuple[int, int]) -> None:
    """The textbook sum of powers, in whole numbers; in floating point it would lose 12 digits at order 30."""
    n, m = mode[0], abs(mode[1])
    for radius in (Fraction(1, 7), Fraction(2, 3), Fraction(99, 100)):
        exact = sum(
            Fraction((-1) ** k * math.factorial(n - k))
            / (math.factorial(k) * math.factorial((n + m) // 2 - k) * math.factorial((n - m) // 2 - k))
            * radius ** (n - 2 * k)
            for k in range((n - m) // 2 + 1)
        )
        angle = 0.3
        truth = float(exact) * (math.sin(m * angle) if mode[1] < 0 else math.cos(m * angle))
        r = float(radius)
        found = ZernikeBasis((mode,), normalisation="peak").values(r * np.sin([angle]), r * np.cos([angle]))[0, 0]
        # 15 steps of a recurrence of values below 1; measured 2e-14
        assert found == pytest.approx(truth, abs=2e-13)


def test_peak_is_one_at_the_edge() -> None:
    modes = modes_up_to("fringe", 100)
    for inner in (0.0, 0.5):
        values = ZernikeBasis(modes, inner, "peak").values(np.array([0.0]), np.array([1.0]))[:, 0]
        np.testing.assert_allclose(values, [0.0 if m < 0 else 1.0 for _, m in modes], atol=1e-12)


def test_bad_polynomials_are_refused() -> None:
    for call, words in (
        (lambda: ZernikeBasis(((2, 1),)), "even"),
        (lambda: ZernikeBasis(((1, 3),)), "even"),
        (lambda: ZernikeBasis(((32, 0),)), "at most 30"),
        (lambda: ZernikeBasis(((0, 0),), 1.0), "obscuration"),
        (lambda: ZernikeBasis(((0, 0),), normalisation="max"), "peak"),  # type: ignore[arg-type]
        (lambda: modes_up_to("noll", 0), "start at 1"),
        (lambda: modes_up_to("wyant", 4), "allowed are noll"),
        (lambda: modes_up_to("noll", 10**12), "too high"),
    ):
        with pytest.raises(InputError, match=words):
            call()


# --- forms -----------------------------------------------------------------------------------------------------------


def test_terms_as_they_are_written() -> None:
    assert check_form_terms("tilt, piston,tilt") == ("piston", "tilt")
    assert check_form_terms(["sphere", "piston"]) == ("piston", "power")
    assert check_form_terms("fringe:036,tilt") == ("tilt", "zernike:36")
    assert check_form_terms("") == ()
    assert len(form_modes("zernike:36")) == 36
    assert form_modes("order:2") == form_modes("piston,tilt,power,astigmatism") == form_modes("ansi:5")
    assert form_modes("noll:4") == form_modes("zernike:4") == form_modes("piston,tilt,power")
    for bad, words in (
        ("tlit", "did you mean 'tilt'"),
        ("zernik:4", "did you mean 'zernike'"),
        ("zernike", "zernike:N"),
        ("zernike:", "no count"),
        ("noll:-3", "no count"),
        ("noll:0", "start at 1"),
        ("order:31", "at most 30"),
        ("order:99999999", "no count"),
        ("zernike:5000", "at most 30"),
    ):
        with pytest.raises(InputError, match=words):
            check_form_terms(bad)


def planted(shape: tuple[int, int], pupil: Circle, modes: tuple[tuple[int, int], ...], seed: int = 0):
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    coefficients = rng.normal(0, 100.0, len(modes))
    heights = np.tensordot(
        coefficients, ZernikeBasis(modes, pupil.obscuration).values(*pupil.coordinates(rows, columns)), 1
    )
    heights[~pupil.inside(0, *shape)] = np.nan
    return coefficients, heights


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 7.0]))
def test_planted_coefficients_come_back_from_bands_in_any_order(band: int, seed: int, inner: float) -> None:
    shape, pupil = (40, 52), Circle(25.2, 19.4, 18.7, inner)
    modes = form_modes("zernike:16")
    coefficients, heights = planted(shape, pupil, modes, seed)
    rng = np.random.default_rng(seed)
    heights[rng.random(shape) < 0.2] = np.nan
    fit = FormFit("zernike:16", pupil)
    starts = list(range(0, shape[0], band))
    rng.shuffle(starts)
    for start in starts:
        fit.add(start, heights[start : start + band])
    form = fit.solve()
    # the normal matrix of 16 terms on about 800 pixels has a condition below 1e3; heights are of the order 500
    np.testing.assert_allclose(form.coefficients_nm, coefficients, atol=1e-9)
    assert form.basis.modes == modes
    assert np.nanmax(np.abs(form.remove(heights))) < 1e-8
    np.testing.assert_allclose(form.rows(5, 9, 52)[np.isfinite(heights[5:9])], heights[5:9][np.isfinite(heights[5:9])])


def test_fit_equals_plain_weighted_least_squares() -> None:
    rng = np.random.default_rng(1)
    heights = rng.normal(0, 30.0, (37, 61)) + 1e5
    heights[rng.random(heights.shape) < 0.3] = np.nan
    weights = rng.random(heights.shape) * (rng.random(heights.shape) < 0.8)
    pupil = Circle(30, 18, 36)
    form = fit_form(heights, weights, "zernike:10", pupil)
    used = np.isfinite(heights) & (weights > 0) & pupil.inside(0, *heights.shape)
    matrix = ZernikeBasis(form.basis.modes).values(*pupil.coordinates(*np.nonzero(used))).T
    root = np.sqrt(weights[used])
    expected = np.linalg.lstsq(matrix * root[:, None], heights[used] * root, rcond=None)[0]
    # relative to the piston of 1e5
    np.testing.assert_allclose(form.coefficients_nm, expected, atol=1e-7)
    mask = fit_form(heights, weights > 0, "zernike:10", pupil)
    np.testing.assert_allclose(
        mask.coefficients_nm,
        fit_form(np.where(weights > 0, heights, np.nan), None, "zernike:10", pupil).coefficients_nm,
    )


def test_piston_and_tilt_are_a_plane() -> None:
    rng = np.random.default_rng(2)
    heights = rng.normal(0, 5.0, (40, 33)) + np.add.outer(3.0 * np.arange(40), -7.0 * np.arange(33))
    heights[rng.random(heights.shape) < 0.3] = np.nan
    rows, columns = np.indices(heights.shape)
    valid = np.isfinite(heights)
    matrix = np.stack([np.ones(heights.shape), rows - 19.5, columns - 16], -1)
    plane = np.linalg.lstsq(matrix[valid], heights[valid], rcond=None)[0]
    for terms, used in ((("piston",), None), (("piston", "tilt"), plane), (("tilt",), plane * [0, 1, 1])):
        expected = heights - (np.nanmean(heights) if used is None else matrix @ used)
        # tilt alone keeps the mean height at the centre of its circle
        found = fit_form(heights, None, terms, Circle(16, 19.5, 26)).remove(heights)
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_order_two_is_the_full_second_order_polynomial() -> None:
    rng = np.random.default_rng(3)
    heights = rng.normal(0, 5.0, (30, 44))
    rows, columns = np.indices(heights.shape)
    y, x = rows.ravel() / 30, columns.ravel() / 44
    matrix = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], 1)
    expected = heights.ravel() - matrix @ np.linalg.lstsq(matrix, heights.ravel(), rcond=None)[0]
    np.testing.assert_allclose(fit_form(heights, None, "order:2").remove(heights).ravel(), expected, atol=1e-11)


def test_parts_of_sets() -> None:
    assert form_modes("noll:11-11") == ((4, 0),)
    assert form_modes("noll:5-6,power") == form_modes("astigmatism,sphere")
    assert form_modes("ansi:0-2") == form_modes("piston,tilt")
    assert form_modes("order:3-3") == form_modes("coma,trefoil")
    assert form_modes("zernike:1-9") == form_modes("fringe:9")
    assert check_form_terms("noll:07-010") == ("noll:7-10",)
    for bad in ("noll:9-4", "noll:-4", "noll:4-", "noll:1-2-3", "order:4-2", "zernike:a-b"):
        with pytest.raises(InputError, match="A-B"):
            check_form_terms(bad)
    with pytest.raises(InputError, match="at most 30"):
        check_form_terms("order:2-31")
    with pytest.raises(InputError, match="start at 1"):
        check_form_terms("noll:0-3")


def test_power_alone_leaves_tilt_and_astigmatism() -> None:
    pupil = Circle(30, 30, 30)
    modes = ((0, 0), (1, 1), (2, 2), (2, 0))
    coefficients, heights = planted((61, 61), pupil, modes, 4)
    form = fit_form(heights, None, "sphere", pupil)
    assert form.basis.modes == ((2, 0),)
    # a disc of pixels is symmetric: modes of different angular frequency stay orthogonal on it
    assert form.coefficient_nm((2, 0)) == pytest.approx(coefficients[3], rel=1e-10)
    assert form.coefficient_nm((1, 1)) == 0.0


def test_few_pixels_and_none() -> None:
    heights = np.full((9, 9), np.nan)
    with pytest.raises(InputError, match="no pixel is valid"):
        fit_form(heights, None, "order:2")
    assert fit_form(heights, None, "order:2", Circle(4, 4, 4)).coefficients_nm == (0.0,) * 6
    heights[4, 2:7] = [1.0, 2.0, 3.0, 4.0, 5.0]  # one row: the slope along it, and nothing made up across
    form = fit_form(heights, None, "piston,tilt", Circle(4, 4, 4))
    assert form.coefficient_nm((1, 1)) == pytest.approx(2.0)  # 2 x Z = 2 (column - 4) / 4
    assert form.coefficient_nm((1, -1)) == 0.0
    with pytest.raises(InputError, match="two dimensions"):
        fit_form(np.zeros(5))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_circle_around_the_valid_pixels(seed: int, band: int) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random((25, 31)) < rng.choice([0.003, 0.05, 0.7])
    valid[rng.integers(25), rng.integers(31)] = True
    scan = ExtentScan()
    for start in range(0, 25, band):
        scan.add(start, valid[start : start + band])
    pupil = scan.pupil()
    rows, columns = np.nonzero(valid)
    assert (pupil.y, pupil.x) == ((rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2)
    assert pupil.radius == max(0.5, np.hypot(rows - pupil.y, columns - pupil.x).max())
    assert pupil.inside(0, 25, 31)[valid].all()


def test_circles_as_they_are_written() -> None:
    assert Circle.parse("390,295, 225") == Circle(390, 295, 225)
    assert Circle.parse("1 2 30 15").obscuration == 0.5
    ring = Circle(10, 10, 5, 3).inside(0, 21, 21)
    rows, columns = np.indices((21, 21)) - 10
    np.testing.assert_array_equal(ring, (rows**2 + columns**2 <= 25) & (rows**2 + columns**2 >= 9))
    for bad in ("1,2", "a,b,c", "1,2,0", "1,2,3,3", "1,2,nan", "1,2,3,-1", ""):
        with pytest.raises(InputError, match="X,Y,R"):
            Circle.parse(bad)
