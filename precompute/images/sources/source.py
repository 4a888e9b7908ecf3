"""What every source of images hands over, whatever it is: a folder, an archive, parquet shards."""

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
# Pictures to people, but not to us: they are named as refused rather than passed over in silence.
FOREIGN_SUFFIXES = frozenset({".svg", ".heic", ".heif", ".psd", ".eps", ".dng", ".cr2", ".nef", ".jxl"})
# Files that say what the images of a source show; see `precompute.images.ground_truth`.
GROUND_TRUTH_FILES = frozenset({"LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"})
# One picture's file; the largest photographs are a tenth of it.
MAX_BYTES = 512 * 2**20
# One file of ground truth; the largest there is, Kaggle's table, is a tenth of it.
MAX_TRUTH_BYTES = 32 * 2**20
# A path inside an archive or an upload, in UTF-8; file systems end there too.
MAX_PATH = 4096
MAX_PATH_PART = 255


class ImportRefused(Exception):
    """Nothing was imported; the message is one sentence for the person who asked."""


@dataclass(frozen=True)
class SourceImage:
    """One picture of a source, or one that cannot be handed over.

    Attributes:
        name: path of the picture inside its source.
        size: of the file in bytes.
        data: the file's bytes, where the source is an archive: a copy is kept.
        path: absolute path of the file, where it stays in its place.
        problem: why there is neither, in one sentence.
        label, split: what the source itself says of this picture (parquet).
        folders: whether the folders in `name` may say class and split.
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
    """What a person said of tables and shards: columns by name, and the names of numbered classes from 0."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    names: tuple[Label, ...] | None = None

    def numbered(self, number: int) -> Label | None:
        """The class of that number: its name, or the number itself; None below 0 and past the last name."""
        if number < 0 or (self.names is not None and number >= len(self.names)):
            return None
        return Label(None, None, str(number)) if self.names is None else self.names[number]


# Called again and again while a source is looked through; what it raises ends that.
Step = Callable[[], None]


def no_step() -> None:
    """Nobody waits."""


class Source(Protocol):
    """A place that images come from."""

    def survey(self, step: Step = no_step, /) -> "Survey":
        """What lies in it; no picture is read.

        Raises:
            ImportRefused: the source itself is damaged.
        """

    def count(self) -> int | None:
        """Number of pictures, None where only reading everything would tell."""

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:
        """The pictures, one at a time, but for those called as in `skip`.

        Raises:
            ImportRefused: the source itself is damaged.
        """


def is_picture(name: str) -> bool:
    """Whether a file of that name is taken for a picture; what is inside decides later."""
    last = name.rsplit("/", 1)[-1]
    if last.startswith(".") or "__MACOSX/" in name:  # what desktops leave behind
        return False
    return suffix_of(last) in PICTURE_SUFFIXES | FOREIGN_SUFFIXES


def is_parquet(name: str) -> bool:
    """Whether a file of that name is taken for a parquet shard."""
    last = name.rsplit("/", 1)[-1]
    return suffix_of(last) == ".parquet" and not last.startswith((".", "_"))


def name_problem(name: str) -> str | None:
    """Why a picture of that name in an archive or an upload is not taken; None where it is.

    No path is ever made from such a name, so one that climbs out would do no harm; who packs one means to.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "its path is not valid UTF-8"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "its path holds control characters"
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name):
        return "its path leads out of the folder that it is packed in"
    if len(encoded) > MAX_PATH or any(len(part.encode()) > MAX_PATH_PART for part in parts):
        return f"its path has {len(encoded):,} bytes, the limit is {MAX_PATH:,} and {MAX_PATH_PART} between slashes"
    return None


def too_big(size: int) -> str | None:
    """Why a file of `size` bytes is not read; None where it is."""
    return f"it has {size:,} bytes, the limit is {MAX_BYTES:,}" if size > MAX_BYTES else None


def check_truth_size(name: str, size: int) -> None:
    """Raises ImportRefused where a file called `name`, of `size` bytes, is too big to be ground truth."""
    if size > MAX_TRUTH_BYTES:
        raise ImportRefused(
            f"{name} is no ground truth: it has {size:,} bytes, the limit is {MAX_TRUTH_BYTES:,}"
        )


def suffix_of(file_name: str) -> str:
    """The last suffix of a file's name with its dot, in small letters; empty where there is none."""
    return "." + file_name.rsplit(".", 1)[-1].lower() if "." in file_name else ""
