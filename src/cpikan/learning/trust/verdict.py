"""Trust: the verdict on a solution, with its reason in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Word = Literal["converged", "not converged", "undetermined"]
TOLERANCE = 1e-2  # relative error that a solution may have and be called converged
SEEN = 0.1  # share of a solution that the functions of the check may miss
UNIQUE = 1e8  # a change as large as the solution must change the residuals by more than 1 / this, relative
_DETOUR = (
    "it satisfies equation and conditions, but only a more viscous problem led to it, and from a smooth start the search ended "
    "elsewhere: there may be other solutions; compare it with what you expect, or start from a field of your own"
)


class Trust(NamedTuple):
    """A word and the reason for it."""

    word: Word
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What was found out about a solution after the solve.

    ``residual`` is relative to what residuals are made of, ``missed`` the largest violation of a condition relative to its
    data, by the condition's name, ``noise`` that of measured values; ``estimate`` and ``bound`` are relative errors,
    ``amplification`` says how much larger a relative change of the solution can be than the change of the residuals, in the
    direction that ``weakest`` describes. ``change`` is the relative change from the level before, ``expected`` what is left
    of it as the residuals fell. ``unseen`` is the share of the solution that is too fine for the functions of the check,
    ``seams`` what the jumps between the pieces of a field add up to, None for a field of one piece. ``open`` says in words
    which coefficients the data leave open, and ``detour`` tells that the solution was found by way of other problems.
    """

    size: float
    residual: float
    noise: float
    missed: tuple[str, float] | None
    estimate: float = 0.0
    bound: float = 0.0
    amplification: float = 0.0
    weakest: str = ""
    change: float | None = None
    expected: float | None = None
    unseen: float = 0.0
    seams: float | None = None
    open: str = ""
    detour: bool = False

    @property
    def finite(self) -> bool:
        """Tell whether all figures are numbers."""
        return all(math.isfinite(v) for v in (self.size, self.residual, self.estimate, self.bound, self.amplification))


def judge(found: Evidence) -> Trust:
    """Give the verdict: what would make a solution wrong is looked for in turn."""
    if not found.finite:
        return Trust("not converged", "residuals or values are not finite: look at the formula, or scale the equation")
    if found.size == 0:
        return _zero(found)
    if found.amplification >= UNIQUE and found.estimate <= TOLERANCE:
        return Trust("undetermined", _other_solutions(found))
    unmet = _unmet(found)
    if found.open and not unmet:
        return Trust("undetermined", found.open)
    doubts = unmet or _doubts(found)
    if doubts:
        open_too = "" if found.amplification < UNIQUE else f"; {_other_solutions(found)}"
        return Trust("not converged", doubts[0] + open_too)
    if found.detour:
        return Trust("undetermined", _DETOUR)
    return Trust(
        "converged",
        f"the error is estimated at {_percent(found.estimate)}, at worst {_percent(found.bound)}, by the linearised problem at "
        "points and in functions of its own",
    )


def _zero(found: Evidence) -> Trust:
    if found.residual > TOLERANCE:
        return Trust(
            "not converged", "the solution is zero, which does not satisfy the problem: start elsewhere, or scale it"
        )
    return Trust(
        "undetermined",
        "the solution is zero, which satisfies equation and conditions, and other functions may too: ask for a size or a "
        "slope by a further condition",
    )


def _other_solutions(found: Evidence) -> str:
    return (
        f"other functions satisfy equation and conditions as well: {found.weakest} can change by as much as its size while "
        f"the residuals change by {1 / found.amplification:.0e} of theirs; is a condition missing, or do errors grow that much?"
    )


def _unmet(found: Evidence) -> list[str]:
    """List what is not met: the equation, or a condition that was not measured."""
    doubts = []
    if found.residual > TOLERANCE:
        doubts.append(
            f"the residual is {_percent(found.residual)} of what equation and conditions are made of: more time, or a field "
            "that resolves the solution"
        )
    if found.missed is not None and found.missed[1] > TOLERANCE:
        name, size = found.missed
        doubts.append(
            f"condition {name!r} is missed by {_percent(size)} of its data: more time, or conditions that fit together"
        )
    return doubts


def _doubts(found: Evidence) -> list[str]:
    """List what is too large though equation and conditions are met, the plainest first."""
    doubts = []
    if max(found.estimate, found.bound) > TOLERANCE and found.noise > TOLERANCE:
        doubts.append(
            f"measured values are missed by up to {_percent(found.noise)}; where that is noise, it leaves the solution open by "
            f"{_percent(max(found.estimate, found.bound))} at worst: more values, or known conditions"
        )
    if found.estimate > TOLERANCE / 2:
        doubts.append(f"the linearised problem puts the error at {_percent(found.estimate)}: more time")
    doubts += _doubts_of_pieces(found)
    if found.bound > TOLERANCE:
        doubts.append(f"its residual may hide an error of {_percent(found.bound)}: more time")
    return doubts


def _doubts_of_pieces(found: Evidence) -> list[str]:
    """List what speaks against a field that other functions cannot show, or that is put together from pieces.

    The level before has to agree with it, unless even amplified its jumps are small.
    """
    jumps = 0.0 if found.seams is None else found.seams
    if jumps > TOLERANCE:
        return [f"jumps between its pieces add up to {_percent(jumps)}: more time"]
    if found.unseen <= SEEN and jumps * max(1.0, found.amplification) <= TOLERANCE:
        return []
    if found.change is None or found.expected is None:
        return [
            "it is too fine to be checked by other functions, and no level before is there to compare with: more time"
        ]
    if found.change > TOLERANCE and found.expected > TOLERANCE / 10:
        return [
            f"it changed by {_percent(found.change)} from the level before, and the residual has not fallen enough to "
            "trust it more: more time"
        ]
    return []


def _percent(share: float) -> str:
    """Write a share as a percentage, tiny and huge ones by a power of ten."""
    value = 100 * share
    if not 1e-3 <= value < 1e4:
        return f"{value:.0e} %"
    return f"{value:.2g} %" if value < 100 else f"{value:.0f} %"
