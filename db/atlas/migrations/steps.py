"""What a step of the atlas's schema is given and what it returns."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OlderAtlas:
    """The tables of an opened atlas of some version.

    Attributes:
        schema: what goes before the name of a table in SQL: `FROM {older.schema}.images`.
        columns: names of columns in their order, by table.
    """

    schema: str
    columns: Mapping[str, Collection[str]]

    def has(self, table: str, column: str) -> bool:
        """Whether there is such a table with such a column."""
        return column in self.columns.get(table, ())


@dataclass(frozen=True)
class Step:
    """One step of the schema, from version `before` to version `after`.

    `tables` returns a SELECT for each table that is new or differs in version `after`; all other tables are kept as
    they are. A step from a version to itself adds what came to that version later, and returns nothing if none lacks.
    """

    before: int
    after: int
    tables: Callable[[OlderAtlas], Mapping[str, str]]


def no_rows(columns: str) -> str:
    """A SELECT with no rows, of columns written as in CREATE TABLE: `run INTEGER, label VARCHAR`."""
    named = (column.split(maxsplit=1) for column in columns.split(","))
    return f"SELECT {', '.join(f'NULL::{kind.strip()} AS {name}' for name, kind in named)} WHERE FALSE"
