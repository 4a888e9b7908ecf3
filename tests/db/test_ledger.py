"""The ledger opens, migrates up, down and up again with data in it, and its errors are sentences."""

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text

from db.ledger.engine import Ledger, LedgerError, now
from db.ledger.jobs import NewItem, NewJob, submit_job
from db.ledger.tables import Job, SaliencyMap, Table
from db.ledger.write_turns import BRIEF_SECONDS, PATIENT
from db.settings import Settings

ROOT = Path(__file__).parents[2]


def a_job(key: str = "a" * 64) -> NewJob:
    return NewJob(key, "saliency", "batch", "m", "samples", {"n": [1, None]}, (NewItem("m", 0, "0" * 64),))


def test_the_migrations_make_just_the_tables_that_the_code_knows(ledger: Ledger) -> None:
    with ledger.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_downgrade_and_upgrade_leave_other_tables_alone(ledger: Ledger) -> None:
    with ledger.write() as connection:
        connection.execute(text("CREATE TABLE somebody_elses (x INTEGER)"))
        connection.execute(text("INSERT INTO somebody_elses VALUES (7)"))
    submit_job(ledger, a_job())
    ledger.migrate("base")
    with ledger.read() as connection:
        assert connection.execute(text("SELECT x FROM somebody_elses")).scalar() == 7
    with pytest.raises(Exception, match="jobs"), ledger.read() as connection:
        connection.execute(select(Job.job))
    ledger.migrate()
    assert submit_job(ledger, a_job()) == (1, True)


def test_migrating_twice_keeps_the_rows(ledger: Ledger) -> None:
    submit_job(ledger, a_job())
    ledger.migrate()
    with ledger.read() as connection:
        row = connection.execute(select(Job.parameters, Job.created)).one()
    assert row.parameters == {"n": [1, None]}
    assert abs((now() - row.created).total_seconds()) < 60


def test_a_ledger_of_a_newer_convscope_is_refused_and_left_alone(ledger: Ledger) -> None:
    with ledger.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match=r"revision 9999, Convscope \S+ knows up to \d{4}: use the newer"):
        ledger.migrate()
    with ledger.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 0


def test_processes_that_start_together_migrate_once(ledger_settings: Settings) -> None:
    program = (
        "import dataclasses, pathlib, sys\n"
        "from db.ledger.engine import Ledger\nfrom db.settings import read_settings\n"
        "settings = read_settings({'CONVSCOPE_HOME': sys.argv[1], 'CONVSCOPE_LEDGER_URL': sys.argv[2]})\n"
        "Ledger(settings).migrate()\n"
    )
    words = [sys.executable, "-c", program, str(ledger_settings.home), ledger_settings.ledger_url]
    started = [subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said


def test_a_transaction_that_raises_leaves_nothing(ledger: Ledger) -> None:
    insertion = text("INSERT INTO saved_queries (name, sql, created, changed) VALUES ('a', 'b', :t, :t)")

    def half() -> None:
        with ledger.write() as connection:
            connection.execute(insertion, {"t": now()})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with ledger.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM saved_queries")).scalar() == 0


def test_numbers_of_removed_jobs_are_not_reused(ledger: Ledger) -> None:
    first, _ = submit_job(ledger, a_job())
    with ledger.write() as connection:
        connection.execute(text("DELETE FROM job_items"))
        connection.execute(text("DELETE FROM jobs"))
    assert submit_job(ledger, a_job())[0] > first


def test_a_map_of_no_job_is_refused(ledger: Ledger) -> None:
    values = {
        column.name: 0 if column.type.python_type in (int, float, bool) else "x"
        for column in SaliencyMap.__table__.columns
        if not column.nullable and column.name not in ("map", "parameters", "created")
    }
    with pytest.raises(Exception, match=r"(?i)foreign key"), ledger.write() as connection:
        connection.execute(insert(SaliencyMap).values(**values, parameters={}, created=now()))


def test_a_database_that_is_away_is_named_without_its_password(settings: Settings) -> None:
    away = dataclasses.replace(settings, ledger_url="postgresql://me:secret@127.0.0.1:9/convscope")
    with pytest.raises(
        LedgerError, match=r"the ledger at .*127\.0\.0\.1:9/convscope does not work"
    ) as caught:
        Ledger(away).migrate()
    assert "secret" not in str(caught.value)


def test_a_home_that_cannot_be_written_to_is_named(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerError, match=r"expected a folder, or nothing, at .*/file, got a file"):
        Ledger(dataclasses.replace(settings, home=tmp_path / "file")).migrate()


def test_a_url_of_another_database_is_refused(settings: Settings) -> None:
    with pytest.raises(LedgerError, match="expected postgresql://"):
        Ledger(dataclasses.replace(settings, ledger_url="mysql://host/database"))


def test_few_writers_of_a_server_wait_for_a_locked_sqlite_and_none_is_lost(
    settings: Settings,
) -> None:
    ledger = Ledger(settings)
    ledger.migrate()
    ledger.serve_pages()

    def write(_: int) -> str:
        try:
            with ledger.write() as connection:
                connection.execute(text("UPDATE saved_queries SET query = query"))
                time.sleep(0.005)
        except LedgerError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(write, range(48))) == [""] * 48, "many at once take turns"
        with contextlib.closing(sqlite3.connect(settings.home / "ledger.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [pool.submit(write, number) for number in range(16)]
            time.sleep(2 * BRIEF_SECONDS)
            assert sum(not one.done() for one in waiting) == PATIENT + 1, "the one whose turn it is, and four"
            begun = time.monotonic()
            with ledger.read() as connection:
                connection.execute(text("SELECT count(*) FROM saved_queries"))
            assert time.monotonic() - begun < 0.3, "readers wait for nobody"
            assert all("is locked by another writer" in one.result() for one in waiting)
            other.rollback()
        assert write(0) == ""
    ledger.close()
