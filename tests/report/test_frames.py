"""The sections on frames, on the removed form, and the warnings: what they show is what the JSON holds."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from functools import partial
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from memory_map import memory_map

from cpikan.psi.model.frame_model import Response
from cpikan.report import content, frame_figures
from cpikan.report.fits import step_lines
from cpikan.report.frames import frame_sections
from cpikan.report.html import write_report

ATTACK = "<script>alert(1)</script>\"'&$title"


FIT: dict[str, Any] = {
    "phase_steps_deg": [0.0, 65.00374, 122.91318, 184.51167, 301.26001, 2.01353],
    "step_error_deg": [0.0, 0.44089, 0.58882, 0.68193, 0.56953, 0.44135],
    "tilt_rad_px": [[0.0, 0.0], [3e-4, 4e-4], [6e-4, 8e-4], [1e-3, 0.0], [0.0, -2e-3], [0.0, 0.0]],
    "tilt_pivot_px": [30.0, 40.0],
    "defocus_rad_px2": [0.0] * 6,
    "gain": [1.0, 1.0123, 0.98765, 1.0, 1.0, 1.0],
    "offset_dn": [0.0] * 6,
    "harmonic_ratio": {"2": 0.137},
    "harmonics_per_pixel": [2],
    "response": {"low_dn": 60.0, "high_dn": 229.0, "coefficients_dn": [-30.6, 11.9, 10.5, 7.2, 4.8]},
    "effects": ["tilt", "gain", "harmonic2"],
    "omitted": {"harmonic3": "not significant (at most 0.007, standard error 0.0045)"},
    "determined": True,
    "reason": "",
    "conditioning": 0.7062,
    "circle_coverage": 0.8305,
    "fringes": 2.4524,
    "residual_dn": 5.67397,
    "residual_over_three_dn": 6.123,
    "ripple_expected_mrad": 2.4385,
    "ripple_before_mrad": {"1": 16.0, "2": 14.5, "3": 4.2, "4": 2.4},
    "ripple_after_mrad": {"1": 16.8, "2": 13.9, "3": 2.6, "4": 2.9},
    "iterations": 7,
    "converged": True,
    "sign": "assumed",
}
SURFACE = {
    "pixels": 4321,
    "pv_nm": 823.0487,
    "pvr_nm": 615.25,
    "rms_nm": 211.2011,
    "sa_nm": 170.5,
    "sq_nm": 211.2011,
    "ssk": None,
    "slope_rms_x_nm_per_pixel": 1.234,
    "slope_rms_y_nm_per_pixel": 2.345,
    "slope_pv_x_nm_per_pixel": 9.87,
    "slope_pv_y_nm_per_pixel": 8.76,
    "slope_rms_x_mrad": None,
}
FORM = {
    "removed": ["piston", "power"],
    "circle_pixels": [40.0, 30.0, 25.0, 0.0],
    "normalisation": "unit RMS over the pupil",
    "coefficients_nm": {"Z(0,0)": 12.5, "Z(2,0)": -4493.0},
    "noll": {"Z(0,0)": 1, "Z(2,0)": 4},
    "pistons_nm": [12.5],
}


@pytest.fixture
def drawn() -> None:
    """Ask for pictures: those of a page take most of its time, and `test_page` looks at them."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(content, "inline_svg", lambda figure, name, label: "<svg></svg>")


def _disc() -> np.ndarray:
    """Valid within 25 pixels of (30, 40)."""
    y, x = np.indices((60, 80))
    height = np.sin(x / 9.0) + 0.1 * y
    height[(y - 30) ** 2 + (x - 40) ** 2 > 625] = np.nan
    return height.astype(np.float32)


def _document(*fits: Any, **summary: Any) -> dict[str, Any]:
    return {
        "acquisition": {"wavelengths_nm": [654.0, 5500.0][: max(len(fits), 1)]},
        "calibration": {"frames_fit": list(fits) or None},
        "summary": {"method": "auto", "frames_fit": list(fits) or None, **summary},
    }


def _page(folder: Path, document: dict[str, Any]) -> str:
    return write_report(
        folder / "page.html", memory_map(_disc(), path=Path("mirror.npy"), document=document), progress=False
    ).read_text("utf-8")


def _headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def _section(page: str, title: str) -> str:
    found = re.search(rf"<section[^>]*><h2>{re.escape(title)}</h2>.*?</section>", page, re.DOTALL)
    assert found is not None, title
    return found[0]


