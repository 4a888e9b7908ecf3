"""Queries for images, models' predictions for them, and the channels they activate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.atlas.store import Query

IMAGE_ORDERS: dict[str, str] = {
    "id": "i.image_id",
    "name": "i.name, i.image_id",
    "label": "i.label NULLS LAST, i.wnid, i.image_id",
    "surest": "p.probability DESC NULLS LAST, i.image_id",
    "unsurest": "p.probability NULLS LAST, i.image_id",
}

# Verdicts on a prediction; `unlabelled` is an image whose label is not one of the model's classes.
VERDICTS: dict[str, str] = {
    "right": "t.rank = 1",
    "wrong": "t.rank > 1",
    "unlabelled": "t.rank IS NULL",
}


@dataclass(frozen=True)
class ImageFilter:
    """Filters the images of a set by class (WNID, or name if it has no WNID), verdict, prediction, and text."""

    image_class: str = ""
    verdict: str = ""
    search: str = ""
    predicted: int | None = None


def images(
    image_set: str, run: int | None, chosen: ImageFilter, *, order: str, limit: int | None, offset: int = 0
) -> Query:
    """Images with their prediction in `run` (None: no predictions); `limit` None means all."""
    source, values = _filtered(image_set, run, chosen)
    page = "" if limit is None else "\nLIMIT $limit OFFSET $offset"
    return Query(
        f"""
SELECT i.image_id, i.name, i.label, i.wnid, c.name AS predicted, p.class_index AS predicted_index, p.probability,
       CASE WHEN p.rank IS NULL THEN NULL WHEN t.rank = 1 THEN 'right' WHEN t.rank > 1 THEN 'wrong'
            ELSE 'unlabelled' END AS verdict,
       i.width, i.height, i.bytes, i.split, i.key
{source}
ORDER BY {_number_first(values)}{IMAGE_ORDERS[order]}{page}""",
        values | ({} if limit is None else {"limit": limit, "offset": offset}),
    )


def images_where(image_set: str, run: int | None, condition: str) -> Query:
    """Ids of the images that satisfy `condition`, a user's SQL over the columns of `images`."""
    listed = images(image_set, run, ImageFilter(), order="id", limit=None)
    return Query(
        f"SELECT image_id FROM ({listed.sql}) AS images WHERE ({condition}\n) ORDER BY image_id",
        listed.values,
    )


def count_images(image_set: str, run: int | None, chosen: ImageFilter) -> Query:
    """Number of images that `images` would return without a limit."""
    source, values = _filtered(image_set, run, chosen)
    return Query(f"SELECT count(*) AS images\n{source}", values)


def neighbours(image_set: str, run: int | None, chosen: ImageFilter, *, order: str, image_id: int) -> Query:
    """An image's position (from 1) in what `images` returns without a limit, and the ids before and after it."""
    source, values = _filtered(image_set, run, chosen)
    return Query(
        f"""
SELECT place, images, before, after
FROM (
SELECT i.image_id, row_number() OVER listed AS place, count(*) OVER () AS images,
       lag(i.image_id) OVER listed AS before, lead(i.image_id) OVER listed AS after
{source}
WINDOW listed AS (ORDER BY {_number_first(values)}{IMAGE_ORDERS[order]}))
WHERE image_id = $image_id""",
        values | {"image_id": image_id},
    )


def _number_first(values: Mapping[str, Any]) -> str:
    """Sort key of a search for a number: the image with that id comes before those with the number in their name."""
    return "i.image_id = $number DESC, " if "number" in values else ""


def _filtered(image_set: str, run: int | None, chosen: ImageFilter) -> tuple[str, dict[str, Any]]:
    wanted = ["i.image_set = $image_set"]
    values: dict[str, Any] = {"image_set": image_set, "run": run}
    if chosen.image_class:
        wanted.append("coalesce(i.wnid, i.label) = $class")
        values["class"] = chosen.image_class
    if chosen.verdict:
        wanted.append(f"p.rank = 1 AND {VERDICTS[chosen.verdict]}")
    if chosen.predicted is not None:
        wanted.append("p.class_index = $predicted")
        values["predicted"] = chosen.predicted
    if chosen.search:
        text = chosen.search.strip()
        parts = ["contains(lower(i.name), lower($search))", "contains(lower(i.label), lower($search))"]
        values["search"] = text
        if text.isascii() and text.isdigit() and len(text) < 10:
            parts.insert(0, "i.image_id = $number")
            values["number"] = int(text)
        wanted.append("(" + " OR ".join(parts) + ")")
    return (
        """FROM images i
LEFT JOIN (SELECT * FROM predictions WHERE run = $run AND rank = 1) p USING (image_id)
LEFT JOIN (SELECT image_id, rank FROM predictions WHERE run = $run AND is_label) t USING (image_id)
LEFT JOIN (SELECT vocabulary FROM runs JOIN models USING (model) WHERE run = $run) v ON true
LEFT JOIN classes c ON c.vocabulary = v.vocabulary AND c.class_index = p.class_index
WHERE """
        + "\n  AND ".join(wanted),
        values,
    )


