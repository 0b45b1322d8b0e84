"""Builds the documentation as web pages, English and Korean: ``python docs/site/build.py OUT``.

The documents of docs/ and the first pages are copied to a folder, as pages.toml orders them, without the marks of their
figures; links to files that are no page become plain text. Zensical makes a site of each language, and every link of the
result is followed: a page that leads nowhere, or asks another host for a file, ends the build with an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

PLACE = Path(__file__).resolve().parent
ROOT = PLACE.parents[1]
DOCS = ROOT / "docs"
HOST = "https://scaled-cpikan.invalid"  # a link to it would be one that leaves the site
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_MARK = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_SWITCH = re.compile(r"^(English|\[English\]\(\S+\)) \| .*한국어.*\n\n?", re.MULTILINE)  # the site has its own
_LIST = re.compile(r"^(\* |\d+\. )")
_ONLY_ENGLISH = '!!! note ""\n\n    이 페이지는 영어로만 있습니다.\n\n'


class Page(NamedTuple):
    """A document, where it stands on the site, and its title in one language."""

    source: Path
    target: str
    title: str


class Language(NamedTuple):
    """One of the two sites: its code, what precedes ``.md`` in translated documents, and its name for itself."""

    code: str
    suffix: str
    folder: str
    home: str


ENGLISH, KOREAN = Language("en", "", "", "Home"), Language("ko", ".ko", "ko", "처음")


def sections(language: Language) -> list[tuple[str, list[Page]]]:
    """List the sections of the navigation with their pages; raises SystemExit for a document that has no place in it."""
    listed = tomllib.loads((PLACE / "pages.toml").read_text(encoding="utf-8"))["section"]
    korean = language is KOREAN
    found = [
        (
            section["korean" if korean else "english"],
            [Page(source_of(name, language), name, ko if korean else en) for name, en, ko in section["pages"]],
        )
        for section in listed
    ]
    known = {page.target for _, pages in found for page in pages}
    documents = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    missing = {name for name in documents if not name.endswith(".ko.md")} - known
    if missing:
        raise SystemExit(f"docs/site/pages.toml lacks {', '.join(sorted(missing))}")
    return found


def source_of(name: str, language: Language) -> Path:
    """Find the document of a page: its translation where there is one."""
    name = "README.md" if name == "index.md" else name
    for folder in (DOCS, ROOT):
        for path in (folder / f"{name.removesuffix('.md')}{language.suffix}.md", folder / name):
            if path.is_file():
                return path
    raise SystemExit(f"docs/site/pages.toml names {name}, which is not there")


def page_text(page: Page, targets: Mapping[Path, str], language: Language) -> str:
    """Prepare a document for the site: links between pages, no marks of figures, a blank line before each list."""
    lines: list[str] = []
    fenced = False
    written = _SWITCH.sub("", page.source.read_text(encoding="utf-8"), count=1)
    for line in without_marks(written).splitlines():
        fenced ^= line.lstrip().startswith("```")
        before = lines[-1] if lines else ""
        if _LIST.match(line) and not fenced and before and not _LIST.match(before) and not before.startswith(" "):
            lines.append("")
        lines.append(line if fenced else _LINK.sub(lambda match: link_of(match, page, targets, language), line))
    text = "\n".join(lines) + "\n"
    if language is KOREAN and not page.source.name.endswith(".ko.md"):
        text = _ONLY_ENGLISH + text
    return f"---\ntitle: {page.title!r}\n---\n\n{text}"


def without_marks(text: str) -> str:
    """Take the marks of figures, which are HTML comments, off a document; those inside code stay."""
    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if index % 2 else _MARK.sub(_end_of_mark, part) for index, part in enumerate(parts))


def _end_of_mark(match: re.Match[str]) -> str:
    whole_line = match.start() == 0 or match.string[match.start() - 1] == "\n"
    return "" if whole_line or not match[0].endswith("\n") else "\n"


def link_of(match: re.Match[str], page: Page, targets: Mapping[Path, str], language: Language) -> str:
    """Write a link of a document as one of the site; a file that is no page of it becomes its text."""
    picture, text, link = match.groups()
    name, anchor = urldefrag(link)
    if "://" in link or not name:
        return match[0]
    path = (page.source.parent / name).resolve()
    if picture:
        path, target = path, f"images/{path.name}"
    elif path in targets:
        target = targets[path]
        if anchor and anchor not in anchors(source_of(target, language)):
            anchor = ""  # a heading of the other language
    else:
        return text
    relative = os.path.relpath(target, Path(page.target).parent)
    return f"{picture}[{text}]({relative}{'#' if anchor else ''}{anchor})"


@cache
def anchors(path: Path) -> set[str]:
    """List the anchors of a document's headings."""
    heads = re.findall(r"^#+ +(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def stage(language: Language, place: Path) -> None:
    """Write the documents of one language and the configuration of its site into a folder."""
    home = Page(source_of("index.md", language), "index.md", language.home)
    ordered = sections(language)
    pages = [home, *(page for _, listed in ordered for page in listed)]
    targets = {page.source: page.target for page in pages}
    targets |= {source_of(page.target, ENGLISH): page.target for page in pages[1:]}
    targets |= {ROOT / "README.md": "index.md"}
    content = place / "content"
    for page in pages:
        path = content / page.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page_text(page, targets, language), encoding="utf-8")
    shutil.copytree(DOCS / "images", content / "images")
    shutil.copy(PLACE / "extra.css", content / "extra.css")
    (place / "zensical.toml").write_text(configuration(language, home, ordered), encoding="utf-8")


