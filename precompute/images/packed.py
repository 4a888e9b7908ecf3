"""Files that contain many images: parquet shards, CIFAR's batches, MNIST's idx files.

CIFAR's Python version is pickled. The unpickler here knows only the five names that its files use and
replaces each by an inert stand-in, so nothing named in a pickle is ever called; any other name refuses the
file.

References: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; Y. LeCun et al.,
"Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998.
"""

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from db.plurals import count as counted
from precompute.images.sources.parquet import ShardFacts, parquet_rows, shard_facts
from precompute.images.sources.source import Columns, SourceImage, is_parquet
from precompute.images.survey import idx_of
from precompute.images.wordnet import Label, label_of_name

Pixels = NDArray[np.uint8]
# The largest of these files: MNIST's training images have 47 MB, CIFAR-100's training set 155 MB.
MAX_ARRAY_BYTES = 512 * 2**20
# MNIST compresses to a sixth of its size, empty images to a hundredth.
_MAX_RATIO = 200
_MIN_ARRAY_BYTES = 2**20
_SIDE = 32
_META = ("batches.meta.txt", "fine_label_names.txt", "batches.meta", "meta")


class _Unreadable(Exception):
    """The file is none of these, or damaged; the message says why."""


def packed_rows(
    file: IO[bytes], name: str, tables: Mapping[str, bytes], columns: Columns
) -> Iterator[SourceImage]:
    """The images of one file, each with split and class; an unreadable file yields a problem under its name.

    Args:
        file: seekable.
        name: its path in the source.
        tables: contents of the source's small files, by path: MNIST's labels, names of CIFAR's classes.
        columns: columns chosen by the user.
    """
    if is_parquet(name):
        yield from parquet_rows(file, name, columns)
        return
    try:
        if idx_of(name) is not None:
            yield from _idx_rows(file, name, tables, columns)
        else:
            yield from _cifar_rows(file, name, tables, columns)
    except _Unreadable as error:
        yield SourceImage(name, 0, problem=str(error))


def packed_facts(file: IO[bytes], name: str, columns: Columns) -> ShardFacts:
    """What is known of such a file without reading its images."""
    if is_parquet(name):
        return shard_facts(file, columns)
    if idx_of(name) is not None:
        return ShardFacts(None, "the idx file of labels with the same stem")
    return ShardFacts(None, "the batch's own labels")


def label_files(packed: Sequence[str], tables: Mapping[str, bytes]) -> set[str]:
    """The small files next to such files that contain their labels or class names."""
    folders = {name.rpartition("/")[0] for name in packed if not is_parquet(name)}
    return {
        path
        for path in tables
        if path.rpartition("/")[0] in folders
        and (idx_of(path) is not None or path.rpartition("/")[2] in _META)
    }


def _idx_rows(
    file: IO[bytes], name: str, tables: Mapping[str, bytes], columns: Columns
) -> Iterator[SourceImage]:
    pixels = _idx_array(_unzipped(file.read(MAX_ARRAY_BYTES)), dimensions=3)
    found = idx_of(name)
    assert found is not None, "called for idx files only"
    folder, slash, _ = name.rpartition("/")
    wanted = found[0].replace("images", "labels")
    labels = next(
        (
            content
            for path, content in tables.items()
            if path.rpartition("/")[0] == folder and idx_of(path) == (wanted, 1)
        ),
        None,
    )
    numbers: Sequence[int | None] = [None] * len(pixels)
    if labels is not None:
        values = _idx_array(_unzipped(labels), dimensions=1)
        if len(values) != len(pixels):
            held, told = counted(len(pixels), "image"), counted(len(values), "label")
            raise _Unreadable(f"it contains {held}, but its label file {told}")
        numbers = values.tolist()
    stem = found[0].lower()
    split = "train" if "train" in stem else "test" if "t10k" in stem or "test" in stem else None
    for row, (picture, number) in enumerate(zip(pixels, numbers, strict=True)):
        label = None if number is None else columns.numbered(number)
        yield _picture(f"{folder}{slash}{found[0]}/{row:05d}.png", picture, split, label)


