"""The Robustness page's queries on the views over atlas and ledger.

Every function returns a `Query`: the same value feeds a table, its `Copy SQL` and its download.
"""

from db.atlas.store import Query
from db.sql.views import CURVE


def curve(image_set: str, protocol: str, *, image_class: str = "") -> Query:
    """Robust accuracy, or the share of predictions kept, by model and epsilon; of one class if given."""
    among = "attacked WHERE class = $class" if image_class else "attacked"
    values = {"image_set": image_set, "protocol": protocol} | ({"class": image_class} if image_class else {})
    return Query(
        f"""SELECT model, epsilon, at_risk, flipped, censored, share, measure
FROM ({CURVE.format(source=f"(SELECT * FROM {among})")})
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY model, epsilon""",
        values,
    )


def protocols(image_set: str) -> Query:
    """The attack protocols used on a set, each with its models and number of attacks, most attacks first."""
    return Query(
        """
SELECT protocol, measure, any_value(fixed) AS fixed, list(DISTINCT model ORDER BY model) AS models,
       count(*) AS attacks, max(lowest) AS lowest, max(cap) AS cap
FROM attacked
WHERE image_set = $image_set
GROUP BY protocol, measure
ORDER BY attacks DESC, protocol""",
        {"image_set": image_set},
    )


def outcomes(image_set: str, protocol: str, *, image_class: str = "") -> Query:
    """Number of attacked images by outcome for each model; of one class if given."""
    among = " AND class = $class" if image_class else ""
    values = {"image_set": image_set, "protocol": protocol} | ({"class": image_class} if image_class else {})
    return Query(
        f"""
SELECT model, measure, count(*) AS images,
       CASE WHEN measure = 'robust accuracy' THEN count(*) FILTER (verdict = 'wrong_before') END AS wrong_before,
       count(*) FILTER (verdict = 'changed') AS changed, count(*) FILTER (verdict = 'resisted') AS resisted,
       count(*) FILTER (verdict = 'no_gradient') AS no_gradient
FROM attacked
WHERE image_set = $image_set AND protocol = $protocol{among}
GROUP BY model, measure
ORDER BY model""",
        values,
    )


def strip(image_set: str, protocol: str, *, image_class: str = "") -> Query:
    """The smallest successful epsilon of each image that was not wrong before any attack."""
    among = " AND class = $class" if image_class else ""
    values = {"image_set": image_set, "protocol": protocol} | ({"class": image_class} if image_class else {})
    return Query(
        f"""
SELECT model, image_id, label, verdict, smallest, censored, name_before, name_after, attack, key
FROM attacked
WHERE image_set = $image_set AND protocol = $protocol AND verdict IN ('changed', 'resisted'){among}
ORDER BY model, smallest, image_id""",
        values,
    )


def at_epsilon(image_set: str, protocol: str, model: str, epsilon: float, *, image_class: str = "") -> Query:
    """Images of one model at one epsilon: wrong before any attack (0), changed at it, or resisting up to it."""
    among = " AND class = $class" if image_class else ""
    return Query(
        f"""
SELECT image_id, label, verdict, class_name, name_before, name_after, attack, key
FROM attacked
WHERE image_set = $image_set AND protocol = $protocol AND model = $model
      AND abs(smallest - $epsilon) <= 1e-9 * (1 + $epsilon){among}
ORDER BY verdict, image_id""",
        {"image_set": image_set, "protocol": protocol, "model": model, "epsilon": epsilon}
        | ({"class": image_class} if image_class else {}),
    )


CLASS_ORDERS = {
    "weakest": "median_epsilon NULLS LAST, flipped / images DESC, label",
    "strongest": "median_epsilon DESC NULLS FIRST, resisted / images DESC, label",
    "images": "images DESC, label",
    "name": "label, class",
}


def by_class(image_set: str, protocol: str, model: str, *, order: str, limit: int | None) -> Query:
    """Robustness of one model by class of a set."""
    return Query(
        f"""
SELECT class, label, images, flipped, resisted, wrong_already, no_gradient, median_epsilon
FROM robustness_by_class
WHERE image_set = $image_set AND protocol = $protocol AND model = $model
ORDER BY {CLASS_ORDERS[order]}{"" if limit is None else " LIMIT $limit"}""",
        {"image_set": image_set, "protocol": protocol, "model": model}
        | ({} if limit is None else {"limit": limit}),
    )


def flips(image_set: str, protocol: str, model: str, *, limit: int | None) -> Query:
    """The most frequent class changes under one model, from the class that the attack leaves."""
    return Query(
        f"""
SELECT from_class, from_index, to_class, to_index, images, median_epsilon, example
FROM class_flips
WHERE image_set = $image_set AND protocol = $protocol AND model = $model
ORDER BY images DESC, median_epsilon, from_class, from_index, to_class,
         to_index{"" if limit is None else " LIMIT $limit"}""",
        {"image_set": image_set, "protocol": protocol, "model": model}
        | ({} if limit is None else {"limit": limit}),
    )


def transfers(image_set: str, protocol: str) -> Query:
    """How each model's attacked images affect the other models."""
    return Query(
        """
SELECT model, judge, judged, labelled, right_before, fooled, share_fooled, share_moved
FROM transfer
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY model, judge""",
        {"image_set": image_set, "protocol": protocol},
    )


def leaderboard(image_set: str, protocol: str) -> Query:
    """Models compared on the images that all of them have, most robust first."""
    return Query(
        """
SELECT model, measure, images, right_at_0, right_at_1, right_at_4, right_at_8, kept_at_1, kept_at_4, kept_at_8,
       median_epsilon, wrong_before, changed, resisted, no_gradient
FROM leaderboard
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY coalesce(right_at_1, kept_at_1) DESC NULLS LAST, coalesce(right_at_4, kept_at_4) DESC NULLS LAST,
         coalesce(right_at_8, kept_at_8) DESC NULLS LAST, median_epsilon DESC NULLS FIRST,
         changed / nullif(changed + resisted, 0), model""",
        {"image_set": image_set, "protocol": protocol},
    )
