"""Slope and curvature maps of ``--method field``, through the pipeline into every kind of output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.refine.slopes import SLOPE_SIGMAS
from cpikan.psi.refine.slopes import SLOPES as DERIVATIVES
from cpikan.storage.writers.layout import QUANTITIES, SLOPES
from cpikan.surface.apertures.aperture import Mask
from small_stacks import STEPS_DEG, WAVES_NM, folder_of, leftovers, stack_of

SHAPE = (152, 200)  # whole blocks
TILT = (7.0, -4.0)  # nm per pixel


def heights(order: int = 0) -> np.ndarray:
    """A bowl and a tilt, or (3, H, W) its slopes and the sum of its second derivatives, per pixel."""
    y, x = np.indices(SHAPE) * 2 / np.array(SHAPE)[:, None, None] - 1
    dy, dx = 2 / SHAPE[0], 2 / SHAPE[1]
    if order == 0:
        return 3000 * (x**2 + y**2 - 0.7) + 1500 * x * y + TILT[0] / dy * y + TILT[1] / dx * x
    bend = np.full(SHAPE, 6000 * (dy**2 + dx**2))
    return np.stack([(6000 * y + 1500 * x) * dy + TILT[0], (6000 * x + 1500 * y) * dx + TILT[1], bend])


def frames_of(noise_rad: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    phase = 4 * np.pi * heights() / np.array(WAVES_NM)[:, None, None]
    frames = 128 + 100 * np.cos(phase[:, None] + np.radians(STEPS_DEG)[:, None, None])
    return (frames + 100 * np.sqrt(2) * noise_rad * rng.normal(size=frames.shape)).astype(np.float32)


def run(stack: FrameStack, out: Path, **options: Any) -> HeightMap:
    given = {"range_nm": 27e3, "all_quantities": True, "progress": False, "overwrite": True, "method": "field"}
    return reconstruct(stack, out, **{**given, **options})


def maps(result: HeightMap) -> np.ndarray:
    """The five, (5, H, W)."""
    found = [getattr(result, name) for name in SLOPES]
    assert all(array is not None for array in found)
    return np.stack([np.asarray(array[:]) for array in found])


@pytest.fixture(scope="module")
def noisy() -> FrameStack:
    return stack_of(frames_of(0.1))


@pytest.fixture(scope="module")
def plain(noisy, tmp_path_factory) -> np.ndarray:
    return maps(run(noisy, tmp_path_factory.mktemp("plain") / "f.npy"))


def test_the_surface_names_the_quantities_of_the_layout():
    assert (*DERIVATIVES, *SLOPE_SIGMAS) == SLOPES
    assert all(QUANTITIES[name].fill != QUANTITIES[name].fill for name in SLOPES)


def test_slopes_lie_within_their_sigmas(plain):
    error = np.abs(plain[:3] - heights(1))
    sigma = plain[[3, 3, 4]]
    assert np.isfinite(plain).all()
    # errors of neighbouring pixels go together: a few tens of independent ones, so the share scatters by some per cent
    assert ((error < 2 * sigma).mean(axis=(1, 2)) > 0.85).all()
    # a block of 8 x 8 pixels has a slope sigma of sigma_h sqrt(12) / (8 * 8) nm per pixel; the surface knows far more
    phase_nm = 0.1 / (4 * np.pi) * np.mean(WAVES_NM) / 2
    assert np.median(plain[3]) < 0.3 * phase_nm * np.sqrt(12) / 64


@pytest.mark.parametrize("kind", [".tif", ".zarr"])
def test_other_outputs_hold_the_same_slopes(noisy, plain, tmp_path, kind):
    run(noisy, tmp_path / f"f{kind}", band_rows=37, threads=1)
    assert np.array_equal(maps(open_height_map(tmp_path / f"f{kind}")), plain)
    assert leftovers(tmp_path) == []


def test_heights_alone_have_none_and_other_methods_neither(noisy, tmp_path):
    result = run(noisy, tmp_path / "f.npy", all_quantities=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.json", "f.npy"]
    assert result.slope_y_nm_per_px is None
    assert run(noisy, tmp_path / "h.zarr", method="hybrid").curvature_nm_per_px2 is None


def test_a_form_removed_takes_its_slopes_along_and_pixels_outside_the_mask_have_none(noisy, tmp_path):
    inside = np.zeros(SHAPE, bool)
    inside[20:130, 30:170] = True
    np.save(tmp_path / "mask.npy", inside)
    options = {"mask": Mask.open(tmp_path / "mask.npy")}
    found = maps(run(noisy, tmp_path / "f.npy", **options))
    flat = maps(run(noisy, tmp_path / "g.zarr", remove=("piston", "tilt", "power"), **options))
    for array in (*found, *flat):
        assert np.array_equal(np.isfinite(array), inside)
    before, after = (open_height_map(tmp_path / name).height_nm[:] for name in ("f.npy", "g.zarr"))
    form = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    # differences of a quadratic are the means of the slopes on either side, to the rounding of heights of some 3000 nm
    rounding = 4 * 2**-24 * 4000
    for axis in (0, 1):
        taken = (found - flat)[axis].astype(np.float64)
        between = (taken[1:] + taken[:-1]) / 2 if axis == 0 else (taken[:, 1:] + taken[:, :-1]) / 2
        assert np.nanmax(np.abs(np.diff(form, axis=axis) - between)) < rounding
    assert np.nanmax(np.abs(flat[2])) < np.nanmin(np.abs(found[2]))  # the power was most of the curvature
    assert np.array_equal(flat[3:], found[3:], equal_nan=True)


def test_an_interrupted_run_goes_on_to_the_same_bytes(noisy, tmp_path, monkeypatch):
    from cpikan.psi.refine import orders

    real, calls = orders.icm, []

    def stop_at_third(*given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given, **more)

    run(noisy, tmp_path / "whole.npy")
    monkeypatch.setattr(orders, "icm", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(noisy, tmp_path / "part.npy", band_rows=32)
    monkeypatch.setattr(orders, "icm", real)
    run(noisy, tmp_path / "part.npy", band_rows=32, overwrite=False, resume=True)
    for name in ("", "sigma.", "flags.", *(f"{QUANTITIES[name].short}." for name in SLOPES)):
        part, whole = (tmp_path / f"{stem}.{name}npy" for stem in ("part", "whole"))
        assert part.read_bytes() == whole.read_bytes(), name


def test_the_command_line_writes_and_reports_them(tmp_path, capsys):
    folder = folder_of(tmp_path / "stack", frames_of(0.1), steps="trusted")
    command = ["reconstruct", str(folder), "-o", str(tmp_path / "o.zarr"), "--range", "27 um"]
    command += ["--method", "field", "--report", str(tmp_path / "r.html"), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["methods_used"] == ["field"]
    assert np.isfinite(maps(open_height_map(tmp_path / "o.zarr"))).all()
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h2>Slope</h2>" in page
