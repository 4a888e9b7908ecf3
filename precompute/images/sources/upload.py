"""Files uploaded through the browser: images, archives and shards side by side."""

import zipfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from precompute.images.packed import packed_facts, packed_rows
from precompute.images.sources.source import (
    Columns,
    ImportRefused,
    Source,
    SourceImage,
    Step,
    is_parquet,
    is_picture,
    name_problem,
    no_step,
    too_big,
)
from precompute.images.sources.tar import TarSource, is_tar
from precompute.images.sources.unpacking import ARCHIVE_SUFFIXES
from precompute.images.sources.zip import ZipSource
from precompute.images.survey import Survey, idx_of


class UploadSource:
    """Uploaded files under the names given by the sender; an archive counts as a folder."""

    def __init__(self, files: Sequence[tuple[str, Path]], *, columns: Columns | None = None) -> None:
        self._columns = columns or Columns()
        self._files = sorted(
            ((name.replace("\\", "/").removeprefix("./"), path) for name, path in files),
            key=lambda file: file[0],
        )
        self._archives: dict[Path, Source] = {}
        self._survey: Survey | None = None
        for name, path in self._files:
            if name_problem(name) is None and not is_picture(name) and not is_parquet(name):
                archive = _archive(path, name, self._columns)
                if archive is not None:
                    self._archives[path] = archive

    def survey(self, step: Step = no_step) -> Survey:
        """All uploaded files, including the contents of archives."""
        if self._survey is None:
            found = Survey("the upload")
            for name, path in self._files:
                step()
                if path in self._archives:
                    found.merge(self._archives[path].survey(step), self._prefix(name))
                elif name_problem(name) is None and not _is_archive(name):
                    found.add(name, _size(path), partial(_head, path))
                    if found.packed and found.packed[-1] == name:
                        with path.open("rb") as file:
                            found.add_facts(name, packed_facts(file, name, self._columns))
            self._survey = found
        return self._survey

    def count(self) -> int | None:
        """Number of images; None if known only after reading."""
        found = self.survey()
        return None if found.rows is None else len(found.pictures) + found.rows

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The images, sorted by name, each with its bytes: the upload is deleted after the import."""
        found = self.survey()
        packed, pictures = set(found.packed), set(found.pictures)
        for name, path in self._files:
            problem = name_problem(name)
            size = _size(path)
            if problem is not None:
                yield SourceImage(name, size, problem=problem)
            elif path in self._archives:
                yield from self._members(self._archives[path], self._prefix(name), skip)
            elif name in skip:
                continue
            elif name in packed:
                with path.open("rb") as file:
                    yield from packed_rows(file, name, found.tables, self._columns)
            elif name in pictures:
                problem = too_big(size)
                data = None if problem else path.read_bytes() if size else b""
                yield SourceImage(name, size, data=data, problem=problem)
            elif _is_archive(name):
                yield SourceImage(name, size, problem="it is not a zip or tar archive, or it is damaged")

    def _prefix(self, name: str) -> str:
        return "" if len(self._files) == 1 else _stem(name) + "/"

    def _members(self, archive: Source, folder: str, skip: Container[str]) -> Iterator[SourceImage]:
        for image in archive.images(_Below(folder, skip) if folder else skip):
            yield replace(image, name=folder + image.name) if folder else image


@dataclass(frozen=True)
class _Below(Container[str]):
    """Names to skip inside an archive, translated from names below the folder it counts as."""

    folder: str
    skip: Container[str]

    def __contains__(self, name: object) -> bool:
        return f"{self.folder}{name}" in self.skip


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES) and idx_of(name) is None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0  # an empty file is never written


def _head(path: Path, count: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return file.read(count)


def _archive(path: Path, name: str, columns: Columns) -> Source | None:
    if not path.exists():
        return None
    if is_tar(path):  # before zip: a tar that ends with a zip file looks like one
        return TarSource(path, shown=name, columns=columns)
    if zipfile.is_zipfile(path):
        return ZipSource(path, shown=name, columns=columns)
    if name.lower().endswith(".zip"):
        raise ImportRefused(f"{name} is not a zip file, or it is damaged or truncated: download it again")
    return None


def _stem(name: str) -> str:
    lower = name.lower()
    suffix = max((suffix for suffix in ARCHIVE_SUFFIXES if lower.endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)] if suffix else name
