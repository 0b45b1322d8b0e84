"""Registration: shifts that were planted are found where there are steps, and none where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cpikan.psi.calibration.movement import frame_drift as frames_lie
from cpikan.psi.calibration.movement import registration as registered
from cpikan.psi.calibration.movement.frame_drift import FrameDrift, frame_drift
from cpikan.psi.calibration.movement.registration import EdgeReach, ImageShift, Registration, image_shifts, mean_shift
from cpikan.psi.calibration.movement.slope_shifts import slope_shifts
from cpikan.psi.calibration.picture import Picture, Window, _closed
from cpikan.psi.kernels.model import Demodulation, OrderSearch
from cpikan.psi.model.schemes import LEAST_SQUARES, phasor_weights

STEPS = (0.0, 90.0, 180.0, 270.0)
WAVES_NM = (632.8, 611.3, 543.5)
SHAPE = (96, 200)
PLACE = tuple(np.mgrid[: SHAPE[0], : SHAPE[1]])


def surface_nm(stepped: bool) -> np.ndarray:
    y, x = PLACE
    smooth = 3.1 * x + 1.7 * y + 0.02 * (x - 70) ** 2
    return smooth + 1150.0 * stepped * ((x // 37 % 2) ^ (y // 29 % 2))


def stack(stepped: bool, move: tuple[float, float] = (0, 0), noise_rad: float = 0.05) -> np.ndarray:
    """Frames (3, 4, H, W); the image of the second wavelength lies ``move`` down and right."""
    waves, rng = np.array(WAVES_NM)[:, None, None, None], np.random.default_rng(3)
    angle = 4 * np.pi * surface_nm(stepped) / waves + np.radians(STEPS)[:, None, None]
    frames = 110 + 70 * np.cos(angle)
    frames[1] = ndimage.shift(frames[1], (0, *move), order=1, mode="nearest")
    return frames + rng.normal(0, 70 * noise_rad * np.sqrt(2), frames.shape)


def model(noise_dn: float = 1.0, saturation_dn: float = 1e9) -> Demodulation:
    weights = phasor_weights(LEAST_SQUARES, STEPS)
    noise = np.array([[noise_dn**2, 0.0]] * 3)
    return Demodulation.of_weights([weights] * 3, noise, saturation_dn=saturation_dn)


def order_search(tilt_turns: np.ndarray | None = None) -> OrderSearch:
    """The search over three micrometres, the shortest wavelength first."""
    order, plane = (2, 1, 0), np.zeros((3, 2)) if tilt_turns is None else tilt_turns
    ratio = 543.5 / np.array(WAVES_NM)[list(order)]
    middle = ((SHAPE[0] - 1) / 2, (SHAPE[1] - 1) / 2)
    return OrderSearch(order, ratio, 543.5 / 2, np.zeros(3), plane, middle, -500.0, 4000.0, -500.0, 4000.0, 30.0)


def shifts(frames: np.ndarray, noise_rad: float = 0.05, saturation_dn: float = 1e9) -> tuple[ImageShift, ...]:
    place = tuple(one[: frames.shape[2], : frames.shape[3]] for one in PLACE)
    picture = Picture.of(Window(frames, place), model(saturation_dn=saturation_dn))
    return image_shifts([picture], order_search(), [noise_rad] * 3)


@pytest.mark.parametrize("noise_rad", [0.01, 0.1])
@pytest.mark.parametrize("move", [(0, 0.5), (2, 0), (-1.5, 3)])
def test_a_shift_is_found_where_there_are_steps(move, noise_rad):
    (found,) = shifts(stack(True, move, noise_rad), noise_rad)
    assert found.number == 1
    assert found.pixels == pytest.approx(move, abs=0.1)
    assert found.size == pytest.approx(np.hypot(*move), abs=0.1)


@pytest.mark.parametrize(("stepped", "move"), [(True, (0, 0)), (True, (0, 0.02)), (False, (0, 0)), (False, (0, 0.02))])
@pytest.mark.parametrize("noise_rad", [0.01, 0.1])
def test_nothing_is_found_without_a_shift(stepped, move, noise_rad):
    assert shifts(stack(stepped, move, noise_rad), noise_rad) == ()


def test_the_largest_shift_of_several_windows_counts():
    still, moved = (Picture.of(Window(stack(True, move), PLACE), model()) for move in ((0, 0), (1, -2)))
    (found,) = image_shifts([still, moved, still], order_search(), [0.05] * 3)
    assert found.pixels == pytest.approx((1, -2), abs=0.1)


def test_dark_and_saturated_pixels_show_no_steps():
    frames = stack(True, (0, 2))
    dark = frames.copy()
    dark[:, :, 20:] = 20 + np.random.default_rng(1).normal(
        0, 1, dark[:, :, 20:].shape
    )  # more of it than not: the median is dark
    assert all(abs(found.pixels[1] - 2) < 0.3 for found in shifts(dark))
    frames[:, 2, :, ::3] = 300.0
    assert shifts(frames[..., :60], saturation_dn=290.0) == ()


# --- slopes


def bent_nm() -> np.ndarray:
    """A smooth surface of more than second degree, a micrometre and a half high."""
    y, x = (one / 100 for one in PLACE)
    return 700 * x - 300 * y + 400 * np.sin(2.2 * x + 1.1 * y) + 150 * np.cos(3.1 * y - x)


def smooth_stack(move: tuple[float, float], noise_rad: float, tilt_rad: float = 0.0, height_nm=None) -> np.ndarray:
    """Frames of a smooth surface; that of the third wavelength is shifted exactly, and tilted."""
    height, rng = bent_nm() if height_nm is None else height_nm, np.random.default_rng(4)
    angle = 4 * np.pi * height / np.array(WAVES_NM)[:, None, None] + np.zeros((3, *SHAPE))
    moved = ndimage.shift(np.pad(height, 8, "reflect", reflect_type="odd"), move, order=5)[8:-8, 8:-8]
    angle[2] += 4 * np.pi * (moved - height) / WAVES_NM[2] + tilt_rad * (PLACE[1] - 100) / 100
    frames = 110 + 70 * np.cos(angle[:, None] + np.radians(STEPS)[:, None, None])
    return frames + rng.normal(0, 70 * noise_rad * np.sqrt(2), frames.shape)


@pytest.mark.parametrize("noise_rad", [0.01, 0.05])
@pytest.mark.parametrize("move", [(0.0, 0.5), (-1.2, 0.4)])
def test_a_shift_is_found_on_slopes(move, noise_rad):
    (found,) = shifts(smooth_stack(move, noise_rad), noise_rad)
    assert found.number == 2
    # what is left is noise of means over squares, 0.05 rad / 8, against slopes that differ by 0.1 rad per pixel
    assert found.pixels == pytest.approx(move, abs=0.06)


@pytest.mark.parametrize(("move", "tilt_rad"), [((0, 0), 0.0), ((0, 0), 0.5), ((0, 0.03), 0.0)])
def test_no_shift_is_found_on_slopes_where_there_is_none_or_a_tilt(move, tilt_rad):
    assert shifts(smooth_stack(move, 0.02, tilt_rad), 0.02) == ()


def test_a_surface_of_second_degree_cannot_tell_a_shift_from_a_tilt():
    y, x = (one / 100 for one in PLACE)
    assert shifts(smooth_stack((0, 0.5), 0.02, height_nm=600 * x * x + 300 * x * y - 200 * y), 0.02) == ()


def test_what_was_taken_off_as_a_tilt_is_part_of_what_slopes_explain():
    frames, tilt = smooth_stack((0.0, 0.8), 0.02), np.array([[2e-5, -6e-5], [0, 0], [1e-5, 4e-5]])
    picture = Picture.of(Window(frames, PLACE), model())
    plain, tilted = (slope_shifts([picture], order_search(t), [0.02] * 3)[1][0] for t in (None, tilt))
    np.testing.assert_allclose(tilted, plain, atol=0.03)


# --- drift of frames


def edged_stack(drift_px: float, noise_rad: float = 0.02) -> np.ndarray:
    """Frames of steps under a round pupil; all but the first of the first two wavelengths are shifted at random."""
    rng, (y, x) = np.random.default_rng(6), PLACE
    inside = np.hypot(y - 48, x - 100) < 70
    angle = 4 * np.pi * surface_nm(True) / np.array(WAVES_NM)[:, None, None, None] + np.radians(STEPS)[:, None, None]
    frames = np.where(inside, 110 + 70 * np.cos(angle), 12.0)
    for wave in frames[:2]:
        for k in range(1, 4):
            wave[k] = ndimage.shift(wave[k], rng.normal(0, drift_px, 2), order=1, mode="nearest")
    return frames + rng.normal(0, 70 * noise_rad * np.sqrt(2), frames.shape)


def drift_of(frames: np.ndarray, noise_rad: float = 0.02) -> FrameDrift | None:
    return frame_drift([Picture.of(Window(frames, PLACE), model(70 * noise_rad * np.sqrt(2)))])


@pytest.mark.parametrize(("drift_px", "least", "most"), [(0.3, 1, 2), (1.0, 2, 4)])
def test_frames_that_lie_apart_are_seen_beside_edges(drift_px, least, most):
    found = drift_of(edged_stack(drift_px))
    assert found is not None
    assert found.numbers == (0, 1)
    assert least <= found.reach_px <= most
    assert "wavelengths 1, 2 do not lie on each other" in found.caution().text
    assert found.caution().name == "images-moved"


def test_frames_on_each_other_and_single_rows_that_were_lost_are_no_drift():
    still = edged_stack(0.0)
    assert drift_of(still) is None
    assert drift_of(edged_stack(0.01)) is None
    still[0, 1, 20:24] = 0.0
    assert drift_of(still) is None
    struck = edged_stack(0.0)
    hit = np.random.default_rng(1).random(struck.shape) < 0.01
    assert drift_of(np.where(hit, 250.0, struck)) is None


def test_edges_are_looked_for_where_samples_contradict_each_other(monkeypatch):
    """A hundred pixels beside edges of which a twentieth contradict themselves are five: fewer are no drift anywhere."""
    pictures = [Picture.of(Window(edged_stack(drift), PLACE), model(2.0)) for drift in (0.0, 1.0)]
    reach, asked = frames_lie._reach, []
    monkeypatch.setattr(frames_lie, "_reach", lambda *given: asked.append(given[1]) or reach(*given))
    assert frame_drift(pictures[:1]) is None
    assert asked == []
    assert frame_drift(pictures[1:]) is not None
    assert asked == [0, 1, 2]


def test_the_reach_covers_the_farthest_shift_and_the_drift():
    shift = ImageShift(1, (-1.2, 0.1))
    assert Registration(3).reach is None
    assert Registration(3, (shift,)).reach == EdgeReach(3, (2, 0), 0)
    assert Registration(3, (), FrameDrift((0, 1), 2)).reach == EdgeReach(3, (2, 2), 2)
    assert Registration(3, (shift,), FrameDrift((0, 1), 1)).reach == EdgeReach(3, (2, 1), 1)
    assert Registration(3, (shift,)).displacement_px == pytest.approx((-0.4, 0.1 / 3))
    assert len(Registration(3, (shift,), FrameDrift((0, 1), 1)).cautions()) == 2


def test_closing_is_that_of_scipy():
    marks = np.random.default_rng(2).random((23, 31)) < 0.7
    assert np.array_equal(_closed(marks), ndimage.binary_closing(marks))


def test_the_shift_of_marks_is_the_mean_distance_of_their_pairs():
    one, other = np.zeros((8, 40), bool), np.zeros((8, 40), bool)
    one[:, [10, 25]] = True
    other[:, [11, 12, 26, 27]] = True
    assert mean_shift(one, other, 1) == (1.5, 0.0, 32)
    assert mean_shift(one.T, other.T, 0) == (1.5, 0.0, 32)
    assert mean_shift(one, np.zeros_like(one), 1)[1:] == (np.inf, 0)
    assert mean_shift(one[:, :6], other[:, :6], 1)[1:] == (np.inf, 0)  # narrower than the distances that are looked for


def test_steps_side_by_side_at_the_rim_are_not_taken_for_a_shift():
    """Dies whose columns begin one and five pixels from the rim of a window: pairs of different steps, all on one side."""
    marks = np.zeros((96, 255), bool)
    marks[:, [1, 5, 62, 251]] = True
    for columns in (marks, marks[:, ::-1], np.random.default_rng(4).random((96, 255)) < 0.1):
        assert mean_shift(columns, columns, 1)[0] == 0.0
        assert mean_shift(columns.T, columns.T, 0)[0] == 0.0
    one, other = (np.random.default_rng(seed).random((60, 90)) < 0.2 for seed in (1, 2))
    assert mean_shift(one, other, 1)[0] == pytest.approx(-mean_shift(other, one, 1)[0], abs=1e-15)


def test_the_caution_says_which_way_the_image_lies():
    text = ImageShift(2, (-1.26, 0.0)).caution().text
    assert "wavelength 3 lies 1.3 px up from that of wavelength 1" in text
    assert "2 px down and 0.5 px left" in ImageShift(1, (2.0, -0.5)).caution().text


@pytest.mark.parametrize("count", [5, 6])
def test_fewer_marks_than_could_have_pairs_enough_are_not_compared(count):
    marks, other = np.zeros((count, 40), bool), np.ones((count, 40), bool)
    marks[:, 20] = True
    assert registered._may_tell(marks) == (mean_shift(marks, other, 1)[2] >= 50) == (count == 6)
