"""Atomic file writes, and readable messages for file errors."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"\.(?P<name>.+?)\.\d+(\.\d+)?")


class FileError(OSError):
    """A file cannot be read or written; the message is one sentence for the user.

    Attributes:
        needed: number of bytes that were to be written, if known.
    """

    def __init__(self, error: OSError, path: Path, *, needed: int | None = None) -> None:
        super().__init__(error.errno, error.strerror, str(path))
        self.needed = needed

    def __str__(self) -> str:
        """The message."""
        return file_sentence(self)


def file_sentence(error: OSError) -> str:
    """Describe an operating-system error in one sentence: the file or folder, what is wrong, and what to do."""
    named = error.filename2 if error.filename2 is not None else error.filename
    if not isinstance(named, str | bytes):
        words = " ".join((error.strerror or str(error)).split())
        if error.errno not in FULL:
            return words
        place = Path(tempfile.gettempdir())
        return f"{words}: {place}, for temporary files, has {byte_words(shutil.disk_usage(place).free)} free"
    path = _final(Path(os.fsdecode(named)))
    number = error.errno
    if number in FULL:
        return no_space_sentence(path, needed=getattr(error, "needed", None), quota=number == errno.EDQUOT)
    sentence = {
        errno.EROFS: f"{path} cannot be written: its file system is read-only",
        errno.EACCES: f"no permission for {path}: check its owner and mode",
        errno.EPERM: f"no permission for {path}: check its owner and mode",
        errno.ENOENT: f"there is no file or folder {path}",
        errno.EISDIR: f"expected a file, got the folder {path}",
        errno.ENOTDIR: f"expected a folder above {path}, got a file",
        errno.EEXIST: f"expected a folder, or nothing, at {path}, got a file",
        errno.ENAMETOOLONG: f"the name is too long for this file system: {path}",
        errno.EMFILE: f"too many open files at {path}: raise the limit with `ulimit -n`",
    }.get(number or 0)
    return sentence or f"{path} cannot be read or written: {error.strerror or type(error).__name__}"


# Errors that go away once space is freed.
FULL = (errno.ENOSPC, errno.EDQUOT)


def no_space_sentence(path: Path, *, needed: int | None = None, quota: bool = False) -> str:
    """The message for a full disk below `path`, or for this user's exhausted quota on it."""
    folder = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))
    need = "" if needed is None else f", at least {byte_words(needed)} needed"
    if quota:
        return f"no space left for {folder}: the disk quota is used up{need}; remove files or raise the quota"
    try:
        free = f"{byte_words(shutil.disk_usage(folder).free)} free"
    except OSError:
        free = "the disk is full"
    return f"no space left on the disk of {folder}: {free}{need}; free some space and try again"


def byte_words(size: int) -> str:
    """Format a number of bytes with a decimal unit."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"


def _final(path: Path) -> Path:
    """The path to show for a file that is being written: its final name, or the folder of a new atlas."""
    if ".duckdb.building" in path.name:
        return path.parent
    temporary = _TEMPORARY.fullmatch(path.name)
    return path.with_name(temporary["name"]) if temporary else path


@contextlib.contextmanager
def _naming(path: Path, needed: int | None = None) -> Iterator[None]:
    """Re-raise OSErrors from the block as FileErrors that name `path` instead of a temporary file."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(error, path, needed=needed) from error


def write_file(path: Path, data: bytes, *, synced: bool = False) -> None:
    """Write `data` to `path` atomically, creating its folder: write a file unique to this thread, then rename it.

    Args:
        synced: fsync before returning, which costs milliseconds per file.

    Raises:
        FileError: the file cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with _naming(path, len(data)):
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
    """Write `pieces` to `path` as they arrive, all of them or nothing.

    If writing or `pieces` itself raises, nothing is left behind and an existing file is kept.

    Raises:
        FileError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with _naming(path):
            file = temporary.open("wb")
        with file:
            for piece in pieces:
                with _naming(path, len(piece)):
                    file.write(piece)
            with _naming(path):
                file.flush()
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_writable(folder: Path) -> bool:
    """Whether files can be created in `folder`, or in its nearest existing parent if it does not exist yet."""
    present = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
    return os.access(present, os.W_OK | os.X_OK)


def make_home(home: Path) -> None:
    """Create the home folder, accessible to its owner only; an existing folder is left as it is."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
