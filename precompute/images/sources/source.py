"""The interface of image sources: a folder, an archive, an upload, parquet shards."""

import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from precompute.images.wordnet import Label

if TYPE_CHECKING:
    from precompute.images.survey import Survey

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".tif", ".tiff"}
    | {".webp", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
)
# Image formats that are not supported: reported as refused rather than silently ignored.
FOREIGN_SUFFIXES = frozenset({".svg", ".heic", ".heif", ".psd", ".eps", ".dng", ".cr2", ".nef", ".jxl"})
# Files with the labels of a source; see `precompute.images.ground_truth`.
GROUND_TRUTH_FILES = frozenset({"LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"})
# Maximum size of one image file; the largest photos are a tenth of it.
MAX_BYTES = 512 * 2**20
# Maximum size of one ground truth file; the largest known one, Kaggle's table, is a tenth of it.
MAX_TRUTH_BYTES = 32 * 2**20
# Maximum UTF-8 length of a path in an archive or an upload, as in file systems.
MAX_PATH = 4096
MAX_PATH_PART = 255


class ImportRefused(Exception):
    """Nothing was imported; the message is one sentence for the user."""


@dataclass(frozen=True)
class SourceImage:
    """One image of a source, or the problem with it.

    Attributes:
        name: path of the image inside its source.
        size: file size in bytes.
        data: contents of the file if the source is an archive: a copy is kept.
        path: absolute path of the file if it stays in place.
        problem: why there is neither, in one sentence.
        label, split: stated by the source itself for this image (parquet).
        folders: whether the folders in `name` may determine class and split.
    """

    name: str
    size: int
    data: bytes | None = None
    path: Path | None = None
    problem: str | None = None
    label: Label | None = None
    split: str | None = None
    folders: bool = True


@dataclass(frozen=True)
class Columns:
    """The user's choices about tables and shards: columns by name, and names of numbered classes, from 0."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    names: tuple[Label, ...] | None = None

    def numbered(self, number: int) -> Label | None:
        """The class of a number: its name, or the number itself; None below 0 and past the last name."""
        if number < 0 or (self.names is not None and number >= len(self.names)):
            return None
        return Label(None, None, str(number)) if self.names is None else self.names[number]


# Called repeatedly while a source is surveyed; an exception it raises ends the survey.
Step = Callable[[], None]


def no_step() -> None:
    """Do nothing: no one is waiting."""


class Source(Protocol):
    """A place that images come from."""

    def survey(self, step: Step = no_step, /) -> "Survey":
        """List the contents without reading any image.

        Raises:
            ImportRefused: the source itself is damaged.
        """

    def count(self) -> int | None:
        """Number of images; None if known only after reading everything."""

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The images, one at a time, except those whose names are in `skip`.

        Raises:
            ImportRefused: the source itself is damaged.
        """


def is_picture(name: str) -> bool:
    """Whether a file of this name is treated as an image; its content decides later."""
    last = name.rsplit("/", 1)[-1]
    if last.startswith(".") or "__MACOSX/" in name:  # desktop metadata
        return False
    return suffix_of(last) in PICTURE_SUFFIXES | FOREIGN_SUFFIXES


def is_parquet(name: str) -> bool:
    """Whether a file of this name is treated as a parquet shard."""
    last = name.rsplit("/", 1)[-1]
    return suffix_of(last) == ".parquet" and not last.startswith((".", "_"))


def name_problem(name: str) -> str | None:
    """Why an image with this name in an archive or an upload is refused; None if it is accepted.

    No path is ever built from such a name, so one that escapes its folder would be harmless; but it suggests
    malicious intent.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "its path is not valid UTF-8"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "its path contains control characters"
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name):
        return "its path points outside the archive"
    if len(encoded) > MAX_PATH or any(len(part.encode()) > MAX_PATH_PART for part in parts):
        return f"its path has {len(encoded):,} bytes, the limit is {MAX_PATH:,} and {MAX_PATH_PART} between slashes"
    return None


def too_big(size: int) -> str | None:
    """Why a file of `size` bytes is refused; None if it is accepted."""
    return f"it has {size:,} bytes, the limit is {MAX_BYTES:,}" if size > MAX_BYTES else None


def check_truth_size(name: str, size: int) -> None:
    """Raise ImportRefused if the file `name` of `size` bytes is too big to be ground truth."""
    if size > MAX_TRUTH_BYTES:
        raise ImportRefused(
            f"{name} is not a ground truth: it has {size:,} bytes, the limit is {MAX_TRUTH_BYTES:,}"
        )


def suffix_of(file_name: str) -> str:
    """The last suffix of a file name with its dot, in lower case; empty if there is none."""
    return "." + file_name.rsplit(".", 1)[-1].lower() if "." in file_name else ""
