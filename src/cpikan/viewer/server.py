"""The page and the tiles over HTTP, on this machine alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cpikan.errors import InputError
from cpikan.version import VERSION
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.remarks import MOST_BYTES
from cpikan.viewer.showing import TOKEN_HEADER, Reply, Showing, refusal

HOST = "127.0.0.1"


class ViewServer(ThreadingHTTPServer):
    """Serves one page for one or two maps on 127.0.0.1; ``port`` 0 takes a free one. InputError for a port in use."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, exhibits: Sequence[Exhibit], port: int = 0) -> None:
        self.showing = Showing(exhibits)
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


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version = f"cpikan/{VERSION}"
    sys_version = ""
    disable_nagle_algorithm = True  # else the end of a tile waits for the receipt of its beginning

    def do_GET(self) -> None:
        """Answer what the page asks for."""
        if not self._ours():
            return self._refuse(HTTPStatus.FORBIDDEN, f"this page is only for {self.server.address}")
        path, _, query = self.path.partition("?")
        return self._send(self.server.showing.get(path.removeprefix("/"), query))

    def do_POST(self) -> None:
        """Do what the page asks for; what others send is not read."""
        token = self.headers.get(TOKEN_HEADER, "")
        if not self._ours() or not self.server.showing.knows(token):
            self.close_connection = True
            return self._refuse(HTTPStatus.FORBIDDEN, f"this page is only for {self.server.address}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and int(length) <= MOST_BYTES):
            self.close_connection = True
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BYTES} bytes can be sent")
        return self._send(self.server.showing.post(self.path.removeprefix("/"), token, self.rfile.read(int(length))))

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

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(refusal(status, reason))

    def _send(self, reply: Reply) -> None:
        whole = reply.parts is None
        self.send_response(reply.status)
        for name, text in reply.headers.items():
            self.send_header(name, text)
        self.send_header(*(("Content-Length", str(len(reply.body))) if whole else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        if whole:
            self.wfile.write(reply.body)
            return
        for part in reply.parts or ():
            self.wfile.write(b"%x\r\n" % len(part))
            self.wfile.write(part)
            self.wfile.write(b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
