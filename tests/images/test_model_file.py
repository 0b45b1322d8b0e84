"""Model files: bit for bit there and back, and each way they can be wrong, told in one line."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cpikan.errors import InputError
from cpikan.images import model_file
from cpikan.images.features import FeatureSpec
from cpikan.images.model_file import ModelCard, load_model, save_model, shipped_models
from cpikan.images.models.kinds import MODELS, build_model, model_settings
from cpikan.images.models.network import ImageNetwork


class Blur(ImageNetwork):
    """A kind of this file alone: one convolution of ``side_px`` pixels."""

    kind, multiple_px = "blur", 1
    ranges: ClassVar = {**ImageNetwork.ranges, "side_px": (1, 31)}

    def __init__(self, channels_in: int, channels_out: int, side_px: int = 3) -> None:
        super().__init__()
        self.channels_in, self.channels_out, self.side_px = channels_in, channels_out, side_px
        self.layer = torch.nn.Conv2d(channels_in, channels_out, side_px, padding=side_px // 2)

    @property
    def receptive_field_px(self) -> int:
        return self.side_px

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self.layer, x)


@pytest.fixture(autouse=True)
def _one_kind_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, Blur.kind, Blur)


SHIPPED_KINDS = tuple(MODELS)
KINDS = (*SHIPPED_KINDS, Blur.kind)
SMALL = {
    "blur": {"side_px": 5},
    "unet": {"widths": [4, 6]},
    "fno": {"width": 4, "modes": 3, "depth": 2},
    "tfno": {"width": 4, "modes": 3, "depth": 2, "rank": 0.3},
    "mg-tfno": {"width": 4, "modes": 3, "depth": 2, "levels": 1, "margin_px": 2},
}
CHANNELS = FeatureSpec().channels
FITS = {"channels_in": CHANNELS, "channels_out": 3}
TRAINING = {"seed": 7, "settings": {"rate": 1e-3}, "figures": {"noise_ratio": 0.25}}


def small(kind: str, spec: FeatureSpec | None = None) -> tuple[ImageNetwork, ModelCard]:
    spec = spec or FeatureSpec()
    torch.manual_seed(1)
    network = build_model(kind, {"channels_in": spec.channels, "channels_out": 3, **SMALL[kind]})
    for weights in network.parameters():
        weights.data += 0.1 * torch.randn(weights.shape)
    return network, ModelCard.of(network, spec, TRAINING)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A U-Net's JSON."""
    return save_model(*small("unet"), tmp_path / "net")


def rewrite(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back_bit_for_bit(kind, tmp_path):
    spec = FeatureSpec(periods=(8.0, 64.0), wavelengths_nm=(632.8, 635.0), modulation=True)
    network, card = small(kind, spec)
    path = save_model(network, card, tmp_path / "model-v1.2")
    assert path == tmp_path / "model-v1.2.json"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model-v1.2.json", "model-v1.2.safetensors"]
    for name in ("model-v1.2", "model-v1.2.json", "model-v1.2.safetensors"):
        again, read = load_model(tmp_path / name)
        assert read == card
        state = network.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
        image = torch.randn(1, spec.channels, 16, 24)
        with torch.inference_mode():
            assert torch.equal(again(image), network.eval()(image))
    assert not again.training


def test_a_loaded_model_can_be_trained_on(saved):
    network, _ = load_model(saved)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.randn(1, CHANNELS, 16, 16)).square().sum().backward()
    optimizer.step()
    assert any(
        not torch.equal(a, b) for a, b in zip(network.parameters(), load_model(saved)[0].parameters(), strict=True)
    )


def test_loading_does_not_draw_from_the_generator_and_warns_of_nothing(saved):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(saved)
    assert torch.equal(torch.rand(1), expected)


