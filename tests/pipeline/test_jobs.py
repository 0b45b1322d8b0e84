"""Jobs: data in, figures out; what files and other processes carry, and what is refused in one line."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cpikan
from cpikan.errors import InputError
from cpikan.pipeline.jobs.job import VERBS, Job, run, verb_named
from cpikan.streaming.events import Cancelled
from heard_events import Heard
from independent_frames import Scene
from small_stacks import STEPS_DEG, folder_of

JOBS = {
    "reconstruct": Job(
        "reconstruct",
        "frames",
        "out.zarr",
        {
            "wavelengths": ["632.8 nm"],
            "method": "field",
            "remove": ("piston", "tilt"),
            "range": "27 um",
            "all_quantities": True,
        },
    ),
    "simulate": Job("simulate", output="made", settings={"shape": "60x80", "seed": 3, "tilt_rad": 0.1}),
    "train": Job("train", "config.toml", "model", {"overwrite": True}),
    "finetune": Job(
        "finetune", "frames", "model", {"steps": 7, "loss": {"physics": 1.0, "smoothness": {"weight": 0.5}}}
    ),
    "evaluate": Job("evaluate", "out.zarr", settings={"truth": 'a "quoted" näme.npy', "remove": "tilt"}),
    "convert": Job("convert", "out.zarr", "out.sdf", {"overwrite": True}),
    "wafer": Job("wafer", "out.zarr", settings={"diameter": "200 mm", "back": "b.npy", "sites": "20x20mm"}),
    "solve": Job("solve", "poisson-1d", settings={"seconds": 1.5, "seeds": 2}),
    "ablate": Job("ablate", output="folder", settings={"problems": ["beam"], "parts": ["sampler=rad"], "pairs": True}),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_job_survives_json_toml_and_pickle(verb):
    job = JOBS[verb]
    assert Job.from_json(job.to_json()) == job
    assert Job.from_toml(job.to_toml()) == job
    assert pickle.loads(pickle.dumps(job)) == job
    assert json.loads(job.to_json())["verb"] == verb


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_survives(text):
    job = Job("evaluate", text, settings={"truth": text})
    assert Job.from_toml(job.to_toml()) == job == Job.from_json(job.to_json())


def test_none_means_the_default():
    assert Job("solve", "poisson-1d", settings={"field": None, "seed": 2}) == Job(
        "solve", "poisson-1d", settings={"seed": 2}
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("recontruct", "a", "b"), "did you mean 'reconstruct'"),
        (("reconstruct", "", "b"), "reconstruct needs the source"),
        (("reconstruct", "a"), "reconstruct needs the output"),
        (("reconstruct", "a", "b", {"metod": "pixel"}), "did you mean 'method'"),
        (("reconstruct", "a", "b", {"method": "pixle"}), "did you mean 'pixel'"),
        (("reconstruct", "a", "b", {"tile": "512"}), "give a whole number"),
        (("reconstruct", "a", "b", {"range": "27"}), "27"),
        (("reconstruct", "a", "b", {"range": "27 um", "range_nm": 27e3}), "leave one out"),
        (("reconstruct", "a", "b", {"mask": "m.npy", "circle": "1,2,3"}), "exclude each other"),
        (("reconstruct", "a", "b", {"threads": float("nan")}), "plain data"),
        (("reconstruct", "a", "b", {"mask": np.ones(3)}), "plain data"),
        (("reconstruct", "a", "b", ["method"]), "give a table"),
        (("simulate", "", "b", {"shape": "60"}), "HxW"),
        (("simulate", "", "b", {"dead_fraction": 2.0}), "fraction from 0 to 1"),
        (("train", "a", "b", {"resume": "yes"}), "true or false"),
        (("finetune", "a", "b", {"steps": 1.5}), "whole number"),
        (("evaluate", "a", "", {"remove": "tlit"}), "did you mean 'tilt'"),
        (("wafer", "a", "", {"edge": "2"}), "no unit"),
        (("wafer", "a", "", {"sites": "26mm"}), "WIDTHxHEIGHT"),
        (("wafer", "a", "", {"back": "b", "thickness": "t"}), "one of them"),
        (("solve", "p", "", {"seeds": 0}), "at least 1"),
        (("ablate", "", "d", {"parts": ["samler=rad"]}), "did you mean 'sampler'"),
    ],
)
def test_refusals_are_one_line(arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        Job(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (Job.from_json, "{"),
        (Job.from_json, "[]"),
        (Job.from_json, '{"source": "a"}'),
        (Job.from_json, '{"verb": "solve", "sauce": "a"}'),
        (Job.from_toml, "verb = "),
    ],
)
def test_what_is_no_job_is_refused(read, text):
    with pytest.raises(InputError, match="job"):
        read(text)


def test_settings_are_those_of_the_rooms():
    """A setting of the room below is one of the job's, without a list of them."""
    from cpikan.pipeline.reconstruction.settings import ReconstructSettings

    assert {entry.name for entry in fields(ReconstructSettings)} <= set(verb_named("reconstruct").names)
    assert all(len(verb_named(verb).names) == len(set(verb_named(verb).names)) for verb in VERBS)


