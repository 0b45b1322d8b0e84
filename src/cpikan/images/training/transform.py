"""Changes of a batch before the network is shown it: recorrupted frames, or a coarser resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cpikan.errors import InputError
from cpikan.images.batch import PatchBatch
from cpikan.images.curriculum import Curriculum, decimate
from cpikan.images.features import FeatureSpec
from cpikan.images.self_supervision import recorrupt


@dataclass(frozen=True)
class PatchTransform:
    """Recorruption with ``alpha`` (0: none) and the stage of a ``curriculum`` (None: full resolution)."""

    spec: FeatureSpec
    alpha: float = 0.0
    curriculum: Curriculum | None = None

    def __post_init__(self) -> None:
        if self.alpha and self.curriculum is not None and self.curriculum.stages[0] > 1:
            raise InputError(
                "[training] recorrupt under a curriculum: frames cannot be decimated, so nothing could judge them; leave one "
                "of the two out"
            )

    @property
    def last(self) -> bool:
        """Tell whether no change is to come."""
        return self.curriculum is None or self.curriculum.last

    @property
    def factor(self) -> int:
        """Return the side in pixels of the blocks that are one pixel now."""
        return 1 if self.curriculum is None else self.curriculum.factor

    def apply(self, batch: PatchBatch, key: tuple[int, ...]) -> PatchBatch:
        """Make the batch to learn from; noise is drawn from ``key`` alone, so a resumed run draws the same."""
        if self.alpha:
            seed = int(np.random.SeedSequence(key).generate_state(1, np.uint32)[0])
            generator = torch.Generator(batch.unit_nm.device).manual_seed(seed)
            batch = recorrupt(batch, self.alpha, generator)
        return decimate(batch, self.factor, self.spec)

    def on_validation(self, loss: float, step: int) -> bool:
        """Tell the curriculum a validation loss; True where it goes on to its next stage."""
        return self.curriculum is not None and self.curriculum.update(loss, step)
