"""Settings of training that cannot be, or cannot be together, are refused with the reason; the others come back from JSON."""

from __future__ import annotations

import json

import pytest
import torch

from cpikan.errors import InputError
from cpikan.images.training.config import config_of, read_config
from training_cases import SIZE, config, trainer


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"training": {"precision": "fp16"}}, "'fp16' on the CPU: float16 convolutions are emulated"),
        ({"training": {"accumulate": 0}}, "accumulate = 0: give at least 1"),
        ({"training": {"engine": "deepsped"}}, "did you mean 'deepspeed'"),
        ({"training": {"recorrupt": 1.0}}, "recorrupt without a physics loss"),
        ({"training": {"ema": 1.0}}, "below 1"),
        ({"training": {"stepps": 1}}, "unknown key of \\[training\\] 'stepps'.*did you mean 'steps'"),
        ({"training": {"steps": 1.5}}, "give a whole number"),
        ({"training": {"checkpointing": "yes"}}, "give true or false"),
        ({"optimizer": {"name": "adam"}}, "did you mean 'adamw'"),
        ({"optimizer": {"name": "soap", "weight_decay": 0.1}}, "SOAP here has none"),
        ({"optimizer": {"betas": [0.9]}}, "give two numbers"),
        ({"optimizer": {"rate": 0.0}}, "rate above 0"),
        ({"data": {"validation_share": 1.0}}, "share of the rows"),
        ({"features": {"period": [8]}}, "did you mean 'periods'"),
        ({"lose": {}}, "did you mean 'loss'"),
        ({"loss": {"supervized": 1}}, "did you mean 'supervised'"),
    ],
)
def test_what_cannot_be_is_refused(tables, text):
    with pytest.raises(InputError, match=text):
        trainer(config(**tables))


def test_settings_that_others_decide_are_refused():
    with pytest.raises(InputError, match=r"frames follows from \[loss\]"):
        config_of({"patches": {"frames": True, "size": SIZE}})


@pytest.mark.parametrize(
    ("text", "said"),
    [("steps = ", "is no TOML"), ("[training]\nsteps = true", "give a whole number"), ("data = 3", "give a table")],
)
def test_files_that_are_no_config(text, said, tmp_path):
    path = tmp_path / "c.toml"
    with pytest.raises(InputError, match="no config"):
        read_config(path)
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_config(path)


@pytest.mark.parametrize(
    ("training", "text"),
    [
        ({"accumulate": 2}, "ZeRO-2 cuts gradients up"),
        ({"ema": 0.9}, "a mean would not see"),
        ({}, "cannot be put back; set it to 0"),
        ({"rollbacks": 0, "precision": "bf16"}, r"scaled-cpikan\[deepspeed\]|needs a launcher"),
    ],
)
def test_deepspeed_absent_or_at_odds(training, text):
    with pytest.raises(InputError, match=text):
        trainer(config(training={"engine": "deepspeed", **training}))


def test_checkpointing_of_a_model_that_has_none():
    class Plain(torch.nn.Conv2d):
        pass

    with pytest.raises(InputError, match="no activation checkpointing"):
        trainer(config(training={"checkpointing": True}), network=Plain(6, 3, 1))


def test_a_config_comes_back_from_its_json():
    told = config(training={"ema": 0.5}, loss={"physics": {"weight": 2}}, curriculum={"stages": [2, 1]})
    assert config_of(json.loads(json.dumps(told.table()))) == told
