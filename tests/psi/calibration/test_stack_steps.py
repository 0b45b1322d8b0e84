"""What the frames of a stack were, through calibration: trusted steps checked, others fitted, one sign for all wavelengths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.psi.calibration.calibrate import CalibrationSettings, calibrate
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.carrier import WholeRows
from cpikan.psi.calibration.steps.stack_steps import mirrored, stack_steps
from cpikan.psi.calibration.steps.two_frames import fit_two_frames
from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.model import PhaseRows, empty_rows
from cpikan.psi.model.acquisition import Acquisition

SHAPE = (180, 240)
WAVES = (633.0, 532.0)


@dataclass(frozen=True)
class Scene:
    """``frames`` (L, K, H, W) float64 DN, and what made them: ``phase_rad`` (L, H, W), ``steps_deg`` (L, K) and the
    ``tilt_rad_px`` (L, K, 2) about the middle."""

    frames: np.ndarray
    phase_rad: np.ndarray
    steps_deg: np.ndarray
    tilt_rad_px: np.ndarray

    def sample(self, every: int = 2) -> Subsample:
        place = np.mgrid[: SHAPE[0] : every, : SHAPE[1] : every].reshape(2, -1)
        flat = self.frames[:, :, place[0], place[1]]
        lines = np.arange(0, SHAPE[0], SHAPE[0] // 4)
        rows = WholeRows(self.frames[:, :, lines], lines)
        return Subsample(flat, place.T, rows, np.ones(flat.shape[-1], bool), SHAPE)


def make(
    steps_deg: list[list[float]],
    *,
    fringes: float = 8.0,
    tilt_rad: float = 0.0,
    noise_dn: float = 1.5,
    waves: tuple[float, ...] = WAVES[:1],
    harmonics: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> Scene:
    """A tilted bowl under uneven light: A = 115 to 125, B = 60 to 70 DN; the tilt of each frame grows with its number."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    height = fringes * waves[0] / 2 * (0.4 * x + 0.25 * y + 0.15 * (x * x + 1.3 * y * y))
    phase = 4 * np.pi * height / np.array(waves)[:, None, None]
    steps = np.radians(steps_deg)
    count = steps.shape[1]
    way = rng.uniform(-1, 1, (len(waves), count, 2)) * tilt_rad
    way[:, 0] = 0
    delta = steps[:, :, None, None] + way[..., 0, None, None] * y + way[..., 1, None, None] * x
    angle = phase[:, None] + delta
    bent = np.cos(angle) + harmonics[0] * np.cos(2 * angle) + harmonics[1] * np.cos(3 * angle)
    frames = 120 + 5 * x + (65 + 5 * y * x) * bent + rng.normal(0, noise_dn, angle.shape)
    return Scene(frames, phase, np.asarray(steps_deg, float), way * 2 / (np.array(SHAPE) - 1))


def steps_of(scene: Scene, acquisition: Acquisition, effects: tuple[str, ...] | None = None):  # type: ignore[no-untyped-def]
    sample = scene.sample()
    return stack_steps(sample.frames, sample.position, sample.rows, acquisition, effects)


def off_deg(found: object, true: object) -> np.ndarray:
    return np.abs((np.subtract(found, true) + 180) % 360 - 180)


def test_trusted_steps_are_used_as_given_and_checked() -> None:
    true = [0.0, 70.0, 152.0, 221.0, 290.0]
    scene = make([true])
    given = (0.0, 72.0, 144.0, 216.0, 288.0)
    found = steps_of(scene, Acquisition(WAVES[:1], (given,), "trusted"))
    assert found.steps_deg == (given,)
    assert found.fits is None
    assert found.sign == "given"
    assert found.deviation_deg is not None
    # five frames leave two degrees of freedom a pixel: 10 000 pixels at sigma / B = 0.02 give a few hundredths of a degree
    np.testing.assert_allclose(found.deviation_deg[0], np.subtract(true, given), atol=0.3)
    assert "off by up to 8.0 deg" in found.warnings[0].text
    good = steps_of(scene, Acquisition(WAVES[:1], (tuple(true),), "trusted"))
    assert good.warnings == ()


def test_a_flat_field_says_that_trusted_steps_do_not_fit_but_not_what_they_are() -> None:
    scene = make([[0.0, 72.0, 144.0, 216.0, 288.0]], fringes=0.3)
    found = steps_of(scene, Acquisition(WAVES[:1], ((0.0, 60.0, 120.0, 180.0, 240.0),), "trusted"))
    assert found.deviation_deg == (None,)
    assert [one.name for one in found.warnings] == ["frames-unexplained"]
    right = steps_of(scene, Acquisition(WAVES[:1], ((0.0, 72.0, 144.0, 216.0, 288.0),), "trusted"))
    assert right.warnings == ()


