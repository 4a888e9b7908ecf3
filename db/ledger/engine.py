"""The ledger's database: SQLite in WAL mode in the home, or PostgreSQL by URL.

Every process that opens a ledger first migrates it to the latest revision; concurrent starts take turns.
"""

import contextlib
import fcntl
import functools
import os
import sqlite3
import stat
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from db.files import file_sentence, is_writable, make_home, no_space_sentence
from db.ledger.change_counts import count_changes
from db.ledger.write_turns import WriteTurns
from db.settings import Settings

MIGRATIONS = Path(__file__).parents[2] / "migrations"
BUSY_SECONDS = 15.0  # how long a command or a worker waits for another writer
PAGE_SECONDS = 3.0  # the same for the web server, where a user is waiting for a page
PAGE_WRITERS = 4  # concurrent writers of the web server on PostgreSQL: its other 11 connections serve pages
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's error code for an expired lock_timeout
_MIGRATION_LOCK = 7_284_511  # an arbitrary number for PostgreSQL's advisory lock


class LedgerError(RuntimeError):
    """The ledger cannot be used; the message is one sentence for the user."""


class DamagedLedger(LedgerError):
    """The ledger's file is damaged; the message is one sentence."""

    def __init__(self, file: Path | str, what: str) -> None:
        super().__init__(
            f"the ledger {file} cannot be read, and may be damaged: {what}; restore a backup, or move it "
            "away and start without jobs and results"
        )


class ReadOnlyHome(LedgerError):
    """A write was attempted in a read-only home; the message is one sentence."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"{home} is read-only: Convscope shows it and changes nothing")


def now() -> datetime:
    """The current time in the ledger's format: UTC, without a time zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def moment(connection: Connection) -> Any:
    """The current time by the database's clock, for statements: clocks differ between hosts that share a database.

    An SQL expression on PostgreSQL, a datetime on SQLite, whose processes share one host. A timedelta can be
    added to either.
    """
    if connection.dialect.name == "sqlite":
        return now()
    return func.timezone("UTC", func.clock_timestamp(), type_=DateTime())


def present(connection: Connection) -> datetime:
    """The current time by the database's clock, to compare with times read from the ledger."""
    if connection.dialect.name == "sqlite":
        return now()
    found: datetime = connection.execute(select(moment(connection))).scalar_one()
    return found


