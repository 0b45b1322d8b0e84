"""Results: what the rows of an ablation say, as figures, a table, a heat map and a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from cpikan.learning.effects import PLAIN, Contrast, Errors, effect, interaction
from cpikan.pipeline.jobs.ablation.part import Part, part_of
from cpikan.pipeline.jobs.ablation.run import error_of
from cpikan.pipeline.jobs.ablation.table import Row, csv_text
from cpikan.report.ablation import Ablation, Effect, Interaction, heat_map
from cpikan.report.ablation_page import page
from cpikan.storage.atomic import write_text

_COLUMNS = ("part", "problem", "beside", "ratio", "lower", "higher", "pairs", "p_value")
ALL = "all"  # in the column of problems


def write_results(folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """Write effects.csv, heat_map.png and ablation.md beside the rows, and return the figures."""
    found = summarised(rows)
    effects = [_flat(one.part, one.problem or ALL, one.beside, one.contrast) for one in found.effects]
    mixed = [_flat(one.together, ALL, " x ".join(one.parts), one.contrast) for one in found.interactions]
    write_text(folder / "effects.csv", csv_text(_COLUMNS, [*effects, *mixed], _COLUMNS))
    heat_map(found).savefig(folder / "heat_map.png", dpi=130)
    write_text(folder / "ablation.md", page(found))
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "refused", "failed")}
    return {"runs": len(rows), **counts, "effects": effects, "interactions": mixed}


def summarised(rows: Sequence[Row]) -> Ablation:
    """Compare every part with the plain runs, and every combination with its own parts."""
    errors = {
        (row["problem"], row["part"], int(row["seed"])): error_of(row) for row in rows if row["status"] != "refused"
    }
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    parts = [part_of(name) for name in dict.fromkeys(row["part"] for row in rows if row["part"] != PLAIN)]
    measured = [part for part in parts if any(name == part.name for _, name, _ in errors)]
    effects, mixed = list(_effects(errors, problems, parts)), list(_interactions(errors, measured))
    reasons = dict.fromkeys(
        (row["part"], row["problem"], row["status"], row["reason"]) for row in rows if row["reason"]
    )
    return Ablation(rows[0]["plain"], _limit(rows[0]), problems, errors, effects, mixed, list(reasons))


def _effects(errors: Errors, problems: Iterable[str], parts: Sequence[Part]) -> Iterator[Effect]:
    """Compare parts with nothing, on each problem and on all, and combinations with each of their own parts."""
    names = [part.name for part in parts]
    for part in parts:
        for problem in (*problems, None):
            found = effect(errors, part.name, problem)
            if found is not None:
                yield Effect(part.name, problem, PLAIN, found)
        for beside in _inside(part, parts):
            found = effect(errors, part.name, None, beside.name)
            if found is not None and beside.name in names:
                yield Effect(part.name, None, beside.name, found)


def _interactions(errors: Errors, parts: Sequence[Part]) -> Iterator[Interaction]:
    """Compare each combination with the product of the two parts that make it up."""
    for both in parts:
        for first, second in combinations(_inside(both, parts), 2):
            if len(first.settings) + len(second.settings) == len(both.settings) and first.over(second) == both:
                found = interaction(errors, first.name, second.name, both.name)
                if found is not None:
                    yield Interaction((first.name, second.name), both.name, found)


def _inside(whole: Part, parts: Iterable[Part]) -> list[Part]:
    """List the parts whose settings are some of those of a combination."""
    return [part for part in parts if set(part.settings) < set(whole.settings)]


def _flat(part: str, problem: str, beside: str, found: Contrast) -> dict[str, Any]:
    return {
        "part": part,
        "problem": problem,
        "beside": beside or "plain",
        "ratio": float(f"{found.ratio:.4g}"),
        "lower": found.lower,
        "higher": found.higher,
        "pairs": found.pairs,
        "p_value": float(f"{found.p_value:.4g}"),
    }


def _limit(row: Row) -> str:
    steps = f", at most {row['limit_steps']} steps" if row["limit_steps"] else ""
    return f"{row['limit_s']} processor seconds a run{steps}"
