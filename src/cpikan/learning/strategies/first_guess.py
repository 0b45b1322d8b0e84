"""First guesses: where Gauss-Newton begins in a nonlinear problem, for which zero may be a place that it never leaves."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.objective import Objective
from cpikan.learning.qr_equations import StackedQR
from cpikan.learning.runner import Runner
from cpikan.learning.unknowns import network_of, output_vector, outputs_of, set_output_vector, unknowns_of

_ENOUGH = 1e-3  # relative held-out residual: zero was a start as good as any
_BETTER = 0.5  # another start has to get so much lower than zero
_SMOOTH = 1e-2  # damping of what only meets the conditions
_DRAWS = 2


def solve_last_layer(run: Runner, first: bool) -> float:
    """Solve for the last layer from where the field is; with ``first``, from further guesses where that does not get far.

    The guesses: a smooth function that meets the conditions and the data, with the unknown coefficients that fit it best;
    the same where outputs that no condition binds are one; coefficients drawn at random. The best stays. Gives the seconds
    from the first start alone: what a level without guesses would have taken.
    """
    begun = run.seconds
    run.minimise(LastLayer())
    took, field, iterate = run.seconds - begun, run.iterate.field, run.iterate
    if not first or iterate.relative() <= _ENOUGH or iterate.objective.affine(outputs_of(field)):
        return took
    best, lowest = output_vector(field), iterate.best_cost
    for guess in _guesses(run):
        if run.left_s <= 0:
            break
        iterate.forget_best()
        set_output_vector(field, guess)
        run.minimise(LastLayer())
        if iterate.best_cost < _BETTER * lowest:
            best, lowest = output_vector(field), iterate.best_cost
    set_output_vector(field, best)
    iterate.forget_best()
    run.keep_best()
    return took


def _guesses(run: Runner) -> Iterator[Tensor]:
    """Make vectors of output coefficients and unknowns to begin from."""
    field, objective = run.iterate.field, run.iterate.objective
    conditions = objective.only(*(term.name for term in objective.terms if not term.inside))
    if not conditions.terms:
        return
    start = output_vector(field)
    shape = network_of(field).output_coefficients().shape
    count = shape.numel()
    start[:count] = 0.0
    set_output_vector(field, start)
    system = conditions.linearise(field, "output")
    lifted = start.clone()
    lifted[:count] = StackedQR.of(system.jacobian[:, :count], _SMOOTH).solve(-system.residuals)
    yield _with_unknowns(objective, field, lifted)
    bound = system.jacobian[:, :count].reshape(-1, *shape).abs().amax(dim=(0, 1)) > 0
    if not bool(bound.all()):
        ones = lifted.clone()
        ones[:count].view(shape)[0, ~bound] = 1.0
        yield _with_unknowns(objective, field, ones)
    size = float(lifted[:count].norm()) or 1.0
    for number in range(_DRAWS):
        generator = torch.Generator().manual_seed(run.seed + 7919 * (number + 1))
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        drawn = lifted.clone()
        drawn[:count] += noise * size / noise.norm()
        yield _with_unknowns(objective, field, drawn)


def _with_unknowns(objective: Objective, field: nn.Module, vector: Tensor) -> Tensor:
    """Solve for the unknowns alone, the field as it is."""
    unknowns = unknowns_of(field)
    if unknowns is None:
        return vector
    set_output_vector(field, vector)
    system = objective.linearise(field, "output")
    step = StackedQR.of(system.jacobian[:, -len(unknowns) :], 1e-8).solve(-system.residuals)
    found = vector.clone()
    if bool(torch.isfinite(step).all()):
        found[-len(unknowns) :] += step
    return found
