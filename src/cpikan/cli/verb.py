"""What a verb of the command line is, and the two ways to make one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cpikan.cli.flags import add_flags, settings_of
from cpikan.errors import InputError
from cpikan.messages import one_line, say
from cpikan.streaming.events import ProgressLine
from cpikan.streaming.run_log import heard


class Place(NamedTuple):
    """A positional argument, or with ``flags`` a named one: where something is read from or written to, one or ``many``."""

    name: str
    metavar: str
    help: str
    flags: tuple[str, ...] = ()
    needed: bool = True
    default: str | None = None
    many: bool = False

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the positional or named argument to ``parser``."""
        more: dict[str, Any] = {"metavar": self.metavar, "help": self.help, "default": self.default}
        if self.flags:
            parser.add_argument(*self.flags, dest=self.name, required=self.needed and self.default is None, **more)
        else:
            parser.add_argument(self.name, nargs="+" if self.many else None if self.needed else "?", **more)


OUTPUT = ("-o", "--output")


@dataclass(frozen=True)
class CommandVerb:
    """``places`` and the options of ``kinds`` are its arguments; ``run`` takes the values of the places and the settings by
    name, and returns figures; ``tell`` says them in a few lines. ``in_words`` are settings for that alone, not for ``--json``.
    ``code`` gives the exit code of figures.
    """

    places: Sequence[Place]
    kinds: Sequence[type[Any]]
    run: Callable[[dict[str, str], dict[str, Any]], Any]
    tell: Callable[[Any], str]
    in_words: Mapping[str, Any] = field(default_factory=dict)
    code: Callable[[Any], int] = lambda result: 0

    def fill(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the verb."""
        for place in self.places:
            place.add_to(parser)
        add_flags(parser, self.kinds)
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object on stdout and nothing else there"
        )
        parser.add_argument("--log-file", metavar="FILE", help="append what is done to a file, a line of JSON each")
        parser.add_argument("-v", "--verbose", action="store_true", help="tell stages and their seconds on stderr")

    def __call__(self, given: argparse.Namespace) -> Any:
        """Run the verb with the arguments ``given`` and return its figures."""
        places = {place.name: getattr(given, place.name) for place in self.places}
        more = {} if given.json else self.in_words
        return self.run(places, {**settings_of(given, self.kinds), **more})


def job_verb(
    name: str,
    places: Sequence[Place],
    tell: Callable[[Any], str],
    *,
    events: Callable[[], ProgressLine] = ProgressLine,
    in_words: Mapping[str, Any] | None = None,
) -> CommandVerb:
    """Make the verb ``name`` of jobs; places that are no fields of a job are settings."""
    from cpikan.pipeline.jobs.job import verb_named

    def run(given: dict[str, str], settings: dict[str, Any]) -> Any:
        from cpikan.pipeline.jobs.job import Job
        from cpikan.pipeline.jobs.job import run as run_job

        for place in places:
            if given[place.name] == "":
                raise InputError(f"{place.metavar} '' does not exist: give a path")
        main = {key: value for key, value in given.items() if key in ("source", "output") and value is not None}
        rest = {key: value for key, value in given.items() if key not in ("source", "output")}
        with closing(events()) as line, heard(line) as told:
            result = run_job(Job(name, **main, settings={**settings, **rest}), told, seconds_before=process_seconds())
        if result.get("rank", 0) > 0:  # of several processes one tells
            raise SystemExit(0)
        if result.get("already_finished") and name != "simulate":
            tell(result)  # a damaged record is refused before anything is said of it
            say(f"cpikan: {one_line(str(result['output']))} is already finished: nothing was done")
        return result

    return CommandVerb(places, verb_named(name).settings, run, tell, in_words or {})


def process_seconds() -> float:
    """Measure the seconds since the process started: interpreter and imports."""
    import time

    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())
