"""The verb solve: keys, list, seeds, pictures, bad names."""

from __future__ import annotations

import json

import pytest

from cpikan.cli import load_verb, main

KEYS = {
    *("problem", "relative_l2", "max_error", "seconds", "iterations", "collocation_points", "parameters"),
    *("heldout_residual", "boundary_violation", "steps_per_second", "stop_reason", "seed"),
    *("heldout_relative", "conditions", "trust", "trust_reason", "recipe_used"),
}


def test_one_object_with_all_keys(capsys):
    assert main(["solve", "helmholtz-1d", "--json", "--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    found = json.loads(told)
    assert found.keys() >= KEYS
    assert found["seed"] == 3
    assert found["problem"] == "helmholtz-1d"
    assert found["relative_l2"] < 1e-10


def test_list(capsys):
    assert main(["solve", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["dimension"] for row in rows}["poisson-3d"] == 3
    assert all({"name", "dimension", "reference"} <= row.keys() for row in rows)
    assert main(["solve", "--list"]) == 0
    assert "helmholtz-1d-k4pi" in capsys.readouterr().out


def test_for_people_with_files(tmp_path, capsys):
    picture, history = tmp_path / "p.png", tmp_path / "h.jsonl"
    assert main(["solve", "poisson-2d", "--plot", str(picture), "--history", str(history)]) == 0
    told = capsys.readouterr().out
    assert "Chebyshev collocation" in told
    assert "relative L2" in told
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(history.read_text().splitlines()[-1])["reason"]
    assert main(["solve", "beam", "--plot", str(tmp_path / "b.svg")]) == 0


def test_several_seeds(capsys):
    assert main(["solve", "poisson-1d", "--seeds", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2]
    assert found["relative_l2"] == sorted(run["relative_l2"] for run in found["runs"])[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["helmholz-1d"], "did you mean 'helmholtz-1d'"),
        ([], "no problem given"),
        (["beam", "--recipe", "ssbroydon"], "did you mean 'ssbroyden'"),
        (["beam", "--seeds", "0"], "at least 1"),
        (["beam", "--seconds", "-1"], "more than 0"),
        (["beam", "--plot", "x.gif"], "ends in .png"),
    ],
)
def test_bad_input_is_one_line(arguments, text, capsys):
    assert main(["solve", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert text in told.err
    assert told.err.count("\n") == 1


def test_balancer_and_direction_are_asked_for_by_name(capsys):
    more = ["--recipe", "gradient-descent", "--balancer", "causal", "--direction", "m-config", "--seconds", "0.3"]
    assert main(["solve", "burgers", "--json", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["balancer"], found["direction"]) == ("causal", "m-config")
    assert main(["solve", "burgers", "--direction", "dcgd"]) == 2
    assert "recipe default takes no direction" in capsys.readouterr().err
    assert main(["solve", "burgers", "--recipe", "soap", "--balancer", "self-adaptive"]) == 2
    assert "SelfAdaptive with ssbroyden: weights that climb" in capsys.readouterr().err


def test_how_conditions_are_held_is_asked_for_by_name(capsys):
    more = ["--recipe", "adam", "--constraints", "augmented-lagrangian", "--seconds", "0.3"]
    assert main(["solve", "poisson-2d", "--json", *more]) == 0
    assert json.loads(capsys.readouterr().out)["constraints"] == "augmented-lagrangian"
    assert main(["solve", "poisson-2d", "--constraints", "augmented"]) == 2
    told = capsys.readouterr().err
    assert "unknown way to hold conditions 'augmented'" in told
    assert told.count("\n") == 1


def test_a_sampler_is_asked_for_by_name(capsys):
    more = ["--recipe", "soap", "--sampler", "r3", "--sampler-every", "4", "--seconds", "0.5"]
    assert main(["solve", "helmholtz-1d", "--json", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sampler"], found["sampler_every"]) == ("r3", 4)
    assert main(["solve", "poisson-2d", "--json", "--recipe", "soap", "--sampler", "volume", "--seconds", "0.3"]) == 0
    assert json.loads(capsys.readouterr().out)["sampler_every"] is None
    for arguments, text in (
        (["--sampler", "rat"], "sampler 'rat'"),
        (["--sampler-every", "5"], "a sampler every 5 steps: name one of causal-slabs, fresh, multi-resolution"),
        (["--sampler", "rad", "--sampler-every", "0"], "every 0 steps: give 1 or more"),
        (["--sampler", "volume", "--sampler-every", "9"], "its points stay"),
        (["--sampler", "causal-slabs"], "poisson-2d has no axis of time"),
    ):
        assert main(["solve", "poisson-2d", *arguments]) == 2
        told = capsys.readouterr()
        assert text in told.err
        assert told.err.count("\n") == 1


def test_a_coefficient_that_nobody_knows_is_told_alone():
    told = load_verb("solve").tell
    row = {"problem": "p", "relative_l2": None, "max_error": None, "trust": "undetermined", "trust_reason": "?"}
    row |= {"heldout_residual": 1e-9, "boundary_violation": 0.0, "parameters": 3, "collocation_points": 9}
    row |= {"iterations": 1, "seconds": 0.1, "reason_text": "done", "coefficients": [2.0, 3.0]}
    found = told({**row, "coefficients_true": [None, 3.5], "standard_errors": [0.25, None]})
    assert "found       2 +- 0.25, 3 (true 3.5)\n" in found
