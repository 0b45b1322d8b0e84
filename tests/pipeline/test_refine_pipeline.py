"""``--method`` field, hybrid and auto, and ``--inpaint``, through the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cpikan.cli import main
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.reconstruction.stages import inpaint as holes
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine.inpaint import required_bytes
from cpikan.surface.apertures.aperture import Mask
from small_stacks import STEPS_DEG, WAVES_NM, folder_of, leftovers, stack_of

SHAPE = (150, 200)
HALF_NM = WAVES_NM[0] / 2
REFINED, INPAINTED, INVALID = int(Flag.REFINED), int(Flag.INPAINTED), int(Flag.INVALID)


def bowl(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    y, x = np.indices(shape) * 2 / np.array(shape)[:, None, None] - 1
    return 6000 * (x**2 + y**2 - 0.7) + 1500 * x * y


def frames_of(height: np.ndarray, noise_rad: float, waves: int = 4, light: float | np.ndarray = 1.0) -> np.ndarray:
    """Float frames without clipping, four steps; ``noise_rad`` is the noise of the phases where ``light``, a factor on the
    modulation, is 1."""
    rng = np.random.default_rng(3)
    phase = 4 * np.pi * height / np.array(WAVES_NM[:waves])[:, None, None]
    frames = 128 + 100 * light * np.cos(phase[:, None] + np.radians(STEPS_DEG)[:, None, None])
    return (frames + 100 * np.sqrt(2) * noise_rad * rng.normal(size=frames.shape)).astype(np.float32)


def run(stack: FrameStack, out: Path, **options: Any) -> HeightMap:
    given = {"range_nm": 27e3, "all_quantities": True, "progress": False, "overwrite": True}
    return reconstruct(stack, out, **{**given, **options})


def arrays(result: HeightMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert result.sigma_nm is not None
    assert result.flags is not None
    return np.asarray(result.height_nm[:]), np.asarray(result.sigma_nm[:]), np.asarray(result.flags[:])


def wrong(height: np.ndarray, truth: np.ndarray = bowl()) -> int:  # noqa: B008
    return int((np.abs(height - truth - np.nanmedian(height - truth)) > HALF_NM / 2).sum())


@pytest.fixture(scope="module")
def noisy() -> FrameStack:
    return stack_of(frames_of(bowl(), 0.25))


@pytest.fixture(scope="module")
def pixel(noisy, tmp_path_factory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return arrays(run(noisy, tmp_path_factory.mktemp("pixel") / "p.npy", method="pixel"))


@pytest.fixture(scope="module")
def hybrid(noisy, tmp_path_factory) -> HeightMap:
    return run(noisy, tmp_path_factory.mktemp("hybrid") / "h.npy", method="hybrid")


def test_hybrid_repairs_orders_and_says_where(hybrid, pixel):
    height, sigma, flags = arrays(hybrid)
    assert wrong(pixel[0]) > 100
    assert wrong(height) <= wrong(pixel[0]) / 20
    changed = (flags & REFINED) > 0
    assert np.array_equal(height[~changed], pixel[0][~changed])
    assert np.array_equal(sigma[~changed], pixel[1][~changed])
    summary = hybrid.summary
    assert (summary["method"], summary["methods_used"]) == ("hybrid", ["hybrid"])
    assert summary["refining"]["cells_refined"] == summary["refining"]["cells"] == 3 * 4
    assert summary["seconds_refine"] > 0
    assert leftovers(Path(summary["output"]).parent) == []


@pytest.mark.parametrize(
    ("kind", "options"), [(".tif", {"tile": 256}), (".zarr", {"tile": 1024, "band_rows": 37, "threads": 1})]
)
def test_tiles_bands_threads_and_kinds_of_file_change_no_bit(noisy, hybrid, tmp_path, kind, options):
    other = run(noisy, tmp_path / f"other{kind}", method="hybrid", **options)
    for one, two in zip(arrays(hybrid), arrays(other), strict=True):
        assert np.array_equal(one, two, equal_nan=True)


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_auto_at_low_noise_is_the_pixel_path(tmp_path, noise):
    stack = stack_of(frames_of(bowl(), noise))
    auto = run(stack, tmp_path / "a.npy", method="auto")
    plain = run(stack, tmp_path / "p.npy", method="pixel")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "p.npy").read_bytes()
    assert (auto.summary["methods_used"], auto.summary["refining"]) == (["pixel"], None)
    assert plain.summary["methods_used"] == ["pixel"]


def test_auto_refines_the_cells_that_are_in_doubt_and_no_others(tmp_path):
    """Half of the image is dim; cells of the other half keep the pixels' bits."""
    light = np.where(np.arange(SHAPE[1]) < 128, 1.0, 0.12)
    stack = stack_of(frames_of(bowl(), 0.03, light=light))
    auto = run(stack, tmp_path / "a.npy", method="auto")
    plain = run(stack, tmp_path / "p.npy", method="pixel")
    for one, other in zip(arrays(auto), arrays(plain), strict=True):
        assert np.array_equal(one[:, :128], other[:, :128], equal_nan=True)
    assert wrong(arrays(plain)[0]) > 50
    assert wrong(arrays(auto)[0]) <= wrong(arrays(plain)[0]) / 20
    assert auto.summary["methods_used"] == ["pixel", "hybrid"]
    assert auto.summary["refining"]["cells_refined"] == 3 * 2


