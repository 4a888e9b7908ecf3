"""Worked examples of SQL over the atlas and the ledger, from simple to deep: each answers a question of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A question, its SQL, what its parameters are at first, and how the answer is best looked at.

    `view` is table, chart or gallery; `chart` names the columns and the kind of a chart (x, y, kind).
    """

    title: str
    sql: str
    values: Mapping[str, str] = field(default_factory=dict)
    view: str = "table"
    chart: Mapping[str, str] = field(default_factory=dict)


EXAMPLES: tuple[Example, ...] = (
    Example(
        "Which classes does an image set have?",
        """
SELECT label, count(*) AS images, median(width) AS median_width, median(height) AS median_height
FROM images
WHERE image_set = $images
GROUP BY label
ORDER BY images DESC, label""",
        view="chart",
        chart={"x": "label", "y": "images", "kind": "bar"},
    ),
    Example(
        "Which images drive one channel most?",
        """
SELECT rank, activation, label, image_set, image_id, run, layer, channel, y, x
FROM patches
WHERE model = $model AND image_set = $images AND layer = $layer AND channel = $channel
ORDER BY rank""",
        {"channel": "0"},
        view="gallery",
    ),
    Example(
        "Which channels does one image drive?",
        """
SELECT layer, channel, rank, activation, deviations, image_set, image_id, run, y, x
FROM image_channels
WHERE model = $model AND image_set = $images AND image_id = $image
ORDER BY deviations DESC
LIMIT 60""",
        {"image": "0"},
        view="gallery",
    ),
    Example(
        "Which channels stand for one class?",
        """
SELECT s.layer, s.channel, s.majority_label, s.majority_share, s.entropy_bits,
       p.run, p.image_set, p.image_id, p.y, p.x
FROM selectivity s
JOIN patches p ON p.run = s.run AND p.layer = s.layer AND p.channel = s.channel AND p.rank = 1
WHERE s.model = $model AND s.image_set = $images AND s.labelled >= 5
ORDER BY s.majority_share DESC, s.entropy_bits, s.layer, s.channel
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "How does selectivity grow from layer to layer?",
        """
SELECT l.position, l.layer, avg(s.entropy_bits) AS mean_entropy_bits, avg(s.majority_share) AS mean_share
FROM selectivity s
JOIN layers l USING (model, layer)
WHERE s.model = $model AND s.image_set = $images
GROUP BY l.position, l.layer
ORDER BY l.position""",
        view="chart",
        chart={"x": "position", "y": "mean_entropy_bits", "kind": "line"},
    ),
    Example(
        "How often is each class named right?",
        """
SELECT i.label, count(*) AS images, avg(p.is_label::INTEGER) AS accuracy, avg(p.probability) AS mean_confidence
FROM predictions p
JOIN runs r USING (run)
JOIN images i USING (image_set, image_id)
WHERE r.model = $model AND r.image_set = $images AND p.rank = 1 AND i.label IS NOT NULL
GROUP BY i.label
ORDER BY accuracy, i.label""",
        view="chart",
        chart={"x": "label", "y": "accuracy", "kind": "bar"},
    ),
    Example(
        "Which mistakes is the model surest of?",
        """
SELECT i.image_set, i.image_id, i.label, c.name AS predicted, p.probability
FROM predictions p
JOIN runs r USING (run)
JOIN models m USING (model)
JOIN images i USING (image_set, image_id)
JOIN classes c ON c.vocabulary = m.vocabulary AND c.class_index = p.class_index
WHERE r.model = $model AND r.image_set = $images AND p.rank = 1 AND NOT p.is_label AND i.label IS NOT NULL
ORDER BY p.probability DESC
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "Is the model as sure as it is right?",
        """
SELECT floor(p.probability::DOUBLE * 10) / 10 AS confidence, count(*) AS images, avg(p.is_label::INTEGER) AS accuracy
FROM predictions p
JOIN runs r USING (run)
JOIN images i USING (image_set, image_id)
WHERE r.model = $model AND r.image_set = $images AND p.rank = 1 AND i.label IS NOT NULL
GROUP BY confidence
ORDER BY confidence""",
        view="chart",
        chart={"x": "confidence", "y": "accuracy", "kind": "bar"},
    ),
    Example(
        "Which channels do two classes share?",
        """
SELECT layer, channel,
       max(images) FILTER (label = $first) AS of_the_first, max(images) FILTER (label = $second) AS of_the_second
FROM channel_classes
WHERE model = $model AND image_set = $images AND label IN ($first, $second)
GROUP BY layer, channel
HAVING of_the_first > 0 AND of_the_second > 0
ORDER BY least(of_the_first, of_the_second) DESC, of_the_first + of_the_second DESC, layer, channel
LIMIT 50""",
        {"first": "tench", "second": "goldfish"},
    ),
    Example(
        "Which channels are dead, layer by layer?",
        """
SELECT l.position, s.layer, count(*) AS channels, count(*) FILTER (s.dead) AS dead
FROM channel_stats s
JOIN runs r USING (run)
JOIN layers l ON l.model = r.model AND l.layer = s.layer
WHERE r.model = $model AND r.image_set = $images
GROUP BY l.position, s.layer
ORDER BY l.position""",
        view="chart",
        chart={"x": "position", "y": "dead", "kind": "bar"},
    ),
    Example(
        "What do a layer's channels prefer among gratings and hues?",
        """
SELECT t.layer, t.channel, t.orientation, t.frequency, t.orientation_selectivity, t.hue, t.hue_selectivity,
       p.run, p.image_set, p.image_id, p.y, p.x
FROM tuning t
JOIN patches p ON p.run = t.run AND p.layer = t.layer AND p.channel = t.channel AND p.rank = 1
WHERE t.model = $model AND t.layer = $layer
ORDER BY t.orientation_selectivity DESC NULLS LAST, t.channel
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "Which images fall to the smallest attack?",
        """
SELECT attack, model, image_set, image_id, label, name_before, name_after, epsilon, probability_before
FROM attacked
WHERE model = $model AND image_set = $images AND outcome = 'flipped'
ORDER BY epsilon, probability_before DESC
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "Do confident predictions resist longer?",
        """
SELECT probability_before, smallest AS epsilon, label, attack
FROM attacked
WHERE model = $model AND image_set = $images AND outcome <> 'no_gradient'
ORDER BY probability_before""",
        view="chart",
        chart={"x": "probability_before", "y": "epsilon", "kind": "scatter"},
    ),
    Example(
        "Which channels do attacks move again and again?",
        """
SELECT m.layer, m.channel, count(*) AS attacks, avg(m.deviations) AS mean_deviations,
       any_value(s.majority_label) AS majority_label,
       any_value(p.run) AS run, any_value(p.image_set) AS image_set, any_value(p.image_id) AS image_id,
       any_value(p.y) AS y, any_value(p.x) AS x
FROM movers m
JOIN patches p ON p.model = m.model AND p.image_set = m.image_set AND p.layer = m.layer
              AND p.channel = m.channel AND p.rank = 1
LEFT JOIN selectivity s ON s.model = m.model AND s.image_set = m.image_set AND s.layer = m.layer
                       AND s.channel = m.channel
WHERE m.model = $model AND m.image_set = $images AND m.rank = 1
GROUP BY m.layer, m.channel
ORDER BY attacks DESC, m.layer, m.channel
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "How long did jobs take?",
        """
SELECT kind, count(*) AS jobs, sum(items_done) AS results, sum(epoch(finished - started)) AS seconds,
       sum(epoch(finished - started)) / nullif(sum(items_done), 0) AS seconds_per_result
FROM jobs
WHERE state = 'done'
GROUP BY kind
ORDER BY seconds DESC""",
    ),
)
