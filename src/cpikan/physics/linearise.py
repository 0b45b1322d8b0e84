"""Linearise residuals of jets: derivatives by the streams of a jet, and rows of the coefficients a jet is linear in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cpikan.fields.duals import cut
from cpikan.fields.protocol import Jet


def jet_at(basis: Jet, coefficients: Tensor) -> Jet:
    """Multiply the jet of a basis (..., B, K) by coefficients (..., K, outputs); the streams are leaves to derive by."""
    parts = (torch.einsum("...bks,...ko->...bos", _flat(part, basis), coefficients) for part in basis)
    shapes = (part.shape[basis.value.ndim :] for part in basis)
    leaves = (part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True))
    return Jet(*(cut(leaf).requires_grad_() for leaf in leaves))


def pullback(residual: Tensor, jets: Sequence[Jet]) -> list[Jet]:
    """Differentiate residuals by the streams of jets, dr/djet, for residuals that each belong to one point."""
    leaves = [part for jet in jets for part in jet]
    if not residual.requires_grad:  # a function of the point alone
        return [Jet(*(torch.zeros_like(part) for part in jet)) for jet in jets]
    with torch.enable_grad():
        total = residual.sum()
    found = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [Jet(*found[start : start + 3]) for start in range(0, len(found), 3)]


def contract(bases: Sequence[Jet], pushes: Sequence[Jet]) -> Tensor:
    """Sum basis times dr/djet over streams and jets: rows (..., B, K * outputs) of the coefficients' Jacobian."""
    total: Tensor | None = None
    for basis, push in zip(bases, pushes, strict=True):
        for features, slope in zip(basis, push, strict=True):
            if slope.numel():
                rows = torch.einsum("...ks,...os->...ko", _flat(features, basis), _flat(slope, push)).flatten(-2)
                total = rows if total is None else total + rows
    assert total is not None
    return total


def _flat(part: Tensor, jet: Jet) -> Tensor:
    """Gather the axes of derivatives of a stream in one, of length 1 for the value."""
    lead = jet.value.ndim
    return part[..., None] if part.ndim == lead else part.flatten(lead)
