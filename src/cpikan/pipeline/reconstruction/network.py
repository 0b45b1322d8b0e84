"""A learned model read from its file, and the tiles it works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cpikan.images.features import FeatureSpec
from cpikan.images.model_file import load_model, shipped_model
from cpikan.images.tiles import LearnedTiles, MapUnits
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.streaming.tiling.plan import TilingSettings, plan_tiles
from cpikan.streaming.tiling.torch_model import weights_fingerprint

DEFAULT_MODEL = "wafer"
_TILE = (512, 1024)  # rows cost memory; larger tiles overlap less, but leave the cache


@dataclass(frozen=True)
class LearnedModel:
    """A network read from its file, with what it is shown and what identifies it."""

    name: str
    network: nn.Module
    features: FeatureSpec
    fingerprint: str
    sigma_factors: tuple[tuple[float, float], ...] = ()

    @classmethod
    def open(cls, name: str | None, stack: FrameStack) -> LearnedModel:
        """Read a model file, or the shipped model of that name; InputError where it was made for other wavelengths."""
        network, card = load_model(name or shipped_model(DEFAULT_MODEL))
        card.features.check(stack.acquisition.wavelengths_nm)
        return cls(name or DEFAULT_MODEL, network, card.features, weights_fingerprint(network), card.sigma_factors)

    def tiles(self, units: MapUnits, **how: Any) -> LearnedTiles:
        """Set the network up for tiles; ``how`` as `LearnedTiles` takes it."""
        return LearnedTiles(self.network, self.features, units, fingerprint=self.fingerprint, **how)

    def tiling(self, tile: int | None, overlap: int | None, shape: tuple[int, int]) -> TilingSettings:
        """Choose tiles and overlaps for a map of ``shape``; InputError where the network cannot work with them."""
        tiles = self.tiles(MapUnits(1.0, 1.0))
        sizes = tuple(_multiple(side, tiles.multiple_px) for side in _TILE) if tile is None else (tile, tile)
        if overlap is None:
            field = tiles.receptive_field_px
            least = min(sizes) // 4 if isinstance(field, str) else 2 * (field // 2)
            overlap = min(_multiple(least, tiles.multiple_px), min(sizes) - 1)
        settings = TilingSettings(tile=sizes, overlap=overlap, threads=1)  # of each tile
        assert tiles.channels_in is not None
        plan_tiles(tiles, (tiles.channels_in, *shape), settings)
        return settings


def _multiple(size: int, step: int) -> int:
    """Round ``size`` up to the next multiple of ``step``."""
    return -(-size // step) * step
