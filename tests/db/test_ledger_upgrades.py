"""A ledger of every revision, with rows in every table, upgrades without losing a value, and downgrades again."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from db.ledger.engine import MIGRATIONS, Ledger, head
from db.ledger.tables import Table
from db.settings import Settings

REVISIONS = sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
Row = dict[str, Any]
Rows = dict[str, list[Row]]
# Maintained by the database itself: Alembic's own table, and the change counts of the triggers.
NOT_ROWS = {"alembic_version", "table_changes"}

MOMENT = datetime(2026, 11, 24, 13, 14, 15, 161718)
# Values that constraints or later migrations read: for the first of two rows, then for the second, which has
# no value where that is allowed.
CHOSEN: dict[tuple[str, str], tuple[Any, Any]] = {
    ("jobs", "queue"): ("interactive", "batch"),
    ("jobs", "state"): ("done", "failed"),
    ("jobs", "kind"): ("saliency", "attack"),
    ("jobs", "image_set"): ("birds", "fish"),
    ("job_items", "state"): ("done", "queued"),
    ("job_items", "image_id"): (4, 5),
    ("saliency_maps", "image_set"): ("birds", "fish"),
    ("saliency_maps", "image_id"): (4, 5),
    ("attacks", "outcome"): ("flipped", "resisted"),
    ("attacks", "relative_to"): ("label", "prediction"),
    ("attacks", "epsilon"): (0.375, None),
    ("attacks", "step"): (0.125, 0.125),
    ("attacks", "cap"): (0.5, 0.5),
    ("attacks", "minimum"): (0.0, 0.0),
    ("attacks", "grid"): ("linear", "linear"),
    ("attack_maps", "panel"): ("clean", "attacked_own"),
    ("attack_ablations", "random"): ([0.25, 0.5, None], []),
    ("attack_ablations", "verdict"): ("carry", "cannot_say"),
}


def reflect(connection: sa.Connection) -> list[sa.Table]:
    """Return the tables with rows, referenced tables first."""
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name not in NOT_ROWS]


def value(table: sa.Table, column: sa.Column[Any], number: int) -> Any:
    """Return a value of the column's type for row 0 or 1; floats are exact in binary, so they stay equal."""
    if (table.name, column.name) in CHOSEN:
        return CHOSEN[table.name, column.name][number]
    if number and column.nullable:
        return sa.null()  # in JSON columns as well
    place = list(table.columns).index(column)
    if column.foreign_keys:
        return number + 1
    match column.type:
        case sa.JSON():
            return {"größe": [1, None, 2.5, 'ein "Wort"'], "empty": {}, "number": place}
        case sa.Boolean():
            return place % 2 == 0
        case sa.DateTime():
            return MOMENT.replace(second=place % 60)
        case sa.Integer():
            return place + 100 * number
        case sa.Float():
            return place + 0.0625
        case sa.String():
            text = f"{table.name} {column.name} {number}: '%s' \\ ü\n"
            return text if column.type.length is None else text[: column.type.length]
    raise AssertionError(f"{table.name}.{column.name}: no value for the type {column.type}")


def fill(ledger: Ledger) -> None:
    """Insert two rows into every table: one with every value, one without the optional values."""
    with ledger.write() as connection:
        for table in reflect(connection):
            generated = table.autoincrement_column
            for number in (0, 1):
                row = {
                    column.name: value(table, column, number)
                    for column in table.columns
                    if column is not generated or column.foreign_keys
                }
                connection.execute(table.insert().values(row))


def read(ledger: Ledger) -> Rows:
    """Return all rows, by table, in order of primary key."""
    with ledger.read() as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(table.select().order_by(*table.primary_key)).mappings()
            ]
            for table in reflect(connection)
        }


def content_key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def add(rows: Rows, table: str, **values: Any) -> None:
    for row in rows.get(table, ()):
        row.update(values)


def to_0002(rows: Rows) -> None:
    rows["attacks"] = []  # no code could write to it before, so it is recreated
    add(rows, "jobs", note=None)
    rows |= {f"attack_{name}": [] for name in ("ablations", "layers", "maps", "transfers", "units")}


