"""Ablations: what a part is, runs that differ by it alone, tables that a killed run goes on with, and what they say."""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import replace
from zlib import crc32

import pytest

from cpikan.errors import InputError, ResumeError
from cpikan.pipeline.jobs.ablation.part import Part, part_names, part_of, with_pairs
from cpikan.pipeline.jobs.ablation.results import summarised
from cpikan.pipeline.jobs.ablation.run import COLUMNS, Limits, Measure, Run, error_of, measured
from cpikan.pipeline.jobs.ablation.table import Table
from cpikan.pipeline.jobs.job import Job, run
from cpikan.pipeline.jobs.verbs.ablate import AblateOptions
from cpikan.pipeline.jobs.verbs.solve import SolveOptions
from cpikan.streaming.events import SILENT, Cancelled
from heard_events import Heard

SMALL = {"problems": ["poisson-1d"], "parts": ["recipe=soap", "sampler-every=2+sampler=r3"], "seeds": 2, "steps": 5}


def test_a_part_is_read_as_it_is_written():
    part = part_of("sampler-every=7 + sampler=rad")
    assert part == Part((("sampler", "rad"), ("sampler_every", 7)))
    assert part_of(part.name) == part
    assert [one.name for one in part.single] == ["sampler=rad", "sampler_every=7"]
    assert part_of("sampler=r3").over(part).settings == (("sampler", "r3"), ("sampler_every", 7))


def test_every_setting_of_a_solve_but_limits_and_files_is_a_part():
    assert {"sampler", "balancer", "direction", "field", "recipe", "restarts"} <= set(part_names())
    assert not {"seed", "seeds", "seconds", "steps", "checkpoint", "resume", "plot"} & set(part_names())
    assert set(part_names()) <= set(SolveOptions.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rad", "give NAME=VALUE"),
        ("sampler=", "give NAME=VALUE"),
        ("samplr=rad", "did you mean 'sampler'"),
        ("seed=3", "unknown part 'seed'"),
        ("sampler_every=often", "give a whole number"),
        ("sampler=rad+sampler=r3", "twice"),
    ],
)
def test_what_is_no_part_is_refused_in_one_line(text, words):
    with pytest.raises(InputError, match=words) as caught:
        part_of(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": 0},
        {"jobs": 0},
        {"seconds": 0.0},
        {"problems": ()},
        {"parts": ()},
        {"plain": "soap"},
        {"parts": ("x=1",)},
    ],
)
def test_options_are_refused_in_one_line(settings):
    with pytest.raises(InputError) as caught:
        AblateOptions(**settings)
    assert "\n" not in str(caught.value)


def test_pairs_are_those_of_different_settings():
    parts = [part_of(text) for text in ("sampler=rad", "sampler=r3", "field=mlp")]
    assert [part.name for part in with_pairs(parts)[3:]] == ["field=mlp+sampler=rad", "field=mlp+sampler=r3"]
    assert with_pairs(parts)[:3] == parts


def test_runs_of_a_seed_stand_together_and_differ_by_the_part_alone():
    options = AblateOptions(problems=("beam", "poisson-1d", "beam"), parts=("recipe=soap", "sampler=rad"), seeds=2)
    runs = options.runs()
    assert len(runs) == 2 * 2 * 3
    assert [one.part for one in runs[:3]] == ["", "recipe=soap", "sampler=rad"]
    assert len({(one.problem, one.seed) for one in runs[:3]}) == 1
    plain, soap, rad = (one.job().settings for one in runs[:3])
    assert plain["recipe"] == "ssbroyden"
    assert soap == {**plain, "recipe": "soap"}
    assert rad == {**plain, "sampler": "rad"}
    assert plain["clock"] == "processor"


def test_a_row_is_the_solve_of_its_settings():
    one = Run("poisson-1d", "recipe=soap", 1, {"recipe": "soap"}, Limits("recipe=adam", 1e4, 4))
    row = measured(one)
    found = run(Job("solve", "poisson-1d", settings={"recipe": "soap", "seed": 1, "steps": 4, "seconds": 1e4}), SILENT)
    assert tuple(row) == COLUMNS
    assert error_of(row) == pytest.approx(found["relative_l2"], rel=1e-5)
    assert (row["steps"], row["stop_reason"], row["status"]) == ("4", "budget", "done")
    assert pickle.loads(pickle.dumps((Measure(), one)))[1] == one  # travels to other processes


def test_what_parts_refuse_is_a_row_and_no_error_and_what_the_plain_settings_refuse_ends_it(tmp_path):
    one = Run("poisson-1d", "balancer=causal", 0, {"balancer": "causal"}, Limits("recipe=adam", 1e4, 2))
    row = measured(one)
    assert row["status"] == "refused"
    assert "does not evolve" in row["reason"]
    assert row["error"] == ""
    settings = {**SMALL, "plain": "recipe=adam+balancer=causal"}
    with pytest.raises(InputError, match=r"^plain balancer=causal\+recipe=adam on poisson-1d: causal weights"):
        run(Job("ablate", output=str(tmp_path / "a"), settings=settings), Heard())
    with pytest.raises(InputError, match="did you mean 'poisson-1d'"):
        run(Job("ablate", output=str(tmp_path / "b"), settings={**SMALL, "problems": ["poison-1d"]}), Heard())
    assert not (tmp_path / "b").exists()


