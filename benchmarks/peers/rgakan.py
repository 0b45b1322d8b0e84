"""Residual-gated adaptive KANs on the published problems: the library's network, by the pipeline of its paper and tutorial.

Six blocks of 16 nodes of degree 5 behind a sine basis of 5, walls held exactly or periods embedded, output layer started by
least squares of the initial values, Adam at 1e-3 with 1000 steps of warm-up and a decay by 0.9 every 2000, batches of 4096 from
a pool drawn anew by residuals every 2000 steps, residual-based attention, causal weights in 32 chunks, and balance of gradient
norms every 1000. Rigas et al., CMAME 452, 118761 (2026). Compiling is not timed. Navier-Stokes is not among them.
"""

from __future__ import annotations

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from jaxkan.models.RGAKAN import RGAKAN
from jaxkan.pikan.adaptive import (
    apply_rba_weights,
    get_causal_weights,
    get_colloc_indices,
    get_rad_indices,
    lr_anneal,
    update_rba_weights,
)
from jaxkan.pikan.sampling import get_collocs_grid
from torch import Tensor

from own_problems.published import PROBLEMS
from peers.clock import Clock

_BATCH, _CHUNKS, _REDRAW, _BALANCE = 4096, 32, 2000, 1000
_GAMMA, _ETA, _MIXING = 0.999, 0.01, 0.9
_STEPS = 20  # in one compiled call
_PI = math.pi
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Spec:
    """A problem in coordinates (t, x, y): ``residual(u, x)`` (n, 1), ``hold(x)`` the factor that vanishes on walls, the
    ``start`` (n, 1) where there is time, ``ranges`` with numbers of points of the pool, and rates of periodic axes."""

    residual: Callable[[Function, Any], Any]
    ranges: tuple[tuple[float, float, int], ...]
    hold: Function | None = None
    start: Function | None = None
    periods: dict[int, float] | None = None


def _d(u: Function, *axes: int) -> Function:
    """Differentiate a function of (n, d) by axes, one after the other, forwards."""
    for axis in axes:

        def u(x: Any, u: Function = u, axis: int = axis) -> Any:
            return jax.jvp(u, (x,), (jnp.zeros_like(x).at[:, axis].set(1),))[1]

    return u


def _allen_cahn(u: Function, x: Any) -> Any:
    return _d(u, 0)(x) - 1e-4 * _d(u, 1, 1)(x) - 5 * (u(x) - u(x) ** 3)


def _burgers(u: Function, x: Any) -> Any:
    return _d(u, 0)(x) + u(x) * _d(u, 1)(x) - 0.01 / _PI * _d(u, 1, 1)(x)


def _kdv(u: Function, x: Any) -> Any:
    return _d(u, 0)(x) + u(x) * _d(u, 1)(x) + 0.022**2 * _d(u, 1, 1, 1)(x)


def _sine_gordon(u: Function, x: Any) -> Any:
    return _d(u, 0, 0)(x) - _d(u, 1, 1)(x) + jnp.sin(u(x))


def _advection(u: Function, x: Any) -> Any:
    return _d(u, 0)(x) + 20 * _d(u, 1)(x)


def _waves(a: int, b: int, kappa: float) -> Callable[[Function, Any], Any]:
    def residual(u: Function, x: Any) -> Any:
        wave = jnp.sin(a * _PI * x[:, :1]) * jnp.sin(b * _PI * x[:, 1:])
        return _d(u, 0, 0)(x) + _d(u, 1, 1)(x) + kappa * u(x) - (kappa - _PI**2 * (a * a + b * b)) * wave

    return residual


def _heat(u: Function, x: Any) -> Any:
    return _d(u, 0)(x) - _d(u, 1, 1)(x) / (500 * _PI) ** 2 - _d(u, 2, 2)(x) / _PI**2


_PLANE = ((-1.0, 1.0, 400), (-1.0, 1.0, 400))
_LINE = ((0.0, 1.0, 400), (-1.0, 1.0, 400))


def _square(x: Any) -> Any:
    return (1 - x[:, :1] ** 2) * (1 - x[:, 1:] ** 2)


