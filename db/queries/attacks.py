"""Queries for attacks in the ledger. All functions are read-only and return plain records."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select

from db.ledger.engine import Ledger
from db.ledger.jobs import Record
from db.ledger.tables import (
    Attack,
    AttackAblation,
    AttackLayer,
    AttackMap,
    AttackTransfer,
    AttackUnit,
    JobItem,
)
from db.queries.jobs import named_as_asked


def attack(ledger: Ledger, number: int) -> Record | None:
    """The attack with that number; None if there is none."""
    return _one(ledger, Attack, Attack.attack == number)


def attacks_with_keys(ledger: Ledger, keys: Sequence[str]) -> list[Record]:
    """The stored attacks with those keys."""
    return [
        row
        for first in range(0, len(keys), 500)  # databases limit the number of values per statement
        for row in _all(ledger, Attack, Attack.key.in_(keys[first : first + 500]), Attack.attack)
    ]


def attack_map(ledger: Ledger, number: int) -> Record | None:
    """The comparison map with that number; None if there is none."""
    return _one(ledger, AttackMap, AttackMap.attack_map == number)


def job_attacks(ledger: Ledger, number: int, *, limit: int = 1_000_000, offset: int = 0) -> list[Record]:
    """The attacks of a job's items from position `offset` on, with their `position`."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(JobItem.position, JobItem.model.label("asked_model"), Attack.__table__)
            .join(Attack, Attack.attack == JobItem.result)
            .where(JobItem.job == number, JobItem.position.between(offset, offset + limit - 1))
            .order_by(JobItem.position)
        )
        return [named_as_asked(dict(row)) for row in rows.mappings()]


def job_outcomes(ledger: Ledger, number: int) -> dict[str, int]:
    """Number of attacks of a job by outcome."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(Attack.outcome, func.count())
            .join(JobItem, Attack.attack == JobItem.result)
            .where(JobItem.job == number)
            .group_by(Attack.outcome)
        ).all()
    return {outcome: count for outcome, count in rows}  # noqa: C416  # mypy does not accept rows as pairs


def attack_layers(ledger: Ledger, number: int) -> list[Record]:
    """How much an attack shifted each layer, in forward order."""
    return _all(ledger, AttackLayer, AttackLayer.attack == number, AttackLayer.position)


def attack_units(ledger: Ledger, number: int) -> list[Record]:
    """The channels of each layer that an attack shifted most."""
    return _all(ledger, AttackUnit, AttackUnit.attack == number, AttackUnit.layer, AttackUnit.rank)


def attack_maps(ledger: Ledger, number: int) -> list[list[Record]]:
    """The comparison maps of an attack: one list per request, newest first."""
    found = _all(ledger, AttackMap, AttackMap.attack == number, AttackMap.attack_map)
    newest = dict.fromkeys(row["request"] for row in reversed(found))
    return [[row for row in found if row["request"] == request] for request in newest]


def attack_transfers(ledger: Ledger, number: int) -> list[Record]:
    """Other models' predictions for an attacked image, each with the weights that it last judged any image with.

    The view `transfer` follows the same rule, so a judge's predictions are comparable across attacks.
    """
    last = func.max(AttackTransfer.created)
    asked = select(AttackTransfer.judge, AttackTransfer.judge_digest).group_by(
        AttackTransfer.judge, AttackTransfer.judge_digest
    )
    with ledger.read() as connection:
        newest = {row.judge: row.judge_digest for row in connection.execute(asked.order_by(last))}
    found = _all(ledger, AttackTransfer, AttackTransfer.attack == number, AttackTransfer.judge)
    return [row for row in found if newest[row["judge"]] == row["judge_digest"]]


def attack_ablations(ledger: Ledger, number: int) -> list[Record]:
    """Searches with clamped channels, one per request, newest first."""
    return _all(
        ledger,
        AttackAblation,
        AttackAblation.attack == number,
        AttackAblation.created.desc(),
        AttackAblation.channels,
        AttackAblation.layer,
    )


def job_ablations(ledger: Ledger, number: int) -> list[Record]:
    """A job's searches with clamped channels, by attack, except those that another job has replaced."""
    return _all(ledger, AttackAblation, AttackAblation.job == number, AttackAblation.attack)


def _one(ledger: Ledger, table: Any, condition: Any) -> Record | None:
    with ledger.read() as connection:
        row = connection.execute(select(table.__table__).where(condition)).mappings().one_or_none()
    return None if row is None else dict(row)


def _all(ledger: Ledger, table: Any, condition: Any, *order: Any) -> list[Record]:
    with ledger.read() as connection:
        rows = connection.execute(select(table.__table__).where(condition).order_by(*order)).mappings()
        return [dict(row) for row in rows]


def attack_table(ledger: Ledger, columns: Sequence[str], *, image_set: str) -> list[Record]:
    """The given columns of all attacks over a set, oldest first."""
    asked = (
        select(*(Attack.__table__.c[column] for column in columns))
        .where(Attack.image_set == image_set)
        .order_by(Attack.attack)
    )
    with ledger.read() as connection:
        return [dict(row) for row in connection.execute(asked).mappings()]
