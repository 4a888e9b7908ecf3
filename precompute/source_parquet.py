"""Parquet shards as the Hugging Face hub stores images: a column of files, and a label with its names."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from precompute.sources import SourceImage, too_big
from precompute.wordnet import Label, is_imagenet, label_of_index, label_of_name

# `validation-00003-of-00014.parquet`, also with a hash before the suffix
_SPLIT = re.compile(r"(train|validation|val|test)(?=[-_.])")
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str | None
    labels: tuple[Label, ...] | None  # by the label's value, where the shard names its classes


class _Unreadable(Exception):
    """A shard cannot be read, or not to its end; the message says why."""


def row_count(path: Path) -> int:
    """Pictures of a shard, from its footer; one that cannot be read counts as one."""
    try:
        with path.open("rb") as file:
            return int(_open(file).metadata.num_rows)
    except (OSError, _Unreadable):
        return 1


def parquet_rows(file: IO[bytes], name: str) -> Iterator[SourceImage]:
    """The pictures of one shard in order of row, `<shard>/<path of the picture>` or `<shard>/<row>`.

    A file that is no shard of pictures, and one that is damaged from some row on, is handed over by its own name
    with that problem: it may be a table that lies beside the pictures.

    Args:
        file: the shard, seekable.
        name: path of the shard inside its source.
    """
    try:
        yield from _rows(file, name)
    except _Unreadable as error:
        yield SourceImage(name, 0, problem=str(error))


def _rows(file: IO[bytes], name: str) -> Iterator[SourceImage]:
    shard = _open(file)
    columns = _find_columns(shard.schema_arrow)
    split_name = _SPLIT.match(name.rsplit("/", 1)[-1])
    split = None if split_name is None else {"validation": "val"}.get(split_name[1], split_name[1])
    wanted = [columns.image] + ([columns.label] if columns.label else [])
    seen: set[str] = set()
    row = 0
    try:
        for batch in shard.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
            cells = batch.column(columns.image).to_pylist()
            values = batch.column(columns.label).to_pylist() if columns.label else [None] * len(cells)
            for cell, value in zip(cells, values, strict=True):
                data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
                # Paths may be missing or repeat (`image.png` in every row); a row's number never does.
                picture = f"{row:08d}" if not path else path if path not in seen else f"{row:08d}-{path}"
                seen.add(picture)
                problem = "its row holds no bytes" if data is None else too_big(len(data))
                yield SourceImage(
                    f"{name}/{picture}",
                    len(data or b""),
                    data=None if problem else data,
                    problem=problem,
                    label=_label(columns, value),
                    split=split,
                    folders=False,
                )
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable(f"it is damaged after {row:,} rows ({error}): get it again") from error


def _open(file: IO[bytes]) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable("it is no parquet file, or a damaged one: get it again") from error


def _find_columns(schema: pa.Schema) -> _Columns:
    features = _features(schema)
    images = [column for column, feature in features.items() if feature.get("_type") == "Image"]
    images = images or [field.name for field in schema if _holds_files(field)]
    if not images:
        found = ", ".join(schema.names)
        raise _Unreadable(f"expected a column of images (a struct of bytes and path), got columns {found}")
    labels = [column for column, feature in features.items() if feature.get("_type") == "ClassLabel"]
    labels = labels or [column for column in ("label", "labels", "wnid", "class") if column in schema.names]
    if not labels:
        return _Columns(images[0], None, None)
    return _Columns(images[0], labels[0], _classes(features.get(labels[0], {}).get("names")))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the `datasets` library says of each column; empty where another program wrote the file."""
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {
        name: feature
        for name, feature in described.items()
        if isinstance(feature, dict) and name in schema.names
    }


def _holds_files(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return any(inner.name == "bytes" and _is_bytes(inner.type) for inner in kind)
    return field.name in ("image", "img", "jpg", "png") and _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _classes(names: Any) -> tuple[Label, ...] | None:
    if not isinstance(names, list):
        return None
    if is_imagenet(names):
        return tuple(label_of_index(index) for index in range(len(names)))
    return tuple(label_of_name(str(name)) for name in names)


def _label(columns: _Columns, value: Any) -> Label | None:
    if value is None or value == "":
        return None
    if isinstance(value, int) and columns.labels is not None:
        return (
            columns.labels[value] if 0 <= value < len(columns.labels) else None
        )  # -1: no label (test split)
    if isinstance(value, int):
        # A number without names is a class of its own; whose order it is in cannot be known.
        return Label(None, None, str(value)) if value >= 0 else None
    return label_of_name(str(value))
