"""The documents as web pages: they build without a warning, and the check of their links finds what is dead."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_build", ROOT / "docs" / "site" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_builds_in_both_languages_and_no_link_is_dead(site, tmp_path):
    out = tmp_path / "site"
    assert site.build(out) == []
    english, korean = ((out / folder / "how-to" / "view.html").read_text(encoding="utf-8") for folder in ("", "ko"))
    assert "csv:view" not in english  # marks of figures are gone, the figures stay
    assert re.search(r"the first view of 9344 x 7000 pixels is there\s+[\d.]+ s", english)
    assert "지도 보기" in korean
    assert "이 페이지는 영어로만 있습니다" in korean
    assert "정확도와 속도" in (out / "ko" / "reference" / "figures.html").read_text(encoding="utf-8")


def test_dead_links_and_other_hosts_are_found(site, tmp_path):
    (tmp_path / "other.html").write_text('<h2 id="there">x</h2>')
    (tmp_path / "page.css").write_text("@font-face { src: url(https://fonts.example/a.woff2) }")
    page = (
        '<a href="other.html#there">good</a> <a href="other.html#gone">bad</a> <a href="none.html">bad</a>'
        '<script src="https://cdn.example/a.js"></script> <a href="https://example.org/">elsewhere</a>'
    )
    (tmp_path / "page.html").write_text(page)
    told = "\n".join(site.dead_links(tmp_path))
    assert told.count("\n") == 3
    for wrong in ("other.html#gone", "none.html", "cdn.example", "page.css loads"):
        assert wrong in told


def test_a_document_without_a_place_in_the_navigation_ends_the_build(site, tmp_path, monkeypatch):
    (tmp_path / "new.md").write_text("# New\n")
    monkeypatch.setattr(site, "DOCS", tmp_path)
    with pytest.raises(SystemExit):
        site.sections(site.ENGLISH)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("It takes <!--csv:view:value s;shape=1x1-->1.39<!--/csv--> s.\n", "It takes 1.39 s.\n"),
        ("<!-- figures:begin -->\n| a |\n<!-- figures:end -->\nafter\n", "| a |\nafter\n"),
        ("`<!--csv:…-->` is a mark\n", "`<!--csv:…-->` is a mark\n"),
        ("```\n<!--csv:a-->1<!--/csv-->\n```\n", "```\n<!--csv:a-->1<!--/csv-->\n```\n"),
    ],
)
def test_marks_of_figures_are_not_shown(site, written, shown):
    assert site.without_marks(written) == shown
