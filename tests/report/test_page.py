from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_map import memory_map
from PIL import Image

from cpikan.errors import InputError
from cpikan.pipeline.maps.evaluate import align_to_truth, error_figures
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.report import content
from cpikan.report.content import palette_png
from cpikan.report.html import write_report

VOID = {"meta", "br"}  # without an end


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time of a page: none where nobody looks at them."""
    monkeypatch.setattr(content, "inline_svg", lambda figure, name, label: "<svg></svg>")


DOCUMENT = {
    "acquisition": {"wavelengths_nm": [632.8, 611.9], "phase_steps_deg": [[0, 90, 180], [0, 90, 180]], "pixel_um": 5.0},
    "settings": {"tile": 64, "overlap": 16, "remove": []},
    "fingerprint": "5f2a77",
    "versions": {"cpikan": "0.1.0"},
    "summary": {
        "seconds": 2.0,
        "seconds_read": 0.5,
        "seconds_orders": 1.25,
        "megapixels_per_second": 31.5,
        "method": "pixel",
        "band_rows": 64,
        "ambiguous_fraction": 0.001,
    },
}


def _full(shape: tuple[int, int] = (200, 260), seed: int = 0) -> tuple[HeightMap, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    truth = 500 * (x**2 + y**2) + 3000 * x
    height = (truth + rng.normal(0, 2.0, shape)).astype(np.float32)
    flags = np.zeros(shape, np.uint8)
    flags[:20, :30] = 1
    flags[50:60, 50:60] = 8
    height[flags == 1] = np.nan
    sigma = np.full(shape, 2.0, np.float32)
    modulation = rng.normal(1000, 20, shape).astype(np.float32)
    return memory_map(height, document=DOCUMENT, sigma_nm=sigma, modulation=modulation, flags=flags), truth


class Outline(HTMLParser):
    """Headings, identifiers and references of a page; fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headings: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "xlink:href", "action", "data"):
                self.references.append(str(value))


def _page(path: Path, height_map: HeightMap, **options: Any) -> tuple[str, Outline]:
    text = write_report(path, height_map, **options).read_text(encoding="utf-8")
    return text, Outline(text)


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outline]:
    height_map, truth = _full()
    return _page(tmp_path_factory.mktemp("full") / "report.html", height_map, truth=truth)


def test_a_full_page_shows_everything_and_needs_nothing(full_page: tuple[str, Outline]) -> None:
    height_map, truth = _full()
    text, outline = full_page
    assert outline.headings == [
        "Height, levelled",
        "Height, as delivered",
        "Uncertainty",
        "Modulation",
        "Flags",
        "Profiles",
        "Error",
        "Histogram of the error",
        "Seams",
        "Residual after form",
        "Spectrum",
        "Histogram of the height",
        "Numbers",
        "Time and memory",
        "Provenance",
    ]
    for expected in (
        "wafer.zarr",
        "31.5 <small>MPix/s",
        "632.8 nm",
        "ambiguous order 0.192 %",
        "5f2a77",
        "not visible",
    ):
        assert expected in text
    assert f"{error_figures(align_to_truth(height_map, truth))['rms_nm']:.3f} <small>nm" in text
    # self-contained: every reference is inside the page or carries its data
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in outline.references)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    assert [given for given, _ in scripts] == [
        ' type="application/json" class="about"',
        ' type="text/plain" class="packed"',
        "",
    ]
    digest = base64.b64encode(hashlib.sha256(scripts[-1][1].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in text
    # identifiers are unique, references resolve
    assert len(outline.ids) == len(set(outline.ids))
    assert {reference[1:] for reference in outline.references if reference[0] == "#"} <= set(outline.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(outline.ids)


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    bare = memory_map(np.random.default_rng(0).normal(0, 1, (40, 50)).astype(np.float32), path=Path("out.npy"))
    text, outline = _page(tmp_path / "report.html", bare)
    assert outline.headings == [
        "Height",
        "Profiles",
        "Residual after form",
        "Spectrum",
        "Histogram of the height",
        "Numbers",
    ]
    assert "px" in text
    assert "nan" not in re.sub(r"base64,[^\"]*|<script.*?</script>", "", text, flags=re.DOTALL).lower()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2000), (1301, 3)])
