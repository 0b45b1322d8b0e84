"""From a subsample to the model of the pixel pass: heights at the Cramer-Rao bound, intervals that cover, honest refusals."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.psi.calibration.calibrate import Calibration, CalibrationSettings, calibrate
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.carrier import WholeRows
from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.model import HeightRows, PhaseRows, empty_rows
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.flags import Flag

WAVES = (5000.0, 5500.0, 6050.0, 6655.0)
STEPS = (0.0, 90.0, 180.0, 270.0)
SHAPE = (180, 600)


@dataclass(frozen=True)
class Scene:
    frames: np.ndarray
    height_nm: np.ndarray
    modulation: np.ndarray
    acquisition: Acquisition


def make_scene(
    seed: int,
    noise_dn: float,
    *,
    waves: tuple[float, ...] = WAVES,
    steps: tuple[float, ...] = STEPS,
    modulation: tuple[float, float] = (100.0, 100.0),
    extent_nm: float = 20_000.0,
    dtype: str = "u1",
    state: str = "trusted",
    harmonic2: float = 0.0,
) -> Scene:
    """A tilted bowl under uneven light; 8 bit, background 125 DN; noise is that of the detector before it rounds."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    form = x + 0.6 * y + 0.4 * (x * x + y * y)
    height = extent_nm * ((form - form.min()) / np.ptp(form) - 0.5)
    b = modulation[0] + (modulation[1] - modulation[0]) * (1 + x * y) / 2
    angle = 4 * np.pi * height / np.array(waves)[:, None, None, None] + np.radians(steps)[:, None, None]
    frames = 125 + b * (np.cos(angle) + harmonic2 * np.cos(2 * angle)) + rng.normal(0, noise_dn, angle.shape)
    frames = np.clip(np.rint(frames), 0, 255).astype(dtype) if dtype == "u1" else frames.astype(dtype)
    given = None if state == "unknown" else (steps,) * len(waves)
    return Scene(frames, height, b, Acquisition(waves, given, state))  # type: ignore[arg-type]


def calibrated(scene: Scene, settings: CalibrationSettings | None = None, saturation: float = 255.0) -> Calibration:
    """Calibration from every third pixel of every third row."""
    rows, columns = np.arange(2, SHAPE[0], 3), np.arange(1, SHAPE[1], 3)
    part = scene.frames[:, :, rows][..., columns]
    position = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    flat = part.reshape(*part.shape[:2], -1)
    whole = WholeRows(scene.frames[:, :, rows[::12]], rows[::12])
    sample = Subsample(flat, position, whole, np.ones(flat.shape[-1], bool), SHAPE)
    return calibrate(sample, scene.acquisition, saturation, settings or CalibrationSettings())


def run(scene: Scene, calibration: Calibration) -> HeightRows:
    kernels = CpuKernels(calibration.model, 2)
    out = kernels.heights(scene.frames, 0, None, HeightRows(*empty_rows(*SHAPE)), np.empty((SHAPE[0], COLUMNS)))
    kernels.close()
    return out


def bound_nm(scene: Scene, noise_dn: float) -> np.ndarray:
    """Cramer-Rao bound of the height from all frames with background and modulation unknown, rounding as noise of 1/12 DN^2.

    sigma_phi^2 = (2 / K) sigma^2 / B^2 for each wavelength; heights add their information, (4 pi / lambda)^2 / sigma_phi^2.
    """
    rounding = 1 / 12 if scene.frames.dtype.kind == "u" else 0.0
    phase = np.sqrt((noise_dn**2 + rounding) * 2 / scene.frames.shape[1]) / scene.modulation
    return phase / np.sqrt(((4 * np.pi / np.array(scene.acquisition.wavelengths_nm)) ** 2).sum())


