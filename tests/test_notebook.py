"""Maps and solutions in notebooks: a picture of the right pixels, exact numbers, and text that stays text."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

import cpikan
from cpikan.notebook import card
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.maps.notebook import overview


def picture(html: str) -> np.ndarray:
    found = re.search(r"base64,([A-Za-z0-9+/=]+)", html)
    assert found is not None
    return np.array(Image.open(io.BytesIO(base64.b64decode(found[1]))))


def test_a_map_shows_its_pixels_and_exact_numbers() -> None:
    heights = np.zeros((1100, 700), np.float32)
    heights[:, 350:] = 12.0
    heights[0, 0] = np.nan
    document = {"acquisition": {"pixel_um": [4.0, 2.0]}, "summary": {"sigma_nm_median": 0.5, "warnings": ["a", "b"]}}
    made = HeightMap(Path("<b>.npy"), {"height_nm": heights}, document)
    html = made._repr_html_()
    assert "&lt;b&gt;.npy" in html
    assert "<b>.npy" not in html
    for told in ("1100 × 700 of 4 × 2 µm", ">12 nm<", ">6 nm<", "0.5 nm", ">2: see"):
        assert told in html
    shown = picture(html)
    assert shown.shape == (220, 140, 4)  # every fifth pixel
    assert shown[0, 0, 3] == 0  # no value
    assert (shown[1:, :70] == shown[1, 0]).all()
    assert (shown[:, 70:] == shown[0, 139]).all()
    assert "PV" not in HeightMap(Path("a.npy"), {"height_nm": np.full((3, 3), np.nan)}, {})._repr_html_()


def test_every_nth_row_is_taken_across_bands() -> None:
    rows = np.repeat(np.arange(3000.0)[:, None], 5, axis=1)
    seen = overview(HeightMap(Path("a.npy"), {"height_nm": rows}, {}))
    step = -(-3000 // 240)
    assert np.array_equal(seen.heights[:, 0], np.arange(0, 3000, step))
    assert np.array_equal(
        overview(HeightMap(Path("a.npy"), {"height_nm": rows}, {}).remove("piston")).heights[:, 0],
        np.arange(0, 3000, step) - 1499.5,
    )


def test_a_solution_shows_its_trust_and_its_picture() -> None:
    solution = cpikan.solve("helmholtz-1d", settings=cpikan.SolveSettings(seconds=5))
    html = solution._repr_html_()
    assert f'trust</th><td style="text-align:left">{solution.trust}: ' in html
    assert f"{solution.metrics['relative_l2']:.2e}" in html
    assert picture(html).size > 10_000


def test_a_card_without_a_picture_is_a_table() -> None:
    assert "<img" not in card("a & b", [("x", "<1")], None, "")
    assert "a &amp; b" in card("a & b", [("x", "<1")], None, "")
