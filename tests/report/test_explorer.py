"""The map inside a report: what is stored, how fine, and what a person reads off it in a real browser."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_map import memory_map

from cpikan.psi.model.caution import CAUTIONS, NOTES
from cpikan.report.advice import ADVICE, Told, advised
from cpikan.report.html import write_report
from cpikan.report.stored_map import (
    StoredMap,
    noise_of,
    packed,
    polynomials,
    residual,
    stored_reduction,
)
from pages import needs_browser


def unpacked(text: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The whole numbers and the valid pixels, read as the description of `packed` says."""
    plain = zlib.decompress(base64.b64decode(text))
    count = shape[0] * shape[1]
    steps, rows = [], 0
    for at in range(count):
        folded = sum(plain[plane * count + at] << 8 * plane for plane in range(4))
        difference = folded >> 1 if folded % 2 == 0 else -(folded >> 1) - 1
        before = steps[at - 1] if at % shape[1] else steps[at - shape[1]] if rows else 0
        steps.append(before + difference)
        rows += at % shape[1] == shape[1] - 1
    bits = [plain[4 * count + at // 8] >> (7 - at % 8) & 1 for at in range(count)]
    return np.array(steps).reshape(shape), np.array(bits, bool).reshape(shape)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_packed_numbers_come_back(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 1 << 23, (height, width))
    valid = rng.random((height, width)) < 0.7
    back, known = unpacked(packed(steps, valid), (height, width))
    assert np.array_equal(known, valid)
    assert np.array_equal(back[valid], steps[valid])


@pytest.mark.parametrize("sigma_nm", [0.01, 2.0, 300.0])
def test_a_step_is_half_the_noise_whatever_the_form_and_a_height_is_off_by_half_a_step(sigma_nm: float) -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1:1:200j, -1:1:300j]
    heights = 5000 * x + 800 * (x * x + y * y) + 60 * (x > 0.3) + rng.normal(0, sigma_nm, x.shape)
    heights[x * x + y * y > 1] = np.nan
    # the median of 60 000 squares of a normal variable scatters by 1 %, five times that here
    assert noise_of(heights) == pytest.approx(sigma_nm, rel=0.05) or sigma_nm < 0.1  # there the curvature counts
    stored = StoredMap.of(heights, sigma_nm)
    assert stored.quantum_nm <= max(sigma_nm / 2 * 1.05, np.nanmax(heights) / 2**22)
    steps, valid = unpacked(stored.data, heights.shape)
    assert np.array_equal(valid, np.isfinite(heights))
    off = np.abs(stored.low_nm + stored.quantum_nm * steps - heights)[valid]
    assert off.max() <= stored.quantum_nm / 2 * 1.001


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_thousand_columns_are_kept(height: int, width: int) -> None:
    block = stored_reduction((height, width))
    rows, columns = -(-height // block[0]), -(-width // block[1])
    assert rows * columns <= 2_300_000
    assert columns >= min(width, 1000)


def test_a_polynomial_is_taken_off_whole() -> None:
    y, x = np.mgrid[0:60, 0:90]
    heights = 3.0 + 0.5 * x + 0.01 * y * x - 1e-6 * x**3 * y
    forms = polynomials(heights)
    assert [form["degree"] for form in forms] == [1, 2, 4]
    assert np.abs(residual(heights, forms[2])).max() < 1e-9 * np.ptp(heights)
    assert np.abs(residual(heights, forms[0])).max() > 1
    assert polynomials(np.full((3, 3), np.nan)) == []


def test_every_warning_has_something_to_do() -> None:
    assert set(ADVICE) == set(CAUTIONS) - NOTES
    told = advised(["a", "b"], ["saturated", "later"])
    assert told == [Told("a", ADVICE["saturated"]), Told("b")]
    assert advised(["a"], None) == advised(["a"], []) == [Told("a")]


def test_the_largest_stored_map_of_noise_leaves_room_below_three_megabytes() -> None:
    """As many stored pixels as there can be, rough far above sigma: steps of the roughness, not of sigma."""
    rough = np.random.default_rng(1).normal(0, 50, (1150, 1995))
    stored = StoredMap.of(rough, 1e-3)
    assert stored.quantum_nm == pytest.approx(noise_of(rough) / 2)
    assert len(stored.data) < 1.6e6  # the pictures of `test_pure_noise_stays_below_three_megabytes` take the rest


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, np.ndarray]]:
    rng = np.random.default_rng(5)
    heights = rng.normal(0, 1.0, (240, 320)).astype(np.float32)
    heights[:, 200:] += 100  # a step
    heights[:40, :40] = np.nan
    document = {
        "acquisition": {"pixel_um": 10.0},
        "summary": {"warnings": ["too bright"], "warning_names": ["saturated"]},
    }
    page_path = write_report(
        tmp_path_factory.mktemp("page") / "report.html", memory_map(heights, document=document), progress=False
    )
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda asked: failures.append(asked.url) if not asked.url.startswith("file:") else None)
    page.goto(page_path.as_uri())
    page.wait_for_function("() => document.querySelector('.explorer').explored")
    yield page, heights
    page.close()
    assert failures == []


