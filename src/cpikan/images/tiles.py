"""A trained network as a model on tiles: maps in, denoised heights, their sigma and flags out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cpikan.images.features import FeatureSpec, Planes, features, read_answer
from cpikan.images.sigma_scale import PLAIN, SigmaScale
from cpikan.psi.model.flags import Flag
from cpikan.streaming.tiling.model import ReceptiveField

OUT = ("correction_nm", "sigma_nm", "flags")
_REACH = 2  # pixels to either side that tell which order a doubtful pixel has
_FEWEST = 5  # of the pixels around
_LARGEST = 8.0  # sigmas: a network that corrects by more has met what it does not know, and the pixel is left alone
_SAME_ORDER = 0.2  # half waves: how near whole orders a pixel must lie for its order to be wrong
_LOG_VARIANCE = (-6.0, 4.0)


class MapUnits(NamedTuple):
    """What a map is measured in: its noise, the finest half wave, and what its sigma knows beside that noise."""

    unit_nm: float
    half_wave_nm: float
    sigma: SigmaScale = PLAIN


class LearnedTiles:
    """``network`` with its ``spec`` as a `TileModel`: planes (N, C, h, w) of height_nm, sigma_nm, validity (0 or 1), then
    phases and modulation where the network takes them; correction to the height (nm), sigma (nm) and flags come out.

    Pixels whose order the network calls wrong and that lie a whole number of half waves off the mean of their trusted
    neighbours get that mean and flag 16; those it doubts without such evidence get flag 8. Corrections beyond eight
    sigmas are not made. Nothing is said of pixels that are not valid. Each tile is one thread's work, so ``threads`` change
    no bit, and small layers need not wait for each other.
    """

    channels_out: int | None = len(OUT)

    def __init__(
        self,
        network: nn.Module,
        spec: FeatureSpec,
        units: MapUnits,
        *,
        fingerprint: str,
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        self._network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._spec, self._device = spec, torch.device(device)
        self._unit, self._half, self._scale = float(units.unit_nm), float(units.half_wave_nm), units.sigma
        field = network.receptive_field_px
        # what the network sees of a pixel reaches further, and so does the check of orders
        self.receptive_field_px: ReceptiveField = (
            "global" if isinstance(field, str) else int(field) + 2 * spec.reach_px + 2 * _REACH  # type: ignore[arg-type]
        )
        self.multiple_px = int(network.multiple_px)  # type: ignore[arg-type]
        self.channels_in: int | None = 3 + len(spec.wavelengths_nm) + int(spec.modulation)
        self.batch = threads
        self._pool: ThreadPoolExecutor | None = None
        self.fingerprint = f"{fingerprint} {self._unit!r} {self._half!r} {units.sigma!r}"

    def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.batch, "cpikan-tiles", torch.set_num_threads, (1,))
        return np.concatenate(list(self._pool.map(self._one, np.split(tiles, len(tiles)))))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the threads behind on the way to another process, which has its own."""
        return {**self.__dict__, "_pool": None}

    def _one(self, tile: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self._run(torch.from_numpy(tile).to(self._device)).cpu().numpy()

    def _run(self, tiles: Tensor) -> Tensor:
        planes = self._planes(tiles)
        unit = torch.full((len(tiles),), self._unit, device=tiles.device)
        shown = features(planes, self._spec, unit).contiguous(memory_format=torch.channels_last)
        answer = read_answer(self._network(shown), planes)
        correction = answer.height_nm - planes.height_nm
        known = planes.valid & (correction.abs() <= _LARGEST * planes.sigma_nm)
        correction = torch.where(known, correction, 0.0)
        relative = (answer.log_variance.clamp(*_LOG_VARIANCE) / 2).exp()
        sigma = torch.where(known, self._scale.sigma(relative, planes.sigma_nm), planes.sigma_nm)
        doubtful = planes.valid & (answer.order_logit > 0)
        flags = torch.zeros_like(correction)
        if doubtful.any():
            self._check_orders(planes, doubtful, correction, sigma, flags)
        return torch.stack([correction, sigma, flags], dim=1)

    def _planes(self, tiles: Tensor) -> Planes:
        many = len(self._spec.wavelengths_nm)
        valid = tiles[:, 2] > 0.5
        phase = tiles[:, 3 : 3 + many] if many else None
        modulation = tiles[:, 3 + many] if self._spec.modulation else None
        height = torch.where(valid, tiles[:, 0], 0.0)
        return Planes(height, torch.where(valid, tiles[:, 1], 0.0), valid, phase, modulation)

    def _check_orders(self, planes: Planes, doubtful: Tensor, correction: Tensor, sigma: Tensor, flags: Tensor) -> None:
        """Decide the doubtful pixels with the mean of their trusted neighbours; ``correction``, ``sigma``, ``flags`` change."""
        trusted = (planes.valid & ~doubtful).float()
        height = planes.height_nm + correction
        # about the pixel's own height: sums of large heights would lose the small differences
        base = functional.avg_pool2d(height * trusted, 2 * _REACH + 1, 1, _REACH)
        share = functional.avg_pool2d(trusted, 2 * _REACH + 1, 1, _REACH)
        mean = base / share.clamp_min(1e-6)
        enough = share * (2 * _REACH + 1) ** 2 >= _FEWEST - 0.5
        off = (planes.height_nm - mean) / self._half
        orders = off.round()
        moved = doubtful & enough & (orders != 0) & ((off - orders).abs() <= _SAME_ORDER)
        unsure = doubtful & ~moved & (orders != 0)
        spread = functional.max_pool2d(torch.where(trusted > 0, sigma, 0.0), 2 * _REACH + 1, 1, _REACH)
        correction[moved] = (mean - planes.height_nm)[moved]
        sigma[moved] = torch.maximum(spread, (off - orders).abs() * self._half)[moved]
        correction[unsure] = 0.0
        sigma[unsure] = planes.sigma_nm[unsure]
        flags[moved] = float(Flag.REFINED)
        flags[unsure] = float(Flag.AMBIGUOUS)
