"""Recorrupted frames: noises that know nothing of each other, and what that does to the physics loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from loss_scenes import WAVES_NM, Setting, scene, steady

from cpikan.errors import InputError
from cpikan.images.features import FeatureSpec, PatchBatch, Prediction, features
from cpikan.images.losses import mean_loss
from cpikan.images.losses.physics import Physics, fringe, noise_dn, phase_of_height, wave, wrapped
from cpikan.images.training.transform import recorrupt


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with steady():
        yield


def measured(setting: Setting, seed: int = 0) -> PatchBatch:
    """A scene whose guide is what its own frames say, as reconstruction makes it."""
    batch = scene(setting, seed)
    assert batch.frames is not None
    assert batch.truth_nm is not None
    shift, weight = torch.zeros_like(batch.truth_nm), 0.0
    for index, wavelength in enumerate(setting.waves):
        scale = 4 * math.pi / wavelength
        phase = fringe(wave(batch.frames, index)).phase_rad
        away = wrapped(phase - phase_of_height(batch.truth_nm, batch.frames.wavelengths_nm[:, index]))
        shift, weight = shift + scale * away, weight + scale**2
    return replace(batch, planes=batch.planes._replace(height_nm=batch.truth_nm + shift / weight))


def chi_squared(batch: PatchBatch, height: torch.Tensor) -> float:
    return mean_loss(Physics(), Prediction(height, torch.zeros_like(height), torch.zeros_like(height)), batch).item()


def drawn(batch: PatchBatch, alpha: float, seed: int = 7) -> PatchBatch:
    return recorrupt(batch, alpha, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("waves", [WAVES_NM, WAVES_NM[:1]])
class TestIndependence:
    def test_noises_of_shown_heights_and_judged_frames_are_uncorrelated(
        self, waves: tuple[float, ...], alpha: float
    ) -> None:
        setting = Setting(patches=3, size=192, waves=waves)  # 110592 pixels, 90 % valid
        batch = measured(setting)
        made = drawn(batch, alpha)
        assert batch.truth_nm is not None
        assert made.frames is not None
        valid = made.planes.valid
        shown = ((made.planes.height_nm - batch.truth_nm) / made.planes.sigma_nm)[valid]
        # what the judged frames say on their own
        judged = torch.zeros_like(batch.truth_nm)
        for index in range(len(waves)):
            phase = fringe(wave(made.frames, index)).phase_rad
            judged += wrapped(phase - phase_of_height(batch.truth_nm, made.frames.wavelengths_nm[:, index]))
        judged = judged[valid] / judged[valid].std()
        count = int(valid.sum())
        assert count > 9e4
        # correlation of independent noises scatters by 1 / sqrt(count). z is drawn at the noise found over 81 pixels, which is
        # some 0.1 % high: a correlation of 1e-3 alpha / (1 + alpha^2) at most
        assert abs(float((shown * judged).mean())) < 4 / math.sqrt(count) + 5e-4
        # and the noise is that which sigma says: scatter of a variance sqrt(2 / count); 0.5 % for noise found and even steps
        assert shown.var().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / count) + 5e-3)

    def test_raw_noises_are_uncorrelated(self, waves: tuple[float, ...], alpha: float) -> None:
        setting = Setting(patches=2, size=128, waves=waves)
        noisy, clean = scene(setting), scene(replace(setting, noise_dn=0.0))
        made = drawn(noisy, alpha)
        assert noisy.frames is not None
        assert clean.frames is not None
        assert made.frames is not None
        own = noisy.frames.frames_dn - clean.frames.frames_dn
        added = (noisy.frames.frames_dn - made.frames.frames_dn) * alpha  # z
        use = noisy.planes.valid[:, None, None].expand_as(own)
        first, second = (own + alpha * added)[use], (own - added / alpha)[use]
        correlation = float((first * second).mean() / (first.std() * second.std()))
        # as above; the guide of this scene is of other noise than the frames, sigma is the same
        assert abs(correlation) < 4 / math.sqrt(len(first)) + 5e-4

    def test_physics_then_prefers_the_truth(self, waves: tuple[float, ...], alpha: float) -> None:
        batch = measured(Setting(patches=2, size=128, waves=waves))
        made = drawn(batch, alpha)
        assert batch.truth_nm is not None
        truth = batch.truth_nm
        # without recorruption the noisy height is the best there is: it is made of these frames
        plain = [chi_squared(batch, truth + share * (batch.planes.height_nm - truth)) for share in (0.0, 0.5, 1.0)]
        assert plain[0] > plain[1] > plain[2]
        # with it, any share of the noise shown is worse than none
        shares = [-0.2, -0.1, 0.0, 0.1, 0.2, 1.0]
        found = [chi_squared(made, truth + share * (made.planes.height_nm - truth)) for share in shares]
        assert min(found) == found[2]
        # noise left in the one direction of the height: (a + 1/a)^2 against 1 + 1/a^2, 25 % more at least, in one of
        # two or four degrees of freedom
        assert found[5] > 1.05 * found[2]
        # chi-squared of the truth, as documented; 32768 pixels and two degrees of freedom at least: 4 sqrt(2 / 58000) = 2.3 %
        assert found[2] * alpha**2 == pytest.approx(1.0, abs=0.035)


def test_one_gradient_step_on_recorrupted_frames_denoises() -> None:
    # the best blur of the shown height for the judged frames is a true blur; for its own frames it is none at all
    batch = measured(Setting(patches=2, size=64, noise_dn=8.0))
    batch = replace(batch, planes=batch.planes._replace(valid=torch.ones_like(batch.planes.valid)))
    assert batch.truth_nm is not None
    best = []
    for one in (batch, drawn(batch, 1.0)):
        shown = one.planes.height_nm
        blurred = torch.nn.functional.avg_pool2d(shown, 3, stride=1, padding=1, count_include_pad=False)
        values = [chi_squared(one, shown + share * (blurred - shown)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
        best.append(values.index(min(values)))
    assert best[0] == 0
    assert best[1] >= 3


def test_planes_follow_the_noise_and_nothing_else() -> None:
    batch = measured(Setting(size=48))
    phase = torch.zeros(2, 2, 48, 48)
    full = replace(batch, planes=batch.planes._replace(phase_rad=phase, modulation=torch.ones(2, 48, 48)))
    made = drawn(full, 1.0)
    assert torch.equal(made.planes.valid, batch.planes.valid)
    torch.testing.assert_close(made.planes.sigma_nm, math.sqrt(2) * batch.planes.sigma_nm)
    # sigma varies a little over the patch, and its median is that of valid pixels
    torch.testing.assert_close(made.unit_nm, math.sqrt(2) * batch.unit_nm, rtol=1e-3, atol=0)
    assert made.planes.phase_rad is not None
    assert made.planes.modulation is not None
    assert batch.frames is not None
    away = wrapped(
        made.planes.phase_rad[:, 0] - phase_of_height(made.planes.height_nm, batch.frames.wavelengths_nm[:, 0])
    )
    assert (
        away[batch.planes.valid].abs().max() < 0.5
    )  # phases of the same frames: each wavelength is off the common height by noise alone
    assert made.planes.modulation.mean().item() == pytest.approx(1.0, abs=0.02)
    assert made.planes.modulation.std() > 0.005
    assert features(made.planes, FeatureSpec(wavelengths_nm=WAVES_NM, modulation=True), made.unit_nm).isfinite().all()
    assert torch.equal(made.place, batch.place)
    assert made.truth_nm is batch.truth_nm


def test_unit_of_slopes_does_not_grow() -> None:
    batch = measured(Setting(size=48))
    steep = replace(batch, unit_nm=10 * batch.unit_nm)
    assert torch.equal(drawn(steep, 1.0).unit_nm, steep.unit_nm)


def test_little_noise_gives_the_guide_back() -> None:
    setting = Setting(size=48, noise_dn=0.0)
    batch = measured(setting)
    sigma = torch.full_like(batch.planes.sigma_nm, 1e-6)
    made = drawn(replace(batch, planes=batch.planes._replace(sigma_nm=sigma)), 1.0)
    # float32 heights of 1000 nm, and phases of float32 frames of 180 DN: 1e-5 / 60 rad * 50 nm
    valid = batch.planes.valid
    torch.testing.assert_close(made.planes.height_nm[valid], batch.planes.height_nm[valid], rtol=0, atol=2e-3)


def test_generator_decides() -> None:
    batch = measured(Setting(size=32))
    assert torch.equal(drawn(batch, 1.0, 1).planes.height_nm, drawn(batch, 1.0, 1).planes.height_nm)
    assert not torch.equal(drawn(batch, 1.0, 1).planes.height_nm, drawn(batch, 1.0, 2).planes.height_nm)


def test_invalid_pixels_may_hold_anything() -> None:
    batch = measured(Setting(size=32))
    assert batch.frames is not None
    height, sigma = (torch.where(batch.planes.valid, plane, torch.nan) for plane in batch.planes[:2])
    light = torch.where(batch.planes.valid[:, None, None], batch.frames.frames_dn, torch.nan)
    spoilt = replace(
        batch,
        planes=batch.planes._replace(height_nm=height, sigma_nm=sigma),
        frames=replace(batch.frames, frames_dn=light),
    )
    made = drawn(spoilt, 1.0)
    assert made.planes.height_nm[batch.planes.valid].isfinite().all()
    assert torch.equal(noise_dn(spoilt), noise_dn(batch))
    assert math.isfinite(chi_squared(made, made.planes.height_nm))


def test_what_cannot_be_recorrupted_is_refused() -> None:
    batch = measured(Setting(size=32))
    with pytest.raises(InputError, match="without frames"):
        recorrupt(replace(batch, frames=None), 1.0)
    with pytest.raises(InputError, match="three or more"):
        recorrupt(scene(Setting(frames=2)), 1.0)
    for alpha in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="alpha"):
            recorrupt(batch, alpha)
