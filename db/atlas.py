"""The atlas: versioned, immutable DuckDB files behind a pointer that is replaced atomically.

DuckDB allows one read-write process or many read-only ones. So nobody writes a file that is being read: a
publisher copies the current version, changes the copy, checks it and moves the pointer; readers notice the
new pointer at their next query. A publisher that dies leaves only a `.building` file, which the next one
removes.
"""

import contextlib
import fcntl
import math
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from db.files import sync
from db.schema import SCHEMA_VERSION, ddl
from db.settings import Settings

# Each of these must return no row, or the version is not published.
_LAWS: dict[str, str] = {
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
        """Version that is current, None where nothing was published yet."""
        try:
            return (self.folder / "CURRENT").read_text().strip()
        except FileNotFoundError:
            return None

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
        wait for each other.

        Args:
            compact: write the new version without the space of what the block removed, which a file keeps otherwise.

        Raises:
            AtlasError: a law does not hold for the changed copy, or it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "LOCK").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in self.folder.glob("*.building*"):
                stale.unlink()
            before = self.version()
            after = f"{int(before or 0) + 1:06d}"
            building = self.folder / f"{after}.duckdb.building"
            try:
                if before is not None:
                    shutil.copyfile(self.folder / f"{before}.duckdb", building)
                connection = duckdb.connect(str(building), config={"memory_limit": self._memory})
                with contextlib.closing(connection):
                    if before is None:
                        connection.execute(ddl())
                    _check_schema(connection, building)
                    connection.execute("BEGIN")
                    yield connection
                    connection.execute("COMMIT")
                    _check_laws(connection)
                    connection.execute("CHECKPOINT")
                    if compact:
                        _copy(connection, smaller := building.with_name(f"{building.name}.smaller"))
                if compact:
                    smaller.rename(building)
                sync(building)
                building.rename(self.folder / f"{after}.duckdb")
                _replace_text(self.folder / "CURRENT", after)
            except duckdb.IOException as error:
                _discard(building)
                what = str(error).splitlines()[0]
                raise AtlasError(f"a new version cannot be written to {self.folder}: {what}") from error
            except BaseException:
                _discard(building)
                raise
            # An open reader keeps its file's contents until it lets go: POSIX unlink.
            for old in self.folder.glob("*.duckdb"):
                if old.stem != after:
                    old.unlink()

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
                    if not path.exists():
                        continue  # replaced between reading the pointer and opening the file
                    what = str(error).splitlines()[0]
                    raise AtlasError(f"{path} cannot be opened, and may be damaged: {what}") from error
                _check_schema(connection, path)
                # Not closed but dropped: closing would close the cursors that still read the old version.
                self._open = (version, connection)
                return connection
            raise AtlasError(f"{self.folder} changes faster than it can be opened")


def _check_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    row = connection.execute("SELECT schema_version FROM atlas_info").fetchone()
    found = row[0] if row else None
    if found != SCHEMA_VERSION:
        raise AtlasError(
            f"{path} has tables of version {found}, this Convscope reads version {SCHEMA_VERSION}: "
            "use another CONVSCOPE_HOME and index again"
        )


def _copy(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write all that `connection` has to a new file, tables in their order of rows."""
    path.unlink(missing_ok=True)
    (row,) = connection.execute("SELECT current_database()").fetchall()
    connection.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS smaller")
    connection.execute(f'COPY FROM DATABASE "{row[0]}" TO smaller')
    connection.execute("DETACH smaller")


def _check_laws(connection: duckdb.DuckDBPyConnection) -> None:
    for law, query in _LAWS.items():
        row = connection.execute(query).fetchone()
        if row is not None:
            raise AtlasError(f"not published: the law '{law}' does not hold for {row[0]!r}")


def _discard(building: Path) -> None:
    for left in building.parent.glob(f"{building.name}*"):
        left.unlink(missing_ok=True)


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text + "\n")
    sync(temporary)
    temporary.rename(path)
    sync(path.parent)
