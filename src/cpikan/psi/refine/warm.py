"""The compiled loops of the refiners, loaded or compiled before the clock of a run starts."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.model import HeightRows, PixelModel, empty_rows
from cpikan.psi.kernels.turns import TurnKernels
from cpikan.psi.refine import orders
from cpikan.psi.refine.blocks import BlockSums
from cpikan.psi.refine.protocol import NoSurface, empty_turns
from cpikan.psi.warm import toy_models

_WIDTH, _ROWS = 16, 24


def warm_orders(wavelengths: int, frames: int, dtype: np.dtype, scheme: str, *, fitted: bool = False) -> None:
    """Compile what decides orders with neighbours for such a stack of two or more wavelengths; never imports torch."""
    for model in toy_models(wavelengths, frames, scheme, fitted=fitted):
        _warm_model(model, np.zeros((wavelengths, frames, _ROWS, _WIDTH), dtype.newbyteorder("=")))


def _warm_model(model: PixelModel, frames: np.ndarray) -> None:
    assert model.search is not None, "two or more wavelengths have an order search"
    wavelengths, limits = len(frames), orders.OrderLimits.of(model.search)
    kernels = TurnKernels(model, 1)
    buffer = empty_turns(wavelengths, _ROWS, _WIDTH)
    # whole buffers and parts of them differ in how they lie in memory, and so in what is compiled
    for count in (_ROWS, _ROWS // 2):
        rows = kernels.turns(np.ascontiguousarray(frames[:, :, :count]), 0, None, buffer.part(0, count))
        BlockSums.zeros(wavelengths, (count, _WIDTH)).add(rows, 0)
        choice, whole = orders.begin(rows, 0, None), slice(0, count)
        choice.open[:] = True
        orders.settle(rows, choice, NoSurface().surface(rows, 0, whole), limits)
        orders.form(rows, choice, limits, whole, HeightRows(*empty_rows(count, _WIDTH)))
    kernels.close()


def warm_fields(*, slopes: bool) -> None:
    """Import what fits fields, and compile what draws them on pixels; imports torch, which takes a second."""
    from cpikan.fields.decomposed import DecomposedField
    from cpikan.fields.grid_evaluator import GridEvaluator
    from cpikan.fields.grid_slopes import GridSlopes
    from cpikan.fields.scaled_cpikan import ScaledCPIKAN
    from cpikan.fields.tensor_chebyshev import TensorChebyshev
    from cpikan.partition import Partition
    from cpikan.psi.refine import field
    from cpikan.psi.refine.network import DEGREE, WIDTHS

    assert field
    y, x = np.arange(_ROWS) + 0.5, np.arange(_WIDTH) + 0.5
    # one tile fills whole rows, several fill parts of them
    for partition in (Partition.tiles((_ROWS, _WIDTH), 32, 0), Partition.tiles((_ROWS, _WIDTH), 12, 4)):
        boxes, n = DecomposedField.boxes(partition), len(partition)
        for parts in (TensorChebyshev([2, 2], boxes, networks=n), ScaledCPIKAN(WIDTHS, DEGREE, boxes, networks=n)):
            whole = DecomposedField(partition, parts)
            GridEvaluator(whole, y, x).fill(0, np.empty((_ROWS, _WIDTH), np.float32))
            if slopes:
                GridSlopes(whole, y, x).add(0, np.zeros((3, _ROWS, _WIDTH), np.float32))
