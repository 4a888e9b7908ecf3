"""Views over the atlas and the ledger together: what the Robustness page shows, and what people ask most, as SQL."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from db.ledger_comments import COMMENTS

_PROTOCOL = """
    upper(method) || ', leaves the ' || relative_to
    || CASE WHEN step = cap THEN ', epsilon ' || round(cap, 6)
            ELSE ', step ' || round(step, 6) || ' to ' || round(cap, 6) END
    || CASE WHEN eight_bit THEN ', 8-bit' ELSE '' END"""

# The curve over rows of `attacked`, or over some of them.
CURVE = """
WITH points AS (
    SELECT model, image_set, protocol, smallest AS epsilon, count(*) AS images,
           count(*) FILTER (NOT censored) AS flipped
    FROM {source}
    WHERE outcome <> 'no_gradient'
    GROUP BY ALL),
risk AS (
    SELECT *, sum(images) OVER (PARTITION BY model, image_set, protocol ORDER BY epsilon DESC) AS at_risk
    FROM points)
SELECT model, image_set, protocol, epsilon, at_risk::BIGINT AS at_risk, flipped, images - flipped AS censored,
       product(1 - flipped / at_risk) OVER (PARTITION BY model, image_set, protocol ORDER BY epsilon) AS share
FROM risk"""

_MODEL = "Name of the model."
_SET = "Image set."
_IMAGE = "Image, by its number in the set."
_LAYER = "Layer, as in the atlas."
_CHANNEL = "Channel, from 0."
_PROTOCOL_IS = "How it was attacked, in words: only attacks of one protocol compare."


@dataclass(frozen=True)
class View:
    """A view over the atlas and the ledger: what it tells, column by column, and what it `reads` of the ledger."""

    comment: str
    columns: Mapping[str, str]
    reads: tuple[str, ...]
    sql: str


VIEWS: dict[str, View] = {
    "attacked": View(
        "Untargeted attacks with their images: the newest of each image under each model and protocol. `smallest` is "
        "the epsilon that succeeded, or the largest that was looked at where none did (`censored`).",
        {
            "attack": "Attack.",
            "model": _MODEL,
            "image_set": _SET,
            "image_id": _IMAGE,
            "protocol": _PROTOCOL_IS,
            "outcome": "flipped, resisted or no_gradient.",
            "epsilon": "Smallest that succeeded; NULL where none did.",
            "attacked_epsilon": "Epsilon of the stored image.",
            "smallest": "The epsilon that succeeded, or the largest that was looked at where none did.",
            "censored": "Whether none did.",
            "class_before": "Prediction before.",
            "name_before": "Its name.",
            "class_after": "Prediction on the attacked image.",
            "name_after": "Its name.",
            "probability_before": "Of class_before.",
            "probability_after": "Of class_after.",
            "step": "Distance of two epsilons.",
            "cap": "Largest epsilon.",
            "png_succeeds": "Whether the stored 8-bit image is still a success.",
            "gradient_norm": "Norm of the loss's gradient in pixels.",
            "seconds": "Time it took.",
            "class": "WordNet id of the image's label, or the label where it has none.",
            "label": "The label's name.",
            "key": "SHA-256 of the image's file.",
        },
        ("attacks",),
        f"""
SELECT a.attack, a.model, a.image_set, a.image_id, protocol, a.outcome, a.epsilon, a.attacked_epsilon,
       coalesce(a.epsilon, a.attacked_epsilon) AS smallest, a.outcome = 'resisted' AS censored,
       a.class_before, a.name_before, a.class_after, a.name_after, a.probability_before, a.probability_after,
       a.step, a.cap, a.png_succeeds, a.gradient_norm, a.seconds,
       coalesce(i.wnid, i.label) AS class, i.label, i.key
FROM (SELECT *, {_PROTOCOL} AS protocol FROM attacks WHERE relative_to <> 'target') a
JOIN images i USING (image_set, image_id)
QUALIFY row_number() OVER (PARTITION BY a.model, a.image_set, a.image_id, protocol ORDER BY a.attack DESC) = 1""",
    ),
    "robustness_curve": View(
        "Share of images still right at an epsilon and just after it, by Kaplan and Meier's product over those still "
        "at risk: images that resisted to their cap leave it there. Without a gradient there was no attack: left out.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "epsilon": "In pixels in [0, 1].",
            "at_risk": "Images that were neither flipped nor censored below it.",
            "flipped": "Images whose smallest epsilon it is.",
            "censored": "Images that resisted up to it as their cap.",
            "share": "Of images still right just after it.",
        },
        ("attacked",),
        CURVE.format(source="attacked"),
    ),
    "robustness_by_class": View(
        "Attacks by the images' labelled class; the median is null where half of them resist.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "class": "WordNet id of the label, or the label.",
            "label": "The label's name.",
            "images": "Attacked images of the class.",
            "flipped": "Of them, flipped.",
            "resisted": "Of them, resisted to the cap.",
            "wrong_already": "Of them, flipped at epsilon 0.",
            "median_epsilon": "Median of the smallest epsilons; NULL where half of them resist.",
        },
        ("attacked",),
        """
