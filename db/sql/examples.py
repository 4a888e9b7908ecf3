"""Worked examples of SQL over the atlas and the ledger, from simple to advanced; each answers one question."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A question, its SQL, the initial values of its parameters, and the best way to view the answer.

    `view` is table, chart or gallery; `chart` gives the columns and kind of a chart (`x`, `y`, `kind`, `colour`).
    """

    title: str
    sql: str
    values: Mapping[str, str] = field(default_factory=dict)
    view: str = "table"
    chart: Mapping[str, str] = field(default_factory=dict)


# Images whose label is one of the model's classes, with that label's rank; other images are not judged.
_JUDGED = "(SELECT run, image_id, rank FROM predictions WHERE is_label)"
# If the entire top-k is tied, as in a dead channel, its images are those with the lowest ids and mean nothing.
_TELLING = """(
    SELECT run, layer, channel
    FROM activations JOIN runs USING (run)
    WHERE model = $model AND image_set = $images
    GROUP BY run, layer, channel
    HAVING max(activation) > min(activation))"""
# Attacks of one protocol only, because others are not comparable: the one used on most images.
_ONE_SEARCH = """protocol = (
          SELECT protocol
          FROM attacked
          WHERE model = $model AND image_set = $images AND NOT fixed
          GROUP BY protocol
          ORDER BY count(*) DESC, protocol
          LIMIT 1)"""