@pytest.mark.parametrize("modulation", [(100.0, 100.0), (40.0, 100.0)])
@pytest.mark.parametrize("noise_dn", [2.0, 5.0, 8.0])
def test_heights_reach_the_cramer_rao_bound_and_sigma_covers(noise_dn: float, modulation: tuple[float, float]) -> None:
    scene = make_scene(3, noise_dn, modulation=modulation)
    out = run(scene, calibrated(scene, CalibrationSettings(range_nm=27_000.0)))
    good = out.flags & Flag.INVALID == 0
    error = (out.height_nm - scene.height_nm)[good].astype(float)
    error -= np.median(error)
    right = np.abs(error) < 1000
    # at B = 40 and 8 DN the phase noise is 0.14 rad: 6e-6 of the orders are expected wrong
    assert (~right).mean() < 5e-5
    normal = error[right] / bound_nm(scene, noise_dn)[good][right]
    assert np.sqrt((normal**2).mean()) <= 1.05
    covered = (np.abs(error) <= 1.96 * out.sigma_nm[good]).mean()
    assert 0.94 <= covered <= 0.96


def test_coverage_at_strong_noise() -> None:
    """16 DN at B = 100, three in a hundred saturated pixels aside; orders within the range the noise allows."""
    scene = make_scene(4, 16.0, extent_nm=8000.0, modulation=(75.0, 75.0))
    out = run(scene, calibrated(scene, CalibrationSettings(range_nm=12_000.0)))
    good = out.flags & Flag.INVALID == 0
    error = (out.height_nm - scene.height_nm)[good].astype(float)
    error -= np.median(error)
    right = np.abs(error) < 1000
    assert right.mean() > 0.99
    assert 0.94 <= (np.abs(error) <= 1.96 * out.sigma_nm[good])[right].mean() <= 0.96
    normal = error[right] / bound_nm(scene, 16.0)[good][right]
    # the arctangent of a noisy phasor spreads beyond the bound by var / B^2 (Appl. Opt. 37, 7253): 2 %; and a little more
    assert np.sqrt((normal**2).mean()) <= 1.05


def test_coverage_where_rounding_is_most_of_the_noise() -> None:
    """0.5 DN of noise before rounding to 1 DN still dithers it: 1/12 DN^2 more, and white."""
    scene = make_scene(5, 0.5)
    out = run(scene, calibrated(scene, CalibrationSettings(range_nm=27_000.0)))
    error = out.height_nm - scene.height_nm
    error -= np.median(error)
    assert 0.94 <= (np.abs(error) <= 1.96 * out.sigma_nm).mean() <= 0.96
    assert np.sqrt(((error / bound_nm(scene, 0.5)) ** 2).mean()) <= 1.05


def test_what_happens_without_any_noise() -> None:
    """Rounding alone is not white, and not normal: sigma stays at 1/12 DN^2 and covers at least its share."""
    scene = make_scene(6, 0.0)
    found = calibrated(scene, CalibrationSettings(range_nm=27_000.0))
    out = run(scene, found)
    error = out.height_nm - scene.height_nm
    error -= np.median(error)
    assert 0.92 <= (np.abs(error) <= 1.96 * out.sigma_nm).mean() <= 0.99
    assert all(one.variance(np.array(125.0)) == pytest.approx(1 / 12, rel=0.1) for one in found.noise)


def test_float_frames_without_noise_still_work() -> None:
    scene = make_scene(6, 0.0, dtype="f4")
    out = run(scene, calibrated(scene, CalibrationSettings(range_nm=27_000.0), saturation=np.inf))
    assert (out.flags & Flag.INVALID == 0).all()
    # float32 phases of 3e-8 turns and more, combined: 2500 nm * 3e-7
    assert np.abs(out.height_nm - scene.height_nm).max() < 5e-3


