"""JetTape: the jet of a field with what turns residuals of the jet into rows of a Jacobian, in one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.layer import Layer, Tape
from cpikan.fields.layered import LayeredField
from cpikan.fields.protocol import Jet, Second
from cpikan.fields.streams import Streams, side_by_side


class JetTape:
    """The jet of a single layered field at points (B, d), and its layers' bases.

    A layer is z = basis W + b on every stream (value and derivatives), so that the row of a point is
    dr/dW = sum over streams of basis^T dr/dz: one pass back for all points at once, since a point's residual is its own,
    and one batched product per layer. Nothing is differentiated through a function of one point. Raises InputError for a
    field that it does not take.
    """

    def __init__(self, field: LayeredField, x: Tensor, second: Second = "axes") -> None:
        if not self.takes(field):
            raise InputError(
                f"tape of a {type(field).__name__}: give a single field whose parameters are of its layers"
            )
        self._tapes: dict[Layer, Tape] = {}
        # the order of ``parameter_vector``; layers without parameters are passed through and have no columns
        self._layers = [
            one for one in field.modules() if isinstance(one, Layer) and any(True for _ in one.parameters())
        ]
        self._last = field.output_layer
        self._features: Jet | None = None
        with torch.enable_grad():
            streams, self._batch = field.start_streams(x, second)
            self.jet: Jet = field.through(streams, self._record).jet(self._batch)

    def features(self) -> Jet:
        """Return what the output is linear in, as ``LayeredField.features_jet``; with no graph."""
        with torch.no_grad():
            if self._features is None:
                basis = self._last.basis_streams(self._entry)
                one = basis.constant(torch.ones_like(basis.value[..., 0, :, :1]))
                self._features = side_by_side([one, basis]).jet(self._batch)
            return self._features

    def renew(self) -> None:
        """Evaluate the output layer anew, with the coefficients that it has now."""
        with torch.enable_grad():
            self.jet = self._record(self._last, self._entry).jet(self._batch)

    @staticmethod
    def takes(field: nn.Module) -> bool:
        """Tell whether a field is a single one whose parameters are all those of its layers."""
        if not isinstance(field, LayeredField) or field.networks is not None:
            return False
        return sum(1 for _ in field.parameters()) == sum(
            1 for layer in field.modules() if isinstance(layer, Layer) for _ in layer.parameters(recurse=False)
        )

    def rows(self, residual: Tensor, *, last_only: bool = False) -> Tensor:
        """Compute dr/dparameters (B, P) of residuals (B,) made from ``jet``, in the order of ``parameter_vector``.

        ``last_only`` gives the columns of the output layer's weights and constants alone.
        """
        layers = [self._last] if last_only else self._layers
        by = [tensor for layer in layers for tensor in self._tapes[layer].by]
        if residual.requires_grad:
            total = residual.sum()
            found = torch.autograd.grad(total, by, retain_graph=True, allow_unused=True, materialize_grads=True)
        else:  # a function of the point alone
            found = tuple(torch.zeros_like(tensor) for tensor in by)
        answers = iter(found)
        columns = [tape.columns([next(answers) for _ in tape.by]) for tape in (self._tapes[one] for one in layers)]
        if last_only:
            return columns[0][:, : self._last.weight.numel() + self._last.bias.numel()]
        return torch.cat(columns, dim=-1)

    def _record(self, layer: Layer, x: Streams) -> Streams:
        """Pass streams through a layer, keeping what a residual is differentiated by."""
        if layer is self._last:
            self._entry = x
        if layer not in self._layers:
            return layer.streams(x)
        z, self._tapes[layer] = layer.taped(x)
        return z
