"""A folder of images, read in place without copying."""

import os
from collections.abc import Container, Iterable, Iterator
from functools import partial
from pathlib import Path

from precompute.images.packed import packed_facts, packed_rows
from precompute.images.sources.source import (
    Columns,
    ImportRefused,
    SourceImage,
    Step,
    is_picture,
    no_step,
    too_big,
)
from precompute.images.survey import Survey


class FolderSource:
    """All images and parquet shards below a folder, by name; links are followed, cycles are not."""

    def __init__(
        self,
        folder: Path,
        *,
        only: str | None = None,
        but: Iterable[Path] = (),
        within: Path | None = None,
        columns: Columns | None = None,
    ) -> None:
        """`only` names the one file of the folder to use, if any; folders in `but` are skipped at any depth.

        Links that lead out of `within` are reported as problems.
        """
        self._columns = columns or Columns()
        self._only = only
        self.folder = folder.resolve()
        self._within = None if within is None else within.resolve()
        self._passed_over = {_identity(os.stat(path)) for path in but if path.is_dir()}  # noqa: PTH116
        self._closed: list[SourceImage] = []
        self._survey: Survey | None = None

    def survey(self, step: Step = no_step) -> Survey:
        """Files below the folder, sorted by name."""
        if self._survey is None:
            found = Survey(str(self.folder))
            names = (
                [self._only] if self._only else sorted(self._walk(str(self.folder), "", frozenset(), found))
            )
            for name in names:
                step()
                self._enter(found, name)
            found.pictures.sort()
            found.rows = 0
            for name in found.packed:
                self._enter_packed(found, name)
            self._survey = found
        return self._survey

    def _enter(self, found: Survey, name: str) -> None:
        if is_picture(name):  # problems are reported when it is read
            found.add(name, 0, bytes)
            return
        path = self.folder / name
        try:
            if not path.is_file():  # reading a pipe would block
                found.pass_over("files that are pipes or devices", name)
                return
            found.add(name, path.stat().st_size, partial(_head, path))
        except OSError as error:
            found.pass_over(f"files that cannot be opened ({error.strerror})", name)

    def _enter_packed(self, found: Survey, name: str) -> None:
        try:
            with (self.folder / name).open("rb") as file:
                found.add_facts(name, packed_facts(file, name, self._columns))
        except OSError as error:
            raise ImportRefused(f"{name} cannot be opened ({error.strerror})") from error

    def count(self) -> int | None:
        """Number of images, including those in shards."""
        found = self.survey()
        return None if found.rows is None else len(self._closed) + len(found.pictures) + found.rows

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The images, sorted by name; problems with folders and links come first."""
        found = self.survey()
        yield from self._closed
        packed = set(found.packed)
        for name in sorted([*found.pictures, *found.packed]) if packed else found.pictures:
            if name in skip:
                continue
            if name in packed:
                with (self.folder / name).open("rb") as file:
                    yield from packed_rows(file, name, found.tables, self._columns)
            else:
                yield self._picture(name)

    def _picture(self, name: str) -> SourceImage:
        path = self.folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            return SourceImage(name, 0, problem=f"it cannot be opened ({error.strerror})")
        if not path.is_file():
            return SourceImage(name, 0, problem="it is not a regular file")
        problem = too_big(size)
        return SourceImage(name, size, path=None if problem else path, problem=problem)

    def _walk(
        self, folder: str, prefix: str, above: frozenset[tuple[int, int]], found: Survey
    ) -> Iterator[str]:
        try:
            status = os.stat(folder)  # noqa: PTH116 - `scandir` yields strings, as names are
            entries = list(os.scandir(folder))
        except OSError as error:
            self._closed.append(
                SourceImage(prefix, 0, problem=f"the folder cannot be opened ({error.strerror})")
            )
            return
        here = _identity(status)
        if here in above or here in self._passed_over:  # `above`: a link to one of its parents
            return
        for entry in entries:
            name = prefix + entry.name
            if self._leads_out(entry):
                self._closed.append(
                    SourceImage(name, 0, problem=f"it is a link that points outside {self._within}")
                )
            elif _is_folder(entry):
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    found.pass_over("hidden folders", name + "/")
                else:
                    yield from self._walk(entry.path, name + "/", above | {here}, found)
            else:
                yield name

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        if self._within is None or not entry.is_symlink():
            return False
        return not Path(os.path.realpath(entry.path)).is_relative_to(self._within)


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
