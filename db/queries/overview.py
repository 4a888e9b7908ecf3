"""Queries over a whole image set: its classes and sizes, models' accuracy, and duplicate images."""

from db.atlas.store import Query

CLASS_ORDERS: dict[str, str] = {
    "images": "images DESC, lower(any_value(i.label)), class",
    "worst": "top1 NULLS LAST, images DESC, class",
    "best": "top1 DESC NULLS LAST, images DESC, class",
    "name": "lower(any_value(i.label)), class",
}

# The image's label among the model's classes; images whose label is not one of them are not judged.
_LABELLED = "(SELECT run, image_id, rank, class_index FROM predictions WHERE is_label)"


def sizes(image_set: str, *, limit: int | None) -> Query:
    """Number of images of each size, most common first."""
    most = "" if limit is None else "\nLIMIT $limit"
    return Query(
        f"""
SELECT width, height, count(*) AS images, sum(bytes)::BIGINT AS bytes
FROM images
WHERE image_set = $image_set
GROUP BY width, height
ORDER BY images DESC, width, height{most}""",
        {"image_set": image_set} | ({} if limit is None else {"limit": limit}),
    )


def size_summary(image_set: str) -> Query:
    """One row: shortest sides (minimum, median, maximum), total bytes, sizes, classes and unlabeled images."""
    return Query(
        """
SELECT count(*) AS images, count(DISTINCT (width, height)) AS sizes, sum(bytes)::BIGINT AS bytes,
       min(least(width, height)) AS shortest, median(least(width, height)) AS middle,
       max(least(width, height)) AS longest, count(DISTINCT coalesce(wnid, label)) AS classes,
       count(*) FILTER (WHERE coalesce(wnid, label) IS NULL) AS unlabelled
FROM images
WHERE image_set = $image_set""",
        {"image_set": image_set},
    )


def accuracy(image_set: str) -> Query:
    """Accuracy of each indexed model on a set: images judged, top-1, top-5, mean confidence if correct and if wrong."""
    return Query(
        f"""
SELECT r.run, r.model, count(t.rank) AS judged, count(*) - count(t.rank) AS unjudged,
       avg((t.rank = 1)::INTEGER) AS top1, avg((t.rank <= 5)::INTEGER) AS top5,
       avg(p.probability) FILTER (WHERE t.rank = 1) AS probability_right,
       avg(p.probability) FILTER (WHERE t.rank > 1) AS probability_wrong
FROM runs r
JOIN predictions p ON p.run = r.run AND p.rank = 1
LEFT JOIN {_LABELLED} t ON t.run = p.run AND t.image_id = p.image_id
WHERE r.image_set = $image_set
GROUP BY r.run, r.model
ORDER BY top1 DESC NULLS LAST, r.model""",
        {"image_set": image_set},
    )


def unpredicted(image_set: str) -> Query:
    """Runs with images that have no prediction because the model's logits are not finite, and how many."""
    return Query(
        """
SELECT r.run, r.model, r.images, r.images - count(p.image_id) AS unpredicted
FROM runs r
LEFT JOIN predictions p ON p.run = r.run AND p.rank = 1
WHERE r.image_set = $image_set
GROUP BY r.run, r.model, r.images
HAVING count(p.image_id) < r.images
ORDER BY r.model""",
        {"image_set": image_set},
    )


def classes(image_set: str, run: int | None, *, order: str, limit: int | None) -> Query:
    """Classes of a set's images: the number of images, how many `run` judged, and its top-1 accuracy on these."""
    most = "" if limit is None else "\nLIMIT $limit"
    return Query(
        f"""
SELECT coalesce(i.wnid, i.label) AS class, any_value(i.label) AS label, count(*) AS images,
       count(t.rank) AS judged, avg((t.rank = 1)::INTEGER) AS top1
FROM images i
LEFT JOIN {_LABELLED} t ON t.run = $run AND t.image_id = i.image_id
WHERE i.image_set = $image_set AND coalesce(i.wnid, i.label) IS NOT NULL
GROUP BY coalesce(i.wnid, i.label)
ORDER BY {CLASS_ORDERS[order]}{most}""",
        {"image_set": image_set, "run": run} | ({} if limit is None else {"limit": limit}),
    )


def confusions(run: int) -> Query:
    """The confusion matrix of a run, correct predictions included: one row per nonempty cell, most frequent first."""
    return Query(
        f"""
SELECT any_value(coalesce(i.wnid, i.label)) AS class, t.class_index, any_value(l.name) AS label,
       p.class_index AS predicted_index, any_value(c.name) AS predicted, count(*) AS images,
       avg(p.probability) AS probability
FROM runs r
JOIN models m USING (model)
JOIN predictions p ON p.run = r.run AND p.rank = 1
JOIN {_LABELLED} t ON t.run = p.run AND t.image_id = p.image_id
JOIN images i ON i.image_set = r.image_set AND i.image_id = p.image_id
LEFT JOIN classes l ON l.vocabulary = m.vocabulary AND l.class_index = t.class_index
LEFT JOIN classes c ON c.vocabulary = m.vocabulary AND c.class_index = p.class_index
WHERE r.run = $run
GROUP BY t.class_index, p.class_index
ORDER BY images DESC, probability DESC, t.class_index, p.class_index""",
        {"run": run},
    )


def has_colors() -> Query:
    """One row if the atlas stores the colors used to compare similar images."""
    return Query(
        "SELECT 1 AS one FROM duckdb_columns() WHERE table_name = 'images' AND column_name = 'colors'"
    )


def without_colors(image_set: str) -> Query:
    """Number of a set's images imported before colors were stored; check `has_colors` first."""
    return Query(
        "SELECT count(*) AS images FROM images WHERE image_set = $image_set AND colors IS NULL",
        {"image_set": image_set},
    )


def near_duplicates(image_set: str, *, limit: int | None) -> Query:
    """Pairs of identical or nearly identical images of a set, nearest first; see the view `near_duplicates`."""
    most = "" if limit is None else "\nLIMIT $limit"
    return Query(
        f"""
SELECT n.distance, n.identical, n.image_a, a.label AS label_a, a.name AS name_a, a.key AS key_a,
       n.image_b, b.label AS label_b, b.name AS name_b, b.key AS key_b
FROM near_duplicates n
JOIN images a ON a.image_set = n.image_set AND a.image_id = n.image_a
JOIN images b ON b.image_set = n.image_set AND b.image_id = n.image_b
WHERE n.image_set = $image_set
ORDER BY n.identical DESC, n.distance, n.image_a, n.image_b{most}""",
        {"image_set": image_set} | ({} if limit is None else {"limit": limit}),
    )