SPECS: dict[str, Spec] = {
    "allen-cahn": Spec(_allen_cahn, _LINE, None, lambda x: x[:, 1:] ** 2 * jnp.cos(_PI * x[:, 1:]), {1: _PI}),
    "burgers": Spec(_burgers, _LINE, lambda x: 1 - x[:, 1:] ** 2, lambda x: -jnp.sin(_PI * x[:, 1:])),
    "kdv-cosine": Spec(_kdv, _LINE, None, lambda x: jnp.cos(_PI * x[:, 1:]), {1: _PI}),
    "sine-gordon": Spec(
        _sine_gordon,
        ((0.0, 1.0, 400), (0.0, 1.0, 400)),
        lambda x: x[:, 1:] * (1 - x[:, 1:]),
        lambda x: jnp.sin(_PI * x[:, 1:]),
    ),
    "advection-20": Spec(
        _advection, ((0.0, 1.0, 400), (0.0, 2 * _PI, 400)), None, lambda x: jnp.sin(x[:, 1:]), {1: 1.0}
    ),
    "helmholtz-2d-1-4": Spec(_waves(1, 4, 1.0), _PLANE, _square),
    "poisson-2d-4-4": Spec(_waves(4, 4, 0.0), _PLANE, _square),
    "heat-two-scales": Spec(
        _heat,
        ((0.0, 1.0, 50),) * 3,
        lambda x: x[:, 1:2] * (1 - x[:, 1:2]) * x[:, 2:] * (1 - x[:, 2:]),
        lambda x: jnp.sin(20 * _PI * x[:, 1:2]) * jnp.sin(_PI * x[:, 2:]),
    ),
}


def run(name: str, seconds: float, seed: int, precision: str) -> dict[str, Any]:
    """Train in float32, as published, or in float64."""
    jax.config.update("jax_enable_x64", precision == "float64")
    if name not in SPECS:
        return {"note": "not written for this network"}
    spec, clock = SPECS[name], Clock(PROBLEMS[name](name), seconds)
    graph, variables, rest = nnx.split(_network(spec, seed), nnx.Param, ...)
    variables = jax.tree.map(lambda v: v.astype(precision), variables)
    pool = get_collocs_grid(list(spec.ranges)).astype(precision)
    begun = _begun(spec).astype(precision)

    def u_of(variables: Any) -> Function:
        network = nnx.merge(graph, variables, rest)
        return network if spec.hold is None else lambda x: spec.hold(x) * network(x)  # type: ignore[misc]

    training = _Training(spec, u_of, begun, seed)
    order = [*range(1, len(spec.ranges)), 0] if spec.start is not None else list(range(len(spec.ranges)))
    place = [order.index(axis) for axis in range(len(order))]  # of an axis of the network among ours

    def found(x: Tensor) -> Tensor:
        values = training.values(training.state[0], jnp.asarray(x.numpy()[:, place], precision))
        return torch.from_numpy(np.array(values))

    training.begin(variables, pool)
    found(clock.x[:8192])
    clock.start()
    ended = False
    while not ended:
        training.advance(clock.iterations)
        clock.iterations += _STEPS - 1
        ended = clock.tick(found)
    return clock.row() | {"parameters": sum(v.size for v in jax.tree.leaves(variables))}


def _network(spec: Spec, seed: int) -> Any:
    """Make the network; its output layer starts by least squares of the initial values, as if they stayed."""
    scheme = {"type": "glorot", "gain": None, "distribution": "uniform", "sample_size": 10000}
    periods = None if spec.periods is None else {axis: (rate, False) for axis, rate in spec.periods.items()}
    known = None
    if spec.start is not None:
        ticks = [jnp.linspace(lo, hi, 201 if len(spec.ranges) == 2 else 51) for lo, hi, _ in spec.ranges]
        grid = jnp.stack(jnp.meshgrid(jnp.zeros(1), *ticks[1:], indexing="ij"), axis=-1)
        values = spec.start(grid.reshape(-1, len(ticks))).reshape(grid.shape[:-1])
        known = dict(zip(("t", "x", "y"), ticks, strict=False)) | {"usol": values}
    return RGAKAN(
        len(spec.ranges), 1, 16, 6, D=5, init_scheme=scheme, ref=known, period_axes=periods, sine_D=5, seed=seed
    )


def _begun(spec: Spec) -> Any:
    """Place the points of the initial values: 64 per axis of space at t = 0; none where there is no time."""
    if spec.start is None:
        return jnp.zeros((0, len(spec.ranges)))
    return get_collocs_grid([(0.0, 0.0, 1), *((lo, hi, 64) for lo, hi, _ in spec.ranges[1:])])


