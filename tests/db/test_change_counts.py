"""Cached copies of the ledger's tables are never older than the tables, whichever process changes them."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, inspect, text, update
from sqlalchemy.types import JSON, Boolean, DateTime, Float, Integer

from db.ledger.arrow import LedgerTables
from db.ledger.change_counts import WATCHED, change_counts, count_changes, trigger_names
from db.ledger.engine import Ledger, now
from db.ledger.tables import Attack, MapScore, SaliencyMap, Table

ROOT = Path(__file__).parents[2]
TABLES = Table.metadata.tables
WORDS = {"state": "done", "queue": "batch", "outcome": "flipped", "panel": "clean", "verdict": "carry"}


def value_for(column: Any, variant: int) -> Any:
    """Return a value that the column accepts; keys are 1 whatever the variant."""
    if column.primary_key or column.foreign_keys:
        return 1 if isinstance(column.type, Integer) else "one"
    if isinstance(column.type, JSON):
        return [variant]
    if isinstance(column.type, Boolean):
        return bool(variant)
    if isinstance(column.type, DateTime):
        return now()
    if isinstance(column.type, Float):
        return float(variant)
    if isinstance(column.type, Integer):
        return variant
    return WORDS.get(column.name, f"text {variant}")


def row_of(name: str, variant: int = 0) -> dict[str, Any]:
    return {column.name: value_for(column, variant) for column in TABLES[name].columns}


def fill(connection: Connection) -> None:
    """Insert one row into each table that SQL sees."""
    for name in (table.name for table in Table.metadata.sorted_tables if table.name in WATCHED):
        connection.execute(insert(TABLES[name]).values(row_of(name)))


def test_every_table_that_sql_sees_is_watched(ledger: Ledger) -> None:
    with ledger.read() as connection:
        names = (
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            if connection.dialect.name == "sqlite"
            else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        )
        assert set(connection.execute(text(names)).scalars()) == trigger_names(WATCHED)


def test_a_row_replaced_under_its_number_is_read_again_in_every_table(ledger: Ledger) -> None:
    with ledger.write() as connection:
        fill(connection)
    tables = LedgerTables(ledger)
    before = tables.read(WATCHED)
    again = tables.read(WATCHED)
    assert all(again[name] is before[name] for name in WATCHED), "nothing changed, so nothing is read again"
    for name in WATCHED:
        seen = before[name].column_names
        changed = next(
            column
            for column in TABLES[name].columns
            if column.name in seen
            and not (column.primary_key or column.foreign_keys or column.name in WORDS)
            and not isinstance(column.type, DateTime)
        )
        with ledger.write() as connection:
            connection.execute(update(TABLES[name]).values({changed.name: value_for(changed, 7)}))
        after = tables.read([name])[name]
        assert after.num_rows == 1
        assert after[changed.name] != before[name][changed.name], (name, changed.name)
        count = ledger_count(ledger, name)
        with ledger.write() as connection:  # same number of rows, same highest number, same values
            connection.execute(text(f"UPDATE {name} SET {changed.name} = {changed.name}"))
        assert ledger_count(ledger, name) > count


def ledger_count(ledger: Ledger, name: str) -> int:
    with ledger.read() as connection:
        return change_counts(connection, [name])[name]


def test_a_deletion_and_an_insertion_under_the_same_number_are_seen(ledger: Ledger) -> None:
    with ledger.write() as connection:
        fill(connection)
    tables = LedgerTables(ledger)
    assert tables.read(["map_scores"])["map_scores"]["deletion_auc"].to_pylist() == [0.0]
    with ledger.write() as connection:
        connection.execute(MapScore.__table__.delete())
        connection.execute(insert(MapScore).values(row_of("map_scores", 1)))
    assert tables.read(["map_scores"])["map_scores"]["deletion_auc"].to_pylist() == [1.0]


def test_changes_by_another_process_are_seen(ledger: Ledger) -> None:
    with ledger.write() as connection:
        fill(connection)
    tables = LedgerTables(ledger)
    assert tables.read(["attacks"])["attacks"]["epsilon"].to_pylist() == [0.0]
    program = (
        "import sys\nfrom sqlalchemy import text\nfrom db.ledger.engine import Ledger\n"
        "from db.settings import read_settings\n"
        "ledger = Ledger(read_settings({'CONVSCOPE_HOME': sys.argv[1], 'CONVSCOPE_LEDGER_URL': sys.argv[2]}))\n"
        "with ledger.write() as connection:\n    connection.execute(text('UPDATE attacks SET epsilon = 0.25'))\n"
    )
    url = "" if "sqlite" in ledger.url else ledger.url
    subprocess.run([sys.executable, "-c", program, str(ledger.home), url], cwd=ROOT, check=True, timeout=60)
    assert tables.read(["attacks"])["attacks"]["epsilon"].to_pylist() == [0.25]


def test_a_transaction_that_is_undone_counts_nothing(ledger: Ledger) -> None:
    with ledger.write() as connection:
        fill(connection)
    before = ledger_count(ledger, "attacks")

    def half() -> None:
        with ledger.write() as connection:
            connection.execute(update(Attack).values(epsilon=0.5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert ledger_count(ledger, "attacks") == before


def test_two_writers_do_not_wait_for_each_others_count(ledger: Ledger) -> None:
    """On PostgreSQL: each changes two tables, in opposite orders, and neither ends before the other has begun."""
    if ledger.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with ledger.write() as connection:
        fill(connection)
    meet = threading.Barrier(2, timeout=20)
    failed: list[Exception] = []

    def work(first: str, second: str) -> None:
        try:
            with ledger.write() as connection:
                connection.execute(text(first))
                meet.wait()
                connection.execute(text(second))
                meet.wait()
        except Exception as error:
            failed.append(error)

    one, other = (
        "UPDATE attacks SET seconds = 2 WHERE attack = {}",
        "UPDATE map_scores SET seconds = 2 WHERE map = {}",
    )
    pairs = [(one.format(1), other.format(2)), (other.format(1), one.format(2))]
    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert ledger_count(ledger, "attacks") == 3


def test_a_trigger_that_a_migration_took_away_is_made_again(ledger: Ledger) -> None:
    with ledger.write() as connection:
        on = "" if connection.dialect.name == "sqlite" else " ON attacks"
        connection.execute(text(f"DROP TRIGGER count_attacks_update{on}"))
        fill(connection)
    ledger.migrate()
    before = ledger_count(ledger, "attacks")
    with ledger.write() as connection:
        connection.execute(update(SaliencyMap).values(seconds=3.0))
        connection.execute(update(Attack).values(seconds=3.0))
    assert ledger_count(ledger, "attacks") == before + 1
    with ledger.engine.connect() as connection:
        assert inspect(connection).has_table("table_changes")
        connection.rollback()
        count_changes(connection)  # all counters exist: nothing to do
