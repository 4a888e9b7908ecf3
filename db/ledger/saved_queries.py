"""SQL queries that users save by name."""

from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from db.ledger.engine import Ledger, now
from db.ledger.tables import SavedQuery

MAX_NAME = 200
MAX_TEXT = 10_000
Record = dict[str, Any]


class NameTaken(ValueError):
    """Another saved query has that name; the message is one sentence."""


class NoSuchQuery(LookupError):
    """There is no saved query with that number; the message is one sentence."""


def saved_queries(ledger: Ledger) -> list[Record]:
    """All saved queries, by name."""
    with ledger.read() as connection:
        asked = select(SavedQuery.__table__).order_by(SavedQuery.name)
        return [dict(row) for row in connection.execute(asked).mappings()]


def save_query(ledger: Ledger, *, name: str, description: str, sql: str, replace: bool) -> Record:
    """Save a query; with `replace`, overwrite the one with that name.

    Raises:
        NameTaken: the name exists and `replace` is false.
    """
    moment = now()
    values = {"description": description, "sql": sql, "changed": moment}
    try:
        with ledger.write() as connection:
            there = update(SavedQuery).where(SavedQuery.name == name).values(values)
            if not replace or connection.execute(there).rowcount == 0:
                connection.execute(insert(SavedQuery).values(name=name, created=moment, **values))
            found = select(SavedQuery.__table__).where(SavedQuery.name == name)
            return dict(connection.execute(found).mappings().one())
    except IntegrityError as error:
        raise NameTaken(
            f"a saved query named {name!r} already exists: replace it, or choose another name"
        ) from error


def delete_query(ledger: Ledger, query: int) -> None:
    """Delete a saved query.

    Raises:
        NoSuchQuery: there is no query with that number.
    """
    with ledger.write() as connection:
        gone = connection.execute(delete(SavedQuery).where(SavedQuery.query == query))
        if gone.rowcount == 0:
            raise NoSuchQuery(f"there is no saved query {query}")
