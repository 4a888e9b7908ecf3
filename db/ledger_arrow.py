"""The ledger's tables as Arrow, for DuckDB to read beside the atlas: fresh at each query.

Results are only ever added, so a table of results is read again only when it grew or an image set was renamed; jobs
change all the time and are read each time.
"""

import threading
from collections.abc import Collection
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, func, select
from sqlalchemy.types import JSON, Boolean, DateTime, Integer, String

from db.ledger import Ledger
from db.ledger_comments import COMMENTS
from db.ledger_tables import Table

_TABLES = {name: Table.metadata.tables[name] for name in COMMENTS}
_CHANGING = ("jobs", "job_items", "saved_queries", "image_set_notes")


class LedgerTables:
    """The tables and columns of `db.ledger_comments`. Safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[Any, ...], pa.Table]] = {}

    def read(self, names: Collection[str]) -> dict[str, pa.Table]:
        """Those tables, all of one state of the ledger; columns of JSON are text.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if not names:
            return {}
        with self._ledger.read() as connection:
            return {name: self._table(connection, name) for name in names}

    def _table(self, connection: Connection, name: str) -> pa.Table:
        if name in _CHANGING:
            return _as_arrow(connection, name)
        state = _state(connection, name)
        with self._lock:
            known = self._known.get(name)
        if known is not None and known[0] == state:
            return known[1]
        table = _as_arrow(connection, name)
        with self._lock:
            self._known[name] = (state, table)
        return table


def empty(name: str) -> pa.Table:
    """That table without rows."""
    return pa.table([pa.array([], field.type) for field in schema(name)], schema=schema(name))


def schema(name: str) -> pa.Schema:
    """The columns of a table, as Arrow has them."""
    return pa.schema([(column.name, _arrow_type(column.type)) for column in _columns(name)])


def _columns(name: str) -> list[Any]:
    return [_TABLES[name].c[column] for column in COMMENTS[name][1]]


def _state(connection: Connection, name: str) -> tuple[Any, ...]:
    """What tells that a table of results changed."""
    table = _TABLES[name]
    first = next(iter(table.primary_key.columns))
    state = tuple(connection.execute(select(func.count(), func.max(first))).one())
    if "image_set" in table.c:
        sets = connection.execute(select(table.c.image_set).distinct().order_by(table.c.image_set))
        state += tuple(sets.scalars())
    return state


def _as_arrow(connection: Connection, name: str) -> pa.Table:
    columns = _columns(name)
    # JSON as the database has it: text
    asked = [column.cast(String) if isinstance(column.type, JSON) else column for column in columns]
    rows = connection.execute(select(*asked).order_by(*_TABLES[name].primary_key.columns)).all()
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    fields = schema(name)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(values, fields, strict=True)], schema=fields
    )


def _arrow_type(kind: Any) -> pa.DataType:
    if isinstance(kind, JSON):
        return pa.string()
    if isinstance(kind, Boolean):
        return pa.bool_()
    if isinstance(kind, Integer):
        return pa.int64()
    if isinstance(kind, DateTime):
        return pa.timestamp("us")
    return pa.float64() if kind.python_type is float else pa.string()
