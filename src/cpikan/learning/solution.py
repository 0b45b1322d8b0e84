"""Solution: the field that a solve found, with what is known of it, and its two files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError, check_path
from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.files import load_field, save_field
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.learning.history import History, StageEnd
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.trust.verdict import Word
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem
from cpikan.storage.atomic import write_json
from cpikan.storage.documents import parse_json
from cpikan.storage.formats import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = 1


@dataclass(frozen=True)
class Solution:
    """The field that was found, what happened on the way, why it ended, and figures of merit.

    ``metrics`` has relative_l2 (the largest over outputs) and max_error against the reference (None without one), seconds,
    iterations, collocation_points, parameters, heldout_residual (root mean square of the equation at points not fitted),
    heldout_relative (of equation and conditions, relative to that of u = 0), boundary_violation (largest residual of a
    condition), conditions (of each its name, its violation in its own units, and that relative to its data),
    steps_per_second, coefficients of an inverse problem with their standard_errors, and of a network of two hidden layers
    and more that the recipe drew whether it was trained (`cpikan.learning.trained`). ``trust`` says whether to believe it
    ("converged", "not converged", "undetermined"), ``trust_reason`` why.
    """

    problem: Problem
    field: nn.Module
    history: History
    stop_reason: StopReason
    metrics: dict[str, Any]
    seed: int
    trust: Word
    trust_reason: str
    recipe_used: str
    warnings: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Flatten the solution to one record, as the command line prints it."""
        reason = self.stop_reason
        return {
            "problem": self.problem.name,
            **self.metrics,
            "stop_reason": reason.name.lower(),
            "seed": self.seed,
            "trust": self.trust,
            "trust_reason": self.trust_reason,
            "recipe_used": self.recipe_used,
        }

    def _repr_html_(self) -> str:
        """Show the picture and key numbers in a notebook."""
        from cpikan.learning.solution_html import solution_html

        return solution_html(self)

    def __call__(self, x: Tensor | np.ndarray | float | list[Any]) -> Any:
        """Evaluate the solution.

        Arguments:
            x: points (..., d) as an array or a tensor; for a problem in one dimension also a number, or (n,).

        Returns:
            Values (..., outputs), a tensor for a tensor and else an array.

        Raises:
            InputError: for points of other axes than the problem's.
        """
        points = torch.as_tensor(np.asarray(x, float) if not isinstance(x, Tensor) else x.double())
        axes = self.problem.dimension
        if axes == 1 and points.shape[-1:] != (1,):
            points = points[..., None]
        if points.shape[-1:] != (axes,):
            raise InputError(f"points of shape {tuple(np.shape(x))} for {self.problem.name}: give (..., {axes})")
        with torch.no_grad():
            found = self.field(points.reshape(-1, axes)).reshape(*points.shape[:-1], -1)
        return found if isinstance(x, Tensor) else found.numpy()

    def plot(self, path: Path | str | None = None, *, output: int = 0, at: Mapping[str, float] | None = None) -> Figure:
        """Draw the solution, its error where a reference is known, the equation's residual and the history.

        Arguments:
            path: also writes the picture there, as .png, .svg or .pdf.
            output: which output is shown.
            at: where axes are cut, by name; two that are not named are shown, others are cut in the middle.

        Returns:
            A Matplotlib figure.

        Raises:
            InputError: for an output or an axis that is not there, a cut outside the region, another ending of the path.
        """
        from cpikan.learning.solution_figure import (
            solution_figure,
        )  # Matplotlib: who draws nothing must not wait for it

        place = None if path is None else picture(path)
        figure = solution_figure(self, output, at)
        if place is not None:
            figure.savefig(place, dpi=130)
        return figure

    def save(self, path: Path | str) -> Path:
        """Write NAME.safetensors, the field, and NAME.json, what is known of it; ``path`` is NAME, with either ending or none.

        Returns the path of the JSON. Raises InputError for a field that has no file form, StorageFull when the disk is full.
        """
        weights, document = _paths(path)
        constrained = isinstance(self.field, ConstrainedField)
        field = self.field.network if isinstance(self.field, ConstrainedField) else self.field
        save_field(field.bare() if isinstance(field, MappedCPIKAN) else field, weights)
        known = {
            "format": _FORMAT,
            "problem": self.problem.name,
            "exact_values": constrained,
            "embedded": isinstance(self.field, ConstrainedField) and self.field.ansatz.embedded,
            "symmetric": isinstance(self.field, ConstrainedField) and bool(self.field.ansatz.parity),
            "free_axes": list(self.field.ansatz.free) if isinstance(self.field, ConstrainedField) else [],
            "metrics": self.metrics,
            "stop_reason": int(self.stop_reason),
            "seed": self.seed,
            "trust": [self.trust, self.trust_reason],
            "recipe_used": self.recipe_used,
            "warnings": list(self.warnings),
            "records": self.history.records,
            "ends": [{**asdict(end), "reason": int(end.reason)} for end in self.history.ends],
        }
        write_json(document, known)
        return document


