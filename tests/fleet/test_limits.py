"""Limits: bounds that pass, verdicts, and the text they are read from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.fleet.limits import Limit, Limits, overall

NUMBERS = st.floats(-1e9, 1e9)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_figure_passes_between_its_bounds_and_on_them(low: float, high: float, value: float) -> None:
    low, high = sorted((low, high))
    assert Limit(low, high).judge(value) == ("pass" if low <= value <= high else "fail")
    assert Limit(low, high).judge(low) == Limit(low, high).judge(high) == "pass"
    assert Limit(None, high).judge(math.nextafter(high, math.inf)) == "fail"
    assert Limit(low, None).judge(math.nextafter(low, -math.inf)) == "fail"


def test_the_worst_verdict_is_that_of_the_wafer() -> None:
    limits = Limits.from_table({"wafer": {"bow_um": {"max": 10}, "tir": {"min": 1, "max": 2}}, "a.b_nm": {"min": 0}})
    assert limits.judge({"wafer.bow_um": 11, "wafer.tir": 1.5}) == {
        "wafer.bow_um": "fail",
        "wafer.tir": "pass",
        "a.b_nm": "not measured",
    }
    assert overall(limits.judge({"wafer.bow_um": 11, "a.b_nm": 0})) == "fail"
    assert overall(limits.judge({"wafer.bow_um": 9, "wafer.tir": None, "a.b_nm": 0})) == "not measured"
    assert overall(limits.judge({"wafer.bow_um": 9, "wafer.tir": 2, "a.b_nm": 0})) == "pass"
    assert overall({}) is None


def test_a_limit_of_no_figure_is_told_with_the_nearest_name() -> None:
    told = Limits.from_table({"wafer.bow_mm": {"max": 1}}).strangers({"wafer.bow_um": 3.0, "wafer.warp_um": None})
    assert len(told) == 1
    assert "did you mean 'wafer.bow_um'" in told[0]
    assert Limits.from_table({"wafer.warp_um": {"max": 1}}).strangers({"wafer.warp_um": None}) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": 3}, "give a table"),
        ({"a": {"max": "3"}}, "give a finite number"),
        ({"a": {"max": math.nan}}, "give a finite number"),
        ({"a": {"max": True}}, "give a finite number"),
        ({"a": {"maxi": 3}}, "did you mean 'max'"),
        ({"a": {}}, "no bound"),
        ({"a": {"min": 3, "max": 2}}, "nothing could pass"),
    ],
)
def test_bad_limits_are_refused_in_one_line(table: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        Limits.from_table(table)
    assert "\n" not in str(refused.value)


def test_files_of_limits_that_cannot_be_read(tmp_path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('"evaluate.rms_nm" = { max = 4.5 }\n')
    assert Limits.from_file(path).by_name == {"evaluate.rms_nm": Limit(None, 4.5)}
    path.write_text("= 3")
    with pytest.raises(InputError, match="not valid TOML"):
        Limits.from_file(path)
    with pytest.raises(InputError, match="cannot be read"):
        Limits.from_file(tmp_path / "none.toml")
    path.write_text("# " + "x" * (1 << 20))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        Limits.from_file(path)
