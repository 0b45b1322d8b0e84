"""Stacks to train on: found, measured once, laid on their truth; simulated ones with the noise that was asked for."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch
from cpikan.images.patches.dataset import PatchSettings, WaferPatchDataset
from cpikan.images.patches.source import StackSource, Wanted
from cpikan.pipeline.training.simulated_stacks import SimulatedSpec, noisy_instrument, simulated_stacks
from cpikan.pipeline.training.training_stacks import align_truth, find_stacks, open_training_stacks
from heard_events import Heard
from independent_frames import Faults, make_scene
from small_stacks import FIVE_DEG, STEPS_DEG, WAVES_NM, folder_of

DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
ALL = Wanted(frames=True, phases=True, modulation=True)
QUIET = {"progress": False}


def whole(source: StackSource) -> PatchBatch:
    """The largest square of a stack from its first pixel."""
    return source.patch(0, 0, min(source.shape), ALL)


def unexplained_over_noise(batch: PatchBatch, noise_dn: float) -> float:
    """Chi squared per degree of freedom of the frames at the true heights, A and B fitted to every pixel."""
    frames, truth = batch.frames, batch.truth_nm
    assert frames is not None
    assert truth is not None
    use = (batch.planes.valid & truth.isfinite())[0]
    size = truth.shape[-1]
    r = torch.stack(torch.meshgrid(*2 * [torch.arange(size, dtype=torch.float64)], indexing="ij"), dim=-1)
    tilt = torch.einsum("lkc,yxc->lkyx", frames.tilt_rad_px[0].double(), r - frames.pivot_px[0].double())
    total, count = 0.0, 0
    for number, wave in enumerate(frames.wavelengths_nm[0].double()):
        angle = (
            4 * math.pi / wave * truth[0].double() + frames.step_rad[0, number].double()[:, None, None] + tilt[number]
        )
        cosine = angle.cos()[:, use].T
        samples = frames.frames_dn[0, number].double()[:, use].T
        # A drops out with the means; B is the slope
        cosine, samples = (values - values.mean(dim=1, keepdim=True) for values in (cosine, samples))
        slope = (cosine * samples).sum(dim=1, keepdim=True) / (cosine**2).sum(dim=1, keepdim=True)
        left = samples - slope * cosine
        total += float((left**2).sum())
        count += int(use.sum()) * (samples.shape[1] - 2)
    return total / count / noise_dn**2


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def four(wafer_folder: Path, wafer, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> StackSource:
    """Four wavelengths with their truth, 777 nm too high."""
    folder = folder_of(tmp_path_factory.mktemp("four") / "bench", np.asarray(wafer.frames))
    np.save(folder / "truth.npy", wafer.height_nm + 777.0)
    return open_training_stacks([folder], cache, frames=True, **QUIET)[0]


def test_guide_truth_and_frames_belong_together(four: StackSource, wafer):
    assert four.shape == (160, 200)
    assert four.wavelengths_nm == WAVES_NM
    assert four.frame_shape == (4, 4)
    batch = whole(four)
    planes, truth = batch.planes, batch.truth_nm
    assert truth is not None
    assert not (planes.valid[0].numpy() & ~wafer.mask[:160, :160]).any()
    off = ((planes.height_nm - truth) / planes.sigma_nm)[planes.valid]
    assert off.abs().median() == pytest.approx(0.6745, rel=0.05)  # of a normal distribution, over 2e4 pixels
    assert planes.phase_rad is not None
    for number, wave in enumerate(WAVES_NM):
        turn = torch.exp(1j * (planes.phase_rad[0, number].double() - 4 * math.pi / wave * truth[0].double()))
        phase = torch.angle(turn[planes.valid[0]])
        # 1 DN in 25 to 50 DN over four frames is 0.014 to 0.03 rad; the mean over 2e4 pixels leaves no offset
        assert phase.std() < 0.05
        assert abs(phase.mean()) < 5e-3


def test_guides_are_made_once(four: StackSource, cache: Path):
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = open_training_stacks([Path(four.name)], cache, **QUIET)[0]
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    assert again.frame_shape is None
    assert again.files.guide == four.files.guide


def test_tilts_pistons_and_steps_that_were_found_explain_the_frames(cache: Path, tmp_path: Path):
    """Nominal steps that are wrong, frames that tilt, wavelengths with pistons of their own: an independent generator."""
    faults = Faults(step_error_deg=6.0, tilt_rad=0.8, piston_rad=0.5, read_noise=0.01, fringes=6.0)
    scene = make_scene(5, (144, 160), (632.8, 589.0), FIVE_DEG, faults)
    folder = folder_of(tmp_path / "tilted", np.asarray(scene.frames), scene.wavelengths_nm, FIVE_DEG, steps="nominal")
    np.save(folder / "truth.npy", scene.height_nm)
    batch = whole(open_training_stacks([folder], cache, frames=True, **QUIET)[0])
    # read noise is 1 % of full scale, and whole numbers; the fitted steps are off by what 2e4 pixels leave
    noise_dn = math.hypot(0.01 * 255, math.sqrt(1 / 12))
    assert unexplained_over_noise(batch, noise_dn) == pytest.approx(1.0, abs=0.1)
    assert batch.frames is not None
    wrong = replace(batch, frames=replace(batch.frames, tilt_rad_px=torch.zeros_like(batch.frames.tilt_rad_px)))
    assert unexplained_over_noise(wrong, noise_dn) > 5


@pytest.mark.parametrize("steps", ["trusted", "unknown"])
def test_one_wavelength_and_a_sign_nobody_knows(steps, mirror, cache: Path, tmp_path: Path):
    """Blind steps are fitted up to the sign: the truth takes the one of the guide."""
    given = STEPS_DEG if steps == "trusted" else (0, -70, -140, -210, -280)
    scene = mirror
    if steps == "unknown":
        faults = Faults(read_noise=0.004, fringes=6.0, aperture=0.8)
        scene = make_scene(2, (160, 200), (632.8,), given, faults)
    else:
        given = FIVE_DEG
    folder = folder_of(tmp_path / "one", np.asarray(scene.frames), (632.8,), None if steps == "unknown" else given)
    np.save(folder / "truth.npy", scene.height_nm)
    source = open_training_stacks([folder], cache, frames=True, **QUIET)[0]
    assert source.files.truth is not None
    batch = whole(source)
    assert batch.truth_nm is not None
    known = batch.planes.valid & batch.truth_nm.isfinite()
    assert known.sum() > 0.9 * batch.planes.valid.sum()
    assert float((batch.planes.height_nm - batch.truth_nm)[known].abs().median()) < 10
    assert source.files.truth.sign == (-1 if steps == "unknown" else 1)


def test_folders_of_stacks(wafer_folder: Path, wafer, cache: Path, tmp_path: Path):
    for name in ("b", "a"):
        folder_of(tmp_path / name, np.asarray(wafer.frames))
    (tmp_path / "notes").mkdir()
    np.save(tmp_path / "single.npy", wafer.frames)
    (tmp_path / "single.toml").write_text((tmp_path / "a" / "acquisition.toml").read_text())
    np.save(tmp_path / "single.truth.npy", wafer.height_nm)
    found = find_stacks(tmp_path)
    assert [Path(name).name for name in found] == ["a", "b", "single.npy"]
    assert find_stacks(wafer_folder) == [str(wafer_folder)]
    sources = open_training_stacks([tmp_path], cache, **QUIET)
    assert [source.has_truth for source in sources] == [False, False, True]


def test_a_corrupt_stack_among_many(wafer, cache: Path, tmp_path: Path):
    folder_of(tmp_path / "good", np.asarray(wafer.frames))
    broken = folder_of(tmp_path / "broken", np.asarray(wafer.frames))
    with open(broken / "frames.npy", "r+b") as file:
        file.truncate(10_000)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "acquisition.toml").write_text('wavelengths = ["632.8 nm"]\n')
    with pytest.raises(InputError, match=r"broken.*leave such stacks out with skip_corrupt, of 3") as told:
        open_training_stacks([tmp_path], cache, **QUIET)
    assert "\n" not in str(told.value)
    heard = Heard()
    sources = open_training_stacks([tmp_path], cache, skip_corrupt=True, progress=heard)
    assert [Path(source.name).name for source in sources] == ["good"]
    assert [Path(line.split(": ")[0]).name for line in heard.warnings] == ["broken", "empty"]
    with pytest.raises(InputError, match="none of the 1 stacks can be used"):
        open_training_stacks([broken], cache, skip_corrupt=True, **QUIET)


def test_folders_without_stacks(cache: Path, tmp_path: Path):
    with pytest.raises(InputError, match="holds no stacks"):
        open_training_stacks([tmp_path], cache)
    with pytest.raises(InputError, match="does not exist"):
        open_training_stacks([tmp_path / "none"], cache)
    with pytest.raises(InputError, match="no stacks to train on"):
        open_training_stacks([], cache)


def test_a_truth_of_another_shape(wafer, cache: Path, tmp_path: Path):
    folder = folder_of(tmp_path / "frames", np.asarray(wafer.frames))
    np.save(folder / "truth.npy", wafer.height_nm[:, :-1])
    with pytest.raises(InputError, match=r"shape \(160, 199\).*\(160, 200\)"):
        open_training_stacks([folder], cache, **QUIET)


@pytest.mark.parametrize("waves", [WAVES_NM, (632.8,)])
def test_simulated_stacks_have_the_noise_that_was_asked_for(waves, cache: Path):
    noise = 0.15
    spec = SimulatedSpec(
        count=1,
        first_seed=4,
        shape=(128, 128),
        surfaces=("smooth",),
        wavelengths_nm=(waves,),
        phase_noise_rad=(noise, noise),
    )
    source = simulated_stacks(cache, spec, frames=True, **QUIET)[0]
    batch = source.patch(32, 32, 64, ALL)  # the middle: light and fringes fall off towards the corners
    assert batch.planes.phase_rad is not None
    assert batch.truth_nm is not None
    for number, wave in enumerate(waves):
        phase = batch.planes.phase_rad[0, number].double() - 4 * math.pi / wave * batch.truth_nm[0].double()
        # 4096 pixels: 1.1 %; the fringes are 1 to 3 % weaker 32 pixels off the centre; atan2 of noisy phasors spreads by
        # sigma^2 / 2 of itself more, 1 %
        assert torch.angle(torch.exp(1j * phase)).std() == pytest.approx(noise, rel=0.08)
    settings = spec.settings(4)
    assert unexplained_over_noise(batch, math.hypot(settings.instrument.read_noise(8), math.sqrt(1 / 12))) == (
        pytest.approx(1.0, abs=0.1)
    )
    folders = {path: path.stat().st_mtime_ns for path in cache.glob("simulated-4-*/frames.npy")}
    again = simulated_stacks(cache, spec, **QUIET)[0]
    assert source.frame_shape == (len(waves), 4)
    assert again.frame_shape is None  # patches come without frames where none are asked for
    assert {path: path.stat().st_mtime_ns for path in cache.glob("simulated-4-*/frames.npy")} == folders


def test_seeds_draw_surfaces_wavelengths_and_noise():
    spec = SimulatedSpec(count=40, shape=(64, 64), wavelengths_nm=(WAVES_NM, (632.8,)))
    settings = [spec.settings(seed) for seed in spec.seeds]
    assert {one.wavelengths_nm for one in settings} == {WAVES_NM, (632.8,)}
    assert all(
        (spec.range_nm(seed) is None) == (len(one.wavelengths_nm) == 1)
        for seed, one in zip(spec.seeds, settings, strict=True)
    )
    ratio = [one.instrument.read_noise(8) / (255 * one.instrument.modulation) for one in settings]
    sigma = np.array(ratio) * math.sqrt(2 / 4)
    assert 0.015 < sigma.min() < 0.04  # quantisation has a share of the smallest
    assert 0.25 < sigma.max() < 0.41
    assert {one.pixel_um for one in settings} == {None}
    fine = SimulatedSpec(count=20, shape=(64, 64), pixel_um=(44.0, 100.0))
    assert {fine.settings(seed).pixel_um for seed in fine.seeds} == {44.0, 100.0}
    varied = SimulatedSpec(count=8, shape=(64, 64), surfaces=("varied",), wavelengths_nm=(632.8,))
    assert len({varied.settings(seed).pixel_um for seed in varied.seeds}) == 8
    assert all(
        varied.settings(seed).resolved_surface.die_step_nm == 0 for seed in varied.seeds
    )  # one wavelength: no steps
    assert settings[3] == SimulatedSpec(
        count=1, first_seed=3, shape=(64, 64), wavelengths_nm=(WAVES_NM, (632.8,))
    ).settings(3)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
def test_noisy_frames_are_hardly_clipped(noise):
    instrument = noisy_instrument(noise, 4)
    middle, fringes, sigma = 255 * instrument.background, 255 * instrument.modulation, instrument.read_noise(8)
    assert middle + fringes + 3.9 * sigma < 255
    assert middle - fringes - 3.9 * sigma > 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 0}, "give 1 or more"),
        ({"surfaces": ("wafr",)}, "did you mean 'wafer'"),
        ({"surfaces": ()}, "surfaces and wavelengths"),
        ({"phase_noise_rad": (0.3, 0.2)}, "two rising limits"),
        ({"phase_noise_rad": (0.001, 0.2)}, "from 0.01"),
        ({"wrong_order_rate": 0.0}, "wrong_order_rate"),
        ({"pixel_um": (0.0,)}, "pixel size 0.0 um"),
        ({"pixel_um": (44.0,), "surfaces": ("varied",)}, "pixel sizes of their own"),
        ({"shape": (4, 4)}, "from 8 pixels"),
        ({"frames": 2}, "give 3 to 1000"),
        ({"first_seed": -2}, "negative"),
    ],
)
def test_bad_specs_are_told(values, said):
    with pytest.raises(InputError, match=said):
        SimulatedSpec(**values)


def test_mixed_stacks_make_batches(four: StackSource, cache: Path):
    spec = SimulatedSpec(count=1, shape=(96, 96), surfaces=("smooth",), phase_noise_rad=(0.05, 0.05))
    simulated = simulated_stacks(cache, spec, frames=True, **QUIET)
    asked = PatchSettings(size=48, frames=True, phases=True, count=6, least_valid=0.2)
    dataset = WaferPatchDataset([four, *simulated], asked, weights=[1, 1])
    assert {int(dataset[0, i].place[0, 0]) for i in range(6)} == {0, 1}
    odd = simulated_stacks(cache, replace(spec, frames=5), frames=True, **QUIET)
    with pytest.raises(InputError, match="cannot share a batch"):
        WaferPatchDataset([four, *odd], asked)


@pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set CPIKAN_DATA")
def test_a_measured_mirror_whose_camera_bends_the_fringes(cache: Path, tmp_path: Path):
    """Twelve frames of a telescope mirror: patches know its steps, tilts and the response of its camera."""
    frames = np.stack(
        [np.asarray(Image.open(DATA / "mlpeck_zernike" / f"Image{i}.jpg").convert("L")) for i in range(5, 17)]
    )
    frames = frames[:, 110:470, 210:570]
    steps = [-60.0 * k for k in range(12)]
    folder = folder_of(tmp_path / "mirror", frames, (654.0,), steps, steps="nominal")
    source = open_training_stacks([folder], cache, frames=True, **QUIET)[0]
    assert source.files.light[0].model.response is not None
    batch = source.patch(50, 60, 256, ALL)
    planes, window = batch.planes, torch.from_numpy(frames[None, None, :, 50:306, 60:316].astype(np.float32))
    assert planes.phase_rad is not None
    # one wavelength: the height is the phase, unwrapped; float32 heights of 3000 nm are rounded to 1.2e-4 nm, 2.3e-6 rad,
    # kernels sum in float32
    off = planes.phase_rad[0, 0].double() - 4 * math.pi / 654.0 * planes.height_nm[0].double()
    assert torch.angle(torch.exp(1j * off))[planes.valid[0]].abs().max() < 1e-4
    explained = replace(batch, truth_nm=planes.height_nm)
    raw = replace(explained, frames=replace(batch.frames, frames_dn=window))
    # relative to the fringes, which the bent response compresses
    light = unexplained_over_noise(explained, float(batch.frames.frames_dn.std()))
    assert light < 0.02 < unexplained_over_noise(raw, float(window.std()))


@pytest.mark.parametrize("known", [0, 9])
def test_a_truth_of_nothing(tmp_path, known):
    truth = np.full((30, 40), np.nan)
    truth[4, :known] = 5.0
    np.save(tmp_path / "truth.npy", truth)
    guide = SimpleNamespace(
        shape=(30, 40), height_nm=np.ones((30, 40)), flags=np.zeros((30, 40), np.uint8), component=None, summary={}
    )
    with pytest.raises(InputError, match=r"truth\.npy has heights at fewer than 16"):
        align_truth(tmp_path / "truth.npy", guide)
