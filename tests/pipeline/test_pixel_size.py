"""Rectangular pixels: everything lateral takes the distance of the rows and that of the columns, each where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import cpikan
from cpikan.errors import InputError
from cpikan.pipeline.maps.surface import compare_maps, surface_figures
from cpikan.pipeline.stacks.acquisition_file import AcquisitionFlags, build_acquisition
from cpikan.pipeline.stacks.stack import FrameStack, describe_stack, format_description
from cpikan.psi.model.acquisition import Acquisition
from cpikan.report.figures import Lateral
from cpikan.surface.apertures.aperture import Circle, Mask, Rectangle
from cpikan.surface.forms.form import fit_form
from cpikan.units import parse_pixel_um

STEPS = (0.0, 90.0, 180.0, 270.0)
SHAPE, PIXEL = (60, 140), (12.0, 4.0)  # the part is 0.72 x 0.56 mm
Y, X = np.indices(SHAPE)
WAVE = 632.8


@pytest.mark.parametrize(
    "given", [["12 um", "4 um"], "12um,4um", "12 um x 4 um", "12 um; 0.004 mm", ("12000 nm", "4um"), "12um × 4um"]
)
def test_two_sizes_are_rows_then_columns(given: Any) -> None:
    assert parse_pixel_um(given) == (12.0, 4.0)


@pytest.mark.parametrize("given", ["5 um", ["5 um"], ["5 um", "5000 nm"], "5um,5um"])
def test_equal_sizes_are_one(given: Any) -> None:
    assert parse_pixel_um(given) == 5.0


@pytest.mark.parametrize(
    "given", ["12 x 4 um", ["12 um", 4], "12um,4um,1um", [], 5, "12 um 4 um", "0um,4um", ["-1 um", "2 um"]]
)
def test_other_forms_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="pixel_size"):
        parse_pixel_um(given)


def stack_of_pixels(height_nm: np.ndarray, pixel_um: Any = PIXEL) -> FrameStack:
    light = [np.rint(120 + 90 * np.cos(4 * np.pi * height_nm / WAVE + np.radians(step))) for step in STEPS]
    return FrameStack.from_array(np.array(light).astype(np.uint8), Acquisition((WAVE,), (STEPS,), "trusted", pixel_um))


def test_the_file_the_flags_and_python_take_two(tmp_path: Path) -> None:
    values = {"wavelengths": ["633 nm"], "pixel_size": ["12 um", "4 um"]}
    assert build_acquisition(values).pixel_um == PIXEL
    assert build_acquisition({**values, **AcquisitionFlags(pixel_size="12um,4um").given()}).pixel_um == PIXEL
    np.save(tmp_path / "f.npy", np.random.default_rng(1).integers(0, 200, (3, 8, 9), dtype=np.uint8))
    (tmp_path / "f.toml").write_text(
        'wavelengths = ["633 nm"]\nphase_steps = [0, 90, 200]\npixel_size = ["12 um", "4 um"]'
    )
    with cpikan.open_stack(tmp_path / "f.npy") as stack:
        described = describe_stack(stack)
        assert described["pixel_um"] == [12.0, 4.0]
        assert "12 um from row to row, 4 um from column to column" in format_description(described)
    with cpikan.open_stack(tmp_path / "f.npy", pixel_size=["3 um", "2 um"]) as stack:
        assert stack.acquisition.pixel_um == (3.0, 2.0)
    with pytest.raises(InputError, match="not positive"):
        Acquisition((633.0,), pixel_um=(2.0, 0.0))


def test_slopes_scales_and_resolutions_of_every_output(tmp_path: Path) -> None:
    height = 1.2 * X + 3.0 * Y  # 0.3 mrad along x, 0.25 mrad along y
    for name in ("m.npy", "t.tif", "z.zarr"):
        cpikan.reconstruct(stack_of_pixels(height), tmp_path / name, progress=False)
        figures = surface_figures(tmp_path / name)
        assert figures["pixel_um"] == [12.0, 4.0]
        # the slopes of the fit, less what rounding to one DN of 90 leaves: 0.2 nm from pixel to pixel
        assert figures["slope_rms_x_mrad"] == pytest.approx(1.2 / 4, rel=0.05)
        assert figures["slope_rms_y_mrad"] == pytest.approx(3.0 / 12, rel=0.05)
        assert figures["sdq"] == pytest.approx(np.hypot(0.3, 0.25) / 1000, rel=0.05)
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["acquisition"]["pixel_um"] == [12.0, 4.0]
    assert cpikan.open_height_map(tmp_path / "m.npy").pixel_um == PIXEL
    with tifffile.TiffFile(tmp_path / "t.tif") as file:
        x, y = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        assert (x[0] / x[1], y[0] / y[1]) == (2500.0, pytest.approx(10000 / 12))  # per cm
    scale = zarr.open_group(tmp_path / "z.zarr" / "height_nm", mode="r").attrs["ome"]["multiscales"][0]["datasets"][0]
    assert scale["coordinateTransformations"] == [{"type": "scale", "scale": [12.0, 4.0]}]
    xml = (tmp_path / "z.zarr" / "OME" / "METADATA.ome.xml").read_text()
    assert 'PhysicalSizeX="4.0" PhysicalSizeY="12.0"' in xml
    assert Lateral.of(SHAPE, PIXEL).size == (720.0, 560.0)


def test_the_pupil_is_round_on_the_part(tmp_path: Path) -> None:
    """A sphere on rectangular pixels is power and nothing else; on square ones it would be mostly astigmatism."""
    y_um, x_um = 12.0 * (Y - 29.5), 4.0 * (X - 69.5)
    sphere = 900 * (y_um**2 + x_um**2) / 280**2
    cpikan.reconstruct(stack_of_pixels(sphere), tmp_path / "m.npy", progress=False)
    figures = surface_figures(tmp_path / "m.npy", remove="piston,tilt,power")
    assert figures["circle_pixels"][4] == 3.0
    assert figures["rms_nm"] < 1.0  # rounding to one DN: 632.8 / (4 pi 90 sqrt(12)) = 0.2 nm, rms over four frames less
    square = fit_form(sphere, terms="piston,tilt,power")
    assert square.pupil.aspect == 1.0
    run = cpikan.reconstruct(stack_of_pixels(sphere), tmp_path / "p.npy", remove="piston,tilt,power", progress=False)
    assert run.summary["surface"]["rms_nm"] < 1.0
    assert run.summary["form"]["circle_pixels"][4] == 3.0
    levelled = cpikan.open_height_map(tmp_path / "m.npy").remove("piston,tilt,power").height_nm
    assert np.nanstd(np.asarray(levelled)) < 1.0


def test_circles_that_are_given_are_round_on_the_part(tmp_path: Path) -> None:
    circle = Circle(69.5, 29.5, 45.0, 9.0)
    cpikan.reconstruct(stack_of_pixels(0.5 * X), tmp_path / "m.npy", mask=circle, progress=False)
    inside = np.hypot(3.0 * (Y - 29.5), X - 69.5)
    wanted = (inside <= 45) & (inside >= 9)
    height_map = cpikan.open_height_map(tmp_path / "m.npy")
    np.testing.assert_array_equal(np.isfinite(np.asarray(height_map.height_nm)), wanted)
    assert (
        surface_figures(tmp_path / "m.npy", aperture=Circle(69.5, 29.5, 30.0))["pixels"]
        == ((inside <= 30) & wanted).sum()
    )
    cut = np.asarray(height_map.within(Circle(69.5, 29.5, 20.0)).height_nm)
    np.testing.assert_array_equal(np.isfinite(cut), (inside <= 20) & wanted)


def test_sets_of_apertures_are_stretched_part_by_part() -> None:
    mask = Mask(np.ones(SHAPE, bool), "m")
    whole = ((Circle(70.0, 30.0, 40.0) & mask) | ~Circle(9.0, 9.0, 5.0) & Rectangle(0, 0, 30, 30)).stretched(3.0)
    discs = [np.hypot(3.0 * (Y - y), X - x) <= r for x, y, r in ((70, 30, 40), (9, 9, 5))]
    wanted = discs[0] | (~discs[1] & (X < 30) & (Y < 30))
    np.testing.assert_array_equal(whole.rows(0, *SHAPE) != 0, wanted)
    assert "3.0" in whole.identity, "another pupil is another plan"
    assert Circle(1.0, 2.0, 3.0).stretched(1.0).identity == Circle(1.0, 2.0, 3.0).identity


def test_maps_of_other_pixels_are_not_compared(tmp_path: Path) -> None:
    for name, pixel in (("a", PIXEL), ("b", (12.0, 5.0)), ("c", (12.02, 4.0))):
        cpikan.reconstruct(stack_of_pixels(0.4 * X, pixel), tmp_path / f"{name}.npy", progress=False)
    with pytest.raises(InputError, match=r"pixels of 12 x 4 um.*12 x 5 um"):
        compare_maps(tmp_path / "a.npy", tmp_path / "b.npy")
    summary = compare_maps(tmp_path / "a.npy", tmp_path / "c.npy").summary()
    assert summary["pixel_um"] == [12.0, 4.0]
    assert summary["circle_pixels"][4] == 3.0
