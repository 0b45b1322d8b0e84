"""Everything that is compiled once: loaded before the clock of a run starts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cpikan.psi.kernels.arguments import pack_search
from cpikan.psi.kernels.cpu import DemodulationKernels, search_orders
from cpikan.psi.kernels.form import form_rows
from cpikan.psi.kernels.model import (
    Demodulation,
    HeightRows,
    OrderSearch,
    PhaseRows,
    PixelModel,
    empty_demodulated,
    empty_rows,
)
from cpikan.psi.kernels.select import make_kernels
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.model.flags import Flag
from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.schemes import CARRE, LEAST_SQUARES
from cpikan.psi.refine import orders
from cpikan.psi.refine.blocks import BlockSums
from cpikan.psi.refine.protocol import NoSurface

_WIDTH = 8
_IMAGE = 24, 16  # rows and columns that refiners are warmed with


def warm_up(wavelengths: int, frames: int, dtype: np.dtype, scheme: str, device: str, *, fitted: bool = False) -> None:
    """Compile the kernels for such a stack, or load them from the cache on disk (seconds the first time, then tenths).

    ``fitted`` steps may come out plain or as a field over the image: both are made ready, the second on the CPU.
    """
    for model in _toy_models(wavelengths, frames, scheme, fitted=fitted):
        _warm_kernels(model, wavelengths, frames, dtype, device if model.demodulation.models is None else "cpu")


def _toy_models(wavelengths: int, frames: int, scheme: str, *, fitted: bool) -> list[PixelModel]:
    """Make a model for each way to demodulate such a stack: plain, and by steps that vary over the image."""
    plain = _toy_model(wavelengths, frames, scheme == CARRE)
    if not fitted or scheme != LEAST_SQUARES:
        return [plain]
    steps = tuple(360 * k / frames for k in range(frames))
    field = replace(plain.demodulation, models=(FrameModel.plain(steps),) * wavelengths, node_px=(2, 2))
    return [plain, replace(plain, demodulation=field)]


def _warm_kernels(model: PixelModel, wavelengths: int, frames: int, dtype: np.dtype, device: str) -> None:
    kernels = make_kernels(model, device, 1)
    rows = empty_rows(1, _WIDTH)
    stack = np.zeros((wavelengths, frames, 1, _WIDTH), dtype.newbyteorder("="))
    table = np.empty((1, COLUMNS))
    if wavelengths > 1:
        kernels.heights(stack, 0, None, HeightRows(*rows), table)
        ratio = np.ones(wavelengths)
        search_orders(ratio)(np.zeros((wavelengths, 4)), np.ones((wavelengths, 4)), 0.0, 1.0)
    else:
        kernels.phases(stack, None, PhaseRows(*rows))
        whole, bits = np.zeros((1, _WIDTH), np.int32), np.zeros((1, _WIDTH), np.uint8)
        form_rows(rows[0], whole, whole, bits != 0, bits, 1.0, np.zeros(2), np.empty((0, 0)), rows[1])
        row_sums(rows[1], bits, table)
        _warm_unwrapping()
    kernels.close()


def _warm_unwrapping() -> None:
    """Warm both ways of unwrapping a tile: a clean one, and one where the paths disagree."""
    from cpikan.psi.unwrap.unwrap import unwrap

    y, x = np.mgrid[-8:8, -8:8] + 0.5
    for phase in (np.zeros((16, 16)), np.arctan2(y, x)):
        unwrap(phase.astype(np.float32), np.ones((16, 16), np.float32), tile=12, overlap=4, threads=1)


def _toy_model(wavelengths: int, frames: int, carre: bool) -> PixelModel:
    ones = np.ones((wavelengths, frames))
    demodulation = Demodulation(
        ones, ones, ones, ones, np.ones((wavelengths, 3)), np.ones((wavelengths, 2)), np.zeros(wavelengths), carre=carre
    )
    if wavelengths == 1:
        return PixelModel(demodulation)
    search = OrderSearch(
        tuple(range(wavelengths)),
        np.ones(wavelengths),
        1.0,
        np.zeros(wavelengths),
        np.zeros((wavelengths, 2)),
        (0.0, 0.0),
        0.0,
        1.0,
        0.0,
        1.0,
        1.0,
    )
    return PixelModel(demodulation, search)


def warm_orders(wavelengths: int, frames: int, dtype: np.dtype, scheme: str, *, fitted: bool = False) -> None:
    """Compile what decides orders with neighbours for such a stack of two or more wavelengths; never imports torch."""
    for model in _toy_models(wavelengths, frames, scheme, fitted=fitted):
        _warm_orders_of(model, np.zeros((wavelengths, frames, *_IMAGE), dtype.newbyteorder("=")))


def _warm_orders_of(model: PixelModel, frames: np.ndarray) -> None:
    assert model.search is not None, "two or more wavelengths have an order search"
    wavelengths, search = len(frames), pack_search(model.search)
    kernels = DemodulationKernels(model, 1)
    rows = kernels.demodulate(frames, 0, None, empty_demodulated(wavelengths, *_IMAGE))
    BlockSums.zeros(wavelengths, _IMAGE).add(rows, 0)
    choice, whole = orders.own_orders(rows, 0, None), slice(0, _IMAGE[0])
    choice.active[:] = True
    choice = orders.icm(rows, choice, NoSurface().surface(rows, 0, whole), search)
    out = HeightRows(*empty_rows(*_IMAGE))
    orders.form_heights(rows, choice, search, whole, out)
    rows.flags[:], out.flags[:] = int(Flag.AMBIGUOUS), 0
    orders.keep_doubt(rows, choice, search, whole, out)
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
    y, x = np.arange(_IMAGE[0]) + 0.5, np.arange(_IMAGE[1]) + 0.5
    # one tile fills whole rows, several fill parts of them
    for partition in (
        Partition.tiles(_IMAGE, 32, 0),
        Partition.tiles(_IMAGE, 12, 4),
    ):
        boxes, n = DecomposedField.boxes(partition), len(partition)
        for parts in (TensorChebyshev([2, 2], boxes, networks=n), ScaledCPIKAN(WIDTHS, DEGREE, boxes, networks=n)):
            whole = DecomposedField(partition, parts)
            GridEvaluator(whole, y, x).fill(0, np.empty(_IMAGE, np.float32))
            if slopes:
                GridSlopes(whole, y, x).add(0, np.zeros((3, *_IMAGE), np.float32))
