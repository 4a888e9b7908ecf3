"""Tables next to the images: CSV, TSV, JSON, JSON lines, parquet, and lists of `<image> <class>`.

A table is read as a whole, within size limits. The column that names the image is found by comparing cells
with the images' names; the column that states the class is found by its name.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from db.suggestions import hint
from precompute.images.labels import split_of
from precompute.images.layouts.matching import Matcher
from precompute.images.parquet_pages import MIN_TOTAL_BYTES, TooPacked, check_pages
from precompute.images.sources.parquet import LABEL_NAMES, SPLIT_NAMES, label_of_value
from precompute.images.sources.source import Columns, ImportRefused, suffix_of
from precompute.images.wordnet import Label, label_of_name

MAX_CELLS = 5_000_000
MAX_COLUMNS = 2000
MAX_CELL = 100_000
_SAMPLE = 500
# Column names that give a location in the image.
_WHERE = re.compile(
    r"(x|y|w|h|width|height|bbox.*|box.*|[xy]_?(min|max|1|2|center)|(left|top|right|bottom)|area|iscrowd|segmentation)"
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")

Cells = list[Any]


@dataclass(frozen=True)
class Table:
    """Column names (`1`, `2`, ... if the file has none) and rows."""

    name: str
    columns: tuple[str, ...]
    rows: list[Cells]
    headed: bool = True


@dataclass(frozen=True)
class Stated:
    """What a table states about images.

    Attributes:
        labels: classes by image name; None for an empty cell.
        splits: splits by image name.
        image, label, split: the columns used.
        conflicts: number of images whose rows disagree; they have no label.
        unmatched: number of rows that match no image of the source, or several.
        example: the name in the first of these.
        note: what remained ambiguous, in one sentence.
    """

    labels: Mapping[str, Label | None]
    splits: Mapping[str, str]
    image: str
    label: str | None
    split: str | None
    conflicts: int = 0
    unmatched: int = 0
    example: str = ""
    note: str | None = None


def read_table(name: str, content: bytes) -> Table | None:
    """Parse a file as a table; None if it is not one.

    Raises:
        ImportRefused: it is a table, but damaged or too big.
    """
    suffix = suffix_of(name.rsplit("/", 1)[-1])
    if suffix == ".parquet":
        return _parquet(name, content)
    if suffix in (".jsonl", ".ndjson"):
        return _records(name, list(_json_lines(name, content)))
    if suffix == ".json":
        return _json(name, content)
    if suffix in (".csv", ".tsv", ".txt"):
        return _text(name, content)
    return None


def _text(name: str, content: bytes) -> Table | None:
    if b"\0" in content[:4096]:
        if content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            return None
        text = content.decode("utf-16", "replace")
    else:
        text = content.decode("utf-8-sig", "replace")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(("\t", ",", ";", "|"), key=first.count)
    rows: list[Cells] = []
    if first.count(delimiter):
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append([cell.strip() for cell in row])
                _check_cells(name, len(rows), len(row))
        except csv.Error as error:
            raise ImportRefused(f"{name} cannot be read at line {reader.line_num}: {error}") from error
    else:
        # one `<image> <class>` per line; the class is what follows the last space
        for line in text.splitlines():
            if line.strip():
                rows.append(line.strip().rsplit(None, 1))
                _check_cells(name, len(rows), 2)
    if not rows:
        return None
    width = max(len(row) for row in rows[:_SAMPLE])
    return Table(name, tuple(str(at + 1) for at in range(width)), rows, headed=False)


def _with_header(table: Table, matcher: Matcher, folder: str) -> Table:
    """A text table with its first row as column names, unless that row itself names an image."""
    first = table.rows[0]
    if table.headed or len(table.rows) < 2 or len(first) < 2:
        return table
    if any(matcher.find(cell, folder) for cell in first) or all(_NUMBER.fullmatch(cell) for cell in first):
        return table
    second = table.rows[1]
    if len(first) < len(second) or len(set(first)) != len(first):
        return table
    # a cell with a file suffix is the name of an image missing here, not a column name such as `filename`
    if any(suffix_of(cell) and re.fullmatch(r"\.[a-z]{3,4}", suffix_of(cell)) for cell in first):
        return table
    return Table(table.name, tuple(first), table.rows[1:])


def _check_cells(name: str, rows: int, columns: int) -> None:
    if columns > MAX_COLUMNS:
        raise ImportRefused(f"{name} has {columns:,} columns, the limit is {MAX_COLUMNS:,}")
    if rows * columns > MAX_CELLS:
        raise ImportRefused(f"{name} has more than {MAX_CELLS:,} cells, the limit of a table of labels")


def _json_lines(name: str, content: bytes) -> Iterator[Any]:
    for number, line in enumerate(content.decode("utf-8-sig", "replace").split("\n"), start=1):
        if line.strip():
            yield _parsed(f"{name}, line {number}", line)


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{name} is not readable JSON ({error})") from error


def _json(name: str, content: bytes) -> Table | None:
    found = _parsed(name, content.decode("utf-8-sig", "replace"))
    if isinstance(found, dict) and isinstance(found.get("images"), list) and "annotations" in found:
        return coco_table(name, found)
    if isinstance(found, dict):
        for key in ("data", "images", "labels", "annotations", "rows"):  # `{"labels": [["a.png", 3], ...]}`
            if isinstance(found.get(key), list | dict):
                found = found[key]
                break
    if isinstance(found, dict):
        if all(isinstance(value, dict) for value in found.values()) and found:
            return _records(name, [{"image": key} | value for key, value in found.items()])
        if all(isinstance(value, str | int | float | None) for value in found.values()) and found:
            return Table(name, ("image", "label"), [[key, value] for key, value in found.items()])
        return None
    if not isinstance(found, list):
        return None
    if found and all(isinstance(row, list) and len(row) == 2 for row in found):
        return Table(name, ("1", "2"), found, headed=False)
    return _records(name, found)


def coco_table(name: str, found: Mapping[str, Any]) -> Table | None:
    """One row per annotation: file name, class, and a `bbox` column if there are boxes."""
    try:
        files = {image["id"]: image["file_name"] for image in found["images"]}
        classes = {one["id"]: one["name"] for one in found.get("categories", [])}
        boxed = any("bbox" in one or "segmentation" in one for one in found["annotations"])
        rows = [
            [files.get(one.get("image_id")), classes.get(one.get("category_id"), one.get("category_id"))]
            for one in found["annotations"]
            if one.get("category_id") is not None
        ]
    except (KeyError, TypeError, AttributeError):
        return None
    columns = ("file_name", "category_name") + (("bbox",) if boxed else ())
    return Table(name, columns, [[*row, "objects"] if boxed else row for row in rows]) if rows else None


def _records(name: str, rows: Sequence[Any]) -> Table | None:
    records = [row for row in rows if isinstance(row, dict)]
    if not records or len(records) != len(rows):
        return None
    columns = list(dict.fromkeys(str(key) for row in records[:1000] for key in row))
    _check_cells(name, len(records), len(columns))
    return Table(name, tuple(columns), [[row.get(column) for column in columns] for row in records])


def _parquet(name: str, content: bytes) -> Table | None:
    try:
        shard = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        if shard.metadata.num_rows * max(1, shard.metadata.num_columns) > MAX_CELLS:
            raise ImportRefused(f"{name} has more than {MAX_CELLS:,} cells, the limit of a table of labels")
        rows_at_once = check_pages(io.BytesIO(content), shard.metadata)
        rows: list[Cells] = []
        unpacked = 0
        # rows without long shared values are short: read many at once
        for batch in shard.iter_batches(batch_size=256 if rows_at_once == 32 else rows_at_once):
            unpacked += batch.nbytes
            if batch.nbytes > 2**26 or unpacked > MIN_TOTAL_BYTES:
                raise ImportRefused(f"{name} has rows of more than {MAX_CELL:,} bytes, the limit of a table")
            rows += [list(row.values()) for row in batch.to_pylist()]
        return Table(name, tuple(shard.schema_arrow.names), rows)
    except TooPacked as error:
        raise ImportRefused(f"{name} is not a table of labels: {error}") from error
    except (pa.ArrowException, OSError) as error:
        raise ImportRefused(f"{name} is not a parquet file, or it is damaged: download it again") from error


def image_column(table: Table, matcher: Matcher, chosen: str | None) -> tuple[int, bool] | None:
    """The column whose cells name images, and True, for a certain match; None if no column does.

    A column of names with suffixes must match in at least half of the sampled rows. Bare stems might be
    arbitrary numbers, so nine of ten sampled rows must name different images.
    """
    folder = table.name.rpartition("/")[0]
    if chosen is not None:
        return (_column(table, chosen, "--image-column"), True)
    step = max(1, len(table.rows) // _SAMPLE)
    sample = table.rows[::step]
    best: tuple[float, int] | None = None
    for at in range(len(table.columns)):
        found = [matcher.find(row[at], folder) if at < len(row) else None for row in sample]
        named = {one[0] for one in found if one is not None}
        sure = sum(one is not None and one[1] for one in found)
        share = sure / len(sample) if sure else len(named) / len(sample) - 0.4
        if named and share >= 0.5 and (best is None or share > best[0]):
            best = (share, at)
    return None if best is None else (best[1], True)


def read_stated(
    table: Table, matcher: Matcher, columns: Columns, *, folder: str | None = None
) -> Stated | None:
    """What a table states about the images in `matcher`; None if it names none of them.

    Raises:
        ImportRefused: a column chosen by the user does not exist.
    """
    here = table.name.rpartition("/")[0] if folder is None else folder
    table = _with_header(table, matcher, here)
    found = image_column(table, matcher, columns.image)
    if found is None:
        return None
    image = found[0]
    label, note = _label_column(table, image, columns)
    split = _split_column(table, image, columns)
    one_hot = _one_hot(table, image) if label is None and columns.label is None else ()
    labels: dict[str, Label | None] = {}
    splits: dict[str, str] = {}
    conflicts: set[str] = set()
    unmatched, example = 0, ""
    cached: dict[str, Label | None] = {}
    for row in table.rows:
        match = matcher.find(row[image], here) if image < len(row) else None
        if match is None:
            unmatched += 1
            example = example or str(row[image] if image < len(row) else "")[:100]
            continue
        name = match[0]
        if split is not None and split < len(row) and row[split] not in (None, ""):
            splits[name] = split_of(str(row[split])) or str(row[split])[:100]
        if label is None and not one_hot:
            continue
        value = (
            _hot(table, row, one_hot)
            if one_hot
            else row[label]
            if label is not None and label < len(row)
            else None
        )
        stated = _label(value, columns, cached)
        if name in labels and labels[name] != stated:
            conflicts.add(name)
        labels[name] = stated
    for name in conflicts:
        labels[name] = None
    if not labels and not splits and not note and unmatched == len(table.rows):
        return None
    if one_hot:
        note = None
    return Stated(
        labels,
        splits,
        table.columns[image],
        "the only column that is 1" if one_hot else None if label is None else table.columns[label],
        None if split is None else table.columns[split],
        len(conflicts),
        unmatched,
        example,
        note,
    )


def _label(value: Any, columns: Columns, cached: dict[str, Label | None]) -> Label | None:
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, dict):
        return None
    key = f"{type(value).__name__} {value}"
    if key not in cached:
        cached[key] = label_of_value(value, columns)
    return cached[key]


def _column(table: Table, name: str, option: str) -> int:
    lower = [column.lower() for column in table.columns]
    if name in table.columns:
        return table.columns.index(name)
    if name.lower() in lower:
        return lower.index(name.lower())
    raise ImportRefused(
        f"{option}: {table.name} has no column {name!r}: its columns are {', '.join(table.columns[:50])}"
        f"{hint(name, table.columns)}"
    )


def _label_column(table: Table, image: int, columns: Columns) -> tuple[int | None, str | None]:
    """The column that states the class, or None and the reason in one sentence."""
    if columns.label is not None:
        return _column(table, columns.label, "--label-column"), None
    others = [at for at in range(len(table.columns)) if at != image]
    lower = {at: re.sub(r"[ -]+", "_", table.columns[at].strip().lower()) for at in others}
    ranked = sorted((LABEL_NAMES.index(name), at) for at, name in lower.items() if name in LABEL_NAMES)
    if ranked:
        return _named_twin(table, [at for _, at in ranked]), None
    plain = [at for at in others if not _WHERE.fullmatch(lower[at]) and lower[at] not in SPLIT_NAMES]
    if len(plain) == 1:
        return plain[0], None
    if table.headed and plain:
        listed = ", ".join(table.columns[at] for at in plain[:12])
        return None, f"no label from {table.name}: choose one of its columns with --label-column: {listed}"
    return None, None


def _named_twin(table: Table, ranked: list[int]) -> int:
    """The column with the best name; if it contains numbers, the column that names these numbers, if any."""
    first = ranked[0]
    sample = table.rows[:: max(1, len(table.rows) // _SAMPLE)]
    if not all(_NUMBER.fullmatch(str(row[first])) for row in sample if first < len(row)):
        return first
    for other in ranked[1:]:
        pairs = {(str(row[first]), str(row[other])) for row in sample if max(first, other) < len(row)}
        numbers, names = {one for one, _ in pairs}, {one for _, one in pairs}
        if len(pairs) == len(numbers) == len(names) and not any(_NUMBER.fullmatch(name) for name in names):
            return other
    return first


def _split_column(table: Table, image: int, columns: Columns) -> int | None:
    if columns.split is not None:
        return _column(table, columns.split, "--split-from")
    for at, column in enumerate(table.columns):
        if at != image and column.strip().lower() in SPLIT_NAMES:
            return at
    return None


def _one_hot(table: Table, image: int) -> tuple[int, ...]:
    """Columns of 0 and 1 with exactly one 1 in most rows; empty if there are none."""
    if not table.headed:
        return ()
    sample = table.rows[:: max(1, len(table.rows) // _SAMPLE)]
    columns = [
        at
        for at, column in enumerate(table.columns)
        if at != image
        and column.strip().lower() not in SPLIT_NAMES
        and all(at < len(row) and _bit(row[at]) is not None for row in sample)
    ]
    if len(columns) < 2:
        return ()
    ones = sum(sum(_bit(row[at]) or 0 for at in columns) == 1 for row in sample)
    return tuple(columns) if ones >= 0.9 * len(sample) else ()


def _bit(cell: Any) -> int | None:
    return {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "False": 0, "True": 1}.get(str(cell).strip())


def _hot(table: Table, row: Cells, columns: Sequence[int]) -> str | None:
    hot = [table.columns[at].strip() for at in columns if at < len(row) and _bit(row[at]) == 1]
    return hot[0] if len(hot) == 1 else None


def class_list(lines: Sequence[str]) -> list[Label]:
    """The classes of a file with one per line: `<name>`, or `<number> <name>` in order."""
    numbered = [re.fullmatch(r"(\d+)[\s,:.]+(.+)", line) for line in lines]
    if all(numbered) and [int(one[1]) for one in numbered if one] in (
        list(range(len(lines))),
        list(range(1, len(lines) + 1)),
    ):
        return [label_of_name(one[2].strip()) for one in numbered if one]
    return [label_of_name(line) for line in lines]
