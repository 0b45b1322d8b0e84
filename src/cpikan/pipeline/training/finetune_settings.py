"""What a user may ask of a fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cpikan.errors import InputError
from cpikan.option import option

if TYPE_CHECKING:
    from cpikan.images.training.config import TrainConfig

_SIZE_PX, _HELD_OUT = 128, 0.125


@dataclass(frozen=True)
class FinetuneSettings:
    """How a model is fitted to frames; the losses are chi-squared of recorrupted frames (share of noise ``recorrupt``) and
    ``anchor`` times the change of what frames do not judge (doubt of orders, predicted variance). 0 seconds: no limit."""

    steps: int = option(300, "at most so many steps", metavar="N")
    rate: float = option(2e-4, "of AdamW")
    seconds: float = option(0.0, "at most so many seconds (default: no limit)", metavar="S")
    batch: int = option(4, "patches of a step", metavar="N")
    size: int | None = option(None, "side of a patch (default: 128, or a quarter of smaller images)", metavar="PX")
    patches: int = 400
    held_out: int = 48
    held_out_share: float | None = option(None, "last rows that judge (default: 0.125, or a patch)", metavar="X")
    recorrupt: float = option(1.0, "share of noise added to frames", metavar="X")
    anchor: float = option(0.01, "weight of keeping the other answers", metavar="X")
    ema: float = 0.98
    validate_steps: int = 50
    patience: int = 4
    seed: int = option(0, "of patches and noise")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("off", "off or bf16, on CUDA also fp16")
    cache: str = option("cache", "folder for height maps of the stacks", metavar="DIR")
    keep_worse: bool = option(False, "write a model that got no better, too")
    loss: dict[str, Any] = field(default_factory=lambda: {"physics": 1.0})

    def config(self, multiple_px: int, shape: tuple[int, int]) -> TrainConfig:
        """Make the settings of a training run.

        For a network that takes multiples of ``multiple_px`` and for images (H, W) of ``shape`` or larger.
        """
        from cpikan.images.patches.settings import PatchSettings  # torch: help must not wait for it
        from cpikan.images.training.config import DataConfig, OptimizerConfig, TrainConfig, TrainingConfig

        if not self.recorrupt > 0:
            raise InputError(
                f"recorrupt {self.recorrupt}: on the frames a height came from no other explains them better, so give a share "
                "of noise above 0, such as 1"
            )
        if self.anchor < 0:
            raise InputError(f"anchor {self.anchor}: give 0 or more")
        wanted = min(_SIZE_PX, min(shape) // 4) if self.size is None else self.size
        size = max(8, multiple_px, wanted // multiple_px * multiple_px)
        share = self.held_out_share
        if share is None:
            share = min(0.5, max(_HELD_OUT, (size + 1) / shape[0]))  # a row more: shares are rounded to rows
        return TrainConfig(
            seed=self.seed,
            data=DataConfig(
                batch=self.batch,
                validation_patches=self.held_out,
                validation_share=share,
                cache=self.cache,
            ),
            patches=PatchSettings(size=size, count=self.patches),
            loss=dict(self.loss),
            optimizer=OptimizerConfig(rate=self.rate, weight_decay=0.0, warmup_steps=min(20, self.steps)),
            training=TrainingConfig(
                steps=self.steps,
                seconds=self.seconds,
                recorrupt=self.recorrupt,
                ema=self.ema,
                validate_steps=min(self.validate_steps, self.steps),
                patience=self.patience,
                least_gain=1e-4,
                device=self.device,
                precision=self.precision,
            ),
        )
