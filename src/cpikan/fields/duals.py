"""Duals: tensors with tangents of forward mode, cut off from the graph that reverse mode keeps."""

from __future__ import annotations

from torch import Tensor
from torch.autograd import forward_ad


def cut(tensor: Tensor) -> Tensor:
    """Cut a tensor off what it was computed from; its tangent, which ``detach`` would drop, stays."""
    primal, tangent = forward_ad.unpack_dual(tensor)
    if tangent is None:
        return tensor.detach()
    return forward_ad.make_dual(primal.detach(), tangent.detach())
