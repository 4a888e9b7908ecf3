"""The atlas: versioned, immutable DuckDB files behind a pointer that is replaced atomically.

DuckDB allows one read-write process or many read-only ones. So nobody writes a file that is being read: a
publisher copies the current version, changes the copy, checks it and moves the pointer; readers notice the
new pointer at their next query. A publisher that dies leaves only a `.building` file, which the next one
removes. A file of an older version of the schema enters the next file through the steps of `db.atlas.migrations`
instead of a copy: when something is published, or when a home is opened (`db.home`).
"""

import contextlib
import fcntl
import math
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from db.atlas.migrations import known_versions, latest_version
from db.atlas.migrations.chain import WrongStep, columns_of, is_older, migrate
from db.atlas.schema import ddl
from db.files import file_sentence, make_home, no_space_sentence, sync, write_file
from db.settings import Settings

# What DuckDB raises where a file does not hold what it says, or lacks tables; not for what a statement asks.
_DAMAGE = (
    duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException,
    duckdb.CatalogException,
)  # fmt: skip
_VERSION = re.compile(rb"\d{6,9}\s*")

# Each of these must return no row, or the version is not published.
_INVARIANTS: dict[str, str] = {
    "image ids are dense from 0": """
        SELECT image_set FROM images GROUP BY image_set
        HAVING count(*) <> max(image_id) + 1 OR count(DISTINCT image_id) <> count(*)""",
    "image_sets counts its images": """
        SELECT s.image_set FROM image_sets s
        LEFT JOIN (SELECT image_set, count(*) AS n FROM images GROUP BY 1) i USING (image_set)
        WHERE s.images <> coalesce(i.n, 0)""",
    "one run for a model and an image set": """
        SELECT model, image_set FROM runs GROUP BY ALL HAVING count(*) > 1""",
    "a run's model and image set are there": """
        SELECT run FROM runs ANTI JOIN models USING (model)
        UNION ALL SELECT run FROM runs ANTI JOIN image_sets USING (image_set)""",
    "activations belong to a run, a layer and an image": """
        SELECT a.run FROM (SELECT DISTINCT run, layer FROM activations) a
        LEFT JOIN runs r USING (run) LEFT JOIN layers l ON l.model = r.model AND l.layer = a.layer
        WHERE r.run IS NULL OR l.layer IS NULL
        UNION ALL
        SELECT a.run FROM (SELECT run, max(image_id) AS last FROM activations GROUP BY run) a
        JOIN runs r USING (run) JOIN image_sets s USING (image_set) WHERE a.last >= s.images""",
    "positions lie in their layer's map": """
        SELECT a.run FROM (SELECT run, layer, max(y) AS y, max(x) AS x FROM activations GROUP BY ALL) a
        JOIN runs r USING (run) JOIN layers l ON l.model = r.model AND l.layer = a.layer
        WHERE a.y >= l.height OR a.x >= l.width""",
    "ranks are dense from 1": """
        SELECT run FROM activations GROUP BY run, layer, channel
        HAVING min(rank) <> 1 OR max(rank) <> count(*) OR count(DISTINCT image_id) <> count(*)""",
    "both copies of the activations agree": """
        SELECT run FROM (SELECT run, count(*) AS n FROM activations GROUP BY run)
        FULL JOIN (SELECT run, count(*) AS m FROM activations_by_image GROUP BY run) USING (run)
        WHERE n IS DISTINCT FROM m""",
}


class AtlasError(RuntimeError):
    """The atlas cannot be read or published; the message is one sentence for the person who asked."""


class NoAtlas(AtlasError):
    """Nothing was ever published: there are no images and no runs yet."""


