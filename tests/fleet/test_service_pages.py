"""Pages of the service: its maps in the viewer, its jobs at a glance, and how far a stack is."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from held_engine import Held, service

from cpikan.fleet.batch import MAPS
from cpikan.fleet.progress import ProgressFile, StackProgress, progress_path, read_progress
from cpikan.fleet.service.access import Access
from cpikan.fleet.service.app import make_app
from cpikan.fleet.service.doors.jobs import _events
from cpikan.fleet.service.jobs import Jobs
from cpikan.viewer.showing import TOKEN_HEADER

TOKEN = "0123456789abcdef-token"
HOST = "127.0.0.1:8000"


def height_map(path: Path, rise: float = 0.0, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    heights = np.add.outer(np.arange(shape[0]), rise + 2.0 * np.arange(shape[1])).astype(np.float32)
    np.save(path, heights)
    path.with_suffix(".json").write_text(json.dumps({"acquisition": {"wavelengths_nm": [633.0]}, "summary": {}}))
    return heights


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[TestClient, Jobs, Path]]:
    jobs, ledger = service(tmp_path, Held())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").mkdir()
    (tmp_path / MAPS).mkdir(exist_ok=True)
    access = Access(TOKEN, frozenset({HOST}), (tmp_path / "in",))
    app = make_app(jobs, tmp_path, str(tmp_path / "rows.sqlite"), access, ".npy")
    with closing(ledger), TestClient(app, f"http://{HOST}", headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client, jobs, tmp_path


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def test_a_map_is_shown_by_the_viewer(made: tuple[TestClient, Jobs, Path]) -> None:
    client, _, folder = made
    heights = height_map(folder / MAPS / "w1.npy")
    page = client.get("/view/w1.npy")  # the slash is added: what the page asks for lies below it
    assert str(page.url).endswith("/view/w1.npy/")
    assert "viewer.js" in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert client.get("/view/w1.npy/viewer.js").status_code == 200
    (entry,) = client.get("/view/w1.npy/maps.json").json()["maps"]
    assert (entry["name"], entry["shape"]) == ("w1.npy", [40, 50])
    tile = np.frombuffer(client.get("/view/w1.npy/maps/0/height_nm/0/c/0/0").content, "<f4").reshape(512, 512)
    np.testing.assert_array_equal(tile[:40, :50], heights)
    together = client.get("/view/w1.npy/tiles?maps/0/height_nm/0/c/0/0+maps/0/none/0/c/0/0").content
    assert together[4 : 4 + tile.nbytes] == tile.tobytes()
    assert b"there is no tile" in together[4 + tile.nbytes :]


def test_two_maps_are_compared(made: tuple[TestClient, Jobs, Path]) -> None:
    client, _, folder = made
    for name, shape in (("w1", (40, 50)), ("w2", (40, 50)), ("small", (30, 50))):
        height_map(folder / MAPS / f"{name}.npy", 1.0, shape)
    found = client.get("/view/w1.npy,w2.npy/maps.json").json()["maps"]
    assert [one["name"] for one in found] == ["w1.npy", "w2.npy"]
    refused = client.get("/view/w1.npy,small.npy/")
    assert (refused.status_code, "same shape" in refused.json()["detail"]) == (410, True)


@pytest.mark.parametrize(
    "path",
    [
        "/view/none.npy/",
        "/view/",
        "/view/w1",
        "/view/../rows.npy/",
        "/view/%2e%2e/rows.npy/",
        "/view/w1.npy/../../x.npy/",
    ],
)
def test_what_is_no_map_of_the_service_is_not_shown(made: tuple[TestClient, Jobs, Path], path: str) -> None:
    client, _, folder = made
    height_map(folder / "rows.npy")
    height_map(folder / MAPS / "w1.npy")
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "allowed"), [("/jobs", "GET, POST"), ("/jobs/1", "DELETE, GET"), ("/view/w1.npy/", "GET, POST")]
)
def test_what_is_not_for_an_address_is_told_what_is(
    made: tuple[TestClient, Jobs, Path], path: str, allowed: str
) -> None:
    answer = made[0].put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_notes_are_kept_by_the_page_alone(made: tuple[TestClient, Jobs, Path]) -> None:
    client, _, folder = made
    height_map(folder / MAPS / "w1.npy")
    notes: dict[str, Any] = {"notes": [{"x": 1.0, "y": 2.0, "text": "a pit"}], "masks": []}
    assert client.post("/view/w1.npy/remarks/0", json=notes).status_code == 403
    token = client.get("/view/w1.npy/maps.json").json()["token"]
    assert client.post("/view/w1.npy/remarks/0", json=notes, headers={TOKEN_HEADER: token}).json() == notes
    assert client.get("/view/w1.npy/remarks/0").json() == notes
    large = client.post("/view/w1.npy/remarks/0", content=b" " * (2 << 20), headers={TOKEN_HEADER: token})
    assert large.status_code == 413


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": basic(TOKEN)}, 200),
        ({"Authorization": basic("wrong-token-0123456")}, 401),
        ({"Authorization": basic("")}, 401),
        ({"Authorization": "Basic %%%"}, 401),
        ({"Authorization": ""}, 401),
        ({"Host": "other.example"}, 403),
        ({"Origin": "http://other.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": f"http://{HOST}"}, 200),
    ],
)
def test_pages_are_for_those_who_have_the_token(
    made: tuple[TestClient, Jobs, Path], headers: dict[str, str], code: int
) -> None:
    client, _, folder = made
    height_map(folder / MAPS / "w1.npy")
    for path in ("/", "/view/w1.npy/", "/view/w1.npy/maps.json", "/jobs"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == code
        assert ("www-authenticate" in answer.headers) == (code == 401)  # else no browser would ask its user


def test_the_page_of_jobs_links_to_their_maps(made: tuple[TestClient, Jobs, Path]) -> None:
    client, jobs, folder = made
    assert "None was submitted" in client.get("/").text
    job = client.post("/jobs", json={"source": str(folder / "in" / "a")}).json()
    assert (job["share"], job["view"]) == (0.0, None)
    jobs._step()
    page = client.get("/").text
    assert "running" in page
    assert "/view/" not in page  # it has no rows yet
    np.save(folder / MAPS / f"{job['name']}.npy.partial", np.zeros((4, 4), np.float32))
    (folder / MAPS / f"{job['name']}.npy.journal").write_text("")
    assert f'href="/view/{job["name"]}.npy/"' in client.get("/").text


def test_the_page_of_doors_says_what_each_takes_and_answers_and_loads_nothing(
    made: tuple[TestClient, Jobs, Path],
) -> None:
    client, _, _ = made
    answer = client.get("/docs")
    page, document = answer.text, client.get("/openapi.json").json()
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<link|src=|url\(|https?:", page)
    heads = re.findall(r"<h3>(\w+) ([^<]+)</h3>", page)
    assert heads == [
        (method.upper(), path)
        for tag in ("jobs", "results", "pages", "health")
        for path, methods in document["paths"].items()
        for method, one in methods.items()
        if one["tags"] == [tag]
    ]
    post = page.partition("<h3>POST /jobs</h3>")[2].partition("<h3>")[0]
    assert "Accept a stack into the queue." in post
    rows = re.findall(r"<td><code>(\w+)</code>(, optional)?</td><td>([^<]*)</td><td>([^<]*)</td>", post)
    assert ("source", "", "body, application/json", "string") in rows
    assert len(rows) == len(document["components"]["schemas"]["Submission"]["properties"])
    assert "<code>429</code>" in post
    listed = page.partition("<h3>GET /jobs</h3>")[2].partition("<h3>")[0]
    assert "integer from 1 to" in listed
    assert "100 unless given" in listed
    assert re.search(r"waiting \| running \| ", listed)
    assert client.get("/redoc").status_code == 404


def test_events_tell_the_share_of_a_stack(made: tuple[TestClient, Jobs, Path]) -> None:
    client, jobs, folder = made
    engine = jobs._batch._engine
    job = jobs.submit(str(folder / "in" / "a"), {})
    jobs._step()
    file = progress_path(folder / MAPS / f"{job.name}.npy")
    told = ProgressFile(file, ["demodulate", "write"])
    told.progress("demodulate", 1, 2)

    async def heard() -> list[tuple[str, str, str, float]]:
        found = []
        async for event in _events(job, client.app.state.serving):
            kind, _, data = event.strip().partition("\ndata: ")
            answer = json.loads(data)
            found.append((kind.removeprefix("event: "), answer["state"], answer["stage"], answer["share"]))
            if len(found) == 1:
                told.progress("write", 1, 4)
            elif len(found) == 2:
                engine.go = True
                jobs._step()
        return found

    first, second, last = client.portal.call(heard)  # the loop that the doors run in
    assert first == ("running", "running", "demodulate", 0.3333)
    assert second == ("progress", "running", "write", 0.75)
    assert last == ("done", "done", "", 1.0)
    assert not file.exists()


def test_shares_are_weighed_and_never_fall(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "w.npy.progress", ["demodulate", "unwrap", "write", "ripple"])
    shares = []
    for stage, done in (
        ("survey", 1),
        ("demodulate, guided", 1),
        ("unwrap", 2),
        ("other", 1),
        ("demodulate", 0),
        ("write", 2),
    ):
        file.progress(stage, done, 2)
        shares.append(read_progress(tmp_path / "w.npy.progress"))
    # of 4 + 4 + 2: a quarter and three quarters of the first, all of the second, all of the third
    assert [one.share for one in shares] == [0.1, 0.3, 0.8, 0.8, 0.8, 1.0]
    assert [one.stage for one in shares][:2] == ["survey", "demodulate, guided"]
    file.close()
    assert read_progress(tmp_path / "w.npy.progress") == StackProgress()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"stage": 1, "share": 0.1}', b'{"stage": "a", "share": true}', b'{"stage": "a", "share": 2}'],
)
def test_a_file_that_tells_no_share_is_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    assert read_progress(tmp_path / "p") == StackProgress()