class _Training:
    """Batches, weights per point and between terms, and the compiled functions that move them."""

    def __init__(self, spec: Spec, u_of: Callable[[Any], Function], begun: Any, seed: int) -> None:
        self.spec, self.u_of, self.begun, self.seed = spec, u_of, begun, seed
        decay = optax.exponential_decay(1e-3, 2000, 0.9)
        rate = optax.join_schedules([optax.linear_schedule(0.0, 1e-3, 1000), decay], [1000])
        self.optimizer = optax.adam(rate)
        self.earlier = jnp.triu(jnp.ones((_CHUNKS, _CHUNKS)), k=1).T
        self.values = jax.jit(lambda variables, x: u_of(variables)(x))

    def begin(self, variables: Any, pool: Any) -> None:
        """Draw the first batch and compile."""
        self.pool, self.pool_weights = pool, jnp.ones((len(pool), 1), pool.dtype)
        self.batch = get_colloc_indices(pool, _BATCH, None, self.seed)
        ones = jnp.ones((_BATCH, 1), pool.dtype), jnp.ones((len(self.begun), 1), pool.dtype)
        self.balance = (jnp.ones((), pool.dtype),) * 2
        self.state = (variables, self.optimizer.init(variables), ones)
        given = (self.state, pool[self.batch], self.balance)
        self._steps = jax.jit(self._many).lower(*given).compile()
        self._gradients = jax.jit(self._apart).lower(*given[:2]).compile()
        self._residuals = jax.jit(lambda v, x: self.spec.residual(self.u_of(v), x)).lower(variables, pool).compile()

    def advance(self, done: int) -> None:
        """Take some steps; weigh terms and draw points anew when it is their time."""
        if done and done % _BALANCE == 0 and self.spec.start is not None:
            gradients = self._gradients(self.state, self.pool[self.batch])
            self.balance = lr_anneal(gradients, self.balance, _MIXING)
        if done and done % _REDRAW == 0:
            self._redraw()
        self.state = jax.block_until_ready(self._steps(self.state, self.pool[self.batch], self.balance))

    def _redraw(self) -> None:
        variables, moments, (inner, outer) = self.state
        found = self._residuals(variables, self.pool)
        self.batch, self.pool_weights, _ = get_rad_indices(
            self.pool, found, self.batch, inner, self.pool_weights, _BATCH, 1.0, 1.0, self.seed
        )
        self.state = (variables, moments, (self.pool_weights[self.batch], outer))

    def _inside(self, variables: Any, weights: Any, x: Any) -> tuple[Any, Any]:
        """Weigh the equation per point, and by chunks of time where there is time."""
        residual = self.spec.residual(self.u_of(variables), x)
        weights = update_rba_weights(residual, weights, _GAMMA, _ETA)
        squares = apply_rba_weights(residual, weights) ** 2
        if self.spec.start is None:
            return squares.mean(), weights
        chunks = squares.reshape(_CHUNKS, -1).mean(axis=1)
        return (get_causal_weights(chunks, self.earlier.astype(x.dtype), 1.0) * chunks).mean(), weights

    def _at_start(self, variables: Any, weights: Any) -> tuple[Any, Any]:
        if self.spec.start is None:
            return jnp.zeros(()), weights
        missed = self.u_of(variables)(self.begun) - self.spec.start(self.begun)
        weights = update_rba_weights(missed, weights, _GAMMA, _ETA)
        return (apply_rba_weights(missed, weights) ** 2).mean(), weights

    def _apart(self, state: Any, x: Any) -> tuple[Any, Any]:
        """Give the gradients of both terms."""
        variables, _, (inner, outer) = state
        first = jax.grad(lambda v: self._inside(v, inner, x)[0])(variables)
        return first, jax.grad(lambda v: self._at_start(v, outer)[0])(variables)

    def _many(self, state: Any, x: Any, balance: Any) -> Any:
        """Take ``_STEPS`` steps of Adam."""

        def cost(variables: Any, inner: Any, outer: Any) -> Any:
            (one, inner), (two, outer) = self._inside(variables, inner, x), self._at_start(variables, outer)
            return balance[0] * one + balance[1] * two, (inner, outer)

        def step(_: int, state: Any) -> Any:
            variables, moments, weights = state
            (_, weights), gradient = jax.value_and_grad(cost, has_aux=True)(variables, *weights)
            change, moments = self.optimizer.update(gradient, moments)
            return optax.apply_updates(variables, change), moments, weights

        return jax.lax.fori_loop(0, _STEPS, step, state)