@dataclass(frozen=True)
class Query:
    """A SELECT with named parameters (`$name`); the one value behind a table, its SQL and its download."""

    sql: str
    values: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The statement with its values written in, ready to paste into any DuckDB client."""
        # in one pass: a value that holds `$name` stays as it is
        names = "|".join(sorted(map(re.escape, self.values), key=len, reverse=True))
        text = self.sql.strip()
        if names:
            text = re.sub(rf"\$({names})\b", lambda found: _literal(self.values[found[1]]), text)
        return text + ";"


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and not math.isfinite(value):
        return f"'{value}'::DOUBLE"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value}'"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return "'" + str(value).replace("'", "''") + "'"


class Atlas:
    """The atlas below one `CONVSCOPE_HOME`. Safe to share between threads; readers keep one file open."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home
        self.folder = settings.home / "atlas"
        self._memory = settings.atlas_memory
        self._lock = threading.Lock()
        self._open: tuple[str, duckdb.DuckDBPyConnection] | None = None

    def version(self) -> str | None:
        """Version that is current, None where nothing was published yet.

        Raises:
            AtlasError: the pointer cannot be read, or is none.
        """
        pointer = self.folder / "CURRENT"
        try:
            text = pointer.read_bytes()
        except FileNotFoundError:
            self._check_no_versions()
            return None
        except OSError as error:  # no permission, or a folder of that name
            raise AtlasError(f"the atlas cannot be read: {file_sentence(error)}") from error
        if not _VERSION.fullmatch(text):
            raise AtlasError(
                f"{pointer} is damaged: expected a version such as 000001, got {text[:20]!r}; {self._repair()}"
            )
        return text.decode().strip()

    def _check_no_versions(self) -> None:
        """A first publication that died leaves a file and no pointer; a pointer that somebody removed leaves two."""
        versions = self._versions()
        if versions and versions != ["000001"]:
            raise AtlasError(
                f"{self.folder / 'CURRENT'} is missing, and without it no atlas is read; {self._repair()}"
            )

    def _versions(self) -> list[str]:
        return sorted(
            path.stem for path in self.folder.glob("*.duckdb") if _VERSION.fullmatch(path.stem.encode())
        )

    def _repair(self) -> str:
        """What a person can do about a pointer that names no atlas."""
        versions = self._versions()
        if versions:
            return f"write {versions[-1]} into it, the newest atlas in the folder, or restore a copy of the folder"
        return _restore(self.folder)

    def path(self) -> Path:
        """The current file, for any DuckDB client.

        Raises:
            NoAtlas: nothing was published yet.
        """
        version = self.version()
        if version is None:
            raise NoAtlas(f"there is no atlas in {self.home} yet: import images first")
        return self.folder / f"{version}.duckdb"

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only cursor on the current version; it keeps showing that version until it is closed.

        Raises:
            NoAtlas: nothing was published yet.
            AtlasError: the file is damaged, or was written by another version of Convscope.
        """
        cursor = self._connection().cursor()
        try:
            yield cursor
        except _DAMAGE as error:
            self.close()  # a database that met a fatal error answers nothing any more
            raise AtlasError(
                f"the atlas in {self.folder} cannot be read, and may be damaged: {_first_line(error)}; "
                f"{_restore(self.folder)}"
            ) from error
        finally:
            cursor.close()

    def fetch(self, query: Query) -> list[dict[str, Any]]:
        """Rows of `query` as dictionaries, on the current version."""
        rows: list[dict[str, Any]] = self.fetch_arrow(query).to_pylist()
        return rows

    def fetch_arrow(self, query: Query) -> pa.Table:
        """Rows of `query` as an Arrow table, on the current version."""
        with self.read() as cursor:
            return cursor.sql(query.sql, params=query.values or None).to_arrow_table()

    @contextlib.contextmanager
    def publish(self, *, compact: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-write connection to a copy of the current version, published when the block ends well.

        An exception in the block, or a law that does not hold, leaves the current version as it is. Publishers
        wait for each other. What is published has this version's tables, whatever the current file has.

        Args:
            compact: write the new version without the space of what the block removed, which a file keeps otherwise.

        Raises:
            AtlasError: a law does not hold for the changed copy, or it cannot be written.
        """
        with self._next_version() as (before, building):
            older = self._older()
            if before is not None and older is None:
                shutil.copyfile(before, building)
            with contextlib.closing(self._connect(building)) as connection:
                if before is None:
                    connection.execute(ddl())
                elif older is not None:
                    migrate(before, older, connection)
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
                _check_laws(connection)
                connection.execute("CHECKPOINT")
                if compact:
                    _copy(connection, smaller := building.with_name(f"{building.name}.smaller"))
            if compact:
                smaller.rename(building)

    def schema(self) -> int | None:
        """Version of the current file's tables, None where nothing was published; nothing is changed.

        Raises:
            AtlasError: it is damaged, or neither this version's nor one that can be upgraded.
        """
        found = self._found()
        return None if found is None else found[0]

    def is_older(self) -> bool:
        """Whether `upgrade` would publish: an older version, or one without columns that came to it later.

        Raises:
            AtlasError: as `schema`.
        """
        return self._older() is not None

    def _older(self) -> int | None:
        """Version of the current file where it is to be upgraded."""
        found = self._found()
        return found[0] if found is not None and is_older(*found) else None

    def _found(self) -> tuple[int, dict[str, list[str]]] | None:
        """Version of the current file and its columns by table."""
        for _ in range(10):
            version = self.version()
            if version is None:
                return None
            path = self.folder / f"{version}.duckdb"
            try:
                connection = duckdb.connect(str(path), read_only=True, config={"memory_limit": self._memory})
            except duckdb.Error as error:
                if self.version() != version:
                    continue
                raise self._unreadable(path, error) from error
            with contextlib.closing(connection):
                found = _schema_of(connection, path)
                columns = columns_of(connection, path.stem)
            if found not in known_versions():
                raise _wrong_schema(path, found)
            return found, columns
        raise self._restless()

    def upgrade(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Publish the current file's rows in the present tables; does nothing where they are there already.

        The older file is removed at the very end; whatever fails before leaves it as it was.

        Args:
            meanwhile: called once the new file is whole and before it is published, for what is to be changed with it.

        Raises:
            AtlasError: it is damaged or of a version that is not known, breaks a law, or cannot be written.
        """
        with self._next_version() as (before, building):
            older = self._older()
            if before is None or older is None:
                raise _NothingNew
            with contextlib.closing(self._connect(building)) as connection:
                migrate(before, older, connection)
                _check_laws(connection)
                connection.execute("CHECKPOINT")
            meanwhile()

    @contextlib.contextmanager
    def _next_version(self) -> Iterator[tuple[Path | None, Path]]:
        """The current file, None where there is none, and where to build the next, which is published after the block.

        Whoever else publishes waits meanwhile. Where the block raises, all stays as it is.
        """
        make_home(self.home)
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "LOCK").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in self.folder.glob("*.building*"):
                stale.unlink()
            version = self.version()
            before = None if version is None else self.folder / f"{version}.duckdb"
            after = f"{int(version or 0) + 1:06d}"
            building = self.folder / f"{after}.duckdb.building"
            try:
                yield before, building
                sync(building)
                building.rename(self.folder / f"{after}.duckdb")
                write_file(self.folder / "CURRENT", f"{after}\n".encode(), synced=True)
            except _NothingNew:
                _discard(building)
                return
            except WrongStep as error:
                _discard(building)
                raise AtlasError(f"{before} cannot be upgraded: {error}") from error
            except duckdb.IOException as error:
                _discard(building)
                raise self._unwritable(error, before) from error
            except BaseException:
                _discard(building)
                raise
            # An open reader keeps its file's contents until it lets go: POSIX unlink.
            for old in self.folder.glob("*.duckdb"):
                if old.stem != after:
                    old.unlink()

    def _connect(self, path: Path) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(path), config={"memory_limit": self._memory})

    def _restless(self) -> AtlasError:
        return AtlasError(f"{self.folder} changes faster than it can be opened")

    def _unwritable(self, error: duckdb.Error, before: Path | None) -> AtlasError:
        said = str(error).splitlines()[0]
        if "No space left" in said or "disk quota" in said.lower():
            needed = before.stat().st_size if before is not None and before.exists() else None
            said = no_space_sentence(self.folder, needed=needed)
        return AtlasError(f"a new version of the atlas cannot be written: {said}")

    def _unreadable(self, path: Path, error: duckdb.Error) -> AtlasError:
        if not path.exists():
            return AtlasError(
                f"{path} is missing, which {self.folder / 'CURRENT'} names as the atlas; {self._repair()}"
            )
        if not os.access(path, os.R_OK):
            return AtlasError(f"the atlas cannot be read: no permission for {path}: check its owner and mode")
        if "newer version" in str(error).lower():
            return AtlasError(f"{path} was written by a newer DuckDB: use the newer Convscope that wrote it")
        return AtlasError(
            f"{path} cannot be opened, and may be damaged: {_first_line(error)}; {_restore(self.folder)}"
        )

    def close(self) -> None:
        """Let go of the open file."""
        with self._lock:
            if self._open is not None:
                self._open[1].close()
                self._open = None

    def _connection(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            for _ in range(10):
                version = self.version()
                if version is None:
                    raise NoAtlas(f"there is no atlas in {self.home} yet: import images first")
                if self._open is not None and self._open[0] == version:
                    return self._open[1]
                path = self.folder / f"{version}.duckdb"
                try:
                    connection = duckdb.connect(
                        str(path), read_only=True, config={"memory_limit": self._memory}
                    )
                except duckdb.Error as error:
                    if self.version() != version:
                        continue  # replaced between reading the pointer and opening the file
                    raise self._unreadable(path, error) from error
                _check_schema(connection, path)
                # Not closed but dropped: closing would close the cursors that still read the old version.
                self._open = (version, connection)
                return connection
            raise self._restless()


class _NothingNew(Exception):
    """The block of `_next_version` found nothing to publish."""


def _check_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    found = _schema_of(connection, path)
    if found != latest_version():
        raise _wrong_schema(path, found)


def _schema_of(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    try:
        row = connection.execute("SELECT schema_version FROM atlas_info").fetchone()
    except duckdb.Error as error:
        raise AtlasError(
            f"{path} is not an atlas, or a damaged one: {_first_line(error)}; {_restore(path.parent)}"
        ) from error
    if row is None or not isinstance(row[0], int):
        raise AtlasError(f"{path} is damaged: it does not say its version; {_restore(path.parent)}")
    return row[0]


def _wrong_schema(path: Path, found: int) -> AtlasError:
    this = f"Convscope {metadata.version('convscope')} reads version {latest_version()}"
    if found > latest_version():
        return AtlasError(
            f"{path} has tables of version {found}, and {this}: use the newer Convscope that wrote it, or "
            "another CONVSCOPE_HOME"
        )
    if found not in known_versions():
        known = ", ".join(map(str, sorted(known_versions())))
        return AtlasError(
            f"{path} has tables of version {found}, which no Convscope wrote: expected one of {known}; "
            f"{_restore(path.parent)}"
        )
    return AtlasError(
        f"{path} has tables of version {found}, and {this}: any command of this Convscope upgrades it, for example "
        "`convscope images list`"
    )


def _restore(folder: Path) -> str:
    return f"restore a copy of {folder}, or move that folder away and import and index again"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _copy(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write all that `connection` has to a new file, tables in their order of rows."""
    path.unlink(missing_ok=True)
    (row,) = connection.execute("SELECT current_database()").fetchall()
    connection.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS smaller")
    connection.execute(f'COPY FROM DATABASE "{row[0]}" TO smaller')
    connection.execute("DETACH smaller")


def _check_laws(connection: duckdb.DuckDBPyConnection) -> None:
    for law, query in _INVARIANTS.items():
        row = connection.execute(query).fetchone()
        if row is not None:
            raise AtlasError(f"not published: the law '{law}' does not hold for {row[0]!r}")


def _discard(building: Path) -> None:
    for left in building.parent.glob(f"{building.name}*"):
        left.unlink(missing_ok=True)
