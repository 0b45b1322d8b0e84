"""Training of image models: stacks, a network and losses as a config says, or a model fitted to one's own frames."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cpikan.errors import PATH, InputError, check_path, check_type
from cpikan.images.curriculum import Curriculum
from cpikan.images.features import OUTPUTS
from cpikan.images.losses.base import Loss
from cpikan.images.losses.kinds import build_losses
from cpikan.images.model_file import ModelCard, load_model, save_model, shipped_models
from cpikan.images.models.kinds import build_model, model_settings
from cpikan.images.models.network import ImageNetwork
from cpikan.images.patches.source import StackSource
from cpikan.images.training.anchor import Anchor
from cpikan.images.training.config import TrainConfig, read_config
from cpikan.images.training.engine import Engine
from cpikan.images.training.feed import PatchFeed, reads_frames
from cpikan.images.training.log import TrainLog
from cpikan.images.training.loop import Task, Trained, Trainer
from cpikan.images.training.tables import from_table
from cpikan.images.training.transform import PatchTransform
from cpikan.pipeline.training.finetune_settings import FinetuneSettings
from cpikan.pipeline.training.simulated_stacks import SimulatedSpec, simulated_stacks
from cpikan.pipeline.training.training_stacks import open_training_stacks
from cpikan.storage.atomic import write_json
from cpikan.streaming.events import Events
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.run_store import RunStore, remove_state
from cpikan.streaming.tiling.torch_model import weights_fingerprint

_WRITE_S = 2.0  # states are written no more often than this


@dataclass(frozen=True)
class Place:
    """Where a run puts its files: the model NAME.safetensors and NAME.json, and the folder NAME.training with the resolved
    config, the log and the state."""

    output: Path
    resume: bool = False
    overwrite: bool = False

    @property
    def model(self) -> Path:
        return self.output.with_name(self.output.name.removesuffix(".safetensors").removesuffix(".json"))

    @property
    def weights(self) -> Path:
        return self.model.with_name(self.model.name + ".safetensors")

    @property
    def complete(self) -> bool:
        """Tell whether both files of the model exist."""
        return self.weights.exists() and self.model.with_name(self.model.name + ".json").exists()

    @property
    def folder(self) -> Path:
        return self.model.with_name(self.model.name + ".training")

    def check(self) -> None:
        """Check the place; InputError for files to write over, a missing folder, and flags that exclude each other."""
        if self.resume and self.overwrite:
            raise InputError("--resume with --overwrite: go on with what is there, or replace it")
        if not self.model.absolute().parent.is_dir():
            raise InputError(f"folder of {self.output} does not exist: create it first")
        if self.weights.exists() and not (self.resume or self.overwrite):
            raise InputError(f"{self.weights} exists: add --overwrite to replace it, or name another output")


Judge = Callable[[Trained], dict[str, Any]]  # what else goes into the summary; may refuse to write


@dataclass(frozen=True)
class TrainingRun:
    """A training made ready: config, stacks, network to begin with and losses; ``identity`` and the config tell runs apart."""

    config: TrainConfig
    sources: Sequence[StackSource]
    held_out: Sequence[StackSource]
    network: ImageNetwork
    terms: list[tuple[float, Loss]]
    identity: dict[str, Any]


def train(
    config: TrainConfig | Path | str,
    output: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Events = True,
) -> dict[str, Any]:
    """Train a model as ``config`` says (or the TOML file of that name) and write it to ``output``.

    Writes NAME.safetensors and NAME.json, and NAME.training/ with config.json, log.jsonl and the state that ``resume`` goes on
    from. Folders in a config file are relative to it. Returns the summary that `cpikan train --json` prints. Raises
    InputError for bad settings and stacks, ResumeError for the state of another run.
    """
    check_type("config", config, (TrainConfig, *PATH), "a TrainConfig, or the path of a TOML file")
    check_path("the output", output)
    place = Place(Path(output), resume, overwrite)
    place.check()
    told = config if isinstance(config, TrainConfig) else _anchored(read_config(config), Path(config).parent)
    with closing(Engine(told)) as engine, PeakMemory() as memory:
        sources, held_out = _stacks(told, engine, progress)
        network, terms = new_network(told), build_losses(told.loss)
        run = TrainingRun(told, sources, held_out, network, terms, {"stacks": [source.name for source in sources]})
        return run_training(run, place, engine, memory, progress=progress)


def new_network(config: TrainConfig) -> ImageNetwork:
    """Make the network of [model], its weights drawn from the seed; or load that of the file ``start`` names."""
    table = dict(config.model)
    start = table.pop("start", None)
    kind = table.pop("kind", "unet")
    if start is not None:
        if table or (kind != "unet" and "kind" in config.model):
            raise InputError(
                "[model] start with other keys: the file decides the kind and its settings, leave them out"
            )
        network, card = load_model(str(start))
        if card.features != config.features:
            raise InputError(f"[model] start {start}: it was made for other [features]; give {card.features.config()}")
        return network.train()
    for name, value in (("channels_in", config.features.channels), ("channels_out", OUTPUTS)):
        if name in table:
            raise InputError(f"[model] {name} follows from [features]: leave it out")
        table[name] = value
    model_settings(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(kind, table).train()


def run_training(
    run: TrainingRun,
    place: Place,
    engine: Engine,
    memory: PeakMemory,
    *,
    progress: bool | Events,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Train what is ready, and write the model; ``judge`` adds to the summary, or refuses."""
    began, config = time.perf_counter(), run.config
    curriculum = from_table(Curriculum, config.curriculum, "[curriculum]") if config.curriculum else None
    transform = PatchTransform(config.features, config.training.recorrupt, curriculum)
    feed = PatchFeed(run.sources, run.held_out, config, engine)
    feed.check(run.terms)
    _check_task(run, curriculum, engine)
    store = _open_store(run, place, engine)
    task = Task(run.network, config.features, run.terms, feed, transform, curriculum)
    state = None if store.saved is None else store.saved.state
    log = _open_log(config, place, state) if engine.main else None
    try:
        trainer = Trainer(task, config, engine, store, log)
        if state is not None:
            trainer.resume(state)
        finished = bool(trainer.position.stop_reason)
        trained = trainer.run(progress=progress)
    finally:
        store.close()
        if log is not None:
            log.close()
    summary = _summary(run, place, engine, trained)
    summary["peak_anonymous_mib"] = memory.peak()
    summary["already_finished"] = finished
    summary["seconds_this_run"] = time.perf_counter() - began
    if judge is not None:
        summary |= judge(trained)
    if engine.main and not (finished and place.complete):
        _save(run, place, trained, summary)
    engine.wait()
    return summary


