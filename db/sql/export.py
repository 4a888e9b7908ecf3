"""Exports the atlas, the ledger's tables and the views over both to one DuckDB file, for any DuckDB client."""

import contextlib
import os
import shutil
from pathlib import Path

import duckdb

from db.atlas.schema import comment_on, ddl
from db.atlas.store import Atlas, NoAtlas
from db.files import sync
from db.ledger.arrow import LedgerTables
from db.ledger.comments import COMMENTS
from db.ledger.engine import Ledger
from db.sql.views import VIEWS, with_what_they_read

NAME = "convscope.duckdb"


def write_sql_file(atlas: Atlas, ledger: Ledger) -> Path:
    """Rewrite the file from the current stores and return its path. Clients that have the old file open keep it.

    The file is a copy that Convscope never reads, so clients may change it freely.

    Raises:
        AtlasError, LedgerError: a store cannot be read.
        OSError: the file cannot be written; the old file is kept.
    """
    path = atlas.home / NAME
    building = atlas.home / f".{NAME}.{os.getpid()}"
    tables = LedgerTables(ledger).read(COMMENTS)
    try:
        with contextlib.suppress(NoAtlas):
            _copy(atlas, building)
        fresh = not building.exists()
        with duckdb.connect(str(building)) as connection:
            if fresh:
                connection.execute(ddl())
            for name, table in tables.items():
                connection.register("given", table)
                connection.execute(f"CREATE TABLE {name} AS FROM given")
                connection.unregister("given")
                connection.execute("\n".join(comment_on(name, *COMMENTS[name], view=False)))
            for name in with_what_they_read(VIEWS):
                view = VIEWS[name]
                connection.execute(f"CREATE VIEW {name} AS {view.sql}")
                connection.execute("\n".join(comment_on(name, view.comment, view.columns, view=True)))
        sync(building)
        building.rename(path)
    finally:
        for left in (building, building.with_name(f"{building.name}.wal")):
            left.unlink(missing_ok=True)
    return path


def _copy(atlas: Atlas, target: Path) -> None:
    """Copy the current atlas; retries, because the file may be replaced and removed meanwhile."""
    for _ in range(10):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(atlas.path(), target)
            return
    raise FileNotFoundError(f"{atlas.folder} changes too often to be copied")
