"""Parquet shards in the format of the Hugging Face Hub: a column of images, and one of labels with names."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from db.plurals import count as counted
from precompute.images import parquet_pages
from precompute.images.sources.source import Columns, SourceImage, too_big
from precompute.images.wordnet import Label, is_imagenet, label_of_index, label_of_name

# `validation-00003-of-00014.parquet`, also with a hash before the suffix
_SPLIT = re.compile(r"(train|validation|val|test)(?=[-_.])")
_ANY = Columns()


# Names that identify the intended one of several columns, most specific first.
IMAGE_NAMES = (
    "image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "input", "file", "bytes",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classname", "label_name", "class_label", "fine_label", "fine_labels",
    "category", "category_name", "target", "wnid", "synset", "cls", "species", "breed", "class_id", "label_id",
    "category_id", "classes", "coarse_label", "y",
)  # fmt: skip
SPLIT_NAMES = ("split", "subset", "partition")


@dataclass(frozen=True)
class ShardFacts:
    """What is known of a file of many images before they are read.

    Attributes:
        rows: number of images, None if known only after reading.
        label: where the class comes from, in words.
        note: another remark on the choice of columns, in one sentence.
    """

    rows: int | None
    label: str
    note: str | None = None


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str | None
    split: str | None
    labels: tuple[Label, ...] | None  # by label value, if the shard names its classes
    note: str | None = None


class _Unreadable(Exception):
    """A shard cannot be read, or not to its end; the message says why."""


def shard_facts(file: IO[bytes], columns: Columns) -> ShardFacts:
    """Facts from a shard's footer; an unreadable shard counts as one image."""
    try:
        shard = _open(file)
        found = _find_columns(shard.schema_arrow, columns)
        parquet_pages.check_pages(file, shard.metadata, [found.image])
    except (_Unreadable, parquet_pages.TooPacked):
        return ShardFacts(1, "nothing")
    label = f"column {found.label}" if found.label else "nothing"
    return ShardFacts(int(shard.metadata.num_rows), label, found.note)


def parquet_rows(file: IO[bytes], name: str, columns: Columns = _ANY) -> Iterator[SourceImage]:
    """The images of one shard in row order, named `<shard>/<path of the image>` or `<shard>/<row>`.

    A file that is not a shard of images, or is damaged from some row on, is reported under its own name: it
    may be a table next to the images.

    Args:
        file: the shard, seekable.
        name: path of the shard inside its source.
        columns: columns chosen by the user.
    """
    try:
        yield from _rows(file, name, columns)
    except _Unreadable as error:
        yield SourceImage(name, 0, problem=str(error))


def _rows(file: IO[bytes], name: str, chosen: Columns) -> Iterator[SourceImage]:
    shard = _open(file)
    columns = _find_columns(shard.schema_arrow, chosen)
    split_name = _SPLIT.match(name.rsplit("/", 1)[-1])
    split = None if split_name is None else {"validation": "val"}.get(split_name[1], split_name[1])
    wanted = [column for column in (columns.image, columns.label, columns.split) if column is not None]
    try:
        rows_at_once = parquet_pages.check_pages(file, shard.metadata, wanted)
    except parquet_pages.TooPacked as error:
        raise _Unreadable(str(error)) from error
    left = most = max(parquet_pages.MIN_TOTAL_BYTES, parquet_pages.MAX_RATIO * parquet_pages.size_of(file))
    seen: set[str] = set()
    row = 0
    try:
        for batch in shard.iter_batches(batch_size=rows_at_once, columns=wanted):
            left -= batch.nbytes
            if left < 0:
                raise _Unreadable(
                    f"it unpacks to more than {most:,} bytes after {row:,} rows, {parquet_pages.MAX_RATIO} "
                    "times its size: its contents cannot be photos"
                )
            cells = batch.column(columns.image).to_pylist()
            values = batch.column(columns.label).to_pylist() if columns.label else [None] * len(cells)
            splits = batch.column(columns.split).to_pylist() if columns.split else [split] * len(cells)
            for cell, value, where in zip(cells, values, splits, strict=True):
                data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
                # Paths may be missing or repeat (`image.png` in every row); row numbers are unique.
                picture = f"{row:08d}" if not path else path if path not in seen else f"{row:08d}-{path}"
                seen.add(picture)
                problem = "its row contains no bytes" if data is None else too_big(len(data))
                yield SourceImage(
                    f"{name}/{picture}",
                    len(data or b""),
                    data=None if problem else data,
                    problem=problem,
                    label=_label(columns, value, chosen),
                    split=None if where is None else str(where),
                    folders=False,
                )
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable(
            f"it is damaged after {counted(row, 'row')} ({error}): download it again"
        ) from error


