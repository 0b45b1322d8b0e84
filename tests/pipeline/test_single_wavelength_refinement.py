"""``--method hybrid`` and ``field`` with one wavelength: gaps bridged, orders set right, the surface itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.flags import Flag
from cpikan.storage.writers.layout import SLOPES
from cpikan.surface.apertures.aperture import Circle
from small_stacks import STEPS_DEG, contents, leftovers, stack_of

WAVE_NM = 632.8
HALF_NM = WAVE_NM / 2
SHAPE = (480, 640)
REFINED, INVALID, INPAINTED = int(Flag.REFINED), int(Flag.INVALID), int(Flag.INPAINTED)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]] * 2.0 / SHAPE[1] - 1


def bowl(scale: float = 1.0) -> np.ndarray:
    """Smooth, not a polynomial; 1.1 um over the field."""
    return scale * (700 * (X**2 + Y**2) + 200 * X * Y + 60 * np.sin(3 * X + 1) * np.cos(2 * Y))


def frames_of(height: np.ndarray, missing: np.ndarray, noise_rad: float = 0.03, steps: tuple = STEPS_DEG) -> np.ndarray:
    """Float frames, one wavelength, NaN (dead) where ``missing``; the noise of the phase is ``noise_rad`` with four steps."""
    rng = np.random.default_rng(5)
    frames = 128 + 100 * np.cos(4 * np.pi * height / WAVE_NM + np.radians(steps)[:, None, None])
    frames += 100 * np.sqrt(2) * noise_rad * rng.normal(size=frames.shape)
    frames[:, missing] = np.nan
    return frames[None].astype(np.float32)


def one_wave(height: np.ndarray, missing: np.ndarray, noise_rad: float = 0.03) -> FrameStack:
    return stack_of(frames_of(height, missing, noise_rad), (WAVE_NM,))


def run(stack: FrameStack, out: Path, **options: Any) -> HeightMap:
    given = {"method": "hybrid", "all_quantities": True, "progress": False, "overwrite": True}
    return reconstruct(stack, out, **{**given, **options})


def arrays(result: HeightMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert result.sigma_nm is not None
    assert result.flags is not None
    return np.asarray(result.height_nm[:]), np.asarray(result.sigma_nm[:]), np.asarray(result.flags[:])


def wrong(height: np.ndarray, truth: np.ndarray) -> int:
    """Pixels on another order than most, one piston for all."""
    error = height - truth
    error = error[np.isfinite(error)]
    return int((np.abs(error - np.median(error)) > HALF_NM / 2).sum())


NONE = np.zeros(SHAPE, bool)
COLUMN = np.indices(SHAPE)[1]
RADIUS = np.hypot(np.indices(SHAPE)[0] - 240, COLUMN - 320)
BAND = (COLUMN >= 220) & (COLUMN < 420)
MOAT = (RADIUS > 60) & (RADIUS < 160)
SMALL = (slice(140, 340), slice(200, 420))  # for what does not depend on the size


@pytest.mark.parametrize(("missing", "pieces"), [(BAND, 2), (MOAT, 2), (RADIUS < 100, 1)], ids=["band", "moat", "hole"])
def test_gaps_of_200_pixels_in_a_smooth_surface_are_bridged(missing, pieces, tmp_path):
    stack, truth = one_wave(bowl(), missing), bowl()
    plain = run(stack, tmp_path / "p.npy", method="auto")
    result = run(stack, tmp_path / "h.npy")
    height, _, flags = arrays(result)
    assert plain.summary["components"] == pieces
    assert result.summary["components"] == 1
    assert result.summary["refining"]["joined"] == pieces - 1
    assert result.summary["methods_used"] == ["unwrap", "hybrid"]
    assert wrong(height, truth) == 0
    assert np.array_equal(np.isnan(height), missing)
    # whole orders were added, nothing else; float32 heights of 2 um are good to 1e-4 nm
    turns = (height - arrays(plain)[0])[~missing] / HALF_NM
    assert np.abs(turns - np.rint(turns)).max() < 1e-5
    assert ((flags & REFINED) > 0).any() == (pieces > 1)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["stepped", "steep"])
def test_what_the_surface_cannot_decide_stays_a_component(kind, tmp_path):
    """A step of 0.4 turns is no whole order; a surface forty times as curved says nothing across a hundred pixels."""
    inside = RADIUS < 110
    truth = bowl() + 0.4 * HALF_NM * inside
    if kind == "steep":
        truth = 5000 * np.sin(4 * X) * np.cos(4 * Y + 1) + 3000 * np.sin(5 * X * Y)
    plain = run(one_wave(truth, MOAT), tmp_path / "p.npy", method="auto")
    result = run(one_wave(truth, MOAT), tmp_path / "h.npy")
    assert result.summary["components"] == plain.summary["components"] == 2
    report = result.summary["refining"]
    assert (report["pairs"], report["joined"], report["refused"]) == (1, 0, int(kind == "stepped"))
    assert np.array_equal(arrays(result)[0], arrays(plain)[0], equal_nan=True)


def test_real_steps_and_bumps_are_kept(tmp_path):
    """Lines etched 120 nm deep, and a bump of more than an order on flanks that unwrapping follows."""
    truth = bowl() - 120.0 * ((COLUMN // 40) % 2) + 500 * np.exp(-0.5 * (RADIUS / 12) ** 2)
    plain = run(one_wave(truth, NONE), tmp_path / "p.npy", method="auto")
    result = run(one_wave(truth, NONE), tmp_path / "h.npy")
    assert wrong(arrays(plain)[0], truth) == 0
    assert np.array_equal(arrays(result)[0], arrays(plain)[0])
    assert result.summary["refining"]["pixels_moved"] == 0


def test_field_is_the_surface_with_its_own_sigma(tmp_path):
    """Noise of 0.2 rad, across a moat; blocks of 64 pixels and 36 coefficients for a thousand blocks leave little of it."""
    truth, noise = bowl(), 0.2
    stack = one_wave(truth, MOAT, noise)
    pixel = arrays(run(stack, tmp_path / "p.npy", method="auto"))
    result = run(stack, tmp_path / "f.npy", method="field")
    height, sigma, flags = arrays(result)
    error = height - truth
    error -= np.nanmean(error)
    assert result.summary["components"] == 1
    assert result.summary["methods_used"] == ["unwrap", "field"]
    assert np.array_equal(np.isnan(height), np.isnan(pixel[0]))
    assert ((flags[MOAT] & INVALID) > 0).all()
    assert np.nanmedian(pixel[1]) == pytest.approx(noise * WAVE_NM / (4 * np.pi), rel=0.1)
    assert np.sqrt(np.nanmean(error**2)) < 0.1 * np.nanmedian(pixel[1])
    assert np.nanmedian(sigma) < 0.1 * np.nanmedian(pixel[1])
    # two sigmas hold 95 %; the mean of the whole was taken off, and neighbouring pixels share their error
    assert (np.abs(error) < 2 * sigma)[~MOAT].mean() > 0.9


@pytest.mark.parametrize("method", ["hybrid", "field"])
def test_with_a_form_removed_and_holes_filled(method, tmp_path):
    middle = (slice(100, 380), slice(180, 460))
    truth, moat = bowl()[middle], ((RADIUS > 30) & (RADIUS < 80))[middle]
    result = run(
        one_wave(truth, moat),
        tmp_path / "h.npy",
        method=method,
        remove=("piston", "tilt"),
        inpaint=True,
    )
    height, _, flags = arrays(result)
    plane = np.column_stack([np.ones(truth.size), Y[middle].ravel(), X[middle].ravel()])
    seen = ~moat.ravel()
    left = (height - truth).ravel()
    left -= plane @ np.linalg.lstsq(plane[seen], left[seen], rcond=None)[0]
    assert np.abs(left[seen]).max() < HALF_NM / 2
    # the moat lies in one component now, so it is a hole like any other: a plate over 50 pixels of this bowl
    assert np.array_equal((flags & INPAINTED) > 0, moat)
    assert np.abs(left[~seen]).max() < 10
    assert result.summary["inpainting"]["holes_filled"] == 1


def test_a_trench_across_the_frame_is_filled_where_its_sides_are_joined(tmp_path):
    """The trench reaches the edges, as the lost columns beside it do, which lie between nothing and stay open."""
    truth, missing = bowl()[SMALL], ((COLUMN >= 290) & (COLUMN < 330) | (COLUMN < 210))[SMALL]
    height, sigma, flags = arrays(run(one_wave(truth, missing), tmp_path / "f.npy", method="field", inpaint=True))
    lost = (COLUMN < 210)[SMALL]
    assert np.array_equal((flags & INPAINTED) > 0, missing & ~lost)
    assert np.isnan(height[lost]).all()
    error = height - truth
    error -= np.nanmean(error[~missing])
    inside = missing & ~lost
    assert np.sqrt(np.mean((error / sigma)[inside] ** 2)) < 2
    assert np.abs(error[inside]).max() < 5


def test_what_no_surface_joins_is_flagged(tmp_path):
    """A step of 0.4 turns in a moat: the inner part is ambiguous, the moat stays open, and the run says so."""
    inside, moat = (RADIUS < 60)[SMALL], ((RADIUS >= 60) & (RADIUS < 80))[SMALL]
    stack = one_wave(bowl()[SMALL] + 0.4 * HALF_NM * inside, moat)
    result = run(stack, tmp_path / "f.npy", method="hybrid", inpaint=True)
    height, _, flags = arrays(result)
    assert np.array_equal((flags & int(Flag.AMBIGUOUS)) > 0, inside & np.isfinite(height))
    assert np.isnan(height[moat]).all()
    assert "orders-apart" in result.summary["warning_names"]


def slopes_of(result: HeightMap) -> np.ndarray:
    """The five maps, (5, H, W)."""
    found = [getattr(result, name) for name in SLOPES]
    assert all(array is not None for array in found)
    return np.stack([np.asarray(array[:]) for array in found])


def bowl_slopes() -> np.ndarray:
    """By y, by x, and the sum of the second derivatives of `bowl`, per pixel."""
    per_px = 2.0 / SHAPE[1]
    wave, bend = 60 * np.sin(3 * X + 1), 60 * np.sin(3 * X + 1) * np.cos(2 * Y)
    by_y = 1400 * Y + 200 * X - 2 * wave * np.sin(2 * Y)
    by_x = 1400 * X + 200 * Y + 180 * np.cos(3 * X + 1) * np.cos(2 * Y)
    return np.stack([by_y * per_px, by_x * per_px, (2800 - 13 * bend) * per_px**2])


@pytest.mark.parametrize("remove", [(), ("piston", "tilt", "power")])
def test_slopes_of_every_component_lie_within_their_sigmas(remove, tmp_path):
    """Two components that a step of 0.4 turns keeps apart, each with a surface of its own, and a third without one."""
    piece = np.zeros(SHAPE, bool)
    piece[10:34, 10:34] = True  # 9 blocks; a surface wants 54
    missing = MOAT | (ndimage.binary_dilation(piece, iterations=4) & ~piece)
    truth = bowl() + 0.4 * HALF_NM * (RADIUS < 110)
    result = run(one_wave(truth, missing, 0.1), tmp_path / "f.npy", method="field", remove=remove)
    found, expected = slopes_of(result), bowl_slopes()
    assert result.summary["refining"]["surfaces"] == 2
    if remove:  # the form taken off is a quadratic: so are its slopes linear, and its curvature is a constant
        for k, array in enumerate(expected):
            plane = np.column_stack([np.ones(X.size), Y.ravel(), X.ravel()][: 3 if k < 2 else 1])
            off = (array - found[k]).ravel()
            seen = np.isfinite(off)
            array -= (plane @ np.linalg.lstsq(plane[seen], off[seen], rcond=None)[0]).reshape(SHAPE)
    known = ~(missing | piece)
    for array in found:
        assert np.array_equal(np.isfinite(array), known)
    error = np.abs(found[:3] - expected)[:, known]
    # a few tiles: the share within two sigmas scatters by some per cent around 95
    assert ((error < 2 * found[[3, 3, 4]][:, known]).mean(axis=1) > 0.9).all()
    # a block of 64 pixels alone knows its slope to sigma_h sqrt(12) / 64
    assert np.median(found[3][known]) < 0.1 * 0.1 * WAVE_NM / (4 * np.pi) * np.sqrt(12) / 64


@pytest.mark.parametrize("method", ["hybrid", "field"])
def test_tiles_threads_and_bands_change_no_bit(method, tmp_path):
    stack = one_wave(bowl()[SMALL], (np.abs(COLUMN - 300) < 20)[SMALL])
    first = run(stack, tmp_path / "a.npy", method=method)
    second = run(stack, tmp_path / "b.npy", method=method, band_rows=37, threads=1)
    for one, other in zip(arrays(first), arrays(second), strict=True):
        assert np.array_equal(one, other, equal_nan=True)
    if method == "field":
        assert np.array_equal(slopes_of(first), slopes_of(second), equal_nan=True)
    else:
        assert first.slope_y_nm_per_px is None


class Stop(Exception):
    """Injected in place of a kill."""


@pytest.mark.parametrize(
    ("method", "place"),
    [("field", "before"), ("field", "amid"), ("hybrid", "amid"), ("hybrid", "after"), ("field", "form")],
)
def test_a_stopped_run_goes_on_to_the_same_bytes(method, place, tmp_path, monkeypatch):
    from cpikan.pipeline.reconstruction.stage import FormedMap
    from cpikan.pipeline.reconstruction.stages import refine, unwrap

    stack = one_wave(bowl()[SMALL], (np.abs(RADIUS - 60) < 20)[SMALL])
    options = {"method": method, "remove": ("piston", "tilt"), "band_rows": 64}
    (tmp_path / "whole").mkdir()
    (tmp_path / "part").mkdir()
    run(stack, tmp_path / "whole" / "out.npy", **options)
    owner, name = {
        "before": (refine._Refinement, "blocks"),
        "amid": (refine._Refinement, "_join"),
        "after": (unwrap.Ripple, "run"),
        "form": (FormedMap, "_levelled"),
    }[place]
    real, calls = getattr(owner, name), []

    def stopping(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == (3 if place in ("amid", "form") else 1):
            raise Stop
        return real(*given)

    monkeypatch.setattr(owner, name, stopping)
    with pytest.raises(Stop):
        run(stack, tmp_path / "part" / "out.npy", **options)
    monkeypatch.setattr(owner, name, real)
    run(stack, tmp_path / "part" / "out.npy", overwrite=False, resume=True, **options)
    assert contents(tmp_path / "whole", "out") == contents(tmp_path / "part", "out")


def test_too_little_for_a_surface_is_said_and_unwrapped(tmp_path):
    """25 x 30 pixels are 16 blocks; a surface wants 54."""
    cut = (slice(0, 25), slice(0, 30))
    stack = stack_of(frames_of(bowl()[cut], NONE[cut]), (WAVE_NM,))
    plain = run(stack, tmp_path / "p.npy", method="auto")
    for method in ("hybrid", "field"):
        result = run(stack, tmp_path / "h.npy", method=method)
        assert result.summary["methods_used"] == ["unwrap"]
        assert result.summary["refining"]["surfaces"] == 0
        assert result.summary["refining"]["without_surface"] == 1
        assert any("no surface" in warning for warning in result.summary["warnings"])
        for one, other in zip(arrays(result), arrays(plain), strict=True):
            assert np.array_equal(one, other, equal_nan=True)


def test_a_tile_without_data_is_left_invalid(tmp_path):
    missing = (COLUMN >= 300) | (np.indices(SHAPE)[0] >= 250)
    result = run(one_wave(bowl(), missing), tmp_path / "f.npy", method="field")
    height, sigma, flags = arrays(result)
    assert np.array_equal(np.isnan(height), missing)
    assert np.isnan(sigma[missing]).all()
    assert ((flags[missing] & INVALID) > 0).all()


DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mlpeck_zernike"


def mirror_frames() -> tuple[np.ndarray, tuple[float, ...]]:
    images = []
    for number in range(5, 17):
        with Image.open(DATA / f"Image{number}.jpg") as image:
            images.append(np.asarray(image.convert("L")))
    return np.stack(images)[None], tuple(-60.0 * k for k in range(12))


MIRROR = {"mask": Circle(390, 295, 225), "all_quantities": False}


@pytest.fixture(scope="module")
def mirror_nm(tmp_path_factory) -> np.ndarray:
    """The mirror by all twelve frames."""
    frames, steps = mirror_frames()
    out = tmp_path_factory.mktemp("mirror") / "all.npy"
    return np.asarray(run(stack_of(frames, (654.0,), steps, "nominal"), out, method="auto", **MIRROR).height_nm[:])


@pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set CPIKAN_DATA")
def test_three_of_twelve_frames_of_a_mirror_with_steps_unknown(mirror_nm, tmp_path):
    """Frames 120 degrees apart. 15 nm are a 44th of a wave; piston and tilt belong to the steps, the sign is unknown."""
    frames, _ = mirror_frames()
    few = (0, 2, 4)
    three = run(stack_of(frames[:, few], (654.0,), None, "unknown"), tmp_path / "few.npy", method="field", **MIRROR)
    expected, found = mirror_nm, np.asarray(three.height_nm[:])
    y, x = np.indices(expected.shape) / 225.0
    rms = []
    for sign in (1, -1):
        difference = sign * found - expected
        seen = np.isfinite(difference)
        assert seen.sum() > 0.99 * np.isfinite(expected).sum()
        plane = np.column_stack([np.ones(seen.sum()), y[seen], x[seen]])
        rest = difference[seen] - plane @ np.linalg.lstsq(plane, difference[seen], rcond=None)[0]
        rms.append(float(np.sqrt(np.mean(rest**2))))
    assert min(rms) < 15