SELECT model, image_set, protocol, class, any_value(label) AS label, count(*) AS images,
       count(*) FILTER (outcome = 'flipped') AS flipped, count(*) FILTER (outcome = 'resisted') AS resisted,
       count(*) FILTER (epsilon = 0) AS wrong_already,
       nullif(quantile_disc(CASE WHEN censored THEN 'infinity'::DOUBLE ELSE epsilon END, 0.5),
              'infinity'::DOUBLE) AS median_epsilon
FROM attacked
WHERE class IS NOT NULL AND outcome <> 'no_gradient'
GROUP BY ALL""",
    ),
    "class_flips": View(
        "From which class to which: the label, or the prediction where there is none, and the class after the attack.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "from_class": "The label, or the prediction where there is none.",
            "to_class": "Name of the class after the attack.",
            "to_index": "Its index.",
            "images": "How many went that way.",
            "median_epsilon": "Median of their smallest epsilons.",
            "example": "One of the attacks.",
        },
        ("attacked",),
        """
SELECT model, image_set, protocol, coalesce(label, name_before, 'class ' || class_before) AS from_class,
       coalesce(name_after, 'class ' || class_after) AS to_class, class_after AS to_index, count(*) AS images,
       median(epsilon) AS median_epsilon, min(attack) AS example
FROM attacked
WHERE outcome = 'flipped'
GROUP BY ALL""",
    ),
    "transfer": View(
        "What other models say of attacked images: of those that the judge had right before, the share whose class "
        "changes; `judged` counts all that it was asked about.",
        {
            "model": "Model that was attacked.",
            "judge": "Model that was asked.",
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "judged": "Attacked images that it was asked about.",
            "right_before": "Of them, clean images that it had right.",
            "fooled": "Of those, images whose class changes.",
            "share_fooled": "fooled / right_before.",
            "share_moved": "Share of all whose class changes.",
        },
        ("attacked", "attack_transfers"),
        """
SELECT a.model, t.judge, a.image_set, a.protocol, count(*) AS judged,
       count(*) FILTER (t.right_before) AS right_before,
       count(*) FILTER (t.right_before AND t.moved) AS fooled,
       count(*) FILTER (t.right_before AND t.moved) / nullif(count(*) FILTER (t.right_before), 0) AS share_fooled,
       count(*) FILTER (t.moved) / count(*) AS share_moved
FROM attacked a
JOIN attack_transfers t USING (attack)
GROUP BY ALL""",
    ),
    "leaderboard": View(
        "Models over the images that all of them were attacked on, by protocol: share still right after 0, 1, 4 and 8 "
        "levels of 255, null beyond the cap.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "images": "Images that all models were attacked on.",
            "right_at_0": "Share right before any change.",
            "right_at_1": "Share still right after 1/255; NULL beyond the cap.",
            "right_at_4": "After 4/255.",
            "right_at_8": "After 8/255.",
            "median_epsilon": "Median of the smallest epsilons; NULL where half of them resist.",
            "resisted": "Images that resisted to the cap.",
        },
        ("attacked",),
        """
WITH counted AS (
    SELECT image_set, protocol, count(DISTINCT model) AS models FROM attacked GROUP BY ALL),
common AS (
    SELECT image_set, protocol, image_id
    FROM attacked JOIN counted USING (image_set, protocol)
    WHERE outcome <> 'no_gradient'
    GROUP BY ALL
    HAVING count(DISTINCT model) = any_value(models))
SELECT model, image_set, protocol, count(*) AS images,
       count(*) FILTER (censored OR epsilon > 0) / count(*) AS right_at_0,
       -- what lies beyond the cap is not known
       CASE WHEN min(cap) >= 1 / 255 - 1e-9
            THEN avg((censored OR smallest > 1 / 255 + 1e-9)::INTEGER) END AS right_at_1,
       CASE WHEN min(cap) >= 4 / 255 - 1e-9
            THEN avg((censored OR smallest > 4 / 255 + 1e-9)::INTEGER) END AS right_at_4,
       CASE WHEN min(cap) >= 8 / 255 - 1e-9
            THEN avg((censored OR smallest > 8 / 255 + 1e-9)::INTEGER) END AS right_at_8,
       nullif(quantile_disc(CASE WHEN censored THEN 'infinity'::DOUBLE ELSE epsilon END, 0.5),
              'infinity'::DOUBLE) AS median_epsilon,
       count(*) FILTER (censored) AS resisted