def test_saving_the_same_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_model(*small("tfno"), tmp_path / name)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_missing_half_is_named(saved):
    weights = saved.with_suffix(".safetensors")
    kept = weights.read_bytes()
    weights.unlink()
    assert "no weights" in refused(saved)
    assert weights.name in refused(saved)
    weights.write_bytes(kept)
    saved.unlink()
    assert saved.name in refused(weights)


def test_altered_weights_are_named(saved):
    weights = saved.with_suffix(".safetensors")
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    assert "net.safetensors was altered: its SHA-256 is not that of net.json" in refused(saved)
    weights.write_bytes(data[: len(data) // 2])
    assert "the file was altered or is another model's" in refused(saved)
    weights.write_bytes(b"")
    assert "has 0 bytes" in refused(saved)


def test_weights_that_fit_the_checksum_but_not_the_network_are_named(saved):
    import hashlib

    weights = saved.with_suffix(".safetensors")
    tensors = load_file(weights)
    whole = {name: tensor.clone() for name, tensor in tensors.items()}

    def told(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, weights)
        rewrite(saved, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
        return refused(saved)

    bias = "fold.bias"
    assert f"lacks the weights {bias}" in told(
        {**{k: v for k, v in whole.items() if k != bias}, "pad": torch.zeros(64)}
    )
    assert f"weights {bias} in" in told({**whole, bias: torch.zeros(2, 2)})
    assert "float64" in told({**whole, bias: whole[bias].double()})
    assert "surplus that the network has not" in told({**whole, "surplus": torch.zeros(1)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2, this package"),
        ({"format": "1"}, "describes no model"),
        ({"kind": "unnet"}, "did you mean 'unet'?"),
        ({"kind": ["unet"]}, "describes no model"),
        ({"config": {**FITS, "width": [4, 6]}}, "did you mean 'widths'?"),
        ({"config": {**FITS, "channels_in": 99, "widths": [4, 6]}}, f"takes 99 channels, its features give {CHANNELS}"),
        ({"config": {**FITS, "channels_out": 1}}, "answers with 1 channels"),
        (
            {"config": {**FITS, "widths": [4096] * 10}},
            "the file was altered or is another",
        ),
        ({"config": {**FITS, "depth": 10**9}}, "a whole number from 1 to 64"),
        ({"config": [1]}, "describes no model"),
        ({"features": {"period": [16]}}, "did you mean 'periods'?"),
        ({"features": {"periods": ["x"]}}, "describes no model"),
        ({"features": {"modulation": 1}}, "describes no model"),
        ({"features": None}, "describes no model"),
        ({"sha256": None}, "was altered"),
    ],
)
def test_a_card_that_is_wrong_is_told_in_one_line(saved, changes, words):
    rewrite(saved, **changes)
    message = refused(saved)
    assert words in message
    assert "net" in message


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "null", '{"format": 1}', "\x00"])
def test_a_json_that_is_no_card_is_refused(saved, text):
    saved.write_text(text)
    assert "net.json" in refused(saved)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), which=st.sampled_from(["json", "safetensors"])
)
def test_any_byte_of_either_file_may_be_wrong(saved, place, byte, which):
    """Wrong weights never pass; a wrong card is refused, or says something else of the training."""
    path = saved.with_suffix(f".{which}")
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[int(place * len(whole))] = byte
    path.write_bytes(changed)
    if which == "safetensors" and changed != whole:
        assert "was altered" in refused(saved)
    else:
        with suppress(InputError):
            network, card = load_model(saved)
            assert network.channels_in == card.features.channels
    path.write_bytes(whole)


def test_a_huge_card_is_not_read(saved):
    with open(saved, "r+b") as file:
        file.truncate(2**25)
    assert "more than 16 MiB" in refused(saved)


