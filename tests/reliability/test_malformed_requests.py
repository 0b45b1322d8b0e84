"""Malformed requests to the service: refused, each in one answer, and never a 500."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fastapi.testclient import TestClient
from long_form import times

from cpikan.fleet.batch import Batch, BatchSettings
from cpikan.fleet.engines.serial import SerialEngine
from cpikan.fleet.ledger import Ledger
from cpikan.fleet.recipe import Recipe
from cpikan.fleet.service.access import Access
from cpikan.fleet.service.app import make_app
from cpikan.fleet.service.jobs import Jobs

HOST = "127.0.0.1:8000"
DOORS = (
    "/jobs",
    "/jobs/1",
    "/jobs/1/events",
    "/results",
    "/maps/a.zarr/zarr.json",
    "/view/a.zarr/",
    "/healthz",
    "/metrics",
    "/",
)
ODD = (
    "..",
    "%2e%2e",
    "%00",
    "%ff",
    "\u00e9",
    "a" * 3000,
    "-1",
    "1e999",
    "NaN",
    "null",
    "[",
    "{}",
    "'",
    '"',
    ";",
    "%",
    "",
)


def path(draw: random.Random) -> str:
    found = draw.choice(DOORS)
    for _ in range(draw.randint(0, 3)):
        found += draw.choice(("/", "?", "&", "=", "most=", "figure=", "state=", "lot=")) + draw.choice(ODD)
    return found


def body(draw: random.Random) -> bytes:
    whole = b'{"source": "/data/a", "lot": "A7", "slot": "1"}'
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: whole[: draw.randrange(len(whole))],
        lambda: whole.replace(
            b'"A7"', draw.choice((b"7", b"null", b"[]", b"NaN", b"1e999", b'"\\ud800"', b'"\\u0000"'))
        ),
        lambda: b"[" * draw.randrange(3000),
        lambda: draw.randbytes(draw.randrange(200)),
        lambda: b'{"source": "' + draw.choice(ODD).encode() + b'"}',
    )
    return draw.choice(kinds)()


def headers(draw: random.Random) -> dict[str, bytes]:
    kinds = {
        "Content-Type": (
            "application/json",
            "text/plain",
            "multipart/form-data",
            "application/json; charset=utf-16",
            "",
        ),
        "Authorization": ("", "Basic", "Basic x", "Bearer", "Basic " + "QUFB" * 500, "\xff"),
        "Host": (HOST, HOST, HOST, "other", ""),
        "Origin": ("null", "http://", f"http://{HOST}"),
        "Range": ("bytes=0-", "bytes=9-1", "bytes=-", "bytes=" + "0-1," * 300, "x"),
        "Content-Length": ("-1", "x", "99999999999", "\u0663"),
        "X-Cpikan-Token": ("", "\xff", "x"),
    }
    chosen = draw.sample(sorted(kinds), draw.randint(0, 3))
    return {name: draw.choice(kinds[name]).encode() for name in chosen}


def test_malformed_requests_bring_out_no_500(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    tries, draw, codes = times(300, 10_000), random.Random(23), Counter[int]()
    (tmp_path / "in").mkdir()
    with closing(Ledger.open(tmp_path, Recipe(), resume=False, overwrite=False)) as ledger:
        batch = Batch(tmp_path, Recipe(), ledger, SerialEngine(), BatchSettings(memory_mib=100.0))
        jobs = Jobs(tmp_path, batch, ledger, 10)
        access = Access("", frozenset({HOST}), (tmp_path / "in",))
        app = make_app(jobs, tmp_path, str(tmp_path / "rows.sqlite"), access, ".zarr")
        with TestClient(
            app, f"http://{HOST}", follow_redirects=False
        ) as client:  # what is raised inside is raised here
            for _ in range(tries):
                method = draw.choice(("GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"))
                answer = client.request(method, f"http://{HOST}{path(draw)}", content=body(draw), headers=headers(draw))
                codes[answer.status_code] += 1
    record_property("requests", tries)
    record_property("answers of 500 and above", sum(count for code, count in codes.items() if code >= 500))
    assert not [code for code in codes if code >= 500 and code != 503], codes  # 503: no database is there
    assert len(codes) >= 6  # doors were reached, and refused for several reasons
