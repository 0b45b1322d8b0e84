"""Cautions: every name is known, used and explained, and sentences say which wavelength they mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cpikan.psi.model.caution import CAUTIONS, Caution

ROOT = Path(__file__).resolve().parents[2]


def test_every_name_is_used_in_the_package():
    package = ROOT / "src" / "cpikan"
    text = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name != "caution.py")
    assert [name for name in CAUTIONS if f'"{name}"' not in text] == []


def test_the_page_on_trust_explains_every_name():
    page = (ROOT / "docs" / "explanation" / "trust.md").read_text().split("\n## ")[0]  # other tables follow
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+?) \|", page, re.MULTILINE))
    assert {name: rows.get(name) for name in CAUTIONS} == CAUTIONS
    assert set(rows) == set(CAUTIONS)


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError):
        Caution("no-such-name", "text")


def test_a_caution_names_its_wavelength_where_there_are_several():
    one = Caution("steps-off", "the steps are off")
    assert one.of_wavelength(0, 1) is one
    assert str(one.of_wavelength(1, 3)) == "wavelength 2: the steps are off"
    assert one.of_wavelength(1, 3).name == "steps-off"
