"""Fine-tuning of a model on the user's own frames: no truth is needed, the frames judge."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.images.losses.kinds import build_losses
from cpikan.images.model_file import load_model
from cpikan.images.training.anchor import Anchor
from cpikan.images.training.engine import Engine
from cpikan.images.training.loop import Trained
from cpikan.pipeline.training.finetune_settings import FinetuneSettings
from cpikan.pipeline.training.train import Place, TrainingRun, run_training
from cpikan.pipeline.training.training_stacks import open_training_stacks
from cpikan.streaming.events import Events
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.tiling.torch_model import weights_fingerprint


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
    """Fit a model to the frames of a stack by recorrupted frames, and write it where it explains more than before.

    ``model`` is a file or the name of a shipped one, ``stack`` a stack or a folder of stacks; ``output`` is written
    where the network explains held-out rows better.

    Returns the summary that `cpikan finetune --json` prints: that of `train`, and ``changed`` with the held-out losses before
    and after. Raises InputError for bad settings and stacks, and where the model got no better (unless ``keep_worse``); then
    no model is written.
    """
    place, asked = Place(Path(output), resume, overwrite), settings or FinetuneSettings()
    place.check()
    network, card = load_model(model)
    multiple = network.multiple_px
    with closing(Engine(asked.config(multiple, (512, 512)))) as engine, PeakMemory() as memory:
        sources = open_training_stacks([stack], asked.cache, progress=progress if engine.main else False, frames=True)
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


def _changed(trained: Trained, keep_worse: bool) -> dict[str, Any]:
    """Compare held-out losses before and after; InputError where the physics loss did not fall."""
    before, after = trained.position.first_validation, trained.position.best_validation or trained.position.validation
    was, now = before["physics"], after["physics"]
    if not now < was and not keep_worse:
        raise InputError(
            f"the held-out physics loss went from {was:.6g} to {now:.6g} in {trained.position.step} steps: the model got no "
            "better, nothing is written; give more frames or a lower rate, or keep it by --keep-worse"
        )
    keys = [key for key in before if key not in ("step", "resolution", "pixels")]
    return {key: {"before": before[key], "after": after[key]} for key in keys}
