"""Import of image sets: every picture is read once, thumbnailed, and entered into the atlas all at once.

Nothing is published before the last picture is read, so an import that is stopped leaves the atlas as it was.
The files it wrote are named by content, so the next try finds them and is quick.
"""

import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from db.atlas import Atlas, NoAtlas
from db.image_sets import (
    IMAGE_ROWS,
    Changes,
    add_images,
    dependents,
    known_images,
    relabelled_images,
    remove_images,
)
from db.images import ImageStore, UnreadableImage, original_suffix, read_picture
from precompute.ground_truth import GroundTruth, load_ground_truth, read_ground_truth
from precompute.labels import Place, read_places
from precompute.source_archive import TarSource, ZipSource
from precompute.source_folder import FolderSource
from precompute.sources import ImportRefused, Source, SourceImage
from precompute.wordnet import Label

Progress = Callable[[int, int | None], None]

_SET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
# Decoding a smaller file takes less than handing it to another thread (measured by tests/bench/bench_import.py).
_SMALL = 8 * 1024
# Files in flight between reading and decoding: what bounds memory, with one decoded picture per thread.
_IN_FLIGHT_BYTES = 64 * 2**20
_ROWS_A_BATCH = 4096
_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class Refusal:
    """A picture that was left out: its path in the source, and why, in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What an import did, in images.

    Attributes:
        added: entered into the set.
        known: in the set before, with the same name and content.
        refused: left out.
        labelled: with a label, among the added and the known.
        relabelled: known ones that got another label than they had.
        moved: known ones whose file lies elsewhere now.
        changed: added ones whose name the set had with other content; the older image keeps its id.
        duplicates: added ones with the content of another image of this import, under another name.
        seconds: wall-clock time.
    """

    added: int
    known: int
    refused: tuple[Refusal, ...]
    labelled: int
    relabelled: int
    moved: int
    changed: int
    duplicates: int
    seconds: float


