"""Which kernels run: the CPU's, or a CUDA device's where one is there and wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.kernels.model import HeightRows, PhaseRows, PixelModel

DEVICES = "auto, cpu, cuda, cuda:N"


class PixelKernels(Protocol):
    """The pixel pass of one device; both methods fill the given host buffers and return them."""

    device: str
    band_bytes: int  # of frames per call: what keeps the device busy and the memory small

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Allocate a host buffer that the device reads or writes fastest."""
        ...

    def heights(
        self, frames: np.ndarray, first_row: int, mask: np.ndarray | None, out: HeightRows, table: np.ndarray
    ) -> HeightRows: ...

    def phases(self, frames: np.ndarray, mask: np.ndarray | None, out: PhaseRows, first_row: int = 0) -> PhaseRows: ...

    def peak_device_mib(self) -> float | None: ...

    def close(self) -> None: ...


def choose_device(name: str) -> str:
    """Turn the user's choice into ``cpu`` or ``cuda:N``; ``auto`` takes a CUDA device when there is one.

    Raises InputError for another name, or when the wanted device is not there. torch is imported only if a driver is.
    """
    if name == "cpu":
        return "cpu"
    wanted = name.partition(":")
    if name != "auto" and (wanted[0] != "cuda" or (wanted[1] and not wanted[2].isdigit())):
        raise InputError(f"unknown device {name!r}: allowed are {DEVICES}")
    count = _cuda_devices()
    index = int(wanted[2]) if wanted[2] else 0
    if name == "auto":
        return "cuda:0" if count else "cpu"
    if index >= count:
        raise InputError(f"device {name!r} is not there ({count} CUDA devices found): use --device cpu or auto")
    return f"cuda:{index}"


def make_kernels(model: PixelModel, device: str, threads: int) -> PixelKernels:
    """Make kernels for a device name as `choose_device` gives it.

    Raises InputError where the device does not serve the model: steps that vary over the image run on the CPU only.
    """
    if device == "cpu":
        from cpikan.psi.kernels.cpu import CpuKernels

        return CpuKernels(model, threads)
    if model.demodulation.models is not None:
        raise InputError(f"device {device!r} does not serve frames with tilt, defocus or offsets: use --device cpu")
    from cpikan.psi.kernels.cuda import TorchKernels

    return TorchKernels(model, device)


def _cuda_devices() -> int:
    """Count the CUDA devices; torch is asked only where the driver's device nodes exist."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
