"""A kind of field that only this file knows: a layer, a class and one entry, and everything works with it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from field_contract import LOWER, TORCH_WARNS, UPPER, FieldContract
from mpmath import tanh
from test_kinds import sines
from torch import Tensor, nn

from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.jet_tape import JetTape
from cpikan.fields.kinds import FIELDS, FieldKind, make_field
from cpikan.fields.layered import ChainField
from cpikan.fields.start import Inputs, Start
from cpikan.fields.streams import Streams
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve

pytestmark = TORCH_WARNS


class PowerLayer(BasisLayer):
    """Edges that are sums of x, x^2, ... x^K."""

    def __init__(self, inputs: int, outputs: int, degree: int, networks: int | None) -> None:
        super().__init__(inputs, outputs, degree * inputs, networks)
        self.degree = degree

    def basis(self, x: Tensor) -> Tensor:
        return torch.stack([x**k for k in range(1, self.degree + 1)], dim=-2).flatten(-2)

    def basis_streams(self, x: Streams) -> Streams:
        u, powers = x.value, range(1, self.degree + 1)
        jets = (
            [u**k for k in powers],
            [k * u ** (k - 1) for k in powers],
            [k * (k - 1) * u ** max(k - 2, 0) for k in powers],
        )
        return x.expanded(*(torch.stack(part, dim=-2) for part in jets))

    def start(self, generator: np.random.Generator, inputs: Inputs, start: Start) -> None:
        scale = (1.0 / (1 + len(self.weight))) ** 0.5
        shapes = tuple(self.weight.shape), tuple(self.bias.shape)
        self.draw(*(scale * generator.standard_normal(shape) for shape in shapes))


class PowerKAN(ChainField):
    """Layers of powers with tanh between them."""

    settings = ("degree",)

    def __init__(self, widths, degree=3, domain=None, **held):
        self.degree = degree
        super().__init__(widths, domain, **held)

    def build(self, networks):
        pairs = itertools.pairwise(self.widths)
        self.layers = nn.ModuleList(PowerLayer(a, b, self.degree, networks) for a, b in pairs)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    kind = FieldKind(PowerKAN, lambda widths, degree, domain, seed: PowerKAN(widths, degree, domain, start=Start(seed)))
    monkeypatch.setitem(FIELDS, "powers", kind)


class TestPowerKAN(FieldContract):
    def make(self, networks=None):
        return PowerKAN([2, 4, 3, 2], 3, (LOWER, UPPER), networks=networks, start=Start(1))

    def formula(self, field, point):
        nodes = [2 * (x - low) / (high - low) - 1 for x, low, high in zip(point, LOWER, UPPER, strict=True)]
        for number, layer in enumerate(field.layers):
            entered = [tanh(x) for x in nodes] if number else nodes
            basis = [x**k for k in range(1, layer.degree + 1) for x in entered]
            table, constants = layer.weight.tolist(), layer.bias.tolist()
            columns = zip(*table, strict=True)
            nodes = [
                b + sum(w * t for w, t in zip(column, basis, strict=True))
                for b, column in zip(constants, columns, strict=True)
            ]
        return nodes


def test_it_is_made_by_name_taped_and_solved_with():
    field = make_field("powers", [1, 8, 1], 4, ([0.0], [1.0]), 1)
    assert JetTape.takes(field)
    recipe = Recipe("mine", "", (QuasiNewton("ssbroyden", 60),), balancer=MEAN_SQUARES)
    solution = solve(sines(), field, recipe, settings=SolveSettings(seconds=600, points=Points(60, 2)))
    assert solution.metrics["relative_l2"] <= 0.05  # as the kinds that are there
