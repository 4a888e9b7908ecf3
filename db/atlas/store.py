"""The atlas: versioned, immutable DuckDB files behind a pointer that is replaced atomically.

DuckDB allows one read-write process or many read-only ones. So a file that may be open for reading is never
written: a publisher copies the current version, changes the copy, checks it and moves the pointer. Readers
notice the new pointer at their next query. A publisher that dies leaves only a `.building` file, which the
next one removes. A file with an older schema is not copied but migrated by the steps of
`db.atlas.migrations`, on the next publication or when a home is opened (`db.home`).
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

# Raised by DuckDB for a corrupt file or missing tables, never because of the statement itself.
_DAMAGE = (
    duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException,
    duckdb.CatalogException,
)  # fmt: skip
_VERSION = re.compile(rb"\d{6,9}\s*")

# A version is published only if each of these returns no row.
_INVARIANTS: dict[str, str] = {
    "image ids are dense from 0": """
        SELECT image_set FROM images GROUP BY image_set
        HAVING count(*) <> max(image_id) + 1 OR count(DISTINCT image_id) <> count(*)""",
    "image_sets.images is the number of images": """
        SELECT s.image_set FROM image_sets s
        LEFT JOIN (SELECT image_set, count(*) AS n FROM images GROUP BY 1) i USING (image_set)
        WHERE s.images <> coalesce(i.n, 0)""",
    "there is one run per model and image set": """
        SELECT model, image_set FROM runs GROUP BY ALL HAVING count(*) > 1""",
    "the model and image set of a run exist": """
        SELECT run FROM runs ANTI JOIN models USING (model)
        UNION ALL SELECT run FROM runs ANTI JOIN image_sets USING (image_set)""",
    "each activation refers to an existing run, layer and image": """
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
    """The atlas cannot be read or published; the message is one sentence for the user."""


class NoAtlas(AtlasError):
    """Nothing has been published yet: there are no images and no runs."""


