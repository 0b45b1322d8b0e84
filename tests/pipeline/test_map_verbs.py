"""Verbs of a height map: cut, levelled, measured and saved without holding it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpikan
from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.storage.atomic import write_json
from cpikan.storage.maps import LazyMap
from cpikan.storage.writers.layout import QUANTITIES
from cpikan.surface.apertures.aperture import Circle, Mask, Rectangle
from cpikan.surface.forms.form import fit_form

SHAPE = (1100, 130)
RING = Circle(60, 500, 58, 12)


class Counted(LazyMap):
    """Heights that count how often they are read."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__((values.shape[0], values.shape[1]), values.dtype)
        self._values, self.reads = values, 0

    def _read(self, rows: range, columns: range) -> np.ndarray:
        self.reads += 1
        return self._values[rows.start : rows.stop, columns.start : columns.stop]


def heights() -> np.ndarray:
    rng = np.random.default_rng(4)
    rows, columns = np.indices(SHAPE)
    made = 0.4 * rows - 3.0 * columns + 0.02 * (columns - 60.0) ** 2 + rng.normal(0, 2, SHAPE)
    made[rng.random(SHAPE) < 0.05] = np.nan
    return made.astype(np.float32)


def stored(**more: np.ndarray) -> tuple[HeightMap, Counted]:
    source = Counted(heights())
    document = {"acquisition": {"wavelengths_nm": [632.8], "pixel_um": 2.0}, "plan": {"x": 1}, "summary": {}}
    return HeightMap(Path("a.npy"), {"height_nm": source, **more}, document), source


def test_verbs_read_nothing_and_heights_are_cut_and_levelled_window_by_window() -> None:
    whole, source = stored()
    view = whole.within(RING).within(Rectangle(0, 0, 100, 520)).remove("tilt").remove(["piston", "power"])
    assert source.reads == 0
    assert (view.removed, view.shape) == (("piston", "tilt", "power"), SHAPE)
    inside = RING.rows(0, *SHAPE).astype(bool)
    inside[520:] = inside[:, 100:] = False
    cut = np.where(inside, heights().astype(float), np.nan)
    expected = fit_form(cut, None, "piston,tilt,power", RING).remove(cut)
    np.testing.assert_allclose(view.height_nm[:], expected, atol=1e-9)  # heights of some 1e3 nm
    np.testing.assert_array_equal(view.height_nm[480:530:3, 7:90], view.height_nm[:][480:530:3, 7:90])
    source.reads = 0
    _ = view.height_nm[3:5, 2]
    assert source.reads == 1  # the form is fitted once
    assert whole.height_nm is source


def test_a_mask_has_its_form_in_the_circle_around_it() -> None:
    drawn = np.zeros(SHAPE, bool)
    drawn[40:300, 20:110] = True
    view = stored()[0].within(Mask(drawn)).remove("order:3")
    cut = np.where(drawn, heights().astype(float), np.nan)
    np.testing.assert_allclose(view.height_nm[:], fit_form(cut, None, "order:3").remove(cut), atol=1e-9)


def test_figures_are_those_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", heights())
    write_json(tmp_path / "a.json", {"acquisition": {"wavelengths_nm": [632.8], "pixel_um": 2.0}})
    found = cpikan.open_height_map(tmp_path / "a.npy").within(RING).remove("piston,tilt").figures()
    flags = ["--circle", "60,500,58,12", "--remove", "piston,tilt", "--json"]
    assert main(["evaluate", str(tmp_path / "a.npy"), *flags]) == 0
    assert found == json.loads(capsys.readouterr().out)
    assert found["pixels"] == np.isfinite(heights()[RING.rows(0, *SHAPE) == 1]).sum()


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr"])
def test_saved_in_every_format(tmp_path: Path, suffix: str) -> None:
    flags = np.zeros(SHAPE, np.uint8)
    flags[500, 20] = 8
    sigma = np.full(SHAPE, 2.5, np.float32)
    view = stored(flags=flags, sigma_nm=sigma)[0].within(RING).remove("piston,tilt")
    saved = view.save(tmp_path / f"b{suffix}")
    assert saved.path == tmp_path / f"b{suffix}"
    np.testing.assert_array_equal(saved.height_nm[:], np.asarray(view.height_nm[:], np.float32))
    outside = RING.rows(0, *SHAPE) == 0
    assert saved.flags is not None
    assert saved.sigma_nm is not None
    np.testing.assert_array_equal(saved.flags[:], np.where(outside, 1, flags))
    np.testing.assert_array_equal(np.isnan(saved.sigma_nm[:]), outside)
    assert saved.modulation is None
    assert saved.pixel_um == 2.0
    assert saved.document["removed"] == ["piston", "tilt"]
    assert saved.document["aperture"] == "circle 60,500,58,12"
    assert "plan" not in saved.document  # not an output that a run of reconstruct could resume
    with pytest.raises(InputError, match="exists: say overwrite"):
        view.save(saved.path)
    again = stored()[0].save(saved.path, overwrite=True)
    np.testing.assert_array_equal(again.height_nm[:], heights())
    assert again.flags is None
    assert "removed" not in again.document
    with pytest.raises(InputError, match="is the map itself"):
        again.save(saved.path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"b{suffix}", "b.json"])


def test_what_cannot_be(tmp_path: Path) -> None:
    whole = stored()[0]
    problems: list[tuple[Any, str]] = [
        (lambda: whole.within(Mask(np.ones((3, 3)))), "must agree"),
        (lambda: whole.within(RING).within(Circle(60, 900, 9)), "lets no pixel"),
        (lambda: whole.remove("tlt"), "did you mean 'tilt'"),
        (lambda: whole.save(tmp_path / "x.bmp"), "which is only read"),
    ]
    for act, words in problems:
        with pytest.raises(InputError, match=words):
            act()
    assert list(tmp_path.iterdir()) == []


def test_a_quantity_keeps_its_fill_outside(tmp_path: Path) -> None:
    component = np.full(SHAPE, 3, np.int32)
    saved = stored(component=component)[0].within(Rectangle(10, 10, 20, 20)).save(tmp_path / "c.zarr")
    found = open_height_map(saved.path).component
    assert found is not None
    assert int(found[15, 15]) == 3
    assert int(found[9, 15]) == QUANTITIES["component"].fill