def test_heights_at_the_very_ends_of_the_range_keep_their_order() -> None:
    """The surface fills the range to its ends, where noise carries the phase beyond them for every other pixel."""
    scene = make_scene(7, 7.0, extent_nm=27_000.0)
    # a length is centred on the sampled heights, which miss a little at the corners; limits are exact
    for range_nm, allowed in (((-13_500.0, 13_500.0), 0), (27_000.0, 10)):
        out = run(scene, calibrated(scene, CalibrationSettings(range_nm=range_nm)))
        assert (np.abs(out.height_nm - scene.height_nm) > 1000).sum() <= allowed


def test_noise_is_measured_and_orders_are_planned() -> None:
    found = calibrated(make_scene(8, 4.0))
    for one in found.noise:
        assert one.variance(np.array(125.0)) == pytest.approx(16 + 1 / 12, rel=0.05)
    for sigma in found.sigma_phase_rad:
        # sqrt(2 / 4) * 4.01 / 100
        assert sigma == pytest.approx(0.02836, rel=0.04)
    assert found.wrong_order_rate is not None
    assert found.wrong_order_rate < 1e-6
    assert found.steps.fits is None
    assert found.steps.sign == "given"
    assert found.warnings == ()


@pytest.mark.parametrize("noise_dn", [2.0, 6.0])
def test_three_frames_get_their_noise_from_the_wavelengths(noise_dn: float) -> None:
    scene = make_scene(9, noise_dn, steps=(0.0, 120.0, 240.0))
    found = calibrated(scene, CalibrationSettings(range_nm=27_000.0))
    assert {one.source for one in found.noise} == {"wavelengths"}
    out = run(scene, found)
    error = out.height_nm - scene.height_nm
    error -= np.median(error)
    right = np.abs(error) < 1000
    assert right.mean() > 1 - 1e-4
    assert 0.94 <= (np.abs(error) <= 1.96 * out.sigma_nm)[right].mean() <= 0.96


def test_wrong_trusted_steps_enter_sigma_and_it_covers() -> None:
    """Steps that are said to be trusted and are 4 degrees off stay: the ripple that they leave is in sigma, no more."""
    scene = make_scene(10, 2.0)
    wrong = replace(scene, acquisition=Acquisition(WAVES, ((0.0, 94.0, 188.0, 282.0),) * 4, "trusted"))
    found = calibrated(wrong, CalibrationSettings(range_nm=27_000.0))
    assert found.sigma_phase_rad[0] > 1.5 * np.sqrt(2 / 4) * 2 / 100
    out = run(wrong, found)
    error = out.height_nm - scene.height_nm
    error -= np.median(error)
    # the ripple is a sine, and the wavelengths share it: intervals hold a little less or more often than of pure noise
    assert 0.92 < (np.abs(error) <= 1.96 * out.sigma_nm).mean() < 0.98


def test_harmonics_show_as_a_phase_floor_and_sigma_covers() -> None:
    """A second harmonic aliases into three frames' phases; the wavelengths disagree, and sigma grows by that."""
    scene = make_scene(10, 1.0, steps=(0.0, 70.0, 200.0, 310.0), harmonic2=0.05)
    found = calibrated(scene, CalibrationSettings(range_nm=27_000.0))
    out = run(scene, found)
    error = out.height_nm - scene.height_nm
    error -= np.median(error)
    assert (np.abs(error) <= 1.96 * out.sigma_nm).mean() > 0.9


def test_unknown_steps_are_estimated_and_give_the_heights() -> None:
    scene = make_scene(11, 2.0, steps=(0.0, 80.0, 165.0, 250.0, 330.0), state="unknown")
    found = calibrated(scene, CalibrationSettings(range_nm=27_000.0))
    assert found.steps.fits is not None
    assert found.steps.sign == "assumed"
    for row in found.steps_deg:
        # 12 000 pixels, 2 DN on 100: 0.02 deg a step, five frames ten times that
        assert np.abs(np.subtract(row, (0.0, 80.0, 165.0, 250.0, 330.0))).max() < 0.3
    error = run(scene, found).height_nm - scene.height_nm
    error -= np.median(error)
    assert (np.abs(error) > 1000).mean() < 1e-4
    assert error.std() < 1.3 * bound_nm(scene, 2.0).mean()


