"""Rows of results: written all or none, read back, judged again; databases that do not serve."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cpikan.errors import InputError
from cpikan.fleet.delivery import Delivery
from cpikan.fleet.results.store import ResultStore
from heard_events import Heard


def row(key: str, value: float | None, **more: Any) -> dict[str, Any]:
    figure = {"value": value, "low": None, "high": 2.0, "verdict": "pass"}
    return {
        "key": key,
        "name": f"w{key}",
        "state": "done",
        "ended": f"2026-01-0{key}",
        "figures": {"a.bow_um": figure},
        **more,
    }


def test_rows_come_back_and_replace_those_of_their_key(tmp_path: Path) -> None:
    store = ResultStore.open(tmp_path / "r.sqlite")
    store.put([row("2", 1.5, lot="B", warnings=["ä"]), row("1", None, lot="A")])
    store.put([row("2", 1.75, lot="B", warnings=["ä"])])
    found = store.wafers()
    assert [one["name"] for one in found] == ["w1", "w2"]  # by the time at which they ended
    assert found[1]["warnings"] == ["ä"]
    assert store.figures(["1", "2"])["2"]["a.bow_um"] == {
        "value": 1.75,
        "unit": "um",
        "low": None,
        "high": 2.0,
        "verdict": "pass",
    }
    assert store.figures(["1"])["1"]["a.bow_um"]["value"] is None
    assert [one["name"] for one in store.wafers(lot="B")] == ["w2"]
    assert [one["name"] for one in store.wafers(lot=["A", "B"])] == ["w1", "w2"]
    assert store.figures(["1"], ["other"]) == {"1": {}}
    store.close()


def test_many_rows_are_read_at_once(tmp_path: Path) -> None:
    store = ResultStore.open(tmp_path / "r.sqlite")
    keys = [f"{n:05d}" for n in range(1300)]
    store.put({"key": key, "name": key, "figures": {"n": {"value": float(key)}}} for key in keys)
    assert [found["n"]["value"] for found in store.figures(keys).values()] == [float(key) for key in keys]
    store.close()


def test_a_row_that_does_not_fit_leaves_all_as_they_were(tmp_path: Path) -> None:
    store = ResultStore.open(tmp_path / "r.sqlite")
    store.put([row("1", 1.0)])
    with pytest.raises(InputError, match="does not serve"):
        store.put([row("1", 2.0), {"key": None, "name": "x"}])
    assert store.figures(["1"])["1"]["a.bow_um"]["value"] == 1.0
    store.close()


def test_a_locked_database_and_one_that_is_none_are_told_in_one_line(tmp_path: Path, monkeypatch) -> None:
    from cpikan.fleet.results import store as module

    monkeypatch.setitem(module._WAITS, "sqlite", {"timeout": 0.05})
    path = tmp_path / "r.sqlite"
    ResultStore.open(path).close()
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match="locked") as refused:
        ResultStore.open(path)
    assert "\n" not in str(refused.value)
    other.close()
    (tmp_path / "text.sqlite").write_text("this is no database, but a text that is long enough to be read as one")
    with pytest.raises(InputError, match="does not serve"):
        ResultStore.open(tmp_path / "text.sqlite")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://u:secret@host/db", "'mysql' are not served"),
        ("postgresql://u:secret@", "does not serve|no address"),
        ("://secret", "no address"),
    ],
)
def test_addresses_that_do_not_serve_are_told_without_their_password(address: str, said: str, monkeypatch) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match=said) as refused:
        ResultStore.open(address)
    assert "u:secret" not in str(refused.value)


def test_what_was_delivered_waits_no_more(tmp_path: Path) -> None:
    delivery = Delivery(str(tmp_path / "r.sqlite"), Heard())
    for number in range(5):
        delivery.offer(row(str(number), 1.0))
    assert len(delivery._rows) == 5  # not yet time
    delivery.close([row("7", 1.0)])
    assert not delivery._rows
    with closing(ResultStore.open(tmp_path / "r.sqlite")) as store:
        assert len(store.wafers()) == 6
