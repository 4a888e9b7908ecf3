"""Tables as files people take away: CSV, JSON and Parquet, written while the rows come.

A text that a spreadsheet would take for a formula is prefixed with an apostrophe in CSV (OWASP, "CSV Injection"):
labels and file names come from people's folders.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
EXACT_IN_JSON = 1 << 53  # larger whole numbers lose digits in a browser


def csv_lines(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    """CSV with a heading; a struct such as `box` becomes a column for each of its fields."""
    heading = pa.Table.from_batches([], schema).flatten()
    yield _lines([[name.replace(".", "_") for name in heading.column_names]])
    for batch in batches:
        flat = pa.Table.from_batches([batch], schema).flatten()
        columns = [column.to_pylist() for column in flat.columns]
        yield _lines([[_cell(value) for value in values] for values in zip(*columns, strict=True)])


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    found = plain(value)
    if isinstance(found, list | dict):
        found = json.dumps(found)
    if isinstance(found, str) and found.startswith(FORMULA_STARTS):
        return "'" + found
    return found


def _lines(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def json_lines(batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    """A JSON array with an object for each row."""
    before = "["
    for batch in batches:
        for row in batch.to_pylist():
            yield before + "\n" + json.dumps({name: plain(value) for name, value in row.items()})
            before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def parquet_pieces(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """A Parquet file, piece by piece."""
    sink = _Pieces()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), _storable(schema), compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch], schema).cast(_storable(schema)))
            yield sink.take()
    yield sink.take()


def _storable(schema: pa.Schema) -> pa.Schema:
    """Parquet knows no intervals: as text."""
    return pa.schema(
        [field.with_type(pa.string()) if pa.types.is_interval(field.type) else field for field in schema]
    )


class _Pieces(io.RawIOBase):
    """What was written since it was last taken."""

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
    """A value as JSON has it: times as ISO text, bytes as hexadecimal, NaN and infinities by name.

    Whole numbers that a browser would round are text.
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
        return plain(int(value)) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, pa.MonthDayNano):
        return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} seconds"
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value)
