"""Image sets in the atlas: queries, adding images, and removing a set with everything that depends on it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from db.atlas.runs import RUN_TABLES
from db.atlas.store import Atlas, NoAtlas, Query
from db.stores.images import ImageStore, StoreBusy

# Age after which an unlisted file is abandoned: an import that is still wanted is retried sooner.
UNFINISHED_SECONDS = 3600.0

# Columns of a table of images to be added to the atlas. `moved` marks known images whose file has a new path;
# `formerly` is the name under which the set has the same content, if that file is gone.
IMAGE_ROWS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("split", pa.string()),
        pa.field("wnid", pa.string()),
        pa.field("label_index", pa.int32()),
        pa.field("label", pa.string()),
        pa.field("dhash", pa.uint64()),
        pa.field("colors", pa.list_(pa.uint8())),
        pa.field("known", pa.bool_(), nullable=False),
        pa.field("moved", pa.bool_(), nullable=False),
        pa.field("formerly", pa.string()),
    ]
)

# Known images whose label has changed. An import without labels keeps old ones, except for renamed files.
_RELABELLED = """
    i.image_set = $image_set AND i.name = coalesce(g.formerly, g.name) AND i.key = g.key
    AND (g.formerly IS NOT NULL OR (g.known AND g.label IS NOT NULL))
    AND (i.wnid, i.label_index, i.label) IS DISTINCT FROM (g.wnid, g.label_index, g.label)"""


SET_NAME = "^[a-z0-9][a-z0-9._-]{0,99}$"  # a regular expression


def set_name_problem(image_set: str) -> str | None:
    """One sentence on why `image_set` cannot be used in URLs and file names; None if it can."""
    if re.fullmatch(SET_NAME, image_set):
        return None
    return (
        "expected a name of at most 100 lowercase letters, digits, dots, dashes and underscores that begins with a "
        f"letter or a digit, got {image_set[:200]!r}"
    )


@dataclass(frozen=True)
class Changes:
    """Number of images that one import changed in the atlas, by kind of change."""

    added: int
    relabelled: int
    moved: int
    renamed: int


def source_of(image_set: str) -> Query:
    """Where the first images of a set came from."""
    return Query("SELECT source FROM image_sets WHERE image_set = $image_set", {"image_set": image_set})


def known_images(image_set: str) -> Query:
    """Name, content key and file of each image of a set."""
    return Query("SELECT name, key, path FROM images WHERE image_set = $image_set", {"image_set": image_set})


def relabelled_images(connection: duckdb.DuckDBPyConnection, image_set: str, rows: pa.Table) -> int:
    """Number of known images of the set whose label differs in `rows` (see `IMAGE_ROWS`)."""
    connection.register("given", rows)
    found = connection.execute(
        f"SELECT count(*) FROM images i, given g WHERE {_RELABELLED}", {"image_set": image_set}
    ).fetchall()
    connection.unregister("given")
    return int(found[0][0])


def images_by_id(image_set: str, ids: Sequence[int]) -> Query:
    """Images of a set by their ids."""
    return Query(
        """
SELECT image_id, name, path, key, wnid, label
FROM images
WHERE image_set = $image_set AND image_id IN (SELECT unnest($ids::INTEGER[]))
ORDER BY image_id""",
        {"image_set": image_set, "ids": list(ids)},
    )


def dependents(image_set: str) -> Query:
    """A set's size and the models that were run over it, one row each; a single row with NULL if there are none."""
    return Query(
        """
SELECT s.image_set, s.images, r.model
FROM image_sets s
LEFT JOIN runs r USING (image_set)
WHERE s.image_set = $image_set
ORDER BY r.model""",
        {"image_set": image_set},
    )


def listed_keys() -> Query:
    """Content keys of all images of all sets."""
    return Query("SELECT DISTINCT key FROM images")


def labelled_images(image_set: str, limit: int) -> Query:
    """At most `limit` labeled images, spread evenly over the set, because ids are often sorted by class."""
    return Query(
        """
SELECT image_id, name, path, key, wnid, label
FROM (
    SELECT *, row_number() OVER (ORDER BY image_id) - 1 AS place, count(*) OVER () AS labelled
    FROM images
    WHERE image_set = $image_set AND coalesce(wnid, label) IS NOT NULL)
-- the first image of each of `limit` equal stretches
WHERE labelled <= $limit OR place = 0 OR place * $limit // labelled <> (place - 1) * $limit // labelled
ORDER BY image_id""",
        {"image_set": image_set, "limit": limit},
    )


