"""From a source to the store: every image is read once, thumbnailed and, if the source keeps no file, copied."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from db.stores.decoding import UnreadableImage, original_suffix, read_picture
from db.stores.images import ImageStore, PictureFacts
from precompute.images.sources.source import Source, SourceImage

Progress = Callable[[int, int | None], None]

# Decoding a smaller file takes less time than handing it to another thread (measured by
# tests/bench/bench_import.py).
_SMALL = 8 * 1024
# Bytes of files in flight between reading and decoding; bounds memory, together with one decoded image per
# thread.
_IN_FLIGHT_BYTES = 64 * 2**20
_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class StoredImage:
    """One image of the source after it was read; `reason` is set if it was refused."""

    image: SourceImage
    key: str = ""
    path: str = ""
    facts: PictureFacts | None = None
    reason: str | None = None
    known: bool = False
    moved: bool = False
    changed: bool = False


def store_images(
    source: Source,
    store: ImageStore,
    known: dict[str, dict[str, str]],
    progress: Progress,
    *,
    skip: Collection[str] = (),
) -> Iterator[StoredImage]:
    """Every image of `source` except those in `skip`, read and thumbnailed, in the source's order."""
    total = source.count()
    total = None if total is None else total - len(skip)
    done = 0
    reported = time.monotonic()
    progress(0, total)
    waiting: deque[tuple[int, Future[StoredImage]]] = deque()
    in_flight = 0
    # macOS lacks `sched_getaffinity`; at most 8 threads, because each may hold a decoded image of 320 MB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(8, cores)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def finished(room: int, at_most: int) -> Iterator[StoredImage]:
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
        for image in source.images(skip):
            if image.size < _SMALL:
                future: Future[StoredImage] = Future()
                future.set_result(_store_one(store, image, known.get(image.name, {})))
            else:
                future = pool.submit(_store_one, store, image, known.get(image.name, {}))
            waiting.append((image.size, future))
            in_flight += image.size
            yield from finished(_IN_FLIGHT_BYTES, 8 * threads)
        yield from finished(-1, 0)
    finally:
        pool.shutdown(cancel_futures=True)  # waits for running threads: nothing is written after this
    progress(done, done)


def _store_one(store: ImageStore, image: SourceImage, known: dict[str, str]) -> StoredImage:
    """Read one image and write its files; `known` maps hashes of the set's images of this name to files."""
    if image.problem is not None:
        return StoredImage(image, reason=image.problem)
    try:
        str(image.path or image.name).encode()
    except UnicodeEncodeError:
        return StoredImage(image, reason="its path is not valid UTF-8")
    data = image.data
    if data is None:
        assert image.path is not None, "a source yields bytes, a path or a problem"
        try:
            data = image.path.read_bytes()
        except OSError as error:
            return StoredImage(image, reason=f"it cannot be opened ({error.strerror})")
    key = hashlib.sha256(data).hexdigest()
    before = known.get(key)
    facts = store.known_facts(key)
    try:
        if facts is None:
            picture = read_picture(data)
            suffix = picture.suffix
            facts = store.add_thumbnail(key, picture.image, picture.notes)
        elif image.path is None:
            suffix = original_suffix(data)
    except UnreadableImage as error:
        return StoredImage(image, reason=error.reason)
    path = str(image.path) if image.path else store.add_original(key, data, suffix)
    return StoredImage(
        # The bytes are no longer needed: keep queue and rows small.
        replace(image, size=len(data), data=None),
        key,
        path,
        facts,
        known=before is not None,
        moved=before is not None and before != path and not store.original_path(before).exists(),
        changed=before is None and bool(known),
    )
