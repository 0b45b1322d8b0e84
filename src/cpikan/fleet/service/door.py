"""What every request passes before any door: the host it is for, its token, the size of its body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from cpikan.fleet.service.access import Access
from cpikan.fleet.service.doors.health import OPEN
from cpikan.viewer.remarks import MOST_BYTES

_MOST_BODY = 64 * 1024
_ASK = {"WWW-Authenticate": 'Basic realm="cpikan", charset="UTF-8"'}  # a browser asks its user, then

Message = MutableMapping[str, Any]


class Door:
    """Lets requests through to ``app`` that ``access`` allows."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(headers, scope["path"])
        if refused is None:
            await self._app(scope, receive, send)
        else:
            code, detail = refused
            await JSONResponse({"detail": detail}, code, _ASK if code == 401 else None)(scope, receive, send)

    def _refused(self, headers: dict[str, str], path: str) -> tuple[int, str] | None:
        if not self._access.serves(headers):
            return 403, "this service does not answer for that host or page"
        if path not in OPEN and not self._access.knows(headers.get("authorization")):
            return 401, "give the token of this service: Authorization: Bearer TOKEN, or as the password of anybody"
        length, most = headers.get("content-length", "0"), MOST_BYTES if path.startswith("/view/") else _MOST_BODY
        if not (length.isascii() and length.isdecimal() and int(length) <= most) or "transfer-encoding" in headers:
            return 413, f"give a body of at most {most} bytes, with its length"
        return None
