"""The verbs train and finetune: from nothing to a model file, keys, resume, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cpikan.cli import main
from cpikan.images.model_file import load_model
from training_cases import one_thread  # noqa: F401 - a fixture

KEYS = {
    *("stop_reason", "steps", "epochs", "seconds", "samples_per_second", "peak_anonymous_mib", "loss", "validation"),
    *("parameters", "output", "seed"),
}
CONFIG = """
seed = 3
[data]
simulated = {{ count = 2, shape = [64, 64], surfaces = ["smooth"], phase_noise_rad = [0.1, 0.2] }}
validation_share = 0.5
validation_patches = 4
batch = 2
workers = 1
cache = "{cache}"
[patches]
size = 16
count = 8
[model]
widths = [4, 6]
[loss]
supervised = 1.0
orders = 0.1
[optimizer]
rate = 3e-3
warmup_steps = 2
[training]
steps = 8
validate_steps = 4
checkpoint_steps = 2
device = "cpu"
threads = 1
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training") / "cache"


@pytest.fixture
def config(tmp_path, cache) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(cache=cache))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory, cache) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.toml").write_text(CONFIG.format(cache=cache))
    assert main(["train", str(folder / "config.toml"), "-o", str(folder / "m")]) == 0
    return folder / "m"


def told(capsys) -> dict:
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_one_object_with_all_keys_and_a_model(config, tmp_path, capsys):
    assert main(["train", str(config), "-o", str(tmp_path / "m"), "--json"]) == 0
    found = told(capsys)
    assert found.keys() >= KEYS
    assert (found["steps"], found["epochs"], found["seed"]) == (8, 2.0, 3)
    assert found["stop_reason"] == "all 8 steps done"
    assert {"loss", "noise_ratio", "coverage_95", "wrong_orders_found", "wrong_orders_missed"} <= found[
        "validation"
    ].keys()
    network, card = load_model(tmp_path / "m")
    assert sum(parameter.numel() for parameter in network.parameters()) == found["parameters"]
    assert card.training["config"]["optimizer"]["rate"] == 3e-3
    assert card.training["summary"]["loss"] == found["loss"]
    lines = [json.loads(line) for line in (tmp_path / "m.training" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [0, 4, 8]
    assert json.loads((tmp_path / "m.training" / "config.json").read_text())["patches"]["size"] == 16


def test_the_same_seed_gives_the_same_file_and_resume_says_it_is_done(config, model, tmp_path, capsys):
    assert main(["train", str(config), "-o", str(tmp_path / "m.safetensors")]) == 0
    weights = (tmp_path / "m.safetensors").read_bytes()
    assert weights == model.with_name("m.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["train", str(config), "-o", str(tmp_path / "m"), "--resume", "--json"]) == 0
    said = capsys.readouterr()
    assert "already finished" in said.err
    assert json.loads(said.out)["already_finished"]
    assert (tmp_path / "m.safetensors").read_bytes() == weights
    (tmp_path / "m.json").unlink()  # as a kill between the two files leaves it
    assert main(["train", str(config), "-o", str(tmp_path / "m"), "--resume"]) == 0
    load_model(tmp_path / "m")
    capsys.readouterr()
    assert main(["train", str(config), "-o", str(tmp_path / "m")]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    other = config.with_name("other.toml")
    other.write_text(config.read_text().replace("seed = 3", "seed = 4"))
    assert main(["train", str(other), "-o", str(tmp_path / "m"), "--resume"]) == 2
    assert "cannot resume: config" in capsys.readouterr().err
    assert main(["train", str(other), "-o", str(tmp_path / "m"), "--overwrite"]) == 0
    assert (tmp_path / "m.safetensors").read_bytes() != weights


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[optimizer]", "[optimiser]", "did you mean 'optimizer'"),
        ("widths = [4, 6]", "width = [4, 6]", "did you mean 'widths'"),
        ("size = 16", "size = 18", "multiples of 4"),
        ("orders = 0.1", "order = 0.1", "did you mean 'orders'"),
        ("orders = 0.1", "interface = 0.1", "set [patches] pairs = true"),
        ("validation_share = 0.5", "validation_share = 0.1", "give a larger validation_share"),
        ("count = 2,", "number = 2,", "unknown key of [data] simulated 'number'"),
        ("threads = 1", 'precision = "fp16"', "'fp16' on the CPU"),
        ("threads = 1", "recorrupt = 1.0", "without a physics loss"),
        ("threads = 1", "tensorboard = 1", "give true or false"),
        ("[model]", "[curriculum]\nstages = [2, 3]\n[model]", "falling powers of two"),
        ("[model]", "[curriculum]\nstages = [8, 1]\n[model]", "give a multiple of 32"),
        ("widths = [4, 6]", 'start = "nowhere"', "nowhere': there is no file"),
    ],
)
def test_bad_configs_are_one_line(old, new, text, config, tmp_path, capsys):
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    assert main(["train", str(config), "-o", str(tmp_path / "m")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert text in said.err
    assert said.err.splitlines()[-1].startswith("cpikan: error: ")
    assert not (tmp_path / "m.safetensors").exists()


def test_bad_folders(config, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    start = config.read_text().index("simulated")
    end = config.read_text().index("\n", start)
    config.write_text(config.read_text()[:start] + 'folders = ["empty"]' + config.read_text()[end:])
    assert main(["train", str(config), "-o", str(tmp_path / "m")]) == 2
    assert "holds no stacks" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "no.toml"), "-o", str(tmp_path / "m")]) == 2
    assert "no config" in capsys.readouterr().err
    assert main(["train", str(config), "-o", str(tmp_path / "no" / "m")]) == 2
    assert "create it first" in capsys.readouterr().err
    assert main(["train", str(config), "-o", str(tmp_path / "m"), "--resume", "--overwrite"]) == 2
    assert "go on with what is there, or replace it" in capsys.readouterr().err


def test_training_goes_on_from_a_model(config, model, tmp_path, capsys):
    text = config.read_text()
    config.write_text(text.replace("widths = [4, 6]", f'start = "{model}"').replace("steps = 8", "steps = 1"))
    assert main(["train", str(config), "-o", str(tmp_path / "m"), "--json"]) == 0
    found = told(capsys)
    before = json.loads(model.with_name("m.json").read_text())["training"]["summary"]["validation"]["loss"]
    assert found["validation_before"]["loss"] == pytest.approx(before, rel=1e-6)


def test_finetune_on_frames_alone(model, cache, tmp_path, capsys):
    stack = next(path for path in sorted(cache.iterdir()) if path.is_dir())
    common = ["finetune", str(model), str(stack), "--steps", "6", "--size", "16", "--held-out-share", "0.5"]
    common += ["--cache", str(cache), "--device", "cpu", "--batch", "2"]
    assert main([*common, "-o", str(tmp_path / "kept"), "--keep-worse", "--rate", "1e-3", "--json"]) == 0
    found = told(capsys)
    assert found.keys() >= KEYS
    changed = json.loads((tmp_path / "kept.json").read_text())["training"]["summary"]["changed"]
    assert changed["physics"] == found["changed"]["physics"]
    assert changed["anchor"]["before"] == 0.0  # a copy of itself
    # a step of 1e-12 cannot explain frames better by the gain that counts
    assert main([*common, "-o", str(tmp_path / "same"), "--rate", "1e-12"]) == 2
    assert "the model got no better, nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "same.safetensors").exists()
    assert main([*common, "-o", str(tmp_path / "same"), "--recorrupt", "0"]) == 2
    assert "give a share of noise above 0" in capsys.readouterr().err
    assert main(["finetune", str(tmp_path / "none"), str(stack), "-o", str(tmp_path / "x")]) == 2
    assert "no model" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "finetune", "solve"])
def test_help_and_import_load_nothing_heavy(verb):
    code = f"import sys; from cpikan.cli import main\ntry: main(['{verb}', '--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'numpy', 'accelerate') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_threads_are_given_back(config, tmp_path):
    torch.set_num_threads(2)
    assert main(["train", str(config), "-o", str(tmp_path / "m")]) == 0
    assert torch.get_num_threads() == 2
