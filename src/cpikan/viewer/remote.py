"""Maps that a service measured: by which address its own page shows them."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cpikan.errors import InputError
from cpikan.storage.documents import parse_json

_WAIT_S = 10.0
_MOST_BYTES = 1 << 16
_MAP = re.compile(r"/(?:maps|view)/(.+?\.(?:zarr|npy|tif))/?")
_JOB = re.compile(r"/jobs/[0-9A-Za-z]+/?")
_GIVE = "give http://HOST:PORT/maps/NAME.zarr or http://HOST:PORT/jobs/ID of a `cpikan serve`"


def is_address(source: str) -> bool:
    """Tell whether a map is named by an address, not by a path."""
    return source.startswith(("http://", "https://"))


def page_of(addresses: Sequence[str]) -> str:
    """Give the address of the page that shows one map of a service, or two to compare; it says by itself what it asks for.

    Raises InputError for an address that is none of a service that answers.
    """
    places = [_split(address) for address in addresses]
    service = f"{places[0].scheme}://{places[0].netloc}"
    if any(f"{place.scheme}://{place.netloc}" != service for place in places):
        raise InputError("two maps are compared where both lie: give addresses of one service, or paths")
    if "version" not in _asked(f"{service}/healthz"):
        raise InputError(f"{service} answers, but not as a `cpikan serve`: {_GIVE}")
    return f"{service}/view/{','.join(_name(service, place) for place in places)}/"


def _split(address: str) -> SplitResult:
    try:
        place = urlsplit(address)
        serves = bool(place.hostname) and (place.port is None or place.port > 0)
    except ValueError:
        serves = False
    if not serves or not (_MAP.fullmatch(place.path) or _JOB.fullmatch(place.path)):
        raise InputError(f"{address[:200]!r} names no map of a service: {_GIVE}")
    return place


def _name(service: str, place: SplitResult) -> str:
    found = _MAP.fullmatch(place.path)
    if found is not None:
        return found[1]
    page = _asked(service + place.path.rstrip("/")).get("view")
    if not isinstance(page, str) or not page.startswith("/view/"):
        raise InputError(f"{service}{place.path} has no map yet: ask for it when it runs or is done")
    return page.removeprefix("/view/").rstrip("/")


def _asked(address: str) -> dict[str, Any]:
    """Ask a service for a JSON object; no proxy comes between."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_WAIT_S) as answer:
            found = parse_json(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as failure:
        if failure.code == 401:
            raise InputError(f"{address} wants a token: name the map, http://HOST:PORT/maps/NAME.zarr") from failure
        raise InputError(f"{address} answers {failure.code}: {_GIVE}") from failure
    except (OSError, ValueError) as failure:
        raise InputError(f"no service answers at {address}: start `cpikan serve`, or look at its port") from failure
    return found if isinstance(found, dict) else {}
