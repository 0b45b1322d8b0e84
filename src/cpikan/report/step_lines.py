"""The fitted steps of a run in one line per wavelength, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpikan.report.fits import FrameFacts, fits_of

_WIDTH = 110
_LABEL = 11  # characters before the first word, as in the other lines


def step_lines(summary: Mapping[str, Any]) -> list[str]:
    """Format steps in degrees with largest error, other fitted effects, fringes, sign; [] where steps were trusted."""
    fits = fits_of(summary)
    several = len(fits) > 1
    return [
        _line(f"steps {i}" if several else "steps", facts) for i, facts in enumerate(fits, start=1) if facts is not None
    ]


def _line(label: str, facts: FrameFacts) -> str:
    steps = [f"{step:.1f}" for step in facts.step_deg]
    error = None if facts.error_deg is None else float(facts.error_deg.max())
    unit = "deg" if error is None else f"deg (+- {error:.2g})"
    effects = _effects(facts)
    ending = _ending(facts)
    for told in range(len(effects), -1, -1):
        rest = [f"+{len(effects) - told} effects"] if told < len(effects) else []
        tail = ", ".join([unit, *effects[:told], *rest, *ending])
        room = _WIDTH - _LABEL - 1 - len(tail)
        if told == 0 or len(_elided(steps, 0)) <= room:
            break
    return f"{label:<{_LABEL}}{_elided(steps, room)} {tail}"


def _effects(facts: FrameFacts) -> list[str]:
    names = list(facts.effects)
    tilts = facts.tilt_size_rad_px
    if "tilt" in names and tilts is not None:
        names[names.index("tilt")] = f"tilt to {1e3 * float(tilts.max()):.2g} mrad/px"
    return names


def _ending(facts: FrameFacts) -> list[str]:
    fringes = facts.number("fringes")
    ending = [] if fringes is None else [f"{fringes:.1f} fringes"]
    if facts.sign is not None:
        ending.append(f"sign {facts.sign}")
    return [*ending, "not determined"] if facts.undetermined else ending


def _elided(steps: Sequence[str], room: int) -> str:
    """Shorten steps to ``room`` characters, the middle left out; at least the first two and the last remain."""
    whole = " ".join(steps)
    if len(whole) <= room or len(steps) <= 4:
        return whole
    last = steps[-1]
    for first in range(len(steps) - 2, 2, -1):
        told = " ".join([*steps[:first], "...", last])
        if len(told) <= room:
            return told
    return " ".join([*steps[:2], "...", last])
