"""Trusted steps that the frames contradict: found, told, and replaced where nobody said that they are trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cpikan.psi.calibration.steps import structure, trusted_steps
from cpikan.psi.calibration.steps.carrier import WholeRows
from cpikan.psi.calibration.steps.stack_steps import StackSteps, stack_steps
from cpikan.psi.model.acquisition import Acquisition
from independent_frames import Faults, Scene, make_scene

SHAPE = (96, 112)
WAVES = (633.0, 610.0, 571.0, 540.0)
BENCH = Faults(read_noise=0.006, background=0.15, modulation=0.15, fringes=6.0, bits=10)


def even(frames: int) -> tuple[float, ...]:
    return tuple(360.0 / frames * k for k in range(frames))


def steps_of(
    scene: Scene, given: tuple[float, ...], *, said: bool = False, frames: np.ndarray | None = None
) -> StackSteps:
    values = scene.frames if frames is None else frames
    place = np.argwhere(scene.mask)
    lines = np.arange(0, SHAPE[0], SHAPE[0] // 4)
    acquisition = Acquisition(scene.wavelengths_nm, (given,) * len(values), "trusted", steps_said=said)
    rows = WholeRows(values[:, :, lines], lines)
    return stack_steps(values[:, :, place[:, 0], place[:, 1]], place, rows, acquisition)


def off_deg(found: object, true: object) -> np.ndarray:
    return np.abs((np.subtract(found, true) + 180) % 360 - 180)


@pytest.mark.parametrize("frames", [3, 4, 5, 7, 12])
@pytest.mark.parametrize("waves", [1, 3])
def test_right_steps_are_kept_without_a_word(frames: int, waves: int) -> None:
    scene = make_scene(40 + frames, SHAPE, WAVES[:waves], even(frames), BENCH)
    found = steps_of(scene, even(frames))
    assert found.state == "trusted"
    assert found.warnings == ()
    assert found.floor_rad2 is not None
    assert not any(found.floor_rad2)


@pytest.mark.parametrize("frames", [3, 4, 5, 8, 11])
def test_a_piezo_that_falls_short_is_found_and_its_steps_are_used(frames: int) -> None:
    true = tuple(0.88 * step for step in even(frames))
    scene = make_scene(50 + frames, SHAPE, WAVES[:2], true, BENCH)
    found = steps_of(scene, even(frames))
    assert found.state == "nominal"
    assert [one.name for one in found.warnings if not one.is_note] == ["steps-replaced"]
    assert "--steps trusted" in found.warnings[0].text
    assert found.fits is not None
    for fit, steps in zip(found.fits, found.steps_deg, strict=True):
        assert (off_deg(steps, true) <= np.degrees(5 * fit.step_error_rad) + 0.05).all()


def test_steps_that_are_said_to_be_trusted_stay_and_the_doubt_is_told() -> None:
    true = (0.0, 80.0, 160.0, 240.0)
    scene = make_scene(61, SHAPE, WAVES[:1], true, BENCH)
    found = steps_of(scene, even(4), said=True)
    assert found.state == "trusted"
    assert found.steps_deg == (even(4),)
    assert [one.name for one in found.warnings] == ["steps-off"]
    assert "--steps nominal" in found.warnings[0].text
    # steps of 80 for 90 deg: the phase errs by 10 deg / 2 to each side at twice the fringes, beside a piston
    assert found.floor_rad2 is not None
    assert found.floor_rad2[0] ** 0.5 == pytest.approx(np.radians(5) / 2**0.5, rel=0.15)


def test_a_frame_taken_twice_is_found() -> None:
    true = (0.0, 90.0, 180.0, 180.0, 360.0)
    scene = make_scene(62, SHAPE, WAVES[:1], true, BENCH)
    found = steps_of(scene, (0.0, 90.0, 180.0, 270.0, 360.0))
    assert found.warnings[0].name == "steps-replaced"
    assert off_deg(found.steps_deg[0], true).max() < 0.3


@pytest.mark.parametrize("light", [(1, 1, 1.6, 1), (1, 0.97, 0.94, 0.92), (1, 1, 1, 0.5, 1, 1)])
def test_light_that_changes_from_frame_to_frame_is_found(light: tuple[float, ...]) -> None:
    given = even(len(light))
    scene = make_scene(63, SHAPE, WAVES[:1], given, replace(BENCH, bits=12))
    dimmed = np.rint(scene.frames * (0.6 * np.array(light)[:, None, None]))
    found = steps_of(scene, given, frames=dimmed)
    assert found.warnings[0].name == "steps-replaced"
    assert "their light is" in found.warnings[0].text
    assert found.fits is not None
    np.testing.assert_allclose(found.fits[0].model.gain, light, rtol=5e-3)


def test_frames_tilted_against_each_other_are_found() -> None:
    scene = make_scene(64, SHAPE, WAVES[:2], even(5), replace(BENCH, tilt_rad=0.15))
    found = steps_of(scene, even(5))
    assert found.warnings[0].name == "steps-replaced"
    assert "tilted against each other" in found.warnings[0].text


def test_errors_that_do_not_matter_beside_the_noise_are_left_alone() -> None:
    """A tenth of a degree is more than five sigma of many pixels, and nothing beside 0.1 rad of noise."""
    scene = make_scene(65, SHAPE, WAVES[:1], (0.0, 90.2, 180.3, 270.4, 360.2), replace(BENCH, read_noise=0.04))
    found = steps_of(scene, (0.0, 90.0, 180.0, 270.0, 360.0))
    assert found.state == "trusted"
    assert found.warnings == ()


@pytest.mark.parametrize("frames", [4, 6])
def test_fringes_that_fade_keep_their_light(frames: int) -> None:
    """A frame that trembles loses contrast, not light: with four frames that must not pass for light and steps."""
    contrast = np.linspace(1, 0.75, frames)
    given = even(frames)
    scene = make_scene(66, SHAPE, WAVES[:1], given, replace(BENCH, bits=14))
    level = scene.background * (2**14 - 1)
    faded = np.where(scene.mask, level + contrast[:, None, None] * (scene.frames - level), scene.frames)
    found = steps_of(scene, given, frames=np.rint(faded))
    assert "contrast of their fringes" in found.warnings[0].text
    assert found.fits is not None
    model = found.fits[0].model
    np.testing.assert_allclose(model.fringe_contrast, contrast, atol=6e-3)  # 14 % of uneven light pulls that much
    np.testing.assert_array_equal(model.gain, 1)
    assert (off_deg(found.steps_deg[0], given) <= np.degrees(5 * found.fits[0].step_error_rad) + 0.05).all()


@pytest.mark.parametrize(
    ("given", "pair", "guess"),
    [((0.0, 90.0, 180.0, 270.0, 360.0), (1, 2), False), (even(6), (0, 3), False), (even(4), (2, 3), True)],
)
def test_exchanged_frames_are_named_and_repaired(given: tuple[float, ...], pair: tuple[int, int], guess: bool) -> None:
    """Of four frames in quadrature two exchanges explain the same frames, with phases of either sign."""
    scene = make_scene(70 + len(given), SHAPE, WAVES[:1], given, BENCH)
    values = scene.frames.copy()
    values[:, list(pair)] = values[:, list(pair)[::-1]]
    found = steps_of(scene, given, frames=values)
    names = [one.name for one in found.warnings if not one.is_note]
    assert names == ["steps-replaced", *(["sign-assumed"] if guess else [])]
    assert found.sign_is_guess == guess
    assert "stand for each other" in found.warnings[0].text
    true = list(given)
    true[pair[0]], true[pair[1]] = given[pair[1]], given[pair[0]]
    steps = np.subtract(found.steps_deg[0], found.steps_deg[0][0])
    true = np.subtract(true, true[0])
    assert min(off_deg(sign * steps, true).max() for sign in ((1, -1) if guess else (1,))) < 0.3
    if not guess:
        assert f"frames {pair[0] + 1} and {pair[1] + 1} " in found.warnings[0].text


@pytest.mark.parametrize("gain", [0.62, 1.3])
def test_a_piezo_far_off_still_tells_the_sign(gain: float) -> None:
    given = (0.0, 90.0, 180.0, 270.0, 360.0)
    scene = make_scene(81, SHAPE, WAVES[:1], tuple(gain * step for step in given), BENCH)
    found = steps_of(scene, given)
    assert [one.name for one in found.warnings] == ["steps-replaced"]
    assert not found.sign_is_guess


def test_other_wavelengths_settle_the_sign_of_one_whose_frames_were_exchanged() -> None:
    """Either exchange explains four frames; the phase must rise where that of the others does."""
    given = even(4)
    scene = make_scene(83, SHAPE, WAVES[:2], given, BENCH)
    for pair in ((0, 1), (2, 3)):
        values = scene.frames.copy()
        values[1, list(pair)] = values[1, list(pair)[::-1]]
        found = steps_of(scene, given, frames=values)
        assert [one.name for one in found.warnings if not one.is_note] == ["steps-replaced"]
        true = list(given)
        true[pair[0]], true[pair[1]] = given[pair[1]], given[pair[0]]
        assert off_deg(found.steps_deg[1], np.subtract(true, true[0])).max() < 0.3


def test_frames_a_whole_turn_apart_are_not_called_exchanged() -> None:
    """Light that fades contradicts the given steps; the steps themselves are right."""
    given = (0.0, 90.0, 180.0, 270.0, 360.0)
    scene = make_scene(85, SHAPE, WAVES[:1], given, BENCH)
    light = np.array([1.0, 0.95, 0.9, 0.85, 0.8])[:, None, None]
    found = steps_of(scene, given, frames=np.rint(scene.frames * light))
    assert [one.name for one in found.warnings] == ["steps-replaced"]
    assert "times that of the first" in found.warnings[0].text
    assert "stand for each other" not in found.warnings[0].text


def _frames_with(share: float, pixels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four frames (4, P) at places (P, 2), whose residuals follow the cosine of the fringe with ``share`` of their power."""
    draw = np.random.default_rng(seed)
    place = np.stack(np.divmod(np.arange(pixels), 60), axis=1)
    phase = draw.uniform(0, 2 * np.pi, pixels)
    frames = 100 + 50 * np.cos(phase + np.radians(even(4))[:, None]) + draw.normal(0, 1, (4, pixels))
    beside = np.array([1.0, -1.0, 1.0, -1.0])[:, None] / 2  # what no background, cosine or sine reaches
    rest = draw.normal(0, 1, pixels) + np.cos(phase) * np.sqrt(2 * share / (1 - share))
    return frames + beside * (rest - (beside * frames).sum(axis=0)), place


