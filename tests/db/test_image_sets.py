"""Image sets in the atlas: ids, samples of labeled images, and what depends on a set."""

import itertools
from typing import Any

import pyarrow as pa
import pytest

from db.atlas.image_sets import IMAGE_ROWS, add_images, dependents, known_images, labelled_images
from db.atlas.store import Atlas
from db.settings import Settings


def rows_of(names: list[str], **columns: Any) -> pa.Table:
    rows = []
    for number, name in enumerate(names):
        row = dict.fromkeys(IMAGE_ROWS.names) | {"name": name, "key": f"key of {name}", "path": f"/{name}"}
        row |= {"known": False, "moved": False}
        rows.append(row | {column: values[number] for column, values in columns.items()})
    return pa.Table.from_pylist(rows, schema=IMAGE_ROWS)


def add(atlas: Atlas, rows: pa.Table, image_set: str = "set") -> int:
    with atlas.publish() as connection:
        return add_images(connection, image_set, source="here", rows=rows).added


@pytest.fixture
def atlas(settings: Settings) -> Atlas:
    """An atlas in which nothing was published."""
    return Atlas(settings)


def test_images_published_by_a_concurrent_import_are_not_added_twice(atlas: Atlas) -> None:
    assert add(atlas, rows_of(["b", "c"])) == 2
    # an import that began before the first was published: it takes all its rows for new
    assert add(atlas, rows_of(["a", "b"])) == 1
    with atlas.read() as cursor:
        ids = cursor.execute("SELECT name, image_id FROM images ORDER BY image_id").fetchall()
    assert ids == [("b", 0), ("c", 1), ("a", 2)]


def test_ids_are_counted_per_set(atlas: Atlas) -> None:
    add(atlas, rows_of(["a", "b"]), "one")
    add(atlas, rows_of(["c"]), "two")
    assert [row["name"] for row in atlas.fetch(known_images("two"))] == ["c"]
    with atlas.read() as cursor:
        assert cursor.execute("SELECT image_id FROM images WHERE image_set = 'two'").fetchall() == [(0,)]
    assert [(row["images"], row["model"]) for row in atlas.fetch(dependents("one"))] == [(2, None)]


@pytest.mark.parametrize("limit", [1, 2, 7, 50, 99, 100, 1000])
def test_a_sample_of_labelled_images_is_spread_evenly_and_leaves_out_the_others(
    atlas: Atlas, limit: int
) -> None:
    labels = [f"class {number // 10}" if number % 2 else None for number in range(200)]
    add(atlas, rows_of([f"{number:03d}" for number in range(200)], label=labels))
    ids = [row["image_id"] for row in atlas.fetch(labelled_images("set", limit))]
    assert len(ids) == min(limit, 100)
    assert all(number % 2 for number in ids)
    gaps = [later - earlier for earlier, later in itertools.pairwise(ids)]
    assert not gaps or max(gaps) - min(gaps) <= 2
