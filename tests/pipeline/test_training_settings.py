"""Settings of trainings: each changes what is simulated or how is trained."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

from cpikan.errors import InputError
from cpikan.pipeline.training.simulated_stacks import SimulatedSpec
from cpikan.pipeline.training.train import FinetuneSettings, _changed

SPEC: dict[str, Any] = {
    "count": 3,
    "first_seed": 9,
    "shape": (60, 64),
    "frames": 5,
    "surfaces": ("varied",),
    "wavelengths_nm": ((632.8,),),
    "phase_noise_rad": (0.05, 0.06),
    "pixel_um": (7.0,),
    "wrong_order_rate": 1e-5,
    "step_error_deg": 1.0,
    "tilt_rad": 0.2,
}


@pytest.mark.parametrize("name", [entry.name for entry in fields(SimulatedSpec)])
def test_every_setting_of_simulated_stacks_changes_a_simulation_or_its_range(name):
    def drawn(spec: SimulatedSpec) -> list[Any]:
        return [(seed, spec.settings(seed), spec.range_nm(seed)) for seed in spec.seeds]

    base = SimulatedSpec(count=2, shape=(64, 64))
    assert drawn(replace(base, **{name: SPEC[name]})) != drawn(base)


FINETUNE: dict[str, Any] = {
    "steps": 7,
    "rate": 1e-3,
    "seconds": 3.0,
    "batch": 2,
    "size": 64,
    "patches": 9,
    "held_out": 5,
    "held_out_share": 0.3,
    "recorrupt": 0.5,
    "ema": 0.5,
    "validate_steps": 3,
    "patience": 1,
    "seed": 4,
    "device": "cpu",
    "precision": "bf16",
    "cache": "elsewhere",
    "loss": {"physics": 0.5},
}


@pytest.mark.parametrize("name", sorted({entry.name for entry in fields(FinetuneSettings)} - {"anchor", "keep_worse"}))
def test_every_setting_of_finetuning_changes_the_training(name):
    """But the two that the next tests are about."""
    base = FinetuneSettings()
    assert replace(base, **{name: FINETUNE[name]}).config(8, (512, 512)) != base.config(8, (512, 512))


def test_a_model_that_got_worse_is_kept_only_when_asked_for():
    position = SimpleNamespace(
        first_validation={"physics": 1.0}, best_validation={"physics": 2.0}, validation={}, step=3
    )
    trained: Any = SimpleNamespace(position=position)
    assert _changed(trained, True) == {"physics": {"before": 1.0, "after": 2.0}}
    with pytest.raises(InputError, match="got no better"):
        _changed(trained, False)


def test_a_negative_anchor_is_refused():
    with pytest.raises(InputError, match="anchor -1"):
        FinetuneSettings(anchor=-1).config(8, (512, 512))