def to_0003(rows: Rows) -> None:
    add(rows, "saved_queries", description="")


def to_0004(rows: Rows) -> None:
    rows |= {"image_imports": [], "image_set_notes": []}


def to_0005(rows: Rows) -> None:
    add(rows, "image_imports", renamed=0, gone=0, layout={})


def to_0006(rows: Rows) -> None:
    rows["image_set_changes"] = []
    add(rows, "jobs", question=None)
    for row in rows["saliency_maps"]:
        row["question"] = row["key"]
        row["key"] = content_key(row["key"], row["image_set"], row["image_id"])
    for row in rows["attacks"]:
        by_label = row["relative_to"] == "label"
        aim = {name: row[name] for name in ("method", "parameters", "relative_to")} | {"target": None}
        row["question"] = content_key(
            1, row["model_digest"], row["image_key"], aim, row["class_index"] if by_label else None
        )
        row["key"] = content_key(row["question"], row["image_set"], row["image_id"])
    for row in rows["attack_ablations"]:
        row["draws"] = len(row["random"])


def to_0007(rows: Rows) -> None:
    for row in rows["attacks"]:
        flipped = row["outcome"] == "flipped"  # at 3 steps of 0.125: the step below failed
        row |= {"last_failure": 0.25 if flipped else row["attacked_epsilon"], "at_most": False}
        row |= {"grid": "linear", "ratio": None, "parts": None}


def to_0008(rows: Rows) -> None:
    add(rows, "attack_layers", dead=None)


def to_0009(rows: Rows) -> None:
    add(
        rows, "attack_ablations", layer="", verdict="cannot_say", counted=0, less=0, share_low=None, share_high=None,
        reason="an earlier rule chose these channels and random ones: request it again",
    )  # fmt: skip


def to_0010(rows: Rows) -> None:
    add(rows, "job_items", value=None)


CHANGES: dict[str, Callable[[Rows], None]] = {
    "0002": to_0002,
    "0003": to_0003,
    "0004": to_0004,
    "0005": to_0005,
    "0006": to_0006,
    "0007": to_0007,
    "0008": to_0008,
    "0009": to_0009,
    "0010": to_0010,
}


def test_every_migration_has_its_documented_change() -> None:
    assert list(CHANGES) == REVISIONS[1:], "say here what the new migration does to the rows that are there"


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_ledger_of_each_revision_keeps_every_value(ledger_settings: Settings, revision: str) -> None:
    ledger = Ledger(ledger_settings)
    ledger.migrate(revision)
    fill(ledger)
    before = read(ledger)
    assert all(len(rows) == 2 for rows in before.values())
    expected = {table: [dict(row) for row in rows] for table, rows in before.items()}
    for later in REVISIONS[REVISIONS.index(revision) + 1 :]:
        CHANGES[later](expected)

    ledger.migrate()
    assert ledger.revision() == head()
    assert read(ledger) == expected
    with ledger.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    assert next_job(ledger) == 3, "numbering continues"

    ledger.migrate(revision)
    after = read(ledger)
    for table, rows in gone_back(before, expected, revision).items():
        assert after[table][: len(rows)] == rows
    ledger.close()


def next_job(ledger: Ledger) -> int:
    """Return the number that the database assigns to another job."""
    with ledger.write() as connection:
        jobs = sa.Table("jobs", sa.MetaData(), autoload_with=connection)
        row = {column.name: value(jobs, column, 1) for column in jobs.columns if column is not jobs.c.job}
        made = connection.execute(jobs.insert().values(row | {"key": "another"}))
    return int(made.inserted_primary_key[0])


def gone_back(before: Rows, upgraded: Rows, revision: str) -> Rows:
    """Return the rows after an upgrade and a downgrade: as before, except for what downgrades do not revert."""
    back = {table: [dict(row) for row in rows] for table, rows in before.items()}
    if revision < "0002":
        back["attacks"] = []
    elif revision < "0006":  # attacks keep the keys that 0006 assigned
        for row, now in zip(back["attacks"], upgraded["attacks"], strict=True):
            row["key"] = now["key"]
    return back