def import_images(
    atlas: Atlas,
    store: ImageStore,
    *,
    image_set: str,
    source: Path,
    ground_truth: Path | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Add the pictures at `source` to `image_set`, made where it is not there yet.

    Pictures of a folder stay where they are; those of archives and parquet shards are copied into the store.

    Args:
        source: a folder (ImageFolder tree, ILSVRC's flat validation folder, any flat folder, parquet shards), a
            parquet file, or a zip or tar archive of these.
        ground_truth: labels of a flat folder, see `precompute.ground_truth`; found by itself inside `source`.
        progress: hears (images done, images in all or None where that is not known).

    Raises:
        ImportRefused: nothing can be imported, and nothing was changed.
        StoreBusy: another process is removing images.
    """
    check_set_name(image_set)
    truth = load_ground_truth(ground_truth) if ground_truth is not None else None
    return import_source(
        atlas,
        store,
        image_set=image_set,
        source=open_source(source),
        truth=truth,
        origin=str(source),
        progress=progress,
    )


def import_source(
    atlas: Atlas,
    store: ImageStore,
    *,
    image_set: str,
    source: Source,
    origin: str,
    truth: GroundTruth | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """`import_images` from a source that is open already; `origin` is its name to people."""
    started = time.monotonic()
    with store.adding():
        known = _known(atlas, image_set)
        gathered = _Gathered()
        for image in _stored(source, store, known, progress or _silent):
            gathered.add(image)
        if not gathered.names:
            raise ImportRefused(_nothing(origin, gathered.refused))
        if truth is None and ("LOC_val_solution.csv" in source.side_files or len(source.side_files) > 1):
            truth = read_ground_truth(source.side_files, origin)
        rows = gathered.table(truth, origin)
        store.settle()
        changes = _publish(atlas, image_set, origin, rows)
    return ImportReport(
        added=changes.added,
        known=gathered.known,
        refused=tuple(gathered.refused),
        labelled=rows.num_rows - rows.column("label").null_count,
        relabelled=changes.relabelled,
        moved=changes.moved,
        changed=gathered.changed,
        duplicates=gathered.duplicates,
        seconds=time.monotonic() - started,
    )


def remove_image_set(atlas: Atlas, store: ImageStore, image_set: str) -> None:
    """Remove a set with its runs, and the thumbnails and copies that no other set uses.

    A person's own files stay.

    Raises:
        ImportRefused: there is no such set.
        StoreBusy: another process is importing images.
    """
    with store.removing():
        if not _rows(atlas, dependents(image_set)):
            raise ImportRefused(f"there is no image set {image_set!r}")
        with atlas.publish() as connection:
            orphans = remove_images(connection, image_set)
        # After the publication: a file too many is harmless, a file too few is not.
        store.remove(orphans.keys, orphans.originals)


def check_set_name(image_set: str) -> None:
    """Raises ImportRefused where `image_set` is not a name that fits into addresses and file names."""
    if not _SET_NAME.fullmatch(image_set):
        raise ImportRefused(
            "expected a name of small letters, digits, dots, dashes and underscores that begins with a letter or "
            f"a digit, got {image_set!r}"
        )


def open_source(path: Path) -> Source:
    """The source at `path`, by what it is.

    Raises:
        ImportRefused: there is nothing there, or nothing that images can be read from.
    """
    import tarfile
    import zipfile

    if not path.exists():
        raise ImportRefused(f"there is nothing at {path}: expected a folder, an archive or a parquet file")
    if path.is_dir():
        return FolderSource(path)
    if path.suffix.lower() == ".parquet":
        return FolderSource(path.parent, only=path.name)
    if zipfile.is_zipfile(path):
        return ZipSource(path)
    if tarfile.is_tarfile(path):
        return TarSource(path)
    raise ImportRefused(f"{path} is no folder, zip or tar archive or parquet file, or a damaged one")


@dataclass(frozen=True)
class _Stored:
    """One picture of the source after it was read; `reason` is set where it was refused."""

    image: SourceImage
    key: str = ""
    path: str = ""
    size: tuple[int, int] = (0, 0)
    reason: str | None = None
    known: bool = False
    moved: bool = False
    changed: bool = False


def _stored(
    source: Source, store: ImageStore, known: dict[str, dict[str, str]], progress: Progress
) -> Iterator[_Stored]:
    """Every picture of `source`, read and thumbnailed, in the source's order."""
    total = source.count()
    done = 0
    reported = time.monotonic()
    progress(0, total)
    waiting: deque[tuple[int, Future[_Stored]]] = deque()
    in_flight = 0
    threads = min(16, len(os.sched_getaffinity(0)))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def finished(room: int, at_most: int) -> Iterator[_Stored]:
        nonlocal in_flight, done, reported
        while waiting and (in_flight > room or len(waiting) > at_most or waiting[0][1].done()):
            size, future = waiting.popleft()
            in_flight -= size
            result = future.result()
            done += 1
            if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
                progress(done, total)
                reported = time.monotonic()
            yield result

    try:
        for image in source.images():
            if image.size < _SMALL:
                future: Future[_Stored] = Future()
                future.set_result(_store_one(store, image, known.get(image.name, {})))
            else:
                future = pool.submit(_store_one, store, image, known.get(image.name, {}))
            waiting.append((image.size, future))
            in_flight += image.size
            yield from finished(_IN_FLIGHT_BYTES, 8 * threads)
        yield from finished(-1, 0)
    finally:
        pool.shutdown(cancel_futures=True)
    progress(done, done)


def _store_one(store: ImageStore, image: SourceImage, known: dict[str, str]) -> _Stored:
    """Read one picture and write its files; `known` maps contents that the set has under this name to files."""
    if image.problem is not None:
        return _Stored(image, reason=image.problem)
    try:
        image.name.encode()
    except UnicodeEncodeError:
        return _Stored(image, reason="its file name is not valid UTF-8")
    data = image.data
    if data is None:
        assert image.path is not None, "a source hands over bytes, a path or a problem"
        try:
            data = image.path.read_bytes()
        except OSError as error:
            return _Stored(image, reason=f"it cannot be opened ({error.strerror})")
    key = hashlib.sha256(data).hexdigest()
    before = known.get(key)
    size = store.known_size(key)
    try:
        if size is None:
            picture, suffix = read_picture(data)
            store.add_thumbnail(key, picture)
            size = picture.size
        elif image.path is None:
            suffix = original_suffix(data)
    except UnreadableImage as error:
        return _Stored(image, reason=error.reason)
    path = str(image.path) if image.path else store.add_original(key, data, suffix)
    return _Stored(
        # The bytes are done with: what waits in the queue and in the rows is small.
        SourceImage(image.name, len(data), label=image.label, split=image.split, folders=image.folders),
        key,
        path,
        size,
        known=before is not None,
        moved=before is not None and before != path and not store.original_path(before).exists(),
        changed=before is None and bool(known),
    )


@dataclass
class _Gathered:
    """The rows of an import as they come, in Arrow batches, and what the report counts."""

    names: list[str] = field(default_factory=list)
    known: int = 0
    changed: int = 0
    duplicates: int = 0
    refused: list[Refusal] = field(default_factory=list)
    _own: dict[int, tuple[Label | None, str | None]] = field(default_factory=dict)
    _seen: set[tuple[str, str]] = field(default_factory=set)
    _keys: set[str] = field(default_factory=set)
    _pending: list[dict[str, Any]] = field(default_factory=list)
    _batches: list[pa.RecordBatch] = field(default_factory=list)

    def add(self, stored: _Stored) -> None:
        image = stored.image
        if stored.reason is not None:
            name = image.name.encode(errors="backslashreplace").decode()
            self.refused.append(Refusal(name, stored.reason))
            return
        if (image.name, stored.key) in self._seen:  # an archive may hold a member twice
            return
        self._seen.add((image.name, stored.key))
        self.known += stored.known
        self.changed += stored.changed
        self.duplicates += stored.key in self._keys and not stored.known
        self._keys.add(stored.key)
        if not image.folders:
            self._own[len(self.names)] = (image.label, image.split)
        self.names.append(image.name)
        self._pending.append(
            {
                "name": image.name,
                "key": stored.key,
                "path": stored.path,
                "width": stored.size[0],
                "height": stored.size[1],
                "bytes": image.size,
                "known": stored.known,
                "moved": stored.moved,
            }
        )
        if len(self._pending) == _ROWS_A_BATCH:
            self._flush()

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._pending, schema=IMAGE_ROWS))
        self._pending = []

    def table(self, truth: GroundTruth | None, origin: str) -> pa.Table:
        """All rows with their labels.

        Raises:
            ImportRefused: the ground truth names none of the images.
        """
        self._flush()
        # Names without folders of meaning (shards) take no part in the reading of folders.
        places = iter(read_places([name for at, name in enumerate(self.names) if at not in self._own]))
        placed = [
            Place(self._own[at][1], self._own[at][0]) if at in self._own else next(places)
            for at in range(len(self.names))
        ]
        if truth is not None:
            stated = [truth.label(name) for name in self.names]
            if not any(stated):
                raise ImportRefused(
                    f"the ground truth names none of the {len(stated):,} images of {origin}, such as {self.names[0]}"
                )
            placed = [
                Place(place.split, label or place.label) for place, label in zip(placed, stated, strict=True)
            ]
        labels = [place.label or Label(None, None, None) for place in placed]
        table = pa.Table.from_batches(self._batches, schema=IMAGE_ROWS)
        columns: dict[str, list[Any]] = {
            "split": [place.split for place in placed],
            "wnid": [label.wnid for label in labels],
            "label_index": [label.index for label in labels],
            "label": [label.name for label in labels],
        }
        for name, values in columns.items():
            column = IMAGE_ROWS.field(name)
            table = table.set_column(IMAGE_ROWS.get_field_index(name), column, pa.array(values, column.type))
        return table


