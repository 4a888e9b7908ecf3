"""Temporary folders that go with their owner: also one that was killed, when the next owner comes.

An owner holds a lock on a file in its folder for as long as it lives, which ends with the process however it ends.
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
# A folder without a lock is just being made, or is of a version that had none: it goes when it is old.
UNOWNED_SECONDS = 86_400.0


def own_folder(prefix: str) -> tuple[Path, Callable[[], None]]:
    """A new folder that is this process's, and what removes it; folders of owners that are gone are removed first."""
    remove_abandoned(prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = os.open(folder / f".{LOCK}", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / f".{LOCK}").rename(folder / LOCK)  # nobody sees it without its lock

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(lock)

    return folder, remove


def remove_abandoned(prefix: str) -> None:
    """Remove this user's folders of that prefix whose owners have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # of somebody else, or gone meanwhile
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
