"""Small files that claim large contents: what a reader allocates is bounded, and each is refused in a sentence."""

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from precompute.images import importing as images
from precompute.images import parquet_pages
from precompute.images.importing import ImportReport
from precompute.images.layouts.tables import read_table
from precompute.images.sources import unpacking
from precompute.images.sources.parquet import parquet_rows
from precompute.images.sources.source import ImportRefused
from workers.queue.runner import Cancelled

Bring = Callable[..., ImportReport]
Photo = Callable[..., bytes]
ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20


def shard(cells: list[Any], *, labels: list[Any] | None = None, **options: Any) -> bytes:
    columns: dict[str, Any] = {"image": pa.array(cells, pa.binary())}
    if labels is not None:
        columns["label"] = labels
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns), buffer, **{"compression": "zstd", "dictionary_pagesize_limit": 2**30} | options
    )
    return buffer.getvalue()


def problem_of(content: bytes) -> str:
    """Return why a shard is not read, or not to its end."""
    problem = list(parquet_rows(io.BytesIO(content), "a.parquet"))[-1].problem
    assert problem is not None
    return problem


def understated(content: bytes, stated: int) -> bytes:
    """Return a zip whose entry `a.png` contains `content` and states `stated` bytes in both of its headers."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    about = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, zlib.crc32(content), len(packed), stated, 5, 0)
    local = b"PK\x03\x04" + about + b"a.png" + packed
    central = b"PK\x01\x02\x14\0" + about + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"a.png"
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


MEASURE = """
import json, sys
from pathlib import Path
from db.atlas.store import Atlas
from db.stores.images import ImageStore
from db.settings import read_settings
from precompute.images import parquet_pages
from precompute.images.importing import import_images
from precompute.images.sources import unpacking
parquet_pages.MIN_TOTAL_BYTES = unpacking.MIN_TOTAL_BYTES = 48 * 2**20
parquet_pages.MAX_BATCH_BYTES = 12 * 2**20
settings = read_settings({"CONVSCOPE_HOME": sys.argv[1]})
atlas, store = Atlas(settings), ImageStore(settings)

def status(name):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) // 1024

found = {}
for path in ["first", *sys.argv[2:]]:  # what the first import loads is no file's
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    try:
        report = import_images(atlas, store, image_set="many", source=Path(path))
        said = [one.reason for one in report.refused]
    except Exception as error:
        said = str(error)
    found[Path(path).name] = (status("VmHWM") - before, said)
