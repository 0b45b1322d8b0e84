"""Rows of results on their way to the database: a few at a time, and again where it did not serve."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from cpikan.errors import InputError
from cpikan.fleet.results.store import ResultStore
from cpikan.streaming.events import Events

_EVERY_S = 1.0
_AFTER_FAILURE_S = 30.0


class Delivery:
    """Rows for the database at ``where``. The ledger has them all, so that nothing is lost where it never serves.

    Rows are written once a second and at the end; a database that fails is left alone for half a minute, and told of once.
    """

    def __init__(self, where: str, events: Events) -> None:
        self._where, self._events = where, events
        self._rows: dict[str, Mapping[str, Any]] = {}  # by key, the newest
        self._next_s = time.monotonic() + _EVERY_S
        self._told = False

    def offer(self, row: Mapping[str, Any]) -> None:
        """Take a row; it is written when it is time."""
        self._rows[row["key"]] = row
        self.flush_when_due()

    def flush_when_due(self) -> None:
        """Write what waits, where it is time."""
        if self._rows and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + (_EVERY_S if self._flush() else _AFTER_FAILURE_S)

    def close(self, every: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write what waits, and ``every`` row of a run, since an earlier one may have been written nowhere."""
        self._rows = {row["key"]: row for row in every} | self._rows
        self._flush()

    def _flush(self) -> bool:
        try:
            with closing(ResultStore.open(self._where)) as store:
                store.put(self._rows.values())
        except InputError as failure:
            if not self._told:
                self._events.warning(f"{failure}; the ledger keeps the rows, and --resume delivers them")
            self._told = True
            return False
        self._rows, self._told = {}, False
        return True
