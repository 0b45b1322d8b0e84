"""A job: what the command line, a batch or a service asks for, as data that files and other processes can carry; its verbs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from cpikan.errors import InputError, check_name, check_names, check_type
from cpikan.option import option
from cpikan.storage.documents import parse_json, parse_toml
from cpikan.streaming.events import Events, as_events

if TYPE_CHECKING:
    from cpikan.surface.apertures.aperture import Aperture


_MASK = "pixels that count are nonzero: .npy or a grey image"
_CIRCLE = "pixels that count lie in this circle or annulus (pixels)"


@dataclass(frozen=True)
class RunOptions:
    """What may become of an output that exists, finished or not."""

    resume: bool = option(False, "go on with a run that was stopped")
    overwrite: bool = option(False, "replace an output that exists")


@dataclass(frozen=True)
class AreaOptions:
    """Which pixels count: those of a mask, within a circle, or both."""

    mask: str | None = option(None, _MASK, metavar="FILE")
    circle: str | None = option(None, _CIRCLE, metavar="X,Y,R[,INNER]")

    def open(self) -> Aperture | None:
        """Open the aperture of a circle and of a mask file; InputError where either cannot be read."""
        from cpikan.surface.apertures.aperture import aperture_of  # NumPy: help must not wait for it

        return aperture_of(self.circle, self.mask)


@dataclass(frozen=True)
class OneAreaOptions(AreaOptions):
    """Which pixels count: those of a mask, or within a circle."""

    mask: str | None = option(None, _MASK, metavar="FILE", group="area")
    circle: str | None = option(None, _CIRCLE, metavar="X,Y,R[,INNER]", group="area")

    def __post_init__(self) -> None:
        if self.mask and self.circle:
            raise InputError("mask and circle exclude each other: give one of them")


VERBS = (
    "reconstruct",
    "simulate",
    "train",
    "finetune",
    "evaluate",
    "convert",
    "wafer",
    "solve",
    "ablate",
)  # files in verbs/


@dataclass(frozen=True)
class Verb:
    """``settings``: dataclasses whose fields a job of this verb may set; ``needs``: fields of the job that must be given;
    ``run(job, events, seconds_before)`` does the work and returns its figures; ``check`` refuses settings by an InputError,
    by default those that their own dataclass refuses."""

    settings: tuple[type[Any], ...]
    needs: tuple[str, ...]
    run: Callable[[Job, Events, float], dict[str, Any]]
    check: Callable[[Job], object] = lambda job: [job.part(kind) for kind in verb_named(job.verb).settings]

    @property
    def names(self) -> tuple[str, ...]:
        """List the settings by name."""
        return tuple(dict.fromkeys(entry.name for kind in self.settings for entry in fields(kind)))


def verb_named(name: str) -> Verb:
    """Load the verb ``name``, one of `VERBS`."""
    verb: Verb = importlib.import_module(f"cpikan.pipeline.jobs.verbs.{name}").VERB
    return verb


_KEYS = ("verb", "source", "output", "settings")


@dataclass(frozen=True)
class Job:
    """One piece of work: ``verb`` (`VERBS`) on ``source`` (a stack, a map, a config file, the name of a problem) into
    ``output``, with ``settings`` by name, values as JSON has them (lists for tuples, text for lengths with units).

    Settings that are None are left out, for None means the default. Raises InputError of one line for an unknown verb or
    setting (with the nearest one), for a value of a wrong type or that the verb refuses, and where a source or an output is
    missing.
    """

    verb: str
    source: str = ""
    output: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("verb", str(self.verb), VERBS)
        verb = verb_named(self.verb)
        for key in verb.needs:
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise InputError(f"{self.verb} needs the {key}: give its path or name as text")
        if not isinstance(self.settings, Mapping):
            raise InputError(f"settings of {self.verb} are {self.settings!r}: give a table of names and values")
        allowed = verb.names
        check_names(f"setting of {self.verb}", self.settings, allowed)
        object.__setattr__(self, "settings", _plain(self.settings, self.verb))
        verb.check(self)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Job:
        """Make a job of a table with the keys verb, source, output and settings; InputError for any other key."""
        check_names("key of a job", table, _KEYS)
        if "verb" not in table:
            raise InputError(f"a job without a verb: give one of {', '.join(VERBS)}")
        return cls(**{str(key): value for key, value in table.items()})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote, or a person; InputError where it is no JSON object."""
        try:
            table = parse_json(text)
        except ValueError as error:
            raise InputError(f"the job is not valid JSON: {error}") from error
        if not isinstance(table, dict):
            raise InputError("the job is no JSON object: give verb, source, output and settings")
        return cls.from_table(table)

    @classmethod
    def from_toml(cls, text: str) -> Job:
        """Read what `to_toml` wrote, or a person; InputError where it is no TOML."""
        try:
            table = parse_toml(text)
        except ValueError as error:
            raise InputError(f"the job is not valid TOML: {error}") from error
        return cls.from_table(table)

    def to_json(self) -> str:
        """Write the job as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_toml(self) -> str:
        """Write the job as TOML, the settings in a table of their own."""
        head = [f"{key} = {_toml(getattr(self, key))}" for key in _KEYS[:-1]]
        body = [f"{_toml(name)} = {_toml(value)}" for name, value in self.settings.items()]
        return "\n".join([*head, "", "[settings]", *body, ""])

    def part(self, kind: type[Any], **given: Any) -> Any:
        """Make the dataclass ``kind`` of the settings that are its fields; fields in ``given`` are set to those."""
        from cpikan.images.training.tables import from_table

        table = {name: value for name, value in self.given(kind).items() if name not in given}
        return replace(from_table(kind, table, f"settings of {self.verb}:"), **given)

    def given(self, kind: type[Any]) -> dict[str, Any]:
        """Select the settings that are fields of the dataclass ``kind``."""
        names = {entry.name for entry in fields(kind)}
        return {name: value for name, value in self.settings.items() if name in names}


def run(job: Job, events: Events | None = None, *, seconds_before: float = 0.0) -> dict[str, Any]:
    """Do a job and return its figures, JSON-able: what ``cpikan VERB --json`` prints.

    ``events`` hears progress and warnings, and can cancel (default: a line on stderr). ``seconds_before`` is what the process
    spent before, counted in ``seconds_start`` of a reconstruction. Raises InputError for input that cannot be used, and
    `Cancelled` where ``events`` wants no more; what is finished stays, and the job goes on with the setting ``resume``.
    """
    check_type("job", job, Job, 'a Job, as Job("solve", "beam")')
    return verb_named(job.verb).run(job, as_events(True) if events is None else events, seconds_before)


def _plain(settings: Mapping[str, Any], verb: str) -> dict[str, Any]:
    """Convert settings to how they read back from JSON: lists for tuples; a copy, without those that are None."""
    try:
        return dict(json.loads(json.dumps({k: v for k, v in settings.items() if v is not None}, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"settings of {verb} are not plain data ({error}): give text, numbers, lists, tables"
        ) from error


def _toml(value: Any) -> str:
    """Write one value as TOML; its text, numbers, true and false are those of JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(k)} = {_toml(v)}' for k, v in value.items() if v is not None)}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
