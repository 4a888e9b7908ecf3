"""Uploads from a browser, kept in numbered files in the home until they are imported.

The browser's file name is only a label, stored next to the file; no path is derived from it. A file is
appended to piece by piece, so its size is the offset at which to resume.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from db.files import make_home, write_file
from db.settings import Settings

MAX_FILES = 200_000
MAX_NAME = 4096
# Space kept free for everything else on the disk: publishing an atlas, results, the ledger.
RESERVE_BYTES = 512 * 2**20
UNFINISHED_SECONDS = 24 * 3600.0
_KEY = re.compile(r"[0-9a-f]{32}")
_AT_ONCE = 256 * 2**10

# Name, size in bytes, and whether it is a label table.
_Listed = tuple[str, int, bool]


class NoSuchUpload(LookupError):
    """No upload has that key, or it has no file with that number; the message is one sentence."""


class UploadRefused(ValueError):
    """An upload or a piece of it cannot be accepted; the message is one sentence."""


class WrongOffset(UploadRefused):
    """A piece does not start at the end of the file; `received` is where the file ends."""

    def __init__(self, received: int, offset: int) -> None:
        super().__init__(f"offset: expected {received}, where the file ends so far, got {offset}")
        self.received = received


class NoRoom(UploadRefused):
    """The disk has no room for the upload; the message is one sentence."""


@dataclass(frozen=True)
class UploadedFile:
    """An uploaded file: its name at the sender, its total and received size in bytes, and its path.

    `labels`: it is a label table for the other files, and is not imported as an image.
    """

    name: str
    size: int
    received: int
    path: Path
    labels: bool = False


class UploadStore:
    """The uploads in one `CONVSCOPE_HOME`. Safe to share between threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "uploads"
        self._most_bytes = settings.upload_gb * 10**9

    def begin(self, files: Sequence[tuple[str, int]]) -> str:
        """Start an upload of files, given by name and size; returns the upload's key.

        Raises:
            UploadRefused: there are no files, too many, or they are too large.
            NoRoom: the disk is too full; an import briefly needs space for two copies.
        """
        total = self._check_size([size for _, size in files])
        make_home(self.folder.parent)
        self.folder.mkdir(exist_ok=True)
        self._check_room(2 * total)
        key = secrets.token_hex(16)
        folder = self.folder / key
        folder.mkdir()
        try:
            write_file(folder / "upload.json", _entries([(name, size, False) for name, size in files]))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NoRoom(f"the upload cannot be started: {error.strerror}") from error
        return key

    def add_labels(self, key: str, name: str, size: int) -> int:
        """Add a label table to an upload; returns its file number.

        An upload may have several: the import names the one to use, so another can be tried.

        Raises:
            NoSuchUpload: no upload has that key.
            UploadRefused: there are too many files, or they are too large.
            NoRoom: the disk is too full.
        """
        folder = self._place(key)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two concurrent calls would get the same number
            listed = self._listed(folder)
            self._check_size([*(had for _, had, _ in listed), size])
            self._check_room(2 * size)
            try:
                write_file(folder / "upload.json", _entries([*listed, (name, size, True)]))
            except OSError as error:
                raise NoRoom(f"the labels cannot be stored: {error.strerror}") from error
            return len(listed)
        finally:
            os.close(lock)

    def files(self, key: str) -> list[UploadedFile]:
        """The files of an upload.

        Raises:
            NoSuchUpload: no upload has that key.
        """
        folder = self._place(key)
        return [_file(folder, number, *one) for number, one in enumerate(self._listed(folder))]

    def file(self, key: str, number: int) -> UploadedFile:
        """One file of an upload.

        Raises:
            NoSuchUpload: no upload has that key, or it has no such file.
        """
        folder = self._place(key)
        listed = self._listed(folder)
        if not 0 <= number < len(listed):
            raise NoSuchUpload(f"upload {key} has files 0 to {len(listed) - 1}, not {number}")
        return _file(folder, number, *listed[number])

    def write(self, key: str, number: int, offset: int, length: int, stream: BinaryIO) -> int:
        """Append a piece of `length` bytes to a file; returns the file's new size.

        Bytes received before a connection broke are kept.

        Raises:
            NoSuchUpload: no upload has that key, or it has no such file.
            WrongOffset: the file does not end at `offset`.
            UploadRefused: the file would exceed its declared size, or the piece was incomplete.
            NoRoom: the disk is full; the file is unchanged.
        """
        file = self.file(key, number)
        if offset + length > file.size:
            raise UploadRefused(
                f"file {number}: expected {file.size:,} bytes, got a piece that ends at {offset + length:,}"
            )
        self._check_room(length)
        with file.path.open("ab") as target:
            try:
                fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UploadRefused(f"file {number}: another piece of it is being received") from error
            begun = os.fstat(target.fileno()).st_size
            if begun != offset:
                raise WrongOffset(begun, offset)
            came = 0
            try:
                while came < length and (piece := stream.read(min(_AT_ONCE, length - came))):
                    target.write(piece)
                    came += len(piece)
                target.flush()
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.truncate(target.fileno(), begun)
                raise NoRoom(f"file {number} cannot be written: {error.strerror}") from error
        os.utime(file.path.parent)
        if came < length:
            raise UploadRefused(
                f"file {number}: expected a piece of {length:,} bytes, the connection ended after {came:,}"
            )
        return offset + came

    def check_complete(self, key: str) -> list[UploadedFile]:
        """The files of an upload without label tables, once all are complete.

        Raises:
            NoSuchUpload: no upload has that key.
            UploadRefused: something is missing.
        """
        found = [(number, file) for number, file in enumerate(self.files(key)) if not file.labels]
        short = [(number, file) for number, file in found if file.received < file.size]
        if short:
            number, file = short[0]
            raise UploadRefused(
                f"{len(short):,} of {len(found):,} files are incomplete, the first is file {number}: "
                f"{file.received:,} of {file.size:,} bytes"
            )
        return [file for _, file in found]

    def labels(self, key: str, number: int) -> UploadedFile:
        """A complete label table of an upload.

        Raises:
            NoSuchUpload: no upload has that key.
            UploadRefused: the upload has no such table, or it is incomplete.
        """
        files = self.files(key)
        tables = [at for at, file in enumerate(files) if file.labels]
        if number not in tables:
            known = f"one of {', '.join(map(str, tables))}" if tables else "none, because the upload has none"
            raise UploadRefused(f"labels: expected the number of a labels file, {known}, got {number}")
        file = files[number]
        if file.received < file.size:
            raise UploadRefused(
                f"labels: {file.name} is incomplete: {file.received:,} of {file.size:,} bytes"
            )
        return file

    def remove(self, key: str) -> None:
        """Remove an upload.

        Raises:
            NoSuchUpload: no upload has that key.
        """
        shutil.rmtree(self._place(key), ignore_errors=True)

    def remove_stale(self, *, but: Collection[str] = (), older_than: float = UNFINISHED_SECONDS) -> int:
        """Remove uploads idle for `older_than` seconds, except those in `but`; returns their number."""
        before = time.time() - older_than
        removed = 0
        for folder in self._folders():
            if folder.name in but:
                continue
            with contextlib.suppress(FileNotFoundError):  # removed by another process
                if folder.stat().st_mtime < before:
                    shutil.rmtree(folder, ignore_errors=True)
                    removed += 1
        return removed

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (path for path in self.folder.iterdir() if _KEY.fullmatch(path.name))

    def _place(self, key: str) -> Path:
        folder = self.folder / key if _KEY.fullmatch(key) else None
        if folder is None or not folder.is_dir():
            raise NoSuchUpload(f"there is no upload {key[:64]!r}: it was imported, or it expired after a day")
        return folder

    def _listed(self, folder: Path) -> list[_Listed]:
        try:
            entries = json.loads((folder / "upload.json").read_bytes())
            return [(str(one["name"]), int(one["size"]), one.get("labels") is True) for one in entries]
        except FileNotFoundError as error:
            raise NoSuchUpload(
                f"there is no upload {folder.name!r}: it was imported, or it expired after a day"
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise NoSuchUpload(f"{folder / 'upload.json'} is damaged: start the upload again") from error

    def _check_size(self, sizes: Sequence[int]) -> int:
        if not 1 <= len(sizes) <= MAX_FILES:
            raise UploadRefused(f"files: expected 1 to {MAX_FILES:,} files, got {len(sizes):,}")
        total = sum(sizes)
        if total > self._most_bytes:
            raise UploadRefused(
                f"files: expected at most {_gigabytes(self._most_bytes)} in all (CONVSCOPE_UPLOAD_GB), got "
                f"{_gigabytes(total)}"
            )
        return total

    def _check_room(self, wanted: int) -> None:
        free = shutil.disk_usage(self.folder).free - RESERVE_BYTES
        if wanted > free:
            raise NoRoom(
                f"not enough disk space: expected {_gigabytes(wanted)} free on top of "
                f"{_gigabytes(RESERVE_BYTES)}, got {_gigabytes(max(0, free))}"
            )


def _entries(listed: Sequence[_Listed]) -> bytes:
    return json.dumps(
        [{"name": name, "size": size} | ({"labels": True} if labels else {}) for name, size, labels in listed]
    ).encode()


def _file(folder: Path, number: int, name: str, size: int, labels: bool) -> UploadedFile:
    path = folder / f"{number:06d}"
    try:
        received = path.stat().st_size
    except FileNotFoundError:  # nothing is ever sent for an empty file
        received = 0
    return UploadedFile(name, size, received, path, labels)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 10**8 else f"{size / 1e6:,.1f} MB"
