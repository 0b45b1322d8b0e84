"""The page of an ablation: one paragraph per part, with what it does beside others where that matters."""

from __future__ import annotations

from collections.abc import Iterator

from cpikan.learning.effects import PLAIN, Contrast
from cpikan.report.ablation import Ablation, Interaction, number

_SURE = 0.05  # p-value of a sign test below which an effect counts
_MATTERS = 1.5  # factor from which an interaction is told


def page(found: Ablation) -> str:
    """Write the page as Markdown."""
    lines = [
        "# What each part does",
        "",
        f"Errors divided by those of `{found.plain}` with the same seed, {found.limit}. Medians; below 1 a part helps. "
        f"The sign test counts pairs of runs: an effect with p below {_SURE} is called one. Seeds of one problem have the "
        "problem in common, so few problems say little about others.",
        "",
        "![ratios of errors, part by part](heat_map.png)",
        "",
        *_plain_table(found),
    ]
    explained = {one.together for one in found.interactions}  # by the paragraphs of their parts
    for part in [name for name in found.parts if name not in explained]:
        lines += ["", f"## `{part}`", "", " ".join(_paragraph(found, part))]
    return "\n".join(lines) + "\n"


def _plain_table(found: Ablation) -> Iterator[str]:
    yield f"| problem | median error of `{found.plain}` |"
    yield "|---|--:|"
    yield from (f"| {name} | {found.plain_error(name):.2g} |" for name in found.problems)


def _paragraph(found: Ablation, part: str) -> Iterator[str]:
    whole = found.effect(part, None)
    if whole is not None:
        yield f"{_verdict(whole)}: median ratio {number(whole.ratio)} over {_count(whole)}."
        each = [(name, found.effect(part, name)) for name in found.problems]
    if whole is not None and len(found.problems) > 1:
        yield (
            "By problem: "
            + ", ".join(
                f"{name} {number(one.ratio)} (lower in {one.lower} of {one.pairs})"
                for name, one in each
                if one is not None
            )
            + "."
        )
    yield from _besides(found, part)
    mixed = [(_other(one, part), one.contrast) for one in found.interactions if part in one.parts]
    strong = [(name, one) for name, one in mixed if _strong(one)]
    for name, one in strong:
        way = "better" if one.ratio < 1 else "worse"
        times = one.ratio if one.ratio > 1 else 1 / one.ratio
        yield f"Together with `{name}` {number(times)} times {way} than the product of both: {_count(one)}."
    weak = [f"`{name}`" for name, one in mixed if not _strong(one)]
    if weak:
        yield f"No interaction told from chance with {', '.join(weak)}."
    for reason, problems in _reasons(found, part).items():
        yield f"On {', '.join(problems)} {reason}."


def _besides(found: Ablation, part: str) -> Iterator[str]:
    """Tell what a combination gains over its own parts."""
    for one in found.effects:
        if one.part == part and one.beside != PLAIN:
            yield f"Compared with `{one.beside}` alone {number(one.contrast.ratio)} over {_count(one.contrast)}."


def _reasons(found: Ablation, part: str) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, problem, status, reason in found.reasons:
        if name == part:
            reasons.setdefault(f"{status} ({reason})", []).append(problem)
    return reasons


def _verdict(one: Contrast) -> str:
    if one.lower == one.higher == 0:
        return "Changes nothing"
    if one.p_value >= _SURE:
        return "Not told from chance"
    return "Helps" if one.lower > one.higher else "Harms"


def _strong(one: Contrast) -> bool:
    return one.p_value < _SURE and not 1 / _MATTERS < one.ratio < _MATTERS


def _count(one: Contrast) -> str:
    return f"{one.pairs} pairs (lower in {one.lower}, higher in {one.higher}, p = {one.p_value:.2g})"


def _other(one: Interaction, part: str) -> str:
    return one.parts[1] if one.parts[0] == part else one.parts[0]
