"""Every setting of training, patches, features, losses and networks changes what comes out, or says that it does not."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_scenes import guess, scene
from patch_files import known_light, stack_files
from torch import Tensor

from cpikan.images.curriculum import Curriculum
from cpikan.images.features import FeatureSpec, features
from cpikan.images.losses import LOSSES, AdaptiveLoss
from cpikan.images.losses.base import mean_loss
from cpikan.images.models.kinds import MODELS, build_model
from cpikan.images.patches.dataset import WaferPatchDataset
from cpikan.images.patches.settings import PatchSettings
from cpikan.images.patches.source import StackSource
from cpikan.images.training.config import DataConfig, OptimizerConfig, TrainConfig, TrainingConfig, config_of
from cpikan.images.training.engine import Engine
from cpikan.images.training.feed import PatchFeed
from cpikan.pipeline.training import train
from training_cases import config, one_thread, trainer  # noqa: F401 - a fixture


def digest(*values: Any) -> str:
    """A hash of tensors, and of the text of all else."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.detach().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return found.hexdigest()


def counted(kind: type) -> list[str]:
    """The settings of a dataclass that change what comes out."""
    return [each.name for each in fields(kind) if each.metadata.get("affects") not in ("speed", "files", "machine")]


class Lines:
    """A log that remembers."""

    bytes = 0

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def write(self, kind: str, step: int, **values: Any) -> None:
        self.lines.append((kind, step, values))


def trained(told: TrainConfig, losses: Any = None) -> str:
    log = Lines()
    found = trainer(told, log=log, losses=losses).run()
    return digest(*found.weights.values(), log.lines, replace(found.position, seconds=0.0))


# --- [training] and [optimizer] --------------------------------------------------------------------------------------

SHORT = {"steps": 6, "validate_steps": 3, "checkpoint_steps": 2}
OPTIMIZER = {
    "name": "soap",
    "rate": 2e-3,
    "weight_decay": 0.5,
    "betas": (0.5, 0.99),
    "schedule": "constant",
    "warmup_steps": 4,
    "final_share": 0.5,
    "clip": 1e-3,
}
TRAINING = {
    "steps": 7,
    "accumulate": 2,
    "precision": "bf16",
    "ema": 0.9,
    "validate_steps": 2,
    "log_steps": 2,
    "seconds": 1e-6,
}


@pytest.fixture(scope="module")
def plain() -> str:
    return trained(config(training=SHORT))


@pytest.mark.parametrize("name", counted(OptimizerConfig))
def test_optimizer(name: str, plain: str) -> None:
    more = {"weight_decay": 0.0} if name == "name" else {}
    assert trained(config(training=SHORT, optimizer={name: OPTIMIZER[name], **more})) != plain


class Diverging:
    """A loss that is NaN once, at its sixth gradient."""

    name, needs = "diverging", frozenset()

    def __init__(self) -> None:
        self.count = 0

    def weight(self, batch: Any) -> Tensor:
        return batch.planes.valid.sum().double()

    def sum(self, prediction: Any, batch: Any) -> Tensor:
        self.count += torch.is_grad_enabled()
        value = (prediction.log_variance.double() ** 2).sum()
        return value * torch.nan if self.count == 6 and torch.is_grad_enabled() else value


@pytest.mark.parametrize("name", counted(TrainingConfig))
def test_training(name: str, plain: str) -> None:
    if name in ("checkpoint_steps", "rollbacks"):  # where a divergence goes back to, and whether it does
        results = [
            trained(config(training={**SHORT, name: value}), [(1.0, Diverging())])
            for value in (SHORT.get(name, 3), {"checkpoint_steps": 3, "rollbacks": 0}[name])
        ]
    elif name in ("patience", "least_gain"):  # an end before the steps are done
        slow = {**SHORT, "validate_steps": 1, "patience": 2}
        tables = [{**slow, name: value} for value in ((0, 1) if name == "patience" else (1e-3, 0.0))]
        results = [trained(config(training=table, optimizer={"rate": 1e-6})) for table in tables]
    elif name == "recorrupt":
        batch = scene()
        results = [
            digest(*train.PatchTransform(FeatureSpec(), value).apply(batch, (1, 2)).planes[:2]) for value in (1.0, 2.0)
        ]
    else:
        results = [plain, trained(config(training={**SHORT, name: TRAINING[name]}))]
    assert results[0] != results[1]


