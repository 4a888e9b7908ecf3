"""Views over atlas and ledger together: the data of the Robustness page and the most common questions, as SQL."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from db.atlas.stds import DEAD, RULE, SPREADS
from db.ledger.comments import COMMENTS

# Everything that determines which epsilons are tested and how: attacks are comparable only within one protocol.
_PROTOCOL = """
    upper(method) || ', leaves the ' || relative_to
    || CASE WHEN step = cap THEN ', epsilon ' || round(cap, 6)
            WHEN grid_ratio IS NOT NULL
            THEN ', ratio ' || round(grid_ratio, 6) || ' in ' || parts || ' to '
                 || round(cap, 6) || CASE WHEN minimum > step THEN ', from ' || round(minimum, 6) ELSE '' END
            ELSE ', step ' || round(step, 6) || ' to ' || round(cap, 6)
                 || CASE WHEN minimum > step THEN ', from ' || round(minimum, 6) ELSE '' END END
    || CASE WHEN eight_bit THEN ', 8-bit' ELSE '' END
    || coalesce(', ' || json_extract_string(parameters, '$.steps') || ' iterations of '
                || json_extract_string(parameters, '$.step_size') || ' epsilon, seed '
                || json_extract_string(parameters, '$.seed'), '')"""

# The ratio of a geometric grid, which starts at `step` (see workers.requests.attacks); NULL for a linear one.
_RATIO = "CASE WHEN grid = 'geometric' THEN ratio END"
# The grid's lowest and highest epsilon; 0 is always tested.
_LOWEST = """CASE WHEN grid_ratio IS NULL THEN greatest(1, ceil(minimum / step - 1e-9)) * step
         WHEN minimum <= step THEN least(step, cap)
         ELSE least(step * grid_ratio ** ceil(ln(minimum / step) / ln(grid_ratio) - 1e-9), cap) END"""
_HIGHEST = "CASE WHEN grid_ratio IS NULL THEN floor(cap / step + 1e-9) * step ELSE cap END"


def _looked_at(epsilon: str) -> str:
    """The largest grid epsilon up to another; 0 if there is none."""
    return f"""CASE WHEN grid_ratio IS NULL THEN floor({epsilon} / step + 1e-9) * step
         WHEN {epsilon} < step * (1 - 1e-9) THEN 0
         ELSE step * grid_ratio ** floor(ln({epsilon} / step) / ln(grid_ratio) + 1e-9) END"""


# The curve over all or some rows of `attacked`. An image without a gradient is known only at 0 and is
# censored there; one that resists is censored at the largest epsilon tested.
CURVE = """
WITH points AS (
    SELECT model, image_set, protocol, measure, coalesce(smallest, 0) AS epsilon, count(*) AS images,
           count(*) FILTER (outcome = 'flipped') AS flipped
    FROM {source}
    GROUP BY ALL
    UNION ALL
    SELECT DISTINCT model, image_set, protocol, measure, 0, 0, 0
    FROM {source}),
counted AS (
    SELECT model, image_set, protocol, measure, epsilon, sum(images)::BIGINT AS images, sum(flipped)::BIGINT AS flipped
    FROM points
    GROUP BY ALL),
risk AS (
    SELECT *, sum(images) OVER (PARTITION BY model, image_set, protocol ORDER BY epsilon DESC) AS at_risk
    FROM counted)
SELECT model, image_set, protocol, measure, epsilon, at_risk::BIGINT AS at_risk, flipped, images - flipped AS censored,
       product(1 - flipped / at_risk) OVER (PARTITION BY model, image_set, protocol ORDER BY epsilon) AS share
