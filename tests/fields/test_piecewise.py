"""The piecewise field: the contract, and who owns a point."""

from __future__ import annotations

import itertools

import pytest
import torch
from field_contract import LOWER, UPPER, FieldContract

from cpikan.errors import InputError
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.tensor_chebyshev import TensorChebyshev


def tiled(rows=(0.0, 0.4, 1.0)):
    """Boxes over LOWER ... UPPER: ``rows`` split the first axis, halves the second."""
    low, high = torch.tensor(LOWER, dtype=torch.float64), torch.tensor(UPPER, dtype=torch.float64)
    cuts = [(a, b, c, c + 0.5) for a, b in itertools.pairwise(rows) for c in (0.0, 0.5)]
    box = torch.tensor(cuts, dtype=torch.float64)
    lower, upper = (low + (high - low) * box[:, index] for index in ([0, 2], [1, 3]))
    series = TensorChebyshev((4, 3), (lower, upper), networks=len(cuts))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        series.coefficients.copy_(torch.randn(series.coefficients.shape, dtype=torch.float64, generator=generator))
    return PiecewiseChebyshev(series)


class TestPiecewise(FieldContract):
    batches, linear = False, False

    def make(self, networks=None):
        return tiled()


def test_every_point_belongs_to_the_box_around_it_and_strays_to_the_nearest():
    field = tiled()
    lower, upper = field.parts.scaling.lower, field.parts.scaling.upper
    x = torch.rand(500, 2, dtype=torch.float64) * (torch.tensor(UPPER) - torch.tensor(LOWER)) + torch.tensor(LOWER)
    owner = field.owner(x)
    assert bool(((lower[owner] <= x) & (x <= upper[owner])).all())
    beyond = torch.tensor([[LOWER[0] - 1, LOWER[1] - 1], [UPPER[0] + 1, UPPER[1] + 1]], dtype=torch.float64)
    assert field.owner(beyond).tolist() == [0, len(lower) - 1]
    for number in range(len(lower)):
        inside = x[owner == number][None]
        alone = TensorChebyshev((4, 3), (lower[number], upper[number]))
        with torch.no_grad():
            alone.coefficients.copy_(field.parts.coefficients[number])
        torch.testing.assert_close(field(inside[0]), alone(inside[0]), rtol=0, atol=1e-13)


def test_one_series_is_no_tiling():
    with pytest.raises(InputError, match="makes no tiling"):
        PiecewiseChebyshev(TensorChebyshev((3, 3)))
