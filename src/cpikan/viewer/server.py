"""The page and the tiles over HTTP, on this machine alone."""

from __future__ import annotations

import itertools
import json
import secrets
import tempfile
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.storage.documents import parse_json
from cpikan.version import VERSION
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.remarks import MOST_BYTES, read_remarks, write_remarks

HOST = "127.0.0.1"
TOKEN_HEADER = "X-Cpikan-Token"
MOST_TILES = 64  # of one request
_FAILED = 1 << 31  # in the length of a tile: a reason follows in its place
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_POLICY = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:"
)


class ViewServer(ThreadingHTTPServer):
    """Serves one page for one or two maps on 127.0.0.1; ``port`` 0 takes a free one. InputError for a port in use.

    What writes or works long needs ``token``, which the page is told.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, exhibits: Sequence[Exhibit], port: int = 0) -> None:
        self.exhibits = list(exhibits)
        self.token = secrets.token_urlsafe()
        self.reports: dict[int, bytes] = {}
        self.filters = itertools.count(1)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as failure:
            raise InputError(
                f"port {port} cannot be used ({failure.strerror}): give another with --port, or none for a free one"
            ) from failure
        self.port = int(self.server_address[1])

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def start(self) -> None:
        """Serve in a thread of its own until `close`."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()

    def close(self) -> None:
        """Stop serving; twice is once."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away in the middle of an answer."""


