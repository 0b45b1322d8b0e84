"""What tests of batches leave behind."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _sockets_are_collected() -> Iterator[None]:
    """Collect sockets that distributed has left open, lest they fail a test of another module that happens to find them."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
