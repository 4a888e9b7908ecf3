"""Channels and their top-activating image patches."""

from collections.abc import Sequence

from db.atlas.store import Query

# Sort orders for a layer's channels. Dead channels come last in all of them but the order by index. A channel
# whose entire top-k is tied lists the lowest image ids, so any agreement among them is chance.
CHANNEL_ORDERS: dict[str, str] = {
    "index": "s.channel",
    "strongest": "s.dead, s.max DESC, s.channel",
    "selectivity": "s.dead, coalesce(e.tied, false), t.entropy_bits NULLS LAST, t.majority_share DESC, s.channel",
    "dead_last": "s.dead, s.channel",
}


def channels(
    run: int, layer: str, *, only: Sequence[int] | None, order: str, limit: int, offset: int = 0
) -> Query:
    """Channels of a layer with their statistics; `only` None means all; `order` is one of CHANNEL_ORDERS."""
    agreement = (
        """
LEFT JOIN (SELECT * FROM selectivity WHERE run = $run AND layer = $layer) t USING (channel)
LEFT JOIN (SELECT channel, count(*) > 1 AND max(activation) = min(activation) AS tied
           FROM activations
           WHERE run = $run AND layer = $layer
           GROUP BY channel) e USING (channel)"""
        if order == "selectivity"
        else ""
    )
    return Query(
        f"""
SELECT s.channel, s.max, s.mean, s.std, s.min, s.dead, s.nonfinite
FROM channel_stats s{agreement}
WHERE s.run = $run AND s.layer = $layer{_among("s.channel", only)}
ORDER BY {CHANNEL_ORDERS[order]}
LIMIT $limit OFFSET $offset""",
        {"run": run, "layer": layer, "limit": limit, "offset": offset}
        | ({} if only is None else {"channels": list(only)}),
    )


def agreement(run: int, layer: str, channels: Sequence[int]) -> Query:
    """How much the labeled images in the top-k of `channels` agree; channels without labeled images have no row."""
    return Query(
        """
SELECT channel, labelled, classes, entropy_bits, majority_class, majority_label, majority_share
FROM selectivity
WHERE run = $run AND layer = $layer AND channel = ANY($channels)
ORDER BY channel""",
        {"run": run, "layer": layer, "channels": list(channels)},
    )


def patches(run: int, layer: str, channels: Sequence[int], *, k: int) -> Query:
    """The `k` top-activating patches per channel, in the order of `channels`; `class_index` is the model's."""
    return Query(
        """
SELECT p.channel, p.rank, p.activation, p.image_id, p.label, c.class_index, p.wnid, p.y, p.x, p.box, p.erf_box,
       p.name
FROM patches p
LEFT JOIN (SELECT run, image_id, class_index FROM predictions WHERE run = $run AND is_label) c
    USING (run, image_id)
WHERE p.run = $run AND p.layer = $layer AND p.channel = ANY($channels) AND p.rank <= $k
ORDER BY list_position($channels, p.channel), p.rank""",
        {"run": run, "layer": layer, "channels": list(channels), "k": k},
    )


def places(run: int, layer: str, channels: Sequence[int]) -> Query:
    """Images and positions of all patches of `channels`, by channel and rank.

    Together with `pictured` and `labelled_classes` this gives the rows of `patches` except the boxes, which
    follow from the layer's geometry. Three plain reads take a third of the time of that join, for which
    DuckDB would scan all images.
    """
    return Query(
        """
SELECT channel, rank, activation, image_id, y, x
FROM activations
WHERE run = $run AND layer = $layer AND channel BETWEEN $first AND $last AND channel = ANY($channels)
ORDER BY channel, rank""",
        {
            "run": run,
            "layer": layer,
            "channels": list(channels),
            "first": min(channels, default=0),
            "last": max(channels, default=-1),
        },
    )


def pictured(image_set: str, image_ids: Sequence[int]) -> Query:
    """What is needed to show and name images of a set."""
    return Query(
        """
SELECT image_id, key, width, height, name, wnid, label
FROM images
WHERE image_set = $image_set AND image_id = ANY($image_ids)""",
        {"image_set": image_set, "image_ids": list(image_ids)},
    )


def labelled_classes(run: int, image_ids: Sequence[int]) -> Query:
    """Class index of each image's label in the vocabulary of the run's model, for labels that are among its classes."""
    return Query(
        """
SELECT image_id, class_index
FROM predictions
WHERE run = $run AND is_label AND image_id = ANY($image_ids)""",
        {"run": run, "image_ids": list(image_ids)},
    )


def channel_classes(run: int, layer: str, channel: int) -> Query:
    """Classes of the images in a channel's top-k, most frequent first; unlabeled images as NULL."""
    return Query(
        """
SELECT i.wnid, any_value(i.label) AS label, count(*) AS images, max(a.activation) AS strongest,
       count(*) / sum(count(*)) OVER () AS share
FROM activations a
JOIN runs r USING (run)
JOIN images i USING (image_set, image_id)
WHERE a.run = $run AND a.layer = $layer AND a.channel = $channel
GROUP BY i.wnid, coalesce(i.wnid, i.label)
ORDER BY images DESC, strongest DESC""",
        {"run": run, "layer": layer, "channel": channel},
    )


def channel_histogram(run: int, layer: str, channel: int) -> Query:
    """Histogram of a channel's maximum activation per image; empty bins have no row."""
    return Query(
        """
SELECT low, high, images
FROM channel_histograms
WHERE run = $run AND layer = $layer AND channel = $channel
ORDER BY low""",
        {"run": run, "layer": layer, "channel": channel},
    )


def _among(column: str, only: Sequence[int] | None) -> str:
    return "" if only is None else f" AND {column} = ANY($channels)"
