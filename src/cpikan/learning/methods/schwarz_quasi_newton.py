"""SchwarzQuasiNewton (SPQN): L-BFGS behind a nonlinear preconditioner that minimises over one layer at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cpikan.errors import InputError, unknown_name
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.methods.line_search import Cost, trial_at, with_slope, wolfe
from cpikan.learning.methods.method import Method, State
from cpikan.learning.methods.quasi_newton import LimitedMemory, QuasiNewton
from cpikan.learning.objective import Objective
from cpikan.learning.stop_reason import StopReason

KINDS = ("additive", "multiplicative")
_HALVINGS = 10  # of the sum of all layers' moves


@dataclass(frozen=True)
class SchwarzQuasiNewton(Method):
    """Let every layer take ``local`` L-BFGS steps by itself, the others held, before each L-BFGS step of all parameters.

    ``additive`` lets all layers begin where the field is and adds up their moves, halved until the cost is not above that
    before; ``multiplicative`` takes one after the other, each seeing the moves before. The parts are layers of the network,
    not of the region. Pairs of the outer method span its own steps alone; those of a layer are forgotten. Without local steps
    it is L-BFGS. Source: Kopanicakova, Kothari, Karniadakis and Krause, SIAM J. Sci. Comput. 46 (2024), arXiv 2306.17648.
    Raises InputError for another kind and less than no local steps.
    """

    kind: str = "multiplicative"
    iterations: int = 5000
    local: int = 10
    gradient: float = 1e-14
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("Schwarz preconditioner of L-BFGS", self.kind, KINDS)
        if self.local < 0:
            raise InputError(f"{self.local} local steps of a layer: give 0 or more")
        if not self.name:
            object.__setattr__(self, "name", f"{self.kind[0]}spqn")

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Take cost and gradient at the start."""
        return self._outer.init(objective, field)

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Move the layers, then all parameters together."""
        if self.local:
            before = parameter_vector(field)
            self._precondition(objective, field)
            if not torch.equal(parameter_vector(field), before):
                state = {name: value for name, value in state.items() if name != "_now"}
        return self._outer.step(objective, field, state)

    def stop(self, state: State) -> StopReason:
        """Stop as L-BFGS does, after ``iterations`` steps of all parameters at the latest."""
        return self._outer.stop(state)

    @property
    def _outer(self) -> QuasiNewton:
        return QuasiNewton("lbfgs", self.iterations, self.gradient)

    def _precondition(self, objective: Objective, field: nn.Module) -> None:
        start, parts = parameter_vector(field), layers(field)
        before = float(objective.finite_cost(field)) if self.kind == "additive" else 0.0
        moved = torch.zeros_like(start)
        for part in parts:
            values = _minimised(_layer_cost(objective, field, part), _flat(part), self.local)
            _put(part, values)
            if self.kind == "additive":
                moved += parameter_vector(field) - start
                set_parameters(field, start)
        if self.kind == "additive":
            _add(objective, field, moved, before)


def layers(field: nn.Module) -> list[list[nn.Parameter]]:
    """Sort the parameters that train by the module that holds them, in their order."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in field.named_parameters():
        found.setdefault(name.rpartition(".")[0], []).append(parameter)
    return list(found.values())


def _add(objective: Objective, field: nn.Module, moved: Tensor, before: float) -> None:
    """Move by all layers' moves, or less of them, where that does not raise the cost."""
    start = parameter_vector(field)
    for halving in range(_HALVINGS):
        set_parameters(field, start + 0.5**halving * moved)
        with torch.no_grad():
            if float(objective.cost(field)) <= before:
                return
    set_parameters(field, start)


def _minimised(cost: Cost, start: Tensor, steps: int) -> Tensor:
    """Take L-BFGS steps from ``start``; none is above the one before."""
    now, memory = trial_at(cost, start), LimitedMemory()
    for _ in range(steps):
        size = float(now.gradient.norm())
        if not (now.finite and size > 0):
            break
        direction = -memory.times(now.gradient)
        found, _ = wolfe(cost, with_slope(now, direction), direction, 1.0 if memory.pairs else min(1.0, 1 / size))
        if found is None:
            break
        s, y = found.at - now.at, found.gradient - now.gradient
        if float(s @ y) > 1e-14 * float(s.norm() * y.norm()):
            memory.update(s, y, now.gradient, found.length)
        now = replace(found, length=0.0)
    return now.at


def _layer_cost(objective: Objective, field: nn.Module, part: list[nn.Parameter]) -> Cost:
    """Make the cost and its gradient functions of the parameters of a layer."""

    def cost(vector: Tensor) -> tuple[float, Tensor]:
        _put(part, vector)
        with torch.enable_grad():
            value = objective.cost(field)
            parts = torch.autograd.grad(value, part, allow_unused=True, materialize_grads=True)
        return float(value.detach()), torch.cat([one.flatten() for one in parts])

    return cost


def _flat(part: list[nn.Parameter]) -> Tensor:
    return torch.cat([one.detach().flatten() for one in part])


@torch.no_grad()
def _put(part: list[nn.Parameter], vector: Tensor) -> None:
    for one, values in zip(part, vector.split([one.numel() for one in part]), strict=True):
        one.copy_(values.reshape(one.shape))
