"""Lengths with units: parsed to nm, refused without a unit, written back readably."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.units import format_length, parse_length_nm


@pytest.mark.parametrize(
    ("text", "value_nm"),
    [
        ("632.8 nm", 632.8),
        ("632.8nm", 632.8),
        (" 27 um ", 27e3),
        ("27\u00b5m", 27e3),
        ("27 \u03bcm", 27e3),
        ("5e-3 mm", 5e3),
        ("+.5 um", 500.0),
        ("152.2 mm", 152.2e6),
        ("3 cm", 3e7),
        ("1. m", 1e9),
        ("800 pm", 0.8),
    ],
)
def test_known_units(text: str, value_nm: float) -> None:
    assert parse_length_nm(text) == pytest.approx(value_nm, rel=1e-15)


@pytest.mark.parametrize(
    "given_", ["632.8", "", "nm", "1,5 um", "1 2 nm", "--3 nm", 632.8, 5, None, True, ["1 nm"], "nan nm"]
)
def test_no_unit_is_refused_never_guessed(given_: object) -> None:
    with pytest.raises(InputError, match=r"^wavelength .* has no unit: .*nm"):
        parse_length_nm(given_, "wavelength")


@pytest.mark.parametrize("text", ["5 inch", "5 NM", "5 px", "5 rad"])
def test_unknown_units_are_named(text: str) -> None:
    with pytest.raises(InputError, match=f"unknown unit '{text[2:]}'"):
        parse_length_nm(text)


@pytest.mark.parametrize("text", ["0 nm", "-5 um", "1e400 nm", "1e308 m"])
def test_only_positive_finite_lengths(text: str) -> None:
    with pytest.raises(InputError, match="not a positive finite length"):
        parse_length_nm(text)


@given(st.floats(1e-3, 1e12))
def test_format_and_parse_agree_to_the_digits_written(value_nm: float) -> None:
    # six significant digits: the last is rounded by half at most, 5e-6 relative
    assert math.isclose(parse_length_nm(format_length(value_nm)), value_nm, rel_tol=5.001e-6)


@pytest.mark.parametrize(
    ("value_nm", "text"), [(632.8, "632.8 nm"), (27e3, "27 um"), (5e6, "5 mm"), (2e9, "2 m"), (-1500.0, "-1.5 um")]
)
def test_the_unit_keeps_the_digits_readable(value_nm: float, text: str) -> None:
    assert format_length(value_nm) == text
