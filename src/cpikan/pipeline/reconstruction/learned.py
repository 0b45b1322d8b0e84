"""The pass of a learned model: a map in scratch arrays, run through the network in overlapping tiles, corrections kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from cpikan.images.features import FeatureSpec, noise_unit_nm
from cpikan.images.model_file import load_model, shipped_model
from cpikan.images.tiles import LearnedTiles
from cpikan.pipeline.reconstruction.learned_scratch import CORRECTION, FLAGS, SIGMA
from cpikan.pipeline.reconstruction.row_sink import RowSink
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.flags import Flag
from cpikan.storage.scratch import ScratchArrays
from cpikan.streaming.engine import ProgressSink
from cpikan.streaming.journal import Journal
from cpikan.streaming.tiling.infer import run_tiles
from cpikan.streaming.tiling.plan import plan_tiles
from cpikan.streaming.tiling.settings import TilingSettings
from cpikan.streaming.tiling.source import ImageSource
from cpikan.streaming.tiling.torch_model import weights_fingerprint

DEFAULT_MODEL = "wafer"
_TILE = (512, 1024)  # rows cost memory; larger tiles overlap less, but leave the cache
_SAMPLED_ROWS = 128  # pairs of rows that the noise unit is estimated on
_INVALID = np.uint8(Flag.INVALID)
PhaseRows = Callable[[int, int], np.ndarray]  # rows [start, stop) as (L, stop - start, W), radians


@dataclass(frozen=True)
class LearnedModel:
    """A network read from its file, with what it is shown and what identifies it."""

    name: str
    network: nn.Module
    features: FeatureSpec
    fingerprint: str

    @classmethod
    def open(cls, name: str | None, stack: FrameStack) -> LearnedModel:
        """Read a model file, or the shipped model of that name; InputError where it was made for other wavelengths."""
        network, card = load_model(name or shipped_model(DEFAULT_MODEL))
        card.features.check(stack.acquisition.wavelengths_nm)
        return cls(name or DEFAULT_MODEL, network, card.features, weights_fingerprint(network))

    def tiles(self, **how: Any) -> LearnedTiles:
        """The network on tiles; ``how`` as `LearnedTiles` takes it."""
        return LearnedTiles(self.network, self.features, fingerprint=self.fingerprint, **how)

    def tiling(self, tile: int | None, overlap: int | None, shape: tuple[int, int]) -> TilingSettings:
        """Tiles and overlaps for a map of ``shape``; InputError where the network cannot work with what was asked for."""
        tiles = self.tiles(unit_nm=1.0, half_wave_nm=1.0)
        sizes = tuple(_multiple(side, tiles.multiple_px) for side in _TILE) if tile is None else (tile, tile)
        if overlap is None:
            field = tiles.receptive_field_px
            least = min(sizes) // 4 if isinstance(field, str) else 2 * (field // 2)
            overlap = min(_multiple(least, tiles.multiple_px), min(sizes) - 1)
        settings = TilingSettings(tile=sizes, overlap=overlap, threads=1)  # of each tile
        assert tiles.channels_in is not None
        plan_tiles(tiles, (tiles.channels_in, *shape), settings)
        return settings


@dataclass(frozen=True)
class LearnedPass:
    """One run of a model over heights in ``scratch``; ``rows`` gives rows of ``height_nm``, ``sigma_nm``, ``flags`` and
    ``modulation`` of the map, ``phases`` those of the frames where the network takes them."""

    model: LearnedModel
    scratch: ScratchArrays
    journal: Journal
    rows: Callable[[int, int], dict[str, np.ndarray]]
    phases: PhaseRows | None
    half_wave_nm: float

    def run(self, settings: TilingSettings, threads: int, device: str, progress: ProgressSink) -> dict[str, Any]:
        """Fill the scratch arrays of the answer; returns the report. A run that was killed goes on where it stopped."""
        unit, brightness = self._sampled()
        spec = self.model.features
        tiles = self.model.tiles(unit_nm=unit, half_wave_nm=self.half_wave_nm, threads=threads, device=device)
        shape = (3 + len(spec.wavelengths_nm) + int(spec.modulation), *self.scratch.shape)

        def fill(start: int, stop: int, out: np.ndarray) -> None:
            rows = self.rows(start, stop)
            valid = ((rows["flags"] & _INVALID) == 0) & np.isfinite(rows["height_nm"])
            out[0], out[1], out[2] = rows["height_nm"], rows["sigma_nm"], valid
            np.copyto(out[:2], 0, where=~valid)  # NaN would spread through the convolutions
            next_plane = 3
            if spec.wavelengths_nm:
                assert self.phases is not None
                next_plane += len(spec.wavelengths_nm)
                out[3:next_plane] = np.nan_to_num(self.phases(start, stop))
            if spec.modulation:
                out[next_plane] = rows["modulation"] / np.float32(brightness)

        source = ImageSource(shape, False, fill, lambda: "", lambda: None)
        report = run_tiles(tiles, source, _ScratchOut(self.scratch, self.journal, progress), settings)
        return {
            "model": self.model.name,
            "model_sha256": self.model.fingerprint,
            "unit_nm": unit,
            "device": device,
            **report,
        }

    def _sampled(self) -> tuple[float, float]:
        """The noise unit and the median modulation, from pairs of rows spread over the image."""
        height = self.scratch.shape[0]
        firsts = sorted({i * max(height - 2, 0) // max(_SAMPLED_ROWS - 1, 1) for i in range(_SAMPLED_ROWS)})
        parts = [self.rows(first, min(first + 2, height)) for first in firsts]
        heights, sigmas = (np.stack([part[n] for part in parts]) for n in ("height_nm", "sigma_nm"))
        valid = (np.stack([part["flags"] for part in parts]) & _INVALID) == 0
        valid &= np.isfinite(heights)
        power = np.stack([part["modulation"] for part in parts])[valid]
        # pairs of rows lie on each other: differences down the columns are those of neighbours within a pair
        pairs = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, 0, 1))) for a in (heights, sigmas, valid)]
        height_nm, sigma_nm, inside = (pair.reshape(pair.shape[0], -1) for pair in pairs)
        return noise_unit_nm(height_nm, sigma_nm, inside, self.model.features.periods[0]), float(
            np.median(power)
        ) if len(power) else 1.0


class _ScratchOut:
    """Rows of the model's answer into scratch arrays, journaled."""

    def __init__(self, scratch: ScratchArrays, journal: Journal, progress: ProgressSink) -> None:
        self._progress = progress
        self._sink = RowSink(scratch, journal, "learned", scratch.shape, durable=False)

    @property
    def first_row(self) -> int:
        return self._sink.first_row

    def write(self, start: int, rows: np.ndarray) -> None:
        """Rows (3, n, W); those done before, which come again on the way to the next ones, are dropped."""
        skip = max(self.first_row - start, 0)
        if skip < rows.shape[1]:
            correction, sigma, flags = rows[:, skip:]
            self._sink.write(start + skip, {CORRECTION: correction, SIGMA: sigma, FLAGS: flags.astype(np.uint8)})
            self._progress.advance(correction.shape[0])

    def finish(self) -> None:
        self._sink.finish()

    def commit(self, report: dict[str, Any]) -> None:
        """The report stays with the caller."""

    def release(self) -> None:
        """The scratch arrays are the caller's."""


def _multiple(size: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-size // step) * step
