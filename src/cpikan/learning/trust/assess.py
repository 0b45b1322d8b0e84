"""assess: the verdict on a solution, whatever happens on the way to it."""

from __future__ import annotations

from collections.abc import Sequence

from cpikan.learning.iterate import Iterate
from cpikan.learning.trust.coefficients import Coefficients
from cpikan.learning.trust.evidence import gather
from cpikan.learning.trust.levels import Level
from cpikan.learning.trust.verdict import Trust, judge
from cpikan.learning.violations import Violation
from cpikan.physics.problem import Problem


def assess(
    problem: Problem, iterate: Iterate, levels: Sequence[Level], missed: Sequence[Violation]
) -> tuple[Trust, Coefficients | None]:
    """Gather evidence on a solution and judge it; the coefficients' errors where there are some.

    A check that cannot be done (residuals without derivatives, a singular factor) costs the verdict, not the solution.
    """
    try:
        evidence, known = gather(problem, iterate, levels, missed)
    except RuntimeError as failure:  # of torch, torch.linalg.LinAlgError among them
        reason = str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
        return Trust("undetermined", f"the solution could not be checked: {reason}"), None
    return judge(evidence), known
