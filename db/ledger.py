"""The ledger's database: SQLite in WAL mode below the home, or PostgreSQL by URL.

Every process that opens a ledger brings it to the newest tables first; starters wait for each other.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, DateTime, Engine, create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.pool import ConnectionPoolEntry

from db.change_counts import count_changes
from db.settings import Settings

MIGRATIONS = Path(__file__).parents[1] / "migrations"
_BUSY_MILLISECONDS = 15_000
_MIGRATION_LOCK = 7_284_511  # PostgreSQL's advisory locks are numbers; this one is ours


class LedgerError(RuntimeError):
    """The ledger cannot be used; the message is one sentence for the person who runs Convscope."""


def now() -> datetime:
    """The present time as the ledger keeps it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def moment(connection: Connection) -> Any:
    """The present time by the ledger's own clock, for statements: hosts that share a database have clocks that differ.

    An SQL expression on PostgreSQL, a datetime on SQLite, whose processes share one host. Differences from timedelta
    may be added to either.
    """
    if connection.dialect.name == "sqlite":
        return now()
    return func.timezone("UTC", func.clock_timestamp(), type_=DateTime())


def present(connection: Connection) -> datetime:
    """The present time by the ledger's own clock, to compare with what was read from it."""
    if connection.dialect.name == "sqlite":
        return now()
    found: datetime = connection.execute(select(moment(connection))).scalar_one()
    return found


class Ledger:
    """The ledger below one `CONVSCOPE_HOME`, or at its `CONVSCOPE_LEDGER_URL`. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home
        self.url = settings.ledger_url or f"sqlite:///{settings.home / 'ledger.sqlite'}"
        self.engine = _engine(self.url)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the ledger.

        Raises:
            LedgerError: the database cannot be reached.
        """
        with _in_sentences(self.engine), self.engine.connect() as connection:
            if self.engine.dialect.name == "postgresql":  # where each statement sees another state otherwise
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all of the block or, where it raises, nothing of it.

        Raises:
            LedgerError: the database cannot be reached, or written to.
        """
        with (
            _in_sentences(self.engine),
            self.engine.connect().execution_options(convscope_writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    def migrate(self, revision: str = "head") -> None:
        """Bring the tables to `revision`; does nothing where they are there already.

        Raises:
            LedgerError: the database cannot be reached, or was made by a newer Convscope.
        """
        with _in_sentences(self.engine), self._only_one() as connection:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            script = ScriptDirectory.from_config(config)
            known = {found.revision for found in script.walk_revisions()}
            present = _revision(connection)
            if present is not None and present not in known:
                raise LedgerError(
                    f"the ledger at {self._shown()} has tables of revision {present}, this Convscope knows up to "
                    f"{script.get_current_head()}: use the newer Convscope, or another CONVSCOPE_HOME"
                )
            try:
                if revision == "base" or (present and revision != "head" and revision < present):
                    command.downgrade(config, revision)
                else:
                    command.upgrade(config, revision)
            except CommandError as error:
                raise LedgerError(f"the ledger at {self._shown()} cannot be migrated: {error}") from error
            count_changes(connection)

    def close(self) -> None:
        """Close idle connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[Connection]:
        """A connection on which nobody else migrates meanwhile."""
        if self.engine.dialect.name != "sqlite":
            with self.engine.connect() as connection:
                connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
                connection.commit()
                try:
                    yield connection
                finally:
                    connection.rollback()
                    connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK})
                    connection.commit()
            return
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            with (self.home / "ledger.LOCK").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with self.engine.connect() as connection:
                    yield connection
        except OSError as error:
            raise LedgerError(f"{self.home} cannot be written to: {error.strerror or error}") from error

    def _shown(self) -> str:
        """The URL without its password."""
        return make_url(self.url).render_as_string(hide_password=True)


def _revision(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    found = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    return found


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
            return create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 5})
        if parsed.get_backend_name() != "sqlite":
            raise NoSuchModuleError(parsed.get_backend_name())
        engine = create_engine(parsed, connect_args={"timeout": _BUSY_MILLISECONDS / 1000})
    except (ArgumentError, NoSuchModuleError) as error:
        raise LedgerError(
            f"CONVSCOPE_LEDGER_URL: expected postgresql://user:password@host/database, or nothing, got {url!r}"
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = (
        None  # transactions begin where `_begin_sqlite` says, not at the first INSERT
    )
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # what was said to be kept is kept, also when the power goes
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once: one that began by reading could find the state changed, and fail."""
    writes = connection.get_execution_options().get("convscope_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def _in_sentences(engine: Engine) -> Iterator[None]:
    """Whatever a database does wrong is a LedgerError: away, read-only after a failover, full, damaged, without tables.

    A row that may not be there twice is no such fault: whoever writes decides what it means.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PendingRollbackError, NoConnectionFree) as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise LedgerError(f"the ledger at {shown} does not work: {_what(error)}") from error


def _what(error: SQLAlchemyError) -> str:
    """What the database said, in one line."""
    if isinstance(error, NoConnectionFree):
        return "all connections are in use"
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(said).split())
