"""Figures of validation against numbers counted by hand; tables of a config; the log."""

from __future__ import annotations

import json
import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from cpikan.errors import InputError
from cpikan.images.features import FeatureSpec, PatchBatch, Planes, Prediction
from cpikan.images.training.anchor import Anchor
from cpikan.images.training.log import TrainLog
from cpikan.images.training.step import FeatureModel, figures, sums
from cpikan.images.training.transform import PatchTransform
from training_cases import SIZE, config, one_thread, patches, tiny, trainer  # noqa: F401 - one_thread is a fixture


def hand_made() -> tuple[Prediction, PatchBatch]:
    """Eight pixels in a row, half wave 100 nm, sigma 2 nm; truth zero but where it is not known or nothing was measured."""
    guide = torch.tensor([3.0, -4.0, 100.0, -101.0, 2.0, 2.0, math.nan, 50.0])
    truth = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, math.nan, 0.0, 0.0])
    valid = torch.tensor([True] * 6 + [False, True])
    height = torch.tensor([1.0, -2.0, 0.0, -101.0, 0.5, 0.0, math.nan, 49.0])
    logit = torch.tensor([-1.0, 2.0, 1.0, -1.0, -1.0, 5.0, 5.0, -1.0])
    # sigmas of 2, 1, ... nm: |error| <= 1.96 sigma
    log_variance = torch.tensor([0.0, math.log(0.25), 0.0, 0.0, math.log(1e-4), 0.0, 0.0, math.log(1e6)])
    batch = PatchBatch(
        planes=Planes(guide[None, None], torch.full((1, 1, 8), 2.0), valid[None, None]),
        unit_nm=torch.tensor([2.0]),
        half_wave_nm=torch.tensor([100.0]),
        place=torch.zeros(1, 3, dtype=torch.int64),
        truth_nm=truth[None, None],
    )
    return Prediction(height[None, None], logit[None, None], log_variance[None, None]), batch


def test_figures_by_hand():
    """Right order: pixels 0, 1, 4, 7 (an error of half a half wave is still right); wrong: 2, 3; unknown: 5; invalid: 6."""
    found = figures(sums(*hand_made()))
    errors, guides = [1.0, 2.0, 0.5, 49.0], [3.0, 4.0, 2.0, 50.0]
    ratio = math.sqrt(sum(e * e for e in errors) / sum(g * g for g in guides))
    assert found["noise_ratio"] == pytest.approx(ratio)
    assert found["coverage_95"] == pytest.approx(2 / 4)  # 1 <= 3.92 and 49 <= 3919; 2 > 1.96, 0.5 > 0.039
    assert found["wrong_orders"] == pytest.approx(2 / 6)
    assert found["wrong_orders_after"] == pytest.approx(1 / 6)  # pixel 3; pixel 2 was put right
    assert (found["wrong_orders_found"], found["wrong_orders_missed"]) == (0.5, 0.5)
    assert found["false_orders"] == pytest.approx(1 / 4)
    assert found["pixels"] == 6


def test_figures_add_up_and_know_when_nothing_is_known():
    prediction, batch = hand_made()
    twice = figures(sums(prediction, batch) + sums(prediction, batch))
    assert twice["noise_ratio"] == pytest.approx(figures(sums(prediction, batch))["noise_ratio"])
    empty = figures(sums(prediction, PatchBatch(batch.planes, batch.unit_nm, batch.half_wave_nm, batch.place)))
    assert {value for name, value in empty.items() if name != "pixels"} == {None}


def test_an_exact_model_covers_and_removes_all():
    batch = patches(0, 3)
    exact = Prediction(batch.truth_nm, torch.full_like(batch.truth_nm, -9), torch.zeros_like(batch.truth_nm))
    found = figures(sums(exact, batch))
    assert (found["noise_ratio"], found["coverage_95"], found["wrong_orders_after"]) == (0.0, 1.0, 0.0)


def test_anchor_measures_the_change_of_what_frames_do_not_judge():
    spec, batch, network = FeatureSpec(), patches(0, 2), tiny(1)
    anchor = Anchor(network, spec)
    model = FeatureModel(network, spec, SIZE)
    assert float(anchor.sum(model.predict(batch), batch).detach()) == 0.0
    with torch.no_grad():
        network.unfold.bias[4:8] += 0.5  # the second answer of every folded pixel: log-odds of a wrong order
        network.unfold.bias[:4] += 7.0  # the height is free
    value = anchor.sum(model.predict(batch), batch) / anchor.weight(batch)
    assert float(value.detach()) == pytest.approx(0.25, rel=1e-5)


def test_transforms_refuse_frames_at_lower_resolution():
    from cpikan.images.curriculum import Curriculum

    with pytest.raises(InputError, match="recorrupt under a curriculum"):
        PatchTransform(FeatureSpec(), 1.0, Curriculum((2, 1)))


def test_log_keeps_what_belongs_to_the_state(tmp_path):
    path = tmp_path / "log.jsonl"
    log = TrainLog(path)
    log.write("step", 1, loss=0.5, rate=math.nan)
    kept = log.bytes
    log.write("step", 2, loss=0.4)
    log.close()
    again = TrainLog(path, keep_bytes=kept)
    again.write("step", 2, loss=0.3)
    again.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {"kind": "step", "step": 1, "loss": 0.5, "rate": None},
        {"kind": "step", "step": 2, "loss": 0.3},
    ]


class Board:
    """The part of TensorBoard's writer that is used."""

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir
        self.told: list[tuple] = []
        boards.append(self)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.told.append((tag, scalar_value, global_step))

    def close(self) -> None:
        self.told.append(("closed",))


boards: list[Board] = []


def test_tensorboard_gets_the_numbers(tmp_path, monkeypatch):
    for name in ("tensorboard", "torch.utils.tensorboard"):
        found = ModuleType(name)
        found.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, found)
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Board  # type: ignore[attr-defined]
    log = TrainLog(tmp_path / "log.jsonl", tensorboard=tmp_path / "board")
    log.write("step", 1, loss=0.5)
    log.close()
    board = boards.pop()
    assert board.log_dir == str(tmp_path / "board")
    assert board.told == [("step/loss", 0.5, 1), ("closed",)]