def _publish(atlas: Atlas, image_set: str, origin: str, rows: pa.Table) -> Changes:
    """Publish what `rows` change; an import that changes nothing publishes nothing."""
    new = rows.num_rows - sum(rows.column("known").to_pylist())
    moved = sum(rows.column("moved").to_pylist())
    relabelled = 0
    if new < rows.num_rows:
        with atlas.read() as cursor:
            relabelled = relabelled_images(cursor, image_set, rows)
        runs = [row["model"] for row in _rows(atlas, dependents(image_set)) if row["model"] is not None]
        if relabelled and runs:
            raise ImportRefused(
                f"{relabelled:,} images of {image_set!r} have other labels now than when {', '.join(runs)} ran over "
                f"them: import under another name, or remove {image_set!r} first"
            )
    if not (new or moved or relabelled):
        return Changes(0, 0, 0)
    with atlas.publish() as connection:
        return add_images(connection, image_set, source=origin, rows=rows)


def _known(atlas: Atlas, image_set: str) -> dict[str, dict[str, str]]:
    """Contents and files of a set's images by name."""
    known: dict[str, dict[str, str]] = {}
    for row in _rows(atlas, known_images(image_set)):
        known.setdefault(row["name"], {})[row["key"]] = row["path"]
    return known


def _rows(atlas: Atlas, query: Any) -> list[dict[str, Any]]:
    try:
        return atlas.fetch(query)
    except NoAtlas:
        return []


def _nothing(origin: str, refused: list[Refusal]) -> str:
    if not refused:
        return f"there is no picture in {origin}: expected files such as .jpg or .png, or parquet shards"
    first = refused[0]
    return f"none of the {len(refused):,} pictures in {origin} can be read; the first, {first.name}: {first.reason}"


def _silent(_done: int, _total: int | None) -> None:
    pass