@pytest.mark.parametrize("fill", [np.nan, 5.0])
def test_odd_maps_have_a_page(tmp_path: Path, shape: tuple[int, int], fill: float) -> None:
    height = np.full(shape, fill, np.float32)
    flags = np.full(shape, np.isnan(fill), np.uint8)
    odd = memory_map(height, document=DOCUMENT, sigma_nm=height.copy(), flags=flags)
    _, outline = _page(tmp_path / "report.html", odd)
    assert "Numbers" in outline.headings
    assert ("Profiles" in outline.headings) == bool(np.isfinite(fill))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>\"'&"
    document = DOCUMENT | {attack: {attack: [attack]}, "settings": {"method": attack}, "summary": {"method": attack}}
    text, _ = _page(tmp_path / "report.html", memory_map(np.eye(9), path=Path(f"a{attack[:8]}.npy"), document=document))
    assert text.count("<script") == 3  # the page's own
    assert attack not in text
    assert "&lt;script&gt;alert(1)" in text
    broken = {"acquisition": None, "settings": [1], "summary": {"seconds_read": "x", "megapixels_per_second": None}}
    _page(tmp_path / "report.html", memory_map(np.eye(9), document=broken))


def test_the_same_run_gives_the_same_page(tmp_path: Path, full_page: tuple[str, Outline]) -> None:
    height_map, truth = _full()
    again, _ = _page(tmp_path / "b.html", height_map, truth=truth)
    assert again == full_page[0]


def test_pure_noise_stays_below_three_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shape = (1100, 1100)  # not reduced: every pixel of every picture is noise, the worst case for compression
    noise = rng.uniform(0, 1e4, (4, *shape)).astype(np.float32)
    tilted = noise[0] + np.linspace(0, 3e4, shape[1], dtype=np.float32)
    height_map = memory_map(
        tilted, document=DOCUMENT, sigma_nm=noise[1], modulation=noise[2], flags=rng.integers(0, 64, shape, np.uint8)
    )
    path = write_report(tmp_path / "report.html", height_map, truth=noise[3])
    assert path.stat().st_size < 3e6


def test_a_given_evaluation_is_shown_and_its_tilt_removed(tmp_path: Path, undrawn: None) -> None:
    height_map, truth = _full()
    y = np.linspace(-1, 1, 200)[:, None]
    text, _ = _page(
        tmp_path / "report.html",
        height_map,
        truth=truth + 900 * y,
        evaluation={"rms_nm": 12.5, "wrong_order_fraction": 0.25, "removed": ["piston", "tilt"]},
    )
    assert "12.50 <small>nm" in text
    assert "25.00 <small>%" in text
    without, _ = _page(tmp_path / "other.html", height_map, evaluation={"rms_nm": 12.5})
    assert "12.50 <small>nm" in without
    assert "Histogram of the error" not in without


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    height_map, truth = _full()
    with pytest.raises(InputError, match="does not exist"):
        write_report(tmp_path / "none" / "report.html", height_map)
    with pytest.raises(InputError, match="shape"):
        write_report(tmp_path / "report.html", height_map, truth=truth[:5])
    assert list(tmp_path.iterdir()) == []


def test_nothing_global_is_touched(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    write_report(tmp_path / "report.html", memory_map(np.eye(30)))
    assert dict(mpl.rcParams) == before


def test_palette_images_are_exact() -> None:
    rng = np.random.default_rng(2)
    table = rng.integers(0, 256, (256, 4), np.uint8)
    pixels = table[rng.integers(0, 256, (40, 50))]
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, format="png")
    reduced = palette_png(buffer.getvalue())
    with Image.open(io.BytesIO(reduced)) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.convert("RGBA")), pixels)
    many = rng.integers(0, 256, (40, 50, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(many, "RGBA").save(buffer, format="png")
    assert palette_png(buffer.getvalue()) == buffer.getvalue()


def test_the_picture_in_the_page_is_the_map(tmp_path: Path) -> None:
    height = np.zeros((30, 40), np.float32)
    height[12:18, 15:25] = 100.0  # in the middle: no tilt to speak of
    height[25:, :5] = np.nan
    text, _ = _page(tmp_path / "report.html", memory_map(height))
    for tag in re.findall(r"<image[^>]*>", text):
        data = re.search(r"base64,([A-Za-z0-9+/=]+)", tag)
        assert data is not None
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGBA")).view("<u4")[..., 0]
        if picture.shape == height.shape:
            break
    else:
        pytest.fail("no picture with a pixel per pixel")
    assert re.search(r'transform="matrix\([\d.]+ 0 0 [\d.]+ ', tag)  # scaled, not turned
    assert len(np.unique(picture)) == 3
    assert np.array_equal(picture == picture[15, 20], height == 100)
    assert np.array_equal(picture == picture[29, 0], np.isnan(height))