FROM risk"""

# Median over images that were correct (or whose prediction counts) before; NULL for a single fixed epsilon.
_MEDIAN = """
       CASE WHEN NOT any_value(fixed) THEN nullif(quantile_disc(
           CASE WHEN censored THEN 'infinity'::DOUBLE ELSE epsilon END, 0.5)
           FILTER (verdict IN ('changed', 'resisted')), 'infinity'::DOUBLE) END AS median_epsilon"""


def _share_at(level: int) -> str:
    """Share of images correct, or with their prediction kept, up to `level` / 255.

    NULL if no epsilon within a quarter below was tested, or the grid starts above it. Images without a
    gradient count only at 0, as in the curve.
    """
    epsilon = f"({level} / 255)"
    return f"""
       CASE WHEN min(cap) < {epsilon} * (1 - 1e-9)
                 OR max({_looked_at(epsilon)}) < 0.75 * {epsilon}
                 OR max(lowest) > {epsilon} * (1 + 1e-9) THEN NULL
            WHEN count(*) = count(*) FILTER (verdict = 'wrong_before') THEN 0
            ELSE count(*) FILTER (verdict <> 'wrong_before') / count(*)
                 * (1 - count(*) FILTER (verdict = 'changed' AND epsilon <= {epsilon} * (1 + 1e-9))
                        / nullif(count(*) FILTER (verdict IN ('changed', 'resisted')), 0)) END"""


_MODEL = "Name of the model."
_SET = "Image set."
_IMAGE = "Number of the image in its set."
_LAYER = "Layer, as in the atlas."
_CHANNEL = "Channel, from 0."
_PROTOCOL_IS = "How it was attacked, in words; compare only attacks of one protocol."
_MEASURE = (
    "robust accuracy, for attacks away from the label; prediction kept, for attacks away from the prediction."
)
_MEDIAN_IS = (
    "Median smallest epsilon over images that were not misclassified before; NULL where more than half of "
    "these resist, and where only one epsilon was tested."
)


@dataclass(frozen=True)
class View:
    """A view over the atlas and the ledger: its meaning, column by column, and what it `reads` from the ledger."""

    comment: str
    columns: Mapping[str, str]
    reads: tuple[str, ...]
    sql: str


VIEWS: dict[str, View] = {
    "attacked": View(
        "Untargeted attacks with their images: the latest for each image, model and protocol, all with "
        "the weights that the model was last attacked with. An image that is misclassified before any "
        "attack is `wrong_before`, not `changed`.",
        {
            "attack": "Attack.",
            "model": _MODEL,
            "image_set": _SET,
            "image_id": _IMAGE,
            "protocol": _PROTOCOL_IS,
            "relative_to": "The class to leave: label or prediction.",
            "measure": _MEASURE,
            "fixed": "Whether only one epsilon was tested: it says nothing about smaller ones.",
            "lowest": "Lowest epsilon tested, apart from 0.",
            "highest": "Highest epsilon of the grid.",
            "verdict": "changed by the attack, wrong_before any attack, resisted up to the highest epsilon, or "
            "no_gradient.",
            "outcome": "flipped (changed or wrong before), resisted or no_gradient.",
            "epsilon": "Smallest epsilon that succeeded, 0 where the image was misclassified before; NULL "
            "where none did.",
            "attacked_epsilon": "Epsilon of the stored image.",
            "smallest": "The epsilon that succeeded, or the largest tested where none did.",
            "censored": "Whether none succeeded.",
            "class_index": "Class to leave.",
            "class_name": "Its name.",
            "class_before": "Prediction before the attack.",
            "name_before": "Its name.",
            "class_after": "Prediction for the adversarial image.",
            "name_after": "Its name.",
            "probability_before": "Probability of class_before.",
            "probability_after": "Probability of class_after.",
            "last_failure": "Largest epsilon below `smallest` that failed, 0 included.",
            "at_most": "Whether epsilon is the lowest of the grid: the true value is at most that.",
            "grid": "geometric, linear or fixed.",
            "grid_ratio": "Ratio of consecutive epsilons of a geometric grid; NULL for a linear one.",
            "step": "Step between epsilons of a linear grid; the lowest epsilon of a geometric one.",
            "cap": "Largest epsilon.",
            "png_succeeds": "Whether the stored 8-bit image is still adversarial.",
            "gradient_norm": "Norm of the loss's gradient with respect to pixels.",
            "seconds": "Computation time in seconds.",
            "class": "WordNet id of the image's label, or the label if it has none.",
            "label": "The label's name.",
            "key": "SHA-256 of the image's file.",
        },
        ("attacks",),
        f"""
SELECT a.attack, a.model, a.image_set, a.image_id, protocol, a.relative_to,
       CASE a.relative_to WHEN 'label' THEN 'robust accuracy' ELSE 'prediction kept' END AS measure,
       highest <= lowest AS fixed, lowest, highest,
       CASE WHEN a.outcome <> 'flipped' THEN a.outcome WHEN a.epsilon = 0 THEN 'wrong_before' ELSE 'changed' END
           AS verdict,
       a.outcome, a.epsilon, a.attacked_epsilon,
       coalesce(a.epsilon, a.attacked_epsilon) AS smallest, a.outcome = 'resisted' AS censored,
       a.class_index, a.class_name, a.class_before, a.name_before, a.class_after, a.name_after,
       a.probability_before, a.probability_after,
       a.last_failure, a.at_most, a.grid, a.step, a.grid_ratio, a.cap, a.png_succeeds, a.gradient_norm, a.seconds,
       coalesce(i.wnid, i.label) AS class, i.label, i.key
