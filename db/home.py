"""Open a home: check all of it before changing anything, upgrade older stores, keep it private.

    opened by a command, the web server, a worker
      -> atlas: pointer, file, version   \\
      -> ledger: file, revision           > both can be opened, or one sentence and nothing is changed
      -> if something has to be upgraded: is the home writable?
      -> migrate the older atlas into a new file -> migrate the ledger -> publish the new file
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
    """Open a home's ledger, after upgrading an older atlas or ledger to this version's tables.

    A read-only home is opened for reading if both stores already have this version's tables.

    Raises:
        HomeError, AtlasError, LedgerError: the home cannot be opened; nothing was changed.
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
            f"{home} is read-only and has {' and '.join(older)}, where this Convscope needs {needed}: "
            "open it once where it is writable, or use the Convscope that wrote it"
        )
    if writable:
        make_home(home)
        make_private(settings)
    if writable and atlas.is_older():
        atlas.upgrade(meanwhile=ledger.migrate)
    ledger.migrate()
    return ledger


def open_to_serve(settings: Settings) -> Ledger:
    """Like `open_home`, but tolerates one damaged store: pages show what can be read and explain what cannot.

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
    """The atlas of a home, for callers that need no ledger; if the atlas is older, both stores are upgraded.

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
    """Raise HomeError if the home is read-only; `why` ends the message with what needed writing."""
    if not is_writable(settings.home):
        raise HomeError(f"{settings.home} is read-only, and {why}")


def make_private(settings: Settings) -> None:
    """Remove other users' access to a home that is protected by a password: modes 0700 and 0600.

    A home that Convscope creates has these modes from the start. The set-group-ID bit (`chmod 2770`) marks a
    home that is shared on purpose: its group keeps its access. Files of other users are left as they are.
    """
    home = settings.home
    if not settings.password:
        return
    found = list(home.iterdir())
    folders = [path for path in found if path.name in _FOLDERS and path.is_dir()]
    files = [path for path in found if path.name.startswith(_FILES) and path.is_file()]
    if folders or files or not found:  # otherwise the folder also serves another purpose
        folders.append(home)
    rights = 0o007 if home.stat().st_mode & stat.S_ISGID else 0o077
    for path in (*folders, *files):
        _take_rights(path, rights)


_FOLDERS = ("atlas", "originals", "thumbnails", "results", "uploads", "builds", "broker")
_FILES = ("ledger.sqlite", "convscope.duckdb", "sql_history", "session.key", "first-run.json")


def _take_rights(path: Path, rights: int) -> None:
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    # leave symlinks, sticky folders such as /tmp, and other users' files alone
    left_alone = stat.S_ISLNK(found.st_mode) or mode & stat.S_ISVTX or found.st_uid != os.geteuid()
    if mode & rights and not left_alone:
        path.chmod(mode & ~rights)