def load_solution(path: Path | str, problem: Problem | str | None = None, module: nn.Module | None = None) -> Solution:
    """Read a solution that ``Solution.save`` wrote.

    Arguments:
        path: NAME, with the ending of either file or none.
        problem: the problem that it solves; None takes the one of that name from the catalogue.
        module: for a solution of a `ModuleField`, a torch module of the same layers, whose parameters are replaced.

    Returns:
        The solution, which has the values of the one that was saved to the last bit.

    Raises:
        InputError: for files that are missing or damaged, and for another problem.
    """
    check_path("the solution", path)
    weights, document = _paths(path)
    if not document.is_file():
        raise InputError(f"no file {document}: give the name that a solution was saved by")
    try:
        known = parse_json(document.read_bytes())
        number, name = known["format"], known["problem"]
        ends = [StageEnd(**{**e, "reason": StopReason(e["reason"])}) for e in known["ends"]]
        rest = (known["metrics"], known["seed"], *known["trust"], known["recipe_used"], tuple(known["warnings"]))
        history, reason = History(known["records"], ends), StopReason(known["stop_reason"])
        exact = bool(known["exact_values"])
        symmetric, free = bool(known.get("symmetric", False)), tuple(known.get("free_axes", ()))
        ways = (bool(known["embedded"]),) if "embedded" in known else (True, False)  # old files do not tell
    except (KeyError, TypeError, ValueError) as failure:
        raise InputError(f"{document} describes no solution ({failure!r}): save it again") from failure
    if number != _FORMAT:
        raise InputError(f"{document} holds a solution of format {number}, not {_FORMAT}: save it again")
    posed = problem_named(name if problem is None else problem) if not isinstance(problem, Problem) else problem
    if posed.name != name:
        raise InputError(f"{document} is a solution of {name!r}, not of {posed.name!r}: give its own problem")
    field: nn.Module = load_field(weights, module)
    if exact:
        field = _behind(field, posed, (ways, symmetric, free), str(document))
    return Solution(posed, field, history, reason, *rest)


def _behind(
    network: Any, posed: Problem, made: tuple[Sequence[bool], bool, Sequence[int]], document: str
) -> ConstrainedField:
    """Put a network behind the form that holds the conditions of a problem; raises InputError where it has none like that.

    ``made`` gives the ways to try, embedded or not, whether it is symmetric, and the axes at whose ends nothing is held.
    """
    for embedded in made[0]:
        ansatz = with_exact_conditions(posed, embedded=embedded, symmetric=made[1], free=made[2])[1]
        functions = posed.dimension if ansatz is None or ansatz.point_map is None else len(ansatz.point_map.lower)
        if ansatz is not None and network.dimension == functions:
            inner = network if ansatz.point_map is None else MappedCPIKAN.around(network, ansatz.point_map)
            return ConstrainedField(inner, ansatz)
    raise InputError(f"{document} holds conditions that this problem {posed.name!r} has not: give its own problem")


def _paths(path: Path | str) -> tuple[Path, Path]:
    """Name the two files; only their own endings are cut off."""
    path = Path(path)
    name = path.name.removesuffix(".safetensors").removesuffix(".json")
    return path.with_name(name + ".safetensors"), path.with_name(name + ".json")
