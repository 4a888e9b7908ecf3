"""A folder of pictures: read in place, nothing is copied."""

import os
from collections.abc import Iterator
from pathlib import Path

from precompute.source_parquet import parquet_rows, row_count
from precompute.sources import GROUND_TRUTH_FILES, SourceImage, is_parquet, is_picture, too_big


class FolderSource:
    """All pictures and parquet shards below a folder, by name; links are followed, circles are not."""

    def __init__(self, folder: Path, *, only: str | None = None) -> None:
        """`only` one file of the folder, by name, or all."""
        self.folder = folder.resolve()
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
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that holds it
            return
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    yield from self._walk(entry.path, name + "/", above | {here})
            elif is_picture(name) or is_parquet(name):
                yield name
            elif entry.name in GROUND_TRUTH_FILES:
                self.side_files[entry.name] = Path(entry.path).read_bytes()