def _check_task(run: TrainingRun, curriculum: Curriculum | None, engine: Engine) -> None:
    size, multiple = run.config.patches.size, run.network.multiple_px
    if size % multiple:
        raise InputError(f"[patches] size = {size}: this model takes multiples of {multiple}")
    if curriculum is not None:
        curriculum.check(run.terms, size, multiple)
    names = [loss.name for _, loss in run.terms]
    joints = [loss.name for _, loss in run.terms if "joints" in loss.needs]
    if joints and not run.config.patches.pairs:
        raise InputError(f"[loss] {joints[0]} needs neighbouring patches: set [patches] pairs = true and an overlap")
    if "interface_al" in names and engine.processes > 1:
        raise InputError("[loss] interface_al in several processes: its multipliers live in one; use interface")
    if "interface_al" in names and (run.config.patches.order != "regular" or run.config.patches.turned):
        raise InputError(
            "[loss] interface_al keeps a multiplier per point: set [patches] order = 'regular' and turned = false"
        )


def _stacks(
    config: TrainConfig, engine: Engine, progress: bool | Events
) -> tuple[list[StackSource], list[StackSource]]:
    """Prepare stacks to train on and held-out ones; the main process makes missing ones, the others take them."""
    data = config.data
    if not data.folders and not data.simulated:
        raise InputError(
            "[data] names no stacks: give folders, or a table simulated, such as simulated = { count = 8 }"
        )
    if not engine.main:
        engine.wait()
    shown = progress if engine.main else False
    found = [
        _open(data.folders, data.simulated, "simulated", config, shown),
        _open(data.validation, data.validation_simulated, "validation_simulated", config, shown),
    ]
    if engine.main:
        engine.wait()
    return found[0], found[1]


