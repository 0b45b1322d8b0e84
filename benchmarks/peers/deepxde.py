"""DeepXDE: 3 tanh layers of 50 nodes, Adam at 1e-3 for half the time, then L-BFGS, on points that stay."""

from __future__ import annotations

import os

os.environ.setdefault("DDE_BACKEND", "pytorch")

from typing import Any

import deepxde as dde
import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from peers.clock import Clock
from peers.posed import Affine, conditions, residuals
from peers.problems import INTERIOR, problem_named, varying


class _AffineBC(dde.icbc.PointSetOperatorBC):  # type: ignore[misc]
    """A condition at points of its own."""

    def __init__(self, affine: Affine) -> None:
        count = len(affine.constant)
        super().__init__(affine.flat.numpy(), np.zeros((len(affine.flat), 1)), lambda *_: None)
        self.affine, self.count = affine, count

    def error(self, X: Any, inputs: Tensor, outputs: Tensor, beg: int, end: int, aux_var: Any = None) -> Tensor:
        gradient = _gradient(inputs, outputs)[beg:end] if self.affine.sloped else None
        return self.affine.missed(outputs[beg:end], gradient)[:, None]


def _gradient(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([dde.grad.jacobian(y, x, i=o) for o in range(y.shape[1])], dim=1)


def run(name: str, seconds: float, seed: int, precision: str) -> dict[str, Any]:
    """Solve with DeepXDE's usual network and its two optimizers; an unknown coefficient begins at 1."""
    dde.config.set_default_float(precision)
    dde.config.set_random_seed(seed)
    one = problem_named(name)
    count, outputs = one.dimension, len(varying(one))
    kinds = {1: lambda a, b: dde.geometry.Interval(a[0], b[0]), 2: dde.geometry.Rectangle, 3: dde.geometry.Cuboid}
    geometry = kinds[count](list(one.region.lower), list(one.region.upper))
    unknown = [dde.Variable(1.0) for _ in one.constants]

    def equation(x: Tensor, y: Tensor) -> list[Tensor]:
        rows = [[dde.grad.hessian(y, x, component=o, i=j, j=j) for j in range(count)] for o in range(outputs)]
        second = torch.stack([torch.cat(row, dim=1) for row in rows], dim=1)
        found = residuals(one, Jet(y, _gradient(x, y), second), x, unknown).to(y.dtype)
        return list(found.split(1, dim=1))

    sets = [_AffineBC(affine) for affine in conditions(one, seed)]
    data = dde.data.PDE(geometry, equation, sets, num_domain=INTERIOR[count])
    model = dde.Model(data, dde.nn.FNN([count, 50, 50, 50, outputs], "tanh", "Glorot normal"))
    model.compile("adam", lr=1e-3, verbose=0, external_trainable_variables=unknown or None)
    clock = Clock(one, seconds)

    def values(x: Tensor) -> Tensor:
        return torch.as_tensor(model.predict(x.numpy()))

    class Stop(dde.callbacks.Callback):  # type: ignore[misc]
        def __init__(self, end_s: float) -> None:
            super().__init__()
            self.end_s = end_s

        def on_epoch_end(self) -> None:
            self.model.stop_training = clock.tick(values) or clock.seconds > self.end_s

    model.train(iterations=10**9, display_every=10**9, callbacks=[Stop(0.5 * seconds)], verbose=0)
    dde.optimizers.set_LBFGS_options(maxcor=100, ftol=0, gtol=1e-12, maxiter=10**6, maxls=50)
    dde.optimizers.LBFGS_options["iter_per_step"] = 20
    dde.optimizers.LBFGS_options["fun_per_step"] = 25
    model.compile("L-BFGS", verbose=0, external_trainable_variables=unknown or None)
    model.train(display_every=10**9, callbacks=[Stop(seconds)], verbose=0)
    clock.look(values)
    note = "" if clock.seconds > 0.95 * seconds else "L-BFGS ended by itself"
    found = clock.row([float(v) for v in unknown])
    return found | {"parameters": sum(p.numel() for p in model.net.parameters()) + len(unknown), "note": note}