print(json.dumps(found))
"""


def test_small_files_that_state_much_take_little_memory(photo: Photo, tmp_path: Path) -> None:
    """Each would cost a trusting reader hundreds of megabytes; larger ones would cost many gigabytes."""
    block, good = bytes(12 * MEGABYTE), bytes(5 * MEGABYTE)
    head = tarfile.TarInfo("a.bin")
    head.size = 200 * MEGABYTE
    zeros = bytes(10 * MEGABYTE)
    files = {
        "value.parquet": shard([block] * 32),
        "page.parquet": shard([block] * 12, use_dictionary=False),
        "repeated.parquet": shard([photo(1)] + [good] * 40),
        "prefix.parquet": shard(
            [photo(1)] + [good] * 40, use_dictionary=False, column_encoding={"image": "DELTA_BYTE_ARRAY"}
        ),
        "understated.zip": understated(bytes(200 * MEGABYTE), 1000),
        # a compressed file may consist of several streams
        "packed.tar.bz2": bz2.compress(head.tobuf()) + bz2.compress(zeros) * 20,
        "packed.tar.xz": lzma.compress(head.tobuf()) + lzma.compress(zeros, preset=0) * 20,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert len(content) < MEGABYTE
    paths = [str(tmp_path / name) for name in files]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "home"), *paths],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    del found["first"]
    megabytes = {name: taken for name, (taken, _) in found.items()}
    assert max(megabytes.values()) < 130, megabytes
    sentences = {name: str(said) for name, (_, said) in found.items()}
    assert "one of its pages unpacks to 12,582,9" in sentences["value.parquet"]
    assert "one of its pages unpacks to 1" in sentences["page.parquet"]
    assert "it unpacks to more than 50,331,648 bytes after" in sentences["repeated.parquet"]
    assert "unpacks to more than" in sentences["prefix.parquet"]
    assert "its zip entry is damaged (Bad CRC-32" in sentences["understated.zip"]
    for name in ("packed.tar.bz2", "packed.tar.xz"):
        assert f"{name} unpacks to more than 50,331,648 bytes, 200 times its size" in sentences[name]


def test_a_small_shard_that_declares_too_many_rows_or_elements_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet_pages, "MIN_VALUES", 10_000)
    assert problem_of(shard([None] * 20_000)).startswith(
        "it states 20,000 rows, the limit for its size is 10,000"
    )
    listed = shard([b"x"], labels=pa.array([[0] * 20_000]))
    assert "its column label.list.element states 20,000 values" in problem_of(listed)
    assert [one.problem for one in parquet_rows(io.BytesIO(shard([b"x"] * 9_000)), "a.parquet")] == [
        None
    ] * 9_000


def test_a_small_shard_that_declares_too_many_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = shard([b"x"] * 100, row_group_size=1)
    monkeypatch.setattr(parquet_pages, "_MIN_PAGES", 50)
    assert problem_of(content) == "it states more pages than a file of its size can contain"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_page_version": "2.0"},
        {"use_dictionary": False},
        {"row_group_size": 7, "write_page_index": True},
        {"data_page_size": 2000, "compression": "none"},
        {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}},
        {"use_dictionary": False, "column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
)
def test_shards_of_every_encoding_are_read_as_pyarrow_reads_them(
    options: dict[str, Any], photo: Photo
) -> None:
    cells = [photo(number) for number in range(50)]
    labels = [f"class {number % 3}" for number in range(50)]
    found = list(parquet_rows(io.BytesIO(shard(cells, labels=labels, **options)), "a.parquet"))
    assert [one.data for one in found] == cells
    assert [one.label.name if one.label else None for one in found] == labels


def test_a_damaged_header_of_a_page_refuses_the_shard(photo: Photo) -> None:
    content = bytearray(shard([photo(1)], use_dictionary=False))
    content[4:20] = b"\x1c" * 16  # nested structures
    assert "the header of a page of its column image is damaged" in problem_of(bytes(content))


def test_a_table_of_labels_that_states_much_is_refused() -> None:
    long = "x" * (9 * MEGABYTE)
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"image": ["a.jpg"] * 5, "label": [long] * 5}), buffer, compression="zstd",
        dictionary_pagesize_limit=2**30,
    )  # fmt: skip
    with pytest.raises(
        ImportRefused, match=r"a.parquet is not a table of labels: one of its pages unpacks to 9,437,1"
    ):
        read_table("a.parquet", buffer.getvalue())


def _headers(count: int, photo: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("good.jpg")
        member.size = len(photo)
        archive.addfile(member, io.BytesIO(photo))
        for number in range(count):
            archive.addfile(tarfile.TarInfo(f"{number}.bin"))
    return gzip.compress(buffer.getvalue())


def test_a_small_archive_that_declares_too_many_entries_is_refused(
    bring: Bring, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MIN_ENTRIES", 1000)
    (tmp_path / "a.tar.gz").write_bytes(_headers(2000, photo(1)))
    with pytest.raises(
        ImportRefused, match=r"a.tar.gz has more than 1,000 entries, the limit for a file of its size"
    ):
        bring(tmp_path / "a.tar.gz")
    (tmp_path / "b.tar.gz").write_bytes(_headers(900, photo(1)))
    assert bring(tmp_path / "b.tar.gz").added == 1


def test_long_names_count_towards_the_unpacked_size(
    bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MIN_TOTAL_BYTES", MEGABYTE)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(100):
            member = tarfile.TarInfo(f"{number}.bin")
            member.pax_headers = {"comment": "x" * 50_000}
            archive.addfile(member)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(buffer.getvalue()))
    with pytest.raises(ImportRefused, match=r"a.tar.gz unpacks to more than [\d,]+ bytes"):
        bring(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "folder"])
def test_a_cancelled_import_ends_while_the_source_is_looked_through(
    kind: str, bring: Bring, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_SECONDS_BETWEEN_STEPS", 0)
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(10):
                archive.writestr(f"{number}.jpg", photo(number))
    elif kind == "folder":
        path.mkdir()
        (path / "1.jpg").write_bytes(photo(1))
    else:
        path.write_bytes(_headers(10, photo(1)))
    heard = []

    def cancelled(done: int, total: int | None) -> None:
        heard.append((done, total))
        raise Cancelled

    with pytest.raises(Cancelled):
        bring(path, progress=cancelled)
    assert heard == [(0, None)], "before any image was read"


def test_long_names_that_follow_one_another_without_a_file_are_a_damaged_archive(
    bring: Bring, tmp_path: Path
) -> None:
    """tarfile recurses once for each of them, and does not report that as a damaged file."""
    member = tarfile.TarInfo("a")
    member.pax_headers = {"comment": "x"}
    record = member.tobuf(tarfile.PAX_FORMAT)[:1024]
    content = record * 3000 + tarfile.TarInfo("b").tobuf() + bytes(1024)
    (tmp_path / "a.tar").write_bytes(content)
    (tmp_path / "b.tar").write_bytes(tarfile.TarInfo("c").tobuf() + content)
    for name, said in (
        ("a", "a.tar is not .* or it is damaged"),
        ("b", "b.tar is damaged or truncated after 0 images"),
    ):
        with pytest.raises(ImportRefused, match=said):
            bring(tmp_path / f"{name}.tar")