def test_a_pixel_without_fringes_is_no_measurement() -> None:
    """Half the field dark, noise only: invalid there, valid elsewhere."""
    scene = make_scene(12, 3.0)
    rng = np.random.default_rng(0)
    frames = scene.frames.copy()
    frames[..., :500] = np.clip(np.rint(20 + rng.normal(0, 3, frames[..., :500].shape)), 0, 255)
    dark = replace(scene, frames=frames)
    out = run(dark, calibrated(dark, CalibrationSettings(range_nm=27_000.0)))
    invalid = out.flags & Flag.INVALID != 0
    assert invalid[:, :500].mean() > 0.998
    assert not invalid[:, 500:].any()


def test_one_wavelength_has_no_orders() -> None:
    scene = make_scene(13, 2.0, waves=(632.8,), extent_nm=2000.0)
    found = calibrated(scene)
    assert found.model.search is None
    kernels = CpuKernels(found.model, 1)
    out = kernels.phases(scene.frames, None, PhaseRows(*empty_rows(*SHAPE)))
    kernels.close()
    error = np.angle(np.exp(1j * (out.phase_rad - 4 * np.pi * scene.height_nm / 632.8)))
    assert error.std() == pytest.approx(np.sqrt((4 + 1 / 12) / 2) / 100, rel=0.02)
    assert 0.94 <= (np.abs(error) <= 1.96 * out.sigma_rad).mean() <= 0.96


def test_input_that_cannot_be_measured_is_refused() -> None:
    scene = make_scene(14, 2.0)
    with pytest.raises(InputError, match="no usable pixels"):
        calibrated(replace(scene, frames=np.full_like(scene.frames, 255)))
    with pytest.raises(InputError, match="no fringes"):
        calibrated(replace(scene, frames=np.full_like(scene.frames, 100)))


def test_too_long_a_range_is_warned_about() -> None:
    found = calibrated(make_scene(15, 15.0, extent_nm=5000.0), CalibrationSettings(range_nm=200_000.0))
    assert "wrong-orders" in [one.name for one in found.warnings]


@pytest.mark.parametrize(("modulation", "faint"), [(3.4, True), (7.5, False)])
def test_fringes_of_a_few_steps_of_the_camera_are_told(modulation: float, faint: bool) -> None:
    found = calibrated(make_scene(31, 0.4, waves=WAVES[:1], modulation=(modulation, modulation), extent_nm=900.0))
    assert [one.name for one in found.warnings] == (["fringes-faint"] if faint else [])


def test_steps_that_are_off_without_harm_contradict_no_pixel() -> None:
    """Five frames at 80 for 90 deg: the phase hardly suffers, and what is left in every pixel is no reason to doubt each."""
    given = (0.0, 90.0, 180.0, 270.0, 360.0)
    scene = make_scene(32, 0.8, waves=WAVES[:1], steps=tuple(8 / 9 * step for step in given))
    scene = replace(scene, acquisition=replace(scene.acquisition, phase_steps_deg=(given,), steps_said=True))
    found = calibrated(scene)
    kernels = CpuKernels(found.model, 1)
    rows = kernels.phases(scene.frames, None, PhaseRows(*empty_rows(*SHAPE)))
    kernels.close()
    assert np.nanmedian(rows.sigma_rad) < 1.5 * found.sigma_phase_rad[0]
    assert found.sigma_phase_rad[0] < 3 * 0.8 / 100


def test_a_calibration_made_again_is_the_same_bit_for_bit() -> None:
    """On it rests that tests of what comes after calibrate equal stacks once (`conftest.calibrated_once`)."""
    scene = make_scene(7, 4.0, steps=(0.0, 90.0, 180.0, 270.0, 360.0), waves=WAVES[:2], state="nominal")
    assert pickle.dumps(calibrated(scene)) == pickle.dumps(calibrated(scene))
