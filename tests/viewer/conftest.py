"""Served maps for the tests of the viewer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from viewed_map import heights_of, write_map

from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.server import ViewServer
from pages import open_page


@pytest.fixture(scope="session")
def heights() -> np.ndarray:
    return heights_of()


@pytest.fixture(scope="session")
def served(heights: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    folder = tmp_path_factory.mktemp("view")
    paths = [write_map(folder / "one.npy", heights), write_map(folder / "two.npy", heights - np.float32(3))]
    server = ViewServer([Exhibit.open(path) for path in paths])
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def alone(heights: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    path = write_map(tmp_path_factory.mktemp("view") / "one.npy", heights, pixel_um=None)
    server = ViewServer([Exhibit.open(path)])
    server.start()
    yield server
    server.close()


@pytest.fixture
def page(browser: Any, alone: ViewServer) -> Iterator[Any]:
    page = open_page(browser, alone.address)
    yield page
    page.close()
    assert page.failures == []
