"""Slopes and curvature on a grid against the jets of the field itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.grid_slopes import GridSlopes
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.partition import Partition

Y, X = np.arange(40) + 0.5, np.arange(311) + 0.5  # two whole blocks of columns and a rest
BOX = ([0.0, 0.0], [40.0, 311.0])


def by_jet(field, y=Y, x=X, output=0) -> np.ndarray:
    points = torch.stack(torch.meshgrid(torch.from_numpy(y), torch.from_numpy(x), indexing="ij"), dim=-1)
    with torch.no_grad():
        jet = field.jet(points, "laplacian")
    return np.stack([*jet.gradient[..., output, :].movedim(-1, 0).numpy(), jet.second[..., output].numpy()])


def by_grid(field, y=Y, x=X, output=0) -> np.ndarray:
    out = np.zeros((3, len(y), len(x)), np.float32)
    GridSlopes(field, y, x, output).add(0, out)
    return out


def drawn(field: TensorChebyshev, *shape: int) -> TensorChebyshev:
    field.set_output_coefficients(
        torch.randn(*shape, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    return field


def agree(field, units: float, **grid) -> bool:
    """Within ``units`` of 2^-24 of the largest of each derivative."""
    truth, found = by_jet(field, **grid), by_grid(field, **grid)
    scale = np.abs(truth).max(axis=(1, 2), keepdims=True)
    return bool((np.abs(found - truth) <= units * 2**-24 * scale).all())


@pytest.mark.parametrize(
    ("widths", "degree"), [([2, 8, 8, 1], 5), ([2, 1], 7), ([2, 3, 2], 1), ([2, 5, 4, 7, 2], [2, 6, 3, 4])]
)
def test_networks(widths, degree):
    field = ScaledCPIKAN(widths, degree, BOX, start=Start(seed=6))
    for output in range(widths[-1]):
        # rounding as for values (some 300 units at the worst), amplified once more per derivative by slopes of up to degree^2
        assert agree(field, 300 * 25, output=output)


@pytest.mark.parametrize("tensor", [False, True])
def test_windows_have_derivatives_too(tensor):
    partition = Partition.tiles((40, 311), (20, 100), (8, 50))
    boxes, n = DecomposedField.boxes(partition), len(partition)
    parts = drawn(TensorChebyshev((4, 6), boxes, networks=n), n, 24) if tensor else None
    field = DecomposedField(partition, parts or ScaledCPIKAN([2, 6, 6, 1], 4, boxes, networks=n))
    assert agree(field, 2000)


def test_a_single_tensor_field_of_few_modes_on_an_uneven_grid():
    y, x = np.sort(np.random.default_rng(0).uniform(0, 40, 20)), np.array([0.0, 3.0, 311.0])
    for modes in ((1, 1), (2, 1), (3, 9)):
        field = drawn(TensorChebyshev(modes, BOX), modes[0] * modes[1])
        truth = by_jet(field, y, x)
        assert np.allclose(by_grid(field, y, x), truth, rtol=0, atol=1e-5 * np.abs(truth).max() + 1e-30)


def test_a_polynomial_has_the_derivatives_of_calculus():
    """2 + 3 s + s^2 t of scaled coordinates, through windows that sum to one: the same field on every tile."""
    partition = Partition.tiles((40, 311), (20, 100), (8, 50))
    lower, upper = (np.asarray(bound) for bound in DecomposedField.boxes(partition))
    parts = TensorChebyshev((3, 3), (lower.tolist(), upper.tolist()), networks=len(partition))
    grid = np.polynomial.chebyshev.chebvander(np.cos(np.pi * (np.arange(3) + 0.5) / 3), 2)
    nodes = np.cos(np.pi * (np.arange(3) + 0.5) / 3)
    inverse = np.linalg.inv(grid)
    with torch.no_grad():
        for k, (low, high) in enumerate(zip(lower, upper, strict=True)):
            y, x = (low[:, None] + (nodes + 1) / 2 * (high - low)[:, None]) if low.ndim else (None, None)
            values = (y[:, None] / 10) ** 2 + 0.3 * (x[None] / 10) ** 2 - (y[:, None] / 10) * (x[None] / 10)
            parts.coefficients[k] = torch.from_numpy(inverse @ values @ inverse.T)
    slope_y, slope_x, curvature = by_grid(DecomposedField(partition, parts))
    # values up to 1000 times windows whose slope is 2 / 8: cancellation leaves 1000 * 0.25 * 2^-24 * some ten terms
    assert np.allclose(slope_y, (2 * Y[:, None] - X) / 100, rtol=0, atol=2e-4)
    assert np.allclose(slope_x, (0.6 * X - Y[:, None]) / 100, rtol=0, atol=2e-4)
    assert np.allclose(curvature, 0.026, rtol=0, atol=2e-4)


def test_no_bit_depends_on_where_rows_are_asked_for_and_tiles_without_data_are_unknown():
    partition = Partition.tiles((40, 311), (20, 100), (8, 50))
    parts = drawn(
        TensorChebyshev((4, 6), DecomposedField.boxes(partition), networks=len(partition)), len(partition), 24
    )
    with torch.no_grad():
        parts.coefficients[0] = torch.nan
    field = DecomposedField(partition, parts)
    whole = by_grid(field)
    part = np.zeros((3, 7, 311), np.float32)
    GridSlopes(field, Y, X).add(16, part)
    assert np.array_equal(part, whole[:, 16:23], equal_nan=True)
    assert np.isnan(whole[:, 0, 0]).all()
    assert np.isfinite(whole[:, -1, -1]).all()


def test_a_field_of_three_coordinates_is_refused():
    with pytest.raises(InputError, match="two coordinates"):
        GridSlopes(ScaledCPIKAN([3, 1]), Y, X)
