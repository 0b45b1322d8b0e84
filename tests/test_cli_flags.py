"""Every flag of every verb, read off its parser: each reaches the settings of the run, or is declared to affect speed only."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from cpikan.cli import VERBS, load_verb, main
from cpikan.cli.flags import Parser, flag_of, settings_of
from cpikan.errors import InputError
from cpikan.option import Option, options_of
from cpikan.pipeline.jobs.job import Job

# a value other than the default, where a text or a number alone is not allowed
VALUES = {
    "--filter": "spline",
    "--method": "pixel",
    "--model": "wafer",
    "--scheme": "carre",
    "--combine": "finest",
    "--remove": "tilt",
    "--fit": "gain",
    "--tile": "200",
    "--range": "27 um",
    "--circle": "8,8,4",
    "--shape": "64x96",
    "--wavelength": "532 nm",
    "--phase-steps": "0,80,170,260",
    "--pixel-size": "7 um",
    "--bit-depth": "12",
    "--surface": "bumps",
    "--device": "cpu",
    "--steps": "7",
    "--vignetting": "0.5",
    "--dead": "0.5",
    "--frames": "5",
    "--held-out-share": "0.5",
    "--precision": "bf16",
    "--recipe": "paper",
    "--field": "mlp",
    "--hidden": "6,6",
    "--degree": "4,3,4",
    "--embedding": "fourier",
    "--clock": "processor",
    "--problems": "beam",
    "--seeds": "4",
    "--parts": "sampler=r3",
    "--plain": "recipe=adam",
    "--plot": "p.png",
    "--diameter": "200mm",
    "--edge": "3mm",
    "--sites": "20x20mm",
    "--site-offset": "1mm,2mm",
    "--axes": "notch",
    "--sector-length": "35mm",
    "--back-axis": "outward",
    "--grid": "5x5",
    "--folder": "/tmp",
    "--attempts": "5",
    "--host": "::1",
    "--queue": "7",
}
NEEDED = {
    **{flag: ["--subdomains", "4x4"] for flag in ("--coupling", "--levels", "--refine", "--schwarz")},
    "--model": ["--method", "learned"],
    "--resume": ["--checkpoint", "folder"],
    **{flag: ["--field", "residual"] for flag in ("--hidden", "--degree", "--embedding")},
}


def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = Parser(prog=verb, allow_abbrev=False)
    load_verb(verb).fill(parser)
    return parser


def flags_of(verb: str) -> dict[str, argparse.Action]:
    found = parser_of(verb)._actions
    return {action.option_strings[-1]: action for action in found if action.option_strings and action.dest != "help"}


# of the command line itself, not of its verbs
OWN = ("--json", "--output", "--log-file", "--verbose")
EVERY = [(verb, flag) for verb in VERBS for flag in flags_of(verb) if flag not in OWN]


def places_of(verb: str) -> list[str]:
    places = load_verb(verb).places
    return [word for place in places for word in ([*place.flags[:1], place.name] if place.needed else [])]


def given_by(verb: str, *words: str) -> dict[str, Any]:
    """The settings that a command line makes."""
    return settings_of(parser_of(verb).parse_args([*places_of(verb), *words]), load_verb(verb).kinds)


def words_of(verb: str, flag: str) -> list[str]:
    action = flags_of(verb)[flag]
    value = VALUES.get(flag, "unknown" if verb == "reconstruct" and flag == "--steps" else "3")
    return (
        [flag]
        if action.nargs == 0
        else [flag, "nominal" if flag == "--steps" and verb in ("reconstruct", "simulate") else value]
    )


@pytest.mark.parametrize(("verb", "flag"), EVERY)
def test_a_flag_sets_fields_of_its_own_to_something_else(verb: str, flag: str) -> None:
    """One flag of the command line is one change of the settings, away from the default."""
    before, after = given_by(verb), given_by(verb, *words_of(verb, flag))
    assert before == {}
    fields = {
        name: (entry, option)
        for kind in load_verb(verb).kinds
        for name, (entry, option) in options_of(kind).items()
        if flag_of(name, option) == flag
    }
    assert set(after) == set(fields)
    for name, (entry, _) in fields.items():
        assert after[name] != entry.default


JOBS = ("reconstruct", "simulate", "evaluate", "solve", "finetune", "ablate", "wafer")


def plan_of(verb: str, settings: dict[str, Any]) -> Any:
    """What a job of the verb would run with: the settings made of its options, and the other options."""
    from cpikan.pipeline.jobs.job import verb_named
    from cpikan.pipeline.jobs.verbs import reconstruct, simulate
    from cpikan.pipeline.reconstruction.settings import ReconstructSettings

    job = Job(verb, "source", "output", {**settings, **({"model": "m"} if verb == "finetune" else {})})
    if verb == "reconstruct":
        kinds = [kind for kind in verb_named(verb).settings if kind is not ReconstructSettings]
        return reconstruct.settings_of(job).plan(), [job.given(kind) for kind in kinds]
    if verb == "simulate":
        return simulate.settings_of(job), {key: settings.get(key) for key in ("resume", "overwrite")}
    return job.settings, [job.given(kind) for kind in verb_named(verb).settings]


@pytest.mark.parametrize(("verb", "flag"), [pair for pair in EVERY if pair[0] in JOBS and pair[1] != "--list"])
def test_a_flag_changes_the_plan_of_its_job(verb: str, flag: str) -> None:
    more = NEEDED.get(flag, []) if verb in ("reconstruct", "solve") else []
    if (verb, flag) == ("reconstruct", "--resume"):
        more = []
    plans = [plan_of(verb, given_by(verb, *words)) for words in (more, [*more, *words_of(verb, flag)])]
    found = [o for kind in load_verb(verb).kinds for n, (_, o) in options_of(kind).items() if flag_of(n, o) == flag]
    assert (plans[0] == plans[1]) == any(option.speed_only for option in found)


def test_the_settings_of_a_resume_hold_all_but_what_affects_speed() -> None:
    """Declared in one place: `plan` leaves out the options of speed, and nothing else that is a flag."""
    from cpikan.pipeline.reconstruction.settings import ReconstructSettings

    known = options_of(ReconstructSettings)
    fast = {name for name, (_, option) in known.items() if option.speed_only}
    assert fast == {"threads", "band_rows", "hash_frames", "anonymous"}
    assert set(known) - fast <= set(ReconstructSettings().plan())
    assert not fast & set(ReconstructSettings().plan())


def test_the_help_of_a_flag_is_that_of_its_field_with_its_default() -> None:
    text = parser_of("reconstruct").format_help()
    assert "(default: weighted)" in text
    text = parser_of("simulate").format_help()
    assert text.count("loss of light and of contrast") == 1  # one flag for two fields
    assert "(default: 0.1 and 0.15)" in text


def test_a_default_that_is_on_is_switched_off() -> None:
    assert given_by("simulate", "--no-shot-noise") == {"shot_noise": False}


def test_options_of_one_group_exclude_each_other() -> None:
    with pytest.raises(InputError, match="not allowed with"):
        given_by("reconstruct", "--mask", "m.npy", "--circle", "1,2,3")
    assert given_by("evaluate", "--mask", "m.npy", "--circle", "1,2,3") == {"mask": "m.npy", "circle": "1,2,3"}


def test_every_verb_has_a_file_and_its_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        told = capsys.readouterr().out
        assert all(flag in told for flag in flags_of(verb))


def test_an_option_knows_its_flag() -> None:
    assert flag_of("band_rows", Option("rows")) == "--band-rows"
    assert flag_of("all_quantities", Option("all", flag="--all")) == "--all"
