"""Rows of results in a real PostgreSQL, of this test alone: the same as in SQLite, also when it goes away meanwhile."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cpikan.errors import InputError
from cpikan.fleet.delivery import Delivery
from cpikan.fleet.results.store import ResultStore
from heard_events import Heard

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed")


class Server:
    """A cluster in a folder of its own, on a socket in it and on no port of the network."""

    def __init__(self, place: Path) -> None:
        self.place, self._bin = place, PROGRAMS[-1].parent
        self._run("initdb", "-D", str(place / "data"), "-U", "tester", "--auth=trust", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def address(self) -> str:
        return f"postgresql://tester@/postgres?host={self.place}"

    def start(self) -> None:
        options = f"-k {self.place} -c listen_addresses='' -c fsync=off"
        self._run("pg_ctl", "-D", str(self.place / "data"), "-l", str(self.place / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.place / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *words: str) -> None:
        """Run a program of it, not as root, which it refuses."""
        user: dict[str, Any] = {}
        if os.getuid() == 0:
            entry = pwd.getpwnam("postgres")
            user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        subprocess.run([str(self._bin / program), *words], check=True, capture_output=True, cwd=self.place, **user)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    place = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # short: the name of a socket has some hundred letters
    if os.getuid() == 0:
        shutil.chown(place, "postgres")
    made = Server(place)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(place)


def row(key: str, value: float | None) -> dict[str, Any]:
    figures = {"wafer.bow_um": {"value": value, "low": 0.0, "high": 2.0, "verdict": "pass"}}
    made = {"key": key, "name": f"w{key}", "lot": "Lä", "state": "done", "ended": f"2026-01-0{key}", "seconds": 1.25}
    return {**made, "warnings": ["é"], "figures": figures}


def read(where: str | Path) -> list[dict[str, Any]]:
    with closing(ResultStore.open(where)) as store:
        rows = store.wafers()
        figures = store.figures([one["key"] for one in rows])
        return [one | {"figures": figures[one["key"]]} for one in rows]


def test_rows_are_those_of_sqlite(server: Server, tmp_path: Path) -> None:
    for where in (server.address, tmp_path / "r.sqlite"):
        with closing(ResultStore.open(where)) as store:
            store.put([row("1", 0.1 + 0.2), row("2", None)])
            store.put([row("1", 1 / 3)])
    assert read(server.address) == read(tmp_path / "r.sqlite")
    assert read(server.address)[0]["figures"]["wafer.bow_um"]["value"] == 1 / 3


def test_a_server_that_goes_away_loses_no_row(server: Server, monkeypatch) -> None:
    from cpikan.fleet import delivery as module

    monkeypatch.setattr(module, "_AFTER_FAILURE_S", 0.0)
    listener = Heard()
    delivery = Delivery(server.address, listener)
    server.stop()
    delivery.offer(row("7", 7.0))
    delivery.close()
    assert len(listener.warnings) == 1
    assert "the ledger keeps the rows" in listener.warnings[0]
    with pytest.raises(InputError, match="does not serve"):
        ResultStore.open(server.address)
    server.start()
    delivery.close()
    assert "w7" in [one["name"] for one in read(server.address)]
