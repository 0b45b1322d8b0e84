"""The model that comes with the package: its file, how it was made, and what it does on a wafer it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import cpikan
from cpikan.images import model_file
from cpikan.images.training.config import read_config
from cpikan.pipeline.reconstruction.network import DEFAULT_MODEL, LearnedModel
from cpikan.pipeline.training.simulated_stacks import noisy_instrument
from cpikan.psi.simulate import SimulationSettings, simulate_stack

SHIPPED = Path(model_file.__file__).parent / "shipped"
WAVES_NM = (5000.0, 5500.0, 6050.0, 6655.0)


def test_the_file_is_small_and_says_how_it_was_made():
    assert DEFAULT_MODEL in model_file.shipped_models()
    assert (SHIPPED / f"{DEFAULT_MODEL}.safetensors").stat().st_size <= 2 * 2**20
    network, card = cpikan.load_model(DEFAULT_MODEL)
    assert sum(p.numel() for p in network.parameters()) * 4 <= 2 * 2**20
    config = read_config(SHIPPED / f"{DEFAULT_MODEL}.toml")
    assert card.training["seed"] == config.seed
    told = card.training["config"]
    for name, value in config.table().items():
        if name not in ("model", "data"):  # these hold paths as they were then
            assert told[name] == value, name
    for name in ("simulated", "validation_simulated", "batch"):
        assert told["data"][name] == config.table()["data"][name]
    assert card.features == config.features
    assert not any(text.startswith("/") for text in _texts(card.training))


def test_a_map_of_its_name_is_not_taken_for_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{DEFAULT_MODEL}.json").write_text('{"summary": {}}')
    assert cpikan.load_model(DEFAULT_MODEL)[1] == cpikan.load_model(model_file.shipped_model(DEFAULT_MODEL))[1]
    assert LearnedModel.open(None, _Stack()).name == DEFAULT_MODEL


class _Stack:
    acquisition = cpikan.Acquisition((632.8,), None, "unknown", None, 8)


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Truth, and height and sigma of pixel, hybrid and learned, of the centre of a wafer at 0.2 rad."""
    settings = SimulationSettings(
        (192, 240), WAVES_NM, seed=950_001, surface="wafer", instrument=noisy_instrument(0.2, 4), pixel_um=44.6
    )
    frames, truth = simulate_stack(settings)
    stack = cpikan.FrameStack.from_array(frames, settings.acquisition)
    place, found = tmp_path_factory.mktemp("maps"), {}
    for method in ("pixel", "hybrid", "learned"):
        result = cpikan.reconstruct(
            stack, place / f"{method}.npy", method=method, all_quantities=True, progress=False, range_nm=27e3
        )
        found[method] = np.array(result.height_nm[...]), np.array(result.sigma_nm[...])
    return truth, found


def _errors(maps: tuple, method: str) -> tuple[np.ndarray, float]:
    """Errors of right-order pixels, the median taken off, and the share of wrong orders."""
    truth, found = maps
    error = found[method][0] - truth
    error -= np.nanmedian(error)
    wrong = np.abs(error) > WAVES_NM[0] / 4
    return error[np.isfinite(error) & ~wrong], float(np.mean(wrong[np.isfinite(error)]))


def test_it_takes_off_more_noise_than_a_mean_of_nine_pixels(maps):
    truth, found = maps
    pixel, learned = (float(np.std(_errors(maps, method)[0])) for method in ("pixel", "learned"))
    mean = ndimage.uniform_filter(np.nan_to_num(found["hybrid"][0], nan=float(np.nanmean(truth))), 3)
    gap = (mean - truth)[np.isfinite(found["hybrid"][0])]
    assert learned < 0.8 * float(np.std(gap - np.median(gap)))
    assert learned < 0.27 * pixel


def test_it_makes_no_order_worse_and_knows_its_noise(maps):
    assert _errors(maps, "learned")[1] <= _errors(maps, "hybrid")[1] <= _errors(maps, "pixel")[1]
    truth, found = maps
    height, sigma = found["learned"]
    error = height - truth
    error -= np.nanmedian(error)
    valid = np.isfinite(error)
    # neighbouring errors go together over some ten pixels, so 46 000 pixels are some 450 draws: two sigmas are 2 %
    assert 0.90 <= float(np.mean(np.abs(error[valid]) < 1.96 * sigma[valid])) <= 0.985
