"""Batches: their order, their content, and what happens to images that cannot be read."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.settings import Settings
from db.stores.images import ImageStore
from precompute.index.loading import batches
from workers.jobs.stored_images import StoredImage
from workers.models.preprocessing import HALF, Preprocessing

PREPROCESSING = Preprocessing((8, 8), 8, "nearest", HALF, HALF)


@pytest.fixture
def images(tmp_path: Path) -> list[StoredImage]:
    """Eleven images, each of a uniform gray that encodes its number."""
    found = []
    for number in range(11):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (9 + number, 8), (number, number, number)).save(path)
        key = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(StoredImage(number, path.name, str(path), key, None, None))
    return found


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    return ImageStore(settings)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_batch_has_the_same_shape_and_the_sets_order(
    threads: int, store: ImageStore, images: list[StoredImage]
) -> None:
    made = list(batches(store, images, PREPROCESSING, batch_size=4, threads=threads))
    assert [[image.image_id for image in batch.images] for batch in made] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10],
    ]  # fmt: skip
    assert [batch.next_place for batch in made] == [4, 8, 11]
    for batch in made:
        assert batch.pixels.shape == (4, 8, 8, 3)
        for image, pixels in zip(batch.images, batch.pixels, strict=False):
            assert (pixels == image.image_id).all()
    assert (made[-1].pixels[3] == 0).all(), "padding"


def test_unreadable_images_are_skipped_and_named(store: ImageStore, images: list[StoredImage]) -> None:
    Path(images[1].path).unlink()
    Path(images[10].path).write_bytes(b"other bytes")
    made = list(batches(store, images, PREPROCESSING, batch_size=5))
    assert [[image.image_id for image in batch.images] for batch in made] == [[0, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert [(entry.name, entry.reason) for batch in made for entry in batch.unreadable] == [
        ("1.png", "the file is missing"),
        ("10.png", "the file has changed since it was imported"),
    ]


def test_a_later_start_gives_the_batches_that_were_to_come(
    store: ImageStore, images: list[StoredImage]
) -> None:
    Path(images[5].path).unlink()
    whole = list(batches(store, images, PREPROCESSING, batch_size=3))
    rest = list(batches(store, images, PREPROCESSING, batch_size=3, start=whole[0].next_place))
    assert len(rest) == len(whole) - 1
    for one, other in zip(whole[1:], rest, strict=True):
        assert one.images == other.images
        assert np.array_equal(one.pixels, other.pixels)


def test_a_reader_that_stops_early_leaves_no_thread_behind(
    store: ImageStore, images: list[StoredImage]
) -> None:
    import threading

    reader = batches(store, images, PREPROCESSING, batch_size=2)
    next(reader)
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
