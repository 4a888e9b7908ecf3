"""Tables as downloads: CSV, JSON and Parquet, written while rows arrive.

Cells are written unchanged. On request, CSV text that a spreadsheet would interpret as a formula is prefixed
with an apostrophe (OWASP, "CSV Injection"), because labels and file names come from users' folders.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
EXACT_IN_JSON = 1 << 53  # larger integers lose digits in a browser
_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def csv_lines(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, spreadsheet: bool = False
) -> Iterator[str]:
    """CSV with a header; a struct such as `box` becomes one column per field.

    Args:
        spreadsheet: prefix text that a spreadsheet would interpret as a formula with an apostrophe.
    """
    heading = pa.Table.from_batches([], schema).flatten()
    yield _lines([[name.replace(".", "_") for name in heading.column_names]])
    for batch in batches:
        flat = pa.Table.from_batches([batch], schema).flatten()
        columns = [values(column) for column in flat.columns]
        rows = zip(*columns, strict=True)
        yield _lines([[_cell(value, spreadsheet=spreadsheet) for value in row] for row in rows])


def _cell(value: Any, *, spreadsheet: bool) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Decimal):
        return format(value, "f")  # all digits
    found = plain(value)
    if isinstance(found, list | dict):
        found = json.dumps(found)
    if spreadsheet and isinstance(found, str) and found.startswith(FORMULA_STARTS):
        return "'" + found
    return found


def _lines(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def json_lines(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    """A JSON array with one object per row; `distinct` renames duplicate columns."""
    names = distinct(schema.names)
    before = "["
    for batch in batches:
        columns = [[plain(value) for value in values(column)] for column in batch.columns]
        for at in range(batch.num_rows):
            row = {name: column[at] for name, column in zip(names, columns, strict=True)}
            yield before + "\n" + json.dumps(row)
            before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def parquet_pieces(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """A Parquet file in pieces; `distinct` renames duplicate columns."""
    sink = _Pieces()
    kept = schema
    for at, name in enumerate(distinct(schema.names)):
        kept = kept.set(at, kept.field(at).with_name(name))
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), kept, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=kept))
            yield sink.take()
    yield sink.take()


def distinct(names: Sequence[str]) -> list[str]:
    """Unique column names: the second `a` becomes `a_2`, unless another column has that name."""
    found: list[str] = []
    for name in names:
        unused, number = name, 1
        while unused in found or (number > 1 and unused in names):
            number += 1
            unused = f"{name}_{number}"
        found.append(unused)
    return found


def values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """A column's cells as Python values, except dates and times, which are ISO 8601 text.

    DuckDB's range is larger than Python's: years before 1 and after 9999 (`-0043-03-15`), nanoseconds,
    24:00:00 and infinity. Times with a zone are given in UTC.
    """
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in values(chunk)]
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return values(column.storage)
    if pa.types.is_dictionary(kind):
        return values(column.dictionary_decode())
    if pa.types.is_struct(kind):
        names = distinct([field.name for field in kind])
        cells = [values(part) for part in column.flatten()]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
        return [
            row if there else None for row, there in zip(rows, column.is_valid().to_pylist(), strict=True)
        ]
    if _is_list(kind):
        return [None if not cell.is_valid else _items(cell.values) for cell in column]
    if pa.types.is_temporal(kind):
        return [None if told is None else _moment(kind, told) for told in _numbers(column)]
    found: list[Any] = column.to_pylist()
    return found


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_map(kind)
    )


def _items(array: pa.Array) -> list[Any]:
    """A list's items; a map's entries as pairs of key and value."""
    if pa.types.is_struct(array.type) and [field.name for field in array.type] == ["key", "value"]:
        return [list(row.values()) for row in values(array)]
    return values(array)


def _numbers(column: pa.Array) -> list[int | None]:
    width = pa.int32() if column.type.bit_width == 32 else pa.int64()
    found: list[int | None] = column.view(width).to_pylist()
    return found


def _moment(kind: pa.DataType, told: int) -> str:
    """Format a date or time from its integer value; the ends of the range mean infinity."""
    largest = (1 << (kind.bit_width - 1)) - 1
    if not pa.types.is_time(kind) and abs(told) == largest:
        return "infinity" if told > 0 else "-infinity"
    if pa.types.is_date32(kind):
        return _day(told)
    unit = "ms" if pa.types.is_date64(kind) else kind.unit
    seconds, part = divmod(told, _A_SECOND[unit])
    if pa.types.is_time(kind):
        return _clock(seconds, part, unit)
    days, seconds = divmod(seconds, 86_400)
    if pa.types.is_date64(kind):
        return _day(days)
    zone = "" if kind.tz is None else "+00:00"
    return f"{_day(days)}T{_clock(seconds, part, unit)}{zone}"


def _day(days: int) -> str:
    told = str(np.datetime64(days, "D"))
    # NumPy counts the sign as one of the year's four digits
    return f"-{told[1:]:0>10}" if told.startswith("-") else told


def _clock(seconds: int, part: int, unit: str) -> str:
    """Format a time of day, with micro- or nanoseconds unless the fraction is zero."""
    told = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if not part:
        return told
    nanoseconds = f"{part * (10**9 // _A_SECOND[unit]):09}"
    return f"{told}.{nanoseconds if nanoseconds[6:] != '000' else nanoseconds[:6]}"


class _Pieces(io.RawIOBase):
    """A buffer that hands out what was written since the last `take`."""

    def __init__(self) -> None:
        self._written = bytearray()
        self._place = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        self._place += len(data)
        return len(data)

    def tell(self) -> int:
        return self._place

    def take(self) -> bytes:
        found = bytes(self._written)
        self._written.clear()
        return found


def plain(value: Any) -> Any:
    """A cell as a JSON value: bytes as hexadecimal, NaN and infinities by name.

    Numbers that a browser would round become text.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= EXACT_IN_JSON else str(value)
    if isinstance(value, float):
        return (
            value if math.isfinite(value) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
        )
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return plain(int(value))
        return float(value) if Decimal(repr(float(value))) == value else format(value, "f")
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value)
