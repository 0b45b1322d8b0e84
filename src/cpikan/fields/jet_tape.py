"""JetTape: the jet of a Scaled-cPIKAN with what turns residuals of the jet into rows of a Jacobian, in one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet, Second
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.streams import start


class JetTape:
    """The jet of a single field at points (B, d), and its layers' bases.

    A layer is z = basis W + b on every stream (value and derivatives), so that the row of a point is
    dr/dW = sum over streams of basis^T dr/dz: one pass back for all points at once, since a point's residual is its own,
    and one batched product per layer. Nothing is differentiated through a function of one point.
    """

    def __init__(self, field: ScaledCPIKAN, x: Tensor, second: Second = "axes") -> None:
        self._bases: list[Tensor] = []
        self._sums: list[Tensor] = []
        with torch.enable_grad():
            streams = start(field.scaling(x), field.scaling.slopes(), second)
            for number, layer in enumerate(field.chebyshev_layers()):
                if number:
                    t = torch.tanh(streams.value)
                    t1 = 1 - t * t
                    streams = streams.through(t, t1, -2 * t * t1)
                basis = layer.basis_streams(streams).join()
                z = basis @ layer.weight.detach()
                z = torch.cat([z[:1] + layer.bias.detach(), z[1:]])
                if not z.requires_grad:
                    z.requires_grad_()
                self._bases.append(basis.detach())
                self._sums.append(z)
                streams = streams.split(z)
            self.jet: Jet = streams.jet((len(x),))

    def rows(self, residual: Tensor, *, last_only: bool = False) -> Tensor:
        """dr/dparameters (B, P) of residuals (B,) made from ``jet``, in the order of ``parameter_vector``.

        ``last_only`` gives the columns of the last layer alone.
        """
        chosen = slice(-1, None) if last_only else slice(None)
        pushes = torch.autograd.grad(
            residual.sum(), self._sums[chosen], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        columns = []
        for basis, push in zip(self._bases[chosen], pushes, strict=True):
            weight = torch.einsum("sbk,sbo->bko", basis, push)
            columns += [weight.flatten(1), push[0]]
        return torch.cat(columns, dim=-1)
