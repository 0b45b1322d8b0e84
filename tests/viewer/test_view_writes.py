"""What the page asks its server to do: notes and masks, filters, reports, many tiles at once; and who may."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewed_map import heights_of, write_map

from cpikan.errors import InputError
from cpikan.surface.filters.gaussian import gaussian_filter
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.levels import CHUNK
from cpikan.viewer.remarks import parse_remarks, read_remarks, remarks_path
from cpikan.viewer.server import ViewServer
from cpikan.viewer.showing import MOST_TILES, TOKEN_HEADER

SHAPE = (800, 700)
REMARKS = {
    "notes": [{"x": 3.0, "y": 4.5, "text": "a pit"}],
    "masks": [{"name": "먼지", "corners": [[0, 0], [9, 0], [0, 9]]}],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_map(tmp_path / "map.npy", heights_of(SHAPE))


@pytest.fixture
def server(path: Path) -> Iterator[ViewServer]:
    server = ViewServer([Exhibit.open(path)])
    server.start()
    yield server
    server.close()


def ask(server: ViewServer, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Ask as the page does: GET, or POST with the token."""
    token = {} if body is None else {TOKEN_HEADER: server.showing.token}
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET" if body is None else "POST", path, content, {**token, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_remarks_go_into_a_file_beside_the_map(server: ViewServer, path: Path) -> None:
    before = path.read_bytes()
    assert json.loads(ask(server, "/remarks/0")[1]) == {"notes": [], "masks": []}
    assert not remarks_path(path).exists()
    status, body = ask(server, "/remarks/0", REMARKS)
    assert status == 200
    assert json.loads(body) == REMARKS
    assert read_remarks(path) == REMARKS == json.loads(ask(server, "/remarks/0")[1])
    assert remarks_path(path) == path.with_name("map.npy.remarks.json")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "headers",
    [
        {TOKEN_HEADER: ""},
        {TOKEN_HEADER: "guessed"},
        {TOKEN_HEADER: "gu\xe9ss\xe9"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_nobody_else_can_write(server: ViewServer, path: Path, headers: dict[str, str]) -> None:
    for target in ("/remarks/0", "/filter", "/report/0"):
        assert ask(server, target, REMARKS, **headers)[0] == 403
    assert not remarks_path(path).exists()


def test_the_token_is_for_the_page_alone(server: ViewServer) -> None:
    assert json.loads(ask(server, "/maps.json")[1])["token"] == server.showing.token
    assert ask(server, "/maps.json", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert server.showing.token.encode() not in ask(server, "/")[1]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"[]",
        b'{"notes": []}',
        b'{"notes": [{"x": NaN, "y": 0, "text": ""}], "masks": []}',
        {"notes": [{"x": "1", "y": 0, "text": ""}], "masks": []},
        {"notes": [{"x": True, "y": 0, "text": ""}], "masks": []},
        {"notes": [{"x": 1, "y": 0, "text": "a" * 2001}], "masks": []},
        {"notes": [], "masks": [{"name": "", "corners": [[0, 0], [1, 1]]}]},
        {"notes": [], "masks": [{"name": "", "corners": [[0, 0], [1, 1], [1]]}]},
        {"notes": [{"x": 1, "y": 0, "text": ""}] * 1001, "masks": []},
    ],
)
def test_what_is_no_list_of_remarks_is_refused(server: ViewServer, path: Path, sent: Any) -> None:
    status, body = ask(server, "/remarks/0", sent)
    assert status == 400
    assert b"no list of notes and masks" in body
    assert b"\n" not in body
    assert not remarks_path(path).exists()


def test_a_body_that_is_too_large_is_not_read(server: ViewServer) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.putrequest("POST", "/remarks/0")
        connection.putheader(TOKEN_HEADER, server.showing.token)
        connection.putheader("Content-Length", str(1 << 40))
        connection.endheaders()
        assert connection.getresponse().status == 413


@pytest.mark.parametrize("target", ["/remarks/1", "/remarks/x", "/report/7", "/nothing"])
def test_there_is_nothing_else_to_write(server: ViewServer, target: str) -> None:
    assert ask(server, target, REMARKS)[0] == 404


def test_a_damaged_file_of_remarks_is_told(server: ViewServer, path: Path) -> None:
    remarks_path(path).write_text("{")
    status, body = ask(server, "/remarks/0")
    assert status == 400
    assert b"map.npy.remarks.json is no list of notes and masks" in body
    remarks_path(path).write_bytes(b" " * (1 << 21))
    with pytest.raises(InputError, match="was not written here"):
        read_remarks(path)


def test_remarks_are_not_written_through_a_link(server: ViewServer, path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    remarks_path(path).symlink_to(tmp_path / "other")
    assert ask(server, "/remarks/0", REMARKS)[0] == 400
    assert (tmp_path / "other").read_text() == "kept"


def test_parsed_remarks_are_those_that_were_given() -> None:
    assert parse_remarks(json.dumps(REMARKS).encode(), "it") == REMARKS


def tile_of(server: ViewServer, name: str) -> np.ndarray:
    end = time.monotonic() + 60
    while json.loads(ask(server, "/live.json")[1])["maps"][0]["filtered"]["rows"] < SHAPE[0]:
        assert time.monotonic() < end
        time.sleep(0.02)
    body = ask(server, f"/maps/0/{name}/0/c/1/0")[1]
    return np.frombuffer(body, "<f4").reshape(CHUNK, CHUNK)[: SHAPE[0] - CHUNK]


def test_filters_are_those_of_the_package(server: ViewServer, path: Path) -> None:
    heights = np.load(path)
    for asked, expected in (
        ({"s": "40 px", "l": None}, gaussian_filter(heights, 40.0)),
        ({"s": None, "l": "0.2 mm"}, heights - gaussian_filter(heights, 40.0)),
    ):
        status, body = ask(server, "/filter", asked)
        told = json.loads(body)
        assert (status, told["unit"], told["type"]) == (200, "nm", "<f4")
        assert "gaussian" in told["said"]
        found = tile_of(server, told["name"])
        np.testing.assert_array_equal(found, expected.astype(np.float32)[CHUNK:, :CHUNK])
    assert ask(server, "/maps/0/filtered-1/0/c/0/0")[0] == 404  # the one before is dropped


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"s": None, "l": None}, b"no nesting index"),
        ({"s": "25", "l": None}, b"has no unit"),
        ({"s": "-1 px", "l": None}, b"is not one"),
        ({"s": 25, "l": None}, b"a filter is"),
        ([], b"a filter is"),
    ],
)
def test_filters_that_are_none_are_refused(server: ViewServer, asked: Any, told: bytes) -> None:
    status, body = ask(server, "/filter", asked)
    assert status == 400
    assert told in body


