"""A ledger on each database that Convscope works with."""

import dataclasses
from collections.abc import Iterator

import pytest
from postgres import installed_postgres
from sqlalchemy import text

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.settings import Settings
from db.sql.runner import SQLRunner


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL; skips where none is installed."""
    with installed_postgres() as (url, _):
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


@pytest.fixture(scope="module")
def runner(home: Settings) -> Iterator[SQLRunner]:
    """Runs SQL over the `home` of a module, whose ledger has its tables."""
    ledger = Ledger(home)
    found = SQLRunner(home, Atlas(home), ledger)
    yield found
    found.close()
    ledger.close()
