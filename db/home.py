"""A home as a whole: looked at before anything of it is changed, upgraded where it is older, kept from others' eyes.

    opened by a command, the web server, a worker
      -> atlas: pointer, file, version   \\
      -> ledger: file, revision           > all can be opened, or one sentence and nothing is changed
      -> is there something to write, and may it be written?
      -> the older atlas by its steps into a new file -> the ledger's migrations -> the new file is published
"""

import os
import stat
from pathlib import Path

from db.atlas.migrations import latest_version
from db.atlas.store import Atlas, AtlasError
from db.files import is_writable, make_home
from db.ledger.engine import DamagedLedger, Ledger, head
from db.settings import Settings


class HomeError(RuntimeError):
    """A home cannot be used; the message is one sentence."""


def open_home(settings: Settings) -> Ledger:
    """The ledger of a home whose atlas and ledger have this version's tables, upgraded where they were older.

    A home that cannot be written is opened to read, where both are of this version.

    Raises:
        HomeError, AtlasError, LedgerError: it cannot be opened; nothing was changed.
    """
    home = settings.home
    if home.exists() and not home.is_dir():
        raise HomeError(f"CONVSCOPE_HOME: expected a folder, got the file {home}")
    if home.is_dir() and not os.access(home, os.R_OK | os.X_OK):
        raise HomeError(f"CONVSCOPE_HOME: no permission to read {home}: check its owner and mode")
    atlas, ledger = Atlas(settings), Ledger(settings)
    schema, revision = atlas.schema(), ledger.revision()
    older = [
        *([f"an atlas of version {schema}"] if schema not in (None, latest_version()) else []),
        *([f"a ledger of revision {revision}"] if revision not in (None, head()) else []),
        *(["no ledger"] if revision is None else []),
    ]
    writable = is_writable(home)
    if older and not writable and (ledger.file is not None or schema not in (None, latest_version())):
        needed = f"version {latest_version()} and revision {head()}"
        raise HomeError(
            f"{home} is read-only and has {' and '.join(older)}, where this Convscope needs {needed}: open it once "
            "where it can be written, or use the Convscope that wrote it"
        )
    if writable:
        make_home(home)
        make_private(settings)
    if writable and atlas.is_older():
        atlas.upgrade(meanwhile=ledger.migrate)
    ledger.migrate()
    return ledger


def open_to_serve(settings: Settings) -> Ledger:
    """Likewise, for pages that show whatever can be read and say of the rest why it cannot.

    Raises:
        HomeError, AtlasError, LedgerError: nothing can be shown, or a store is of another version.
    """
    try:
        return open_home(settings)
    except DamagedLedger:
        if Atlas(settings).schema() != latest_version():
            raise
    except AtlasError:
        if Ledger(settings).revision() != head():
            raise
    return Ledger(settings)


def open_atlas(settings: Settings) -> Atlas:
    """The atlas of a home, for what needs no ledger; where the atlas is older, both are upgraded.

    Raises:
        HomeError, AtlasError, LedgerError: it cannot be opened; nothing was changed.
    """
    atlas = Atlas(settings)
    if atlas.is_older() and (atlas.schema() != latest_version() or is_writable(settings.home)):
        open_home(settings).close()
    elif settings.home.is_dir() and is_writable(settings.home):
        make_private(settings)
    return atlas


def check_writable(settings: Settings, why: str) -> None:
    """Raise HomeError where nothing can be written to a home; `why` says what would be."""
    if not is_writable(settings.home):
        raise HomeError(f"{settings.home} is read-only, and {why}")


def make_private(settings: Settings) -> None:
    """Keep a home from other users of the machine, where a password says that it is not for all: 0700 and 0600.

    (A home that Convscope makes has these modes from the start.) A home that is shared on purpose is marked by the
    set-group-ID bit (`chmod 2770`): its group keeps its rights. What belongs to another user stays as it is.
    """
    home = settings.home
    if not settings.password:
        return
    found = list(home.iterdir())
    folders = [path for path in found if path.name in _FOLDERS and path.is_dir()]
    files = [path for path in found if path.name.startswith(_FILES) and path.is_file()]
    if folders or files or not found:  # else the folder is somebody's for other things as well
        folders.append(home)
    rights = 0o007 if home.stat().st_mode & stat.S_ISGID else 0o077
    for path in (*folders, *files):
        _take_rights(path, rights)


_FOLDERS = ("atlas", "originals", "thumbnails", "results", "uploads", "builds", "broker")
_FILES = ("ledger.sqlite", "convscope.duckdb", "sql_history", "session.key", "first-run.json")


def _take_rights(path: Path, rights: int) -> None:
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    # a folder for all, such as /tmp, stays one
    left_alone = stat.S_ISLNK(found.st_mode) or mode & stat.S_ISVTX or found.st_uid != os.geteuid()
    if mode & rights and not left_alone:
        path.chmod(mode & ~rights)
