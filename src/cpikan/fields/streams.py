"""Streams: a value with its derivatives on the way through the layers (forward mode, no graph in x)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet, Second


class Streams(NamedTuple):
    """Value (..., 1, B, n), first derivatives (..., d, B, n) and p second derivatives (..., p, B, n).

    Two directions are paired where a mixed derivative is wanted: p = d for the unmixed ones, d (d + 1) / 2 for all,
    1 for their sum and 0 for none. All share one axis so that a linear layer takes them in one matrix product.
    """

    value: Tensor
    first: Tensor
    second: Tensor
    kind: Second

    def join(self) -> Tensor:
        """Join all streams along their axis, (..., 1 + d + p, B, n)."""
        return torch.cat([self.value, self.first, self.second], dim=-3)

    def split(self, joined: Tensor) -> Streams:
        """Split the streams of ``joined``, which a linear map made from ``join()``."""
        sizes = [1, self.first.shape[-3], self.second.shape[-3]]
        value, first, second = joined.split(sizes, dim=-3)
        return Streams(value, first, second, self.kind)

    def squares(self) -> Tensor:
        """Compute the products of first derivatives that the second derivative of an outer function is multiplied with."""
        return products(self.first, self.kind)

    def through(self, f: Tensor, f1: Tensor, f2: Tensor) -> Streams:
        """Apply an elementwise function of the value, given with its derivatives there: f'' u_a u_b + f' u_ab."""
        return Streams(f, f1 * self.first, f2 * self.squares() + f1 * self.second, self.kind)

    def expanded(self, f: Tensor, f1: Tensor, f2: Tensor) -> Streams:
        """Apply K functions to every node, (..., 1, B, K, n) with their derivatives there, as K n nodes."""
        first = (f1 * self.first.unsqueeze(-2)).flatten(-2)
        if self.kind == "none":
            return Streams(f.flatten(-2), first, first[..., :0, :, :], self.kind)
        second = (f2 * self.squares().unsqueeze(-2) + f1 * self.second.unsqueeze(-2)).flatten(-2)
        return Streams(f.flatten(-2), first, second, self.kind)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Streams:
        """Apply a linear function to the nodes without a constant, the same for the value and every derivative."""
        return Streams(function(self.value), function(self.first), function(self.second), self.kind)

    def times(self, other: Streams) -> Streams:
        """Multiply two functions: (f g)_ab = f_ab g + f_a g_b + f_b g_a + f g_ab."""
        first = self.first * other.value + self.value * other.first
        second = self.second * other.value + self.value * other.second
        return Streams(self.value * other.value, first, second + crossed(self.first, other.first, self.kind), self.kind)

    def plus(self, other: Streams, factor: float = 1.0) -> Streams:
        """Add ``factor`` times another function."""
        pairs = zip(self[:3], other[:3], strict=True)
        value, first, second = (torch.add(one, more, alpha=factor) for one, more in pairs)
        return Streams(value, first, second, self.kind)

    def constant(self, value: Tensor) -> Streams:
        """Make nodes (..., B, n) that do not depend on the point, beside these."""
        shape = value.shape[-1:]
        first = self.first.new_zeros(*self.first.shape[:-1], *shape)
        second = self.second.new_zeros(*self.second.shape[:-1], *shape)
        return Streams(value.unsqueeze(-3), first, second, self.kind)

    def jet(self, batch: tuple[int, ...]) -> Jet:
        """Lay the derivatives out behind the outputs, and the points out in their own shape ``batch``."""
        value = self.value.squeeze(-3)
        lead, n = value.shape[:-2], value.shape[-1]
        shape = (*lead, *batch, n)
        first = self.first.movedim(-3, -1)
        second = self.second.movedim(-3, -1)
        d = first.shape[-1]
        if self.kind == "laplacian":
            return Jet(value.reshape(shape), first.reshape(*shape, d), second.reshape(shape))
        if self.kind == "full":
            second = second[..., _square_of_pairs(d, second.device)]
            return Jet(value.reshape(shape), first.reshape(*shape, d), second.reshape(*shape, d, d))
        return Jet(value.reshape(shape), first.reshape(*shape, d), second.reshape(*shape, second.shape[-1]))


def products(first: Tensor, kind: Second) -> Tensor:
    """Compute products u_a u_b of first derivatives (..., d, B, n), for the pairs that ``kind`` keeps."""
    if kind == "axes":
        return first * first
    if kind == "laplacian":
        return (first * first).sum(dim=-3, keepdim=True)
    if kind == "none":
        return first[..., :0, :, :]
    rows, columns = torch.triu_indices(first.shape[-3], first.shape[-3], device=first.device)
    return first[..., rows, :, :] * first[..., columns, :, :]


def crossed(first: Tensor, other: Tensor, kind: Second) -> Tensor:
    """Compute f_a g_b + f_b g_a for the pairs that ``kind`` keeps."""
    if kind == "axes":
        return 2 * first * other
    if kind == "laplacian":
        return 2 * (first * other).sum(dim=-3, keepdim=True)
    if kind == "none":
        return (first * other)[..., :0, :, :]
    rows, columns = torch.triu_indices(first.shape[-3], first.shape[-3], device=first.device)
    mixed = first[..., rows, :, :] * other[..., columns, :, :]
    return mixed + first[..., columns, :, :] * other[..., rows, :, :]


def side_by_side(parts: Sequence[Streams]) -> Streams:
    """Join the nodes of several, of the same points, as the nodes of one."""
    value, first, second = (torch.cat([part[i] for part in parts], dim=-1) for i in range(3))  # type: ignore[misc]
    return Streams(value, first, second, parts[0].kind)


def along_axis(one: Streams, axis: int, dimension: int, kind: Second) -> Streams:
    """Spread a function of one coordinate, given with its derivatives by it alone, to a function of all coordinates."""
    before, after = axis, dimension - axis - 1
    first = torch.nn.functional.pad(one.first, (0, 0, 0, 0, before, after))
    if kind in ("none", "laplacian"):
        return Streams(one.value, first, one.second, kind)
    if kind == "full":  # pairs a <= b are in rows of falling length: (a, a) stands at the head of row a
        before = axis * dimension - axis * (axis - 1) // 2
        after = dimension * (dimension + 1) // 2 - before - 1
    return Streams(one.value, first, torch.nn.functional.pad(one.second, (0, 0, 0, 0, before, after)), kind)


def start(scaled: Tensor, slopes: Tensor, kind: Second) -> Streams:
    """Compute the streams of the scaled coordinates (..., B, d) by the physical ones; ``slopes`` (..., d) are dx^/dx."""
    value = scaled.unsqueeze(-3)
    first = torch.diag_embed(slopes).unsqueeze(-2).expand(*scaled.shape[:-2], -1, scaled.shape[-2], -1)
    return Streams(value, first, torch.zeros_like(products(first, kind)), kind)


def _square_of_pairs(d: int, device: torch.device) -> Tensor:
    """Find where the pair (a, b) sits among the d (d + 1) / 2 pairs a <= b, as a symmetric d x d table."""
    low, high = torch.meshgrid(torch.arange(d, device=device), torch.arange(d, device=device), indexing="ij")
    low, high = torch.minimum(low, high), torch.maximum(low, high)
    return low * d - low * (low - 1) // 2 + high - low
