"""Runs the steps from an older atlas to the current schema, one after the other, into a new file."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import duckdb

from db.atlas import migrations
from db.atlas.migrations.steps import OlderAtlas, Step
from db.atlas.schema import ddl

_OLDER = "older_atlas"  # the older file, attached
# Tables present in every version: a file without them is damaged, not older.
_ALWAYS = ("image_sets", "images", "models", "layers", "runs", "activations")
_VIEWS = "migration"  # in-memory database with one schema of views per step


class WrongStep(RuntimeError):
    """The steps do not produce the current tables; the message names the tables that differ."""


def is_older(version: int, columns: Mapping[str, list[str]]) -> bool:
    """Whether an atlas of a known version, with these columns by table, needs migrating."""
    if version != migrations.latest_version():
        return True
    if any(table not in columns for table in _ALWAYS):
        return False  # damaged: reading it reports the error
    found = OlderAtlas("unused", columns)
    return any(step.tables(found) for step in steps_from(version))


def steps_from(version: int) -> list[Step]:
    """The steps that an atlas of `version` needs, in order."""
    return [step for step in migrations.STEPS if step.before >= version]


def attach(connection: duckdb.DuckDBPyConnection, older: Path, steps: Sequence[Step]) -> OlderAtlas:
    """Attach the file `older` and apply all `steps`: each is a schema of views over the one before."""
    connection.execute(f"ATTACH '{_quoted(older)}' AS {_OLDER} (READ_ONLY)")
    connection.execute(f"ATTACH ':memory:' AS {_VIEWS}")
    reached = OlderAtlas(f"{_OLDER}.main", columns_of(connection, _OLDER))
    for table in _ALWAYS:
        if table not in reached.columns:
            raise WrongStep(f"it has no table {table}, and may be damaged")
    for number, step in enumerate(steps):
        schema = f"{_VIEWS}.step_{number}"
        kept = {table: f"SELECT * FROM {reached.schema}.{table}" for table in reached.columns}
        connection.execute(f"CREATE SCHEMA {schema}")
        columns: dict[str, list[str]] = {}
        for table, query in (kept | dict(step.tables(reached))).items():
            connection.execute(f"CREATE VIEW {schema}.{table} AS {query}")
            described = connection.execute(f"DESCRIBE {schema}.{table}").fetchall()
            columns[table] = [row[0] for row in described]
        reached = OlderAtlas(schema, columns)
    return reached


def migrate(older: Path, version: int, connection: duckdb.DuckDBPyConnection) -> None:
    """Create the current tables in an empty database, filled from the atlas of `version` in the file `older`.

    Raises:
        WrongStep: the steps produce columns other than those of the current schema.
    """
    (row,) = connection.execute("SELECT current_database()").fetchall()
    present = str(row[0])
    found = attach(connection, older, steps_from(version))
    connection.execute("BEGIN")  # otherwise each comment is written to disk separately
    connection.execute(ddl())
    wanted = columns_of(connection, present)
    _check(found.columns, wanted)
    for table in wanted:
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM {found.schema}.{table}")
    _go_on_with_run_numbers(connection)
    connection.execute("COMMIT")
    connection.execute(f"DETACH {_VIEWS}")
    connection.execute(f"DETACH {_OLDER}")


def columns_of(
    connection: duckdb.DuckDBPyConnection, database: str, schema: str = "main"
) -> dict[str, list[str]]:
    """Column names by table, without `atlas_info` and views."""
    rows = connection.execute(
        """
SELECT table_name, list(column_name ORDER BY column_index)
FROM duckdb_columns() JOIN duckdb_tables() USING (database_name, schema_name, table_name)
WHERE database_name = ? AND schema_name = ? AND table_name <> 'atlas_info'
GROUP BY table_name""",
        [database, schema],
    ).fetchall()
    return dict(rows)


def _check(reached: Mapping[str, Collection[str]], wanted: Mapping[str, Collection[str]]) -> None:
    """Refuse steps that silently drop a column or forget to fill one; whole tables may be dropped."""
    for table, columns in wanted.items():
        found = reached.get(table, ())
        if set(found) != set(columns):
            raise WrongStep(
                f"after all steps to version {migrations.latest_version()} its table {table} has the columns "
                f"{', '.join(found) or 'of none'}, expected {', '.join(columns)}"
            )


def _go_on_with_run_numbers(connection: duckdb.DuckDBPyConnection) -> None:
    """Continue the sequence of run numbers: numbers are never reused, not even those of removed runs."""
    (found,) = connection.execute(
        """
SELECT greatest(
    coalesce((SELECT max(greatest(start_value, coalesce(last_value + 1, 1))) FROM duckdb_sequences()
              WHERE database_name = ? AND sequence_name = 'run_numbers'), 1),
    coalesce((SELECT max(run) + 1 FROM runs), 1))""",
        [_OLDER],
    ).fetchall()
    connection.execute(f"CREATE OR REPLACE SEQUENCE run_numbers START {int(found[0])}")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