FROM (SELECT *, {_PROTOCOL} AS protocol, {_LOWEST} AS lowest, {_HIGHEST} AS highest
      FROM (SELECT *, {_RATIO} AS grid_ratio FROM attacks) WHERE relative_to <> 'target'
      QUALIFY model_digest = arg_max(model_digest, attack) OVER (PARTITION BY model, image_set)) a
JOIN images i USING (image_set, image_id)
QUALIFY row_number() OVER (PARTITION BY a.model, a.image_set, a.image_id, protocol ORDER BY a.attack DESC) = 1""",
    ),
    "robustness_curve": View(
        "Robust accuracy, or the share of predictions kept (`measure`), at each epsilon, by the "
        "Kaplan-Meier estimator: images that resisted are censored at the largest epsilon tested, those "
        "without a gradient at 0. At epsilon 0 robust accuracy is the clean accuracy.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "measure": _MEASURE,
            "epsilon": "Epsilon, for pixels in [0, 1].",
            "at_risk": "Number of images neither flipped nor censored below it.",
            "flipped": "Number of images whose smallest epsilon it is; at 0, images misclassified before any attack.",
            "censored": "Number of images censored here: resisted up to it, or at 0 without a gradient.",
            "share": "Share of correct images, or of predictions kept, up to it.",
        },
        ("attacked",),
        CURVE.format(source="attacked"),
    ),
    "robustness_by_class": View(
        "Attacks by the labeled class of the images. An image is changed, resisted, misclassified before or "
        "without a gradient.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "measure": _MEASURE,
            "class": "WordNet id of the label, or the label.",
            "label": "The label's name.",
            "images": "Number of attacked images of the class.",
            "flipped": "Number changed by the attack.",
            "resisted": "Number that resisted up to the highest epsilon.",
            "wrong_already": "Number misclassified before any attack; NULL for attacks away from the prediction.",
            "no_gradient": "Number without a gradient: not attacked.",
            "median_epsilon": _MEDIAN_IS,
        },
        ("attacked",),
        f"""
SELECT model, image_set, protocol, measure, class, any_value(label) AS label, count(*) AS images,
       count(*) FILTER (verdict = 'changed') AS flipped, count(*) FILTER (verdict = 'resisted') AS resisted,
       CASE WHEN measure = 'robust accuracy' THEN count(*) FILTER (verdict = 'wrong_before') END AS wrong_already,
       count(*) FILTER (verdict = 'no_gradient') AS no_gradient,{_MEDIAN}
FROM attacked
WHERE class IS NOT NULL
GROUP BY model, image_set, protocol, measure, class""",
    ),
    "class_flips": View(
        "From which class to which: the class before (the label or the prediction, by protocol) and the "
        "class after the attack. Images misclassified before any attack are excluded.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "from_class": "Name of the class before the attack.",
            "from_index": "Its index.",
            "to_class": "Name of the class after the attack.",
            "to_index": "Its index.",
            "images": "Number of images with this change.",
            "median_epsilon": "Median of their smallest epsilons; NULL where only one epsilon was tested.",
            "example": "One of the attacks.",
        },
        ("attacked",),
        """
SELECT model, image_set, protocol, coalesce(any_value(class_name), 'class ' || class_index) AS from_class,
       class_index AS from_index, coalesce(any_value(name_after), 'class ' || class_after) AS to_class,
       class_after AS to_index, count(*) AS images,
       CASE WHEN NOT any_value(fixed) THEN median(epsilon) END AS median_epsilon, min(attack) AS example
