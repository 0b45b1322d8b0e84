"""SPQN: L-BFGS without local steps, block Jacobi and Gauss-Seidel on quadratics, and a cost that only falls."""

from __future__ import annotations

import itertools

import pytest
import torch
from method_contract import MethodContract, minimised
from torch import nn

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.methods.schwarz_quasi_newton import KINDS, SchwarzQuasiNewton, layers


class Layer(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values[:-1], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(values[-1:], dtype=torch.float64))


class Pair(nn.Module):
    """Two layers, of two and three parameters."""

    networks = None

    def __init__(self):
        super().__init__()
        self.first, self.second = Layer(1.0, -2.0), Layer(0.5, 3.0, -1.0)


class Quadratic:
    """x'Ax / 2 - b'x of all parameters, with blocks of A that couple the layers as told."""

    def __init__(self, coupling):
        draw = torch.Generator().manual_seed(4)
        root = torch.randn(5, 5, dtype=torch.float64, generator=draw)
        self.matrix = root @ root.T + 5 * torch.eye(5, dtype=torch.float64)
        self.matrix[:2, 2:] *= coupling
        self.matrix[2:, :2] *= coupling
        self.right = torch.randn(5, dtype=torch.float64, generator=draw)

    def cost(self, field):
        x = torch.cat([one.flatten() for one in field.parameters()])
        return 0.5 * x @ self.matrix @ x - self.right @ x

    def finite_cost(self, field):
        return float(self.cost(field).detach())

    def block(self, part, x):
        """The minimum over a block, all others held."""
        found = x.clone()
        found[part] = torch.linalg.solve(
            self.matrix[part, part], self.right[part] - self.matrix[part] @ x + self.matrix[part, part] @ x[part]
        )
        return found


FIRST, SECOND = slice(0, 2), slice(2, 5)


def test_layers_are_the_modules_that_hold_parameters():
    assert [[len(one) for one in part] for part in layers(Pair())] == [[1, 1], [2, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_minimised_as_blocks_of_a_quadratic(kind):
    """All from the same start and added up, or one after the other: block Jacobi, block Gauss-Seidel."""
    objective, field = Quadratic(0.3), Pair()
    start = parameter_vector(field)
    SchwarzQuasiNewton(kind, local=60)._precondition(objective, field)
    first = objective.block(FIRST, start)
    if kind == "multiplicative":
        wanted = objective.block(SECOND, first)
    else:
        wanted = first + objective.block(SECOND, start) - start
    torch.testing.assert_close(parameter_vector(field), wanted, rtol=0, atol=1e-7)


def test_moves_that_together_raise_the_cost_are_halved():
    """Three layers that each move for all: together they go 2.8 times too far, half of it lowers the cost."""
    objective, field = Quadratic(0.0), Pair()
    field.third = Layer(2.0, 1.0)
    objective.matrix = torch.eye(7, dtype=torch.float64)
    for i, j in ((0, 2), (0, 5), (2, 5)):
        objective.matrix[i, j] = objective.matrix[j, i] = 0.9
    away = torch.zeros(7, dtype=torch.float64)
    away[[0, 2, 5]] = 1.0
    start = parameter_vector(field)
    objective.right = objective.matrix @ (start - away)
    SchwarzQuasiNewton("additive", local=40)._precondition(objective, field)
    torch.testing.assert_close(parameter_vector(field), start - 1.4 * away, rtol=0, atol=1e-7)


def run(method, steps=5):
    """Costs and parameters after a few steps on a small network."""
    objective, field = MethodContract().start("helmholtz-1d")
    _, costs = minimised(method, objective, field, method.init(objective, field), steps)
    return costs, parameter_vector(field)


@pytest.mark.parametrize("kind", KINDS)
def test_without_local_steps_it_is_lbfgs_and_with_them_it_falls_faster_by_outer_steps(kind):
    wanted, at = run(QuasiNewton("lbfgs", 5))
    same, there = run(SchwarzQuasiNewton(kind, 5, local=0))
    assert same == wanted
    assert torch.equal(there, at)
    costs, _ = run(SchwarzQuasiNewton(kind, 5, local=3))
    assert all(after <= before for before, after in itertools.pairwise(costs))
    assert costs[-1] < wanted[-1]


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="Schwarz preconditioner of L-BFGS 'restricted'"):
        SchwarzQuasiNewton("restricted")
    with pytest.raises(InputError, match="-1 local steps of a layer: give 0 or more"):
        SchwarzQuasiNewton(local=-1)
