"""Everything that is compiled once: loaded before the clock of a run starts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.form import form_rows
from cpikan.psi.kernels.model import Demodulation, HeightRows, OrderSearch, PhaseRows, PixelModel, empty_rows
from cpikan.psi.kernels.select import make_kernels
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.schemes import CARRE, LEAST_SQUARES

_WIDTH = 8


def warm_up(wavelengths: int, frames: int, dtype: np.dtype, scheme: str, device: str, *, fitted: bool = False) -> None:
    """Compile the kernels for such a stack, or load them from the cache on disk (seconds the first time, then tenths).

    ``fitted`` steps may come out plain or as a field over the image: both are made ready, the second on the CPU.
    """
    for model in toy_models(wavelengths, frames, scheme, fitted=fitted):
        _warm_kernels(model, wavelengths, frames, dtype, device if model.demodulation.models is None else "cpu")


def toy_models(wavelengths: int, frames: int, scheme: str, *, fitted: bool) -> list[PixelModel]:
    """A model for every way in which such a stack may be demodulated: plain, and by steps that vary over the image."""
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
    """Both ways of unwrapping a tile: a clean one, and one where the paths disagree."""
    from cpikan.psi.unwrap.unwrap import unwrap

    y, x = np.mgrid[-8:8, -8:8] + 0.5
    for phase in (np.zeros((16, 16)), np.arctan2(y, x)):
        unwrap(phase.astype(np.float32), np.ones((16, 16), np.float32), tile=12, overlap=4, threads=1)


def _toy_model(wavelengths: int, frames: int, carre: bool) -> PixelModel:
    ones = np.ones((wavelengths, frames))
    demodulation = Demodulation(
        ones, ones, ones, np.ones((wavelengths, 3)), np.ones((wavelengths, 2)), np.zeros(wavelengths), carre=carre
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