def _rows(section: str) -> list[list[str]]:
    """The head and the rows of its first table, as text."""
    table = re.search(r"<table.*?</table>", section, re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr>(.*?)</tr>", table[0])
    return [[unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in rows]


def test_the_table_holds_the_numbers_of_the_json(tmp_path: Path) -> None:
    section = _section(_page(tmp_path, _document(FIT)), "Frames")
    head, *rows = _rows(section)
    assert head == ["frame", "step / deg", "increment / deg", "tilt at the rim / mrad", "gain"]
    assert [row[0] for row in rows] == list("012345")
    steps, errors = FIT["phase_steps_deg"], FIT["step_error_deg"]
    assert rows[0][1:3] == ["0.00", ""]
    for k in range(1, 6):
        step, error = (float(part) for part in rows[k][1].split(" ± "))
        # two decimals are shown: half of the last one
        assert step == pytest.approx(steps[k], abs=0.0051)
        assert error == pytest.approx(errors[k], abs=0.0051)
        increment = (steps[k] - steps[k - 1] + 180) % 360 - 180
        assert float(rows[k][2]) == pytest.approx(increment, abs=0.0051)
    # the farthest pixel of the disc lies 25 px from the pivot
    lengths = [0, 5e-4, 1e-3, 1e-3, 2e-3, 0]
    assert [float(row[3]) for row in rows] == pytest.approx([25e3 * length for length in lengths], abs=0.051)
    assert "25 px from the pivot at x 40.0, y 30.0" in section
    assert [row[4] for row in rows] == ["1.0000", "1.0123", "0.9877", "1.0000", "1.0000", "1.0000"]


def test_the_words_say_what_was_fitted_and_what_not(tmp_path: Path) -> None:
    section = _section(_page(tmp_path, _document(FIT)), "Frames")
    for words in (
        "Fitted: steps, tilt, gain, 2nd harmonic, response curve.",
        "Harmonic 2: 13.70 % of the modulation.",
        "Left out: 3rd harmonic: not significant (at most 0.007, standard error 0.0045).",
        "2.5 fringes, steps cover 83 % of the circle, conditioning 0.71 (1 is best)",
        "residual 5.67 DN (6.12 over K − 3)",
        "2× ripple expected 2.4 mrad",
        "Sign of the height assumed.",
        '<b class="good">Steps determined.</b>',
    ):
        assert words in section
    titles = re.findall(r"<h3>(.*?)</h3>", section)
    assert titles == ["Steps on the circle", "Response of the camera", "Ripple by multiple of the fringe"]
    assert section.count("<svg") == 3
    doubtful = FIT | {
        "determined": False,
        "reason": "the field holds 0.2 fringes",
        "sign": "nominal",
        "converged": False,
    }
    section = _section(_page(tmp_path, _document(doubtful)), "Frames")
    assert '<b class="bad">Steps not determined: the field holds 0.2 fringes.</b>' in section
    assert "The fit did not converge" in section
    assert "Sign of the height from the steps." in section


def test_defocus_and_offset_have_columns_where_they_were_fitted(tmp_path: Path) -> None:
    bent = FIT | {"defocus_rad_px2": [0.0, 2e-4, 0, 0, 0, 0], "offset_dn": [0.0, 0, 0, -3.25, 0, 0]}
    head, *rows = _rows(_section(_page(tmp_path, _document(bent)), "Frames"))
    assert head[4:] == ["defocus at the rim / mrad", "gain", "offset / DN"]
    assert float(rows[1][4]) == pytest.approx(2e-4 * 25**2 * 1e3, abs=0.051)
    assert rows[3][6] == "-3.25"


@pytest.mark.usefixtures("drawn")
def test_each_wavelength_has_a_section_and_names_of_its_own(tmp_path: Path) -> None:
    page = _page(tmp_path, _document(FIT, FIT | {"response": None}))
    assert [title for title in _headings(page) if title.startswith("Frames")] == ["Frames, 654 nm", "Frames, 5.5 µm"]
    assert "Response of the camera" not in _section(page, "Frames, 5.5 µm")
    names = re.findall(r'\sid="([^"]*)"', page)
    assert len(names) == len(set(names))


def test_trusted_steps_show_deviations_alone(tmp_path: Path) -> None:
    document = _document()
    assert "Frames" not in _headings(_page(tmp_path, document))
    document["calibration"] |= {"phase_steps_deg": [[0.0, 90.0, 180.0]], "step_deviation_deg": [[0.0, 0.126, -1.5]]}
    section = _section(_page(tmp_path, document), "Frames")
    head, *rows = _rows(section)
    assert head == ["frame", "step / deg", "deviation / deg"]
    assert rows == [["0", "0", "+0.00"], ["1", "90", "+0.13"], ["2", "180", "-1.50"]]
    assert "<svg" not in section
    assert "Fitted" not in section
    document["calibration"]["step_deviation_deg"] = [None]
    assert "Frames" not in _headings(_page(tmp_path, document))


def test_surface_and_form(tmp_path: Path) -> None:
    page = _page(tmp_path, _document(surface=SURFACE, form=FORM, ripple_mrad={"1": 17.4973, "2": 13.5647}))
    rows = dict(re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", _section(page, "Surface")))
    assert (rows["PV"], rows["RMS"], rows["Sa"], rows["Sq"]) == ("823.0 nm", "211.2 nm", "170.5 nm", "211.2 nm")
    assert next(value for name, value in rows.items() if name.startswith("PVr")) == "615.2 nm"
    assert rows["slope RMS along x"] == "1.234 nm per pixel"
    assert rows["slope PV along y"] == "8.760 nm per pixel"
    assert "Ssk" not in rows
    section = _section(page, "Removed form")
    assert _rows(section)[1:] == [["Z(0,0) piston", "1", "12.50 nm"], ["Z(2,0) power", "4", "-4493 nm"]]
    assert "Taken off: piston, power. Pupil: centre x 40.0, y 30.0, radius 25.0 px." in section
    assert "1× 17.5, 2× 13.6 mrad" in _section(page, "Numbers")
    in_mrad = SURFACE | {"slope_rms_x_mrad": 0.0607, "slope_rms_y_mrad": 0.0584}
    assert "0.06070 mrad" in _section(_page(tmp_path, _document(surface=in_mrad)), "Surface")
    bare = _headings(_page(tmp_path, _document(surface=None, form=None)))
    assert not {"Surface", "Removed form"} & set(bare)


def test_warnings_stand_above_everything(tmp_path: Path) -> None:
    page = _page(tmp_path, _document(warnings=["the light drifts", ATTACK]))
    assert "2 warnings" in page
    assert page.index("the light drifts") < page.index('<div class="keys">') < page.index("<section")
    assert '<div class="warnings"' not in _page(tmp_path, _document(warnings=[]))


@pytest.mark.usefixtures("drawn")
def test_hostile_words_stay_text(tmp_path: Path) -> None:
    hostile = FIT | {"effects": [ATTACK], "omitted": {ATTACK: ATTACK}, "determined": False, "reason": ATTACK}
    hostile |= {"sign": ATTACK, "harmonic_ratio": {ATTACK: 0.1}, "ripple_after_mrad": {ATTACK: 1.0}}
    form = FORM | {
        "removed": [ATTACK],
        "coefficients_nm": {ATTACK: 1.0},
        "noll": {ATTACK: ATTACK},
        "normalisation": ATTACK,
    }
    document = _document(hostile, warnings=[ATTACK], form=form, surface=SURFACE | {"pixels": ATTACK})
    page = _page(tmp_path, document | {"settings": {"remove": ATTACK}})
    assert page.count("<script") == 3  # the page's own
    assert ATTACK not in page
    assert page.count("&lt;script&gt;alert(1)") >= 9


def _told(fit: Any) -> str:
    """The section of a fit, without a page around it."""
    document = _document(fit)
    part = SimpleNamespace(height=_disc(), shape=(60, 80))
    return "".join(map(repr, frame_sections(SimpleNamespace(part=document.__getitem__, survey=part))))


@pytest.fixture
def figures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make no figure twice of the same arguments: most odd entries are not in any."""
    for name in ("circle_figure", "response_figure", "ripple_figure"):
        monkeypatch.setattr(frame_figures, name, partial(_figure_of, getattr(frame_figures, name)))


_FIGURES: dict[tuple[str, bytes], Any] = {}


def _figure_of(make: Callable[..., Any], *given: Any) -> Any:
    key = make.__name__, pickle.dumps(given)
    if key not in _FIGURES:
        _FIGURES[key] = make(*given)
    return _FIGURES[key]


@pytest.mark.usefixtures("figures_once")
@pytest.mark.parametrize("odd", ["absent", None, "x", [], {}, [None] * 6, True, float("nan"), [[1.0], [2.0, 3.0]]])
def test_missing_or_odd_entries_are_left_out(odd: Any) -> None:
    whole = _told(FIT)
    for name in FIT:
        fit = {key: value for key, value in FIT.items() if key != name} | ({} if odd == "absent" else {name: odd})
        told = _told(fit)
        assert bool(told) == (name != "phase_steps_deg")
        assert "nan" not in told.lower()
        assert "None" not in told
        assert len(step_lines({"frames_fit": [fit]})) == (name != "phase_steps_deg")
        if name in ("step_error_deg", "tilt_rad_px", "gain", "response", "fringes", "residual_dn", "omitted"):
            assert len(told) < len(whole)


def test_steps_alone_suffice(tmp_path: Path) -> None:
    section = _section(_page(tmp_path, _document({"phase_steps_deg": [0, 90, 180, -90]})), "Frames")
    head, *rows = _rows(section)
    assert head == ["frame", "step / deg", "increment / deg"]
    assert rows[3] == ["3", "-90.00", "90.00"]
    assert section.count("<svg") == 1


def test_odd_parts_leave_the_page_standing(tmp_path: Path) -> None:
    for odd in ("x", 3, [1], {"a": 1}, [None], [{}]):
        document = {"summary": {"frames_fit": odd, "form": odd, "surface": odd, "warnings": odd, "ripple_mrad": odd}}
        document["calibration"] = {"step_deviation_deg": odd, "phase_steps_deg": odd, "frames_fit": odd}
        assert "Frames" not in _headings(_page(tmp_path, document))


def test_without_a_valid_pixel_tilts_are_told_per_pixel(tmp_path: Path) -> None:
    empty = memory_map(np.full((20, 30), np.nan, np.float32), document=_document(FIT))
    page = write_report(tmp_path / "page.html", empty, progress=False).read_text("utf-8")
    head, *rows = _rows(_section(page, "Frames"))
    assert head[3] == "tilt / (mrad/px)"
    assert rows[2][3] == "1"


def test_blocks_of_a_reduced_picture_count_from_their_middles() -> None:
    picture = np.full((1200, 20), np.nan)
    picture[100, 0] = 1.0  # 5 x 5 pixels around row 502, column 2
    survey = SimpleNamespace(height=picture, shape=(6000, 100))
    document = _document(FIT | {"tilt_pivot_px": [2.0, 2.0]})
    told = "".join(map(repr, frame_sections(SimpleNamespace(part=document.__getitem__, survey=survey))))
    assert "the farthest valid pixel, 500 px from the pivot" in told


# --- the figures -----------------------------------------------------------------------------------------------------


def test_the_circle_names_frames_that_lie_together() -> None:
    figure = frame_figures.circle_figure(np.array([0.0, 120.0, 240.0, 357.0, 123.0]), None)
    assert {text.get_text() for text in figure.axes[0].texts} == {"0, 3", "1, 4", "2"}
    start, gap = frame_figures._widest_gap(np.array([0.0, 90.0, 100.0, 300.0]))
    assert (start, gap) == (100.0, 200.0)


def test_the_response_is_that_of_the_model() -> None:
    response = Response(60.0, 229.0, (-30.0, 12.0, 10.0))
    line = frame_figures.response_figure(response).axes[0].lines[1]
    samples = np.linspace(60, 229, 129)
    t = (2 * samples - 289) / 169
    bend = -30 * t + 12 * (1.5 * t**2 - 0.5) + 10 * (2.5 * t**3 - 1.5 * t)
    assert np.allclose(line.get_xdata(), samples)
    assert np.allclose(line.get_ydata(), bend)


def test_bars_are_as_high_as_the_ripple() -> None:
    figure = frame_figures.ripple_figure(FIT["ripple_before_mrad"], FIT["ripple_after_mrad"])
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [16.0, 14.5, 4.2, 2.4, 16.8, 13.9, 2.6, 2.9]
    assert len(frame_figures.ripple_figure(None, {"2": 1.0}).axes[0].patches) == 1


# --- the line for a terminal -----------------------------------------------------------------------------------------


def test_step_lines_are_short() -> None:
    short = FIT | {"effects": ["tilt"], "response": None}
    assert step_lines({"frames_fit": [short]}) == [
        "steps      0.0 65.0 122.9 184.5 301.3 2.0 deg (+- 0.68), tilt to 2 mrad/px, 2.5 fringes, sign assumed"
    ]
    many = 13
    long = FIT | {"phase_steps_deg": [27.7 * k for k in range(many)], "step_error_deg": [0.1] * many}
    long |= {
        "effects": ["tilt", "defocus", "gain", "offset", "harmonic2", "harmonic3"],
        "tilt_rad_px": [[0, 1e-3]] * many,
    }
    first, second = step_lines({"frames_fit": [long, short]})
    assert first.startswith("steps 1    0.0 27.7 ")
    assert " ... 332.4 deg (+- 0.1), tilt to 1 mrad/px, " in first
    assert "effects, 2.5 fringes, sign assumed" in first
    assert second.startswith("steps 2    0.0 65.0 ")
    assert max(map(len, (first, second))) <= 110


def test_step_lines_of_trusted_or_old_runs() -> None:
    assert step_lines({}) == []
    assert step_lines({"frames_fit": None}) == []
    assert step_lines({"frames_fit": [{"phase_steps_deg": [0.0, 90.0], "determined": False}]}) == [
        "steps      0.0 90.0 deg, not determined"
    ]
