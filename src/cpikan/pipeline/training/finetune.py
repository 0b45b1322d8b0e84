"""Fine-tuning of a model on the user's own frames: no truth is needed, the frames judge."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.images.losses.kinds import build_losses
from cpikan.images.model_file import load_model
from cpikan.images.patches.settings import PatchSettings
from cpikan.images.training.anchor import Anchor
from cpikan.images.training.config import DataConfig, OptimizerConfig, TrainConfig, TrainingConfig
from cpikan.images.training.engine import Engine
from cpikan.images.training.loop import Trained
from cpikan.option import option
from cpikan.pipeline.training.train import Place, TrainingRun, run_training
from cpikan.pipeline.training.training_stacks import open_training_stacks
from cpikan.streaming.events import Events
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.tiling.torch_model import weights_fingerprint

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
        """The settings as those of a training run, for a network that takes multiples of ``multiple_px`` and for images
        (H, W) of that shape or larger."""
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


def finetune(
    model: Path | str,
    stack: Path | str,
    output: Path | str,
    settings: FinetuneSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Events = True,
) -> dict[str, Any]:
    """Fit ``model`` (a file, or the name of a shipped one) to the frames of ``stack`` (a stack, or a folder of stacks) by
    recorrupted frames, and write it to ``output`` where it explains held-out rows better than before.

    Returns the summary that `cpikan finetune --json` prints: that of `train`, and ``changed`` with the held-out losses before
    and after. Raises InputError for bad settings and stacks, and where the model got no better (unless ``keep_worse``); then
    no model is written.
    """
    place, asked = Place(Path(output), resume, overwrite), settings or FinetuneSettings()
    place.check()
    network, card = load_model(model)
    multiple = network.multiple_px
    engine = Engine(asked.config(multiple, (512, 512)))
    try:
        with PeakMemory() as memory:
            sources = open_training_stacks(
                [stack], asked.cache, progress=progress if engine.main else False, frames=True
            )
            for source in sources:
                card.features.check(source.wavelengths_nm)
            least = (min(source.shape[0] for source in sources), min(source.shape[1] for source in sources))
            config = replace(asked.config(multiple, least), features=card.features)
            terms = build_losses(config.loss)
            if asked.anchor:
                terms.append((asked.anchor, Anchor(network, card.features)))
            identity = {
                "model": str(model),
                "began with": weights_fingerprint(network),
                "anchor": asked.anchor,
                "stacks": [source.name for source in sources],
            }
            run = TrainingRun(config, sources, [], network.train(), terms, identity)

            def judge(trained: Trained) -> dict[str, Any]:
                return {"model": str(model), "settings": asdict(asked), "changed": _changed(trained, asked.keep_worse)}

            return run_training(run, place, engine, memory, progress=progress, judge=judge)
    finally:
        engine.close()


def _changed(trained: Trained, keep_worse: bool) -> dict[str, Any]:
    """Held-out losses before and after; InputError where the physics loss did not fall."""
    before, after = trained.position.first_validation, trained.position.best_validation or trained.position.validation
    was, now = before["physics"], after["physics"]
    if not now < was and not keep_worse:
        raise InputError(
            f"the held-out physics loss went from {was:.6g} to {now:.6g} in {trained.position.step} steps: the model got no "
            "better, nothing is written; give more frames or a lower rate, or keep it by --keep-worse"
        )
    keys = [key for key in before if key not in ("step", "resolution", "pixels")]
    return {key: {"before": before[key], "after": after[key]} for key in keys}