FROM attacked
WHERE verdict = 'changed'
GROUP BY model, image_set, protocol, class_index, class_after""",
    ),
    "transfer": View(
        "Transfer of successful attacks to other models: of the images that the judge classified "
        "correctly before, the share whose class changes. Images that resisted, or were misclassified "
        "before, are excluded.",
        {
            "model": "The attacked model.",
            "judge": "The model that judges the adversarial images.",
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "judged": "Number of images changed by the attack that it judged.",
            "labelled": "Number of these whose label it knows.",
            "right_before": "Number of these that it classified correctly before the attack.",
            "fooled": "Number of those whose class changes.",
            "share_fooled": "fooled / right_before; NULL where it classified none correctly.",
            "share_moved": "Share of all judged images whose class changes, correct before or not.",
        },
        ("attacked", "attack_transfers"),
        """
SELECT a.model, t.judge, a.image_set, a.protocol, count(*) AS judged, count(t.right_before) AS labelled,
       count(*) FILTER (t.right_before) AS right_before,
       count(*) FILTER (t.right_before AND t.moved) AS fooled,
       count(*) FILTER (t.right_before AND t.moved) / nullif(count(*) FILTER (t.right_before), 0) AS share_fooled,
       count(*) FILTER (t.moved) / count(*) AS share_moved
FROM attacked a
JOIN (FROM attack_transfers QUALIFY judge_digest = arg_max(judge_digest, created) OVER (PARTITION BY judge)) t
     USING (attack)
WHERE a.verdict = 'changed'
GROUP BY ALL""",
    ),
    "leaderboard": View(
        "Models compared on the images on which all of them were attacked, by protocol. Shares correct "
        "(right_…) are for attacks away from the label, shares kept for attacks away from the prediction; "
        "the others are NULL. Also NULL at an epsilon above the cap, or where no epsilon within a quarter "
        "below it was tested.",
        {
            "model": _MODEL,
            "image_set": _SET,
            "protocol": _PROTOCOL_IS,
            "measure": _MEASURE,
            "images": "Number of images on which all models were attacked.",
            "right_at_0": "Clean accuracy: share correct before any attack. NULL for attacks away from the prediction.",
            "right_at_1": "Robust accuracy: share correct that no tested epsilon up to 1/255 changes.",
            "right_at_4": "The same up to 4/255.",
            "right_at_8": "The same up to 8/255.",
            "kept_at_1": "Share whose prediction, correct or not, no tested epsilon up to 1/255 changes. "
            "NULL for attacks away from the label.",
            "kept_at_4": "The same up to 4/255.",
            "kept_at_8": "The same up to 8/255.",
            "median_epsilon": _MEDIAN_IS,
            "wrong_before": "Number of images misclassified before any attack; NULL for attacks away from "
            "the prediction.",
            "changed": "Number of images changed by the attack.",
            "resisted": "Number of images that resisted up to the highest epsilon.",
            "no_gradient": "Number of images without a gradient: known at epsilon 0 only.",
        },
        ("attacked",),
        f"""
WITH counted AS (
    SELECT image_set, protocol, count(DISTINCT model) AS models FROM attacked GROUP BY ALL),
common AS (
    SELECT image_set, protocol, image_id
    FROM attacked JOIN counted USING (image_set, protocol)
    GROUP BY ALL
    HAVING count(DISTINCT model) = any_value(models)),
shares AS (
    SELECT model, image_set, protocol, measure, count(*) AS images,{_share_at(1)} AS at_1,{_share_at(4)} AS at_4,
       {_share_at(8)} AS at_8,{_MEDIAN},
       count(*) FILTER (verdict = 'wrong_before') AS wrong_before, count(*) FILTER (verdict = 'changed') AS changed,
       count(*) FILTER (verdict = 'resisted') AS resisted,
       count(*) FILTER (verdict = 'no_gradient') AS no_gradient, measure = 'robust accuracy' AS of_label
    FROM attacked JOIN common USING (image_set, protocol, image_id)
    GROUP BY model, image_set, protocol, measure)
SELECT model, image_set, protocol, measure, images,
       CASE WHEN of_label THEN 1 - wrong_before / images END AS right_at_0,
       CASE WHEN of_label THEN at_1 END AS right_at_1, CASE WHEN of_label THEN at_4 END AS right_at_4,
       CASE WHEN of_label THEN at_8 END AS right_at_8,
       CASE WHEN NOT of_label THEN at_1 END AS kept_at_1, CASE WHEN NOT of_label THEN at_4 END AS kept_at_4,
       CASE WHEN NOT of_label THEN at_8 END AS kept_at_8,
       median_epsilon, CASE WHEN of_label THEN wrong_before END AS wrong_before, changed, resisted, no_gradient
