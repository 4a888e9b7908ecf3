"""How labels of a set are matched to a model's classes, and users' decisions about them, as rows and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from db.atlas.store import Atlas, Query

# Matching methods, in words, in the order in which `workers.models.label_matching` tries them.
WAYS: dict[str, str] = {
    "settled": "settled by a user",
    "wnid": "by WordNet id",
    "exact": "by the exact name",
    "unicode": "by the name in another Unicode form",
    "separators": "by the name with different spaces, hyphens or underscores",
    "case": "by the name in different case",
    "synonym": "by a synonym",
}


def set_labels(image_set: str) -> Query:
    """The labels of a set with their numbers of images, most frequent first."""
    return Query(
        """
SELECT wnid, any_value(label) AS label, count(*) AS images
FROM images
WHERE image_set = $image_set AND coalesce(wnid, label) IS NOT NULL
GROUP BY wnid, CASE WHEN wnid IS NULL THEN label END
ORDER BY images DESC, coalesce(wnid, any_value(label))""",
        {"image_set": image_set},
    )


def vocabulary_of(model: str) -> Query:
    """The classes of an indexed model, in the order of its logits."""
    return Query(
        """
SELECT c.vocabulary, c.class_index, c.wnid, c.name, c.description
FROM models m JOIN classes c USING (vocabulary)
WHERE m.model = $model
ORDER BY c.class_index""",
        {"model": model},
    )


def label_choices(model: str, image_set: str) -> Query:
    """Users' decisions: a class index, or NULL for no class, by the label's WNID or name."""
    return Query(
        """
SELECT label, class_index
FROM label_choices
WHERE model = $model AND image_set = $image_set
ORDER BY label""",
        {"model": model, "image_set": image_set},
    )


def settled_labels(atlas: Atlas, model: str, image_set: str) -> dict[str, int | None]:
    """Users' decisions: a class index, or None for no class, by the label's WNID or name."""
    return {row["label"]: row["class_index"] for row in atlas.fetch(label_choices(model, image_set))}


def label_matches(run: int) -> Query:
    """How each label of a run's set was matched to the model's classes, unmatched labels first."""
    return Query(
        """
SELECT l.label, l.wnid, l.images, l.how, l.class_index, c.name AS class,
       list_transform(l.candidates, lambda x: list_extract(n.names, list_position(n.indices, x))) AS candidates
FROM label_matches l
JOIN runs r USING (run)
JOIN models m USING (model)
LEFT JOIN classes c ON c.vocabulary = m.vocabulary AND c.class_index = l.class_index
LEFT JOIN (SELECT vocabulary, list(class_index ORDER BY class_index) AS indices,
                  list(class_index || ' ' || name ORDER BY class_index) AS names
           FROM classes GROUP BY vocabulary) n ON n.vocabulary = m.vocabulary
WHERE l.run = $run
ORDER BY l.how = 'ambiguous' DESC, l.how = 'none' DESC, l.images DESC, l.label""",
        {"run": run},
    )


def unindexed_choices(run: int) -> Query:
    """Users' decisions that a run does not reflect yet: labels whose class in the run differs."""
    return Query(
        """
SELECT c.label, c.class_index
FROM label_choices c
JOIN runs r USING (model, image_set)
LEFT JOIN label_matches l ON l.run = r.run AND coalesce(l.wnid, l.label) = c.label
WHERE r.run = $run AND (l.how IS DISTINCT FROM 'settled' OR l.class_index IS DISTINCT FROM c.class_index)
ORDER BY c.label""",
        {"run": run},
    )


def keep_choices(
    connection: duckdb.DuckDBPyConnection,
    model: str,
    image_set: str,
    choices: Mapping[str, int | None],
    *,
    forget: Sequence[str] = (),
) -> None:
    """Store a user's decisions, and delete those for `forget`. Call inside `Atlas.publish`."""
    for label in {*forget, *choices}:
        connection.execute(
            "DELETE FROM label_choices WHERE model = ? AND image_set = ? AND label = ?",
            [model, image_set, label],
        )
    for label, index in choices.items():
        connection.execute("INSERT INTO label_choices VALUES (?, ?, ?, ?)", [model, image_set, label, index])


def in_words(rows: Sequence[Mapping[str, Any]], model: str) -> str:
    """Summary of how many labels match a model's classes, how, and which do not; rows have `how` and `class_index`."""
    ways = [str(row["how"]) for row in rows]
    matched = sum(row["class_index"] is not None for row in rows)
    told = f"{matched:,} of {len(rows):,} labels {'is a class' if matched == 1 else 'are classes'} of {model}"
    parts = [f"{ways.count(way):,} {words}" for way, words in WAYS.items() if way in ways]
    for way, words in (("ambiguous", "ambiguous"), ("none", "not a class of the model")):
        if way in ways:
            parts.append(f"{ways.count(way):,} {words}")
    return f"{told}: {', '.join(parts)}." if parts else f"{told}."
