"""Change counts of the ledger's tables, kept by triggers, to invalidate cached rows.

A count is part of the transaction that makes the change, whichever program runs it, so equal counts mean
equal rows. Row counts and highest ids are not enough: results are replaced under the same id.
"""

from collections.abc import Collection

from sqlalchemy import Connection, func, inspect, select, text

from db.ledger.comments import COMMENTS
from db.ledger.tables import TableChange

WATCHED = tuple(COMMENTS)
_FUNCTION = "convscope_count_change"
_EVENTS = ("INSERT", "UPDATE", "DELETE")


def change_counts(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """How often each of the tables has changed, as seen by this transaction."""
    rows = connection.execute(
        select(TableChange.name, func.sum(TableChange.changes))
        .where(TableChange.name.in_(names))
        .group_by(TableChange.name)
    )
    return dict.fromkeys(names, 0) | {name: int(changes) for name, changes in rows}


def count_changes(connection: Connection) -> None:
    """Create missing triggers. A migration that recreates a table drops its triggers.

    Begins and ends a transaction; does nothing in a ledger with an older revision.
    """
    there = inspect(connection)
    tables = [name for name in WATCHED if there.has_table(name)]
    if not there.has_table(TableChange.__tablename__):
        connection.rollback()
        return
    missing = [(table, event) for table in tables for event in _EVENTS]
    present = _present(connection)
    missing = [(table, event) for table, event in missing if _name(table, event) not in present]
    connection.rollback()
    if not missing:
        return
    with connection.execution_options(convscope_writes=True).begin():
        sqlite = connection.dialect.name == "sqlite"
        if not sqlite:
            connection.execute(text(_POSTGRESQL_FUNCTION))
        for table, event in missing:
            template = _SQLITE_TRIGGER if sqlite else _POSTGRESQL_TRIGGER
            connection.execute(text(template.format(name=_name(table, event), table=table, event=event)))
    connection.execution_options(convscope_writes=False)


def trigger_names(tables: Collection[str]) -> set[str]:
    """Names of the triggers of the tables."""
    return {_name(table, event) for table in tables for event in _EVENTS}


def _name(table: str, event: str) -> str:
    return f"count_{table}_{event.lower()}"


def _present(connection: Connection) -> set[str]:
    asked = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if connection.dialect.name == "sqlite"
        else "SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE c.relnamespace = current_schema()::regnamespace"
    )
    return set(connection.execute(text(asked)).scalars())


_SQLITE_TRIGGER = """
CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN
    INSERT INTO table_changes (name, writer, changes) VALUES ('{table}', 0, 1)
    ON CONFLICT (name, writer) DO UPDATE SET changes = changes + 1;
END"""

# One row per connection, so concurrent transactions never wait for each other's counter.
_POSTGRESQL_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO %I.table_changes AS t (name, writer, changes) VALUES ($1, $2, 1)
         ON CONFLICT (name, writer) DO UPDATE SET changes = t.changes + 1', TG_TABLE_SCHEMA)
    USING TG_TABLE_NAME, pg_backend_pid();
    RETURN NULL;
END $$"""
_POSTGRESQL_TRIGGER = (
    f"CREATE TRIGGER {{name}} AFTER {{event}} ON {{table}} FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()"
)
