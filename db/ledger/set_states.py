"""Whether an image set stays what it was: one transaction decides between changing a set and making a job for it.

A set's `changes` are odd while it is renamed or removed. Who submits a job reads them, looks at the set in the atlas,
and makes the job only where they are the same and even in the very transaction that makes it.
"""

from collections.abc import Collection

from sqlalchemy import Connection, insert, select, text, update

from db.ledger.engine import Ledger
from db.ledger.tables import ImageSetChange

_LOCK = 7_284_512  # PostgreSQL's advisory locks are numbers; `db.ledger.engine` has the one before


class SetChanged(RuntimeError):
    """An image set was or is being renamed or removed; the message is one sentence."""


def set_changes_of(ledger: Ledger, image_set: str) -> int:
    """How often a set of that name was changed; to be read before looking at the set."""
    with ledger.read() as connection:
        return changes_in(connection, image_set)


def changes_in(connection: Connection, image_set: str) -> int:
    """How often a set of that name was changed, as this transaction sees it."""
    asked = select(ImageSetChange.changes).where(ImageSetChange.image_set == image_set)
    return connection.execute(asked).scalar_one_or_none() or 0


def check_unchanged(connection: Connection, image_set: str, before: int | None = None) -> None:
    """Hold the set as it is until the transaction ends. Call in a transaction that writes.

    Args:
        before: what `set_changes_of` gave; None where nothing was read of the set.

    Raises:
        SetChanged: it was changed since `before`, or is being changed.
    """
    if connection.dialect.name == "postgresql":  # SQLite's writers wait for each other anyway
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK})
    found = changes_in(connection, image_set)
    if found % 2:
        raise SetChanged(
            f"images: {image_set!r} is being renamed or removed: wait, or do that again if it was interrupted"
        )
    if before is not None and found != before:
        raise SetChanged(f"images: {image_set!r} was renamed or removed meanwhile: ask again")


def begin_change(connection: Connection, names: Collection[str]) -> None:
    """From the end of this transaction on, no job is made for sets of these names. Call first in it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    for name in names:
        found = changes_in(connection, name)
        _put(connection, name, found + 1 - found % 2)


def end_change(ledger: Ledger, names: Collection[str]) -> None:
    """Jobs may be made again for sets of these names."""
    with ledger.write() as connection:
        for name in names:
            found = changes_in(connection, name)
            _put(connection, name, found + found % 2)


def _put(connection: Connection, image_set: str, changes: int) -> None:
    same = ImageSetChange.image_set == image_set
    if not connection.execute(update(ImageSetChange).where(same).values(changes=changes)).rowcount:
        connection.execute(insert(ImageSetChange).values(image_set=image_set, changes=changes))
