"""Rows of wafers and of their figures in a database: SQLite in a file, or PostgreSQL by its address."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    insert,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cpikan.errors import InputError, need
from cpikan.fleet.figures import unit_of
from cpikan.messages import one_line

_KINDS = ("sqlite", "postgresql")
_METADATA = MetaData()
_TEXTS = (
    *("name", "source", "state", "reason", "lot", "wafer", "slot", "tool", "started", "ended", "frames_sha256"),
    *("method", "map", "report", "verdict", "version", "host", "command"),
)
WAFERS = Table(
    "wafers",
    _METADATA,
    Column("key", String(64), primary_key=True),
    *(Column(name, Text) for name in _TEXTS),
    Column("seconds", Float),
    Column("warnings", Text),  # a list, as JSON
    Index("wafers_by_lot", "lot", "ended"),
)
FIGURES = Table(
    "figures",
    _METADATA,
    Column("key", String(64), ForeignKey("wafers.key", ondelete="CASCADE"), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("value", Float),
    Column("unit", String(16)),
    Column("low", Float),
    Column("high", Float),
    Column("verdict", String(16)),
    Index("figures_by_name", "name"),
)
Row = Mapping[str, Any]


class ResultStore:
    """A database of results; one process writes. Raises InputError, of one line, where it cannot be reached or is locked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with _told(engine):
            _METADATA.create_all(engine)

    @classmethod
    def open(cls, where: str | Path, *, new: bool = True) -> ResultStore:
        """Open a file of SQLite, made where it is missing and may be ``new``, or the database at an address (postgresql://...)."""
        text = str(where)
        if "://" not in text:
            if not new and not Path(text).is_file():
                raise InputError(
                    f"{text} holds no results: give the folder of a batch, a file of SQLite, or postgresql://..."
                )
            text = f"sqlite:///{Path(text).resolve()}"
        try:
            address = make_url(text)
        except ArgumentError as failure:
            raise InputError(
                f"{_shown(text)} is no address of a database: give a file, or postgresql://..."
            ) from failure
        kind = address.get_backend_name()
        if kind not in _KINDS:
            raise InputError(f"databases of kind {kind!r} are not served: give a file (SQLite) or postgresql://...")
        if kind == "postgresql":
            need("psycopg", "cluster", "a PostgreSQL database")
            address = address.set(drivername="postgresql+psycopg")
        engine = create_engine(address, pool_pre_ping=True, connect_args=_WAITS[kind])
        if kind == "sqlite":
            event.listen(engine, "connect", _with_foreign_keys)
        return cls(engine)

    def put(self, rows: Iterable[Row]) -> None:
        """Write rows of wafers, in place of those of the same keys, all or none.

        A row has the columns of `WAFERS` and ``figures``, a table of name to value, low, high and verdict.
        """
        with _told(self._engine), self._engine.begin() as connection:
            for row in rows:
                head = {name: row.get(name) for name in ("key", *_TEXTS, "seconds")}
                connection.execute(delete(FIGURES).where(FIGURES.c.key == row["key"]))
                connection.execute(delete(WAFERS).where(WAFERS.c.key == row["key"]))
                warnings = json.dumps(list(row.get("warnings", ())), ensure_ascii=False)
                connection.execute(insert(WAFERS).values(**head, warnings=warnings))
                lines = [
                    {"key": row["key"], "name": name, "unit": unit_of(name), **_EMPTY, **values}
                    for name, values in row.get("figures", {}).items()
                ]
                if lines:
                    connection.execute(insert(FIGURES), lines)

    def wafers(self, most: int | None = None, **where: str | Sequence[str]) -> list[dict[str, Any]]:
        """Read rows, the newest ``most``, in the order in which they ended; ``where`` columns have one of the given values."""
        asked = select(WAFERS).order_by(WAFERS.c.ended.desc(), WAFERS.c.key.desc()).limit(most)
        for name, values in where.items():
            asked = asked.where(WAFERS.c[name].in_([values] if isinstance(values, str) else list(values)))
        with _told(self._engine), self._engine.connect() as connection:
            found = [dict(row._mapping) for row in connection.execute(asked)][::-1]
        return [row | {"warnings": json.loads(row["warnings"] or "[]")} for row in found]

    def figures(self, keys: Sequence[str], names: Sequence[str] = ()) -> dict[str, dict[str, dict[str, Any]]]:
        """Read the figures of rows, by key and name; all, or those that are named."""
        found: dict[str, dict[str, dict[str, Any]]] = {key: {} for key in keys}
        with _told(self._engine), self._engine.connect() as connection:
            for start in range(0, len(keys), _AT_ONCE):
                asked = select(FIGURES).where(FIGURES.c.key.in_(keys[start : start + _AT_ONCE]))
                if names:
                    asked = asked.where(FIGURES.c.name.in_(list(names)))
                for row in connection.execute(asked):
                    line = dict(row._mapping)
                    found[line.pop("key")][line.pop("name")] = line
        return found

    def close(self) -> None:
        self._engine.dispose()


_EMPTY = dict.fromkeys(("value", "low", "high", "verdict"))
_AT_ONCE = 500  # of the variables that SQLite takes in one statement
_WAITS: dict[str, dict[str, Any]] = {"sqlite": {"timeout": 5.0}, "postgresql": {"connect_timeout": 5}}


def _with_foreign_keys(connection: Any, _: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


class _told:
    """Turn what a database raises into an InputError of one line, without the password of its address."""

    def __init__(self, engine: Engine) -> None:
        self._where = engine.url.render_as_string(hide_password=True)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        if isinstance(failure, SQLAlchemyError):
            cause = one_line(str(getattr(failure, "orig", None) or failure))[:200]
            raise InputError(
                f"the database {self._where} does not serve ({cause}): see that it runs and can be written"
            ) from failure


def _shown(text: str) -> str:
    """Show an address without what may be a password."""
    head, at, tail = text.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else text