def test_field_draws_a_surface_with_less_noise_than_the_pixels(noisy, pixel, tmp_path):
    result = run(noisy, tmp_path / "f.npy", method="field")
    height, sigma, _ = arrays(result)
    error = height - bowl()
    error -= error.mean()
    noise = np.median(pixel[1])
    assert np.sqrt(np.mean(error**2)) < 0.15 * noise
    assert np.median(sigma) < 0.15 * noise
    assert (np.abs(error) < 2 * sigma).mean() > 0.9
    assert result.summary["methods_used"] == ["field"]


def test_hybrid_with_a_form_removed_and_a_mask(noisy, tmp_path):
    y, x = np.indices(SHAPE)
    inside = (y - 75) ** 2 + (x - 100) ** 2 < 70**2
    np.save(tmp_path / "mask.npy", inside)
    mask = Mask.open(tmp_path / "mask.npy")
    result = run(noisy, tmp_path / "h.npy", method="hybrid", mask=mask, remove=("piston", "tilt"))
    height, _, flags = arrays(result)
    assert np.array_equal(np.isfinite(height), inside)
    difference = (height - bowl())[inside]
    plane = np.column_stack([np.ones(inside.sum()), y[inside], x[inside]])
    left = difference - plane @ np.linalg.lstsq(plane, difference, rcond=None)[0]
    assert np.abs(left).max() < HALF_NM / 2
    assert ((flags & REFINED) > 0).any()


def hole_stack(waves: int, noise_rad: float = 0.02) -> tuple[FrameStack, np.ndarray, np.ndarray]:
    """A gentle bowl with a round hole and some dead pixels; truth and what is missing."""
    truth = bowl() / 6
    y, x = np.indices(SHAPE)
    missing = (y - 70) ** 2 + (x - 90) ** 2 < 25**2
    missing |= np.random.default_rng(0).random(SHAPE) < 0.002
    missing[[0, -1]] = missing[:, [0, -1]] = False
    frames = frames_of(truth, noise_rad, waves)
    frames[:, :, missing] = np.nan
    return stack_of(frames, WAVES_NM[:waves]), truth, missing


@pytest.mark.parametrize("waves", [1, 4])
def test_holes_are_filled_flagged_and_never_counted(tmp_path, waves):
    stack, truth, missing = hole_stack(waves)
    options = {} if waves == 4 else {"range_nm": None}
    plain = run(stack, tmp_path / "p.npy", **options)
    filled = run(stack, tmp_path / "f.npy", inpaint=True, **options)
    height, sigma, flags = arrays(filled)
    assert np.array_equal((flags & INPAINTED) > 0, missing)
    assert ((flags[missing] & INVALID) > 0).all()
    expected = arrays(plain)[0]
    assert np.allclose(height[~missing], expected[~missing], rtol=0, atol=1e-3)
    error = height - truth
    error -= np.median(error[~missing])
    # a quadratic solves the plate's equation; what is left is the rim's noise of a few nm, drawn in by its slopes
    assert np.sqrt(np.mean(error[missing] ** 2)) < 40
    assert np.sqrt(np.mean((error / sigma)[missing] ** 2)) < 2
    assert sigma[missing].max() < 40
    for name in ("valid_fraction", "rms_nm", "pv_nm"):
        assert filled.summary[name] == pytest.approx(plain.summary[name], rel=1e-6)
    found = filled.summary["inpainting"]
    assert found["holes"] == found["holes_filled"]
    assert found["pixels_filled"] == missing.sum()
    assert plain.summary["inpainting"] is None
    assert leftovers(tmp_path) == []


