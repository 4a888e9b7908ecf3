"""Temporary folders that are removed with their owner; those of a killed owner are removed by the next one.

An owner keeps a lock on a file in its folder while it lives. However the process ends, the lock ends with it.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LOCK = "OWNER"
# A folder without a lock was just created, or comes from a version without locks: it is removed when old.
UNOWNED_SECONDS = 86_400.0


def own_folder(prefix: str) -> tuple[Path, Callable[[], None]]:
    """Create a folder owned by this process, after removing abandoned ones; returns it and its remover."""
    remove_abandoned(prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = os.open(folder / f".{LOCK}", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / f".{LOCK}").rename(folder / LOCK)  # never visible without its lock

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(lock)

    return folder, remove


def remove_abandoned(prefix: str) -> None:
    """Remove this user's folders with that prefix whose owners have exited."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another user's, or already gone
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > UNOWNED_SECONDS
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
