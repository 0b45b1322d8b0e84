"""Fused jets: Chebyshev layers with tanh between them as one function, chunk by chunk, with its own backward pass.

Only the sums z of every layer are kept; the basis T, T' and T'' of a chunk of points is made anew on the way back, where
it and all that follows from it stay in the processor's cache. A function f of nodes, with streams u, u_a and u_p (p a
second derivative, q_p the product of first ones that goes with it), gives f, f' u_a and f'' q_p + f' u_p; a cost that
answers to them with P, P_a and P_p answers with

    u:    f' P + f'' (sum u_a P_a + sum u_p P_p) + f''' sum q_p P_p
    u_a:  f' P_a + f'' sum over p of P_p dq_p/du_a
    u_p:  f' P_p

which serves the Chebyshev polynomials (summed over degrees) and tanh alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from cpikan.fields.activations import TANH
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import chain_streams
from cpikan.fields.protocol import Second
from cpikan.fields.streams import Streams

CHUNK = 256  # points at once: their basis, four streams of 64 nodes and degree 3, is 1.5 MiB
WIDE, LEAST = 96, 2**19  # features of the widest layer, and numbers in its basis, from which on this wins


def wins(x: Streams, layers: Sequence[ChebyshevLayer]) -> bool:
    """Tell whether fused jets are the faster: much work on a CPU, and nobody who traces or differentiates by points.

    Single precision is left to the plain path: equations are solved in double, and its kernels would take seconds to compile.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    parts = (x.value, x.first, x.second)
    if any(part.requires_grad or forward_ad.unpack_dual(part).tangent is not None for part in parts):
        return False
    streams = sum(part.shape[-3] for part in parts)
    widest = max(layer.degree * layer.inputs for layer in layers)
    large = widest >= WIDE and streams * x.value.shape[-2] * widest >= LEAST
    return large and x.value.dtype == torch.float64 and x.value.device.type == "cpu" and len(layers) > 1


def fused_jet(x: Streams, layers: Sequence[ChebyshevLayer]) -> Streams:
    """Pass streams through ``layers``, tanh between them; equal to layer by layer, to rounding."""
    shape = _Shape(x.kind, x.first.shape[-3], tuple(layer.degree for layer in layers))
    tensors = [t for layer in layers for t in (layer.weight, layer.bias)]
    joined: Tensor = _Fused.apply(x.join(), shape, *tensors)
    return x.split(joined)


@dataclass(frozen=True)
class _Shape:
    """What is known without looking at numbers: which derivatives, of how many axes, and the degrees."""

    kind: Second
    axes: int
    degrees: tuple[int, ...]

    def pairs(self) -> np.ndarray:
        """List (p, a, b) for every product of first derivatives that second derivative p takes."""
        if self.kind == "none":
            return np.empty((0, 3), np.int64)
        if self.kind == "full":
            found = itertools.combinations_with_replacement(range(self.axes), 2)
            return np.array([(p, a, b) for p, (a, b) in enumerate(found)])
        return np.array([(a if self.kind == "axes" else 0, a, a) for a in range(self.axes)])


