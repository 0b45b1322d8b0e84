"""The verb ``doctor``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpikan.cli.verb import CommandVerb
from cpikan.errors import InputError
from cpikan.option import option

_MARKS = {"good": "ok", "warning": "!!", "fault": "FAULT"}


@dataclass(frozen=True)
class DoctorOptions:
    folder: str = option(".", "folder whose disk is measured: 64 MiB are written there and deleted", metavar="DIR")


def _run(places: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    from cpikan.doctor.examine import examine
    from cpikan.doctor.finding import worst

    folder = Path(DoctorOptions(**settings).folder)
    if not folder.is_dir():
        raise InputError(f"--folder {folder} is no folder: name one that is there")
    findings = examine(folder.resolve())
    return {"state": worst(findings), "findings": [asdict(finding) for finding in findings]}


def _tell(result: dict[str, Any]) -> str:
    lines = []
    for finding in result["findings"]:
        lines.append(f"{_MARKS[finding['state']]:<6}{finding['name']:<12} {finding['found']}")
        if finding["advice"]:
            lines.append(f"{'':<6}{'':<12} -> {finding['advice']}")
    ends = {
        "good": "all is well",
        "warning": "runs work; what is marked !! slows them",
        "fault": "mend what is marked FAULT",
    }
    return "\n".join([*lines, ends[result["state"]]])


VERB = CommandVerb((), (DoctorOptions,), _run, _tell, code=lambda result: int(result["state"] == "fault"))
