"""Archives of pictures: zip, and tar as it comes (gz, bz2, xz). Members are streamed and never extracted.

A member's name is only ever a name: no path on this machine is made from it. Archives may come from strangers: what
one unpacks to is counted while it is read, and bounded by its own size.
"""

import contextlib
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from precompute.source_parquet import parquet_rows
from precompute.sources import (
    GROUND_TRUTH_FILES,
    ImportRefused,
    SourceImage,
    check_truth_size,
    is_parquet,
    is_picture,
    name_problem,
    too_big,
)

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
MIN_TOTAL_BYTES = 2 * 2**30
MAX_ENTRIES = 4_000_000
# A tar's own records of long names; they are read into memory.
MAX_RECORD_BYTES = 2**20
TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


def is_tar(path: Path) -> bool:
    """Whether `path` begins as a tar file does, packed or not."""
    # tarfile lets an end within the first block through
    with contextlib.suppress(EOFError, zlib.error, lzma.LZMAError):
        return tarfile.is_tarfile(path)
    return False


class _Unpacked:
    """How much an archive unpacked to so far."""

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._left = max(MIN_TOTAL_BYTES, MAX_RATIO * path.stat().st_size)
        self._most = self._left

    def take(self, size: int) -> None:
        """Count a member before it is read.

        Raises:
            ImportRefused: it is too much by now.
        """
        self._left -= size
        if self._left < 0:
            raise ImportRefused(
                f"{self._shown} unpacks to more than {self._most:,} bytes, {MAX_RATIO} times its size: "
                "it is no archive of pictures"
            )


def _too_packed(size: int, packed: int) -> str | None:
    """Why a member that unpacks from `packed` to `size` bytes is not read; None where it is."""
    if size <= MIN_MEMBER_BYTES or size <= MAX_RATIO * packed:
        return None
    return f"it unpacks to {size:,} bytes from {packed:,}, the limit is {MAX_RATIO} times as many"


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES)


_INNER = "it is an archive inside the archive: import it by itself"


