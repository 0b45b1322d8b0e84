"""A solution in a notebook: its picture and key numbers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cpikan.errors import InputError
from cpikan.notebook import card

if TYPE_CHECKING:
    from cpikan.learning.solution import Solution


def solution_html(solution: Solution) -> str:
    """Write the card of a solution; one that cannot be drawn has its numbers alone."""
    metrics = solution.metrics
    rows = [("trust", f"{solution.trust}: {solution.trust_reason}")]
    if metrics.get("relative_l2") is not None:
        rows.append(("relative L2 error", f"{metrics['relative_l2']:.2e}"))
    for name, key in (("held-out residual", "heldout_residual"), ("at the boundary", "boundary_violation")):
        if metrics.get(key) is not None:
            rows.append((name, f"{metrics[key]:.2e}"))
    if metrics.get("coefficients"):
        rows.append(("coefficients", ", ".join(f"{value:.6g}" for value in metrics["coefficients"])))
    rows += [("parameters", str(metrics.get("parameters", "–"))), ("stopped", solution.stop_reason.text)]
    if solution.warnings:
        rows.append(("warnings", "; ".join(solution.warnings)))
    return card(solution.problem.name, rows, _png(solution), f"picture of the solution of {solution.problem.name}")


def _png(solution: Solution) -> bytes | None:
    try:
        figure = solution.plot()
    except InputError:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return buffer.getvalue()