EXAMPLES: tuple[Example, ...] = (
    Example(
        "Classes of an image set",
        """
-- class names repeat, WordNet ids do not
SELECT any_value(label) AS label, count(*) AS images, median(width) AS median_width, median(height) AS median_height,
       coalesce(wnid, label) AS class
FROM images
WHERE image_set = $images
GROUP BY class
ORDER BY images DESC, label, class""",
        view="chart",
        chart={"x": "label", "y": "images", "kind": "bar"},
    ),
    Example(
        "Top-activating images of a channel",
        """
SELECT rank, activation, label, image_set, image_id, run, layer, channel, y, x
FROM patches
WHERE model = $model AND image_set = $images AND layer = $layer AND channel = $channel
ORDER BY rank""",
        {"channel": "0"},
        view="gallery",
    ),
    Example(
        "Channels that an image activates",
        """
SELECT layer, channel, rank, activation, deviations, image_set, image_id, run, y, x
FROM image_channels
WHERE model = $model AND image_set = $images AND image_id = $image
ORDER BY deviations DESC NULLS LAST  -- NULL: the channel is dead
LIMIT 60""",
        {"image": "0"},
        view="gallery",
    ),
    Example(
        "Channels selective for one class",
        f"""
SELECT s.layer, s.channel, s.majority_label, s.majority_share, s.entropy_bits,
       p.run, p.image_set, p.image_id, p.y, p.x
FROM selectivity s
JOIN {_TELLING} USING (run, layer, channel)
JOIN patches p ON p.run = s.run AND p.layer = s.layer AND p.channel = s.channel AND p.rank = 1
WHERE s.model = $model AND s.image_set = $images AND s.labelled >= 5
ORDER BY s.majority_share DESC, s.entropy_bits, s.layer, s.channel
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "Selectivity by layer",
        f"""
SELECT l.position, l.layer, avg(s.entropy_bits) AS mean_entropy_bits, avg(s.majority_share) AS mean_share
FROM selectivity s
JOIN {_TELLING} USING (run, layer, channel)
JOIN layers l USING (model, layer)
WHERE s.model = $model AND s.image_set = $images
GROUP BY l.position, l.layer
ORDER BY l.position""",
        view="chart",
        chart={"x": "position", "y": "mean_entropy_bits", "kind": "line"},
    ),
    Example(
        "Accuracy by class",
        f"""
SELECT any_value(i.label) AS label, count(*) AS images, avg((t.rank = 1)::INTEGER) AS accuracy,
       avg(p.probability) AS mean_confidence, coalesce(i.wnid, i.label) AS class
FROM predictions p
JOIN {_JUDGED} t USING (run, image_id)
JOIN runs r USING (run)
JOIN images i USING (image_set, image_id)
WHERE r.model = $model AND r.image_set = $images AND p.rank = 1
GROUP BY class
ORDER BY accuracy, label, class""",
        view="chart",
        chart={"x": "label", "y": "accuracy", "kind": "bar"},
    ),
    Example(
        "Most confident mistakes",
        f"""
SELECT i.image_set, i.image_id, i.label, c.name AS predicted, p.probability
FROM predictions p
JOIN {_JUDGED} t USING (run, image_id)
JOIN runs r USING (run)
JOIN models m USING (model)
JOIN images i USING (image_set, image_id)
JOIN classes c ON c.vocabulary = m.vocabulary AND c.class_index = p.class_index
WHERE r.model = $model AND r.image_set = $images AND p.rank = 1 AND t.rank > 1
ORDER BY p.probability DESC, i.image_id
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "Calibration: confidence and accuracy",
        f"""
-- the last bin is 0.9 to 1
SELECT least(floor(p.probability::DOUBLE * 10), 9) / 10 AS confidence, count(*) AS images,
       avg((t.rank = 1)::INTEGER) AS accuracy, avg(p.probability) AS mean_confidence
FROM predictions p
JOIN {_JUDGED} t USING (run, image_id)
JOIN runs r USING (run)
WHERE r.model = $model AND r.image_set = $images AND p.rank = 1
GROUP BY confidence
ORDER BY confidence""",
        view="chart",
        chart={"x": "confidence", "y": "accuracy", "kind": "bar"},
    ),
    Example(
        "Channels shared by two classes",
        """
SELECT layer, channel,
       -- class names repeat: count all classes of that name
       (sum(images) FILTER (label = $first))::BIGINT AS of_the_first,
       (sum(images) FILTER (label = $second))::BIGINT AS of_the_second
FROM channel_classes
WHERE model = $model AND image_set = $images AND label IN ($first, $second)
GROUP BY layer, channel
HAVING of_the_first > 0 AND of_the_second > 0
ORDER BY least(of_the_first, of_the_second) DESC, of_the_first + of_the_second DESC, layer, channel
LIMIT 50""",
        {"first": "tench", "second": "goldfish"},
    ),
    Example(
        "Dead channels by layer",
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
        "Preferred gratings and hues of a layer's channels",
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
        "Images with the smallest successful epsilon",
        f"""
-- one protocol only; an image that is misclassified before any attack does not count
SELECT attack, model, image_set, image_id, label, name_before, name_after, epsilon, probability_before, protocol
FROM attacked
WHERE model = $model AND image_set = $images AND verdict = 'changed'
      AND {_ONE_SEARCH}
ORDER BY epsilon, probability_before DESC, image_id
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "Confidence and smallest successful epsilon",
        f"""
-- one protocol only; the smallest epsilon of an image that resists is larger than the one plotted
SELECT probability_before, smallest AS epsilon,
       CASE WHEN censored THEN 'resists, lies beyond' ELSE 'changes there' END AS what, label, attack, protocol
FROM attacked
WHERE model = $model AND image_set = $images AND verdict IN ('changed', 'resisted')
      AND {_ONE_SEARCH}
ORDER BY probability_before, attack""",
        view="chart",
        chart={"x": "probability_before", "y": "epsilon", "kind": "scatter", "colour": "what"},
    ),
    Example(
        "Channels that attacks shift most often",
        f"""
-- one protocol only; absolute values, because shifts up and down would cancel
SELECT m.layer, m.channel, count(*) AS attacks, avg(abs(m.deviations)) AS mean_size_in_deviations,
       count(*) FILTER (m.shift > 0) AS up, count(*) FILTER (m.shift < 0) AS down,
       any_value(s.majority_label) AS majority_label,
       any_value(p.run) AS run, any_value(p.image_set) AS image_set, any_value(p.image_id) AS image_id,
       any_value(p.y) AS y, any_value(p.x) AS x
FROM movers m
JOIN patches p ON p.model = m.model AND p.image_set = m.image_set AND p.layer = m.layer
              AND p.channel = m.channel AND p.rank = 1
LEFT JOIN selectivity s ON s.model = m.model AND s.image_set = m.image_set AND s.layer = m.layer
                       AND s.channel = m.channel
WHERE m.model = $model AND m.image_set = $images AND m.rank = 1 AND m.verdict = 'changed'
      AND m.{_ONE_SEARCH}
GROUP BY m.layer, m.channel
ORDER BY attacks DESC, m.layer, m.channel
LIMIT 60""",
        view="gallery",
    ),
    Example(
        "Duration of jobs",
        """
SELECT kind, count(*) AS jobs, sum(items_done) AS results, sum(epoch(finished - started)) AS seconds,
       sum(epoch(finished - started)) / nullif(sum(items_done), 0) AS seconds_per_result
FROM jobs
WHERE state = 'done'
GROUP BY kind
ORDER BY seconds DESC""",
    ),
)
