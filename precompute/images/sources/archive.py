"""Archives of pictures: zip, and tar as it comes (gz, bz2, xz). Members are streamed and never extracted.

A member's name is only ever a name: no path on this machine is made from it. Archives may come from strangers: what
one unpacks to is counted while it is read, and bounded by its own size.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from db.plurals import count as counted
from precompute.images.packed import packed_facts, packed_rows
from precompute.images.sources.source import (
    GROUND_TRUTH_FILES,
    MAX_BYTES,
    Columns,
    ImportRefused,
    SourceImage,
    Step,
    check_truth_size,
    is_parquet,
    is_picture,
    name_problem,
    no_step,
    too_big,
)
from precompute.images.survey import Survey, idx_of, is_hidden

ARCHIVE_SUFFIXES = (
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".7z",
    ".rar",
    ".gz",
)
# Pictures are packed already: an archive of photographs unpacks to its own size, one of drawings to some 50 times.
MAX_RATIO = 200
# Below these sizes a ratio says nothing.
MIN_MEMBER_BYTES = 8 * 2**20
MIN_TOTAL_BYTES = 256 * 2**20
MAX_ENTRIES = 4_000_000
# A file takes at least its header, which packs to some 30 bytes: fewer bytes an entry are headers without files.
MIN_ENTRIES = 20_000
_BYTES_AN_ENTRY = 16
# A tar's own records of long names; they are read into memory.
MAX_RECORD_BYTES = 2**20
# RecursionError: tarfile calls itself for each header that follows one of a long name
TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RecursionError)
# Of the others zipfile unpacks all that it has read at once, and some pack a thousand times as much as these.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def is_tar(path: Path) -> bool:
    """Whether `path` begins as a tar file does, packed or not."""
    # tarfile lets an end within the first block through
    with contextlib.suppress(EOFError, zlib.error, lzma.LZMAError, RecursionError):
        return tarfile.is_tarfile(path)
    return False


class _Unpacked:
    """How much an archive unpacked to so far, and how many entries it has had."""

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        size = path.stat().st_size
        self._most_bytes = max(MIN_TOTAL_BYTES, MAX_RATIO * size)
        self._most_entries = min(MAX_ENTRIES, max(MIN_ENTRIES, size // _BYTES_AN_ENTRY))
        self._bytes = self._entries = 0

    def take(self, size: int) -> None:
        """Count a member before it is read.

        Raises:
            ImportRefused: it is too much by now.
        """
        self.reach(self._bytes + size)

    def reach(self, size: int) -> None:
        """Note that it has unpacked to `size` bytes; raises as `take`."""
        self._bytes = max(self._bytes, size)
        if self._bytes > self._most_bytes:
            raise ImportRefused(
                f"{self._shown} unpacks to more than {self._most_bytes:,} bytes, {MAX_RATIO} times its size: "
                "it is no archive of pictures"
            )

    def enter(self) -> None:
        """Count an entry; raises as `take`."""
        self._entries += 1
        if self._entries > self._most_entries:
            raise ImportRefused(
                f"{self._shown} has more than {self._most_entries:,} entries, the limit for a file of its size: "
                "it is no archive of pictures"
            )


def _too_packed(size: int, packed: int) -> str | None:
    """Why a member that unpacks from `packed` to `size` bytes is not read; None where it is."""
    if size <= MIN_MEMBER_BYTES or size <= MAX_RATIO * packed:
        return None
    return f"it unpacks to {size:,} bytes from {packed:,}, the limit is {MAX_RATIO} times as many"


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES) and idx_of(name) is None


_INNER = "it is an archive inside the archive: import it by itself"


class ZipSource:
    """Pictures and parquet shards in a zip file, in order of name; `shown` is what people call it."""

    def __init__(self, path: Path, *, shown: str = "", columns: Columns | None = None) -> None:
        self.path = path
        self.shown = shown or str(path)
        self._columns = columns or Columns()
        self._survey: Survey | None = None
        with self._opened() as archive:
            if len(archive.filelist) > MAX_ENTRIES:
                raise ImportRefused(
                    f"{self.shown} has {len(archive.filelist):,} entries, the limit is {MAX_ENTRIES:,}"
                )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            archive = zipfile.ZipFile(self.path)
        except UnicodeDecodeError as error:
            raise ImportRefused(
                f"{self.shown} has names that are not in UTF-8 although it says so: pack it anew"
            ) from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise ImportRefused(f"{self.shown} is a damaged zip file ({error}): get it again") from error
        with archive:
            yield archive

    def survey(self, step: Step = no_step) -> Survey:
        """What is packed in it, in order of name."""
        if self._survey is None:
            found = Survey(self.shown)
            unpacked = _Unpacked(self.path, self.shown)
            with self._opened() as archive:
                for info, name in _files(archive):
                    step()
                    if _problem_of(info, name) is None:
                        self._enter(found, archive, info, name, unpacked)
                    elif not _is_wanted(name):
                        if name.rsplit("/", 1)[-1] in GROUND_TRUTH_FILES:
                            check_truth_size(name, info.file_size)
                        found.pass_over(_CLOSED, name)
            self._survey = found
        return self._survey

    def _enter(
        self, found: Survey, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, unpacked: _Unpacked
    ) -> None:
        def read(count: int) -> bytes:
            unpacked.take(min(count, info.file_size))
            return b"".join(_content_of(archive, info, count))

        try:
            found.add(name, info.file_size, read)
            if found.packed and found.packed[-1] == name:
                unpacked.take(info.file_size)
                with self._spooled(archive, info) as file:
                    found.add_facts(name, packed_facts(file, name, self._columns))
        except _Damaged as error:
            raise ImportRefused(f"{name} in {self.shown}: {error}") from error

    def count(self) -> int | None:
        """Number of pictures; None where only reading tells."""
        found = self.survey()
        return None if found.rows is None else len(found.pictures) + found.rows

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The pictures; a member that cannot be read is handed over with its problem."""
        found = self.survey()
        packed = set(found.packed)
        unpacked = _Unpacked(self.path, self.shown)
        with self._opened() as archive:
            for info, name in _files(archive):
                problem = _problem_of(info, name) if _is_wanted(name) else None
                if name in skip:
                    continue
                if problem is not None:
                    yield SourceImage(name, info.file_size, problem=problem)
                elif name in packed:
                    unpacked.take(info.file_size)
                    yield from self._shard(archive, info, name, found)
                elif is_picture(name) or name in found.odd:
                    unpacked.take(info.file_size)
                    yield self._picture(archive, info, name)

    def _picture(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> SourceImage:
        problem = too_big(info.file_size)
        if problem is not None:
            return SourceImage(name, info.file_size, problem=problem)
        try:
            return SourceImage(
                name, info.file_size, data=b"".join(_content_of(archive, info, info.file_size))
            )
        except _Damaged as error:
            return SourceImage(name, info.file_size, problem=str(error))

    def _shard(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, found: Survey
    ) -> Iterator[SourceImage]:
        try:
            with self._spooled(archive, info) as file:
                yield from packed_rows(file, name, found.tables, self._columns)
        except _Damaged as error:
            yield SourceImage(name, info.file_size, problem=str(error))

    @contextlib.contextmanager
    def _spooled(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        """A member as a file on disk: what is asked of it needs its end first."""
        with tempfile.TemporaryFile() as file:
            for content in _content_of(archive, info, info.file_size, at_once=2**20):
                file.write(content)
            file.seek(0)
            yield file


_CLOSED = "members of the archive that are links, devices, encrypted or hostile"


def _files(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Entries in order of name, with their names as people write them."""
    for info in sorted(archive.filelist, key=lambda info: info.filename):
        if not info.is_dir():
            yield info, info.filename.replace("\\", "/")  # as some Windows programs write it


def _is_wanted(name: str) -> bool:
    """Whether a member is named where it cannot be read; what else lies in archives is passed over in silence."""
    return is_picture(name) or is_parquet(name) or (_is_archive(name) and not is_hidden(name))


def _problem_of(info: zipfile.ZipInfo, name: str) -> str | None:
    """Why a zip entry is not read; None where it is."""
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    if kind == stat.S_IFLNK:
        return "it is a link inside the archive"
    if kind not in (0, stat.S_IFREG):
        return "it is a device or a pipe, not a file"
    if _is_archive(name):
        return _INNER
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in _BOUNDED:
        method = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz"}.get(info.compress_type)
        return (
            f"it is packed by {method or f'method {info.compress_type}'}, which is not read: expected Deflate"
        )
    return name_problem(name) or _too_packed(info.file_size, info.compress_size)


class _Damaged(Exception):
    """A zip entry cannot be unpacked; the message says why."""


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _Damaged(f"its zip entry is damaged ({error})") from error
    except OSError as error:
        if error.errno is not None:  # the disk's trouble, not the entry's
            raise
        raise _Damaged(f"its zip entry is damaged ({error})") from error


def _content_of(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int, *, at_once: int = MAX_BYTES
) -> Iterator[bytes]:
    """The first `count` bytes of an entry, and never more than it states to hold."""
    left = min(count, info.file_size)
    with _reading(), archive.open(info) as member:
        # an empty entry is read too: its checksum is looked at
        while content := member.read(max(1, min(left, at_once))):
            yield content
            left -= len(content)
            if left <= 0:
                break


_UNPACKERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]  # readers, as they are opened
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


class TarSource:
    """Pictures and parquet shards in a tar file; tars in it (ILSVRC's training set) count as folders.

    `shown` is what people call it.
    """

    def __init__(self, path: Path, *, shown: str = "", columns: Columns | None = None) -> None:
        self.path = path
        self.shown = shown or str(path)
        self._columns = columns or Columns()
        self._survey: Survey | None = None

    def survey(self, step: Step = no_step) -> Survey:
        """What is packed in it, in the order of the archive: headers and small files, pictures are skipped."""
        if self._survey is None:
            found = Survey(self.shown)
            for entry in self._entries():
                step()
                if entry.problem is None:
                    found.add(entry.name, entry.size, entry.head, companions=True)
                    if found.packed and found.packed[-1] == entry.name:
                        with _spooled(entry.open()) as file:
                            found.add_facts(entry.name, packed_facts(file, entry.name, self._columns))
                elif not _is_wanted(entry.name):
                    found.pass_over(_CLOSED, entry.name)
            self._survey = found
        return self._survey

    def count(self) -> int | None:
        """Number of pictures; None where only reading tells."""
        found = self.survey()
        return None if found.rows is None else len(found.pictures) + found.rows

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The pictures in the order of the archive.

        Raises:
            ImportRefused: the archive is damaged or cut short: a set from a part of it would look whole.
        """
        found = self.survey()
        packed = set(found.packed)
        for entry in self._entries():
            if entry.name in skip:
                continue
            if entry.problem is not None:
                if _is_wanted(entry.name):
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
                for entry in self._members(archive, _Unpacked(self.path, self.shown), prefix=""):
                    seen += entry.problem is None and is_picture(entry.name)
                    yield entry
        except TAR_ERRORS as error:
            raise ImportRefused(
                f"{self.shown} is damaged or cut short after {counted(seen, 'image')} ({error}): get it again"
            ) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        """With seeking over what is not read where nothing is packed, else as a stream.

        Streams of tarfile's own unpack all that they have read at once; these unpack what is asked for.
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

    def _members(self, archive: tarfile.TarFile, unpacked: _Unpacked, prefix: str) -> Iterator["_Entry"]:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
            name = prefix + member.name.removeprefix("./")
            unpacked.enter()
            if not prefix:  # what lies in an inner tar was counted with it
                unpacked.reach(archive.offset)  # headers and long names included
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

    def _inner(self, content: IO[bytes], unpacked: _Unpacked, name: str) -> Iterator["_Entry"]:
        with contextlib.ExitStack() as stack:
            try:
                inner = stack.enter_context(tarfile.open(fileobj=content, mode="r|", tarinfo=_Member))
            except tarfile.ReadError:
                yield _Entry(name, 0, "it is no tar archive, or a damaged one", io.BytesIO)
                return
            yield from self._members(inner, unpacked, prefix=name.removesuffix(".tar") + "/")


@dataclass(frozen=True)
class _Entry:
    """A member of a tar that is no folder; `open` it before the next one is asked for."""

    name: str
    size: int
    problem: str | None
    open: Callable[[], IO[bytes]]

    def head(self, count: int) -> bytes:
        """The first bytes."""
        return self.open().read(count)


class _Member(tarfile.TarInfo):
    """A header that refuses records of names which would fill the memory."""

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
    """Why a tar member is not read; None where it is. `but`: archives inside are."""
    if member.issym() or member.islnk():
        return "it is a link inside the archive"
    if not member.isfile():
        return "it is a device or a pipe, not a file"
    if _is_archive(name) and not but:
        return _INNER
    return name_problem(name) or (too_big(member.size) if is_picture(name) else None)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None, "only regular files are asked for"
    return content


@contextlib.contextmanager
def _spooled(member: IO[bytes]) -> Iterator[IO[bytes]]:
    """A member as a file on disk: what is asked of it needs its end first."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(member, file, 2**20)
        file.seek(0)
        yield file
