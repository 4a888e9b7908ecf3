"""The input and output of a schema step."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OlderAtlas:
    """The tables of an attached atlas of some version.

    Attributes:
        schema: prefix for table names in SQL: `FROM {older.schema}.images`.
        columns: column names in order, by table.
    """

    schema: str
    columns: Mapping[str, Collection[str]]

    def has(self, table: str, column: str) -> bool:
        """Whether the table exists and has the column."""
        return column in self.columns.get(table, ())


@dataclass(frozen=True)
class Step:
    """One schema step, from version `before` to version `after`.

    `tables` returns a SELECT for each table that is new or differs in version `after`; all other tables are
    copied unchanged. A step from a version to itself adds columns or tables that were added to that version
    later; it returns nothing if none is missing.
    """

    before: int
    after: int
    tables: Callable[[OlderAtlas], Mapping[str, str]]


def no_rows(columns: str) -> str:
    """An empty SELECT with columns written as in CREATE TABLE: `run INTEGER, label VARCHAR`."""
    named = (column.split(maxsplit=1) for column in columns.split(","))
    return f"SELECT {', '.join(f'NULL::{kind.strip()} AS {name}' for name, kind in named)} WHERE FALSE"
