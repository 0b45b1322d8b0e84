"""The verb ``solve``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cpikan.cli.verb import Place, job_verb
from cpikan.errors import InputError
from cpikan.option import option
from cpikan.streaming.events import ProgressLine


@dataclass(frozen=True)
class ListOptions:
    list: bool = option(False, "list the problems and stop")


def _run(places: dict[str, str], settings: dict[str, Any]) -> Any:
    if settings.pop("list", False):
        from cpikan.physics.catalogue import describe_problems

        return describe_problems()
    if places["source"] is None:
        raise InputError("no problem given: name one, or see cpikan solve --list")
    return _SOLVE.run(places, settings)


def _tell(result: Any) -> str:
    if isinstance(result, list):
        width = max(len(row["name"]) for row in result)
        return "\n".join(f"{row['name']:<{width}}  {row['dimension']}D  {row['summary']}" for row in result)
    error = "-" if result["relative_l2"] is None else f"{result['relative_l2']:.2e} relative L2"
    lines = [f"problem     {result['problem']}", f"error       {error}, largest {_number(result['max_error'])}"]
    if "runs" in result:
        every = ", ".join(_number(run["relative_l2"]) for run in result["runs"])
        lines.append(f"seeds       {result['seeds']}; relative L2 {every}; the median run is shown")
    if "coefficients" in result:
        pairs = zip(result["coefficients"], _errors(result), map(_truth, result["coefficients_true"]), strict=True)
        lines.append("found       " + ", ".join(f"{found:.6g}{error}{true}" for found, error, true in pairs))
    lines += [
        f"trust       {result['trust']}: {result['trust_reason']}",
        f"held out    {result['heldout_residual']:.2e} residual, {result['boundary_violation']:.2e} at the boundary",
        f"network     {result['parameters']} parameters, {result['collocation_points']} points, "
        f"{result['iterations']} iterations, {result['seconds']:.2f} s",
        f"stopped     {result['reason_text']}",
    ]
    if "collocation" in result:
        plain = result["collocation"]
        lines.append(
            f"plain       {plain['relative_l2']:.2e} by Chebyshev collocation of {plain['unknowns']} values "
            f"in {plain['seconds']:.2f} s"
        )
    return "\n".join(lines)


def _errors(result: dict[str, Any]) -> list[str]:
    """Write the standard error behind each coefficient, nothing where there is none."""
    errors = result.get("standard_errors", [None] * len(result["coefficients"]))
    return ["" if error is None else f" +- {error:.2g}" for error in errors]


def _truth(value: float | None) -> str:
    return "" if value is None else f" (true {value:g})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


_SOLVE = job_verb(
    "solve",
    (Place("source", "PROBLEM", "a name, see --list", needed=False),),
    _tell,
    events=lambda: ProgressLine(""),
    in_words={"baseline": True},
)
VERB = replace(_SOLVE, kinds=(ListOptions, *_SOLVE.kinds), run=_run)
