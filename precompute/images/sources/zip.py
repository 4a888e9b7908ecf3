"""Images in zip files. Members are streamed and never extracted.

A member's name is used only as a name: no path on this machine is built from it.
"""

import contextlib
import lzma
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO

from precompute.images.packed import packed_facts, packed_rows
from precompute.images.sources.source import (
    GROUND_TRUTH_FILES,
    MAX_BYTES,
    Columns,
    ImportRefused,
    SourceImage,
    Step,
    check_truth_size,
    is_picture,
    name_problem,
    no_step,
    too_big,
)
from precompute.images.sources.unpacking import (
    CLOSED,
    INNER_ARCHIVE,
    MAX_ENTRIES,
    Unpacked,
    is_archive,
    is_wanted,
    too_packed,
)
from precompute.images.survey import Survey

# For other methods zipfile decompresses everything it has read at once, and some compress a thousand times
# better.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipSource:
    """Images and parquet shards in a zip file, sorted by name; `shown` is its display name."""

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
                f"{self.shown} has names marked as UTF-8 that are not UTF-8: create it again"
            ) from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise ImportRefused(f"{self.shown} is a damaged zip file ({error}): download it again") from error
        with archive:
            yield archive

    def survey(self, step: Step = no_step) -> Survey:
        """The archive's contents, sorted by name."""
        if self._survey is None:
            found = Survey(self.shown)
            unpacked = Unpacked(self.path, self.shown)
            with self._opened() as archive:
                for info, name in _files(archive):
                    step()
                    if _problem_of(info, name) is None:
                        self._enter(found, archive, info, name, unpacked)
                    elif not is_wanted(name):
                        if name.rsplit("/", 1)[-1] in GROUND_TRUTH_FILES:
                            check_truth_size(name, info.file_size)
                        found.pass_over(CLOSED, name)
            self._survey = found
        return self._survey

    def _enter(
        self, found: Survey, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, unpacked: Unpacked
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
        """Number of images; None if known only after reading."""
        found = self.survey()
        return None if found.rows is None else len(found.pictures) + found.rows

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The images; an unreadable member is reported as a problem."""
        found = self.survey()
        packed = set(found.packed)
        unpacked = Unpacked(self.path, self.shown)
        with self._opened() as archive:
            for info, name in _files(archive):
                problem = _problem_of(info, name) if is_wanted(name) else None
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
        """A member as a temporary file on disk, for readers that start at its end."""
        with tempfile.TemporaryFile() as file:
            for content in _content_of(archive, info, info.file_size, at_once=2**20):
                file.write(content)
            file.seek(0)
            yield file


def _files(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Entries sorted by name, with their names in display form."""
    for info in sorted(archive.filelist, key=lambda info: info.filename):
        if not info.is_dir():
            yield info, info.filename.replace("\\", "/")  # some Windows programs write backslashes


def _problem_of(info: zipfile.ZipInfo, name: str) -> str | None:
    """Why a zip entry is refused; None if it is accepted."""
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    if kind == stat.S_IFLNK:
        return "it is a link within the archive"
    if kind not in (0, stat.S_IFREG):
        return "it is a device or a pipe, not a file"
    if is_archive(name):
        return INNER_ARCHIVE
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in _BOUNDED:
        method = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz"}.get(info.compress_type)
        return (
            f"it is compressed with {method or f'method {info.compress_type}'}, which is not supported: "
            "expected Deflate"
        )
    return name_problem(name) or too_packed(info.file_size, info.compress_size)


class _Damaged(Exception):
    """A zip entry cannot be decompressed; the message says why."""


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
        if error.errno is not None:  # a fault of the disk, not of the entry
            raise
        raise _Damaged(f"its zip entry is damaged ({error})") from error


def _content_of(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int, *, at_once: int = MAX_BYTES
) -> Iterator[bytes]:
    """The first `count` bytes of an entry, but never more than its stated size."""
    left = min(count, info.file_size)
    with _reading(), archive.open(info) as member:
        # empty entries are read too, which checks their checksum
        while content := member.read(max(1, min(left, at_once))):
            yield content
            left -= len(content)
            if left <= 0:
                break
