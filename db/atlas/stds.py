"""The unit in which a channel's values are measured: one rule for jobs, pages and SQL.

A channel that hardly varies over an image set would make any value look extreme, and one that never varies
has a standard deviation of zero. So the standard deviation has a floor per layer, and dead channels have no
spread.
"""

# Minimum spread of a live channel, as a fraction of its layer's median standard deviation over live channels.
FLOOR = 0.25

RULE = (
    "the larger of its standard deviation over the image set and "
    f"{FLOOR:.0%} of the median over the layer's live channels"
)
DEAD = "dead: the value is the same for all images, or the largest is 0"

# For each channel of a run: `live`, and `spread`, NULL if dead. `max` is the largest per-image maximum.
SPREADS = f"""
SELECT run, layer, channel, mean, std, live,
       CASE WHEN live THEN
           greatest(std, {FLOOR} * median(CASE WHEN live THEN std END) OVER (PARTITION BY run, layer)) END AS spread
FROM (SELECT *, coalesce(isfinite(std) AND std > 0 AND NOT dead AND max <> 0, false) AS live FROM channel_stats)"""
