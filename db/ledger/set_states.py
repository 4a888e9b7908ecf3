"""Keeps an image set unchanged while a job for it is created: one transaction orders changes and submissions.

A set's `changes` count is odd while the set is being renamed or removed. To submit a job, read the count,
look at the set in the atlas, and create the job only if the count is unchanged and even in the same
transaction.
"""

from collections.abc import Collection

from sqlalchemy import Connection, insert, select, text, update

from db.ledger.engine import Ledger
from db.ledger.tables import ImageSetChange

_LOCK = 7_284_512  # an advisory lock number; `db.ledger.engine` uses the one before it


class SetChanged(RuntimeError):
    """An image set was or is being renamed or removed; the message is one sentence."""


def set_changes_of(ledger: Ledger, image_set: str) -> int:
    """Change count of the set name; read it before looking at the set."""
    with ledger.read() as connection:
        return changes_in(connection, image_set)


def changes_in(connection: Connection, image_set: str) -> int:
    """Change count of the set name, as seen by this transaction."""
    asked = select(ImageSetChange.changes).where(ImageSetChange.image_set == image_set)
    return connection.execute(asked).scalar_one_or_none() or 0


def check_unchanged(connection: Connection, image_set: str, before: int | None = None) -> None:
    """Keep the set unchanged until the transaction ends. Call in a writing transaction.

    Args:
        before: the earlier value of `set_changes_of`; None if nothing about the set was read.

    Raises:
        SetChanged: the set was changed since `before`, or is being changed.
    """
    if connection.dialect.name == "postgresql":  # SQLite serializes writers anyway
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK})
    found = changes_in(connection, image_set)
    if found % 2:
        raise SetChanged(
            f"images: {image_set!r} is being renamed or removed: wait, or repeat that step if it was interrupted"
        )
    if before is not None and found != before:
        raise SetChanged(
            f"images: {image_set!r} was renamed or removed in the meantime: submit the request again"
        )


def begin_change(connection: Connection, names: Collection[str]) -> None:
    """Block job creation for sets with these names once this transaction commits. Call first in the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    for name in names:
        found = changes_in(connection, name)
        _put(connection, name, found + 1 - found % 2)


def end_change(ledger: Ledger, names: Collection[str]) -> None:
    """Allow jobs again for sets with these names."""
    with ledger.write() as connection:
        for name in names:
            found = changes_in(connection, name)
            _put(connection, name, found + found % 2)


def _put(connection: Connection, image_set: str, changes: int) -> None:
    same = ImageSetChange.image_set == image_set
    if not connection.execute(update(ImageSetChange).where(same).values(changes=changes)).rowcount:
        connection.execute(insert(ImageSetChange).values(image_set=image_set, changes=changes))