@pytest.fixture(scope="module")
def frames(wafer: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(
        tmp_path_factory.mktemp("job") / "frames", np.asarray(wafer.frames), wafer.wavelengths_nm, STEPS_DEG
    )


def test_a_reconstruction_is_that_of_the_function(frames, tmp_path):
    events = Heard()
    settings: dict[str, Any] = {
        "method": "pixel",
        "all_quantities": True,
        "circle": "90,80,60",
        "range_nm": [-4e4, 4e4],
    }
    job = Job("reconstruct", str(frames), str(tmp_path / "a.npy"), {**settings, "report": str(tmp_path / "a.html")})
    summary = run(job, events)
    with cpikan.open_stack(frames) as stack:
        from cpikan.surface.apertures.aperture import Circle

        plain = cpikan.reconstruct(
            stack,
            tmp_path / "b.npy",
            method="pixel",
            all_quantities=True,
            mask=Circle(90, 80, 60),
            range_nm=(-4e4, 4e4),
            progress=False,
        )
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads(json.dumps(summary))["valid_fraction"] == plain.summary["valid_fraction"]
    assert events.warnings == summary["warnings"]
    assert "demodulate" in events.stages


def test_warnings_are_events(tmp_path):
    made = run(
        Job(
            "simulate",
            output=str(tmp_path / "f"),
            settings={"shape": "60x80", "wavelengths": ["5 um", "5.05 um"], "read_noise_dn": 6.0},
        ),
        Heard(),
    )
    assert made["already_finished"] is False
    events = Heard()
    summary = run(Job("reconstruct", str(tmp_path / "f"), str(tmp_path / "o.npy"), {"range": "120 um"}), events)
    assert events.warnings == summary["warnings"] != []
    assert "wrong-orders" in summary["warning_names"]


def test_a_report_without_a_folder_is_refused_before_anything_is_done(frames, tmp_path):
    with pytest.raises(InputError, match="folder of the report"):
        run(
            Job("reconstruct", str(frames), str(tmp_path / "a.npy"), {"report": str(tmp_path / "no" / "a.html")}),
            Heard(),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_job_can_be_resumed_to_the_same_bytes(frames, tmp_path):
    settings = {"band_rows": 8}
    (tmp_path / "whole").mkdir()
    run(Job("reconstruct", str(frames), str(tmp_path / "whole" / "a.npy"), settings), Heard())
    job = Job("reconstruct", str(frames), str(tmp_path / "a.npy"), {**settings, "resume": True})
    with pytest.raises(Cancelled):
        run(job, Heard(cancel_at=5))
    assert (tmp_path / "a.npy.journal").exists()
    summary = run(job, Heard())
    assert summary["already_finished"] is False
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "whole" / "a.npy").read_bytes()
    assert run(job, Heard())["already_finished"] is True


def test_evaluation_with_and_without_a_truth(tmp_path):
    rng = np.random.default_rng(1)
    height = rng.normal(0, 5, (40, 50)).astype(np.float32)
    np.save(tmp_path / "map.npy", height)
    (tmp_path / "map.json").write_text(json.dumps({"acquisition": {"wavelengths_nm": [632.8]}, "plan": {}}))
    np.save(tmp_path / "truth.npy", height + 3)
    path = str(tmp_path / "map.npy")
    assert run(Job("evaluate", path, settings={"truth": str(tmp_path / "truth.npy")}), Heard())["rms_nm"] < 1e-5
    numbers = run(Job("evaluate", path, settings={"circle": "25,20,9"}), Heard())
    y, x = np.indices(height.shape)
    assert numbers["pixels"] == ((x - 25) ** 2 + (y - 20) ** 2 <= 81).sum()


def test_a_solve_is_that_of_the_function(tmp_path):
    events = Heard()
    settings = {"seconds": 1e4, "seed": 3, "recipe": "last-layer", "history": str(tmp_path / "h.jsonl")}
    result = run(Job("solve", "poisson-1d", settings=settings), events)
    assert result["problem"] == "poisson-1d"
    assert (result["recipe"], result["seed"], result["field"]) == ("last-layer", 3, None)
    assert result["relative_l2"] < 1e-6
    assert (tmp_path / "h.jsonl").read_text().count("\n") > 0
