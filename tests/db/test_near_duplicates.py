"""The view `near_duplicates` against brute force over all pairs, and the hash against pictures that are alike."""

import io
import random

import duckdb
import imagehash
import pytest
from PIL import Image, ImageFilter

from db.images import perceptual_hash
from db.schema import ddl


def pairs_of(hashes: list[int]) -> list[tuple[int, int, int]]:
    connection = duckdb.connect()
    connection.execute(ddl())
    connection.executemany(
        "INSERT INTO images (image_set, image_id, key, dhash) VALUES ('s', ?, ?, ?)",
        [(number, f"key {number}", value) for number, value in enumerate(hashes)],
    )
    return connection.execute(
        "SELECT image_a, image_b, distance FROM near_duplicates WHERE image_set = 's' ORDER BY ALL"
    ).fetchall()


def brute_force(hashes: list[int]) -> list[tuple[int, int, int]]:
    """All pairs within 5 bits, but of equal hashes only those with the first of them."""
    first = {value: hashes.index(value) for value in hashes}
    found = []
    for b, y in enumerate(hashes):
        if first[y] != b:
            found.append((first[y], b, 0))
            continue
        for a, x in enumerate(hashes[:b]):
            if first[x] == a and (x ^ y).bit_count() <= 5:
                found.append((a, b, (x ^ y).bit_count()))
    return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_those_that_brute_force_finds(seed: int) -> None:
    draw = random.Random(seed)
    hashes = [draw.getrandbits(64) for _ in range(20)]
    for value in hashes[:12]:
        for bits in (0, 1, 4, 5, 6, 7):
            changed = value
            for bit in draw.sample(range(64), bits):
                changed ^= 1 << bit
            hashes.append(changed)
    draw.shuffle(hashes)
    expected = brute_force(hashes)
    assert {distance for _, _, distance in expected} >= {0, 1, 4, 5}
    assert pairs_of(hashes) == expected


def test_extreme_hashes_are_numbers_like_others() -> None:
    most = 2**64 - 1
    assert pairs_of([0, most, 0, most, most ^ 1]) == [(0, 2, 0), (1, 3, 0), (1, 4, 1)]


def test_many_pictures_of_one_hash_are_as_many_pairs_and_not_their_square() -> None:
    assert len(pairs_of([5] * 3000)) == 2999


def test_the_same_file_is_told_from_one_that_looks_alike() -> None:
    connection = duckdb.connect()
    connection.execute(ddl())
    connection.executemany(
        "INSERT INTO images (image_set, image_id, key, dhash) VALUES ('s', ?, ?, 9)",
        [(0, "a"), (1, "a"), (2, "b")],
    )
    rows = connection.execute(
        "SELECT image_a, image_b, identical FROM near_duplicates ORDER BY ALL"
    ).fetchall()
    assert rows == [(0, 1, True), (0, 2, False)]


def scene(seed: int) -> Image.Image:
    draw = random.Random(seed)
    image = Image.new("RGB", (320, 240))
    for _ in range(60):
        x, y = draw.randrange(320), draw.randrange(240)
        colour = tuple(draw.randrange(256) for _ in range(3))
        image.paste(
            colour, (x, y, min(320, x + draw.randrange(10, 90)), min(240, y + draw.randrange(10, 90)))
        )
    return image.filter(ImageFilter.GaussianBlur(2))


def test_the_hash_is_the_library_s_and_survives_what_copies_go_through() -> None:
    original = scene(1)
    assert perceptual_hash(original) == int(str(imagehash.dhash(original)), 16)
    small = original.resize((160, 120), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    original.save(buffer, "JPEG", quality=30)
    again = Image.open(buffer).convert("RGB")
    for copy in (small, again):
        assert (perceptual_hash(original) ^ perceptual_hash(copy)).bit_count() <= 5
    others = [(perceptual_hash(original) ^ perceptual_hash(scene(seed))).bit_count() for seed in range(2, 40)]
    assert min(others) > 5
