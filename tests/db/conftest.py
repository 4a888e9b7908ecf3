"""A ledger on each database that Convscope supports."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import installed_postgres
from sqlalchemy import create_engine, text

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.settings import Settings, read_settings
from db.sql.runner import SQLRunner


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL; skips the test if none is installed."""
    with installed_postgres() as (url, _):
        yield url


@pytest.fixture(scope="session")
def migrated_database(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a database with the ledger's tables and no rows, to be copied."""
    url = make_database(postgres_url, "migrated")
    home = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("migrated"))})
    made = Ledger(dataclasses.replace(home, ledger_url=url))
    made.migrate()
    made.close()
    return "migrated"


def make_database(server: str, name: str, *, template: str = "template1") -> str:
    """Recreate the database of that name as a copy of `template` and return its URL."""
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_settings(request: pytest.FixtureRequest, settings: Settings, migrated_ledger: Path) -> Settings:
    """Settings of a ledger on each kind of database: with its tables for a test that takes `ledger`, else empty."""
    with_tables = "ledger" in request.fixturenames
    if request.param == "sqlite":
        if with_tables:
            settings.home.mkdir(parents=True, exist_ok=True)
            shutil.copy(migrated_ledger, settings.home / migrated_ledger.name)
        return settings
    template = request.getfixturevalue("migrated_database") if with_tables else "template1"
    url = make_database(request.getfixturevalue("postgres_url"), "tests", template=template)
    return dataclasses.replace(settings, ledger_url=url)


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[Ledger]:
    """A ledger with its tables and no rows."""
    found = Ledger(ledger_settings)
    found.migrate()
    yield found
    found.close()


@pytest.fixture(scope="module")
def runner(home: Settings) -> Iterator[SQLRunner]:
    """Runs SQL over the module's `home`, whose ledger has its tables."""
    ledger = Ledger(home)
    found = SQLRunner(home, Atlas(home), ledger)
    yield found
    found.close()
    ledger.close()
