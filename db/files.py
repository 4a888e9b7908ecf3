"""Files that are whole or not there."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path


def write_file(path: Path, data: bytes, *, synced: bool = False) -> None:
    """Write `data` to `path` under a name of this thread's own, then rename; folders are made.

    Args:
        synced: have it on the disk when this returns. A sync per file costs milliseconds.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file = temporary.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    try:
        with file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Write `pieces` to `path` as they come, whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left behind, and an older file stays. So with what `pieces` raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file or a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
