"""Recipes: what a file of one means, what is refused, and what makes two of them the same."""

from __future__ import annotations

import pytest

from cpikan.errors import InputError
from cpikan.fleet.figures import figures_of, unit_of
from cpikan.fleet.identity import Pattern
from cpikan.fleet.limits import Limit
from cpikan.fleet.recipe import Recipe

WHOLE = """
[reconstruct]
method = "pixel"
range = "27 um"
[evaluate]
remove = "piston,tilt"
[wafer]
diameter = "300mm"
[output]
format = "tif"
report = true
[identity]
pattern = "{lot}/{wafer}_{slot}"
tool = "T1"
[limits.evaluate]
rms_nm = { max = 40 }
"""


def test_a_whole_recipe(tmp_path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(WHOLE)
    recipe = Recipe.from_file(path)
    assert recipe.reconstruct == {"method": "pixel", "range": "27 um"}
    assert (recipe.format, recipe.report, recipe.identity) == ("tif", True, {"tool": "T1"})
    assert recipe.limits.by_name == {"evaluate.rms_nm": Limit(None, 40.0)}
    assert recipe.pattern is not None
    assert recipe.pattern.read("/data/A7/w03_11.npy") == {"lot": "A7", "wafer": "w03", "slot": "11"}


def test_limits_and_identity_do_not_decide_the_maps() -> None:
    plain = Recipe.from_table({"reconstruct": {"method": "pixel"}})
    judged = {"limits": {"a": {"max": 1}}, "identity": {"lot": "3"}}
    assert Recipe.from_table({"reconstruct": {"method": "pixel"}, **judged}).digest() == plain.digest()
    for other in ({"reconstruct": {"method": "hybrid"}}, {"output": {"format": "npy"}}, {"wafer": {}}):
        assert Recipe.from_table({"reconstruct": {"method": "pixel"}, **other}).digest() != plain.digest()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"reconstuct": {}}, "did you mean 'reconstruct'"),
        ({"reconstruct": {"methode": "pixel"}}, "did you mean 'method'"),
        ({"reconstruct": {"method": "pixle"}}, "did you mean 'pixel'"),
        ({"reconstruct": {"resume": True}}, "the batch sets it"),
        ({"reconstruct": 3}, "give a table"),
        ({"evaluate": {"filter": "none"}}, "unknown filter"),
        ({"wafer": {"sites": "26"}}, "sites"),
        ({"output": {"format": "png"}}, "unknown format"),
        ({"output": {"report": "yes"}}, "true or false"),
        ({"identity": {"lott": "3"}}, "did you mean 'lot'"),
        ({"identity": {"lot": 3}}, "give text"),
        ({"identity": {"pattern": "{lot}/{wafr}"}}, "did you mean 'wafer'"),
        ({"identity": {"pattern": "{lot}/{lot}"}}, "twice"),
        ({"identity": {"pattern": "lot"}}, "no name"),
        ({"limits": {"a": {"max": "b"}}}, "finite number"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(table: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        Recipe.from_table(table)
    assert "\n" not in str(refused.value)


def test_a_pattern_reads_the_end_of_a_path_and_nothing_of_another_form() -> None:
    pattern = Pattern.parsed("lot-{lot}/{wafer}")
    assert pattern.read("x/lot-7/w1.ome.tif") == {"lot": "7", "wafer": "w1"}
    assert pattern.read("lot-7/w1.h5::/frames") == {"lot": "7", "wafer": "w1"}
    assert pattern.read("x/lots-7/w1") == {}
    assert pattern.read("x/alot-7/w1") == {}


def test_figures_are_numbers_by_dotted_names() -> None:
    summary = {
        "pv_nm": 3,
        "flag": True,
        "text": "a",
        "none": None,
        "bow_um": None,
        "in": {"x_nm": float("nan"), "n": 2},
    }
    assert figures_of("wafer", {**summary, "list": [1]}) == {
        "wafer.pv_nm": 3.0,
        "wafer.bow_um": None,
        "wafer.in.x_nm": None,
        "wafer.in.n": 2.0,
    }
    units = {
        "a.pv_nm": "nm",
        "a.sigma_nm_median": "nm",
        "a.valid_fraction": "1",
        "a.ssk": "",
        "a.notch_deg": "deg",
        "a.nm": "",
    }
    assert {name: unit_of(name) for name in units} == units