# --- [data] and [patches] --------------------------------------------------------------------------------------------

DATA = {
    "folders": ("a",),
    "simulated": {"count": 1},
    "validation": ("a",),
    "validation_simulated": {"count": 1},
    "validation_share": 0.5,
    "validation_patches": 5,
    "weights": (1.0, 9.0),
    "batch": 3,
    "skip_corrupt": True,
}
PATCHES = {
    "size": 24,
    "order": "regular",
    "count": 5,
    "overlap": 4,
    "pairs": True,
    "shuffle": False,
    "least_valid": 0.9,
    "rows": (0.0, 0.5),
    "turned": False,
    "permuted": False,
    "piston_units": 0.0,
    "wrong_orders": 0.2,
    "frames": False,
    "phases": True,
    "modulation": True,
    "finest_period": 1e-3,
    "seed": 5,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[StackSource]:
    place = tmp_path_factory.mktemp("known")
    invalid = torch.zeros(72, 90, dtype=torch.bool)
    invalid[::2, :45] = True
    return [
        StackSource(stack_files(place / str(seed), known_light(seed), name=str(seed), invalid=invalid.numpy()))
        for seed in (1, 2)
    ]


def held(batch: Any) -> str:
    found = [plane for plane in batch.planes if plane is not None]
    frames = [] if batch.frames is None else [getattr(batch.frames, each.name) for each in fields(batch.frames)]
    return digest(*found, *frames, batch.unit_nm, batch.place, batch.joints, batch.truth_nm)


@pytest.mark.parametrize("name", counted(DataConfig))
def test_data(name: str, sources: list[StackSource], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(config())

    def result(**changed: Any) -> list[str]:
        """What stacks are asked for, and the first batches of two epochs and of validation."""
        asked: list[Any] = []
        monkeypatch.setattr(train, "open_training_stacks", lambda *one, **more: asked.append((one, more)) or [])
        monkeypatch.setattr(train, "simulated_stacks", lambda *one, **more: asked.append((one, more)) or [])
        given = {"folders": ("b",), "validation_patches": 4, "workers": 0, "batch": 2, "validation_share": 0.4}
        told = config(data={**given, **changed}, patches={"size": 16, "count": 8})
        train._stacks(told, engine, False)
        feed = PatchFeed(sources, (), told, engine)
        return [
            repr(asked),
            *(held(one) for epoch in (0, 1) for one in feed.batches(epoch, 0)),
            *map(held, feed.validation()),
        ]

    value = DATA[name]
    assert result(**{name: list(value) if isinstance(value, tuple) else value}) != result()
    engine.close()


@pytest.mark.parametrize("name", counted(PatchSettings))
def test_patches(name: str, sources: list[StackSource]) -> None:
    base: dict[str, Any] = {"size": 16, "frames": True, "least_valid": 0.4, "count": 12}
    more: dict[str, dict[str, Any]] = {
        "order": {"count": None},
        "overlap": {"count": None, "order": "regular"},
        "pairs": {"overlap": 4, "count": None, "order": "regular"},
        "shuffle": {"count": None, "order": "regular"},
        "finest_period": {"piston_units": 1.0},
    }
    base |= more.get(name, {})

    def result(**changed: Any) -> list[str]:
        dataset = WaferPatchDataset(sources, PatchSettings(**{**base, **changed}))
        return [held(dataset[epoch, index]) for epoch in (0, 1) for index in range(min(len(dataset), 12))]

    assert result(**{name: PATCHES[name]}) != result()


# --- [features], [curriculum], [loss], [model] -----------------------------------------------------------------------


@pytest.mark.parametrize("name", counted(FeatureSpec))
def test_features(name: str) -> None:
    batch = scene()
    phases = torch.rand(len(batch), 1, *batch.planes.height_nm.shape[1:])
    planes = batch.planes._replace(phase_rad=phases, modulation=1.1 * torch.ones_like(batch.planes.height_nm))
    other = {"periods": (8.0,), "means_px": (3,), "wavelengths_nm": (633.0,), "modulation": True}[name]
    plain, changed = (features(planes, spec, batch.unit_nm) for spec in (FeatureSpec(), FeatureSpec(**{name: other})))
    assert plain.shape != changed.shape


@pytest.mark.parametrize("name", counted(Curriculum))
def test_curriculum(name: str) -> None:
    other = {"stages": (8, 1), "patience": 1, "least_gain": 0.5, "most_steps": 2}[name]

    def stages(**settings: Any) -> list[int]:
        made = Curriculum(**settings)
        return [made.factor for step in range(12) if made.update(1.0 / (1 + step // 3), step) is not None]

    assert stages(**{name: other}) != stages()


OPTIONS = {
    "supervised": {"beta": 0.1, "huber": 0.5},
    "height": {"delta": 3.0},
    "orders": {"rare": 2.0},
    "multiscale": {"levels": (0.5, 0.5), "delta": 3.0},
    "smoothness": {"delta": 0.5, "threshold": 1.5},
    "interface_al": {"penalty": 2.0, "growth": 3.0, "most": 2.5, "shrink": 1.5, "every": 2},
}
CASES = [(name, option.name) for name, kind in LOSSES.items() for option in fields(kind)]


@pytest.mark.parametrize(("name", "option"), CASES)
def test_options_of_losses(name: str, option: str) -> None:
    batch = scene()
    wrong = batch.planes.height_nm.clone()
    wrong[:, :4] += batch.half_wave_nm[0]
    batch = replace(batch, planes=batch.planes._replace(height_nm=wrong))
    prediction = guess(batch)

    def result(**options: Any) -> list[float]:
        loss, found = LOSSES[name](**options), []
        for _ in range(5):
            found.append(float(mean_loss(loss, prediction, batch).detach()))
            if isinstance(loss, AdaptiveLoss):
                loss.after_step(prediction, batch)
        return found

    common = {"every": 1} if name == "interface_al" and option != "every" else {}
    assert result(**common, **{option: OPTIONS[name][option]}) != result(**common)


SIZES = {
    "channels_in": 2,
    "channels_out": 4,
    "widths": [4],
    "width": 5,
    "modes": 2,
    "depth": 3,
    "padding_px": 3,
    "rank": 0.9,
    "levels": 0,
    "margin_px": 3,
}
SMALL = {"channels_in": 1, "channels_out": 3, "widths": [4, 6], "depth": 1, "width": 4, "modes": 3}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in MODELS for name in MODELS[kind].settings()])
def test_settings_of_networks(kind: str, name: str) -> None:
    known = MODELS[kind].settings()
    base = {key: value for key, value in SMALL.items() if key in known}

    def result(**changed: Any) -> str:
        torch.manual_seed(0)
        network = build_model(kind, {**base, **changed})
        torch.manual_seed(1)
        for weights in network.parameters():
            weights.data += 0.1 * torch.randn(weights.shape)
        return digest(network(torch.randn(1, network.channels_in, 16, 16)))

    assert result(**{name: SIZES[name]}) != result()


def test_every_table_of_a_config_is_one_of_these() -> None:
    tables = {"data", "patches", "features", "optimizer", "training"}
    assert {each.name for each in fields(TrainConfig)} == {*tables, "seed", "model", "loss", "curriculum"}
    assert asdict(config_of({})) == asdict(TrainConfig())
    assert Path(TrainConfig().data.cache).name == "cache"