class Ledger:
    """The ledger in one `CONVSCOPE_HOME`, or at its `CONVSCOPE_LEDGER_URL`. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home
        self.file = None if settings.ledger_url else settings.home / "ledger.sqlite"
        self.url = settings.ledger_url or f"sqlite:///{self.file}"
        self.engine = _engine(self.url)
        # SQLite creates files next to the database, so it can write only if the folder is writable
        self.read_only = (
            self.file is not None
            and self.file.exists()
            and not (is_writable(self.home) and os.access(self.file, os.W_OK))
        )
        if self.read_only:
            assert self.file is not None
            self.engine = _read_only_engine(self.url, self.file)
        self._turns: WriteTurns | None = None

    def serve_pages(self) -> None:
        """From now on, give up quickly on locks, and limit how many writers of this process wait at once."""
        sqlite = self.engine.dialect.name == "sqlite"
        self._turns = WriteTurns(PAGE_SECONDS, 1 if sqlite else PAGE_WRITERS)
        if not sqlite:
            event.listen(self.engine, "connect", _wait_as_pages_do)
            self.engine.dispose()  # open connections still wait without a timeout

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one consistent state of the ledger.

        Raises:
            LedgerError: the database cannot be reached.
        """
        with _in_sentences(self.engine), self.engine.connect() as connection:
            if self.engine.dialect.name == "postgresql":  # by default each statement sees a new snapshot
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block and rolled back if the block raises.

        Raises:
            ReadOnlyHome: the home is read-only.
            LedgerError: the database cannot be reached or written to.
        """
        if self.read_only:
            raise ReadOnlyHome(self.home)
        with (
            self._turn() as seconds,
            _in_sentences(self.engine),
            self.engine.connect().execution_options(convscope_writes=seconds) as connection,
            connection.begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def _turn(self) -> Iterator[float]:
        """Wait for this thread's turn to write; yields how many seconds it may then wait for locks."""
        if self._turns is None:
            yield BUSY_SECONDS
            return
        with contextlib.ExitStack() as stack:
            try:
                seconds = stack.enter_context(self._turns.one())
            except TimeoutError as error:
                raise LedgerError(_locked(self.file or self._shown())) from error
            yield seconds

    def migrate(self, revision: str = "head") -> None:
        """Migrate the tables to `revision`; does nothing if they already have it.

        Raises:
            ReadOnlyHome: the tables have another revision, and the home is read-only.
            LedgerError: the database cannot be reached, or was created by a newer Convscope.
        """
        if self.read_only:
            if self.revision() != head():
                raise ReadOnlyHome(self.home)
            return
        with _in_sentences(self.engine), self._only_one() as connection:
            config = _alembic()
            config.attributes["connection"] = connection
            present = _revision(connection)
            self._check_known(present)
            try:
                if revision == "head" and present == head():
                    pass  # up to date: skip loading the migrations
                elif revision == "base" or (present and revision != "head" and revision < present):
                    command.downgrade(config, revision)
                else:
                    command.upgrade(config, revision)
            except CommandError as error:
                raise LedgerError(f"the ledger at {self._shown()} cannot be migrated: {error}") from error
            count_changes(connection)

    def revision(self) -> str | None:
        """Revision of the tables, None if there are none yet; read-only.

        Raises:
            LedgerError: the database cannot be reached, is damaged, or was created by a newer Convscope.
        """
        if self.file is None:
            with _in_sentences(self.engine), self.engine.connect() as connection:
                present = _revision(connection)
        elif not self.file.exists():
            present = None
        else:
            try:
                with contextlib.closing(_connect_to_read(self.file)) as database:
                    tables = database.execute(
                        "SELECT name FROM sqlite_master WHERE type = 'table'"
                    ).fetchall()
                    asked = "SELECT version_num FROM alembic_version"
                    rows = database.execute(asked).fetchall() if ("alembic_version",) in tables else []
            except sqlite3.Error as error:
                raise DamagedLedger(self.file, str(error)) from error
            if tables and not rows:
                raise DamagedLedger(self.file, "it does not state the revision of its tables")
            present = str(rows[0][0]) if rows else None
        self._check_known(present)
        return present

    def _check_known(self, present: str | None) -> None:
        if present is not None and present not in _revisions():
            raise LedgerError(
                f"the ledger at {self._shown()} has tables of revision {present}, Convscope "
                f"{metadata.version('convscope')} knows up to {head()}: use the newer Convscope "
                "that wrote it, or another CONVSCOPE_HOME"
            )

    def close(self) -> None:
        """Close idle connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[Connection]:
        """A connection under the migration lock: no other process migrates meanwhile."""
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
            make_home(self.home)
            if (
                self.file is not None and not self.file.exists()
            ):  # SQLite's other files get the mode of this one
                shared = self.home.stat().st_mode & stat.S_ISGID
                os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o660 if shared else 0o600))
            with (self.home / "ledger.LOCK").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with self.engine.connect() as connection:
                    yield connection
        except OSError as error:
            raise LedgerError(file_sentence(error)) from error

    def _shown(self) -> str:
        """The URL without its password."""
        return make_url(self.url).render_as_string(hide_password=True)


def head() -> str:
    """The revision of the tables that this Convscope uses."""
    return _revisions()[0]


@functools.cache
def _revisions() -> tuple[str, ...]:
    """All known revisions, newest first."""
    script = ScriptDirectory.from_config(_alembic())
    return tuple(found.revision for found in script.walk_revisions())


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


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
        engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
    except (ArgumentError, NoSuchModuleError) as error:
        raise LedgerError(
            f"CONVSCOPE_LEDGER_URL: expected postgresql://user:password@host/database, or an empty value, got {url!r}"
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _read_only_engine(url: str, file: Path) -> Engine:
    """An engine that creates no files. Each reader has its own connection: another process may write meanwhile."""
    engine = create_engine(make_url(url), creator=lambda: _connect_to_read(file), poolclass=NullPool)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _connect_to_read(file: Path) -> sqlite3.Connection:
    """A read-only connection. If no other process has the file open, SQLite need not create files next to it."""
    beside = file.with_name(f"{file.name}-wal")
    alone = not (beside.exists() and beside.stat().st_size)
    how = "mode=ro&immutable=1" if alone else "mode=ro"
    return sqlite3.connect(
        f"file:{quote(str(file))}?{how}", uri=True, isolation_level=None, check_same_thread=False
    )


def _prepare_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins transactions, not the first INSERT
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS:.0f}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # committed data survives a power failure
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _wait_as_pages_do(connection: Any, _record: ConnectionPoolEntry) -> None:
    """Limit waits for locks, which PostgreSQL does not limit by default."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {1000 * PAGE_SECONDS:.0f}")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at the start: a transaction that begins by reading could fail when it first writes."""
    seconds = connection.get_execution_options().get("convscope_writes")
    if seconds is not None:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * seconds:.0f}")
    connection.exec_driver_sql("BEGIN" if seconds is None else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def _in_sentences(engine: Engine) -> Iterator[None]:
    """Turn database failures into LedgerErrors: unreachable, read-only after a failover, full, damaged, tables missing.

    A violated unique constraint is not a failure: the caller decides what it means.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PendingRollbackError, NoConnectionFree) as error:
        raise _in_words(engine, error) from error
    except ValueError as error:
        if not _read_by_sqlalchemy(error):
            raise
        where = engine.url.database if engine.dialect.name == "sqlite" else None
        place = where or engine.url.render_as_string(hide_password=True)
        raise DamagedLedger(place, f"a row cannot be read ({' '.join(str(error).split())})") from error


