"""Archives of pictures: zip, and tar as it comes (gz, bz2, xz). Members are streamed and never extracted.

A member's name is only ever a name: no path on this machine is made from it.
"""

import contextlib
import lzma
import shutil
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
    too_big,
)

TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


def is_tar(path: Path) -> bool:
    """Whether `path` begins as a tar file does, packed or not."""
    # tarfile lets an end within the first block through
    with contextlib.suppress(EOFError, zlib.error, lzma.LZMAError):
        return tarfile.is_tarfile(path)
    return False


class ZipSource:
    """Pictures and parquet shards in a zip file, in order of name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.side_files: dict[str, bytes] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                self._holds_shards = any(is_parquet(info.filename) for info in archive.infolist())
                self._pictures = sum(
                    is_picture(info.filename) and not info.is_dir() for info in archive.infolist()
                )
        except zipfile.BadZipFile as error:
            raise ImportRefused(f"{path} is a damaged zip file ({error}): get it again") from error

    def count(self) -> int | None:
        """Number of pictures; None where shards hold more of them."""
        return None if self._holds_shards else self._pictures

    def images(self) -> Iterator[SourceImage]:
        """The pictures; a member that cannot be read is handed over with its problem."""
        with zipfile.ZipFile(self.path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                name = info.filename.replace("\\", "/")  # as some Windows programs write it
                if info.is_dir():
                    continue
                if is_parquet(name):
                    yield from self._shard(archive, info, name)
                elif is_picture(name):
                    yield self._picture(archive, info, name)
                elif name.rsplit("/", 1)[-1] in GROUND_TRUTH_FILES:
                    check_truth_size(name, info.file_size)
                    try:
                        self.side_files[name.rsplit("/", 1)[-1]] = _content_of(archive, info)
                    except _Damaged as error:
                        raise ImportRefused(f"{name} in {self.path}: {error}") from error

    def _picture(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> SourceImage:
        problem = too_big(info.file_size)
        if problem is None and info.flag_bits & 1:
            problem = "it is encrypted"
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
    """Pictures and parquet shards in a tar file; tars in it (ILSVRC's training set) count as folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.side_files: dict[str, bytes] = {}

    def count(self) -> int | None:
        """Number of pictures; None where the whole file would have to be unpacked to tell."""
        try:
            with tarfile.open(self.path, "r:") as archive:
                pictures = 0
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
                    if member.name.endswith((".tar", ".parquet")):
                        return None
                    pictures += member.isfile() and is_picture(member.name)
                return pictures
        except tarfile.ReadError:
            return None

    def images(self) -> Iterator[SourceImage]:
        """The pictures in the order of the archive.

        Raises:
            ImportRefused: the archive is damaged or cut short: a set from a part of it would look whole.
        """
        seen = 0
        try:
            with tarfile.open(self.path, "r|*") as archive:
                for image in self._members(archive, prefix=""):
                    seen += 1
                    yield image
        except TAR_ERRORS as error:
            raise ImportRefused(
                f"{self.path} is damaged or cut short after {seen:,} images ({error}): get it again"
            ) from error

    def _members(self, archive: tarfile.TarFile, prefix: str) -> Iterator[SourceImage]:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]
            name = prefix + member.name.removeprefix("./")
            file_name = name.rsplit("/", 1)[-1]
            if not member.isfile():
                if (member.issym() or member.islnk()) and is_picture(name):
                    yield SourceImage(name, 0, problem="it is a link inside the archive")
                continue
            if is_picture(name):
                problem = too_big(member.size)
                data = None if problem else _content(archive, member).read()
                yield SourceImage(name, member.size, data=data, problem=problem)
            elif is_parquet(name):
                yield from _shard(_content(archive, member), name)
            elif file_name.endswith(".tar") and not prefix:
                with tarfile.open(fileobj=_content(archive, member), mode="r|") as inner:
                    yield from self._members(inner, prefix=name.removesuffix(".tar") + "/")
            elif file_name in GROUND_TRUTH_FILES:
                check_truth_size(name, member.size)
                self.side_files[file_name] = _content(archive, member).read()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None, "only regular files are asked for"
    return content


def _shard(member: IO[bytes], name: str) -> Iterator[SourceImage]:
    """Rows of a parquet member: its index is at its end, so it lies on disk while it is read."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(member, file, 2**20)
        yield from parquet_rows(file, name)
