"""PINA: its physics-informed solver and trainer, its default network (2 x 20 tanh), Adam for half the time, then L-BFGS."""

from __future__ import annotations

import logging
import warnings
from typing import Any, ClassVar

import lightning.pytorch
import torch
from pina import Condition, LabelTensor, Trainer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import grad
from pina.optim import TorchOptimizer
from pina.problem import InverseProblem, SpatialProblem
from pina.solver import PhysicsInformedSingleModelSolver
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem
from peers.clock import Clock
from peers.posed import Affine, conditions, residuals
from peers.problems import INTERIOR, problem_named, varying

_UNKNOWN = (0.0, 2.0)  # where an unknown coefficient begins, drawn by the package


def run(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Solve in float64; with an unknown coefficient by Adam alone, since its L-BFGS refuses a second group of parameters."""
    _quiet()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    one = problem_named(name)
    posed = _posed(one, seed)
    model = FeedForward(one.dimension, len(varying(one)))
    clock = Clock(one, seconds)
    share = 1.0 if one.constants else 0.5
    stages = [(None, share), (TorchOptimizer(torch.optim.LBFGS, lr=1.0, line_search_fn="strong_wolfe"), 1.0)]
    for optimizer, part in stages[: 1 if one.constants else 2]:
        solver = PhysicsInformedSingleModelSolver(problem=posed, model=model, optimizer=optimizer)
        _trainer(solver, _Stop(clock, model, part * seconds)).train()
    clock.look(lambda x: model(x))
    unknown = list(posed.unknown_parameters.values()) if one.constants else []
    count = sum(p.numel() for p in model.parameters()) + len(unknown)
    return clock.row([float(v) for v in unknown]) | {"parameters": count}


class _Stop(lightning.pytorch.Callback):
    """Counts steps and stops at a time."""

    def __init__(self, clock: Clock, model: Any, end_s: float) -> None:
        self.clock, self.model, self.end_s = clock, model, end_s

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = self.clock.tick(lambda x: self.model(x)) or self.clock.seconds > self.end_s


def _trainer(solver: Any, stop: _Stop) -> Any:
    """Make a trainer of all points at once, in the order in which conditions have them."""
    quiet = {
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "logger": False,
        "enable_model_summary": False,
    }
    return Trainer(
        solver, max_epochs=-1, accelerator="cpu", precision="64-true", shuffle=False, callbacks=[stop], **quiet
    )


def _posed(one: Problem, seed: int) -> Any:
    """Pose the problem: equations inside, conditions at points of their own."""
    axes, names = list(one.region.axes), [f"u{o}" for o in varying(one)]  # type: ignore[attr-defined]
    inside = CartesianDomain({a: [lo, hi] for a, lo, hi in zip(axes, one.region.lower, one.region.upper, strict=True)})
    sets = {f"c{n}": _condition(affine, axes, names) for n, affine in enumerate(conditions(one, seed))}
    kinds = (SpatialProblem, InverseProblem) if one.constants else (SpatialProblem,)

    def equation(x: Any, u: Any, unknown: Any = None) -> Tensor:
        found = _jet(u, x, names, axes, second=True)
        return residuals(one, found, x.as_subclass(Tensor), list((unknown or {}).values()))

    given = equation if one.constants else lambda x, u: equation(x, u)

    class Posed(*kinds):  # type: ignore[misc]
        output_variables = names
        spatial_domain = inside
        domains: ClassVar = {"inside": inside}
        conditions: ClassVar = {"equation": Condition(domain="inside", equation=Equation(given)), **sets}

        @property
        def unknown_parameter_domain(self) -> Any:
            return CartesianDomain({f"k{o}": list(_UNKNOWN) for o in one.constants})

    posed = Posed()
    posed.discretise_domain(n=INTERIOR[one.dimension], mode="random", domains="inside")
    return posed


def _condition(affine: Affine, axes: list[str], names: list[str]) -> Any:
    def missed(x: Any, u: Any) -> Tensor:
        jet = _jet(u, x, names, axes, second=False) if affine.sloped else None
        return affine.missed(u.as_subclass(Tensor), jet.gradient if jet else None)[:, None]

    return Condition(input=LabelTensor(affine.flat, axes), equation=Equation(missed))


def _jet(u: Any, x: Any, names: list[str], axes: list[str], second: bool) -> Jet:
    """Differentiate by the package's own operator."""
    first = [grad(u, x, components=[name], d=axes) for name in names]
    gradient = torch.stack([part.as_subclass(Tensor) for part in first], dim=1)
    if not second:
        return Jet(u.as_subclass(Tensor), gradient, gradient)
    rows = [
        [grad(part, x, components=[f"d{n}d{a}"], d=[a]) for a in axes] for n, part in zip(names, first, strict=True)
    ]
    bends = [torch.cat([part.as_subclass(Tensor) for part in row], dim=1) for row in rows]
    return Jet(u.as_subclass(Tensor), gradient, torch.stack(bends, dim=1))


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