def configuration(language: Language, home: Page, ordered: list[tuple[str, list[Page]]]) -> str:
    """Fill in the configuration of one language."""
    entries = [f"  {{ {quoted(home.title)} = {quoted(home.target)} }},"]
    for title, pages in ordered:
        listed = ", ".join(f"{{ {quoted(page.title)} = {quoted(page.target)} }}" for page in pages)
        entries.append(f"  {{ {quoted(title)} = [{listed}] }},")
    text = (PLACE / "zensical.toml").read_text(encoding="utf-8")
    return (
        text.replace("@NAV@", "\n".join(entries))
        .replace("@LANGUAGE@", language.code)
        .replace("@ENGLISH@", "index.html" if language is ENGLISH else "../index.html")
        .replace("@KOREAN@", "ko/index.html" if language is ENGLISH else "index.html")
    )


def quoted(text: str) -> str:
    """Write a TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def build(out: Path) -> list[str]:
    """Build both languages into ``out`` and return what is wrong with the result, a sentence each."""
    shutil.rmtree(out, ignore_errors=True)
    told = []
    for language in (ENGLISH, KOREAN):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            stage(language, place)
            command = [sys.executable, "-m", "zensical", "build", "--strict"]
            plain = {**os.environ, "NO_COLOR": "1"}
            done = subprocess.run(command, cwd=place, env=plain, capture_output=True, text=True, check=False)
            said = done.stdout + done.stderr
            if done.returncode or re.search(r"\bwarning\b", said, re.IGNORECASE):
                told.append(f"zensical, {language.code}: {said.strip()}")
            (place / "site" / "404.html").unlink(missing_ok=True)  # its links hold at the root of a host alone
            if (place / "site").is_dir():
                shutil.copytree(place / "site", out / language.folder, dirs_exist_ok=True)
    return [*told, *dead_links(out)]


class _References(HTMLParser):
    """What a page links to, what it loads, and what of it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.links.add(str(given["href"]))
        if tag == "link" and given.get("rel") not in ("canonical", "alternate", "prev", "next"):
            self.loaded.add(str(given.get("href")))
        if given.get("src"):
            self.loaded.add(str(given["src"]))


def dead_links(out: Path) -> Iterator[str]:
    """Follow every link of the pages in ``out``; yields a sentence for each that leads nowhere or loads from elsewhere."""
    pages = {path: _References(path.read_text(encoding="utf-8")) for path in sorted(out.rglob("*.html"))}
    for path, found in pages.items():
        name = path.relative_to(out).as_posix()
        for link in sorted(found.loaded):
            if urlsplit(link).scheme in ("http", "https") or link.startswith("//"):
                yield f"{name} loads {link} from another host"
        for link in sorted(found.links | found.loaded):
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or link.startswith("//"):
                if link.startswith(HOST):
                    yield f"{name} links to {link}, which leaves the site"
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{name} links to {link}, which is not there"
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                yield f"{name} links to {link}, which has no such heading"
    for path in sorted(out.rglob("*.css")):
        for address in re.findall(r"url\(\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(out)} loads {address} from another host"


def main() -> int:
    """Build the site and say what is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write; what is in it is replaced")
    out = parser.parse_args().out.resolve()
    wrong = build(out)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    print(f"{sum(1 for _ in out.rglob('*.html'))} pages in {out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
