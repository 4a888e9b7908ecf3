"""Atlas and ledger in one DuckDB session, for the pages' own queries; user SQL runs in `db.sql.runner`."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from db.atlas.store import Atlas, Query
from db.ledger.arrow import LedgerTables
from db.ledger.engine import Ledger
from db.sql.views import VIEWS, ledger_tables_of, with_what_they_read


class AtlasWithLedger:
    """Queries over both atlas and ledger. Thread-safe."""

    def __init__(self, atlas: Atlas, ledger: Ledger) -> None:
        self._atlas = atlas
        self._tables = LedgerTables(ledger)

    def fetch(self, query: Query) -> list[dict[str, Any]]:
        """Rows of `query` over the atlas, the ledger's attacks, and the views over both.

        Raises:
            AtlasError, LedgerError: one of them cannot be read.
        """
        rows: list[dict[str, Any]] = self.fetch_arrow(query).to_pylist()
        return rows

    def fetch_arrow(self, query: Query) -> pa.Table:
        """Like `fetch`, as an Arrow table."""
        with self._session(query.sql) as cursor:
            return cursor.sql(query.sql, params=query.values or None).to_arrow_table()

    @contextlib.contextmanager
    def _session(self, sql: str) -> Iterator[duckdb.DuckDBPyConnection]:
        tables = self._tables.read(_ATTACKS)
        with self._atlas.read() as cursor:
            for name, table in tables.items():
                cursor.register(name, table)
            # only the views it names: binding all of them takes DuckDB longer than most queries
            for name in with_what_they_read(set(_VIEWS) & set(_NAME.findall(sql))):
                cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {VIEWS[name].sql}")
            yield cursor


# Tables that the Robustness page reads.
_ATTACKS = ("attacks", "attack_transfers")
_VIEWS = [name for name in VIEWS if set() < ledger_tables_of([name]) <= set(_ATTACKS)]
_NAME = re.compile(r"\w+")
