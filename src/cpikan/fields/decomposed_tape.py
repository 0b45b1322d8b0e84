"""DecomposedTape: the jet of a field of subdomains with the rows of a Jacobian, each point with networks of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from cpikan.fields.cover import Group
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.protocol import Jet, Second


class DecomposedTape:
    """The jet of a `DecomposedField` at points (B, d), as a function of a copy of the networks that hold each point.

    A point's residual depends on its own copies alone, so one pass back gives the rows of all points, and only the boxes that
    hold a point are asked: what a loop over residuals takes B passes through all networks for.
    """

    def __init__(self, field: DecomposedField, x: Tensor, second: Second = "axes") -> None:
        self._points, covered = len(x), field.cover(x)
        self._shapes = [parameter.shape for parameter in field.parts.parameters()]
        self._groups: list[tuple[Group, list[Tensor]]] = []

        def copied(group: Group, points: Tensor, second: Second) -> Jet:
            places = group.index.shape[1]
            tensors = {name: one.detach().repeat_interleave(places, 0) for name, one in field.tensors(group).items()}
            copies = [tensors[name].requires_grad_() for name, _ in field.parts.named_parameters()]
            self._groups.append((group, copies))
            jet = field.parts_jet(tensors, points.flatten(0, 1)[:, None], second=second)
            return Jet(*(part.reshape(*group.index.shape, *part.shape[2:]) for part in jet))

        with torch.enable_grad():
            self.jet = field.jet_through(copied, x, second, covered)

    def rows(self, residual: Tensor) -> Tensor:
        """Compute dr/dparameters (B, P) of residuals (B,) made from ``jet``, in the order of ``parameter_vector``."""
        blocks = [residual.new_zeros(self._points, shape[0], shape[1:].numel()) for shape in self._shapes]
        if residual.requires_grad:
            copies = [one for _, some in self._groups for one in some]
            found = iter(
                torch.autograd.grad(
                    residual.sum(), copies, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            )
            for group, some in self._groups:
                place = (group.index.flatten(), group.boxes.repeat_interleave(group.index.shape[1]))
                for block, _ in zip(blocks, some, strict=True):
                    # places that are left over repeat a point under a window of zero: they add nothing
                    block.index_put_(place, next(found).flatten(1), accumulate=True)
        return torch.cat([block.flatten(1) for block in blocks], dim=1)