def _idx_array(content: bytes, *, dimensions: int) -> Pixels:
    """The array of an idx file of bytes: two zeros, 8 for bytes, the number of dimensions, then their sizes."""
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise _Unreadable("it is not an idx file of bytes, or it is damaged: download it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    count = 1
    for size in shape:
        count *= size
    if count != len(content) - start:
        raise _Unreadable(f"it is damaged: it states {count:,} bytes but contains {len(content) - start:,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unzipped(content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            unpacked = packed.read(max(_MIN_ARRAY_BYTES, _MAX_RATIO * len(content)))
    except (OSError, EOFError, zlib.error) as error:
        raise _Unreadable(f"its gzip stream is damaged ({error}): download it again") from error
    return unpacked


def _cifar_rows(
    file: IO[bytes], name: str, tables: Mapping[str, bytes], columns: Columns
) -> Iterator[SourceImage]:
    last = name.rsplit("/", 1)[-1]
    content = file.read(MAX_ARRAY_BYTES)
    if last.endswith(".bin"):
        # CIFAR-100: coarse and fine label, then the pixels
        labels_a_row = 2 if len(content) % 3074 == 0 and len(content) % 3073 else 1
        records = np.frombuffer(content, np.uint8).reshape(-1, labels_a_row + 3 * _SIDE * _SIDE)
        numbers: Sequence[int] = records[:, labels_a_row - 1].tolist()
        data, files = records[:, labels_a_row:], None
    else:
        data, numbers, files = _unpickled_batch(content)
    names = _class_names(name, tables)
    split = "test" if last.startswith("test") else "train"
    for row, number in enumerate(numbers):
        own = files[row] if files is not None else f"{row:05d}"
        label = (
            names[number]
            if columns.names is None and names is not None and 0 <= number < len(names)
            else columns.numbered(number)
        )
        pixels = data[row].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
        yield _picture(f"{name.removesuffix('.bin')}/{own.removesuffix('.png')}.png", pixels, split, label)


def _class_names(name: str, tables: Mapping[str, bytes]) -> list[Label] | None:
    folder = name.rpartition("/")[0]
    for path, content in tables.items():
        if path.rpartition("/")[0] != folder:
            continue
        last = path.rsplit("/", 1)[-1]
        if last in ("batches.meta.txt", "fine_label_names.txt"):
            return [
                label_of_name(line.strip())
                for line in content.decode("utf-8", "replace").split("\n")
                if line.strip()
            ]
        if last in ("batches.meta", "meta"):
            meta = _unpickled(content)
            names = meta.get("fine_label_names") or meta.get("label_names")
            if isinstance(names, list):
                return [label_of_name(_text(one)) for one in names]
    return None


def _unpickled_batch(content: bytes) -> tuple[Pixels, list[int], list[str] | None]:
    """Pixels (rows, 3072), class numbers and file names of a batch of CIFAR's Python version."""
    batch = _unpickled(content)
    array, labels = batch.get("data"), batch.get("fine_labels") or batch.get("labels")
    if not isinstance(array, _Array) or not isinstance(labels, list):
        raise _Unreadable("it is not a CIFAR batch: it contains no `data` and `labels`")
    pixels = array.pixels()
    if len(pixels) != len(labels) or not all(isinstance(number, int) for number in labels):
        held, told = counted(len(pixels), "image"), counted(len(labels), "label")
        raise _Unreadable(f"it holds {held} and {told}, or labels that are not numbers")
    files = batch.get("filenames")
    texts = [_text(one) for one in files] if isinstance(files, list) and len(files) == len(labels) else None
    return pixels, labels, texts


class _Array:
    """Stand-in for an array in a pickle: keeps the arguments it is built from."""

    def __init__(self, *_: Any) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def pixels(self) -> Pixels:
        """The array as bytes, one row per image; raises `_Unreadable` for anything else."""
        state = self._state
        data = state[4] if isinstance(state, tuple) and len(state) == 5 else None
        data = data.content if isinstance(data, _Encoded) else data
        data = data.encode("latin1") if isinstance(data, str) else data
        shape = state[1] if data is not None else None
        kind = state[2] if data is not None else None
        if (
            not isinstance(data, bytes)
            or not isinstance(kind, _Kind)
            or kind.name not in ("u1", "|u1", "uint8")
            or not isinstance(shape, tuple)
            or len(shape) != 2
            or shape[1] != 3 * _SIDE * _SIDE
            or len(data) != shape[0] * shape[1]
        ):
            raise _Unreadable("its `data` is not an array with 3,072 bytes per row")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if state[3] else "C")


class _Kind:
    """Stand-in for a NumPy type in a pickle."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = _text(name)

    def __setstate__(self, state: Any) -> None:
        pass


class _Encoded:
    """Stand-in for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""

    def __init__(self, text: Any = "", encoding: Any = "") -> None:
        if not isinstance(text, str) or _text(encoding) != "latin1":
            raise _Unreadable("it is not a CIFAR batch: it encodes something other than bytes")
        self.content = text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        pass


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle._Unpickler):  # the C version grows its memo to any number it reads
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _Unreadable(
                f"it is not a CIFAR batch: it refers to {module}.{name}, which is not run"
            ) from None


def _unpickled(content: bytes) -> dict[str, Any]:
    try:
        found = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _Unreadable:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise _Unreadable("it is not a CIFAR batch, or it is damaged: download it again") from error
    if not isinstance(found, dict):
        raise _Unreadable("it is not a CIFAR batch: it contains no dictionary")
    return {_text(key): value for key, value in found.items()}


def _text(given: Any) -> str:
    return given.decode("utf-8", "replace") if isinstance(given, bytes) else str(given)


def _picture(name: str, pixels: Pixels, split: str | None, label: Label | None) -> SourceImage:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    return SourceImage(name, len(data), data=data, label=label, split=split, folders=False)
