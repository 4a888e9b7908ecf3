"""Tuning of channels: their responses to probe images."""

from db.atlas.store import Query


def probe_run(model: str) -> Query:
    """The newest run of a model over a set that has probe images and for which all responses are stored."""
    return Query(
        """
SELECT run, image_set, images
FROM runs
WHERE model = $model AND image_set IN (SELECT image_set FROM stimuli WHERE kind = 'grating')
  AND run IN (SELECT run FROM responses)
ORDER BY run DESC
LIMIT 1""",
        {"model": model},
    )


def gratings(run: int, layer: str, channel: int) -> Query:
    """A channel's response to each orientation and frequency."""
    return Query(
        """
SELECT orientation, frequency, response, image_id, key
FROM grating_responses JOIN images USING (image_set, image_id)
WHERE run = $run AND layer = $layer AND channel = $channel
ORDER BY orientation, frequency""",
        {"run": run, "layer": layer, "channel": channel},
    )


def hues(run: int, layer: str, channel: int) -> Query:
    """A channel's response to each hue."""
    return Query(
        """
SELECT hue, response, image_id
FROM hue_responses
WHERE run = $run AND layer = $layer AND channel = $channel
ORDER BY hue""",
        {"run": run, "layer": layer, "channel": channel},
    )


def tuning(run: int, layer: str, channel: int) -> Query:
    """What a channel prefers, and how selectively."""
    return Query(
        """
SELECT orientation, frequency, orientation_selectivity, hue, hue_selectivity
FROM tuning
WHERE run = $run AND layer = $layer AND channel = $channel""",
        {"run": run, "layer": layer, "channel": channel},
    )


def most_oriented(run: int, layer: str) -> Query:
    """The most orientation-selective channel of a layer, among the half that responds most strongly to gratings."""
    return Query(
        """
WITH best AS (
    SELECT channel, max(response) AS response
    FROM grating_responses
    WHERE run = $run AND layer = $layer
    GROUP BY channel
)
SELECT layer, channel
FROM tuning JOIN best USING (channel)
WHERE run = $run AND layer = $layer AND orientation_selectivity IS NOT NULL
  AND response >= (SELECT median(response) FROM best)
ORDER BY orientation_selectivity DESC, channel
LIMIT 1""",
        {"run": run, "layer": layer},
    )
