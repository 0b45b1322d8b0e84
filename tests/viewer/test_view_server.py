"""The server of a view: what it answers, and to whom."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from viewed_map import heights_of, write_map

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import open_height_map
from cpikan.viewer.exhibit import Exhibit, check_pair
from cpikan.viewer.export import export_page
from cpikan.viewer.levels import CHUNK
from cpikan.viewer.server import ViewServer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_map(tmp_path_factory.mktemp("view") / "map.npy", heights_of())


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[ViewServer]:
    server = ViewServer([Exhibit(open_height_map(path))])
    server.start()
    yield server
    server.close()


def answer(server: ViewServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def test_tiles_are_the_pixels_of_the_map(server: ViewServer, path: Path) -> None:
    heights = np.load(path)
    status, _, body = answer(server, "/maps/0/height_nm/0/c/1/2")
    tile = np.frombuffer(body, "<f4").reshape(CHUNK, CHUNK)
    assert status == 200
    np.testing.assert_array_equal(tile[:, : 1500 - 2 * CHUNK], heights[CHUNK : 2 * CHUNK, 2 * CHUNK :])
    assert np.isnan(tile[:, 1500 - 2 * CHUNK :]).all()


def test_the_catalogue_tells_sizes_units_and_warnings(server: ViewServer) -> None:
    (entry,) = json.loads(answer(server, "/maps.json")[2])["maps"]
    assert entry["shape"] == [1200, 1500]
    assert entry["levels"] == [[1200, 1500], [600, 750], [300, 375]]
    assert entry["pixel_um"] == [5.0, 5.0]
    assert entry["quantities"]["sigma_nm"] == {"unit": "nm", "type": "<f4"}
    assert entry["warnings"] == ["a warning of the run"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Origin": "http://evil.example"}, {"Origin": "null"}],
)
def test_other_pages_get_nothing(server: ViewServer, headers: dict[str, str]) -> None:
    for target in ("/", "/maps.json", "/maps/0/height_nm/0/c/0/0"):
        status, _, body = answer(server, target, **headers)
        assert status == 403
        assert len(body) < 100


def test_its_own_page_is_answered_by_both_names(server: ViewServer) -> None:
    for name in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
        status, headers, _ = answer(server, "/", Host=name, Origin=f"http://{name}")
        assert status == 200
        assert "default-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/nothing",
            "/../server.py",
            "/%2e%2e/server.py",
            "/maps/0/height_nm/0/c/9/0",
            "/maps/0/height_nm/9/c/0/0",
            "/maps/1/height_nm/0/c/0/0",
        ),
        *(
            "/maps/0/nothing/0/c/0/0",
            "/maps/0/height_nm/0/c/-1/0",
            "/maps/0/height_nm/0/d/0/0",
            "/maps/0/height_nm/x/c/0/0",
            "/maps/0",
            "/maps/-1/height_nm/0/c/0/0",
        ),
    ],
)
def test_what_does_not_exist_is_not_found(server: ViewServer, target: str) -> None:
    assert answer(server, target)[0] == 404


def test_a_port_in_use_is_one_line(path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"port \d+ cannot be used .*--port"):
            ViewServer([Exhibit(open_height_map(path))], taken.getsockname()[1])


def test_a_part_that_is_missing_is_told(path: Path, tmp_path: Path) -> None:
    stored = open_height_map(path).save(tmp_path / "map.zarr")
    for chunk in (stored.path / "height_nm" / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    server = ViewServer([Exhibit(open_height_map(stored.path))])
    server.start()
    try:
        status, _, body = answer(server, "/maps/0/height_nm/0/c/0/0")
    finally:
        server.close()
    assert status == 410
    assert b"missing" in body


def test_maps_of_different_sizes_have_no_difference(path: Path, tmp_path: Path) -> None:
    other = write_map(tmp_path / "other.npy", heights_of((1200, 1499)))
    with pytest.raises(InputError, match=r"1200 x 1499 pixels and .* 1200 x 1500"):
        check_pair(Exhibit(open_height_map(path)), Exhibit(open_height_map(other)))


def test_an_export_holds_what_the_server_sends(server: ViewServer, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    export_page([Exhibit(open_height_map(path))], folder)
    served = json.loads(answer(server, "/maps.json")[2])
    assert json.loads((folder / "maps.json").read_text()) == served | {"token": None}
    for target in (
        "viewer.js",
        "index.html",
        "maps/0/height_nm/0/c/2/1",
        "maps/0/height_nm/2/c/0/0",
        "maps/0/flags/1/c/1/1",
    ):
        assert (folder / target).read_bytes() == answer(server, f"/{target}")[2]
    told = json.loads((folder / "overview.js").read_text().removeprefix("window.cpikanOverview = ").rstrip(";\n"))
    assert set(told["tiles"]) == {f"maps/0/{name}/2/c/0/0" for name in ("height_nm", "sigma_nm", "flags")}
    with pytest.raises(InputError, match="exists: say --overwrite"):
        export_page([Exhibit(open_height_map(path))], folder)
