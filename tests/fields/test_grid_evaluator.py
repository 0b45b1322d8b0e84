"""The compiled grid evaluator against the field itself, on any shape, partition, number of threads and target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.grid_evaluator import GridEvaluator
from cpikan.fields.grid_kernels import tanh
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.partition import Partition

Y, X = np.arange(150) + 0.5, np.arange(611) + 0.5  # rows of two whole blocks and a rest; three pieces of rows
BOX = ([0.0, 0.0], [150.0, 611.0])


def by_torch(field, y=Y, x=X):
    points = torch.stack(torch.meshgrid(torch.from_numpy(y), torch.from_numpy(x), indexing="ij"), dim=-1)
    with torch.no_grad():
        return field(points).numpy()


def by_kernel(field, y=Y, x=X, output=0, threads=1):
    out = np.full((len(y), len(x)), np.nan, np.float32)
    GridEvaluator(field, y, x, output).write(out, threads)
    return out


def test_the_hyperbolic_tangent_is_good_to_rounding():
    z = np.concatenate([np.linspace(-12, 12, 200_001), [0.0, 1e-30, -1e-30, 1e30, -1e30]]).astype(np.float32)
    out = np.empty_like(z)
    tanh(z, out, len(z))
    truth = np.tanh(z.astype(np.float64))
    assert (
        np.abs(out - truth).max() <= 5 * 2**-24
    )  # five units in the last place below one: the minimax and 14 roundings
    assert (np.abs(out) <= 1).all()
    assert out[-5] == 0
    tanh(np.array([np.nan], np.float32), out, 1)
    assert math.isnan(out[0])


@pytest.mark.parametrize(
    ("widths", "degree"),
    [
        ([2, 8, 8, 1], 5),
        ([2, 1], 7),
        ([2, 3, 2], 1),
        ([2, 5, 4, 7, 2], [2, 6, 3, 4]),
        ([2, 9, 1], [8, 3]),
        ([2, 1, 1], [1, 9]),
    ],
)
def test_it_is_the_field(widths, degree):
    field = ScaledCPIKAN(widths, degree, BOX, start=Start(seed=6))
    truth = by_torch(field)
    for output in range(widths[-1]):
        found = by_kernel(field, output=output)
        # float32: each layer adds some 4 + sqrt(terms) units to its nodes, and passes on the units before times
        # the slope of its polynomials (up to degree^2 = 36 in the tails): 4 layers, some 300 units at the worst
        assert np.abs(found - truth[..., output]).max() <= 300 * 2**-24 * np.abs(truth).max()


@pytest.mark.parametrize("tensor", [False, True])
def test_decomposed_fields_on_tiles(tensor):
    partition = Partition.tiles((150, 611), (64, 100), (16, 50))
    boxes = DecomposedField.boxes(partition)
    n = len(partition)
    if tensor:
        parts = TensorChebyshev((4, 6), boxes, networks=n)
        draw = torch.randn(n, 24, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        parts.set_output_coefficients(draw)
    else:
        parts = ScaledCPIKAN([2, 6, 6, 1], 4, boxes, networks=n)
    field = DecomposedField(partition, parts)
    truth = by_torch(field)[..., 0]
    assert np.abs(by_kernel(field) - truth).max() <= 100 * 2**-24 * np.abs(truth).max()


def test_a_single_tensor_field_and_an_uneven_grid():
    field = TensorChebyshev((3, 5), BOX)
    field.set_output_coefficients(torch.ones(15, 1, dtype=torch.float64))
    y, x = np.sort(np.random.default_rng(0).uniform(0, 150, 20)), np.array([0.0, 3.0, 611.0])
    assert np.allclose(by_kernel(field, y, x), by_torch(field, y, x)[..., 0], atol=1e-5)
    network = ScaledCPIKAN([2, 4, 1], 3, BOX)
    assert np.allclose(by_kernel(network, y, x), by_torch(network, y, x)[..., 0], atol=1e-5)


def test_a_subset_of_the_image_up_to_the_ends_of_the_partition():
    partition = Partition.tiles((40, 50), 20, 8)
    field = DecomposedField(
        partition, ScaledCPIKAN([2, 3, 1], 3, DecomposedField.boxes(partition), networks=len(partition))
    )
    y, x = np.arange(13, 19) + 0.5, np.array([0.0, 20.5, 49.0, 50.0])
    assert np.allclose(by_kernel(field, y, x), by_torch(field, y, x)[..., 0], atol=1e-5)


@pytest.mark.parametrize("tensor", [False, True])
def test_no_bit_depends_on_threads_bands_or_where_a_row_is_asked_for(tensor):
    field = TensorChebyshev((7, 14), BOX) if tensor else ScaledCPIKAN([2, 5, 1], 5, BOX)
    if tensor:
        draw = torch.randn(98, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        field.set_output_coefficients(draw)
    one, two = by_kernel(field, threads=1), by_kernel(field, threads=2)
    assert np.array_equal(one, two)
    part = np.empty((7, 611), np.float32)
    GridEvaluator(field, Y, X).fill(60, part)
    assert np.array_equal(part, one[60:67])
    firsts = [row for row, _ in GridEvaluator(field, Y, X).bands(2)]
    assert firsts == [0, 128]


def test_it_writes_to_a_memory_map(tmp_path):
    target = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (150, 611))
    field = ScaledCPIKAN([2, 3, 1], 3, BOX)
    GridEvaluator(field, Y, X).write(target, 2)
    assert np.array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), by_kernel(field))


@pytest.mark.parametrize(
    ("field", "y", "output", "text"),
    [
        (ScaledCPIKAN([3, 1]), Y, 0, "a field of two coordinates and two rising lists"),
        (ScaledCPIKAN([2, 1]), Y[::-1], 0, "a field of two coordinates and two rising lists"),
        (ScaledCPIKAN([2, 1]), Y, 1, "output 1 of a field with 1: give 0 to 0"),
        (ScaledCPIKAN([2, 1], networks=2), Y, 0, "a grid of 2 fields at once"),
    ],
)
def test_bad_input_is_refused(field, y, output, text):
    with pytest.raises(InputError, match=text):
        GridEvaluator(field, y, X, output)
