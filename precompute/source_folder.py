"""A folder of pictures: read in place, nothing is copied."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from precompute.source_parquet import parquet_rows, row_count
from precompute.sources import (
    GROUND_TRUTH_FILES,
    ImportRefused,
    SourceImage,
    check_truth_size,
    is_parquet,
    is_picture,
    too_big,
)


class FolderSource:
    """All pictures and parquet shards below a folder, by name; links are followed, circles are not."""

    def __init__(
        self,
        folder: Path,
        *,
        only: str | None = None,
        but: Iterable[Path] = (),
        within: Path | None = None,
    ) -> None:
        """`only` one file of the folder, by name, or all, but for folders anywhere below it.

        Links that lead out of `within` are handed over with that problem.
        """
        self.folder = folder.resolve()
        self._within = None if within is None else within.resolve()
        self._passed_over = {_identity(os.stat(path)) for path in but if path.is_dir()}  # noqa: PTH116
        self.side_files: dict[str, bytes] = {}
        self._closed: list[SourceImage] = []
        self._names = [only] if only else sorted(self._walk(str(self.folder), "", frozenset()))

    def count(self) -> int | None:
        """Number of pictures, those in shards included."""
        shards = [self.folder / name for name in self._names if is_parquet(name)]
        return len(self._closed) + len(self._names) - len(shards) + sum(row_count(shard) for shard in shards)

    def images(self) -> Iterator[SourceImage]:
        """The pictures in order of name; folders that cannot be opened come first, with their problem."""
        yield from self._closed
        for name in self._names:
            if is_parquet(name):
                with (self.folder / name).open("rb") as file:
                    yield from parquet_rows(file, name)
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

    def _walk(self, folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        try:
            status = os.stat(folder)  # noqa: PTH116 - scandir's entries are strings, and so are the names
            entries = list(os.scandir(folder))
        except OSError as error:
            self._closed.append(
                SourceImage(prefix, 0, problem=f"the folder cannot be opened ({error.strerror})")
            )
            return
        here = _identity(status)
        if here in above or here in self._passed_over:  # `above`: a link to a folder that holds it
            return
        for entry in entries:
            name = prefix + entry.name
            if self._leads_out(entry):
                self._closed.append(
                    SourceImage(name, 0, problem=f"it is a link that leads out of {self._within}")
                )
            elif _is_folder(entry):
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    yield from self._walk(entry.path, name + "/", above | {here})
            elif is_picture(name) or is_parquet(name):
                yield name
            elif entry.name in GROUND_TRUTH_FILES:
                self._read_side_file(Path(entry.path), name)

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        if self._within is None or not entry.is_symlink():
            return False
        return not Path(os.path.realpath(entry.path)).is_relative_to(self._within)

    def _read_side_file(self, path: Path, name: str) -> None:
        if not path.is_file():  # a pipe of that name would be waited for
            return
        check_truth_size(name, path.stat().st_size)
        try:
            self.side_files[path.name] = path.read_bytes()
        except OSError as error:
            raise ImportRefused(f"{name} cannot be opened ({error.strerror})") from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