FROM attacked JOIN common USING (image_set, protocol, image_id)
GROUP BY ALL""",
    ),
    "movers": View(
        "The channels that attacks moved most, with the attack: rank 1 moved most in its layer.",
        {
            "attack": "Attack.",
            "model": _MODEL,
            "image_set": _SET,
            "image_id": _IMAGE,
            "label": "The image's label.",
            "name_before": "Prediction before.",
            "name_after": "Prediction on the attacked image.",
            "epsilon": "Smallest that succeeded; NULL where none did.",
            "layer": _LAYER,
            "channel": _CHANNEL,
            "rank": "1 moved most in its layer.",
            "shift": "Largest activation after, less that before.",
            "deviations": "The shift in standard deviations over the image set; NULL without an index.",
            "activation_before": "Largest activation over the clean image's feature map.",
            "activation_after": "Largest activation over the attacked image's feature map.",
            "y": "Row of the largest activation after.",
            "x": "Column of it.",
        },
        ("attacked", "attack_units"),
        """
SELECT u.attack, a.model, a.image_set, a.image_id, a.label, a.name_before, a.name_after, a.epsilon,
       u.layer, u.channel, u.rank, u.shift, u.deviations, u.activation_before, u.activation_after, u.y, u.x
FROM attack_units u
JOIN attacked a USING (attack)""",
    ),
    "image_channels": View(
        "Which channels an image drives: the channels that have it among their top-k.",
        {
            "run": "Run.",
            "model": _MODEL,
            "image_set": _SET,
            "image_id": _IMAGE,
            "layer": _LAYER,
            "channel": _CHANNEL,
            "rank": "Place of the image among those of the channel; 1 is the strongest.",
            "activation": "Value at the image's best position.",
            "deviations": "That value in standard deviations from the channel's mean over the image set.",
            "y": "Row of that position in the feature map.",
            "x": "Column of that position in the feature map.",
        },
        (),
        """
SELECT a.run, r.model, r.image_set, a.image_id, a.layer, a.channel, a.rank, a.activation,
       (a.activation - s.mean) / nullif(s.std, 0) AS deviations, a.y, a.x
FROM activations_by_image a
JOIN runs r USING (run)
JOIN channel_stats s USING (run, layer, channel)""",
    ),
    "channel_classes": View(
        "Classes of the images that drive a channel: how many of its top-k each has.",
        {
            "run": "Run.",
            "model": _MODEL,
            "image_set": _SET,
            "layer": _LAYER,
            "channel": _CHANNEL,
            "class": "WordNet id of the label, or the label where it has none.",
            "label": "The label's name.",
            "images": "Images of that class among the channel's top-k.",
            "share": "Of the labelled images among the channel's top-k.",
        },
        (),
        """
-- model and image set are keys of every step, so that a condition on them reaches the scan
SELECT a.run, r.model, r.image_set, a.layer, a.channel,
       coalesce(i.wnid, i.label) AS class, any_value(i.label) AS label, count(*) AS images,
       count(*) / sum(count(*)) OVER (PARTITION BY a.run, r.model, r.image_set, a.layer, a.channel) AS share
FROM activations a
JOIN runs r USING (run)
JOIN images i USING (image_set, image_id)
WHERE coalesce(i.wnid, i.label) IS NOT NULL
GROUP BY a.run, r.model, r.image_set, a.layer, a.channel, coalesce(i.wnid, i.label)""",
    ),
}


def ledger_tables_of(names: Iterable[str]) -> set[str]:
    """The ledger's tables that a statement reads which names these tables and views."""
    found: set[str] = set()
    for name in names:
        if name in VIEWS:
            found |= ledger_tables_of(VIEWS[name].reads)
        elif name in COMMENTS:
            found.add(name)
    return found


def with_what_they_read(names: Iterable[str]) -> list[str]:
    """Those of the names that are views here, and the views that they read, those that others read first."""
    needed: list[str] = []

    def add(name: str) -> None:
        if name in VIEWS and name not in needed:
            for read in VIEWS[name].reads:
                add(read)
            needed.append(name)

    for name in sorted(names):
        add(name)
    return needed