def _open(file: IO[bytes]) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable("it is not a parquet file, or it is damaged: download it again") from error


def _find_columns(schema: pa.Schema, chosen: Columns) -> _Columns:
    """The columns chosen by the user, else those with the best names; never just the first of several."""
    features = _features(schema)
    listed = ", ".join(schema.names)
    for column in (chosen.image, chosen.label, chosen.split):
        if column is not None and column not in schema.names:
            raise _Unreadable(f"it has no column {column!r}: its columns are {listed}")
    images = [field.name for field in schema if _holds_files(field, features.get(field.name, {}))]
    image = chosen.image or _best(images, IMAGE_NAMES)
    if image is None or not _holds_files(schema.field(image), {"_type": "Image"}):
        raise _Unreadable(
            f"expected a column of images (a struct of bytes and path), got columns {listed}"
            if not images or image is not None
            else f"its columns {', '.join(images)} all contain images: choose one with --image-column"
        )
    notes = [] if len(images) == 1 else [f"column {image} of the image columns {', '.join(images)}"]
    classes = [name for name, feature in features.items() if _class_names(feature) is not None]
    fitting = [field.name for field in schema if field.name != image and _may_be_class(field.type)]
    label = (
        chosen.label
        or _best([name for name in fitting if name.lower() in LABEL_NAMES], LABEL_NAMES)
        or (classes[0] if len(classes) == 1 else None)
    )
    if chosen.label is not None and not _may_be_class(schema.field(chosen.label).type):
        raise _Unreadable(f"its column {chosen.label!r} holds {schema.field(chosen.label).type}, not classes")
    if label is None and (classes or fitting):
        notes.append(
            f"no label: columns {', '.join(classes or fitting)} may contain one: choose one with --label-column"
        )
    elif label is not None and len(classes) > 1:
        notes.append(f"column {label} of the class columns {', '.join(classes)}")
    split = chosen.split or _best([name for name in schema.names if name.lower() in SPLIT_NAMES], SPLIT_NAMES)
    names = None if label is None else _classes(_class_names(features.get(label, {})))
    return _Columns(image, label, split, names, "; ".join(notes) or None)


def _best(names: list[str], preferred: Sequence[str]) -> str | None:
    """The one of `names` that `preferred` lists first, or the only one; None if that is ambiguous."""
    ranked = sorted((preferred.index(name.lower()), name) for name in names if name.lower() in preferred)
    return ranked[0][1] if ranked else names[0] if len(names) == 1 else None


def _may_be_class(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _may_be_class(kind.value_type)
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    )  # fmt: skip


def _class_names(feature: Any) -> list[Any] | None:
    """Class names stated by a feature of the `datasets` library, also of a list of classes."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return list(feature["names"])
    return _class_names(feature.get("feature"))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The `datasets` library's description of each column; empty if another program wrote the file."""
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(described, dict):
        return {}
    return {name: feature for name, feature in described.items() if name in schema.names}


def _holds_files(field: pa.Field, feature: Any) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return any(inner.name == "bytes" and _is_bytes(inner.type) for inner in kind)
    described = isinstance(feature, dict) and feature.get("_type") == "Image"
    return _is_bytes(kind) and (described or field.name.lower() in IMAGE_NAMES)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _classes(names: Any) -> tuple[Label, ...] | None:
    if not isinstance(names, list):
        return None
    if is_imagenet(names):
        return tuple(label_of_index(index) for index in range(len(names)))
    return tuple(label_of_name(str(name)) for name in names)


def _label(columns: _Columns, value: Any, chosen: Columns) -> Label | None:
    if isinstance(value, list):  # several classes: which one is meant is unknown
        return _label(columns, value[0], chosen) if len(value) == 1 else None
    if columns.labels is not None and isinstance(value, int) and not isinstance(value, bool):
        return (
            columns.labels[value] if 0 <= value < len(columns.labels) else None
        )  # -1: no label (test split)
    return label_of_value(value, chosen)


def label_of_value(value: Any, columns: Columns) -> Label | None:
    """The class in a cell of a table; None if there is none.

    Integers are classes without a name unless `columns` names them, including integers that pandas wrote as
    floats because some are missing; other numbers are not classes.
    """
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return label_of_name(str(value).lower())
    if isinstance(value, float):
        return columns.numbered(int(value)) if value.is_integer() else None
    if isinstance(value, int):
        return columns.numbered(value)
    text = str(value).strip()
    if re.fullmatch(r"-?\d{1,9}(\.0)?", text):
        return columns.numbered(int(text.removesuffix(".0")))
    return label_of_name(text) if text and text.lower() not in ("nan", "none", "null") else None
