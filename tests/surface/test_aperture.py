"""Masks and circles: which pixels count, by rows, from files, and the refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cpikan.errors import InputError
from cpikan.surface.apertures.aperture import Aperture, Circle, Mask, Rectangle, aperture_of

SHAPE = (40, 50)


def _whole(mask: Aperture, shape: tuple[int, int] = SHAPE, rows: int = 7) -> np.ndarray:
    starts = range(0, shape[0], rows)
    return np.concatenate([mask.rows(start, min(start + rows, shape[0]), shape[1]) for start in starts])


@given(st.floats(-10, 60), st.floats(-10, 50), st.floats(0.1, 60), st.integers(1, 40))
def test_circle_is_the_set_of_pixel_centres_within_the_radius(x, y, radius, rows):
    circle = Circle(x, y, radius)
    found = _whole(circle, rows=rows)
    assert found.dtype == np.uint8
    for row, column in ((0, 0), (39, 49), (20, 25), (round(min(max(y, 0), 39)), round(min(max(x, 0), 49)))):
        inside = np.square(column - x) + np.square(row - y) <= np.square(radius)
        assert found[row, column] == inside
    if found.any():
        circle.check(SHAPE)
    else:
        with pytest.raises(InputError, match="outside the image"):
            circle.check(SHAPE)


@pytest.mark.parametrize("text", ["390,295,225", " 390, 295 ,225 ", "390 295 225", "3.9e2,295.0,225"])
def test_circle_from_text(text):
    assert Circle.parse(text) == Circle(390.0, 295.0, 225.0)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1,2,0", "1,2,-3", "nan,1,1", "1,inf,1", "1,2,inf"])
def test_bad_circles(text):
    with pytest.raises(InputError, match="X,Y,R"):
        Circle.parse(text)


def test_circles_that_differ_a_little_are_not_the_same_run():
    assert Circle(1.0, 2.0, 100.0).identity != Circle(1.0, 2.0, 100.0000001).identity


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.float32, np.float64])
def test_masks_of_any_number_type_from_npy(kind, tmp_path):
    truth = np.random.default_rng(1).random(SHAPE) < 0.5
    np.save(tmp_path / "mask.npy", (truth * 200).astype(kind))
    mask = Mask.open(tmp_path / "mask.npy")
    mask.check(SHAPE)
    np.testing.assert_array_equal(_whole(mask), truth)


def test_negative_counts_and_nan_does_not():
    array = np.zeros(SHAPE)
    array[0, 0], array[1, 1] = -1.0, np.nan
    mask = Mask(array)
    assert _whole(mask).sum() == 1
    array[0, 0] = 0
    with pytest.raises(InputError, match="lets no pixel in"):
        mask.check(SHAPE)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_masks_from_grey_images(suffix, tmp_path):
    truth = np.random.default_rng(2).random(SHAPE) < 0.5
    Image.fromarray((truth * 255).astype(np.uint8)).save(tmp_path / f"mask.{suffix}")
    mask = Mask.open(tmp_path / f"mask.{suffix}")
    mask.check(SHAPE)
    np.testing.assert_array_equal(_whole(mask), truth)


def test_files_that_are_no_masks(tmp_path):
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("no array at all")
    np.save(tmp_path / "objects.npy", np.array([[{}]], object), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=np.ones(3))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with open(tmp_path / "bomb.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 1_000_000)}
        )
    Image.new("RGB", (50, 40), (255, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "folder").mkdir()
    for name in ("empty.npy", "text.npy", "objects.npy", "many.npy", "bomb.npy", "red.png", "torn.png", "folder"):
        with pytest.raises(InputError, match=name.split(".")[0]):
            Mask.open(tmp_path / name)
    with pytest.raises(InputError, match="absent"):
        Mask.open(tmp_path / "absent.npy")
    (tmp_path / "mask.toml").write_text("")
    with pytest.raises(InputError, match="known kind"):
        Mask.open(tmp_path / "mask.toml")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(SHAPE), "lets no pixel in"),
        (np.ones((40, 51)), "must agree"),
        (np.ones((2, 40, 50)), "2-D"),
        (np.ones(SHAPE, complex), "2-D array of numbers"),
        (np.full(SHAPE, "x"), "2-D array of numbers"),
    ],
)
def test_masks_that_do_not_fit(array, words):
    with pytest.raises(InputError, match=words):
        Mask(array, "m").check(SHAPE)


def test_a_single_pixel_far_down_is_found():
    array = np.zeros((700, 50), bool)
    array[699, 49] = True
    Mask(array).check((700, 50))


def test_identity_tells_content_and_shape_of_memory_does_not_matter():
    array = np.random.default_rng(3).random((600, 50)) < 0.5
    mask = Mask(array)
    assert mask.identity == Mask(np.asfortranarray(array)).identity
    changed = array.copy()
    changed[599, 0] ^= True
    assert mask.identity != Mask(changed).identity


@given(st.floats(-10, 60), st.floats(-10, 50), st.floats(0.2, 60), st.floats(0, 0.99))
def test_an_annulus_leaves_its_hole_out(x, y, radius, share):
    ring = Circle(x, y, radius, share * radius)
    rows, columns = np.indices(SHAPE)
    square = np.square(rows - y) + np.square(columns - x)
    np.testing.assert_array_equal(_whole(ring), (square <= radius**2) & (square >= (share * radius) ** 2))


def test_a_circle_for_polynomials_keeps_its_farthest_pixel():
    """Radii from hypot: rounding must not lose the pixel that the circle was drawn through, on either rim."""
    for column in range(1, 40):
        reach = float(np.hypot(column, 7.0))
        for ring in (Circle(0.0, 0.0, np.nextafter(reach, 0)), Circle(0.0, 0.0, 99.0, np.nextafter(reach, 99))):
            assert ring.inside(7, 8, 41)[0, column]


def test_sets_of_pixels():
    rng = np.random.default_rng(8)
    circle, mask, site = Circle(20, 22, 15, 4), Mask(rng.random(SHAPE) < 0.5, "m"), Rectangle(5, 8, 30, 21)
    inside, drawn, cut = (_whole(part).astype(bool) for part in (circle, mask, site))
    assert cut.sum() == 25 * 13
    assert cut[8, 5]
    assert not cut[21, 29]
    for made, truth in (
        (circle & mask, inside & drawn),
        (circle | site, inside | cut),
        (~circle, ~inside),
        (~(mask | site) & circle, ~(drawn | cut) & inside),
    ):
        found = _whole(made)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, truth)
        made.check(SHAPE)
    heights = np.zeros((2, *SHAPE))
    (circle & mask).cut(0, heights)
    np.testing.assert_array_equal(np.isfinite(heights[1]), inside & drawn)


def test_sets_have_names_of_their_own_and_the_pupil_of_their_circle():
    circle, other, mask = Circle(20, 22, 15), Circle(20, 22, 15, 4), Mask(np.ones(SHAPE), "m")
    made = [circle, other, mask, circle & mask, circle | mask, ~circle, ~other, Rectangle(0, 0, 9, 9)]
    assert len({each.identity for each in made}) == len(made)
    assert circle.identity == "circle 20,22,15"
    assert other.identity == "circle 20,22,15,4"
    assert (mask & other).pupil == other
    assert (mask | other).pupil is (~other).pupil is mask.pupil is None


def test_sets_without_a_pixel_are_refused():
    for empty in (Circle(5, 5, 4) & Circle(30, 30, 4), ~Rectangle(0, 0, 50, 40), Rectangle(9, 9, 9, 12)):
        with pytest.raises(InputError, match="lets no pixel of an image of 50 x 40"):
            empty.check(SHAPE)
    with pytest.raises(InputError, match="must agree"):
        (Circle(5, 5, 4) & Mask(np.ones((2, 3)))).check(SHAPE)


def test_the_flags(tmp_path):
    np.save(tmp_path / "m.npy", np.ones(SHAPE))
    file = tmp_path / "m.npy"
    assert aperture_of(None, None) is None
    assert aperture_of("5,6,7,2", None) == Circle(5, 6, 7, 2)
    assert aperture_of("", file).label == str(file)
    both = aperture_of("5,6,7,2", file)
    np.testing.assert_array_equal(_whole(both), _whole(Circle(5, 6, 7, 2)))
