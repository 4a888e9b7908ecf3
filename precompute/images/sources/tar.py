"""Images in tar files (plain, gz, bz2, xz). Members are streamed and never extracted.

A member's name is used only as a name: no path on this machine is built from it.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from db.plurals import count as counted
from precompute.images.packed import packed_facts, packed_rows
from precompute.images.sources.source import (
    Columns,
    ImportRefused,
    SourceImage,
    Step,
    is_picture,
    name_problem,
    no_step,
    too_big,
)
from precompute.images.sources.unpacking import CLOSED, INNER_ARCHIVE, Unpacked, is_archive, is_wanted
from precompute.images.survey import Survey

# Maximum size of a tar's internal records of long names, which are read into memory.
MAX_RECORD_BYTES = 2**20
# RecursionError: tarfile recurses for each header that follows a long name
TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RecursionError)


def is_tar(path: Path) -> bool:
    """Whether `path` starts like a tar file, compressed or not."""
    # tarfile does not catch a stream that ends within the first block
    with contextlib.suppress(EOFError, zlib.error, lzma.LZMAError, RecursionError):
        return tarfile.is_tarfile(path)
    return False


_UNPACKERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]  # openers for reading
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


class TarSource:
    """Images and parquet shards in a tar file; inner tars (ILSVRC's training set) count as folders.

    `shown` is its display name.
    """

    def __init__(self, path: Path, *, shown: str = "", columns: Columns | None = None) -> None:
        self.path = path
        self.shown = shown or str(path)
        self._columns = columns or Columns()
        self._survey: Survey | None = None

    def survey(self, step: Step = no_step) -> Survey:
        """The archive's contents in archive order: reads headers and small files, skips images."""
        if self._survey is None:
            found = Survey(self.shown)
            for entry in self._entries():
                step()
                if entry.problem is None:
                    found.add(entry.name, entry.size, entry.head, companions=True)
                    if found.packed and found.packed[-1] == entry.name:
                        with _spooled(entry.open()) as file:
                            found.add_facts(entry.name, packed_facts(file, entry.name, self._columns))
                elif not is_wanted(entry.name):
                    found.pass_over(CLOSED, entry.name)
            self._survey = found
        return self._survey

    def count(self) -> int | None:
        """Number of images; None if known only after reading."""
        found = self.survey()
        return None if found.rows is None else len(found.pictures) + found.rows

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The images in archive order.

        Raises:
            ImportRefused: the archive is damaged or truncated: a set made from part of it would look
                complete.
        """
        found = self.survey()
        packed = set(found.packed)
        for entry in self._entries():
            if entry.name in skip:
                continue
            if entry.problem is not None:
                if is_wanted(entry.name):
                    yield SourceImage(entry.name, entry.size, problem=entry.problem)
            elif entry.name in packed:
                with _spooled(entry.open()) as file:
                    yield from packed_rows(file, entry.name, found.tables, self._columns)
            elif is_picture(entry.name) or entry.name in found.odd:
                yield SourceImage(entry.name, entry.size, data=entry.open().read())

    def _entries(self) -> Iterator["_Entry"]:
        seen = 0
        try:
            with self._opened() as archive:
                for entry in self._members(archive, Unpacked(self.path, self.shown), prefix=""):
                    seen += entry.problem is None and is_picture(entry.name)
                    yield entry
        except TAR_ERRORS as error:
            raise ImportRefused(
                f"{self.shown} is damaged or truncated after {counted(seen, 'image')} ({error}): download it again"
            ) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        """Opened as a seekable file if uncompressed, else as a stream.

        tarfile's own streams decompress everything they have read at once; these decompress only what is
        requested.
        """
        with self.path.open("rb") as file:
            head = file.read(6)
        unpacker = next((opener for magic, opener in _UNPACKERS.items() if head.startswith(magic)), None)
        with contextlib.ExitStack() as stack:
            if unpacker is None:
                yield stack.enter_context(tarfile.open(self.path, "r:", tarinfo=_Member))
                return
            stream = stack.enter_context(unpacker(self.path))
            yield stack.enter_context(tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member))

    def _members(self, archive: tarfile.TarFile, unpacked: Unpacked, prefix: str) -> Iterator["_Entry"]:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps every header
            name = prefix + member.name.removeprefix("./")
            unpacked.enter()
            if not prefix:  # the contents of an inner tar were counted with it
                unpacked.reach(archive.offset)  # includes headers and long names
            if member.isdir():
                continue
            if member.issparse():
                unpacked.take(member.size)
            is_tar_inside = name.endswith(".tar") and not prefix
            problem = _problem_of_member(member, name, but=is_tar_inside)
            if problem is None and is_tar_inside:
                yield from self._inner(_content(archive, member), unpacked, name)
            else:
                yield _Entry(name, member.size, problem, partial(_content, archive, member))

    def _inner(self, content: IO[bytes], unpacked: Unpacked, name: str) -> Iterator["_Entry"]:
        with contextlib.ExitStack() as stack:
            try:
                inner = stack.enter_context(tarfile.open(fileobj=content, mode="r|", tarinfo=_Member))
            except tarfile.ReadError:
                yield _Entry(name, 0, "it is not a tar archive, or it is damaged", io.BytesIO)
                return
            yield from self._members(inner, unpacked, prefix=name.removesuffix(".tar") + "/")


@dataclass(frozen=True)
class _Entry:
    """A tar member that is not a folder; call `open` before advancing to the next member."""

    name: str
    size: int
    problem: str | None
    open: Callable[[], IO[bytes]]

    def head(self, count: int) -> bytes:
        """The first bytes."""
        return self.open().read(count)


class _Member(tarfile.TarInfo):
    """A header that rejects long-name records that would exhaust memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isfile() and self.type in _RECORDS and self.size > MAX_RECORD_BYTES:
            raise tarfile.ReadError(f"a name of {self.size:,} bytes, the limit is {MAX_RECORD_BYTES:,}")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


_RECORDS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def _problem_of_member(member: tarfile.TarInfo, name: str, *, but: bool) -> str | None:
    """Why a tar member is refused; None if it is accepted. `but` permits an inner archive."""
    if member.issym() or member.islnk():
        return "it is a link within the archive"
    if not member.isfile():
        return "it is a device or a pipe, not a file"
    if is_archive(name) and not but:
        return INNER_ARCHIVE
    return name_problem(name) or (too_big(member.size) if is_picture(name) else None)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None, "only regular files are requested"
    return content


@contextlib.contextmanager
def _spooled(member: IO[bytes]) -> Iterator[IO[bytes]]:
    """A member as a temporary file on disk, for readers that start at its end."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(member, file, 2**20)
        file.seek(0)
        yield file
