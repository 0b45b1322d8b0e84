"""A recipe: what is done with every stack of a batch, and what its figures may be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from cpikan.errors import InputError, check_name, check_names, check_type
from cpikan.fleet.identity import IDENTITY, Pattern
from cpikan.fleet.limits import Limits, read_table
from cpikan.pipeline.jobs.job import Job

FORMATS = ("npy", "tif", "zarr")
_TABLES = ("reconstruct", "evaluate", "wafer", "output", "identity", "limits")
# of the batch itself: where the map goes and what becomes of one that is there
_OWN = ("resume", "overwrite", "report", "threads")


@dataclass(frozen=True)
class Recipe:
    """Settings by name, as on the command line: ``reconstruct``; ``evaluate`` and ``wafer``, None where not asked for.

    ``format`` is that of the maps; ``report``: write a page beside each. ``identity`` is what is the same for all stacks (lot,
    tool, ...) and ``pattern`` where the rest stands in their paths. Raises InputError for settings that the verbs refuse.
    """

    reconstruct: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Mapping[str, Any] | None = None
    wafer: Mapping[str, Any] | None = None
    format: str = "zarr"
    report: bool = False
    identity: Mapping[str, str] = field(default_factory=dict)
    pattern: Pattern | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_name("format of maps", self.format, FORMATS)
        for verb in ("reconstruct", "evaluate", "wafer"):
            settings = getattr(self, verb)
            if settings is None:
                continue
            check_type(f"[{verb}]", settings, Mapping, "a table of settings")
            for name in _OWN:
                if name in settings:
                    raise InputError(f"[{verb}] {name}: the batch sets it; leave it out ([output] has report)")
            Job(verb, "stack", f"map.{self.format}", settings)

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """Read a recipe.toml; InputError names an unknown key and the nearest one."""
        return cls.from_table(read_table(path, "recipe"), str(path))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "the recipe") -> Recipe:
        """Make a recipe of the tables of a file."""
        check_names(f"table of {where}", table, _TABLES)
        for name in _TABLES:
            check_type(f"[{name}] of {where}", table.get(name, {}), Mapping, "a table")
        output, identity = table.get("output", {}), dict(table.get("identity", {}))
        check_names(f"key of [output] of {where}", output, ("format", "report"))
        check_names(f"key of [identity] of {where}", identity, (*IDENTITY, "pattern"))
        for key, value in identity.items():
            check_type(f"{key} of [identity] of {where}", value, str, "text")
        pattern = identity.pop("pattern", None)
        check_type(f"report of [output] of {where}", output.get("report", False), bool, "true or false")
        return cls(
            reconstruct=table.get("reconstruct", {}),
            evaluate=table.get("evaluate"),
            wafer=table.get("wafer"),
            format=str(output.get("format", "zarr")),
            report=output.get("report", False),
            identity=identity,
            pattern=None if pattern is None else Pattern.parsed(pattern),
            limits=Limits.from_table(table.get("limits", {}), f"[limits] of {where}"),
        )

    def limited(self, limits: Limits) -> Recipe:
        """Return the recipe with other limits."""
        return replace(self, limits=limits)

    def plan(self) -> dict[str, Any]:
        """Collect what decides the maps and figures, JSON-able; limits and identity judge and name them alone."""
        parts = {"reconstruct": self.reconstruct, "evaluate": self.evaluate, "wafer": self.wafer}
        plain: dict[str, Any] = json.loads(json.dumps(parts))
        return {**plain, "format": self.format, "report": self.report}

    def digest(self) -> str:
        """Hash the plan."""
        return sha256(json.dumps(self.plan(), sort_keys=True).encode()).hexdigest()
