"""Networks on tiles: the untiled result where the overlap covers the receptive field."""

from __future__ import annotations

import numpy as np
import pytest

import cpikan
from cpikan.errors import InputError

torch = pytest.importorskip("torch")


class HourGlass(torch.nn.Module):
    """Down by two, up by two, with a skip: receptive field 1 + 2 (first) + 2 + 2 * 2 (inside) + 2 (last), grid of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(2, 8, 3, padding=1)
        self.inside = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.last = torch.nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x):
        fine = torch.relu(self.first(x))
        coarse = torch.relu(self.inside(torch.nn.functional.avg_pool2d(fine, 2)))
        return self.last(torch.cat([fine, torch.nn.functional.interpolate(coarse, scale_factor=2)], dim=1))


def plain_network():
    layers = [torch.nn.Conv2d(2, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 5, padding=2)]
    return torch.nn.Sequential(*layers)


CASES = [(plain_network, 7, 1), (HourGlass, 13, 2)]


@pytest.mark.parametrize(("build", "field", "multiple"), CASES)
@pytest.mark.parametrize("window", ["halo", "hann"])
def test_a_network_gives_the_untiled_result(build, field, multiple, window):
    torch.manual_seed(5)
    network = build()
    image = np.random.default_rng(6).normal(size=(2, 91, 120)).astype(np.float32)
    grown = np.pad(image, ((0, 0), (0, -91 % multiple), (0, 0)), mode="edge")
    with torch.inference_mode():
        untiled = network(torch.from_numpy(grown[None]))[0].numpy()[:, :91]
    model = cpikan.TorchTiles(network, receptive_field_px=field, channels=(2, 2), multiple_px=multiple)
    result = cpikan.infer_tiled(model, image, tile=40, overlap=16, window=window, values="phasor")
    # 150 products per output, values of order one: rounding of sums in another order, 150 * 2^-24 at the very most
    assert np.abs(result.values - untiled).max() <= 1e-5
    assert np.sqrt(np.mean((result.values - untiled) ** 2) / np.mean(untiled**2)) <= 1e-6
    assert result.report["overlap_l2"] <= 1e-6


def test_tiles_off_the_grid_of_a_network_would_show():
    torch.manual_seed(5)
    model = cpikan.TorchTiles(HourGlass(), receptive_field_px=13, channels=(2, 2))  # says not that it halves the grid
    image = np.random.default_rng(6).normal(size=(2, 90, 121)).astype(np.float32)
    assert cpikan.infer_tiled(model, image, tile=40, overlap=16).report["overlap_l2"] > 1e-3


def test_the_layout_of_channels_and_the_weights():
    torch.manual_seed(7)
    network = plain_network()
    image = np.random.default_rng(8).normal(size=(2, 60, 60)).astype(np.float32)
    first, last = (
        cpikan.TorchTiles(network, receptive_field_px=7, channels=(2, 2), channels_last=there)
        for there in (False, True)
    )
    both = [cpikan.infer_tiled(model, image, tile=32, overlap=8).values for model in (first, last)]
    assert np.abs(both[0] - both[1]).max() <= 1e-5
    assert first.fingerprint == last.fingerprint
    other = cpikan.TorchTiles(plain_network(), receptive_field_px=7, channels=(2, 2))
    assert other.fingerprint != first.fingerprint
    with pytest.raises(InputError, match="model Sequential is a torch module: wrap it"):
        cpikan.infer_tiled(network, image)
    with pytest.raises(InputError, match="the image has 3 channels, the model takes 2"):
        cpikan.infer_tiled(first, image[[0, 1, 1]], tile=32, overlap=8)


@pytest.mark.parametrize(
    ("device", "devices", "taken"), [("cuda", 2, "cuda:1"), ("cuda", 1, "cuda"), ("cuda:0", 2, "cuda:0")]
)
def test_processes_take_devices_in_turn(device, devices, taken, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    moved = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *to, **how: moved.append(to) or self)
    model = cpikan.TorchTiles(torch.nn.Identity(), receptive_field_px=1, channels=(1, 1), device=device)
    assert model.for_process(3) is model
    assert str(moved[-1][0]) == taken
