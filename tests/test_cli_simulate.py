"""The fault flags of `simulate`: each changes the frames in the way and by the amount that its help says.

Frames follow I = g (A + B [cos a + c2 cos 2a + c3 cos 3a]), a = 4 pi h / lambda + step + tilt . r, with h of truth.npy: what a
flag did is read off them by least squares, not off the settings. Frames have 16 bit, so quantisation is 1e-5 of B.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cpikan.cli import main

SIDE, WAVES_NM, FRAMES = 96, (5000.0, 5500.0), 12
QUIET = ("--no-shot-noise", "--read-noise", "0")
FLAT = (*QUIET, "--vignetting", "0")


class Scene(NamedTuple):
    frames: np.ndarray  # (L, K, H, W) DN
    phase: np.ndarray  # (L, H, W) rad, of the truth
    record: dict


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scene]:
    def make(*flags: str) -> Scene:
        folder = tmp_path_factory.mktemp("frames") / "stack"
        basis = ["--shape", f"{SIDE}x{SIDE}", "--wavelength", "5um", "5.5um", "--frames", str(FRAMES), "--seed", "5"]
        given = ["--surface", "smooth", *([] if "--bit-depth" in flags else ["--bit-depth", "16"])]
        assert main(["simulate", str(folder), *basis, *given, *flags, "--json"]) == 0
        truth = np.load(folder / "truth.npy").astype(np.float64)
        phase = 4 * np.pi * truth / np.array(WAVES_NM)[:, None, None]
        record = json.loads((folder / "simulation.json").read_text())
        return Scene(np.load(folder / "frames.npy").astype(np.float64), phase, record)

    return make


@pytest.fixture(scope="module")
def quiet(scene: Callable[..., Scene]) -> Scene:
    return scene(*FLAT)


UNIT = (np.arange(SIDE) + 0.5 - SIDE / 2) / (SIDE / 2)
Y, X = np.meshgrid(UNIT, UNIT, indexing="ij")


def turned(scene: Scene) -> np.ndarray:
    """Phase of every frame against the truth: offset in rad, slopes along x and y in rad per half side, (L, K, 3)."""
    found = np.empty((*scene.frames.shape[:2], 3))
    for wave, frames in enumerate(scene.frames):
        wrapped = scene.phase[wave]
        columns = [np.ones_like(X), *(m * f(wrapped) for f in (np.cos, np.sin) for m in (1, X, Y, X * X, X * Y, Y * Y))]
        basis = np.stack([column.ravel() for column in columns], axis=1)
        for k, frame in enumerate(frames):
            weight = np.linalg.lstsq(basis, frame.ravel(), rcond=None)[0]
            field = (weight[1:7] + -1j * weight[7:13]) / (weight[1] - 1j * weight[7])  # B exp(i a), degree two about 1
            found[wave, k] = np.angle(weight[1] - 1j * weight[7]), field[1].imag, field[2].imag
    return found


def steps_of(scene: Scene) -> np.ndarray:
    """Deviation of every frame from its nominal step in rad, wrapped, (L, K)."""
    nominal = 2 * np.pi * np.arange(FRAMES) / FRAMES
    return np.angle(np.exp(1j * (turned(scene)[..., 0] - nominal)))


def harmonic(scene: Scene, order: int) -> float:
    """cos(order a) over cos(a), pooled over all frames."""
    steps = 2 * np.pi * np.arange(FRAMES)[None, :, None, None] / FRAMES
    argument = scene.phase[:, None] + steps
    basis = np.stack([np.cos(n * argument).ravel() for n in range(4)], axis=1)
    weight = np.linalg.lstsq(basis, scene.frames.ravel(), rcond=None)[0]
    return float(weight[order] / weight[1])


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_without_faults_the_frames_are_the_model(quiet: Scene) -> None:
    """The instrument of the tests below: what it reads off frames without faults is nothing."""
    assert np.abs(steps_of(quiet)).max() < 1e-4
    assert np.abs(turned(quiet)[..., 1:]).max() < 1e-3
    assert abs(harmonic(quiet, 2)) < 1e-5
    assert abs(harmonic(quiet, 3)) < 1e-5
    assert quiet.frames.mean(axis=(2, 3)) / 65535 == pytest.approx(128 / 255, abs=0.4)


# an rms of 2 x 11 normal numbers (frame 0 has none) lies within a factor 0.55 to 1.45 of its expectation: three of its
# standard deviations, 1 / sqrt(2 x 22); what is read off the frames is what the record says, to the error of the fit


def test_step_error(scene: Callable[..., Scene]) -> None:
    found = scene(*FLAT, "--step-error", "3")
    errors = steps_of(found)
    assert np.abs(errors[:, 0]).max() < 1e-4
    assert 0.55 < rms(np.degrees(errors[:, 1:])) / 3 < 1.45
    assert np.degrees(errors) == pytest.approx(
        np.array(found.record["true_steps_deg"]) - 360 * np.arange(FRAMES) / FRAMES, abs=0.01
    )


def test_piston(scene: Callable[..., Scene]) -> None:
    errors = steps_of(scene(*FLAT, "--piston", "0.2"))
    assert np.abs(errors[:, 0]).max() < 1e-4
    assert 0.55 < rms(errors[:, 1:]) / 0.2 < 1.45


def test_tilt(scene: Callable[..., Scene]) -> None:
    found = scene(*FLAT, "--tilt", "0.1")
    slopes = turned(found)[..., 1:]
    true = np.array(found.record["true_tilt_rad"])
    assert np.abs(slopes[:, 0]).max() < 1e-3
    # both axes together; without a wafer the edge is the corner of the frame
    assert 0.55 < rms(np.hypot(*np.moveaxis(slopes[:, 1:], -1, 0))) * 2**0.5 / 0.1 < 1.45
    assert slopes * 2**0.5 == pytest.approx(true, abs=1e-3)


def test_vignetting(scene: Callable[..., Scene]) -> None:
    found = scene(*QUIET, "--vignetting", "0.4")
    steps = 2 * np.pi * np.arange(FRAMES)[:, None, None] / FRAMES
    mean = found.frames.mean(axis=1)[0]  # over a full period: A
    contrast = 2 * np.abs((found.frames[0] * np.exp(-1j * steps)).mean(axis=0))  # B
    square = (X * X + Y * Y) / 2
    for light in (mean, contrast):
        slope, centre = np.polyfit(square.ravel(), light.ravel(), 1)
        assert slope / centre == pytest.approx(-0.4, abs=0.01)  # the corner pixel is at 0.98 of the corner


def test_exposure(scene: Callable[..., Scene], quiet: Scene) -> None:
    found = scene(*FLAT, "--exposure", "0.8")
    assert found.frames == pytest.approx(0.8 * quiet.frames, abs=1)  # two roundings
    bright = scene(*FLAT, "--exposure", "1.3")
    assert (bright.frames == 65535).mean() > 0.05  # (128 + 100) 1.3 = 296 > 255
    assert not (quiet.frames == 65535).any()


@pytest.mark.parametrize(("flag", "order"), [("--second-harmonic", 2), ("--third-harmonic", 3)])
def test_harmonics(flag: str, order: int, scene: Callable[..., Scene]) -> None:
    found = scene(*FLAT, flag, "0.07")
    assert harmonic(found, order) == pytest.approx(0.07, abs=1e-4)
    assert harmonic(found, 5 - order) == pytest.approx(0, abs=1e-4)


def test_gain_drift(scene: Callable[..., Scene], quiet: Scene) -> None:
    found = scene(*FLAT, "--gain-drift", "0.05")
    gain = (found.frames * quiet.frames).sum(axis=(2, 3)) / np.square(quiet.frames).sum(axis=(2, 3))
    assert found.frames == pytest.approx(gain[..., None, None] * quiet.frames, abs=1.5)  # A and B alike
    assert gain == pytest.approx(np.array(found.record["true_gain"]), abs=1e-4)
    assert 0.55 < rms(gain - 1) / 0.05 < 1.45


def test_dead(scene: Callable[..., Scene], quiet: Scene) -> None:
    found = scene(*FLAT, "--dead", "0.05")
    changed = (found.frames != quiet.frames).any(axis=(0, 1))
    stuck = found.frames[..., changed].reshape(-1, int(changed.sum()))
    assert set(np.unique(stuck)) == {0, 65535}
    assert (stuck == stuck[0]).all()
    # three standard deviations of a binomial share of 9216 pixels
    assert changed.mean() == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / SIDE**2))


def test_wavelength_piston(scene: Callable[..., Scene]) -> None:
    offset = steps_of(scene(*FLAT, "--wavelength-piston", "0.5"))
    assert np.abs(offset[0]).max() < 1e-4
    assert np.ptp(offset[1]) < 1e-3  # the whole wavelength
    assert 0.05 < abs(offset[1, 0]) < 1.5


def test_wavelength_tilt(scene: Callable[..., Scene]) -> None:
    slopes = turned(scene(*FLAT, "--wavelength-tilt", "0.2"))[..., 1:]
    assert np.abs(slopes[0]).max() < 1e-3
    assert np.ptp(slopes[1], axis=0).max() < 1e-2
    assert 0.02 < np.hypot(*slopes[1, 0]) < 0.6


def test_read_noise(scene: Callable[..., Scene], quiet: Scene) -> None:
    noise = scene("--no-shot-noise", "--vignetting", "0", "--read-noise", "300").frames - quiet.frames
    # of 2 x 12 x 9216 normal numbers the rms is known to 0.2 %; nothing clips
    assert rms(noise) == pytest.approx(300, rel=0.006)
    by_frame = noise.reshape(2 * FRAMES, -1)
    assert np.abs(np.corrcoef(by_frame)[np.triu_indices(2 * FRAMES, 1)]).max() < 5 / SIDE


def test_shot_noise(scene: Callable[..., Scene], quiet: Scene) -> None:
    """A full well of 10 400 electrons: the variance is the signal in electrons; the flag takes it off."""
    noise = scene("--vignetting", "0", "--read-noise", "0").frames - quiet.frames
    variance = np.square(noise) * 10400 / 65535  # of the signal itself
    for low, high in ((0.1, 0.3), (0.7, 0.9)):
        chosen = (quiet.frames > low * 65535) & (quiet.frames < high * 65535)
        assert variance[chosen].mean() / quiet.frames[chosen].mean() == pytest.approx(1, rel=0.02)


def test_the_other_flags_of_the_scene(scene: Callable[..., Scene], quiet: Scene, tmp_path: Path) -> None:
    assert scene(*FLAT, "--bit-depth", "8").frames == pytest.approx(quiet.frames / 257, abs=0.51)
    truths = {}
    for flags in ([], ["--seed", "6"], ["--surface", "bumps"], ["--pixel-size", "43um"]):
        folder = tmp_path / "-".join(["stack", *flags])
        assert main(["simulate", str(folder), "--shape", "64x64", *flags, "--json"]) == 0
        truths["".join(flags[:1])] = np.load(folder / "truth.npy")
    assert len({truth.tobytes() for truth in truths.values()}) == 4
    assert np.isnan(truths[""]).mean() > 0.2  # beside the wafer
    assert np.isfinite(truths["--pixel-size"]).all()  # its middle alone
