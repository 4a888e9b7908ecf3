"""What user SQL can read: tables and views with their columns, types, comments and row counts."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb
from sqlalchemy import func, select

from db.atlas.schema import COMMENTS as ATLAS_COMMENTS
from db.atlas.schema import VIEW_NAMES, ddl
from db.atlas.store import Atlas, NoAtlas
from db.ledger.arrow import empty
from db.ledger.comments import COMMENTS as LEDGER_COMMENTS
from db.ledger.engine import Ledger
from db.ledger.tables import Table
from db.sql.views import VIEWS, with_what_they_read

HIDDEN = "atlas_info"


@dataclass(frozen=True)
class Column:
    """A column; `kind` is DuckDB's name for its type."""

    name: str
    kind: str
    comment: str


@dataclass(frozen=True)
class Readable:
    """A table or a view; `place` is atlas, ledger, or view."""

    name: str
    place: str
    comment: str
    columns: tuple[Column, ...]


@functools.cache
def catalogue() -> tuple[Readable, ...]:
    """Everything readable: first the views, which answer the most common questions, then the atlas, then the ledger."""
    with duckdb.connect() as connection:
        prepare_empty(connection)
        found = [_described(connection, *entry) for entry in _entries()]
    order = ("view", "atlas", "ledger")
    return tuple(sorted(found, key=lambda one: order.index(one.place)))


def prepare_empty(connection: duckdb.DuckDBPyConnection) -> None:
    """Create all tables and views, without rows."""
    connection.execute(ddl())
    for name in LEDGER_COMMENTS:
        connection.register(f"_{name}", empty(name))
        connection.execute(f"CREATE TABLE {name} AS FROM _{name}")
    for name in with_what_they_read(VIEWS):
        connection.execute(f"CREATE VIEW {name} AS {VIEWS[name].sql}")


def _entries() -> Iterator[tuple[str, str, str, Mapping[str, str]]]:
    for name, (about, columns) in ATLAS_COMMENTS.items():
        if name != HIDDEN:
            yield name, "view" if name in VIEW_NAMES else "atlas", about, columns
    for name, view in VIEWS.items():
        yield name, "view", view.comment, view.columns
    for name, (about, columns) in LEDGER_COMMENTS.items():
        yield name, "ledger", about, columns


def _described(
    connection: duckdb.DuckDBPyConnection, name: str, place: str, about: str, comments: Mapping[str, str]
) -> Readable:
    rows = connection.execute(f"DESCRIBE {name}").fetchall()
    return Readable(
        name, place, about, tuple(Column(column, kind, comments[column]) for column, kind, *_ in rows)
    )


def row_counts(atlas: Atlas, ledger: Ledger) -> dict[str, int]:
    """Current row count of each table; views are left out, since counting would run them.

    Raises:
        AtlasError, LedgerError: a store cannot be read.
    """
    tables = [one.name for one in catalogue() if one.place == "atlas"]
    try:
        with atlas.read() as cursor:
            counts = [f"(SELECT count(*) FROM {name})" for name in tables]
            row = cursor.execute("SELECT " + ", ".join(counts)).fetchone()
    except NoAtlas:
        row = (0,) * len(tables)
    assert row is not None
    found = dict(zip(tables, row, strict=True))
    with ledger.read() as connection:
        for name in LEDGER_COMMENTS:
            asked = select(func.count()).select_from(Table.metadata.tables[name])
            found[name] = connection.execute(asked).scalar_one()
    return found
