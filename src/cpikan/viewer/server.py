"""The page and the tiles over HTTP, on this machine alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.version import VERSION
from cpikan.viewer.exhibit import Exhibit

HOST = "127.0.0.1"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_POLICY = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


class ViewServer(ThreadingHTTPServer):
    """Serves one page for one or two maps on 127.0.0.1; ``port`` 0 takes a free one. InputError for a port in use."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, exhibits: Sequence[Exhibit], port: int = 0) -> None:
        self.exhibits = list(exhibits)
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


def catalogue(exhibits: Sequence[Exhibit]) -> bytes:
    """Describe the maps for the page, as JSON."""
    told = {"version": VERSION, "maps": [exhibit.describe() for exhibit in exhibits]}
    return json.dumps(told, allow_nan=False).encode()


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version = f"cpikan/{VERSION}"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page, the catalogue or a tile."""
        if not self._ours():
            return self._refuse(HTTPStatus.FORBIDDEN, f"this page is only for {self.server.address}")
        path = self.path.partition("?")[0]
        if path == "/maps.json":
            return self._send(catalogue(self.server.exhibits), "application/json")
        if path.startswith("/maps/"):
            return self._tile(path)
        if path == "/overview.js":  # of an exported folder; a server has tiles
            return self._send(b"", _TYPES[".js"])
        return self._page("index.html" if path == "/" else path[1:])

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the terminal for messages that mean something."""

    def _ours(self) -> bool:
        """Tell whether the request is for this address and, from a page, of this page (else another site could read maps)."""
        names = {f"{HOST}:{self.server.port}", f"localhost:{self.server.port}"}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in names and (origin is None or origin.removeprefix("http://") in names)

    def _page(self, name: str) -> None:
        known = {entry.name: entry for entry in (files("cpikan.viewer") / "page").iterdir()}
        if name not in known:
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is no {name}")
        kind = _TYPES.get(name[name.rfind(".") :], "application/octet-stream")
        return self._send(known[name].read_bytes(), kind)

    def _tile(self, path: str) -> None:
        """Send a chunk of ``/maps/NUMBER/QUANTITY/LEVEL/c/ROW/COLUMN``: raw little-endian numbers."""
        parts = path.split("/")[2:]
        try:
            number, name, level, c, row, column = parts
            if c != "c" or not all(part.isascii() and part.isdecimal() for part in (number, level, row, column)):
                raise ValueError
            tile = self.server.exhibits[int(number)].tile(name, int(level), int(row), int(column))
        except InputError as failure:
            return self._refuse(HTTPStatus.GONE, str(failure))
        except (ValueError, KeyError, IndexError):
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is no tile {path}")
        return self._send(tile.data.cast("B"), "application/octet-stream")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(one_line(reason).encode(), "text/plain; charset=utf-8", status)

    def _send(self, body: Any, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)