class ZipSource:
    """Pictures and parquet shards in a zip file, in order of name; `shown` is what people call it."""

    def __init__(self, path: Path, *, shown: str = "") -> None:
        self.path = path
        self.shown = shown or str(path)
        self.side_files: dict[str, bytes] = {}
        with self._opened() as archive:
            if len(archive.filelist) > MAX_ENTRIES:
                raise ImportRefused(
                    f"{self.shown} has {len(archive.filelist):,} entries, the limit is {MAX_ENTRIES:,}"
                )
            self._holds_shards = any(is_parquet(info.filename) for info in archive.filelist)
            self._pictures = sum(is_picture(info.filename) and not info.is_dir() for info in archive.filelist)

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

    def count(self) -> int | None:
        """Number of pictures; None where shards hold more of them."""
        return None if self._holds_shards else self._pictures

    def images(self) -> Iterator[SourceImage]:
        """The pictures; a member that cannot be read is handed over with its problem."""
        unpacked = _Unpacked(self.path, self.shown)
        with self._opened() as archive:
            for info in sorted(archive.filelist, key=lambda info: info.filename):
                name = info.filename.replace("\\", "/")  # as some Windows programs write it
                if info.is_dir():
                    continue
                problem = _problem_of(info, name) if _is_wanted(name) else None
                if problem is not None:
                    yield SourceImage(name, info.file_size, problem=problem)
                    continue
                if _is_wanted(name):
                    unpacked.take(info.file_size)
                if is_parquet(name):
                    yield from self._shard(archive, info, name)
                elif is_picture(name):
                    yield self._picture(archive, info, name)
                elif name.rsplit("/", 1)[-1] in GROUND_TRUTH_FILES:
                    check_truth_size(name, info.file_size)
                    try:
                        self.side_files[name.rsplit("/", 1)[-1]] = _content_of(archive, info)
                    except _Damaged as error:
                        raise ImportRefused(f"{name} in {self.shown}: {error}") from error

    def _picture(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> SourceImage:
        problem = too_big(info.file_size)
        if problem is not None:
            return SourceImage(name, info.file_size, problem=problem)
        try:
            return SourceImage(name, info.file_size, data=_content_of(archive, info))
        except _Damaged as error:
            return SourceImage(name, info.file_size, problem=str(error))

    def _shard(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Iterator[SourceImage]:
        with tempfile.TemporaryFile() as file:
            try:
                with _reading(), archive.open(info) as member:
                    shutil.copyfileobj(member, file, 2**20)
            except _Damaged as error:
                yield SourceImage(name, info.file_size, problem=str(error))
            else:
                yield from parquet_rows(file, name)


def _is_wanted(name: str) -> bool:
    """Whether a member is named where it cannot be read; what else lies in archives is passed over in silence."""
    hidden = name.rsplit("/", 1)[-1].startswith(".") or "__MACOSX/" in name
    return is_picture(name) or is_parquet(name) or (_is_archive(name) and not hidden)


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


def _content_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with _reading():
        return archive.read(info)


class TarSource:
    """Pictures and parquet shards in a tar file; tars in it (ILSVRC's training set) count as folders.

    `shown` is what people call it.
    """

    def __init__(self, path: Path, *, shown: str = "") -> None:
        self.path = path
        self.shown = shown or str(path)
        self.side_files: dict[str, bytes] = {}

    def count(self) -> int | None:
        """Number of pictures; None where the whole file would have to be unpacked to tell."""
        try:
            with tarfile.open(self.path, "r:", tarinfo=_Member) as archive:
                pictures = 0
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
                    if member.name.endswith((".tar", ".parquet")):
                        return None
                    pictures += member.isfile() and is_picture(member.name)
                return pictures
        except TAR_ERRORS:
            return None

    def images(self) -> Iterator[SourceImage]:
        """The pictures in the order of the archive.

        Raises:
            ImportRefused: the archive is damaged or cut short: a set from a part of it would look whole.
        """
        seen = 0
        try:
            with tarfile.open(self.path, "r|*", tarinfo=_Member) as archive:
                unpacked = _Unpacked(self.path, self.shown)
                for image in self._members(archive, unpacked, prefix=""):
                    seen += 1
                    yield image
        except TAR_ERRORS as error:
            raise ImportRefused(
                f"{self.shown} is damaged or cut short after {seen:,} images ({error}): get it again"
            ) from error

    def _members(self, archive: tarfile.TarFile, unpacked: _Unpacked, prefix: str) -> Iterator[SourceImage]:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]
            name = prefix + member.name.removeprefix("./")
            file_name = name.rsplit("/", 1)[-1]
            if member.isdir():
                continue
            if not prefix or member.issparse():  # what lies in an inner tar was counted with it
                unpacked.take(member.size)
            is_tar_inside = file_name.endswith(".tar") and not prefix
            problem = _problem_of_member(member, name, but=is_tar_inside) if _is_wanted(name) else None
            if problem is not None:
                yield SourceImage(name, member.size, problem=problem)
            elif not member.isfile():
                continue
            elif is_picture(name):
                yield SourceImage(name, member.size, data=_content(archive, member).read())
            elif is_parquet(name):
                yield from _shard(_content(archive, member), name)
            elif is_tar_inside:
                yield from self._inner(_content(archive, member), unpacked, name)
            elif file_name in GROUND_TRUTH_FILES:
                check_truth_size(name, member.size)
                self.side_files[file_name] = _content(archive, member).read()

    def _inner(self, content: IO[bytes], unpacked: _Unpacked, name: str) -> Iterator[SourceImage]:
        with contextlib.ExitStack() as stack:
            try:
                inner = stack.enter_context(tarfile.open(fileobj=content, mode="r|", tarinfo=_Member))
            except tarfile.ReadError:
                yield SourceImage(name, 0, problem="it is no tar archive, or a damaged one")
                return
            yield from self._members(inner, unpacked, prefix=name.removesuffix(".tar") + "/")


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


def _shard(member: IO[bytes], name: str) -> Iterator[SourceImage]:
    """Rows of a parquet member: its index is at its end, so it lies on disk while it is read."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(member, file, 2**20)
        yield from parquet_rows(file, name)