def read_at(page: Any, row: int, column: int) -> str:
    left, top = page.evaluate(f"() => document.querySelector('.explorer').explored.at({row}, {column})")
    box = page.locator("canvas.map").bounding_box()
    page.mouse.move(box["x"] + left, box["y"] + top)
    page.wait_for_timeout(50)
    return str(page.text_content(".readout"))


def number_in(text: str) -> float:
    found = re.match(r"(−?[\d.]+) nm", text)
    assert found is not None, text
    return float(found[1].replace("−", "-"))


@needs_browser
def test_the_value_under_the_pointer_is_that_of_the_map_with_its_unit(opened: tuple[Any, np.ndarray]) -> None:
    page, heights = opened
    page.select_option("select.form", "")
    quantum = page.evaluate("() => document.querySelector('.explorer').explored.about.quantum_nm")
    assert quantum <= 0.5 * 1.05
    for row, column in ((100, 50), (200, 300), (120, 199), (239, 319)):
        # half a step, and half of the last digit that is shown
        assert number_in(read_at(page, row, column)) == pytest.approx(heights[row, column], abs=quantum / 2 + 0.051)
    assert read_at(page, 100, 50).endswith("at x 0.505 mm, y 1.005 mm")
    assert read_at(page, 5, 5).startswith("no value")


@needs_browser
def test_zoom_pan_and_keys_keep_the_value_under_its_pixel(opened: tuple[Any, np.ndarray]) -> None:
    page, heights = opened
    page.select_option("select.form", "")
    before = page.evaluate("() => document.querySelector('.explorer').explored.view().scale")
    read_at(page, 150, 100)
    page.mouse.wheel(0, -600)
    page.focus("canvas.map")
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    after = page.evaluate("() => document.querySelector('.explorer').explored.view().scale")
    assert after == pytest.approx(before * 4 * 1.5)
    assert number_in(read_at(page, 150, 100)) == pytest.approx(heights[150, 100], abs=0.35)
    page.keyboard.press("0")
    assert page.evaluate("() => document.querySelector('.explorer').explored.view().scale") == pytest.approx(before)


@needs_browser
def test_a_line_over_a_step_gives_its_height(opened: tuple[Any, np.ndarray]) -> None:
    page, _ = opened
    page.select_option("select.form", "")
    page.click("button[value=line]")
    read_at(page, 120, 150)
    page.mouse.down()
    read_at(page, 120, 250)
    page.mouse.up()
    told = page.text_content(".about-line")
    found = re.search(r"last tenth less first (−?[\d.]+) nm", told)
    assert found is not None, told
    # means of ten pixels of 1 nm noise each: the difference scatters by sqrt(2 / 10) nm, four times that here
    assert float(found[1]) == pytest.approx(100, abs=4 * (2 / 10) ** 0.5)
    assert page.locator("canvas.profile").is_visible()
    page.click("button[value=line]")
    assert not page.locator("canvas.profile").is_visible()


@needs_browser
def test_a_form_is_taken_off_and_warnings_say_what_to_do(opened: tuple[Any, np.ndarray]) -> None:
    page, heights = opened
    page.select_option("select.form", "1")
    plane = polynomials(heights.astype(float))[0]
    left = residual(heights.astype(float), plane)
    assert number_in(read_at(page, 60, 300)) == pytest.approx(left[60, 300], abs=0.35)
    assert ADVICE["saturated"] in page.text_content(".warnings")
    assert not page.locator(".static").is_visible()
