"""What a page that shows maps is answered, whatever server it asks: itself, tiles, what is new of them, remarks, reports."""

from __future__ import annotations

import itertools
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.storage.documents import parse_json
from cpikan.version import VERSION
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.remarks import read_remarks, write_remarks

TOKEN_HEADER = "X-Cpikan-Token"
MOST_TILES = 64  # of one request
_FAILED = 1 << 31  # in the length of a tile: a reason follows in its place
_BYTES, _JSON = "application/octet-stream", "application/json"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_POLICY = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:"
)


@dataclass(frozen=True)
class Reply:
    """An answer: its ``body``, or ``parts`` of one that is made while it is sent."""

    body: bytes | memoryview = b""
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    policy: str = _POLICY
    parts: Iterator[bytes | memoryview] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Name what every answer says of itself beside its length."""
        return {
            "Content-Type": self.kind,
            "Cache-Control": "no-store",
            "Content-Security-Policy": self.policy,
            "X-Content-Type-Options": "nosniff",
        }


class Showing:
    """One page for one or two maps. What writes or works long needs ``token``, which the page is told."""

    def __init__(self, exhibits: Sequence[Exhibit]) -> None:
        self.exhibits = list(exhibits)
        self.token = secrets.token_urlsafe()
        self._reports: dict[int, bytes] = {}
        self._filters = itertools.count(1)

    def get(self, path: str, query: str = "") -> Reply:
        """Answer with the page, the catalogue, tiles, what is new of them, remarks or a report; ``path`` begins with no /."""
        if path == "maps.json":
            return Reply(catalogue(self.exhibits, self.token), _JSON)
        if path == "live.json":
            return _answer(path, lambda: {"maps": [exhibit.look() for exhibit in self.exhibits]})
        if path == "tiles":
            return self._tiles(query)
        if path.startswith("maps/"):
            return self._tile(path)
        if path.startswith("remarks/"):
            return _answer(path, lambda: read_remarks(self._exhibit(path).map.path))
        if path.startswith("report/"):
            return self._report(path)
        if path == "overview.js":  # of an exported folder; a server has tiles
            return Reply(b"", _TYPES[".js"])
        return _page(path or "index.html")

    def post(self, path: str, token: str, body: bytes) -> Reply:
        """Write remarks, filter heights or make a report: for the page alone, which knows the token."""
        if not self.knows(token):
            return refusal(HTTPStatus.FORBIDDEN, "this is only for the page itself, which knows a token")
        if path.startswith("remarks/"):
            return _answer(path, lambda: write_remarks(self._exhibit(path).map.path, body))
        if path == "filter":
            return _answer(path, lambda: self._filter(body))
        if path.startswith("report/"):
            return _answer(path, lambda: self._make_report(path))
        return refusal(HTTPStatus.NOT_FOUND, f"there is no {path}")

    def knows(self, token: str) -> bool:
        """Tell whether a request came with the token, in a time that says nothing about it."""
        return secrets.compare_digest(token.encode(), self.token.encode())

    def _exhibit(self, path: str) -> Exhibit:
        """Find the map whose number ends a path; raises KeyError for another end."""
        number = path.rpartition("/")[2]
        if not (number.isascii() and number.isdecimal() and int(number) < len(self.exhibits)):
            raise KeyError(number)
        return self.exhibits[int(number)]

    def _tile(self, path: str) -> Reply:
        """Send a chunk of ``maps/NUMBER/QUANTITY/LEVEL/c/ROW/COLUMN``: raw little-endian numbers."""
        try:
            return Reply(self._made(path), _BYTES)
        except InputError as failure:
            return refusal(HTTPStatus.GONE, str(failure))
        except (ValueError, KeyError, IndexError):
            return refusal(HTTPStatus.NOT_FOUND, f"there is no tile {path}")

    def _tiles(self, query: str) -> Reply:
        """Send many tiles, named as `_tile` names them and joined by ``+``."""
        paths = query.split("+")
        if len(paths) > MOST_TILES:
            return refusal(HTTPStatus.BAD_REQUEST, f"at most {MOST_TILES} tiles are sent at once")
        return Reply(kind=_BYTES, parts=self._one_by_one(paths))

    def _one_by_one(self, paths: Sequence[str]) -> Iterator[bytes | memoryview]:
        """Make tiles one after another, each after its length in 4 bytes; or a reason, where the file does not hold one."""
        content: bytes | memoryview
        for path in paths:
            try:
                content, mark = self._made(path), 0
            except InputError as failure:
                content, mark = _padded(str(failure)), _FAILED
            except (ValueError, KeyError, IndexError):
                content, mark = _padded(f"there is no tile {path}"), _FAILED
            yield (mark | len(content)).to_bytes(4, "little")
            yield content

    def _made(self, path: str) -> memoryview:
        """Make a tile by its name; raises what `Exhibit.tile` does, ValueError for a name that is none."""
        maps, number, name, level, c, row, column = path.split("/")
        if (maps, c) != ("maps", "c") or not all(p.isascii() and p.isdecimal() for p in (number, level, row, column)):
            raise ValueError(path)
        return self.exhibits[int(number)].tile(name, int(level), int(row), int(column)).data.cast("B")

    def _filter(self, body: bytes) -> dict[str, Any]:
        asked = parse_json(body)
        if not isinstance(asked, dict) or not all(isinstance(asked.get(key), str | None) for key in ("s", "l")):
            raise InputError('a filter is {"s": "25 um", "l": "0.8 mm"}: give one nesting index or two')
        number = next(self._filters)
        first, *_ = [exhibit.filter(number, asked.get("s"), asked.get("l")) for exhibit in self.exhibits]
        return first

    def _make_report(self, path: str) -> dict[str, Any]:
        from cpikan.report.html import write_report

        exhibit = self._exhibit(path)
        with tempfile.TemporaryDirectory() as folder:
            page = write_report(Path(folder, "report.html"), exhibit.map, progress=False)
            self._reports[self.exhibits.index(exhibit)] = page.read_bytes()
        return {"address": path}

    def _report(self, path: str) -> Reply:
        number = path.rpartition("/")[2]
        made = self._reports.get(int(number)) if number.isascii() and number.isdecimal() else None
        if made is None:
            return refusal(HTTPStatus.NOT_FOUND, "this report was not made yet: ask for it on the page")
        return Reply(made, _TYPES[".html"], policy=_REPORT_POLICY)


def catalogue(exhibits: Sequence[Exhibit], token: str | None = None) -> bytes:
    """Describe the maps for the page, as JSON; without a ``token`` it cannot write."""
    told = {"version": VERSION, "token": token, "maps": [exhibit.describe() for exhibit in exhibits]}
    return json.dumps(told, allow_nan=False).encode()


def refusal(status: HTTPStatus, reason: str) -> Reply:
    """Answer why not, in one line."""
    return Reply(one_line(reason).encode(), status=status)


def _answer(path: str, made: Callable[[], Any]) -> Reply:
    """Answer with what a call gives as JSON, or why it cannot."""
    try:
        return Reply(json.dumps(made(), allow_nan=False).encode(), _JSON)
    except KeyError:
        return refusal(HTTPStatus.NOT_FOUND, f"there is no {path}")
    except (InputError, OSError, ValueError) as failure:
        return refusal(HTTPStatus.BAD_REQUEST, str(failure))


def _page(name: str) -> Reply:
    known = {entry.name: entry for entry in (files("cpikan.viewer") / "page").iterdir()}
    if name not in known:
        return refusal(HTTPStatus.NOT_FOUND, f"there is no {name}")
    return Reply(known[name].read_bytes(), _TYPES.get(name[name.rfind(".") :], _BYTES))


def _padded(reason: str) -> bytes:
    """Write a reason in a multiple of four bytes: numbers behind it stay where numbers can be read."""
    text = one_line(reason).encode()
    return text + b" " * (-len(text) % 4)