def test_what_is_no_model_is_not_saved(tmp_path):
    network, card = small("unet")
    other, _ = small("fno")
    with pytest.raises(InputError, match="the network is another"):
        save_model(other, card, tmp_path / "m")
    with pytest.raises(InputError, match="its features give"):
        save_model(network, ModelCard.of(network, FeatureSpec(periods=(1.0, 2.0, 3.0))), tmp_path / "m")
    network.fold.bias.data[0] = torch.nan
    with pytest.raises(InputError, match=r"fold\.bias are not finite"):
        save_model(network, card, tmp_path / "m")
    with pytest.raises(InputError, match="has no name"):
        save_model(small("unet")[0], card, tmp_path / ".json")
    assert not list(tmp_path.iterdir())


def test_a_shipped_model_is_found_by_name_where_no_file_has_it(tmp_path, monkeypatch):
    shipped, here = tmp_path / "shipped", tmp_path / "here"
    shipped.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(model_file, "_SHIPPED", shipped)
    assert shipped_models() == []
    assert "no model is shipped" in refused("small")
    save_model(*small("unet"), shipped / "small-1")
    save_model(*small("unet"), shipped / "wide")
    assert shipped_models() == ["small-1", "wide"]
    assert load_model("small-1")[1].kind == "unet"
    assert "small-1, wide; did you mean 'small-1'?" in refused("smal-1")
    assert "there is no file there/small-1.json" in refused("there/small-1")
    save_model(*small("fno"), "small-1")  # a file of one's own goes first
    assert load_model("small-1")[1].kind == "fno"


def test_every_shipped_model_loads():
    for name in shipped_models():
        _, card = load_model(name)
        assert card.training


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_what_tiles_and_training_ask_for(kind):
    network = build_model(kind, {"channels_in": 6, "channels_out": 3, **SMALL[kind]})
    assert network.kind == kind
    assert (network.channels_in, network.channels_out, network.checkpointing) == (6, 3, False)
    assert network.receptive_field_px == "global" or network.receptive_field_px > 1
    side = 4 * network.multiple_px + 8
    side -= side % network.multiple_px
    assert network(torch.randn(2, 6, side, side + network.multiple_px)).shape == (
        2,
        3,
        side,
        side + network.multiple_px,
    )
    assert json.loads(json.dumps(network.config())) == network.config()
    assert type(network).from_config(network.config()).config() == network.config()
    assert set(network.config()) == set(model_settings(kind))


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("unnet", {}, "did you mean 'unet'?"),
        (["unet"], {}, "unknown kind of model"),
        ("unet", {"channels_in": 6, "channels_out": 3, "dept": 1}, "did you mean 'depth'?"),
        ("unet", {"channels_out": 3}, "needs channels_in"),
        ("blur", {"channels_in": 6, "channels_out": 3, "side_px": 32}, "whole number from 1 to 31"),
        ("unet", {"channels_in": 6.0, "channels_out": 3}, "whole number from 1"),
        ("unet", {"channels_in": True, "channels_out": 3}, "whole number from 1"),
        ("unet", {"channels_in": 6, "channels_out": 3, "widths": 32}, "list of 1 to 10 whole numbers"),
        ("unet", {"channels_in": 6, "channels_out": 3, "widths": []}, "list of 1 to 10 whole numbers"),
        ("unet", {"channels_in": 6, "channels_out": 3, "widths": [4, "6"]}, "whole number from 1 to 4096"),
        ("fno", {"channels_in": 6, "channels_out": 3, "rank": 0.1}, "unknown setting of model 'fno' 'rank'"),
        ("tfno", {"channels_in": 6, "channels_out": 3, "rank": "low"}, "give a share above 0 and up to 1"),
        ("mg-tfno", {"channels_in": 6, "channels_out": 3, "levels": 9}, "whole number from 0 to 4"),
    ],
)
def test_what_cannot_be_built_is_refused(kind, config, words):
    with pytest.raises(InputError) as caught:
        build_model(kind, config)
    assert words in str(caught.value)


def test_the_program_of_the_page_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
    program = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert capsys.readouterr().out.startswith("unet ")
    assert all(f"| `{kind}` |" in page for kind in SHIPPED_KINDS)