class _Fused(torch.autograd.Function):
    """From joined streams of points and (weight, bias) per layer to joined streams (..., S, B, outputs).

    Inside, streams are (networks, B, S, nodes): a chunk of points is one block of memory. What is kept of a hidden layer
    is its z, with tanh of it in place of the value.
    """

    @staticmethod
    def forward(ctx: Any, joined: Tensor, shape: _Shape, *tensors: Tensor) -> Tensor:
        weights, biases = ([_by_network(t, nd) for t in tensors[i::2]] for i, nd in ((0, 2), (1, 1)))
        points = _by_network(joined, 3).movedim(-3, -2).contiguous()
        count = max(len(points), len(weights[0]))
        sums = [points.new_empty(count, *points.shape[1:3], weight.shape[-1]) for weight in weights]
        for network in range(count):
            for piece in _pieces(points):
                for number, weight in enumerate(weights):
                    entered = sums[number - 1][network] if number else points[network % len(points)]
                    basis = _basis(entered[piece], shape, number)
                    z = sums[number][network, piece]
                    torch.mm(basis, weight[network], out=z.flatten(0, 1))
                    z[:, 0] += biases[number][network]
                    if number < len(weights) - 1:
                        torch.tanh(z[:, 0], out=z[:, 0])
        ctx.shape = shape
        ctx.save_for_backward(joined, points, *tensors, *sums[:-1])
        return sums[-1].movedim(-2, -3).reshape(*_lead(joined, tensors[0]), *joined.shape[-3:-1], -1)

    @staticmethod
    def backward(ctx: Any, *pushes: Tensor) -> Any:
        joined, points, *kept = ctx.saved_tensors
        layers = len(ctx.shape.degrees)
        tensors, sums = kept[: 2 * layers], [points, *kept[2 * layers :]]
        if torch.is_grad_enabled():  # somebody wants to differentiate once more: the plain way
            return (None, None, *_plain_gradients(joined, ctx.shape, tensors, pushes[0]))
        gradients = [torch.zeros_like(tensor) for tensor in tensors]
        views = [_by_network(t, 2 - i % 2) for i, t in enumerate(gradients)]
        weights = [_by_network(t, 2) for t in tensors[0::2]]
        push = _by_network(pushes[0], 3).movedim(-3, -2)
        for network in range(len(push)):
            for piece in _pieces(points):
                entered = [part[network % len(part), piece] for part in sums]
                mine = [view[network] for view in views]
                _backward(push[network, piece], entered, ctx.shape, [w[network] for w in weights], mine)
        return (None, None, *gradients)


def _backward(
    push: Tensor, entered: list[Tensor], shape: _Shape, weights: list[Tensor], gradients: list[Tensor]
) -> None:
    """Add a chunk's share to the gradients of all layers, from the last to the first."""
    from cpikan.fields import jet_kernels

    pairs = shape.pairs()
    for number in reversed(range(len(weights))):
        flat = push.reshape(-1, push.shape[-1])
        # the transposed product is a third faster: what is transposed in memory is then the smaller one
        gradients[2 * number] += (flat.mT @ _basis(entered[number], shape, number)).mT
        gradients[2 * number + 1] += push[:, 0].sum(dim=0)
        if number:
            u = entered[number]
            spread = (flat @ weights[number].mT).reshape(*u.shape[:2], shape.degrees[number], u.shape[-1])
            push = torch.empty_like(u)
            jet_kernels.pull(u.numpy(), shape.axes, pairs, spread.numpy(), push.numpy())


def _basis(u: Tensor, shape: _Shape, number: int) -> Tensor:
    """Compute the basis (b S, K n) of streams (b, S, n) that enter a layer."""
    from cpikan.fields import jet_kernels

    out = u.new_empty(*u.shape[:2], shape.degrees[number], u.shape[-1])
    jet_kernels.expand(u.detach().numpy(), shape.axes, shape.pairs(), number > 0, out.numpy())
    return out.reshape(u.shape[0] * u.shape[1], -1)


def _pieces(points: Tensor) -> list[slice]:
    return [slice(first, first + CHUNK) for first in range(0, points.shape[1], CHUNK)]


def _by_network(tensor: Tensor, ndim: int) -> Tensor:
    """Give a tensor one leading axis, whether there are several networks or not."""
    return tensor if tensor.ndim > ndim else tensor.unsqueeze(0)


def _lead(joined: Tensor, weight: Tensor) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(joined.shape[:-3], weight.shape[:-2]))


def _plain_gradients(joined: Tensor, shape: _Shape, tensors: Sequence[Tensor], push: Tensor) -> list[Tensor]:
    """Compute gradients that can be differentiated again, by recording the plain pass."""
    layers = []
    for degree, weight, bias in zip(shape.degrees, tensors[0::2], tensors[1::2], strict=True):
        layer = ChebyshevLayer(weight.shape[-2] // degree, weight.shape[-1], degree)
        del layer.weight, layer.bias
        layer.weight, layer.bias = weight, bias
        layers.append(layer)
    value, rest = joined[..., :1, :, :], joined[..., 1:, :, :]
    x = Streams(value, rest[..., : shape.axes, :, :], rest[..., shape.axes :, :, :], shape.kind)
    out = layers[-1].streams(chain_streams(layers[:-1], TANH, x)).join()
    used = [tensor for tensor in tensors if tensor.requires_grad]
    found = iter(torch.autograd.grad(out, used, push, create_graph=True, allow_unused=True, materialize_grads=True))
    return [next(found) if tensor.requires_grad else torch.zeros_like(tensor) for tensor in tensors]