def catalogue(exhibits: Sequence[Exhibit], token: str | None = None) -> bytes:
    """Describe the maps for the page, as JSON; without a ``token`` it cannot write."""
    told = {"version": VERSION, "token": token, "maps": [exhibit.describe() for exhibit in exhibits]}
    return json.dumps(told, allow_nan=False).encode()


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version = f"cpikan/{VERSION}"
    sys_version = ""
    disable_nagle_algorithm = True  # else the end of a tile waits for the receipt of its beginning

    def do_GET(self) -> None:
        """Answer with the page, the catalogue, tiles, what is new of them, remarks or a report."""
        if not self._ours():
            return self._refuse(HTTPStatus.FORBIDDEN, f"this page is only for {self.server.address}")
        path, _, query = self.path.partition("?")
        if path == "/maps.json":
            return self._send(catalogue(self.server.exhibits, self.server.token), "application/json")
        if path == "/live.json":
            return self._answer(lambda: {"maps": [exhibit.look() for exhibit in self.server.exhibits]})
        if path == "/tiles":
            return self._tiles(query)
        if path.startswith("/maps/"):
            return self._tile(path)
        if path.startswith("/remarks/"):
            return self._answer(lambda: read_remarks(self._exhibit(path).map.path))
        if path.startswith("/report/"):
            return self._report(path)
        if path == "/overview.js":  # of an exported folder; a server has tiles
            return self._send(b"", _TYPES[".js"])
        return self._page("index.html" if path == "/" else path[1:])

    def do_POST(self) -> None:
        """Write remarks, filter heights or make a report: for the page alone, which knows the token."""
        if not self._ours() or not secrets.compare_digest(
            self.headers.get(TOKEN_HEADER, "").encode(), self.server.token.encode()
        ):
            self.close_connection = True  # what was sent is not read
            return self._refuse(HTTPStatus.FORBIDDEN, f"this page is only for {self.server.address}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and int(length) <= MOST_BYTES):
            self.close_connection = True
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BYTES} bytes can be sent")
        body = self.rfile.read(int(length))
        path = self.path
        if path.startswith("/remarks/"):
            return self._answer(lambda: write_remarks(self._exhibit(path).map.path, body))
        if path == "/filter":
            return self._answer(lambda: self._filter(body))
        if path.startswith("/report/"):
            return self._answer(lambda: self._make_report(path))
        return self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path}")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the terminal for messages that mean something."""

    def _ours(self) -> bool:
        """Tell whether the request is for this address and, from a page, of this page (else another site could read maps)."""
        names = {f"{HOST}:{self.server.port}", f"localhost:{self.server.port}"}
        origin = self.headers.get("Origin")
        return (
            self.headers.get("Host") in names
            and (origin is None or origin.removeprefix("http://") in names)
            and self.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
        )

    def _exhibit(self, path: str) -> Exhibit:
        """Find the map whose number ends a path; raises KeyError for another end."""
        number = path.rpartition("/")[2]
        if not (number.isascii() and number.isdecimal() and int(number) < len(self.server.exhibits)):
            raise KeyError(number)
        return self.server.exhibits[int(number)]

    def _page(self, name: str) -> None:
        known = {entry.name: entry for entry in (files("cpikan.viewer") / "page").iterdir()}
        if name not in known:
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is no {name}")
        kind = _TYPES.get(name[name.rfind(".") :], "application/octet-stream")
        return self._send(known[name].read_bytes(), kind)

    def _tile(self, path: str) -> None:
        """Send a chunk of ``/maps/NUMBER/QUANTITY/LEVEL/c/ROW/COLUMN``: raw little-endian numbers."""
        try:
            tile = self._made(path[1:])
        except InputError as failure:
            return self._refuse(HTTPStatus.GONE, str(failure))
        except (ValueError, KeyError, IndexError):
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is no tile {path}")
        return self._send(tile, "application/octet-stream")

    def _tiles(self, query: str) -> None:
        """Send many tiles, named as `_tile` names them and joined by ``+``, one after another as they are made.

        Each has its length before it, in 4 bytes; a reason comes in the place of a tile that the file does not hold.
        """
        paths = query.split("+")
        if len(paths) > MOST_TILES:
            self._refuse(HTTPStatus.BAD_REQUEST, f"at most {MOST_TILES} tiles are sent at once")
            return
        self._head(HTTPStatus.OK, "application/octet-stream", ("Transfer-Encoding", "chunked"))
        content: bytes | memoryview
        for path in paths:
            try:
                content, mark = self._made(path), 0
            except InputError as failure:
                content, mark = _padded(str(failure)), _FAILED
            except (ValueError, KeyError, IndexError):
                content, mark = _padded(f"there is no tile {path}"), _FAILED
            self.wfile.write(b"%x\r\n" % (4 + len(content)) + (mark | len(content)).to_bytes(4, "little"))
            self.wfile.write(content)
            self.wfile.write(b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _made(self, path: str) -> memoryview:
        """Make a tile by its name; raises what `Exhibit.tile` does, ValueError for a name that is none."""
        maps, number, name, level, c, row, column = path.split("/")
        if (maps, c) != ("maps", "c") or not all(p.isascii() and p.isdecimal() for p in (number, level, row, column)):
            raise ValueError(path)
        return self.server.exhibits[int(number)].tile(name, int(level), int(row), int(column)).data.cast("B")

    def _filter(self, body: bytes) -> dict[str, Any]:
        asked = parse_json(body)
        if not isinstance(asked, dict) or not all(isinstance(asked.get(key), str | None) for key in ("s", "l")):
            raise InputError('a filter is {"s": "25 um", "l": "0.8 mm"}: give one nesting index or two')
        number = next(self.server.filters)
        first, *_ = [exhibit.filter(number, asked.get("s"), asked.get("l")) for exhibit in self.server.exhibits]
        return first

    def _make_report(self, path: str) -> dict[str, Any]:
        from cpikan.report.html import write_report

        exhibit = self._exhibit(path)
        with tempfile.TemporaryDirectory() as folder:
            page = write_report(Path(folder, "report.html"), exhibit.map, progress=False)
            self.server.reports[self.server.exhibits.index(exhibit)] = page.read_bytes()
        return {"address": path}

    def _report(self, path: str) -> None:
        number = path.rpartition("/")[2]
        made = self.server.reports.get(int(number)) if number.isdecimal() else None
        if made is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "this report was not made yet: ask for it on the page")
        return self._send(made, _TYPES[".html"], policy=_REPORT_POLICY)

    def _answer(self, made: Callable[[], Any]) -> None:
        """Send what a call gives as JSON, or why it cannot."""
        try:
            body = json.dumps(made(), allow_nan=False).encode()
        except KeyError:
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}")
        except (InputError, OSError, ValueError) as failure:
            return self._refuse(HTTPStatus.BAD_REQUEST, str(failure))
        return self._send(body, "application/json")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(one_line(reason).encode(), "text/plain; charset=utf-8", status)

    def _send(self, body: Any, kind: str, status: HTTPStatus = HTTPStatus.OK, policy: str = _POLICY) -> None:
        self._head(status, kind, ("Content-Length", str(len(body))), policy)
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, extent: tuple[str, str], policy: str = _POLICY) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header(*extent)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()


def _padded(reason: str) -> bytes:
    """Write a reason in a multiple of four bytes: numbers behind it stay where numbers can be read."""
    text = one_line(reason).encode()
    return text + b" " * (-len(text) % 4)
