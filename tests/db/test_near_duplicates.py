"""The view `near_duplicates` against brute force over all pairs, and the hash on images that look alike."""

import io
import random

import duckdb
import imagehash
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from db.atlas.image_sets import fill_colors
from db.atlas.schema import ddl
from db.atlas.store import Atlas
from db.queries import overview as overview_queries
from db.queries.inventory import keeps_modules
from db.settings import Settings
from db.stores.thumbnails import cell_colors, perceptual_hash
from precompute.images.stimuli import design, paint

Pair = tuple[int, int, int]
COLORS = list(range(192))


def filled(rows: list[tuple[str, int, list[int] | None]]) -> duckdb.DuckDBPyConnection:
    """An atlas with images of one set: key, hash and colors of each."""
    connection = duckdb.connect()
    connection.execute(ddl())
    connection.register(
        "given",
        pa.table(
            {
                "image_set": ["s"] * len(rows),
                "image_id": pa.array(range(len(rows)), pa.int32()),
                "key": [key for key, _, _ in rows],
                "dhash": pa.array([value for _, value, _ in rows], pa.uint64()),
                "colors": pa.array([colors for _, _, colors in rows], pa.list_(pa.uint8())),
            }
        ),
    )
    connection.execute("INSERT INTO images BY NAME SELECT * FROM given")
    return connection


def pairs_of(hashes: list[int], colors: list[list[int]] | None = None) -> list[Pair]:
    given = colors or [COLORS] * len(hashes)
    connection = filled([(f"key {n}", *one) for n, one in enumerate(zip(hashes, given, strict=True))])
    return connection.execute(
        "SELECT image_a, image_b, distance FROM near_duplicates WHERE image_set = 's' ORDER BY ALL"
    ).fetchall()


def pictured(images: list[Image.Image]) -> list[Pair]:
    return pairs_of([perceptual_hash(i) for i in images], [list(cell_colors(i)) for i in images])


def brute_force(hashes: list[int], colors: list[list[int]]) -> list[Pair]:
    """Return all pairs within 5 bits and alike in color; of equal hashes, only pairs with the first that is alike."""

    def alike(a: int, b: int) -> bool:
        bits = [hashes[one].bit_count() for one in (a, b)]
        return all(4 <= n <= 60 for n in bits) and np.corrcoef(colors[a], colors[b])[0, 1] >= 0.95

    first = {
        b: next(a for a in range(b + 1) if a == b or (hashes[a] == hashes[b] and alike(a, b)))
        for b in range(len(hashes))
    }
    found = [(first[b], b, 0) for b in first if first[b] != b]
    for b in first:
        for a in range(b):
            apart = (hashes[a] ^ hashes[b]).bit_count()
            if first[a] == a and first[b] == b and 0 < apart <= 5 and alike(a, b):
                found.append((a, b, apart))
    return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_those_that_brute_force_finds(seed: int) -> None:
    draw = random.Random(seed)
    hashes = [draw.getrandbits(64) for _ in range(20)] + [0, 7, 2**64 - 1]
    for value in [*hashes[:12], *hashes[20:]]:
        for bits in (0, 0, 1, 4, 5, 6, 7):
            changed = value
            for bit in draw.sample(range(64), bits):
                changed ^= 1 << bit
            hashes.append(changed)
    draw.shuffle(hashes)
    kinds = np.random.default_rng(seed).integers(0, 256, (3, 192))
    noise = np.random.default_rng(seed + 9).normal(0, 12, (len(hashes), 192))
    colors = (kinds[[n % 3 for n in range(len(hashes))]] + noise).clip(0, 255).astype(int).tolist()
    expected = brute_force(hashes, colors)
    assert {distance for _, _, distance in expected} >= {0, 1, 4, 5}
    assert pairs_of(hashes, colors) == expected
    assert len(pairs_of(hashes)) > len(expected), "by the hash alone there are more"


def test_a_hash_with_few_bits_is_not_evidence() -> None:
    most = 2**64 - 1
    assert pairs_of([0, most, 0, most, most ^ 1, 7, 7]) == []
    assert pairs_of([15, 15, most ^ 15, most ^ 15]) == [(0, 1, 0), (2, 3, 0)], (
        "highest numbers are numbers too"
    )


