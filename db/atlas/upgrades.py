"""Atlases of older versions of the schema: how their rows enter the present tables.

Nothing is altered in place. A new file gets this version's tables, views and comments, and the older one's rows by the
names of their columns; what that version did not have yet is NULL, or what `_FILLED` says.
"""

from pathlib import Path

import duckdb

from db.atlas.schema import ddl

OLDEST = 1
# Columns that came later, where something is known of older rows: version 4 brought `fit`, and what was before it
# resized to exactly the size that it names.
_FILLED = {("models", "fit"): "'exact'"}


def upgrade(older: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Make this version's tables in an empty database, with the rows of the atlas in the file `older`."""
    connection.execute(f"ATTACH '{_quoted(older)}' AS older (READ_ONLY)")
    connection.execute("BEGIN")  # else each of the many comments is written to the disk by itself
    connection.execute(ddl())
    had = _columns(connection, "older")
    (row,) = connection.execute("SELECT current_database()").fetchall()
    for table, columns in _columns(connection, str(row[0])).items():
        if table == "atlas_info" or table not in had:
            continue
        taken = {column: f'"{column}"' for column in columns if column in had[table]}
        filled = {
            column: value
            for (of, column), value in _FILLED.items()
            if of == table and column not in had[table]
        }
        names = ", ".join(f'"{column}"' for column in (*taken, *filled))
        values = ", ".join((*taken.values(), *filled.values()))
        connection.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM older.{table}")
    (found,) = connection.execute(
        """
SELECT greatest(
    coalesce((SELECT max(greatest(start_value, coalesce(last_value + 1, 1))) FROM duckdb_sequences()
              WHERE database_name = 'older' AND sequence_name = 'run_numbers'), 1),
    coalesce((SELECT max(run) + 1 FROM runs), 1))"""
    ).fetchall()
    connection.execute(f"CREATE OR REPLACE SEQUENCE run_numbers START {int(found[0])}")
    connection.execute("COMMIT")
    connection.execute("DETACH older")


def _columns(connection: duckdb.DuckDBPyConnection, database: str) -> dict[str, list[str]]:
    rows = connection.execute(
        """
SELECT t.table_name, list(c.column_name ORDER BY c.column_index)
FROM duckdb_tables() t JOIN duckdb_columns() c USING (database_name, schema_name, table_name)
WHERE t.database_name = ? AND NOT t.internal
GROUP BY ALL""",
        [database],
    ).fetchall()
    return dict(rows)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
