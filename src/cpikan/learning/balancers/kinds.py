"""Kinds of balancers by name, each made for a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cpikan.errors import unknown_name
from cpikan.learning.balancers.annealing import LearningRateAnnealing
from cpikan.learning.balancers.balancer import Balancer
from cpikan.learning.balancers.boundary_first import BoundaryFirst
from cpikan.learning.balancers.causal_weights import CausalWeights
from cpikan.learning.balancers.grad_norm import GradNorm
from cpikan.learning.balancers.kernel_traces import KernelTraces
from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.balancers.relobralo import ReLoBRaLo
from cpikan.learning.balancers.residual_attention import ResidualAttention
from cpikan.learning.balancers.self_adaptive import SelfAdaptive
from cpikan.learning.balancers.soft_adapt import SoftAdapt
from cpikan.physics.problem import Problem

BALANCERS: Mapping[str, Callable[[Problem], Balancer]] = {
    "mean-squares": lambda problem: MeanSquares(),
    "kernel-traces": lambda problem: KernelTraces(),
    "annealing": lambda problem: LearningRateAnnealing(),
    "gradnorm": lambda problem: GradNorm(),
    "relobralo": lambda problem: ReLoBRaLo(),
    "softadapt": lambda problem: SoftAdapt(),
    "boundary-first": lambda problem: BoundaryFirst(),
    "self-adaptive": lambda problem: SelfAdaptive(),
    "residual-attention": lambda problem: ResidualAttention(),
    "variational-attention": lambda problem: ResidualAttention(potential="exponential"),
    "causal": CausalWeights.along_time,
}


def balancer_named(name: str, problem: Problem) -> Balancer:
    """Make the balancer of a name for a problem; raises InputError for an unknown name, suggesting the nearest."""
    if name not in BALANCERS:
        raise unknown_name("balancer", name, BALANCERS)
    return BALANCERS[name](problem)
