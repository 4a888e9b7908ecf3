"""Guard against parquet decompression bombs: check page headers before a reader allocates what they state.

A page of a few bytes may unpack to 2 GiB, one dictionary value may be repeated in every row, and a run length
of four bytes may stand for a billion empty rows. Readers allocate all of it. The page headers reveal this
beforehand.

Reference: Apache Parquet, parquet.thrift; the headers use Thrift's compact protocol.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow.parquet as pq

# As for archive members: pages of photos unpack to their own size, of drawings to about 50 times that.
MAX_RATIO = 200
MIN_PAGE_BYTES = 8 * 2**20
MAX_PAGE_BYTES = 2**30
# Bytes that a file may unpack to in total, including repeated values, unless MAX_RATIO times its size is
# more.
MIN_TOTAL_BYTES = 256 * 2**20
# Maximum rows, or list elements, of a small file; a larger one may have as many as it has bytes.
MIN_VALUES = 2**17
# Maximum size of the values that a reader holds at once.
MAX_BATCH_BYTES = 64 * 2**20
_MAX_HEADER = 2**20
# Writers fill a page with 1 MiB, or with the rows of one call.
_MIN_PAGES = 10_000
_BYTES_A_PAGE = 1024
_MAX_DEPTH = 16
_DICTIONARY = 2  # kind of page
_PLAIN = 0
_BY_DICTIONARY = (2, 8)


class TooPacked(Exception):
    """A file states more than its size can contain; the message is one sentence."""


class _Cut(Exception):
    """A header continues past the bytes read so far."""


@dataclass(frozen=True)
class _Page:
    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int
    header: int


def size_of(file: IO[bytes]) -> int:
    """Size of a seekable file in bytes."""
    here = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(here)
    return size


def check_pages(file: IO[bytes], metadata: pq.FileMetaData, columns: Sequence[str] | None = None) -> int:
    """Check a file's page headers; returns how many rows may be read at once, at most 32.

    Args:
        file: seekable; its position is restored.
        columns: top-level names of the columns to be read; by default all.

    Raises:
        TooPacked: the headers state more than a file of its size can contain, or are damaged.
    """
    size = size_of(file)
    most_values = max(MIN_VALUES, size)
    if metadata.num_rows > most_values:
        raise TooPacked(f"it states {metadata.num_rows:,} rows, the limit for its size is {most_values:,}")
    largest, pages = 1, max(_MIN_PAGES, size // _BYTES_A_PAGE)
    here = file.tell()
    try:
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for number in range(row_group.num_columns):
                chunk = row_group.column(number)
                if columns is not None and chunk.path_in_schema.split(".")[0] not in columns:
                    continue
                if chunk.num_values > most_values:
                    raise TooPacked(
                        f"its column {chunk.path_in_schema} states {chunk.num_values:,} values, the limit for its "
                        f"size is {most_values:,}"
                    )
                value, seen = _check_chunk(file, size, chunk, pages)
                largest, pages = max(largest, value), pages - seen
    finally:
        file.seek(here)
    return max(1, min(32, MAX_BATCH_BYTES // largest))


def _check_chunk(file: IO[bytes], size: int, chunk: pq.ColumnChunkMetaData, most: int) -> tuple[int, int]:
    """Size in bytes of the largest value that rows may share, and the number of pages, at most `most`."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end, values, largest, pages = min(size, start + chunk.total_compressed_size), 0, 1, 0
    while start < end and values < chunk.num_values:
        pages += 1
        if pages > most:
            raise TooPacked("it states more pages than a file of its size can contain")
        page = _page(file, start, chunk.path_in_schema)
        if page.unpacked > MAX_PAGE_BYTES:
            raise TooPacked(
                f"one of its pages unpacks to {page.unpacked:,} bytes, the limit is {MAX_PAGE_BYTES:,}"
            )
        if page.unpacked > MIN_PAGE_BYTES and page.unpacked > MAX_RATIO * page.packed:
            raise TooPacked(
                f"one of its pages unpacks to {page.unpacked:,} bytes from {page.packed:,}, the limit is {MAX_RATIO} "
                "times as many"
            )
        if page.kind == _DICTIONARY or page.encoding not in (_PLAIN, *_BY_DICTIONARY):
            largest = max(largest, page.unpacked)
        values += page.values
        start += page.header + page.packed
    return largest, pages


def _page(file: IO[bytes], start: int, column: str) -> _Page:
    length = 256
    while True:
        file.seek(start)
        content = file.read(length)
        try:
            return _parsed(content)
        except _Cut:
            if len(content) < length or length >= _MAX_HEADER:
                raise TooPacked(
                    f"the header of a page of its column {column} is damaged: download it again"
                ) from None
            length *= 16


def _parsed(content: bytes) -> _Page:
    reader = _Reader(content)
    fields = reader.fields(0)
    about: dict[int, Any] = next((fields[key] for key in (5, 7, 8) if isinstance(fields.get(key), dict)), {})
    values, encoding = about.get(1), about.get(4 if 8 in fields else 2, _PLAIN)
    numbers: list[Any] = [*(fields.get(key) for key in (1, 2, 3)), values, encoding]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise _Cut
    kind, unpacked, packed, values, encoding = numbers
    # dictionary entries are not rows
    return _Page(kind, unpacked, packed, 0 if kind == _DICTIONARY else values, encoding, reader.at)


class _Reader:
    """Thrift's compact protocol, as far as page headers need it: integers and structs."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def _byte(self) -> int:
        if self.at >= len(self._content):
            raise _Cut
        self.at += 1
        return self._content[self.at - 1]

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise _Cut

    def _signed(self) -> int:
        value = self._number()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, count: int) -> None:
        if self.at + count > len(self._content):
            raise _Cut
        self.at += count

    def fields(self, depth: int) -> dict[int, Any]:
        """The fields of a struct, by field id."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number] = self._value(head & 15, depth + 1)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise _Cut
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 12:
            return self.fields(depth)
        if kind in (9, 10):
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._number()):
                # in a list, true and false take one byte each
                self._value(3 if head & 15 in (1, 2) else head & 15, depth + 1)
        elif kind == 8:
            self._skip(self._number())
        elif kind in (3, 7):
            self._skip(1 if kind == 3 else 8)
        elif kind not in (1, 2):  # true and false are encoded in the field header
            raise _Cut
        return None