def test_images_without_colors_are_compared_by_their_files_alone() -> None:
    rows: list[tuple[str, int, list[int] | None]] = [("a", 255, None), ("b", 255, None), ("a", 255, None)]
    found = filled(rows).execute("SELECT image_a, image_b, identical FROM near_duplicates").fetchall()
    assert found == [(0, 2, True)]


def test_many_images_with_one_hash_give_linearly_many_pairs() -> None:
    assert len(pairs_of([255] * 3000)) == 2999


def test_identical_files_are_distinguished_from_similar_ones() -> None:
    for value, expected in ((255, [(0, 1, True), (0, 2, False)]), (0, [(0, 1, True)])):
        connection = filled([("a", value, COLORS), ("a", value, COLORS), ("b", value, COLORS)])
        rows = connection.execute(
            "SELECT image_a, image_b, identical FROM near_duplicates ORDER BY ALL"
        ).fetchall()
        assert rows == expected


def test_plain_colors_do_not_pair_and_edited_copies_do() -> None:
    plain = [Image.new("RGB", (64, 64), name) for name in ("red", "blue", "gray", "red")]
    assert pictured(plain) == []
    original = scene(1)
    buffer = io.BytesIO()
    original.save(buffer, "JPEG", quality=30)
    copies = [
        original,
        Image.open(buffer).convert("RGB"),
        original.resize((290, 217), Image.Resampling.LANCZOS),
        ImageEnhance.Brightness(original).enhance(0.8),
    ]
    found = pictured([*copies, *(scene(seed) for seed in range(2, 40))])
    # each copy is linked to the others, by the original or by one that looks the same
    assert {image for a, b, _ in found for image in (a, b)} == {0, 1, 2, 3}
    red, green, blue = original.split()
    assert pictured([original, Image.merge("RGB", (blue, red, green))]) == [], "other colors"


def test_pairs_of_the_stimuli_are_alike() -> None:
    """Whole families of them hash to 0: by hash alone, 1,000 of them make 26,265 pairs."""
    made = design(400)
    images = [Image.fromarray(paint(one, 64)) for one in made]
    hashes = [perceptual_hash(image) for image in images]
    alone = [a for b, y in enumerate(hashes) for a, x in enumerate(hashes[:b]) if (x ^ y).bit_count() <= 5]
    found = pictured(images)
    assert len(alone) > 1000
    assert len(found) < 10
    assert all(made[a].kind == made[b].kind != "colour" for a, b, _ in found)


def test_an_atlas_from_before_colors_is_completed_when_it_is_changed(settings: Settings) -> None:
    atlas = Atlas(settings)
    with atlas.publish() as connection:
        connection.execute("INSERT INTO images (image_set, image_id, key, dhash) VALUES ('s', 0, 'k', 255)")
    atlas.close()
    with duckdb.connect(str(atlas.path())) as connection:
        connection.execute("ALTER TABLE images DROP COLUMN colors")
        connection.execute("DROP TABLE modules")
    assert atlas.fetch(overview_queries.has_colors()) == []
    assert atlas.fetch(keeps_modules()) == []
    atlas.close()
    with atlas.publish() as connection:
        rows = pa.table({"key": ["k"], "colors": pa.array([COLORS], pa.list_(pa.uint8()))})
        assert fill_colors(connection, rows) == 1
    assert atlas.fetch(overview_queries.has_colors()) == [{"one": 1}]
    assert atlas.fetch(overview_queries.without_colors("s")) == [{"images": 0}]
    assert atlas.fetch(keeps_modules()) == [{"one": 1}]


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


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (9, 8), (7, 300), (290, 217)])
def test_the_perceptual_hash_is_that_of_imagehash(mode: str, size: tuple[int, int]) -> None:
    for seed in range(5):
        image = scene(seed).resize(size).convert(mode)
        assert perceptual_hash(image) == int(str(imagehash.dhash(image)), 16)


def test_the_perceptual_hash_survives_resizing_and_compression() -> None:
    original = scene(1)
    small = original.resize((160, 120), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    original.save(buffer, "JPEG", quality=30)
    again = Image.open(buffer).convert("RGB")
    for copy in (small, again):
        assert (perceptual_hash(original) ^ perceptual_hash(copy)).bit_count() <= 5
    others = [(perceptual_hash(original) ^ perceptual_hash(scene(seed))).bit_count() for seed in range(2, 40)]
    assert min(others) > 5