FROM shares""",
    ),
    "movers": View(
        "The channels that attacks shifted most, with the attack; rank 1 is the most shifted of its "
        "layer. Dead channels, and attacks whose channels were ranked by an earlier rule, are excluded.",
        {
            "attack": "Attack.",
            "model": _MODEL,
            "image_set": _SET,
            "image_id": _IMAGE,
            "label": "The image's label.",
            "name_before": "Prediction before the attack.",
            "name_after": "Prediction for the adversarial image.",
            "protocol": _PROTOCOL_IS,
            "verdict": "changed or resisted, as in `attacked`: shifts are of the stored image, at attacked_epsilon.",
            "epsilon": "Smallest epsilon that succeeded; NULL where none did.",
            "attacked_epsilon": "Epsilon of the stored image.",
            "layer": _LAYER,
            "channel": _CHANNEL,
            "rank": "1 is the most shifted channel of its layer.",
            "shift": "Largest activation after the attack minus that before.",
            "deviations": "The shift divided by the channel's spread (see `channel_stds`); NULL without an index.",
            "dead": "Number of dead channels of the layer, left out of the ranks.",
            "activation_before": "Largest activation over the clean image's feature map.",
            "activation_after": "Largest activation over the adversarial image's feature map.",
            "y": "Row of the largest activation after.",
            "x": "Column of it.",
        },
        ("attacked", "attack_units", "attack_layers"),
        """
SELECT u.attack, a.model, a.image_set, a.image_id, a.label, a.name_before, a.name_after, a.protocol, a.verdict,
       a.epsilon, a.attacked_epsilon,
       u.layer, u.channel, u.rank, u.shift, u.deviations, l.dead, u.activation_before, u.activation_after, u.y, u.x
FROM attack_units u
JOIN attack_layers l USING (attack, layer)
JOIN attacked a USING (attack)
WHERE l.dead IS NOT NULL""",
    ),
    "channel_stds": View(
        f"The scale of a channel's deviations: {RULE}. NULL where the channel is {DEAD}.",
        {
            "run": "Run.",
            "layer": _LAYER,
            "channel": _CHANNEL,
            "mean": "Mean over images of the image's best activation.",
            "std": "Standard deviation over images.",
            "live": "Whether the channel is not dead.",
            "spread": "The divisor of deviations; NULL for a dead channel.",
        },
        (),
        SPREADS,
    ),
    "image_channels": View(
        "Channels that an image activates: those that have it in their top-k.",
        {
            "run": "Run.",
            "model": _MODEL,
            "image_set": _SET,
            "image_id": _IMAGE,
            "layer": _LAYER,
            "channel": _CHANNEL,
            "rank": "Rank of the image within the channel; 1 is the strongest.",
            "activation": "Value at the image's best position.",
            "deviations": "That value minus the channel's mean over the image set, divided by its spread "
            "(see `channel_stds`); NULL for a dead channel.",
            "y": "Row of that position in the feature map.",
            "x": "Column of that position in the feature map.",
        },
        ("channel_stds",),
        """
SELECT a.run, r.model, r.image_set, a.image_id, a.layer, a.channel, a.rank, a.activation,
       (a.activation - s.mean) / s.spread AS deviations, a.y, a.x
FROM activations_by_image a
JOIN runs r USING (run)
JOIN channel_stds s USING (run, layer, channel)""",
    ),
    "channel_classes": View(
        "Classes of a channel's top-k images, with the number of images of each.",
        {
            "run": "Run.",
            "model": _MODEL,
            "image_set": _SET,
            "layer": _LAYER,
            "channel": _CHANNEL,
            "class": "WordNet id of the label, or the label if it has none.",
            "label": "The label's name.",
            "images": "Number of images of that class in the channel's top-k.",
            "share": "Share of the labeled images in the channel's top-k.",
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
    """The ledger tables read by a statement that names these tables and views."""
    found: set[str] = set()
    for name in names:
        if name in VIEWS:
            found |= ledger_tables_of(VIEWS[name].reads)
        elif name in COMMENTS:
            found.add(name)
    return found


def with_what_they_read(names: Iterable[str]) -> list[str]:
    """The given names that are views, with the views they read, dependencies first."""
    needed: list[str] = []

    def add(name: str) -> None:
        if name in VIEWS and name not in needed:
            for read in VIEWS[name].reads:
                add(read)
            needed.append(name)

    for name in sorted(names):
        add(name)
    return needed