def _open(
    folders: Sequence[str], simulated: dict[str, Any], key: str, config: TrainConfig, progress: bool | Events
) -> list[StackSource]:
    found: list[StackSource] = []
    frames, cache = reads_frames(config), Path(config.data.cache)
    if folders:
        found += open_training_stacks(
            folders, cache, skip_corrupt=config.data.skip_corrupt, progress=progress, frames=frames
        )
    if simulated:
        spec = from_table(SimulatedSpec, simulated, f"[data] {key}")
        found += simulated_stacks(cache, spec, progress=progress, frames=frames)
    return found


def _anchored(config: TrainConfig, folder: Path) -> TrainConfig:
    """Resolve the paths of a config file from where it lies; ``start`` too, unless it names a shipped model."""
    data, model = config.data, dict(config.model)
    if "start" in model and model["start"] not in shipped_models():
        model["start"] = str(folder / str(model["start"]))

    def each(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(folder / path) for path in paths)

    return replace(
        config,
        model=model,
        data=replace(
            data, folders=each(data.folders), validation=each(data.validation), cache=str(folder / data.cache)
        ),
    )


def _open_store(run: TrainingRun, place: Place, engine: Engine) -> RunStore:
    if place.overwrite and engine.main:
        _clear(place.folder)
        place.weights.unlink(missing_ok=True)
    engine.wait()
    if place.resume and engine.owns_moments:
        raise InputError(
            "--resume with engine = 'deepspeed': the moments live in DeepSpeed; begin anew with --overwrite"
        )
    identity = {"config": run.config.table(), "processes": engine.processes, **run.identity}
    store = RunStore(place.folder, identity, resume=place.resume, every_s=_WRITE_S, reading=not engine.main)
    engine.wait()  # nothing is written before every process has looked
    if engine.main and store.saved is None:
        write_json(place.folder / "config.json", run.config.table())
    return store


def _clear(folder: Path) -> None:
    """Take away what an earlier run wrote, and nothing else."""
    remove_state(folder)
    for name in ("config.json", "log.jsonl"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def _open_log(config: TrainConfig, place: Place, state: dict[str, Any] | None) -> TrainLog:
    kept = 0 if state is None else int(state["position"]["log_bytes"])
    board = place.folder / "tensorboard" if config.training.tensorboard else None
    return TrainLog(place.folder / "log.jsonl", keep_bytes=kept, tensorboard=board)


def _summary(run: TrainingRun, place: Place, engine: Engine, trained: Trained) -> dict[str, Any]:
    at = trained.position
    return {
        "stop_reason": at.stop_reason,
        "steps": at.step,
        "epochs": at.epoch + at.batch / max(1, trained.per_epoch),
        "seconds": at.seconds,
        "samples": at.samples,
        "samples_per_second": trained.samples_per_second,
        "loss": at.loss,
        "validation": at.best_validation or at.validation or None,
        "validation_before": at.first_validation or None,
        "best_step": at.best_step if at.best_validation else at.step,
        "rollbacks": at.rollbacks,
        "parameters": sum(parameter.numel() for parameter in run.network.parameters()),
        "device": str(engine.device),
        "processes": engine.processes,
        "rank": engine.rank,
        "output": str(place.weights),
        "seed": run.config.seed,
    }


def _save(run: TrainingRun, place: Place, trained: Trained, summary: dict[str, Any]) -> None:
    run.network.load_state_dict(trained.weights)
    kept = {"seed": run.config.seed, "config": run.config.table(), "summary": summary, **run.identity}
    save_model(run.network, ModelCard.of(run.network, run.config.features, kept), place.model)


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
    for what, path in (("model", model), ("stack", stack), ("output", output)):
        check_path(f"the {what}", path)
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
