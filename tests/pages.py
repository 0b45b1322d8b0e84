"""The page of the viewer in a headless browser: how tests wait for it, point at it and read it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def until(page: Any, true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, (
            f"not within {seconds} s: {page.text_content('#notice')} {page.text_content('#readout')}"
        )
        page.wait_for_timeout(30)


def loaded(page: Any) -> None:
    script = "() => !!(window.cpikan && window.cpikan.state.loaded && window.cpikan.state.range[1] !== 1)"
    until(page, lambda: bool(page.evaluate(script)))


def point_at(page: Any, y: float, x: float) -> tuple[float, float]:
    """Find where on the page a pixel of the map is."""
    script = """([y, x]) => {
        const pane = window.cpikan.state.panes[0], box = pane.element.getBoundingClientRect(), at = pane.place({x, y});
        return [box.left + at.x, box.top + at.y];
    }"""
    left, top = page.evaluate(script, [y, x])
    return float(left), float(top)


def read_under(page: Any, place: tuple[float, float]) -> tuple[int, int, str]:
    page.evaluate("() => { document.querySelector('#readout').value = ''; }")
    page.mouse.move(place[0], place[1])
    pattern = re.compile(r"y (\d+)  x (\d+)   (.+)")
    until(page, lambda: pattern.search(page.text_content("#readout") or "") is not None)
    found = pattern.search(page.text_content("#readout"))
    assert found is not None
    return int(found[1]), int(found[2]), found[3]


def colour_at(page: Any, place: tuple[float, float]) -> list[int]:
    script = """([left, top]) => {
        const canvas = window.cpikan.state.panes[0].picture(), box = canvas.getBoundingClientRect();
        const copy = document.createElement('canvas'); copy.width = canvas.width; copy.height = canvas.height;
        const context = copy.getContext('2d'); context.drawImage(canvas, 0, 0);
        return [...context.getImageData(Math.floor(left - box.left), Math.floor(top - box.top), 1, 1).data];
    }"""
    return [int(part) for part in page.evaluate(script, list(place))]


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """Open a page that is drawn; `page.failures` lists what went wrong in its scripts."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-US", **options)
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    page.goto(address)
    loaded(page)
    return page
