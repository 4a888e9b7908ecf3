"""What the Robustness page asks the views over atlas and ledger.

Every function returns a `Query`: the same value feeds a table, its `Copy SQL` and its download.
"""

from db.atlas import Query
from db.ledger_views import CURVE


def curve(image_set: str, protocol: str, *, image_class: str = "") -> Query:
    """Share of images still right, by model and epsilon; of one class where it is named."""
    among = "attacked WHERE class = $class" if image_class else "attacked"
    values = {"image_set": image_set, "protocol": protocol} | ({"class": image_class} if image_class else {})
    return Query(
        f"""SELECT model, epsilon, at_risk, flipped, censored, share
FROM ({CURVE.format(source=f"(SELECT * FROM {among})")})
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY model, epsilon""",
        values,
    )


def protocols(image_set: str) -> Query:
    """How a set was attacked: each way with its models and images, that of most images first."""
    return Query(
        """
SELECT protocol, list(DISTINCT model ORDER BY model) AS models, count(*) AS attacks, max(cap) AS cap,
       count(*) FILTER (outcome = 'no_gradient') AS no_gradient
FROM attacked
WHERE image_set = $image_set
GROUP BY protocol
ORDER BY attacks DESC, protocol""",
        {"image_set": image_set},
    )


def strip(image_set: str, protocol: str, *, image_class: str = "") -> Query:
    """The smallest epsilon of each image."""
    among = " AND class = $class" if image_class else ""
    values = {"image_set": image_set, "protocol": protocol} | ({"class": image_class} if image_class else {})
    return Query(
        f"""
SELECT model, image_id, label, smallest, censored, name_before, name_after, attack, key
FROM attacked
WHERE image_set = $image_set AND protocol = $protocol AND outcome <> 'no_gradient'{among}
ORDER BY model, smallest, image_id""",
        values,
    )


CLASS_ORDERS = {
    "weakest": "median_epsilon NULLS LAST, flipped / images DESC, label",
    "strongest": "median_epsilon DESC NULLS FIRST, resisted / images DESC, label",
    "images": "images DESC, label",
    "name": "label, class",
}


def by_class(image_set: str, protocol: str, model: str, *, order: str, limit: int | None) -> Query:
    """Classes of a set under one model."""
    return Query(
        f"""
SELECT class, label, images, flipped, resisted, wrong_already, median_epsilon
FROM robustness_by_class
WHERE image_set = $image_set AND protocol = $protocol AND model = $model
ORDER BY {CLASS_ORDERS[order]}{"" if limit is None else " LIMIT $limit"}""",
        {"image_set": image_set, "protocol": protocol, "model": model}
        | ({} if limit is None else {"limit": limit}),
    )


def flips(image_set: str, protocol: str, model: str, *, limit: int | None) -> Query:
    """The most frequent changes of class under one model."""
    return Query(
        f"""
SELECT from_class, to_class, images, median_epsilon, example
FROM class_flips
WHERE image_set = $image_set AND protocol = $protocol AND model = $model
ORDER BY images DESC, median_epsilon, from_class, to_class{"" if limit is None else " LIMIT $limit"}""",
        {"image_set": image_set, "protocol": protocol, "model": model}
        | ({} if limit is None else {"limit": limit}),
    )


def transfers(image_set: str, protocol: str) -> Query:
    """What each model's attacked images do to the others."""
    return Query(
        """
SELECT model, judge, judged, right_before, fooled, share_fooled, share_moved
FROM transfer
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY model, judge""",
        {"image_set": image_set, "protocol": protocol},
    )


def leaderboard(image_set: str, protocol: str) -> Query:
    """Models over the images that all of them have, the most robust first."""
    return Query(
        """
SELECT model, images, right_at_0, right_at_1, right_at_4, right_at_8, median_epsilon, resisted
FROM leaderboard
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY median_epsilon DESC NULLS FIRST, right_at_1 DESC, model""",
        {"image_set": image_set, "protocol": protocol},
    )