def fill_colors(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> int:
    """Add colors to images of all sets that were imported before colors were stored; returns their number.

    `rows` has `key` and `colors`. Call inside `Atlas.publish`.
    """
    connection.register("given", rows)
    found = connection.execute(
        "UPDATE images i SET colors = g.colors FROM (SELECT DISTINCT ON (key) key, colors FROM given) g "
        "WHERE i.key = g.key AND i.colors IS NULL"
    ).fetchall()
    connection.unregister("given")
    return int(found[0][0])


def add_images(
    connection: duckdb.DuckDBPyConnection, image_set: str, *, source: str, rows: pa.Table
) -> Changes:
    """Add the new images of `rows` (see `IMAGE_ROWS`) to a set, which is created if needed.

    An image is new if no image of the set has both its name and its content. New ids continue after the
    highest one, in order of name, so ids are dense from 0 and never change. Call inside `Atlas.publish`.
    """
    values = {"image_set": image_set}
    connection.register("given", rows)
    relabelled = connection.execute(
        "UPDATE images i SET wnid = g.wnid, label_index = g.label_index, label = g.label, "
        f"split = coalesce(g.split, i.split) FROM given g WHERE {_RELABELLED}",
        values,
    ).fetchall()
    moved = connection.execute(
        """
        UPDATE images i SET path = g.path FROM given g
        WHERE i.image_set = $image_set AND i.name = g.name AND i.key = g.key AND g.moved""",
        values,
    ).fetchall()
    renamed = connection.execute(
        """
        UPDATE images i SET name = g.name, path = g.path, split = g.split FROM given g
        WHERE i.image_set = $image_set AND i.name = g.formerly AND i.key = g.key""",
        values,
    ).fetchall()
    added = connection.execute(
        """
        INSERT INTO images BY NAME
        SELECT $image_set AS image_set,
               ((SELECT coalesce(max(image_id) + 1, 0) FROM images WHERE image_set = $image_set)
                + row_number() OVER (ORDER BY name, key) - 1)::INTEGER AS image_id,
               key, name, path, width, height, bytes, split, wnid, label_index, label, dhash, colors
        FROM given g
        -- another import of the same set may have been published while this one read its files
        WHERE NOT known AND NOT EXISTS (
            SELECT 1 FROM images i WHERE i.image_set = $image_set AND i.name = g.name AND i.key = g.key)
        ORDER BY name, key""",
        values,
    ).fetchall()
    connection.unregister("given")
    fill_colors(connection, rows)
    connection.execute(
        """
        INSERT INTO image_sets SELECT $image_set, $source, 0, 0, $created
        WHERE NOT EXISTS (SELECT 1 FROM image_sets WHERE image_set = $image_set)""",
        {"image_set": image_set, "source": source, "created": datetime.now(UTC).replace(tzinfo=None)},
    )
    connection.execute(
        """
        UPDATE image_sets SET
            images = (SELECT count(*) FROM images WHERE image_set = $image_set),
            labelled = (SELECT count(label) FROM images WHERE image_set = $image_set)
        WHERE image_set = $image_set""",
        values,
    )
    return Changes(*(int(counted[0][0]) for counted in (added, relabelled, moved, renamed)))


@dataclass(frozen=True)
class Orphans:
    """Files that are no longer needed: thumbnails by content key, copies of originals by `images.path`."""

    keys: list[str]
    originals: list[str]


def remove_unlisted(atlas: Atlas, store: ImageStore, *, older_than: float = 0.0) -> int:
    """Remove files left by imports that did not finish; returns their number. Does nothing while an import is running.

    Args:
        older_than: minimum age in seconds, so that a killed import finds its recent files when it is retried.

    Raises:
        AtlasError: it cannot be determined which files are needed; none was removed.
    """
    try:
        with store.removing():
            try:
                listed = {row["key"] for row in atlas.fetch(listed_keys())}
            except NoAtlas:
                listed = set()
            paths = store.unlisted(listed, older_than=older_than)
            for path in paths:
                path.unlink(missing_ok=True)
            return len(paths)
    except StoreBusy:
        return 0


def remove_images(connection: duckdb.DuckDBPyConnection, image_set: str) -> Orphans:
    """Remove a set, its images, its runs with their rows, and models that have no other run.

    Call inside `Atlas.publish`; remove the returned files after publication.
    """
    values = {"image_set": image_set}
    keys = connection.execute(
        """
        SELECT DISTINCT key FROM images WHERE image_set = $image_set
        EXCEPT SELECT key FROM images WHERE image_set <> $image_set ORDER BY key""",
        values,
    ).fetchall()
    originals = connection.execute(
        """
        SELECT DISTINCT path FROM images WHERE image_set = $image_set AND NOT starts_with(path, '/')
        EXCEPT SELECT path FROM images WHERE image_set <> $image_set ORDER BY path""",
        values,
    ).fetchall()
    gone = "(SELECT run FROM runs WHERE image_set = $image_set)"
    for table in RUN_TABLES:
        connection.execute(f"DELETE FROM {table} WHERE run IN {gone}", values)
    models = connection.execute(
        """
        SELECT DISTINCT model FROM runs WHERE image_set = $image_set
        EXCEPT SELECT model FROM runs WHERE image_set <> $image_set""",
        values,
    ).fetchall()
    for table in ("runs", "images", "image_sets", "label_choices"):
        connection.execute(f"DELETE FROM {table} WHERE image_set = $image_set", values)
    for (model,) in models:
        for table in ("layers", "layer_edges", "modules", "models"):
            connection.execute(f"DELETE FROM {table} WHERE model = $model", {"model": model})
    if models:
        connection.execute(
            "DELETE FROM classes c WHERE NOT EXISTS (SELECT 1 FROM models m WHERE m.vocabulary = c.vocabulary)"
        )
    return Orphans([key for (key,) in keys], [path for (path,) in originals])
