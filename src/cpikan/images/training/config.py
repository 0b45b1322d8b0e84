"""What a training run is told: frozen tables, read from TOML, kept as JSON with what they produced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpikan.errors import WHOLE, InputError, check_name, check_type
from cpikan.images.features import FeatureSpec
from cpikan.images.patches.settings import PatchSettings
from cpikan.images.training.tables import from_table
from cpikan.storage.atomic import plain, refuse_special
from cpikan.storage.documents import parse_toml

OPTIMIZERS = ("adamw", "soap")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("off", "bf16", "fp16")
ENGINES = ("accelerate", "deepspeed")
_DERIVED = {  # settings of patches that other tables decide
    "frames": "[loss]",
    "phases": "[features] wavelengths_nm",
    "modulation": "[features] modulation",
    "finest_period": "[features] periods",
    "seed": "seed",
    "rows": "[data] validation_share",
}
_LARGEST_FILE = 2**20
# what a setting changes beside the model that comes out; those without a mark change the model
_SPEED, _FILES, _MACHINE = ({"affects": what} for what in ("speed", "files", "machine"))


@dataclass(frozen=True)
class DataConfig:
    """[data]: where patches come from. ``folders`` are stacks or folders of stacks, ``simulated`` the settings of simulated
    ones; those for validation apart, or else the last ``validation_share`` of the rows of every stack is held out.

    ``batch`` counts the patches (or pairs) of one pass in each process, ``validation_patches`` those that are validated on (0:
    none); ``weights`` are the shares of the folders and then of the simulated stacks in the draw, one for each stack.
    """

    folders: tuple[str, ...] = ()
    simulated: dict[str, Any] = field(default_factory=dict)
    validation: tuple[str, ...] = ()
    validation_simulated: dict[str, Any] = field(default_factory=dict)
    validation_share: float = 0.125
    validation_patches: int = 64
    weights: tuple[float, ...] = ()
    cache: str = field(default="cache", metadata=_FILES)
    batch: int = 8
    workers: int = field(default=2, metadata=_SPEED)
    prefetch: int | None = field(default=None, metadata=_SPEED)
    processes: bool = field(default=False, metadata=_SPEED)
    skip_corrupt: bool = False

    def __post_init__(self) -> None:
        _at_least("batch", self.batch, 1, "[data]")
        _at_least("validation_patches", self.validation_patches, 0, "[data]")
        if not 0 < self.validation_share < 1:
            raise InputError(
                f"[data] validation_share = {self.validation_share}: give a share of the rows, such as 0.125"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """[optimizer]: ``rate`` after ``warmup_steps``, constant or falling as a cosine to ``final_share`` of it; the length of the
    gradient is bounded by ``clip`` (0: not)."""

    name: str = "adamw"
    rate: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    schedule: str = "cosine"
    warmup_steps: int = 50
    final_share: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_name("optimizer", self.name, OPTIMIZERS)
        check_name("schedule", self.schedule, SCHEDULES)
        _at_least("warmup_steps", self.warmup_steps, 0, "[optimizer]")
        _within("final_share", self.final_share, 0, 1, "[optimizer]")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"[optimizer] betas = {list(self.betas)}: give two numbers in [0, 1), such as [0.9, 0.99]")
        if not self.rate > 0 or self.weight_decay < 0 or self.clip < 0:
            raise InputError(
                f"[optimizer] rate {self.rate}, weight_decay {self.weight_decay}, clip {self.clip}: give a rate above 0, "
                "the others 0 or more"
            )
        if self.name == "soap" and self.weight_decay:
            raise InputError("[optimizer] weight_decay with soap: SOAP here has none, set weight_decay = 0")


@dataclass(frozen=True)
class TrainingConfig:
    """[training]: how long, how exact, on what. A step takes ``accumulate`` batches; 0 switches ``ema``, ``patience``,
    ``seconds`` and ``recorrupt`` (the share of noise of recorrupted frames) off."""

    steps: int = 2000
    accumulate: int = 1
    precision: str = "off"
    checkpointing: bool = field(default=False, metadata=_SPEED)
    ema: float = 0.0
    validate_steps: int = 100
    patience: int = 0
    least_gain: float = 1e-3
    checkpoint_steps: int = 50
    log_steps: int = 10
    rollbacks: int = 3
    seconds: float = 0.0
    recorrupt: float = 0.0
    engine: str = field(default="accelerate", metadata=_MACHINE)
    device: str = field(default="auto", metadata=_MACHINE)
    threads: int = field(default=0, metadata=_SPEED)
    tensorboard: bool = field(default=False, metadata=_FILES)

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "validate_steps", "checkpoint_steps", "log_steps"):
            _at_least(name, getattr(self, name), 1, "[training]")
        for name in ("patience", "rollbacks", "seconds", "recorrupt", "least_gain", "threads"):
            _at_least(name, getattr(self, name), 0, "[training]")
        check_name("precision", self.precision, PRECISIONS)
        check_name("engine", self.engine, ENGINES)
        if not 0 <= self.ema < 1:
            raise InputError(f"[training] ema = {self.ema}: give 0 (off) or a share below 1, such as 0.999")
        check_name("device", self.device, ("auto", "cpu", "cuda"))


@dataclass(frozen=True)
class TrainConfig:
    """All of a run. [model], [loss] and [curriculum] are checked by those who build them."""

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    patches: PatchSettings = field(default_factory=PatchSettings)
    model: dict[str, Any] = field(default_factory=lambda: {"kind": "unet"})
    features: FeatureSpec = field(default_factory=FeatureSpec)
    loss: dict[str, Any] = field(default_factory=lambda: {"supervised": 1.0, "orders": 1.0})
    curriculum: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_type("seed", self.seed, WHOLE, "a whole number from 0 on")
        _at_least("seed", self.seed, 0, "the config:")
        parts = {"data": DataConfig, "patches": PatchSettings, "model": dict, "loss": dict, "curriculum": dict}
        parts |= {"features": FeatureSpec, "optimizer": OptimizerConfig, "training": TrainingConfig}
        for name, kind in parts.items():
            check_type(f"[{name}]", getattr(self, name), kind, "a table" if kind is dict else f"a {kind.__name__}")
        if not isinstance(self.model.get("kind", "unet"), str):
            raise InputError(f'[model] kind = {self.model["kind"]!r}: give a name, such as "unet"')

    def table(self) -> dict[str, Any]:
        """Write the config down for JSON; `config_of` gives it back."""
        table: dict[str, Any] = plain(asdict(self))
        for name in _DERIVED:
            del table["patches"][name]
        return table


def config_of(table: Mapping[str, Any]) -> TrainConfig:
    """Make a config of the tables of a TOML or JSON file; raises InputError for what is unknown or does not fit."""
    patches = table.get("patches", {})
    for name in patches if isinstance(patches, Mapping) else ():
        if name in _DERIVED:
            raise InputError(f"[patches] {name} follows from {_DERIVED[name]}: leave it out")
    return from_table(TrainConfig, table, "the config")


def read_config(path: Path | str) -> TrainConfig:
    """Read a config from a TOML file. Raises InputError for a file that is absent, too large, no TOML, or says what is
    unknown."""
    path = Path(path)
    refuse_special(path)
    if not path.is_file():
        raise InputError(f"no config {path}: give a TOML file (docs/how-to/train.md has one to copy)")
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path} has {path.stat().st_size} bytes: a config has a few dozen lines")
    try:
        table = parse_toml(path.read_bytes())
    except ValueError as failure:
        raise InputError(f"{path} is no TOML: {failure}") from failure
    return config_of(table)


def _at_least(name: str, value: float, least: int, where: str) -> None:
    if value < least:
        raise InputError(f"{where} {name} = {value}: give at least {least}")


def _within(name: str, value: float, least: float, most: float, where: str) -> None:
    if not least <= value <= most:
        raise InputError(f"{where} {name} = {value}: give a share from {least} to {most}")
