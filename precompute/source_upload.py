"""Files that a person brought through the browser: pictures, archives and shards side by side."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from precompute.source_archive import ARCHIVE_SUFFIXES, TarSource, ZipSource, is_tar
from precompute.source_parquet import parquet_rows
from precompute.sources import (
    GROUND_TRUTH_FILES,
    ImportRefused,
    Source,
    SourceImage,
    check_truth_size,
    is_parquet,
    is_picture,
    name_problem,
    too_big,
)


class UploadSource:
    """Uploaded files by the names that their sender gave them; an archive among others counts as a folder."""

    def __init__(self, files: Sequence[tuple[str, Path]]) -> None:
        self.side_files: dict[str, bytes] = {}
        self._files = [(name.replace("\\", "/").removeprefix("./"), path) for name, path in files]
        self._archives: dict[Path, Source] = {}
        for name, path in self._files:
            if name_problem(name) is None and not is_picture(name) and not is_parquet(name):
                archive = _archive(path, name)
                if archive is not None:
                    self._archives[path] = archive

    def count(self) -> int | None:
        """Number of pictures; None where an archive does not tell."""
        total = 0
        for name, path in self._files:
            if path in self._archives:
                pictures = self._archives[path].count()
                if pictures is None:
                    return None
                total += pictures
            elif is_parquet(name):
                return None
            else:
                total += is_picture(name)
        return total

    def images(self) -> Iterator[SourceImage]:
        """The pictures in order of name, each handed over with its bytes: the upload goes away."""
        for name, path in sorted(self._files, key=lambda file: file[0]):
            problem = name_problem(name)
            size = path.stat().st_size if path.exists() else 0
            if problem is not None:
                yield SourceImage(name, size, problem=problem)
            elif path in self._archives:
                yield from self._members(self._archives[path], name)
            elif is_parquet(name):
                with path.open("rb") as file:
                    yield from parquet_rows(file, name)
            elif is_picture(name):
                problem = too_big(size)
                data = None if problem else path.read_bytes() if size else b""
                yield SourceImage(name, size, data=data, problem=problem)
            elif name.rsplit("/", 1)[-1] in GROUND_TRUTH_FILES:
                check_truth_size(name, size)
                self.side_files[name.rsplit("/", 1)[-1]] = path.read_bytes() if size else b""
            elif name.lower().endswith(ARCHIVE_SUFFIXES):
                yield SourceImage(name, size, problem="it is no zip or tar archive, or a damaged one")
            elif not name.rsplit("/", 1)[-1].startswith("."):
                yield SourceImage(
                    name, size, problem="it is no picture, archive or parquet shard by its name"
                )

    def _members(self, archive: Source, name: str) -> Iterator[SourceImage]:
        folder = "" if len(self._files) == 1 else _stem(name) + "/"
        for image in archive.images():
            yield replace(image, name=folder + image.name) if folder else image
        self.side_files.update(archive.side_files)


def _archive(path: Path, name: str) -> Source | None:
    if not path.exists():
        return None
    if is_tar(path):  # first: a tar that ends with a zip file looks like one
        return TarSource(path, shown=name)
    if zipfile.is_zipfile(path):
        return ZipSource(path, shown=name)
    if name.lower().endswith(".zip"):
        raise ImportRefused(f"{name} is no zip file, or one that is damaged or cut short: get it again")
    return None


def _stem(name: str) -> str:
    lower = name.lower()
    suffix = max((suffix for suffix in ARCHIVE_SUFFIXES if lower.endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)] if suffix else name
