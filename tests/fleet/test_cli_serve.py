"""``cpikan serve`` for real: a process, its port, its doors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.pipeline.maps.height_map import open_height_map
from independent_frames import Scene
from pages import loaded, needs_browser, point_at, read_under
from small_stacks import folder_of

TOKEN = "0123456789abcdef-token"


class Served:
    """A service in a process of its own, asked over HTTP."""

    def __init__(self, place: Path, *more: str) -> None:
        self.place, self.log = place, place / "serve.log"
        with open(self.log, "w") as log:
            command = [
                sys.executable,
                "-m",
                "cpikan",
                "serve",
                "-o",
                str(place / "out"),
                "--port",
                "0",
                "--workers",
                "1",
            ]
            asked = [*command, "--root", str(place / "in"), *more]
            self.process = subprocess.Popen(asked, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        until = time.monotonic() + 60
        while "serving at http://" not in self.log.read_text() and time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.address = self.log.read_text().partition("serving at ")[2].partition("/docs")[0]

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        data = None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}", **headers}
        request = urllib.request.Request(self.address + path, data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                raw, code, heads = answer.read(), answer.status, dict(answer.headers)
        except urllib.error.HTTPError as failure:
            raw, code, heads = failure.read(), failure.code, dict(failure.headers)
        try:
            return code, json.loads(raw), heads
        except ValueError:
            return code, raw, heads

    def until_ended(self, number: str) -> dict[str, Any]:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            job = self.ask(f"/jobs/{number}")[1]
            if job["state"] not in ("waiting", "running"):
                return job
            time.sleep(0.1)
        raise AssertionError(job)

    def end(self, how: int = signal.SIGTERM) -> str:
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(90)
        return self.log.read_text()


@pytest.fixture(scope="module")
def place(wafer: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("service")
    folder_of(made / "in" / "w1", np.asarray(wafer.frames))
    broken = folder_of(made / "in" / "broken", np.asarray(wafer.frames))
    (broken / "frames.npy").write_bytes(b"nothing")
    folder_of(made / "elsewhere", np.asarray(wafer.frames))
    (made / "token").write_text(TOKEN + "\n")
    (made / "in" / "out").symlink_to(made / "elsewhere")
    return made


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    made = Served(place, "--token-file", str(place / "token"), "--queue", "2")
    try:
        yield made
    finally:
        made.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def events(served: Served) -> list[str]:
    """What was told of a stack until it was done."""
    code, job, _ = served.ask("/jobs", "POST", {"source": str(served.place / "in" / "w1"), "lot": "L1"})
    assert (code, job["state"]) == (202, "waiting")
    return served.ask(f"/jobs/{job['id']}/events")[1].decode().strip().split("\n\n")


def test_a_stack_is_submitted_followed_and_its_map_read(served: Served, events: list[str]) -> None:
    shares = [json.loads(event.partition("data: ")[2])["share"] for event in events]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert events[-1].startswith("event: done\n")
    found = json.loads(events[-1].partition("data: ")[2])
    assert found["figures"]["reconstruct.rms_nm"] > 0
    code, part, heads = served.ask(f"{found['map']}/zarr.json", Range="bytes=0-9")
    assert (code, len(part), heads["content-range"].split("/")[0]) == (206, 10, "bytes 0-9")
    rows = served.ask("/results?lot=L1&figure=reconstruct.rms_nm")[1]
    assert rows[-1]["figures"]["reconstruct.rms_nm"]["value"] == found["figures"]["reconstruct.rms_nm"]
    assert served.ask("/results?figure=reconstruct.rms_mm")[0] == 400
    assert b'cpikan_jobs_ended_total{state="done"} ' in served.ask("/metrics")[1]
    assert served.ask("/healthz")[1]["status"] == "ok"


@needs_browser
def test_a_browser_shows_a_map_to_those_who_know_the_token(served: Served, events: list[str], browser: Any) -> None:
    job = json.loads(events[-1].partition("data: ")[2])
    assert served.ask(job["view"], Authorization="")[0] == 401
    context = browser.new_context(http_credentials={"username": "anybody", "password": TOKEN}, locale="en-US")
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(served.address)
    page.click(f"a[href='{job['view']}']")
    loaded(page)
    y, x, told = read_under(page, point_at(page, 80, 100))
    heights = open_height_map(served.place / "out" / job["map"].lstrip("/")).height_nm
    assert np.float32(told.split()[0]) == np.float32(f"{heights[y : y + 1, x : x + 1].item():.9g}")
    context.close()
    assert failures == []


def test_view_opens_the_page_of_a_map_of_a_service(served: Served, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["view", f"{served.address}/maps/a.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["address"] == opened[0] == f"{served.address}/view/a.zarr/"
    assert main(["view", f"{served.address}/maps/a.zarr", f"{served.address}/view/lot/b.zarr/", "--no-browser"]) == 0
    assert f"{served.address}/view/a.zarr,lot/b.zarr/" in capsys.readouterr().out
    for wrong, said in (
        ([f"{served.address}/jobs/0"], "wants a token"),
        ([f"{served.address}/results"], "names no map of a service"),
        (["http://127.0.0.1:1/maps/a.zarr"], "no service answers"),
        (["http://[::1/maps/a.zarr"], "names no map of a service"),
        ([f"{served.address}/maps/a.zarr", "http://127.0.0.1:1/maps/b.zarr"], "compared where both lie"),
        ([f"{served.address}/maps/a.zarr", "b.zarr"], "compared where both lie"),
        ([f"{served.address}/maps/a.zarr", "--export", "page"], "--export takes a map from disk"),
    ):
        assert main(["view", *wrong]) == 2
        told = capsys.readouterr().err.strip()
        assert said in told
        assert "\n" not in told
    assert len(opened) == 1


def test_a_broken_stack_fails_alone(served: Served) -> None:
    job = served.ask("/jobs", "POST", {"source": str(served.place / "in" / "broken")})[1]
    ended = served.until_ended(job["id"])
    assert ended["state"] == "failed"
    assert "frames.npy" in ended["reason"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"source": "{place}/elsewhere"}, 403),
        ({"source": "{place}/in/out"}, 403),  # a link that leads out
        ({"source": "{place}/in/../elsewhere"}, 403),
        ({"source": "{place}/in/none"}, 403),
        ({"source": "\0"}, 403),
        ({"source": ""}, 422),
        ({"source": "x", "unknown": "y"}, 422),
        ({}, 422),
    ],
)
def test_what_is_no_stack_below_the_roots_is_refused(served: Served, body: dict[str, str], code: int) -> None:
    given = {name: value.format(place=served.place) for name, value in body.items()}
    assert served.ask("/jobs", "POST", given)[0] == code


@pytest.mark.parametrize(
    "path", ["/maps/../results.sqlite", "/maps/%2e%2e/results.sqlite", "/maps//etc/passwd", "/maps/", "/maps/x"]
)
def test_maps_alone_are_sent(served: Served, path: str) -> None:
    assert served.ask(path)[0] == 404


def test_other_hosts_pages_and_tokens_are_refused(served: Served) -> None:
    assert served.ask("/jobs", Authorization="Bearer wrong-token-0123456")[0] == 401
    assert served.ask("/jobs", Authorization="")[0] == 401
    assert served.ask("/jobs", Host="other.example")[0] == 403
    assert served.ask("/jobs", Origin="http://other.example")[0] == 403
    assert served.ask("/jobs", Origin=served.address)[0] == 200
    assert served.ask("/healthz", Authorization="")[0] == 200
    assert served.ask("/jobs", "POST", {"source": "x" * 70_000})[0] == 413
    assert served.ask("/jobs/none")[0] == served.ask("/jobs/none", "DELETE")[0] == 404


def test_a_full_queue_says_when_to_come_again_and_a_restart_loses_nothing(place: Path, served: Served) -> None:
    stack = {"source": str(place / "in" / "w1")}
    answers = [served.ask("/jobs", "POST", stack) for _ in range(12)]
    taken = [job["id"] for code, job, _ in answers if code == 202]
    refused = [heads for code, _, heads in answers if code == 429]
    assert len(taken) + len(refused) == 12
    assert refused
    assert all(int(heads["retry-after"]) >= 1 for heads in refused)
    served.end(signal.SIGKILL)
    again = Served(place, "--token-file", str(place / "token"))
    try:
        assert {again.until_ended(number)["state"] for number in taken} == {"done"}
        told = again.end()
        assert again.process.returncode == 0, told
        assert "0 left" in told
    finally:
        again.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--host", "0.0.0.0"], "open to other machines"),
        (["--root", "none"], "is no folder"),
        (["--port", "70000"], "--port 70000"),
        (["--queue", "0"], "--queue 0"),
        (["--token-file", "none"], "cannot be read"),
        (["--token-file", "short"], "has 3 characters"),
        (["--host", "no.such.host.invalid"], "cannot be listened at|open to other machines"),
    ],
)
def test_bad_options_of_a_service_are_one_line(tmp_path: Path, more: list[str], said: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("abc")
    assert main(["serve", "-o", "out", "--workers", "0", "--port", "0", *more]) == 2
    told = capsys.readouterr().err.strip()
    assert re.search(said, told)
    assert "\n" not in told
