"""The page in a real browser: what a person sees, clicks and reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewed_map import DEPTH, SCRATCH_ROW, write_map

import cpikan
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.export import export_page
from cpikan.viewer.server import ViewServer
from pages import colour_at, loaded, needs_browser, point_at, read_under, until

SOURCE = Path(__file__).parents[2] / "viewer"


@needs_browser
@pytest.mark.parametrize("closer", [0, 4, 12])
def test_the_value_under_the_cursor_is_that_pixel(page: Any, heights: np.ndarray, closer: int) -> None:
    for _ in range(closer):
        page.click("#tool-in")
    loaded(page)
    y, x, told = read_under(page, (420.0, 380.0))
    value, sigma = re.match(r"(\S+) ± (\S+) nm", told).groups()  # type: ignore[union-attr]
    assert np.float32(value) == np.float32(f"{heights[y, x]:.9g}")
    assert float(sigma) == 0.5


@needs_browser
def test_what_was_not_measured_and_flags_are_told(page: Any) -> None:
    assert read_under(page, point_at(page, 20, 20))[2] == "no measurement here, invalid"
    assert read_under(page, point_at(page, 620, 620))[2].endswith("order ambiguous")


@needs_browser
def test_a_change_of_range_draws_anew_and_reads_nothing(page: Any) -> None:
    place = point_at(page, 300, 900)
    asked: list[str] = []
    before = colour_at(page, place)
    page.on("request", lambda request: asked.append(request.url))
    page.fill("#low", "-500")
    page.keyboard.press("Enter")
    until(page, lambda: colour_at(page, place) != before)
    assert asked == []
    page.select_option("#colours", "grey")
    page.wait_for_timeout(100)
    red, green, blue, alpha = colour_at(page, place)
    assert red == green == blue
    assert alpha == 255


@needs_browser
def test_what_stands_on_the_canvas_is_not_drawn_again(page: Any) -> None:
    page.evaluate(
        "() => { const { viewer } = cpikan.state.panes[0], begin = viewer.drawer.begin.bind(viewer.drawer);"
        "window.drawn = window.frames_seen = 0; viewer.drawer.begin = (shading) => { window.drawn++; begin(shading); };"
        "viewer.addHandler('update-viewport', () => window.frames_seen++); }"
    )
    for change, draws in ((False, 0), (True, 1)):
        page.evaluate("() => { window.drawn = window.frames_seen = 0; }")
        if change:
            page.select_option("#colours", "grey")
        for _ in range(3):
            page.evaluate("() => cpikan.state.panes[0].redraw()")
            page.wait_for_timeout(60)
        until(page, lambda: page.evaluate("() => window.frames_seen") > 1)
        assert page.evaluate("() => window.drawn") == draws


@needs_browser
def test_a_profile_across_a_scratch_gives_its_depth(page: Any, heights: np.ndarray) -> None:
    page.keyboard.press("p")
    start, end = (point_at(page, y, 700.5) for y in (SCRATCH_ROW - 60, SCRATCH_ROW + 60))
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    until(page, lambda: page.is_visible("#profile") and "PV" in (page.text_content("#profile-figures") or ""))
    with page.expect_download() as saved:
        page.click("#profile-csv")
    lines = [line.split(",") for line in Path(saved.value.path()).read_text().splitlines() if line[0].isdigit()]
    rows = np.array([[float(cell) for cell in line] for line in lines])
    np.testing.assert_array_equal(np.float32(rows[:, 3]), heights[rows[:, 1].astype(int), rows[:, 2].astype(int)])
    across = np.abs(rows[:, 1] - SCRATCH_ROW)
    inside, beside = rows[across <= 3, 3], rows[(across > 5) & (across < 25), 3]
    sigma = 0.5 * np.hypot(len(inside) ** -0.5, len(beside) ** -0.5)
    assert abs(beside.mean() - inside.mean() - DEPTH) < 4 * sigma


@needs_browser
def test_form_is_removed_from_colours_and_values(page: Any) -> None:
    before = read_under(page, (420.0, 380.0))[2]
    page.check("#form-piston")
    page.check("#form-tilt")
    until(page, lambda: abs(page.evaluate("() => window.cpikan.state.range[0] + window.cpikan.state.range[1]")) < 30)
    assert read_under(page, (421.0, 380.0))[2] != before


@needs_browser
def test_flags_are_painted(page: Any) -> None:
    place = point_at(page, 620, 620)
    page.check("#flags-flag8")
    loaded(page)
    until(page, lambda: colour_at(page, place)[0] > colour_at(page, place)[1] + 60)


@needs_browser
def test_keys_alone_move_and_language_changes(page: Any) -> None:
    zoom = "() => window.cpikan.state.panes[0].viewer.viewport.getZoom()"
    start = page.evaluate(zoom)
    page.keyboard.press("+")
    assert page.evaluate(zoom) > start
    page.keyboard.press("ArrowRight")
    page.keyboard.press("0")
    assert page.evaluate(zoom) == pytest.approx(start)
    page.select_option("#language", "ko")
    assert page.text_content("#tool-line") == "직선"
    assert page.evaluate("() => document.documentElement.lang") == "ko"
    unnamed = """() => [...document.querySelectorAll("button, select, input")]
        .filter((one) => one.offsetParent && !one.textContent.trim() && !one.labels?.length && !one.ariaLabel).length"""
    assert page.evaluate(unnamed) == 0


@needs_browser
def test_without_a_pixel_size_lengths_are_in_pixels(page: Any) -> None:
    assert "px" in page.text_content(".view svg")
    assert "not known" in page.text_content("#about")
    assert "a warning of the run" in page.text_content("#about")


@needs_browser
def test_two_maps_move_together_and_have_a_difference(browser: Any, served: ViewServer) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-US")
    page.goto(served.address)
    loaded(page)
    page.mouse.move(200, 400)
    page.mouse.wheel(0, -400)
    bounds = (
        "(k) => { const b = window.cpikan.state.panes[k].viewer.viewport.getBounds(); return [b.x, b.y, b.width]; }"
    )
    until(page, lambda: np.allclose(page.evaluate(bounds, 0), page.evaluate(bounds, 1), atol=1e-6))
    assert page.evaluate(bounds, 1)[2] < 1
    page.select_option("#mode", "difference")
    loaded(page)
    told = read_under(page, (430.0, 420.0))[2]
    value, sigma = re.match(r"(\S+) ± (\S+) nm", told).groups()  # type: ignore[union-attr]
    assert float(value) == pytest.approx(3, abs=1e-4)
    assert float(sigma) == pytest.approx(0.5 * 2**0.5, abs=1e-3)
    page.close()


@needs_browser
def test_without_webgl_the_map_is_drawn_on_a_canvas(browser: Any, alone: ViewServer) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-US")
    page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        "  return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest); };"
    )
    page.goto(alone.address)
    loaded(page)
    assert "no WebGL 2" in page.text_content("#notice")
    until(page, lambda: colour_at(page, point_at(page, 300, 900))[3] == 255)
    assert colour_at(page, point_at(page, 20, 20))[3] == 0
    page.close()


@needs_browser
def test_an_export_opens_from_disk_and_reads_the_folder_that_is_picked(
    browser: Any, heights: np.ndarray, tmp_path: Path
) -> None:
    path = write_map(tmp_path / "one.npy", heights)
    export_page([Exhibit.open(path)], tmp_path / "page")
    page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-US")
    page.goto((tmp_path / "page" / "index.html").as_uri())
    until(page, lambda: page.evaluate("() => !!window.cpikan && window.cpikan.state.range[1] !== 1"))
    until(page, lambda: colour_at(page, point_at(page, 300, 900))[3] == 255)
    page.set_input_files("#folder", tmp_path / "page")
    loaded(page)
    y, x, told = read_under(page, point_at(page, 300, 900))
    assert np.float32(told.split()[0]) == np.float32(f"{heights[y, x]:.9g}")
    page.close()


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node is not installed")
def test_the_page_that_is_shipped_is_built_from_its_source(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "viewer", ignore=shutil.ignore_patterns("node_modules"))
    for command in (
        ["npm", "ci", "--no-audit", "--no-fund"],
        ["npm", "run", "check"],
        ["node", "build.mjs", str(tmp_path / "built")],
    ):
        done = subprocess.run(command, cwd=tmp_path / "viewer", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    shipped = Path(cpikan.__file__).parent / "viewer" / "page"
    names = sorted(entry.name for entry in shipped.iterdir())
    assert names == sorted(entry.name for entry in (tmp_path / "built").iterdir())
    for name in names:
        assert (tmp_path / "built" / name).read_bytes() == (shipped / name).read_bytes(), (
            f"{name}: run npm run build in viewer/"
        )