def _read_by_sqlalchemy(error: BaseException) -> bool:
    """Whether an error comes from SQLAlchemy's conversion of a row, and not from the code that uses the rows."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    while files and f"{os.sep}json{os.sep}" in files[-1]:
        files.pop()
    return bool(files) and "sqlalchemy" in files[-1]


def _in_words(engine: Engine, error: SQLAlchemyError) -> LedgerError:
    said = _what(error)
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
        return LedgerError(_locked(engine.url.render_as_string(hide_password=True)))
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return LedgerError(
            f"the ledger at {engine.url.render_as_string(hide_password=True)} does not work: {said}"
        )
    file = Path(engine.url.database)
    if any(words in said for words in ("malformed", "not a database", "no such table", "no such column")):
        return DamagedLedger(file, said)
    if "disk is full" in said:
        return LedgerError(f"the ledger cannot be written: {no_space_sentence(file.parent)}")
    if "unable to open" in said:
        return LedgerError(
            f"the ledger {file} cannot be opened: check that its folder exists, and its owner and mode"
        )
    if "database is locked" in said:
        return LedgerError(_locked(file))
    if "readonly" in said:
        return LedgerError(
            f"the ledger {file} cannot be written: it, its folder or its file system is read-only"
        )
    return LedgerError(f"the ledger {file} does not work: {said}")


def _locked(place: Path | str) -> str:
    return f"the ledger {place} is locked by another writer, and nothing was written: try again in a moment"


def _what(error: SQLAlchemyError) -> str:
    """The database's message, in one line."""
    if isinstance(error, NoConnectionFree):
        return "all connections are in use"
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(said).split())
