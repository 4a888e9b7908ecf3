"""List a source's files by name and kind before any image is read: the input of layout detection."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from precompute.images.sources.parquet import ShardFacts
from precompute.images.sources.source import (
    GROUND_TRUTH_FILES,
    MAX_TRUTH_BYTES,
    check_truth_size,
    is_parquet,
    is_picture,
    suffix_of,
)
from workers.requests.image_sets import MAX_JSON_BYTES

# Tables and lists that may contain labels. A file for a single image (WebDataset) is far smaller.
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".meta", ".mat"})
MAX_COMPANION_BYTES = 64 * 2**10
MAX_TABLE_TOTAL = 256 * 2**20
# If one folder contains more, they are files for one image each, such as boxes.
MAX_TABLES_A_FOLDER = 50
# The first bytes of a file with an uninformative name. DICOM's magic number is at 128.
HEAD_BYTES = 132
_MAX_KINDS = 50

_PICTURE_HEADS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ",
)  # fmt: skip
_KNOWN_OTHERS = {
    ".xml": "XML files (.xml), such as boxes around objects",
    ".txt": "text files (.txt)",
    ".csv": "tables (.csv)",
    ".tsv": "tables (.tsv)",
    ".json": "JSON files (.json)",
    ".jsonl": "tables (.jsonl)",
    ".ndjson": "tables (.ndjson)",
    ".mat": "MATLAB files (.mat)",
    ".npy": "NumPy arrays (.npy)",
    ".npz": "NumPy arrays (.npz)",
    ".pdf": "PDF files (.pdf)",
    ".mp4": "videos (.mp4)",
    ".avi": "videos (.avi)",
    ".nii": "NIfTI files (.nii)",
    ".md": "text files (.md)",
    ".html": "web pages (.html)",
    ".py": "programs (.py)",
    ".yaml": "settings (.yaml)",
    ".yml": "settings (.yml)",
    ".cls": "class files (.cls) without an image",
}
_DICOM = "DICOM files (.dcm), which are not supported: export them as PNG"
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
HIDDEN = "hidden files"

_IDX = re.compile(r"(.*)[-_.]idx([13])[-_.]ubyte(\.gz)?", re.IGNORECASE)
_CIFAR = re.compile(r"(data_batch_\d+|test_batch|train|test)(\.bin)?")


@dataclass(frozen=True)
class Unused:
    """Files of one kind that an import does not use: how many, and the first of them."""

    kind: str
    count: int
    example: str

    def sentence(self) -> str:
        """Their line in the report; a single file needs no count, and the name of its kind is a plural."""
        if self.count == 1:
            return f"{self.kind}: {self.example}"
        return f"{self.count:,} {self.kind}: such as {self.example}"


@dataclass
class Survey:
    """The files of a source by kind, in the order in which they were found.

    Attributes:
        origin: display name of the source.
        pictures: names of files that are images by name or by their first bytes.
        odd: those of `pictures` recognized only by their first bytes.
        packed: names of files that contain many images: parquet shards, CIFAR batches, MNIST's idx files.
        tables: contents of small files that may contain labels, by name.
        too_big: names and sizes of such files over the limits.
        facts: what is known of files in `packed`, by name.
        rows: number of images in `packed`; None if known only after reading them.
    """

    origin: str = ""
    pictures: list[str] = field(default_factory=list)
    odd: set[str] = field(default_factory=set)
    packed: list[str] = field(default_factory=list)
    tables: dict[str, bytes] = field(default_factory=dict)
    too_big: dict[str, int] = field(default_factory=dict)
    facts: dict[str, ShardFacts] = field(default_factory=dict)
    rows: int | None = 0
    _others: dict[str, tuple[int, str]] = field(default_factory=dict)
    _table_bytes: int = 0
    _in_folder: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, size: int, read: Callable[[int], bytes], *, companions: bool = False) -> None:
        """Add one regular file.

        Args:
            name: its path in the source.
            size: in bytes.
            read: returns its first bytes, at most as many as requested; called at most once.
            companions: the source has a small text file for each image (WebDataset).
        """
        last = name.rsplit("/", 1)[-1]
        if is_hidden(name):
            self.pass_over(HIDDEN, name)
        elif is_picture(name):
            self.pictures.append(name)
        elif is_parquet(name) and (not last.startswith("metadata") or size > MAX_TRUTH_BYTES):
            self.packed.append(name)
        elif last in GROUND_TRUTH_FILES:
            check_truth_size(name, size)
            self._keep(name, read(size))
        elif is_packed_array(name, size):
            self.packed.append(name)
        elif _is_table(name):
            self._add_table(name, size, read, companions)
        elif suffix_of(last) in _DICOM_SUFFIXES:
            self.pass_over(_DICOM, name)
        elif suffix_of(last) in _KNOWN_OTHERS:
            self.pass_over(kind_of(name), name)
        else:
            self._sniff(name, read(HEAD_BYTES))

    def _add_table(self, name: str, size: int, read: Callable[[int], bytes], companions: bool) -> None:
        folder, _, last = name.rpartition("/")
        limit = MAX_JSON_BYTES if suffix_of(last) == ".json" else MAX_TRUTH_BYTES
        many = self._in_folder.get(folder, 0)
        if suffix_of(last) == ".cls" or companions:
            limit, many = (MAX_COMPANION_BYTES if suffix_of(last) == ".cls" else limit), 0
        if many >= MAX_TABLES_A_FOLDER:
            self.pass_over(kind_of(name), name)
        elif size > limit or self._table_bytes + size > MAX_TABLE_TOTAL:
            self.too_big[name] = size
            self.pass_over(f"{kind_of(name)} of more than {limit:,} bytes", name)
        else:
            self._in_folder[folder] = many + 1
            self._keep(name, read(size))

    def add_facts(self, name: str, facts: ShardFacts) -> None:
        """Add what is known of a file of many images."""
        self.facts[name] = facts
        self.rows = None if self.rows is None or facts.rows is None else self.rows + facts.rows

    def _keep(self, name: str, content: bytes) -> None:
        self._table_bytes += len(content)
        self.tables[name] = content

    def _sniff(self, name: str, head: bytes) -> None:
        if head[128:132] == b"DICM":
            self.pass_over(_DICOM, name)
        elif looks_like_picture(head):
            self.pictures.append(name)
            self.odd.add(name)
        else:
            self.pass_over(kind_of(name), name)

    def pass_over(self, kind: str, name: str, count: int = 1) -> None:
        """Count files that are not used."""
        if kind not in self._others and len(self._others) >= _MAX_KINDS:
            kind = "files of other kinds"
        before, example = self._others.get(kind, (0, name))
        self._others[kind] = (before + count, example)

    def unused(self) -> Iterator[Unused]:
        """Unused files so far, by kind; tables are not included."""
        for kind, (count, example) in self._others.items():
            yield Unused(kind, count, example)

    def merge(self, other: "Survey", prefix: str) -> None:
        """Add everything that `other` found, below `prefix` (empty, or ending with a slash)."""
        self.pictures += [prefix + name for name in other.pictures]
        self.odd |= {prefix + name for name in other.odd}
        self.packed += [prefix + name for name in other.packed]
        for name, content in other.tables.items():
            self._keep(prefix + name, content)
        self.too_big |= {prefix + name: size for name, size in other.too_big.items()}
        for name, facts in other.facts.items():
            self.add_facts(prefix + name, facts)
        for one in other.unused():
            self.pass_over(one.kind, prefix + one.example, one.count)


def is_hidden(name: str) -> bool:
    """Whether it is a file that desktops or version control leave behind."""
    parts = name.split("/")
    return (
        "__MACOSX" in parts
        or parts[-1] in ("Thumbs.db", "desktop.ini")
        or any(part.startswith(".") and part not in (".", "..") for part in parts)
    )


def kind_of(name: str) -> str:
    """The kind under which an unused file is listed."""
    suffix = suffix_of(name.rsplit("/", 1)[-1])
    if suffix in _KNOWN_OTHERS:
        return _KNOWN_OTHERS[suffix]
    plain = re.fullmatch(r"\.[a-z0-9_]{1,12}", suffix)
    return f"files ending in {suffix}" if plain else "files that are not images"


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that starts with `head` is an image in a supported format."""
    return (
        head.startswith(_PICTURE_HEADS)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) > 26)
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"))
        or re.match(rb"P[1-6]\s\d+\s\d+", head) is not None
    )


def idx_of(name: str) -> tuple[str, int] | None:
    """Stem and dimensions of a file named as in MNIST: (`train-images`, 3) or (`train-labels`, 1)."""
    found = _IDX.fullmatch(name.rsplit("/", 1)[-1])
    return (found[1], int(found[2])) if found else None


def is_packed_array(name: str, size: int) -> bool:
    """Whether a file is named like CIFAR's batches or MNIST's images."""
    last = name.rsplit("/", 1)[-1]
    found = _CIFAR.fullmatch(last)
    if found is not None:  # a record is one or two labels and 3,072 pixels
        return size > 3072 and (found[2] is None or size % 3073 == 0 or size % 3074 == 0)
    return idx_of(name) is not None and idx_of(name)[1] == 3  # type: ignore[index]


def _is_table(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    idx = idx_of(name)
    return (
        suffix_of(last) in TABLE_SUFFIXES | {".cls", ".parquet"}
        or (idx is not None and idx[1] == 1)
        or last in ("meta", "batches.meta")
    )