def test_a_report_is_made_when_it_is_asked_for(server: ViewServer) -> None:
    assert ask(server, "/report/0")[0] == 404
    assert json.loads(ask(server, "/report/0", {})[1]) == {"address": "report/0"}
    status, page = ask(server, "/report/0")
    assert status == 200
    assert b"map.npy" in page
    assert b"<html" in page


def taken_apart(body: bytes) -> list[tuple[bool, bytes]]:
    found = []
    while body:
        told = int.from_bytes(body[:4], "little")
        length = told & 0x7FFFFFFF
        found.append((told >> 31 == 0, body[4 : 4 + length]))
        body = body[4 + length :]
    return found


def test_tiles_that_are_asked_for_together_are_those_that_come_alone(server: ViewServer) -> None:
    names = ["maps/0/height_nm/0/c/0/0", "maps/0/flags/0/c/1/1", "maps/0/height_nm/0/c/7/0", "maps/0/sigma_nm/1/c/0/0"]
    found = taken_apart(ask(server, f"/tiles?{'+'.join(names)}")[1])
    assert [there for there, _ in found] == [True, True, False, True]
    for name, (there, content) in zip(names, found, strict=True):
        assert len(content) % 4 == 0
        assert not there or content == ask(server, f"/{name}")[1]
    assert b"there is no tile" in found[2][1]
    assert ask(server, f"/tiles?{'+'.join(names[:1] * (MOST_TILES + 1))}")[0] == 400