def test_less_than_one_fringe_refuses_unknown_steps_and_keeps_nominal_ones() -> None:
    scene = make([[0.0, 70.0, 150.0, 220.0, 290.0]], fringes=0.5)
    with pytest.raises(
        InputError, match=r"do not determine their phase steps.*fringes, steps need 0.75.*give --phase-steps"
    ):
        steps_of(scene, Acquisition(WAVES[:1]))
    nominal = (0.0, 72.0, 144.0, 216.0, 288.0)
    found = steps_of(scene, Acquisition(WAVES[:1], (nominal,), "nominal"))
    np.testing.assert_allclose(found.steps_deg[0], nominal, atol=1e-9)
    assert "nominal steps are used as given" in found.warnings[0].text
    assert found.fits is not None
    assert not found.fits[0].determined


def test_blind_wavelengths_share_one_sign() -> None:
    """The second wavelength's first step is beyond 180 deg: alone it would come out mirrored."""
    true = [[0.0, 95.0, 190.0, 265.0, 10.0, 88.0], [0.0, 200.0, 40.0, 250.0, 90.0, 300.0]]
    scene = make(true, waves=WAVES, fringes=12.0)
    found = steps_of(scene, Acquisition(WAVES))
    assert found.sign == "assumed"
    assert off_deg(found.steps_deg, true).max() < 0.5
    alone = steps_of(replace(scene, frames=scene.frames[1:]), Acquisition(WAVES[1:]))
    assert off_deg(alone.steps_deg[0], np.negative(true[1])).max() < 0.5


def test_a_mirrored_wavelength_keeps_its_tilts() -> None:
    """Phase, steps and tilts change sign together: the second wavelength's first step is beyond 180 deg here too."""
    true = [[0.0, 95.0, 190.0, 265.0, 10.0, 88.0], [0.0, 200.0, 40.0, 250.0, 90.0, 300.0]]
    scene = make(true, waves=WAVES, fringes=12.0, tilt_rad=0.3)
    found = steps_of(scene, Acquisition(WAVES))
    assert found.fits is not None
    for fit, tilt in zip(found.fits, scene.tilt_rad_px, strict=True):
        off = np.abs(fit.model.tilt_rad_px - tilt)
        assert (off <= 5 * fit.tilt_error_rad_px).all()
        assert np.abs(tilt).max() > 20 * fit.tilt_error_rad_px.max()  # so that the other sign would be far off


