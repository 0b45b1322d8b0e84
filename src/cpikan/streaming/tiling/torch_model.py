"""PyTorch networks as models on tiles."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from cpikan.errors import InputError, check_type
from cpikan.streaming.tiling.model import ReceptiveField, check_attributes


class TorchTiles:
    """A ``torch.nn.Module`` (N, C, h, w) -> (N, C', h, w) as a TileModel, in evaluation mode and without gradients.

    ``channels_last`` keeps the tiles in the layout that convolutions are fastest in. Networks must not depend on the
    other tiles of a batch (no batch statistics: evaluation mode uses the stored ones). ``fingerprint`` is that of the
    weights: a run is resumed with the same network only.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        receptive_field_px: ReceptiveField,
        channels: tuple[int, int],
        multiple_px: int = 1,
        batch: int = 4,
        device: str = "cpu",
        channels_last: bool = True,
    ) -> None:
        check_type("module", module, torch.nn.Module, "a torch module")
        check_attributes(receptive_field_px, multiple_px, batch)
        if len(channels) != 2:
            raise InputError(f"channels {channels}: give how many go in and how many come out")
        self.receptive_field_px, self.multiple_px, self.batch = receptive_field_px, multiple_px, batch
        self.channels_in: int | None = channels[0]
        self.channels_out: int | None = channels[1]
        self._device = _device(device)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._module = module.eval().to(self._device, memory_format=self._format)  # type: ignore[call-overload]
        self.fingerprint = weights_fingerprint(module)

    def for_process(self, number: int) -> TorchTiles:
        """Move to one of several devices, where ``device`` is "cuda": process n takes device n, modulo their number."""
        if self._device.type == "cuda" and self._device.index is None and torch.cuda.device_count() > 1:
            self._device = torch.device("cuda", number % torch.cuda.device_count())
            self._module = self._module.to(self._device)
        return self

    def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
        with torch.inference_mode():
            given = torch.from_numpy(tiles).to(self._device).contiguous(memory_format=self._format)
            return self._module(given).float().cpu().numpy()


def _device(name: str) -> torch.device:
    """Find a device of torch; raises InputError for none of its names."""
    try:
        return torch.device(name)
    except (RuntimeError, TypeError):
        raise InputError(f"device {name!r} is none of torch's: give cpu, cuda or cuda:0") from None


def weights_fingerprint(module: torch.nn.Module) -> str:
    """Hash the network's form and weights by SHA-256."""
    digest = hashlib.sha256(str(module).encode())
    for name, weights in module.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
