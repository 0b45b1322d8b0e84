"""Iterate: the field that a solve works on, with what it is fitted to, what it is judged by, and its best state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpikan.errors import ResumeError
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.levelled import LevelledField
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.learning.balancers.balancer import Balancer
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet, make_objective, make_terms
from cpikan.learning.panel import SOLE_JUDGE, Panel, panel_of
from cpikan.learning.samplers.sampler import Sampler
from cpikan.learning.share import Share
from cpikan.learning.shared_objective import collect, divided, undivided
from cpikan.learning.unknowns import is_linear, network_of, output_vector, set_output_vector, with_unknowns, zero_output
from cpikan.learning.violations import zero_cost
from cpikan.physics.problem import Problem
from cpikan.streaming.ranks import ALONE, Ranks

_SAME = 1e-6  # relative difference of a cost that rounding on another machine can make


@dataclass
class Iterate:
    """A field with what it is fitted to and what it is judged by, and its best state.

    ``detour`` tells that it was found by way of other problems, where the problem alone led elsewhere; ``panel`` are the
    processes that judge it together.
    """

    field: nn.Module
    objective: Objective
    heldout: Objective
    scale: float = 0.0
    best: Tensor | None = None
    best_cost: float = math.inf
    detour: bool = False
    panel: Panel = SOLE_JUDGE

    def heldout_cost(self) -> float:
        """Evaluate the cost at the held-out points, on the scale of the fitted cost."""
        return self.panel.cost(self.heldout, self.field)

    def zero_cost(self) -> float:
        """Evaluate the held-out cost of u = 0.

        Terms that are not finite there, as where u divides, are left out.
        """
        parts = isinstance(
            network_of(self.field), DecomposedField | LevelledField
        )  # which are slow, and zero without a look
        if parts or not (is_linear(self.field) or isinstance(self.field, PiecewiseChebyshev)):
            return zero_cost(self.field, self.heldout, self.panel)
        before = output_vector(self.field)
        zero_output(self.field)
        cost = self.panel.finite_cost(self.heldout, self.field)
        set_output_vector(self.field, before)
        return cost

    def known_cost(self) -> float:
        """Give the cost at the held-out points, evaluated where the field is not at its best."""
        at_best = self.best is not None and torch.equal(self.best, parameter_vector(self.field))
        return self.best_cost if at_best else self.heldout_cost()

    def relative(self) -> float:
        """Give the best held-out residual relative to that of u = 0."""
        return math.sqrt(self.best_cost / self.scale) if self.scale > 0 else 0.0

    def keep_best(self) -> float:
        """Evaluate the held-out cost, and keep the parameters if they are the best so far."""
        found = self.heldout_cost()
        if found < self.best_cost:
            self.best, self.best_cost = parameter_vector(self.field), found
        return found

    def restore_best(self) -> None:
        """Put the best state back."""
        if self.best is not None:
            set_parameters(self.field, self.best)

    def forget_best(self) -> None:
        """Look for a best state anew."""
        self.best, self.best_cost = None, math.inf

    def take(self, objective: Objective) -> None:
        """Take another objective, match the held-out weights to it, and judge the best state by these weights."""
        before, now = self.objective.per_point(), objective.per_point()
        changed = {name: now[name] / before[name] for name in now if not math.isclose(now[name], before[name])}
        self.objective = objective
        if changed:
            weights = {name: self.heldout.weights[name] * ratio for name, ratio in changed.items()}
            self.heldout = self.heldout.reweighted(weights)
            place = parameter_vector(self.field)
            self.scale = self.zero_cost()
            self.restore_best()
            self.best_cost = self.heldout_cost()
            set_parameters(self.field, place)

    def share_out(self, share: Share) -> None:
        """Share the points among processes, each of which trains its own networks from now on."""
        self.objective, self.heldout = (divided(one, self.field, share) for one in (self.objective, self.heldout))
        self.panel = SOLE_JUDGE  # objectives that are shared out put their costs together themselves

    def collect(self, share: Share) -> None:
        """Put the networks of all processes into the field, and into the best state."""
        if share.alone:
            return
        collect(self.field, share)
        if self.best is not None:
            now = parameter_vector(self.field)
            set_parameters(self.field, self.best)
            collect(self.field, share)
            self.best = parameter_vector(self.field)
            set_parameters(self.field, now)

    def unite(self, share: Share) -> None:
        """Give every process the field and the points of all."""
        self.collect(share)
        self.objective, self.heldout = undivided(self.objective), undivided(self.heldout)
        self.panel = panel_of(self.field, share.ranks)

    def state(self) -> State:
        """Give all but the terms as plain data."""
        state = {name: getattr(self, name) for name in ("scale", "best", "best_cost", "detour")}
        for name, objective in (("fitted", self.objective), ("heldout", self.heldout)):
            sets = {key: at._asdict() for key, at in objective.sets.items()}
            state[name] = {"weights": objective.weights, "sets": sets}
        return {**state, "field": self.field.state_dict()}


def placed(
    problem: Problem, network: nn.Module, sampler: Sampler, balancer: Balancer, ranks: Ranks = ALONE
) -> tuple[Iterate, dict[str, State]]:
    """Draw points for a field, which all of some processes have, and weigh the terms; gives the states of both too."""
    panel = panel_of(network, ranks)
    field = with_unknowns(network, problem.unknowns)
    sets, sampled = sampler.init(problem)
    objective = make_objective(problem, sets)
    panel.check(objective, field)
    objective, balanced = balancer.init(objective, field)
    held, _ = sampler.held_out_sampler().init(problem)
    found = Iterate(field, objective, objective.judged_at(held, make_terms(problem, fitted=False)), panel=panel)
    found.scale = found.zero_cost()
    return found, {"sampler": sampled, "balancer": balanced}


def restored(problem: Problem, network: nn.Module, state: State, ranks: Ranks = ALONE) -> Iterate:
    """Put an iterate of some processes together from its ``state``; raises ResumeError for another field or another problem."""
    field = with_unknowns(network, problem.unknowns)
    try:
        field.load_state_dict(state["field"])
    except RuntimeError as failure:
        raise ResumeError("the field is not that of the checkpoint: give one of the same shape") from failure
    objectives = []
    for name, fitted in (("fitted", True), ("heldout", False)):
        terms, kept = make_terms(problem, fitted=fitted), state[name]
        if [term.name for term in terms] != list(kept["weights"]):
            raise ResumeError("the problem's conditions are not those of the checkpoint: give the same problem")
        sets = {key: PointSet(**parts) for key, parts in kept["sets"].items()}
        objectives.append(Objective(terms, sets, kept["weights"]))
    found = Iterate(field, objectives[0], objectives[1], state["scale"], state["best"], state["best_cost"])
    found.detour, found.panel = state.get("detour", False), panel_of(field, ranks)
    if found.best is not None:
        now = parameter_vector(field)
        found.restore_best()
        cost = found.heldout_cost()
        set_parameters(field, now)
        if not abs(cost - found.best_cost) <= _SAME * found.best_cost + 1e-9 * _SAME * found.scale:
            raise ResumeError(
                f"the residuals of {problem.name} are not those of the checkpoint (cost {cost:.3e} where "
                f"{found.best_cost:.3e} was written): give the same problem"
            )
    return found
