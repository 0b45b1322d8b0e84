"""Evidence: what can be found out about a solution after the solve, in a small share of its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpikan.learning.iterate import Iterate
from cpikan.learning.trust.coefficients import Coefficients, coefficients
from cpikan.learning.trust.levels import Level, probes
from cpikan.learning.trust.linearised import factored, fixed_outputs, linearised, reach
from cpikan.learning.trust.seams import seams
from cpikan.learning.trust.verdict import Evidence
from cpikan.learning.violations import Violation
from cpikan.physics.problem import Problem

_SMALLEST = 1e-3  # of the largest output: what others are measured by at least


def gather(
    problem: Problem, iterate: Iterate, levels: Sequence[Level], missed: Sequence[Violation]
) -> tuple[Evidence, Coefficients | None]:
    """Look at a solution by what the solve did not use; ``missed`` are its conditions' violations.

    Gives the standard errors of unknown coefficients too, None where there are none or nothing to linearise about.
    """
    test = probes(problem)
    values = _values(iterate.field, test)
    fixed = fixed_outputs(problem, iterate.field)
    varying = [o for o in range(values.shape[1]) if o not in fixed]
    sizes = values.square().mean(dim=0).sqrt()
    largest = sizes[varying].max()
    system = linearised(problem, iterate, test)
    data = [name for name, one in zip(problem.condition_names, problem.conditions, strict=True) if one.data is not None]
    worst = max((one for one in missed if one.name not in data), key=lambda one: one.relative, default=None)
    found: dict[str, Any] = {
        "size": float(largest),
        "residual": system.relative(data),
        "noise": max((one.relative for one in missed if one.name in data), default=0.0),
        "missed": None if worst is None else (worst.name, worst.relative),
        "detour": iterate.detour,
    }
    if not float(largest) > 0 or not system.finite:
        return Evidence(**found), None
    unit = torch.maximum(sizes, _SMALLEST * largest)
    unit[fixed] = torch.inf  # coefficients are judged by their standard errors
    system = system.lighter(data)
    factors = factored(system, fixed)
    reached = reach(system, factors, unit)
    error = reached.error.square().mean(dim=0).sqrt()[varying] / sizes[varying].clamp_min(1e-6 * largest)
    found |= {
        "estimate": float(error.max()),
        "bound": reached.amplification * float(system.panel.norm(system.residuals)),
        "amplification": reached.amplification * system.scale,
        "weakest": _place(problem, test, reached.weakest[:, varying], varying),
        "unseen": system.unseen,
        "seams": seams(problem.region, iterate.field, unit[varying]),
    }
    change = _last_change(values[:, varying] / unit[varying], unit[varying], varying, levels)
    if change is not None:
        found["change"], before = change
        found["expected"] = found["change"] * min(1.0, iterate.relative() / max(before, 1e-300))
    known = coefficients(problem, iterate.field, system, factors) if fixed else None
    return Evidence(**found, open="" if known is None else known.open), known


def _values(field: Any, x: Tensor) -> Tensor:
    """Evaluate all outputs with the unknowns among them, (n, outputs)."""
    with torch.no_grad():
        found: Tensor = field.jet(x, "none").value
    return found


def _place(problem: Problem, test: Tensor, weakest: Tensor, varying: Sequence[int]) -> str:
    """Describe where a correction is largest: the output, and the point."""
    point, output = divmod(int(weakest.abs().argmax()), len(varying))
    axes = getattr(problem.region, "axes", ("x", "y", "z")[: problem.dimension])
    at = ", ".join(f"{axis} = {value:.2g}" for axis, value in zip(axes, test[point].tolist(), strict=False))
    return ("the solution" if len(varying) == 1 else f"output {varying[output]}") + f" near {at}"


def _last_change(
    values: Tensor, unit: Tensor, varying: Sequence[int], levels: Sequence[Level]
) -> tuple[float, float] | None:
    """Compute the relative change from the last level that was another field, and that level's residual."""
    for level in reversed(levels):
        change = float((level.values[:, varying] / unit - values).square().mean(dim=0).sqrt().max())
        if change > 0:
            return change, level.relative
    return None
