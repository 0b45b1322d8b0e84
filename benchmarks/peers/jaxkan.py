"""jaxKAN: the network, the optimizer and the weights per point of its tutorials, on Sobol points that stay.

Chebyshev layers of degree 5 with 3 x 12 nodes and its Glorot-like start, Adam at 1e-3 that decays by 0.9 every 1000 steps, and
residual-based attention. Coordinates go in as they are, as there. Compiling is not timed.
"""

from __future__ import annotations

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from jaxkan.models.KAN import KAN
from jaxkan.pikan.adaptive import apply_rba_weights, update_rba_weights
from jaxkan.pikan.sampling import get_collocs_sobol
from torch import Tensor

from cpikan.physics.problem import Problem
from peers.clock import Clock
from peers.jax_equations import EQUATIONS
from peers.posed import Affine, conditions
from peers.problems import INTERIOR, problem_named, varying

_HIDDEN, _DEGREE = (12, 12, 12), 5
_GAMMA, _ETA = 0.999, 0.01  # of residual-based attention
_STEPS = 50  # in one compiled call


class _Field(nnx.Module):
    """A KAN with the unknown coefficients beside it, which begin at 1."""

    def __init__(self, one: Problem, seed: int) -> None:
        layer = {"D": _DEGREE, "flavor": "exact", "residual": None, "external_weights": False, "add_bias": True}
        layer["init_scheme"] = {"type": "glorot_fine"}
        self.network = KAN([one.dimension, *_HIDDEN, len(varying(one))], "chebyshev", layer, seed)
        self.unknown = nnx.Param(jnp.ones(len(one.constants)))


def run(name: str, seconds: float, seed: int, precision: str) -> dict[str, Any]:
    """Solve in float32, as the package does, or in float64."""
    jax.config.update("jax_enable_x64", precision == "float64")
    one = problem_named(name)
    field = _Field(one, seed)
    graph, variables, rest = nnx.split(field, nnx.Param, ...)
    variables = jax.tree.map(lambda v: v.astype(precision), variables)
    ranges = list(zip(one.region.lower, one.region.upper, strict=True))
    x = get_collocs_sobol(ranges, INTERIOR[one.dimension], seed).astype(precision)
    cost = _cost(name, one, lambda state: nnx.merge(graph, state, rest), x, conditions(one, seed))
    optimizer = optax.adam(optax.exponential_decay(1e-3, 1000, 0.9))
    count = len(EQUATIONS[name](*(jnp.ones(s) for s in _shapes(one)), x[:1]))
    state = (variables, optimizer.init(variables), jnp.ones((len(x), count), precision))
    steps = jax.jit(lambda state: jax.lax.fori_loop(0, _STEPS, lambda _, s: _step(cost, optimizer, s), state))
    compiled = steps.lower(state).compile()
    values = jax.jit(lambda variables, x: nnx.merge(graph, variables, rest).network(x))
    clock = Clock(one, seconds)
    values(state[0], jnp.asarray(clock.x[:8192].numpy(), precision))

    def found(x: Tensor) -> Tensor:
        return torch.from_numpy(np.array(values(state[0], jnp.asarray(x.numpy(), precision))))

    clock.start()
    ended = False
    while not ended:
        state = jax.block_until_ready(compiled(state))
        clock.iterations += _STEPS - 1
        ended = clock.tick(found)
    unknown = [float(v) for v in nnx.merge(graph, state[0], rest).unknown[...]]
    return clock.row(unknown) | {"parameters": sum(v.size for v in jax.tree.leaves(state[0]))}


def _step(cost: Any, optimizer: Any, state: Any) -> Any:
    """Take one step of Adam."""
    variables, moments, weights = state
    (_, weights), gradient = jax.value_and_grad(cost, has_aux=True)(variables, weights)
    change, moments = optimizer.update(gradient, moments)
    return optax.apply_updates(variables, change), moments, weights


def _cost(name: str, one: Problem, merged: Any, x: Any, sets: list[Affine]) -> Any:
    """Make the cost: weighted mean squares of the equations, and mean squares of the conditions."""
    fixed = [tuple(jnp.asarray(part.numpy(), x.dtype) for part in (a.flat, a.constant, a.value, a.slope)) for a in sets]

    def cost(variables: Any, weights: Any) -> tuple[Any, Any]:
        field = merged(variables)
        jet = _with_unknown(one, _jet(field.network, x, second=True), field.unknown[...])
        residual = jnp.stack(EQUATIONS[name](*jet, x), axis=-1)
        weights = update_rba_weights(residual, weights, _GAMMA, _ETA)
        total = (apply_rba_weights(residual, weights) ** 2).mean(axis=0).sum()
        for affine, (points, constant, value, slope) in zip(sets, fixed, strict=True):
            jet = _jet(field.network, points, second=False) if affine.sloped else (field.network(points), None, None)
            missed = constant + (value * jet[0].reshape(value.shape)).sum(axis=(0, 2))
            if affine.sloped:
                missed = missed + (slope * jet[1].reshape(slope.shape)).sum(axis=(0, 2, 3))
            total = total + (missed**2).mean()
        return total, weights

    return cost


def _jet(network: Any, x: Any, second: bool) -> tuple[Any, Any, Any]:
    """Differentiate the network forwards along each axis: value (n, o), gradient and second (n, o, d)."""
    slopes, bends = [], []
    for axis in range(x.shape[1]):
        along = jnp.zeros_like(x).at[:, axis].set(1)

        def slope(at: Any, along: Any = along) -> Any:
            return jax.jvp(network, (at,), (along,))[1]

        first, bend = jax.jvp(slope, (x,), (along,)) if second else (slope(x), None)
        slopes.append(first)
        bends.append(bend)
    return network(x), jnp.stack(slopes, axis=-1), jnp.stack(bends, axis=-1) if second else None


def _with_unknown(one: Problem, jet: tuple[Any, Any, Any], unknown: Any) -> tuple[Any, Any, Any]:
    """Append the unknown coefficients, which are the last outputs, to the values."""
    if not one.constants:
        return jet
    numbers = jnp.broadcast_to(unknown, (len(jet[0]), len(one.constants)))
    return (jnp.concatenate([jet[0], numbers], axis=1), *jet[1:])


def _shapes(one: Problem) -> list[tuple[int, ...]]:
    return [(1, one.outputs), (1, one.outputs, one.dimension), (1, one.outputs, one.dimension)]
