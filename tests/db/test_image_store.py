"""Files of the image store are complete or absent, and no name leads outside it."""

import gc
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from db.settings import Settings
from db.stores.decoding import UnreadableImage, original_suffix, read_rgb
from db.stores.images import ImageStore, StoreBusy
from db.stores.thumbnails import THUMBNAIL_LONGEST, thumbnail_size

KEY = "ab" * 32


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(height: int = 24, width: int = 40) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([255 * x / width, 255 * y / height, 0 * x], axis=2).astype(np.uint8))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_a_thumbnail_has_its_shortest_side_at_256_and_is_never_larger(width: int, height: int) -> None:
    small_width, small_height = thumbnail_size(width, height)
    assert 1 <= small_width <= width
    assert 1 <= small_height <= height
    assert max(small_width, small_height) <= THUMBNAIL_LONGEST
    if max(width, height) <= 16 * min(width, height):
        assert min(small_width, small_height) == min(256, width, height)
        # the same aspect ratio, up to half a pixel
        assert abs(small_width * height - small_height * width) <= 0.5 * max(width, height) + 1e-9


def test_a_thumbnail_shows_the_image(settings: Settings) -> None:
    store = ImageStore(settings)
    photograph = scene(600, 1000)
    facts = store.add_thumbnail(KEY, photograph)
    with Image.open(store.thumbnail_path(KEY)) as thumbnail:
        assert thumbnail.format == "JPEG"
        shown = np.asarray(thumbnail)
    area = cv2.resize(np.asarray(photograph), (427, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - area).max() <= 6
    assert (facts.width, facts.height) == photograph.size == (1000, 600)
    assert store.known_facts(KEY) == facts
    assert files_below(settings.home) == {f"thumbnails/ab/{KEY}.jpg"}


def test_the_longest_strip_has_a_thumbnail(settings: Settings) -> None:
    store = ImageStore(settings)
    facts = store.add_thumbnail(KEY, Image.new("RGB", (80_000, 1)))
    assert (facts.width, facts.height) == (80_000, 1)
    assert store.known_facts(KEY) == facts


def test_comments_and_profiles_do_not_travel_into_thumbnails(settings: Settings) -> None:
    store = ImageStore(settings)
    data = encoded(scene(), "JPEG", comment=b"where I live", icc_profile=b"a profile")
    store.add_thumbnail(KEY, read_rgb(data))
    content = store.thumbnail_path(KEY).read_bytes()
    assert b"where I live" not in content
    assert b"a profile" not in content


def test_size_and_hash_are_known_only_from_a_whole_thumbnail(settings: Settings) -> None:
    store = ImageStore(settings)
    assert store.known_facts(KEY) is None
    store.thumbnail_path(KEY).parent.mkdir(parents=True)
    for content in (b"", encoded(scene(), "JPEG"), b"\xff\xd8\xff\xfe\0\x7f12"):
        store.thumbnail_path(KEY).write_bytes(content)
        assert store.known_facts(KEY) is None


def test_a_copy_is_found_by_its_column_and_made_whole_again(settings: Settings) -> None:
    store = ImageStore(settings)
    column = store.add_original(KEY, b"the bytes", ".jpg")
    assert column == f"originals/ab/{KEY}.jpg"
    path = store.original_path(column)
    assert path == settings.home / column
    path.write_bytes(b"")  # as a crash may leave it
    assert store.add_original(KEY, b"the bytes", ".jpg") == column
    assert path.read_bytes() == b"the bytes"
    assert files_below(settings.home) == {column}


def test_a_file_in_place_is_found_by_its_absolute_path(settings: Settings) -> None:
    assert ImageStore(settings).original_path("/photos/a.jpg") == Path("/photos/a.jpg")


def test_no_path_leads_out_of_the_store(settings: Settings) -> None:
    store = ImageStore(settings)
    with pytest.raises(ValueError, match="expected a path below"):
        store.original_path("originals/../../secret")
    for key in ("../../etc/passwd", "ab", "AB" * 32, ""):
        with pytest.raises(ValueError, match="expected a SHA-256"):
            store.thumbnail_path(key)
    with pytest.raises(ValueError, match="expected a copy"):
        store.remove([], ["/photos/a.jpg"])


def test_removing_takes_the_files_named_and_misses_none(settings: Settings) -> None:
    store = ImageStore(settings)
    other = "cd" * 32
    for key in (KEY, other):
        store.add_thumbnail(key, scene())
        store.add_original(key, b"bytes", ".png")
    store.remove([KEY, "ef" * 32], [f"originals/ab/{KEY}.png", "originals/ef/none.png"])
    assert files_below(settings.home) == {f"thumbnails/cd/{other}.jpg", f"originals/cd/{other}.png"}


def test_nothing_is_removed_while_something_is_added(settings: Settings) -> None:
    store = ImageStore(settings)
    with store.adding(), store.adding(), pytest.raises(StoreBusy, match="imported"), store.removing():
        pass
    with store.removing(), pytest.raises(StoreBusy, match="removed"), store.adding():
        pass
    with store.removing():
        pass


def test_reading_and_storing_leave_no_file_open(settings: Settings) -> None:
    store = ImageStore(settings)
    gc.collect()  # files left open by earlier tests are not counted
    before = len(list(Path("/proc/self/fd").iterdir()))
    for kind in ("TIFF", "GIF", "WEBP", "MPO"):
        data = encoded(scene(), kind, save_all=True, append_images=[scene()])
        store.add_thumbnail(KEY, read_rgb(data))
        store.add_original(KEY, data, original_suffix(data))
        with pytest.raises(UnreadableImage):
            read_rgb(data[:60])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
