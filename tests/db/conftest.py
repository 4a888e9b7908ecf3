"""A ledger on each database that Convscope works with."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import postgres_server, server_programs
from sqlalchemy import text

from db.ledger import Ledger
from db.settings import Settings


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL; skips where none is installed."""
    programs = server_programs()
    if programs is None:
        pytest.skip("NO POSTGRESQL: neither /usr/lib/postgresql nor the PATH has an initdb")
    # a socket's path is short, and another user must reach it
    with (
        tempfile.TemporaryDirectory(prefix="convscope-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        postgres_server(programs, Path(folder)) as url,
    ):
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings of an empty ledger on each kind of database."""
    if request.param == "sqlite":
        return settings
    url = request.getfixturevalue("postgres_url")
    emptied = dataclasses.replace(settings, ledger_url=url)
    ledger = Ledger(emptied)
    with ledger.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    ledger.close()
    return emptied


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[Ledger]:
    """A ledger with its tables and no rows."""
    found = Ledger(ledger_settings)
    found.migrate()
    yield found
    found.close()