def test_some_pixels_rule_out_structure_that_all_would_show() -> None:
    """At the least share that is significant: clear by chance once in 700 at most, three standard deviations of a normal."""
    clear = 0
    for seed in range(150):
        found = trusted_steps._structures(*_frames_with(structure.LEAST_SHARE, 3000, seed), even(4))
        clear += trusted_steps._is_clear(found[0])
    assert clear <= 2  # three or more of 150 at 1 in 700: 1 in 700 again
    without = [trusted_steps._structures(*_frames_with(0.0, 3000, seed), even(4)) for seed in range(20)]
    assert all(trusted_steps._is_clear(*found) for found in without)


@pytest.mark.parametrize(("share", "sizes"), [(0.0, [3000]), (0.08, [3000, 12000])])
def test_all_pixels_are_asked_where_some_leave_a_doubt(share, sizes, monkeypatch) -> None:
    looked, asked = trusted_steps._structures, []
    monkeypatch.setattr(trusted_steps, "_structures", lambda *given: asked.append(given[0].shape[1]) or looked(*given))
    frames, place = _frames_with(share, 12000, 3)
    found = trusted_steps.check_trusted(frames, place, even(4))
    assert asked == sizes
    whole = structure.plain_structure(frames, place, even(4))
    assert found.structure is not None
    assert whole is not None
    assert found.structure.significant == whole.significant == (share > 0)
    if share:
        assert found.structure.share == whole.share


def test_dark_pixels_leave_the_question_to_all() -> None:
    assert not trusted_steps._is_clear(None, None)