def image_classes(image_set: str) -> Query:
    """Classes of a set's images: the key to filter by, the name, and the number of images."""
    return Query(
        """
SELECT coalesce(wnid, label) AS class, wnid, any_value(label) AS label, count(*) AS images
FROM images
WHERE image_set = $image_set AND coalesce(wnid, label) IS NOT NULL
GROUP BY ALL
ORDER BY lower(any_value(label)), class""",
        {"image_set": image_set},
    )


def class_name(run: int, class_index: int) -> Query:
    """Name of a class of a run's model; no row if there is none."""
    return Query(
        """
SELECT c.name
FROM runs r
JOIN models m USING (model)
JOIN classes c ON c.vocabulary = m.vocabulary
WHERE r.run = $run AND c.class_index = $class_index""",
        {"run": run, "class_index": class_index},
    )


def image(image_set: str, image_id: int) -> Query:
    """One image."""
    return Query(
        """
SELECT image_set, image_id, key, name, path, width, height, bytes, split, wnid, label_index, label
FROM images
WHERE image_set = $image_set AND image_id = $image_id""",
        {"image_set": image_set, "image_id": image_id},
    )


def image_by_key(key: str) -> Query:
    """Where the bytes of an image are; the same image may be in several sets."""
    return Query("SELECT path, width, height FROM images WHERE key = $key LIMIT 1", {"key": key})


def image_predictions(image_set: str, image_id: int, *, first: int | None) -> Query:
    """Each indexed model's prediction for an image: its top-5 classes and the labeled one.

    The run `first` comes first, then the newest.
    """
    return Query(
        """
SELECT r.run, r.model, p.rank, p.class_index, c.wnid, c.name, p.probability, p.logit, p.is_label
FROM runs r
JOIN models m USING (model)
JOIN predictions p USING (run)
LEFT JOIN classes c ON c.vocabulary = m.vocabulary AND c.class_index = p.class_index
WHERE r.image_set = $image_set AND p.image_id = $image_id
ORDER BY r.run IS NOT DISTINCT FROM $first DESC, r.finished DESC, r.run, p.rank""",
        {"image_set": image_set, "image_id": image_id, "first": first},
    )


# Channels whose entire top-k is tied, so it lists the lowest image ids among equal activations.
_TIED = """
WITH tied AS (
    SELECT layer, channel
    FROM activations
    WHERE run = $run
    GROUP BY layer, channel
    HAVING count(*) > 1 AND max(activation) = min(activation))"""


def count_tied_channels(run: int, image_id: int) -> Query:
    """Number of channels that have the image in a top-k that is entirely tied."""
    return Query(
        f"""{_TIED}
SELECT count(*) AS channels
FROM activations_by_image a
JOIN tied USING (layer, channel)
WHERE a.run = $run AND a.image_id = $image_id""",
        {"run": run, "image_id": image_id},
    )


def image_channels(run: int, image_id: int, *, per_layer: int | None, with_tied: bool) -> Query:
    """Channels whose top-k contains the image, in layer order, best rank first.

    At most `per_layer` per layer (None: all); `in_layer` is the total. Channels whose entire top-k is tied
    come last in their layer, or are left out.
    """
    most = "" if per_layer is None else "\nQUALIFY row_number() OVER same_layer <= $per_layer"
    only = "" if with_tied else " AND t.channel IS NULL"
    return Query(
        f"""{_TIED}
SELECT l.layer, l.label AS layer_label, a.channel, a.rank, a.activation, a.y, a.x,
       t.channel IS NOT NULL AS tied, count(*) OVER (PARTITION BY a.layer) AS in_layer
FROM activations_by_image a
JOIN runs r USING (run)
JOIN layers l ON l.model = r.model AND l.layer = a.layer
LEFT JOIN tied t ON t.layer = a.layer AND t.channel = a.channel
WHERE a.run = $run AND a.image_id = $image_id{only}
WINDOW same_layer AS (PARTITION BY a.layer ORDER BY tied, a.rank, a.channel){most}
ORDER BY l.position, tied, a.rank, a.channel""",
        {"run": run, "image_id": image_id} | ({} if per_layer is None else {"per_layer": per_layer}),
    )


def image_sizes(key: str) -> Query:
    """Height and width of the image with that key; no row if there is none."""
    return Query("SELECT height, width FROM images WHERE key = $key LIMIT 1", {"key": key})
