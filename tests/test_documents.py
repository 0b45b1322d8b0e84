"""The documents: links lead somewhere, both READMEs say the same, the first page fits on a screen or two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ENGLISH, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"


def _anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    for link in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path if not name else path.parent / name
        assert target.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), f"{path.name} links to {link}"


@pytest.mark.parametrize("path", [ENGLISH, KOREAN], ids=["English", "Korean"])
def test_the_first_page_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 130


def test_both_first_pages_say_the_same():
    pages = [path.read_text(encoding="utf-8") for path in (ENGLISH, KOREAN)]
    for pattern in (r"^#+ ", r"\]\(([^)]+)\)", r"^\* ", r"^\| "):
        counts = [len(re.findall(pattern, page, re.MULTILINE)) for page in pages]
        assert counts[0] == counts[1], pattern
    commands = [
        [
            re.sub(r"\s*#.*", "", line)
            for block in re.findall(r"```\w+\n(.*?)```", page, re.DOTALL)
            for line in block.splitlines()
        ]
        for page in pages
    ]
    assert commands[0] == commands[1]
    links = [sorted(re.findall(r"\]\(([^)]+)\)", page)) for page in pages]
    assert [link for link in links[0] if not link.startswith("README")] == [
        link for link in links[1] if not link.startswith("README")
    ]