def test_a_mirrored_fit_has_the_other_steps_in_every_pixel() -> None:
    scene = make([[0.0, 61.0, 118.0, 185.0, 236.0, 303.0, 2.0]], tilt_rad=0.3)
    fits = steps_of(scene, Acquisition(WAVES[:1]), ("tilt", "defocus")).fits
    assert fits is not None
    model = replace(fits[0].model, defocus_rad_px2=np.linspace(0, 1e-5, 7))
    y, x = np.meshgrid(*(np.linspace(0, n, 4) for n in SHAPE))
    there, back = (one.steps_at(y, x) for one in (model, mirrored(replace(fits[0], model=model)).model))
    off = (there + back + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(off, 0, atol=1e-9)


def test_fit_is_what_was_asked_for() -> None:
    scene = make([[0.0, 61.0, 118.0, 185.0, 236.0, 303.0, 2.0]], tilt_rad=0.3)
    acquisition = Acquisition(WAVES[:1])
    found = steps_of(scene, acquisition)
    assert found.fits is not None
    assert "tilt" in found.fits[0].effects
    assert off_deg(found.steps_deg, scene.steps_deg).max() < 0.3
    plain = steps_of(scene, acquisition, ())
    assert plain.fits is not None
    assert plain.fits[0].effects == ()
    assert plain.models[0].is_uniform
    curve = steps_of(scene, acquisition, ("tilt", "response"))
    assert curve.models[0].response is not None


def test_ripple_before_and_after() -> None:
    """Nominal steps of 90 deg on steps that are 2 to 9 deg off, with tilt: ripple at twice the fringes, gone after the fit."""
    scene = make([[0.0, 96.0, 172.0, 277.0, 351.0]], tilt_rad=0.2)
    acquisition = Acquisition(WAVES[:1], ((0.0, 90.0, 180.0, 270.0, 360.0),), "nominal")
    found = calibrate(scene.sample(), acquisition, np.inf, CalibrationSettings())
    assert found.ripple_before_mrad is not None
    assert found.ripple_after_mrad is not None
    before, after = found.ripple_before_mrad[0], found.ripple_after_mrad[0]
    assert before is not None
    assert after is not None
    # amplitudes are known to sqrt(2 / 3600) of the phase noise of 15 mrad, and the fit to a little more
    assert after[2] < 2.0
    assert before[2] > 20 * after[2]


@pytest.mark.parametrize(("count", "harmonics"), [(4, (0.08, 0.03)), (5, (0.1, 0.0)), (8, (0.08, 0.03))])
def test_phases_of_the_fused_pass_after_the_fit(count: int, harmonics: tuple[float, float]) -> None:
    """Tilt and harmonics at once, few frames and many: what is left of the phase error is noise, not ripple."""
    rng = np.random.default_rng(count)
    nominal = np.arange(count) * (90.0 if count < 6 else 60.0)
    true = nominal + (np.arange(count) > 0) * rng.uniform(-12, 12, count)
    scene = make([list(true)], tilt_rad=0.15, harmonics=harmonics, noise_dn=0.7)
    acquisition = Acquisition(WAVES[:1], (tuple(nominal),), "nominal")
    found = calibrate(scene.sample(), acquisition, np.inf, CalibrationSettings())
    kernels = CpuKernels(found.model, 2)
    out = kernels.phases(scene.frames.astype(np.float32), None, PhaseRows(*empty_rows(*SHAPE)))
    kernels.close()
    off = np.angle(np.exp(1j * (out.phase_rad.astype(float) - scene.phase_rad[0])))
    off -= off.mean()
    waves = np.stack([f(k * scene.phase_rad[0]).ravel() for k in (1, 2, 3, 4) for f in (np.cos, np.sin)], axis=1)
    amplitude = np.hypot(*np.linalg.lstsq(waves, off.ravel(), rcond=None)[0].reshape(4, 2).T)
    assert amplitude[1] < 5e-3  # the ripple of steps and tilts
    assert amplitude.max() < 8e-3


# --- two frames


def test_two_frames_through_calibration() -> None:
    scene = make([[0.0, 73.0]], fringes=20.0)
    found = calibrate(scene.sample(), Acquisition(WAVES[:1]), np.inf, CalibrationSettings())
    assert found.steps.fits is not None
    assert found.steps_deg[0][1] == pytest.approx(73.0, abs=3 * np.degrees(found.steps.fits[0].step_error_rad[1]))
    kernels = CpuKernels(found.model, 1)
    out = kernels.phases(scene.frames.astype(np.float32), None, PhaseRows(*empty_rows(*SHAPE)))
    kernels.close()
    off = np.angle(np.exp(1j * (out.phase_rad.astype(float) - scene.phase_rad[0])))
    off = np.angle(np.exp(1j * (off - np.angle(np.exp(1j * off).mean()))))
    # sigma is predicted from what background and modulation scatter, and from neighbours, which at 12 pixels a fringe count
    # some of the fringe as noise: right to a factor, and rather too large
    assert np.sqrt((off**2).mean()) < 0.2
    assert 0.3 < np.sqrt((off**2).mean()) / float(np.median(out.sigma_rad)) < 1.5


def test_nominal_steps_fix_the_sign_of_two_frames() -> None:
    scene = make([[0.0, -80.0]], fringes=20.0)
    sample = scene.sample()
    blind = fit_two_frames(sample.frames[0], sample.position, None)
    assert blind.steps_deg[1] == pytest.approx(80.0, abs=3)
    assert blind.sign == "assumed"
    given = fit_two_frames(sample.frames[0], sample.position, (0.0, -90.0))
    assert given.steps_deg[1] == pytest.approx(280.0, abs=3)


@pytest.mark.parametrize(
    ("steps", "fringes", "reason"), [([0.0, 80.0], 2.0, "fringes"), ([0.0, 175.0], 20.0, "too near")]
)
def test_two_frames_that_do_not_serve_are_refused(steps: list[float], fringes: float, reason: str) -> None:
    scene = make([steps], fringes=fringes)
    with pytest.raises(InputError, match=reason):
        steps_of(scene, Acquisition(WAVES[:1]))


def test_two_frames_show_their_step_alone() -> None:
    with pytest.raises(InputError, match="two frames show nothing but their step"):
        steps_of(make([[0.0, 80.0]], fringes=20.0), Acquisition(WAVES[:1]), ("tilt",))
