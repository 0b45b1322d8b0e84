"""``--method learned``: a network over the map of hybrid, whatever tiles, bands and kills; what it refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import cpikan
from cpikan.cli import main
from cpikan.errors import InputError, ResumeError
from cpikan.images.features import FeatureSpec
from cpikan.images.model_file import ModelCard, save_model
from cpikan.images.models.unet import UNet
from cpikan.images.tiles import LearnedTiles, MapUnits
from cpikan.pipeline.reconstruction.network import LearnedModel
from cpikan.pipeline.reconstruction.shown_map import ShownMap
from cpikan.pipeline.reconstruction.stages.learn import NetworkRows
from forked import exit_code_of_fork
from independent_frames import Scene
from small_stacks import FIVE_DEG, WAVES_NM, contents, folder_of, leftovers, stack_of

HEIGHTS = FeatureSpec(means_px=(3, 7))
PHASORS = FeatureSpec(means_px=(3,), wavelengths_nm=WAVES_NM, modulation=True)
OPTIONS = {"method": "learned", "all_quantities": True, "progress": False}


def saved(path: Path, spec: FeatureSpec, seed: int = 0, *, averages: float = 0.5) -> Path:
    """A small network on disk that takes a pixel to the mean around it, by half (``averages``), and a little of all else."""
    torch.manual_seed(seed)
    network = UNet(spec.channels, 3, (4, 6), 1)
    mean = 2 * len(spec.periods) + len(spec.means_px) - 1  # the channel: what a pixel lies off its mean, the widest
    with torch.no_grad():
        network.fold.weight.mul_(0.1)
        network.grow[0].weight.mul_(0.1)
        network.unfold.weight.normal_(0, 0.02)
        for pixel in range(4):  # of a fold
            network.fold.weight[pixel, 4 * mean + pixel] = 1.0
            network.unfold.weight[pixel, pixel, 1, 1] = -averages
        network.unfold.bias[4:8] = -20.0  # no pixel's order is doubted
    save_model(network, ModelCard.of(network, spec), path)
    return path.with_suffix(".safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "small", HEIGHTS)


def run(stack: cpikan.FrameStack, place: Path, model: Path, **more: object) -> cpikan.HeightMap:
    return cpikan.reconstruct(stack, place, **{**OPTIONS, "model": str(model), **more})


def maps(result: cpikan.HeightMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array(result.height_nm[...]), np.array(result.sigma_nm[...]), np.array(result.flags[...])


def test_the_map_is_that_of_hybrid_corrected_as_the_network_says(wafer: Scene, model: Path, tmp_path: Path) -> None:
    stack = stack_of(np.asarray(wafer.frames))
    learned = run(stack, tmp_path / "a.npy", model)
    hybrid = cpikan.reconstruct(stack, tmp_path / "b.npy", method="hybrid", all_quantities=True, progress=False)
    height, sigma, flags = maps(hybrid)
    valid = np.isfinite(height)
    network, card = cpikan.load_model(model)
    tiles = LearnedTiles(
        network,
        card.features,
        MapUnits(learned.summary["learned"]["unit_nm"], WAVES_NM[0] / 2),
        fingerprint="",
    )
    quantities = {"height_nm": height, "sigma_nm": sigma, "flags": flags, "modulation": np.ones_like(height)}

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: values[start:stop] for name, values in quantities.items()}

    seen = ShownMap.of(card.features, rows, lambda start, stop: np.empty((0, 0, 0)), height.shape)
    shown = np.empty(seen.planes, np.float32)
    seen.fill(0, height.shape[0], shown)
    assert learned.summary["learned"]["form_slope_nm"] == pytest.approx(seen.form.slope_nm)  # a bowed wafer
    correction, spread, _ = tiles(shown[None])[0]
    found = maps(learned)
    assert np.array_equal(np.isfinite(found[0]), valid)
    # one tile covers this map: the same network on the same numbers; heights are float32 of some 1e4 nm
    assert np.abs(found[0] - (height + correction))[valid].max() <= 2e-3
    factor = learned.summary["learned"]["sigma_factor"]
    assert np.allclose(found[1][valid], factor * spread[valid], rtol=1e-5)
    assert np.array_equal(found[2], flags)
    assert np.abs(correction[valid]).mean() > 0.05 * np.median(sigma[valid])
    assert learned.summary["methods_used"] == ["hybrid", "learned"]
    assert learned.summary["learned"]["model"] == str(model)


def test_a_network_that_adds_noise_is_not_used_and_the_map_says_so(wafer: Scene, tmp_path: Path) -> None:
    stack = stack_of(np.asarray(wafer.frames))
    harmful = saved(tmp_path / "harmful", HEIGHTS, averages=-0.5)
    learned = run(stack, tmp_path / "a.npy", harmful)
    hybrid = cpikan.reconstruct(stack, tmp_path / "b.npy", method="hybrid", all_quantities=True, progress=False)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(maps(learned), maps(hybrid), strict=True))
    facts = learned.summary["learned"]
    assert facts["used"] is False
    assert facts["sigma_factor"] is None
    left = facts["noise_left"]
    assert left["found"] > 1 + 10 * left["error"]
    assert learned.summary["methods_used"] == ["hybrid"]
    assert sum("network was not used" in text for text in learned.summary["notes"]) == 1
    assert learned.summary["warnings"] == hybrid.summary["warnings"]


def test_a_sigma_that_the_network_has_wrong_is_set_right(wafer: Scene, model: Path, tmp_path: Path) -> None:
    """The network says that all noise is left; in truth it leaves less than half of its variance."""
    learned = run(stack_of(np.asarray(wafer.frames)), tmp_path / "a.npy", model)
    hybrid = cpikan.reconstruct(
        stack_of(np.asarray(wafer.frames)), tmp_path / "b.npy", method="hybrid", all_quantities=True, progress=False
    )
    found = maps(learned)
    valid = np.isfinite(found[0])
    error = found[0] - wafer.height_nm
    error -= np.median(error[valid])
    facts = learned.summary["learned"]
    left = facts["noise_left"]
    assert left["said"] == pytest.approx(1.0, rel=0.05)
    assert facts["sigma_factor"] == pytest.approx(left["ratio"] ** 0.5)
    truth = np.mean((error / maps(hybrid)[1])[valid] ** 2)
    assert truth < 0.5
    assert abs(left["found"] - truth) <= 3 * left["error"]
    assert 0.92 <= np.mean(np.abs(error) < 1.96 * found[1], where=valid) <= 0.98
    assert np.isnan(found[1][~valid]).all()


def test_tiles_and_bands_change_no_more_than_rounding(wafer: Scene, model: Path, tmp_path: Path) -> None:
    frames = np.tile(np.asarray(wafer.frames), (1, 1, 1, 2))
    stack = stack_of(frames)
    whole = run(stack, tmp_path / "a.npy", model, tile=400)
    overlap = whole.summary["learned"]["overlap"]
    assert whole.summary["learned"]["tiles"] == 1, overlap
    tiled = run(stack, tmp_path / "b.npy", model, tile=136)
    assert tiled.summary["learned"]["tiles"] > 4
    assert tiled.summary["learned"]["exact"] == "guaranteed by the receptive field"
    gaps = [np.abs(a - b) for a, b in zip(maps(whole), maps(tiled), strict=True)]
    for gap in gaps:
        assert np.nanmax(gap) <= 1e-6 * np.nanmax(np.abs(maps(whole)[0]))
    banded = run(stack, tmp_path / "c.npy", model, tile=136, band_rows=50, threads=1)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(maps(banded), maps(tiled), strict=True))


def test_one_wavelength_is_unwrapped_and_then_corrected(mirror: Scene, model: Path, tmp_path: Path) -> None:
    stack = stack_of(np.asarray(mirror.frames), (632.8,), FIVE_DEG)
    learned = run(stack, tmp_path / "a.zarr", model)
    hybrid = cpikan.reconstruct(stack, tmp_path / "b.zarr", method="hybrid", progress=False)
    change = np.array(learned.height_nm[...]) - np.array(hybrid.height_nm[...])
    valid = np.isfinite(change)
    assert np.array_equal(valid, np.isfinite(np.array(hybrid.height_nm[...])))
    sigma = np.array(hybrid.sigma_nm[...])
    assert 0.05 < np.median(np.abs(change[valid]) / sigma[valid]) < 5
    assert learned.summary["methods_used"] == ["unwrap", "hybrid", "learned"]
    level = run(stack, tmp_path / "c.zarr", model, remove="piston,tilt")
    y, x = np.indices(valid.shape)
    height = np.array(level.height_nm[...])
    slopes = np.linalg.lstsq(
        np.stack([np.ones(valid.sum()), y[valid], x[valid]], axis=1), height[valid].astype(float), rcond=None
    )[0]
    assert np.abs(slopes * [1, 160, 200]).max() < 0.01  # the datum was fitted to the corrected heights


def test_phasors_of_the_frames_reach_the_network(wafer: Scene, tmp_path: Path) -> None:
    stack = stack_of(np.asarray(wafer.frames))
    model = saved(tmp_path / "phasors", PHASORS)
    result = run(stack, tmp_path / "a.npy", model)
    assert result.summary["learned"]["channels"][0] == 3 + 4 + 1
    # with one phase plane off by a quarter turn the answer is another
    other = run(stack_of(np.roll(np.asarray(wafer.frames), 1, axis=1)), tmp_path / "b.npy", model)
    assert not np.array_equal(maps(result)[0], maps(other)[0], equal_nan=True)
    with pytest.raises(InputError, match="made for 4 wavelengths"):
        run(stack_of(np.asarray(wafer.frames)[:3]), tmp_path / "c.npy", model)
    assert not list(tmp_path.glob("c*"))


def test_what_cannot_be_is_said_before_anything_is_written(wafer: Scene, model: Path, tmp_path: Path) -> None:
    stack = stack_of(np.asarray(wafer.frames))
    with pytest.raises(InputError, match="not used by method hybrid"):
        run(stack, tmp_path / "a.npy", model, method="hybrid")
    with pytest.raises(InputError, match="absent"):
        run(stack, tmp_path / "a.npy", tmp_path / "absent.safetensors")
    altered = tmp_path / "altered.safetensors"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    altered.write_bytes(data)
    altered.with_suffix(".json").write_bytes(model.with_suffix(".json").read_bytes())
    with pytest.raises(InputError, match=r"altered\.safetensors"):
        run(stack, tmp_path / "a.npy", altered)
    large = stack_of(np.tile(np.asarray(wafer.frames), (1, 1, 2, 2)))
    with pytest.raises(InputError, match="receptive field"):
        run(large, tmp_path / "a.npy", model, tile=136, overlap=8)
    with pytest.raises(InputError, match="tile 130 is no multiple of 4"):
        run(large, tmp_path / "a.npy", model, tile=130)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("altered")] == []


def _kill_at_third_rows(*arguments: str) -> None:
    """Run the command line, and kill the process when rows of the network come for the third time."""
    write, count = NetworkRows.write, [0]

    def counted(self: NetworkRows, start: int, rows: np.ndarray) -> None:
        count[0] += 1
        if count[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, start, rows)

    NetworkRows.write = counted  # type: ignore[method-assign]
    main(arguments)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork is killed")
def test_a_killed_network_goes_on_to_the_same_bytes_with_the_same_weights_only(
    tower: Scene, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = folder_of(tmp_path / "frames", np.asarray(tower.frames))
    base = ["reconstruct", str(stack), "--method", "learned", "--model", str(model), "--all", "--tile", "136", "--json"]
    base += ["--threads", "1"]  # sums of a network depend on its threads
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert main([*base, "-o", str(whole / "out.npy")]) == 0
    assert json.loads(capsys.readouterr().out)["learned"]["tiles"] > 4
    killed = exit_code_of_fork(lambda: _kill_at_third_rows(*base, "-o", str(parts / "out.npy")))
    assert killed == -signal.SIGKILL
    other = saved(tmp_path / "other", HEIGHTS, seed=1)
    with cpikan.open_stack(stack) as opened, pytest.raises(ResumeError, match=r"settings\.model"):
        run(opened, parts / "out.npy", other, tile=136, resume=True)
    assert main([*base, "-o", str(parts / "out.npy"), "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["learned"]["resumed_from_row"] > 0
    wanted, found = contents(whole, "out"), contents(parts, "out")
    assert wanted.keys() == found.keys()
    assert [name for name in found if found[name] != wanted[name]] == []
    assert leftovers(parts) == []


def test_tiles_overlap_by_as_much_as_the_network_sees(model: Path) -> None:
    """Less would leave seams, more costs time: the next whole step of the network from twice its reach on."""
    network, card = cpikan.load_model(model)
    learned = LearnedModel("mine", network, card.features, "")
    tiles = learned.tiles(MapUnits(1.0, 1.0))
    reach = 2 * (int(tiles.receptive_field_px) // 2)
    overlap = learned.tiling(None, None, (2000, 3000)).overlap
    assert reach <= overlap < reach + tiles.multiple_px
