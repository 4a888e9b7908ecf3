"""Version 3 to 4: the model class that each label was matched to, and the user's decisions.

Version 3 runs judged images by their labels, so a label's class is taken from its images' predictions, and
the matching method follows from the names. A label without a class whose name several classes share is
ambiguous. `responses` was added to version 3 after its first files.
"""

from collections.abc import Mapping

from db.atlas.migrations.steps import OlderAtlas, no_rows

# Labels with their classes, as `precompute.index.publish` writes them for new runs.
_LABEL_MATCHES = """
WITH judged AS (
    SELECT r.run, m.vocabulary, i.wnid, i.label, p.class_index
    FROM {older}.runs r
    JOIN {older}.models m USING (model)
    JOIN {older}.images i ON i.image_set = r.image_set AND i.image_id < r.images
    LEFT JOIN {older}.predictions p ON p.run = r.run AND p.image_id = i.image_id AND p.is_label
    WHERE coalesce(i.wnid, i.label) IS NOT NULL
      -- a run that judged no image does not tell whether it knew the labels
      AND r.run IN (SELECT run FROM {older}.predictions WHERE is_label)),
labels AS (
    SELECT run, vocabulary, wnid, label, count(*)::INTEGER AS images, mode(class_index) AS class_index
    FROM judged
    GROUP BY run, vocabulary, wnid, label),
named AS (
    SELECT vocabulary, name, list(class_index ORDER BY class_index) AS candidates
    FROM {older}.classes
    GROUP BY vocabulary, name
    HAVING count(*) > 1)
SELECT l.run, l.label, l.wnid, l.images,
       CASE WHEN l.class_index IS NOT NULL AND l.wnid = c.wnid THEN 'wnid'
            WHEN l.class_index IS NOT NULL AND l.label = c.name THEN 'exact'
            WHEN l.class_index IS NOT NULL AND lower(l.label) = lower(c.name) THEN 'case'
            WHEN l.class_index IS NOT NULL THEN 'separators'
            WHEN n.candidates IS NOT NULL THEN 'ambiguous'
            ELSE 'none' END AS how,
       l.class_index,
       CASE WHEN l.class_index IS NULL AND n.candidates IS NOT NULL THEN n.candidates ELSE [] END AS candidates
FROM labels l
LEFT JOIN {older}.classes c ON c.vocabulary = l.vocabulary AND c.class_index = l.class_index
LEFT JOIN named n ON n.vocabulary = l.vocabulary AND n.name = l.label
ORDER BY l.run, l.images DESC, l.label"""


def tables(older: OlderAtlas) -> Mapping[str, str]:
    """Queries for the tables of version 4 that differ from version 3."""
    queries = {
        "label_matches": _LABEL_MATCHES.format(older=older.schema),
        "label_choices": no_rows("model VARCHAR, image_set VARCHAR, label VARCHAR, class_index INTEGER"),
    }
    if not older.has("responses", "run"):
        queries["responses"] = no_rows("run INTEGER, layer VARCHAR, channel INTEGER, activations FLOAT[]")
    return queries
