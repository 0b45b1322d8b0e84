"""JSON and TOML that is read back: hostile depth and numbers are a ValueError of one line, nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.storage.documents import parse_json, parse_toml


@pytest.mark.parametrize("depth", [66, 900, 70_000])
def test_nesting_is_bounded_in_json(depth):
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        with pytest.raises(ValueError, match="64 levels"):
            parse_json(text)


def test_the_deepest_allowed_json_is_read():
    value = parse_json("[" * 64 + "]" * 64)
    for _ in range(63):
        (value,) = value
    assert value == []


@pytest.mark.parametrize("depth", [80, 50_000])
def test_nesting_is_bounded_in_toml(depth):
    with pytest.raises(ValueError, match="64 levels"):
        parse_toml("steps = " + "[" * depth + "]" * depth)


@pytest.mark.parametrize("digits", [78, 700, 9000])
def test_integers_are_bounded(digits):
    for parse, text in (
        (parse_json, '{"bit_depth": ' + "9" * digits + "}"),
        (parse_toml, "bit_depth = " + "9" * digits),
    ):
        with pytest.raises(ValueError, match=r"integer of (more than 256 bits|thousands of digits)") as told:
            parse(text)
        assert "sys." not in str(told.value)


def test_random_states_are_no_large_integers():
    assert parse_json(f'{{"state": {2**128 - 1}}}') == {"state": 2**128 - 1}


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
def test_bytes_that_are_no_text(parse):
    with pytest.raises(ValueError, match="UTF-8"):
        parse(b"\xff\xfe\x00a = 1")


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert parse_toml(b"\xef\xbb\xbfa = 1") == {"a": 1}
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_a_value_error(data):
    for parse in (parse_json, parse_toml):
        with contextlib.suppress(ValueError):
            parse(data)
