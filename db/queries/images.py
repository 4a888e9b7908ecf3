"""Images, what models predict for them and which channels they drive."""

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

# What a prediction can be; an image whose label is outside the model's classes is unlabelled for the model.
VERDICTS: dict[str, str] = {
    "right": "t.rank = 1",
    "wrong": "t.rank > 1",
    "unlabelled": "t.rank IS NULL",
}


@dataclass(frozen=True)
class ImageFilter:
    """Which images of a set: of one class (WNID, or name where there is no WNID), verdict, prediction, or text."""

    image_class: str = ""
    verdict: str = ""
    search: str = ""
    predicted: int | None = None


def images(
    image_set: str, run: int | None, chosen: ImageFilter, *, order: str, limit: int | None, offset: int = 0
) -> Query:
    """Images with the prediction of `run` (None: no run, and then no prediction); `limit` None means all."""
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
    """Numbers of the images for which `condition` holds, a person's own SQL over the columns of `images`."""
    listed = images(image_set, run, ImageFilter(), order="id", limit=None)
    return Query(
        f"SELECT image_id FROM ({listed.sql}) AS images WHERE ({condition}\n) ORDER BY image_id",
        listed.values,
    )


def count_images(image_set: str, run: int | None, chosen: ImageFilter) -> Query:
    """How many images `images` would return without a limit."""
    source, values = _filtered(image_set, run, chosen)
    return Query(f"SELECT count(*) AS images\n{source}", values)


def neighbours(image_set: str, run: int | None, chosen: ImageFilter, *, order: str, image_id: int) -> Query:
    """Where an image is among those that `images` returns without a limit, from 1, and which are beside it."""
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
    """Who searches for a number wants the image of that number before those that have it in their name."""
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
    """Classes of a set's images: the key to filter by, the name, how many."""
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
    """Name of a class among those of a run's model; nothing where there is none."""
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
    """Where the bytes of a picture are; the same picture may be in several sets."""
    return Query("SELECT path, width, height FROM images WHERE key = $key LIMIT 1", {"key": key})


def image_predictions(image_set: str, image_id: int, *, first: int | None) -> Query:
    """What each indexed model says of an image: its five most probable classes and the labelled one.

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


# Channels whose whole top-k is tied: the lowest image numbers of those that are equal.
_TIED = """
WITH tied AS (
    SELECT layer, channel
    FROM activations
    WHERE run = $run
    GROUP BY layer, channel
    HAVING count(*) > 1 AND max(activation) = min(activation))"""


def count_tied_channels(run: int, image_id: int) -> Query:
    """How many channels have the image in a top-k that is all tied."""
    return Query(
        f"""{_TIED}
SELECT count(*) AS channels
FROM activations_by_image a
JOIN tied USING (layer, channel)
WHERE a.run = $run AND a.image_id = $image_id""",
        {"run": run, "image_id": image_id},
    )


def image_channels(run: int, image_id: int, *, per_layer: int | None, with_tied: bool) -> Query:
    """Channels whose top-k the image is in, in layer order, the best rank first.

    At most `per_layer` of a layer (None: all); `in_layer` says how many there are. Those whose whole top-k is tied
    come last in their layer, or not at all.
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
    """Height and width of the image with that key; nothing where there is none."""
    return Query("SELECT height, width FROM images WHERE key = $key LIMIT 1", {"key": key})