def test_what_reaches_the_edge_stays_open(tmp_path):
    stack = hole_stack(4)[0]
    frames = np.array(stack.rows(0, SHAPE[0]))
    frames[:, :, :40] = np.nan
    result = run(stack_of(frames), tmp_path / "f.npy", inpaint=True)
    height, _, _ = arrays(result)
    assert np.isnan(height[:40]).all()
    assert np.isfinite(height[45:]).all()


def test_a_hole_between_two_components_stays_open(tmp_path):
    """One wavelength: nobody knows how high the inner island stands."""
    truth = bowl() / 6
    y, x = np.indices(SHAPE)
    radius = np.hypot(y - 75, x - 100)
    frames = frames_of(truth, 0.02, 1)
    frames[:, :, (radius > 20) & (radius < 35)] = np.nan
    result = run(stack_of(frames, WAVES_NM[:1]), tmp_path / "f.npy", inpaint=True, range_nm=None)
    found = {name: n for name, n in result.summary["inpainting"].items() if n}
    assert found.keys() == {"holes", "holes_between_components", "pixels_left_open"}
    assert (found["holes"], found["holes_between_components"]) == (1, 1)
    assert found["pixels_left_open"] == ((radius > 20) & (radius < 35)).sum()


def test_a_hole_that_takes_too_much_memory_is_filled_some_rows_at_a_time(tmp_path, monkeypatch):
    stack, truth, missing = hole_stack(4)
    sizes = np.bincount(ndimage.label(missing, np.ones((3, 3)))[0].ravel())[1:]
    monkeypatch.setattr(holes, "_MEMORY", required_bytes(int(sizes.max()) - 1))
    monkeypatch.setattr(holes, "_STRIP", 16)
    result = run(stack, tmp_path / "f.npy", inpaint=True)
    found = result.summary["inpainting"]
    assert found["holes_filled"] == found["holes"]
    assert (found["pixels_left_open"], found["pixels_filled"]) == (0, missing.sum())
    height, sigma, _ = arrays(result)
    error = height - truth
    error -= np.median(error[~missing])
    assert np.sqrt(np.mean((error / sigma)[missing] ** 2)) < 2


def test_an_interrupted_hybrid_goes_on_to_the_same_bytes(noisy, hybrid, tmp_path, monkeypatch):
    from cpikan.psi.refine import orders

    real, calls = orders.icm, []

    def stop_at_third(*given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(orders, "icm", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(noisy, tmp_path / "part.npy", method="hybrid", band_rows=32)
    monkeypatch.setattr(orders, "icm", real)
    run(noisy, tmp_path / "part.npy", method="hybrid", band_rows=32, overwrite=False, resume=True)
    folder = Path(hybrid.summary["output"]).parent
    for name in ("{}.npy", "{}.sigma.npy", "{}.flags.npy"):
        assert (tmp_path / name.format("part")).read_bytes() == (folder / name.format("h")).read_bytes()


def test_the_command_line_names_what_was_used(tmp_path, capsys):
    folder = folder_of(tmp_path / "stack", frames_of(bowl(), 0.25), steps="trusted")  # as `noisy`
    command = ["reconstruct", str(folder), "-o", str(tmp_path / "o.tif"), "--range", "27 um"]
    assert main([*command, "--method", "hybrid", "--inpaint", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["methods_used"] == ["hybrid"]
    assert summary["inpainting"]["holes"] == 0
