"""How a Scaled-cPIKAN answers to its parameters: values and their Jacobian in closed form, for least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from cpikan.fields import chebyshev
from cpikan.fields.functional import named_parameters, parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN


@torch.no_grad()
def parameter_jacobian(field: ScaledCPIKAN, x: Tensor, vector: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute values (..., B, outputs) at points (..., B, d), and their Jacobian (..., B, outputs, P).

    The columns are in the order of ``parameter_vector``. ``vector`` (P,), or (n, P) for any number of networks of this
    shape, stands in for the field's own parameters. With N networks everything has a leading N, and points may be
    (1, B, d). One pass forward keeps every layer's basis, one pass back the sensitivity of the outputs to every node; a
    coefficient's column is the product of the two.
    """
    layers = field.chebyshev_layers()
    tensors = named_parameters(field, parameter_vector(field) if vector is None else vector)
    weights, biases = ([tensors[f"layers.{i}.{name}"] for i in range(len(layers))] for name in ("weight", "bias"))
    inputs, entered, bases = field.scaling(x), [], []
    for number, layer in enumerate(layers):
        inputs = torch.tanh(inputs) if number else inputs
        entered.append(inputs)
        bases.append(layer.basis(inputs))
        inputs = bases[-1] @ weights[number] + biases[number].unsqueeze(-2)
    one = torch.eye(field.outputs, dtype=x.dtype, device=x.device)
    push = one.expand(*inputs.shape[:-1], *one.shape)  # (..., B, outputs, nodes of this layer)
    columns: list[Tensor] = []
    for number in reversed(range(len(layers))):
        layer = layers[number]
        weight = (bases[number][..., None, :, None] * push[..., None, :]).flatten(-2)
        columns = [weight, push, *columns]
        if number:
            node, slope = entered[number], chebyshev.polynomials_jet(entered[number], layer.degree, second=False)[1]
            spread = (push @ weights[number].mT.unsqueeze(-3)).unflatten(-1, (layer.degree, layer.inputs))
            push = (spread * slope.unsqueeze(-3)).sum(dim=-2) * (1 - node * node).unsqueeze(-2)
    return inputs, torch.cat(columns, dim=-1)