@dataclass(frozen=True)
class Query:
    """A SELECT with named parameters (`$name`); one value serves a table, its SQL and its download."""

    sql: str
    values: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The statement with its values as literals, ready to paste into any DuckDB client."""
        # in one pass, so a value that contains `$name` is not replaced
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
    """The atlas in one `CONVSCOPE_HOME`. Thread-safe; readers share one open file."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home
        self.folder = settings.home / "atlas"
        self._memory = settings.atlas_memory
        self._lock = threading.Lock()
        self._open: tuple[str, duckdb.DuckDBPyConnection] | None = None

    def version(self) -> str | None:
        """The current version, None if nothing has been published.

        Raises:
            AtlasError: the pointer cannot be read or is invalid.
        """
        pointer = self.folder / "CURRENT"
        try:
            text = pointer.read_bytes()
        except FileNotFoundError:
            self._check_no_versions()
            return None
        except OSError as error:  # no permission, or a folder with that name
            raise AtlasError(f"the atlas cannot be read: {file_sentence(error)}") from error
        if not _VERSION.fullmatch(text):
            raise AtlasError(
                f"{pointer} is damaged: expected a version such as 000001, got {text[:20]!r}; {self._repair()}"
            )
        return text.decode().strip()

    def _check_no_versions(self) -> None:
        """Raise if the pointer was lost: without one, there is at most the file of an interrupted first publication."""
        versions = self._versions()
        if versions and versions != ["000001"]:
            raise AtlasError(
                f"{self.folder / 'CURRENT'} is missing, so no atlas can be read; {self._repair()}"
            )

    def _versions(self) -> list[str]:
        return sorted(
            path.stem for path in self.folder.glob("*.duckdb") if _VERSION.fullmatch(path.stem.encode())
        )

    def _repair(self) -> str:
        """How the user can repair a pointer that names no atlas."""
        versions = self._versions()
        if versions:
            return f"write {versions[-1]} into it, the newest atlas in the folder, or restore a backup of the folder"
        return _restore(self.folder)

    def path(self) -> Path:
        """The current file, for any DuckDB client.

        Raises:
            NoAtlas: nothing has been published.
        """
        version = self.version()
        if version is None:
            raise NoAtlas(f"there is no atlas in {self.home} yet; import images first")
        return self.folder / f"{version}.duckdb"

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only cursor on the current version; it keeps showing that version until it is closed.

        Raises:
            NoAtlas: nothing has been published.
            AtlasError: the file is damaged, or was written by another version of Convscope.
        """
        cursor = self._connection().cursor()
        try:
            yield cursor
        except _DAMAGE as error:
            self.close()  # after a fatal error DuckDB refuses every query
            raise AtlasError(
                f"the atlas in {self.folder} cannot be read, and may be damaged: {_first_line(error)}; "
                f"{_restore(self.folder)}"
            ) from error
        finally:
            cursor.close()

    def fetch(self, query: Query) -> list[dict[str, Any]]:
        """Rows of `query` on the current version, as dictionaries."""
        rows: list[dict[str, Any]] = self.fetch_arrow(query).to_pylist()
        return rows

    def fetch_arrow(self, query: Query) -> pa.Table:
        """Rows of `query` on the current version, as an Arrow table."""
        with self.read() as cursor:
            return cursor.sql(query.sql, params=query.values or None).to_arrow_table()

    @contextlib.contextmanager
    def publish(self, *, compact: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-write connection to a copy of the current version, published when the block succeeds.

        If the block raises or an invariant is violated, the current version stays unchanged. Publishers wait
        for each other. The published file always has this version's tables, whatever the current file has.

        Args:
            compact: reclaim the space of removed rows, which the file would otherwise keep.

        Raises:
            AtlasError: the changed copy violates an invariant or cannot be written.
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
        """Schema version of the current file, None if nothing has been published; read-only.

        Raises:
            AtlasError: the file is damaged, or its version is neither current nor upgradable.
        """
        found = self._found()
        return None if found is None else found[0]

    def is_older(self) -> bool:
        """Whether `upgrade` would publish: the file has an older version, or lacks columns added to its version later.

        Raises:
            AtlasError: see `schema`.
        """
        return self._older() is not None

    def _older(self) -> int | None:
        """Version of the current file if it needs an upgrade."""
        found = self._found()
        return found[0] if found is not None and is_older(*found) else None

    def _found(self) -> tuple[int, dict[str, list[str]]] | None:
        """Version of the current file, and its columns by table."""
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
        """Publish the current file's rows in the current tables; does nothing if they are up to date.

        The older file is removed last; any earlier failure leaves it unchanged.

        Args:
            meanwhile: called when the new file is complete but not yet published, for changes that belong
                with it.

        Raises:
            AtlasError: the file is damaged, has an unknown version, violates an invariant, or cannot be
                written.
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
        """The current file (None if there is none) and the path for the next one, which is published after the block.

        Other publishers wait meanwhile. If the block raises, nothing changes.
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
            # An open reader keeps its file's contents until it closes it: POSIX unlink.
            for old in self.folder.glob("*.duckdb"):
                if old.stem != after:
                    old.unlink()

    def _connect(self, path: Path) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(path), config={"memory_limit": self._memory})

    def _restless(self) -> AtlasError:
        return AtlasError(f"{self.folder} changes too often to be opened")

    def _unwritable(self, error: duckdb.Error, before: Path | None) -> AtlasError:
        said = str(error).splitlines()[0]
        if "No space left" in said or "disk quota" in said.lower():
            needed = before.stat().st_size if before is not None and before.exists() else None
            said = no_space_sentence(self.folder, needed=needed)
        return AtlasError(f"a new version of the atlas cannot be written: {said}")

    def _unreadable(self, path: Path, error: duckdb.Error) -> AtlasError:
        if not path.exists():
            return AtlasError(
                f"{path} is missing, but {self.folder / 'CURRENT'} names it as the atlas; {self._repair()}"
            )
        if not os.access(path, os.R_OK):
            return AtlasError(f"the atlas cannot be read: no permission for {path}; check its owner and mode")
        if "newer version" in str(error).lower():
            return AtlasError(f"{path} was written by a newer DuckDB: use the newer Convscope that wrote it")
        return AtlasError(
            f"{path} cannot be opened, and may be damaged: {_first_line(error)}; {_restore(self.folder)}"
        )

    def close(self) -> None:
        """Close the open file."""
        with self._lock:
            if self._open is not None:
                self._open[1].close()
                self._open = None

    def _connection(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            for _ in range(10):
                version = self.version()
                if version is None:
                    raise NoAtlas(f"there is no atlas in {self.home} yet; import images first")
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
                # Dropped, not closed: closing would also close cursors that still read the old version.
                self._open = (version, connection)
                return connection
            raise self._restless()


class _NothingNew(Exception):
    """The block of `_next_version` has nothing to publish."""


def _check_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    found = _schema_of(connection, path)
    if found != latest_version():
        raise _wrong_schema(path, found)


def _schema_of(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    try:
        row = connection.execute("SELECT schema_version FROM atlas_info").fetchone()
    except duckdb.Error as error:
        raise AtlasError(
            f"{path} is not an atlas, or it is damaged: {_first_line(error)}; {_restore(path.parent)}"
        ) from error
    if row is None or not isinstance(row[0], int):
        raise AtlasError(f"{path} is damaged: it does not state its version; {_restore(path.parent)}")
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
            f"{path} has tables of version {found}, which no Convscope has written: expected one of {known}; "
            f"{_restore(path.parent)}"
        )
    return AtlasError(
        f"{path} has tables of version {found}, and {this}; any command of this Convscope upgrades it, for example "
        "`convscope images list`"
    )


def _restore(folder: Path) -> str:
    return f"restore a backup of {folder}, or move that folder away, then import and index again"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _copy(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write everything in `connection` to a new file, preserving the row order of each table."""
    path.unlink(missing_ok=True)
    (row,) = connection.execute("SELECT current_database()").fetchall()
    connection.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS smaller")
    connection.execute(f'COPY FROM DATABASE "{row[0]}" TO smaller')
    connection.execute("DETACH smaller")


def _check_laws(connection: duckdb.DuckDBPyConnection) -> None:
    for law, query in _INVARIANTS.items():
        row = connection.execute(query).fetchone()
        if row is not None:
            raise AtlasError(f"not published: the invariant '{law}' does not hold for {row[0]!r}")


def _discard(building: Path) -> None:
    for left in building.parent.glob(f"{building.name}*"):
        left.unlink(missing_ok=True)
