"""The ledger's tables as Arrow, for DuckDB to query together with the atlas; always up to date.

A table is read again only when its change count differs (`db.ledger.change_counts`).
"""

import threading
from collections.abc import Collection
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, select
from sqlalchemy.types import JSON, Boolean, DateTime, Integer, String

from db.ledger.change_counts import change_counts
from db.ledger.comments import COMMENTS
from db.ledger.engine import Ledger
from db.ledger.tables import Table

_TABLES = {name: Table.metadata.tables[name] for name in COMMENTS}


class LedgerTables:
    """The tables and columns of `db.ledger.comments`. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, pa.Table]] = {}  # by name: change count and rows

    def read(self, names: Collection[str]) -> dict[str, pa.Table]:
        """The named tables, all from one state of the ledger; JSON columns are text.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if not names:
            return {}
        with self._ledger.read() as connection:
            counts = change_counts(connection, names)
            return {name: self._table(connection, name, counts[name]) for name in names}

    def _table(self, connection: Connection, name: str, changes: int) -> pa.Table:
        with self._lock:
            known = self._known.get(name)
        if known is not None and known[0] == changes:
            return known[1]
        table = _as_arrow(connection, name)
        with self._lock:
            self._known[name] = (changes, table)
        return table


def empty(name: str) -> pa.Table:
    """The named table without rows."""
    return pa.table([pa.array([], field.type) for field in schema(name)], schema=schema(name))


def schema(name: str) -> pa.Schema:
    """The columns of a table as an Arrow schema."""
    return pa.schema([(column.name, _arrow_type(column.type)) for column in _columns(name)])


def _columns(name: str) -> list[Any]:
    return [_TABLES[name].c[column] for column in COMMENTS[name][1]]


def _as_arrow(connection: Connection, name: str) -> pa.Table:
    columns = _columns(name)
    # JSON as the database stores it: text
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