@pytest.fixture
def quick(monkeypatch):
    """Solves that cost nothing: their error follows from their settings."""
    monkeypatch.setattr("cpikan.pipeline.jobs.ablation.run.run", invented)


def invented(job, events):
    text = job.source + json.dumps(dict(job.settings))
    error = crc32(text.encode()) / 2**32
    more = {"parameters": 9, "stop_reason": "budget", "trust": "undetermined", "seconds": 0.5}
    return {"relative_l2": error, "iterations": job.settings["steps"], **more}


@pytest.fixture
def whole(quick, tmp_path_factory):
    """A finished ablation: its folder, its figures, what was heard."""
    folder, events = tmp_path_factory.mktemp("whole") / "a", Heard()
    return folder, run(Job("ablate", output=str(folder), settings={**SMALL, "pairs": True}), events), events


def rows_of(folder):
    with open(folder / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{**row, "processor_s": ""} for row in rows]


def test_an_ablation_gives_tables_a_heat_map_and_a_page(whole):
    folder, found, events = whole
    assert {path.name for path in folder.iterdir()} == {"runs.csv", "effects.csv", "heat_map.png", "ablation.md"}
    assert (found["runs"], found["done"], found["refused"], found["failed"]) == (8, 8, 0, 0)
    assert (folder / "heat_map.png").read_bytes().startswith(b"\x89PNG")
    assert len(found["interactions"]) == 1
    text = (folder / "ablation.md").read_text()
    assert text.count("\n## ") == 2  # a paragraph for each part, where the pair is told too
    assert "## `recipe=soap`" in text
    assert found["already_finished"] is False
    assert set(events.stages) == {"ablation"}
    assert all(row["steps"] == "5" for row in rows_of(folder))
    soap = next(one for one in found["effects"] if one["part"] == "recipe=soap" and one["problem"] == "all")
    errors = {(row["part"], row["seed"]): float(row["error"]) for row in rows_of(folder)}
    ratios = [errors["recipe=soap", seed] / errors["", seed] for seed in "01"]
    assert soap["ratio"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5, rel=1e-3)
    assert soap["lower"] == sum(one < 1 for one in ratios)


def test_a_killed_ablation_goes_on_behind_its_last_whole_row(whole, tmp_path):
    job = Job("ablate", output=str(tmp_path / "a"), settings={**SMALL, "pairs": True})
    with pytest.raises(Cancelled):
        run(job, Heard(cancel_at=4))
    place = tmp_path / "a" / "runs.csv"
    text = place.read_text()
    assert text.count("\n") == 4
    place.write_text(text[:-9])  # a row that was cut short
    again = replace(job, settings={**job.settings, "resume": True})
    assert run(again, Heard())["runs"] == 8
    assert rows_of(tmp_path / "a") == rows_of(whole[0])
    assert run(again, Heard())["already_finished"] is True
    with pytest.raises(InputError, match="give another folder, or resume or overwrite"):
        run(job, Heard())
    with pytest.raises(ResumeError, match="holds runs of 20 s, 5 steps, plain recipe=ssbroyden, not of 20 s, 6 steps"):
        run(replace(again, settings={**again.settings, "steps": 6}), Heard())
    with pytest.raises(InputError, match="exclude each other"):
        Table(place, Limits("", 1.0), resume=True, overwrite=True)
    place.write_text("a,b\n1,2\n")
    with pytest.raises(ResumeError, match="no table of an ablation"):
        run(again, Heard())


def test_a_failed_run_counts_as_worse_and_a_refused_one_not_at_all():
    def row(part, seed, **more):
        return dict.fromkeys(COLUMNS, "") | {"problem": "p", "part": part, "seed": str(seed), "status": "done"} | more

    rows = [
        row("", 0, error="0.1"),
        row("", 1, error="0.1"),
        row("recipe=soap", 0, error="0.05"),
        row("recipe=soap", 1, status="failed", reason="it broke"),
        row("field=mlp", 0, status="refused", reason="not here"),
        row("field=mlp", 1, status="refused", reason="not here"),
    ]
    found = summarised(rows)
    soap = found.effect("recipe=soap", "p")
    assert soap is not None
    assert (soap.lower, soap.higher) == (1, 1)
    assert found.effect("field=mlp", None) is None
    assert found.parts == ["recipe=soap", "field=mlp"]
    assert found.reasons == [("recipe=soap", "p", "failed", "it broke"), ("field=mlp", "p", "refused", "not here")]
