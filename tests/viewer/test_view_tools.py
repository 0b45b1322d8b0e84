"""The tools of the page, by mouse and by keyboard alone, in a real browser."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_output import running
from viewed_map import DEPTH, SCRATCH_ROW, heights_of, write_map

from cpikan.surface.filters.gaussian import gaussian_filter
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.remarks import read_remarks, write_remarks
from cpikan.viewer.server import ViewServer
from pages import colour_at, loaded, needs_browser, open_page, point_at, read_under, until

SHAPE = (800, 1000)


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    return heights_of(SHAPE)


@pytest.fixture
def server(small: np.ndarray, tmp_path: Path) -> Iterator[ViewServer]:
    with serving(Exhibit.open(write_map(tmp_path / "map.npy", small))) as server:
        yield server


@contextmanager
def serving(exhibit: Exhibit) -> Iterator[ViewServer]:
    """Serve a map for the block."""
    server = ViewServer([exhibit])
    server.start()
    try:
        yield server
    finally:
        server.close()


@needs_browser
def test_masks_and_notes_are_drawn_and_kept_beside_the_map(browser: Any, server: ViewServer, tmp_path: Path) -> None:
    page = open_page(browser, server.address)
    page.click("#tool-mask")
    for corner in ((200, 300), (500, 310), (320, 600)):
        page.mouse.click(*point_at(page, *corner))
    page.keyboard.press("Enter")
    page.fill("#remark-text", "dust")
    page.keyboard.press("Enter")
    until(page, lambda: "dust" in (page.text_content("#remarks") or ""))
    page.click("#tool-note")
    page.mouse.click(*point_at(page, 700, 333))
    page.fill("#remark-text", "<b>a pit</b>")
    page.click("#remark-add")
    until(page, lambda: "<b>a pit</b>" in (page.text_content("#remarks") or ""))
    kept = read_remarks(tmp_path / "map.npy")
    (mask,), (note,) = kept["masks"], kept["notes"]
    points = 1.0 / page.evaluate(
        "() => { const p = cpikan.state.panes[0]; return p.place({x:1,y:0}).x - p.place({x:0,y:0}).x; }"
    )
    np.testing.assert_allclose(mask["corners"], [[299.5, 199.5], [309.5, 499.5], [599.5, 319.5]], atol=points)
    np.testing.assert_allclose([note["x"], note["y"]], [332.5, 699.5], atol=points)
    page.reload()
    loaded(page)
    until(page, lambda: page.locator(".mask").count() == 1 and page.locator(".pin").count() == 1)
    page.click("#remarks button >> nth=0")
    until(page, lambda: page.locator(".pin").count() == 0)
    assert read_remarks(tmp_path / "map.npy") == {"notes": [], "masks": [mask]}
    assert page.failures == []
    page.close()


@needs_browser
def test_the_keyboard_alone_reads_values_and_draws_a_profile(
    browser: Any, server: ViewServer, small: np.ndarray
) -> None:
    page = open_page(browser, server.address)
    page.keyboard.press("v")
    for key in ("ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    below = re.compile("y (400|401) ")  # one below the middle, where two pixels meet
    until(page, lambda: below.match(page.text_content("#readout") or "") is not None)
    y, x, value = re.match(r"y (\d+)  x (\d+)   (\S+)", page.text_content("#readout")).groups()  # type: ignore[union-attr]
    assert np.float32(value) == np.float32(f"{small[int(y), int(x)]:.9g}")
    page.keyboard.press("Escape")
    page.keyboard.press("p")  # the cursor begins at the middle of the map, which is the row of the scratch
    for keys in (["Shift+ArrowUp"] * 30 + [" "], ["Shift+ArrowDown"] * 60 + [" "]):
        for key in keys:
            page.keyboard.press(key)
    until(page, lambda: page.is_visible("#profile") and "PV" in (page.text_content("#profile-figures") or ""))
    with page.expect_download() as saved:
        page.focus("#profile-csv")
        page.keyboard.press("Enter")
    lines = Path(saved.value.path()).read_text().splitlines()
    assert "distance_um,row,column,value_nm,sigma_nm" in lines
    rows = np.array([line.split(",")[1:4] for line in lines if line[0].isdigit()], float)
    assert len(rows) == 61
    across = np.abs(rows[:, 0] - SCRATCH_ROW)
    depth = rows[(across > 5), 2].mean() - rows[across <= 3, 2].mean()
    bowl = 80 * 30 / SHAPE[0]  # what the form can add over 30 rows
    assert abs(depth - DEPTH) < bowl + 4 * 0.5 * np.hypot(7**-0.5, 50**-0.5)
    assert page.failures == []
    page.close()


# draws the surface and reads it back: a number for the picture, and the share of it that has a colour
SURFACE = """() => { const canvas = document.querySelector("#surface-canvas"); cpikan.state.surface.draw();
    const gl = canvas.getContext("webgl2"), read = new Uint8Array(4 * canvas.width * canvas.height);
    gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, read);
    let [sum, coloured] = [0, 0];
    for (let i = 0; i < read.length; i += 4) {
        sum = (sum * 31 + read[i] + 256 * read[i + 1]) % 4294967291;
        coloured += Math.abs(read[i] - read[i + 1]) > 20 ? 1 : 0;
    }
    return [sum, (4 * coloured) / read.length]; }"""


@needs_browser
def test_masks_leave_out_what_they_cover_where_that_is_asked_for(
    browser: Any, small: np.ndarray, tmp_path: Path
) -> None:
    heights = small.copy()
    heights[300:500, 300:600] += 5000
    path = write_map(tmp_path / "map.npy", heights)
    corners = [[299.5, 299.5], [599.5, 299.5], [599.5, 499.5], [299.5, 499.5]]  # the borders of its pixels
    write_remarks(path, json.dumps({"notes": [], "masks": [{"name": "step", "corners": corners}]}).encode())
    with serving(Exhibit.open(path)) as server:
        page = open_page(browser, server.address)
        until(page, lambda: page.locator(".mask").count() == 1)
        high = page.evaluate("() => cpikan.state.range[1]")
        assert high > 4000
        page.check("#masks-cut")
        until(page, lambda: page.evaluate("() => cpikan.state.range[1]") < 200)
        until(page, lambda: np.ptp(colour_at(page, point_at(page, 420, 450))[:3]) < 20)  # grey, as where nothing is
        assert np.ptp(colour_at(page, point_at(page, 650, 450))[:3]) > 40
        page.check("#form-tilt")  # of the rest alone: a step would tip it
        until(page, lambda: page.evaluate("() => Math.max(...cpikan.state.range.map(Math.abs))") < 100)
        for y, x, there in ((320, 320, False), (480, 580, False), (280, 450, True), (520, 450, True), (400, 620, True)):
            told = read_under(page, point_at(page, y + 0.5, x + 0.5))[2]
            assert (" nm" in told) == there, (y, x, told)
        page.uncheck("#masks-cut")
        until(page, lambda: page.evaluate("() => cpikan.state.range[1]") > 1000)
        assert page.failures == []
        page.close()


@needs_browser
def test_the_surface_has_room_in_a_small_window(browser: Any, server: ViewServer) -> None:
    page = open_page(browser, server.address)
    page.set_viewport_size({"width": 560, "height": 480})
    page.keyboard.press("3")
    until(page, lambda: "heights ×" in (page.text_content("#surface-figures") or ""))
    box = page.locator("#surface-canvas").bounding_box()
    assert (box["width"], box["height"] > 200) == (560, True)
    page.close()


@needs_browser
def test_the_surface_turns_by_keys_and_by_mouse(browser: Any, server: ViewServer) -> None:
    page = open_page(browser, server.address)
    page.set_viewport_size({"width": 800, "height": 520})
    page.keyboard.press("3")
    until(page, lambda: "heights ×" in (page.text_content("#surface-figures") or ""))
    seen = [page.evaluate(SURFACE)]
    assert seen[0][1] > 0.05

    def changed() -> None:
        shown = page.evaluate(SURFACE)
        assert shown not in seen
        seen.append(shown)

    for key in ("ArrowLeft", "ArrowUp", "+", "PageUp"):
        page.keyboard.press(key)
        changed()
    left, top = page.evaluate(
        "() => { const b = document.querySelector('#surface-canvas').getBoundingClientRect();"
        "return [b.left + 20, b.top + 20]; }"
    )
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 30, top + 10)
    page.mouse.up()
    changed()
    page.mouse.wheel(0, -300)
    changed()
    page.select_option("#colours", "inferno")
    changed()
    page.keyboard.press("Escape")
    assert page.is_hidden("#surface")
    assert page.failures == []
    page.close()


@needs_browser
def test_filtered_heights_are_shown_and_read(browser: Any, server: ViewServer, small: np.ndarray) -> None:
    page = open_page(browser, server.address)
    page.fill("#filter-s", "9 apples")
    page.keyboard.press("Enter")
    until(page, lambda: "apples" in (page.text_content("#notice") or ""))
    page.fill("#filter-s", "")
    page.fill("#filter-l", "0.2 mm")
    page.click("#filter-apply")
    until(
        page,
        lambda: (
            page.evaluate("() => cpikan.state.rows[0]") == 0 or page.text_content("#layer option:checked") != "height"
        ),
    )
    until(page, lambda: page.evaluate("() => cpikan.state.rows[0]") == SHAPE[0])
    loaded(page)
    assert "L gaussian" in page.text_content("#layer option:checked")
    y, x, told = read_under(page, point_at(page, 600, 500))
    expected = small - gaussian_filter(small, 40.0)
    assert np.float32(told.split()[0]) == np.float32(f"{np.float32(expected[y, x]):.9g}")
    assert "±" not in told  # what is filtered has no sigma of its own
    until(page, lambda: colour_at(page, point_at(page, 600, 500))[3] == 255)
    page.click("#filter-clear")
    assert page.text_content("#layer option:checked") == "height"
    assert page.failures == []
    page.close()


@needs_browser
def test_dies_are_drawn_by_size_and_as_the_wafer_verb_gives_them(
    browser: Any, server: ViewServer, tmp_path: Path
) -> None:
    page = open_page(browser, server.address)
    for name, value in (("wafer-diameter", "4"), ("die-width", "1"), ("die-height", "1")):
        page.fill(f"#{name}", value)
    page.check("#dies-shown")
    # a die at the middle of the circle of radius 2: 5 x 5 dies but for the corners, of which the 3 x 3 in the middle
    # reach 2.12 from it at their corners, and those on the axes 1.58
    assert page.locator("polygon.die").count() == 21
    assert page.locator("polygon.die.partial").count() == 16
    sites = [{"x_mm": 0.5, "y_mm": 1.0, "full": True, "sfqr_um": 0.0123}, {"x_mm": 1.5, "y_mm": 1.0, "full": False}]
    told = {"center_px": [499.5, 399.5], "diameter_mm": 4, "site_mm": [1, 0.5], "site_axes_deg": 0, "sites": sites}
    (tmp_path / "wafer.json").write_text(json.dumps(told))
    page.set_input_files("#wafer-file", tmp_path / "wafer.json")
    until(page, lambda: page.locator("polygon.die").count() == 2)
    assert page.text_content("text.die") == "12.3 nm"
    corner = page.evaluate(
        "() => document.querySelector('polygon.die').getAttribute('points').split(' ')[0].split(',').map(Number)"
    )
    expected = page.evaluate(
        "() => { const p = cpikan.state.panes[0].place({x: 500, y: 400 - 150}); return [p.x, p.y]; }"
    )
    np.testing.assert_allclose(corner, expected, atol=0.01)  # left and below by half a die, 5 um a pixel
    (tmp_path / "other.json").write_text("{}")
    page.set_input_files("#wafer-file", tmp_path / "other.json")
    until(page, lambda: "cpikan wafer --json" in (page.text_content("#notice") or ""))
    assert page.failures == []
    page.close()


@needs_browser
def test_what_is_seen_is_saved_as_an_array_and_as_a_table(browser: Any, server: ViewServer, small: np.ndarray) -> None:
    page = open_page(browser, server.address)
    for _ in range(5):
        page.click("#tool-in")
    loaded(page)
    with page.expect_download() as array:
        page.click("#tool-crop")
    with page.expect_download() as table:
        page.click("#tool-table")
    top, left = (
        int(part) for part in re.match(r"map\.npy_y(\d+)_x(\d+)\.npy", array.value.suggested_filename).groups()
    )  # type: ignore[union-attr]
    saved = np.load(array.value.path())
    np.testing.assert_array_equal(saved, small[top : top + saved.shape[0], left : left + saved.shape[1]])
    lines = Path(table.value.path()).read_text().splitlines()
    assert lines[0].split(",")[1:] == [str(left + column) for column in range(saved.shape[1])]
    cells = np.array([line.split(",") for line in lines[1:]], float)
    np.testing.assert_array_equal(cells[:, 0], top + np.arange(saved.shape[0]))
    np.testing.assert_array_equal(np.float32(cells[:, 1:]), saved)
    page.close()


@needs_browser
def test_rows_that_are_written_appear_and_stay(browser: Any, small: np.ndarray, tmp_path: Path) -> None:
    with running(tmp_path / "out.zarr", small) as run, serving(Exhibit.open(run.path)) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-US")
        page.goto(server.address)
        until(page, lambda: "0 / 800 rows" in (page.text_content("#live") or ""))
        until(page, lambda: page.evaluate("() => cpikan.state.loaded"))
        paper = colour_at(page, point_at(page, 700, 700))
        run.write(512)
        until(page, lambda: colour_at(page, point_at(page, 300, 700)) != paper)
        assert colour_at(page, point_at(page, 700, 700)) == paper
        assert "512 / 800 rows" in page.text_content("#live")
        run.write(800)
        until(page, lambda: colour_at(page, point_at(page, 700, 700)) != paper)
        run.finish()
        until(page, lambda: "said at the end" in (page.text_content("#about") or ""))
        assert page.text_content("#live") == ""
        loaded(page)
        y, x, told = read_under(page, point_at(page, 700, 700))
        assert np.float32(told.split()[0]) == np.float32(f"{small[y, x]:.9g}")
        page.close()


@needs_browser
def test_pixels_that_are_not_square_are_drawn_so(browser: Any, small: np.ndarray, tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.npy", small, pixel_um=[10.0, 5.0])
    with serving(Exhibit.open(path)) as server:
        page = open_page(browser, server.address)
        (left, top), (right, bottom) = point_at(page, 0, 0), point_at(page, 800, 1000)
        assert (bottom - top) / (right - left) == pytest.approx(2 * 800 / 1000)
        y, x, told = read_under(page, point_at(page, 300.5, 500.5))
        assert (y, x) == (300, 500)
        assert np.float32(told.split()[0]) == np.float32(f"{small[y, x]:.9g}")
        page.keyboard.press("p")
        page.mouse.move(*point_at(page, 500.5, 500.5))
        page.mouse.down()
        page.mouse.move(*point_at(page, 600.5, 500.5))
        page.mouse.up()
        until(page, lambda: "length" in (page.text_content("#profile-figures") or ""))
        told = re.search(r"length (\S+) (mm|µm)", page.text_content("#profile-figures"))
        assert told is not None
        assert float(told[1]) * {"mm": 1000, "µm": 1}[told[2]] == pytest.approx(1000, abs=20)  # 100 rows of 10 um
        assert page.failures == []
        page.close()


@needs_browser
def test_a_part_that_the_file_has_lost_is_striped(browser: Any, small: np.ndarray, tmp_path: Path) -> None:
    Exhibit.open(write_map(tmp_path / "map.npy", small)).map.save(tmp_path / "lost.zarr")
    for shard in (tmp_path / "lost.zarr" / "height_nm" / "0" / "c" / "1").rglob("*"):
        shard.unlink()
    with serving(Exhibit.open(tmp_path / "lost.zarr")) as server:
        page = open_page(browser, server.address)
        until(page, lambda: "c/1/0 is missing" in (page.text_content("#live") or ""))
        for _ in range(3):
            page.keyboard.press("+")
        for _ in range(12):
            page.keyboard.press("ArrowDown")

        def striped() -> bool:
            red, green, *_ = colour_at(page, point_at(page, 700, 500))
            return red > 2 * green

        until(page, striped)
        assert "missing" in read_under(page, point_at(page, 700, 500))[2]
        page.close()


@needs_browser
def test_everything_has_a_name_in_both_languages_and_both_schemes(browser: Any, server: ViewServer) -> None:
    unnamed = """() => [...document.querySelectorAll("button, select, input, canvas, [role], [tabindex], svg[role]")]
        .filter((one) => one.offsetParent && !one.textContent.trim() && !one.labels?.length && !one.ariaLabel
            && one.tagName !== "OUTPUT" && one.role !== "alert" && one.ariaHidden !== "true")
        .map((one) => one.outerHTML.slice(0, 90))"""
    contrast = """(id) => { const lum = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const style = getComputedStyle(document.querySelector(id)), body = getComputedStyle(document.body);
        const [a, b] = [lum(style.color), lum(style.backgroundColor.startsWith("rgba(0, 0, 0, 0") ? body.backgroundColor
            : style.backgroundColor)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); }"""
    brightness = {}
    for scheme in ("light", "dark"):
        page = open_page(browser, server.address, color_scheme=scheme)
        for name in ("header", "aside", "footer"):
            assert page.evaluate(contrast, name) > 7
        brightness[scheme] = sum(colour_at(page, point_at(page, 400, -20))[:3])
        english = page.evaluate("() => [...document.querySelectorAll('[data-word]')].map((one) => one.textContent)")
        assert page.evaluate(unnamed) == []
        page.select_option("#language", "ko")
        korean = page.evaluate("() => [...document.querySelectorAll('[data-word]')].map((one) => one.textContent)")
        same = [word for word, other in zip(english, korean, strict=True) if word == other]
        assert same == []
        assert all(re.search("[가-힣]", word) for word in korean)
        assert page.evaluate(unnamed) == []
        assert re.search("[가-힣]", page.evaluate("() => document.querySelector('.openseadragon-canvas').ariaLabel"))
        reached = []
        page.evaluate("() => document.activeElement.blur()")
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
        wanted = (
            "layer",
            "tool-line",
            "tool-surface",
            "histogram",
            "low",
            "form-tilt",
            "filter-s",
            "die-width",
            "flags-flag8",
        )
        assert set(wanted) <= set(reached)
        page.close()
    assert brightness["light"] > 2 * brightness["dark"]


def test_the_page_is_small() -> None:
    sizes = [len(gzip.compress(entry.read_bytes())) for entry in (files("cpikan.viewer") / "page").iterdir()]
    assert sum(sizes) < 1.5 * 2**20
