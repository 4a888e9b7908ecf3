"""What an attack's record says in sentences: its verdict, its outcome in a few words, and what its maps show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dashboard.components.formatting import epsilon_words, named_class, probability, short_epsilon

# A class's map changes with the attack if it changes this many times as much as under random signs of the same
# epsilon, and clearly so if more than this share of its pixels differs beyond twice the standard error, which
# chance alone does for about 5 %.
TIMES_RANDOM = 2
CLEAR_SHARE = 0.1

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """An attack's result: a title, sentences, a Bootstrap icon, and a class name for its color."""

    kind: str
    symbol: str
    title: str
    lines: tuple[str, ...]


def succeeds(attack: Record, step: Record) -> bool:
    """Whether the model's output at one epsilon is a success: the class was left or, if targeted, reached."""
    stays = step["top"][0]["class_index"] == attack["class_index"]
    return bool(stays == (attack["relative_to"] == "target"))


def verdict(attack: Record) -> Verdict:
    """The result of an attack."""
    how = _how(attack)
    before = named_class(attack["name_before"], attack["class_before"])
    if attack["outcome"] == "no_gradient":
        why = (
            f"The gradient of the loss is zero at every pixel (norm {attack['gradient_norm']:g}): "
            f"{attack['method'].upper()} has no direction. This says nothing about robustness."
        )
        return Verdict("impossible", "slash-circle", "No perturbation possible", (why, how))
    if attack["outcome"] == "resisted":
        after = named_class(attack["name_after"], attack["class_after"])
        return Verdict(
            "resisted",
            "shield-check",
            f"Resisted up to ε {epsilon_words(attack['attacked_epsilon'])}",
            (
                f"Still {after}, {probability(attack['probability_after'])}. A larger epsilon might succeed: this "
                "image is censored at the cap.",
                how,
            ),
        )
    if attack["epsilon"] == 0:
        why = (
            f"The model predicts {before}; the label is {named_class(attack['class_name'], attack['class_index'])}."
            if attack["relative_to"] == "label"
            else f"The model already predicts {before}."
        )
        return Verdict("already", "x-circle", "No change is needed", (why, how))
    names = [attack[f"name_{when}"] or attack[f"class_{when}"] for when in ("before", "after")]
    at = "ε ≤" if attack["at_most"] and attack["grid"] != "fixed" else "ε"
    title = f"{names[0]} becomes {names[1]} at {at} {epsilon_words(attack['epsilon'])}"
    return Verdict("flipped", "lightning-charge-fill", title, (_bound(attack), how))


def _how(attack: Record) -> str:
    """The request in one sentence: method, aim, grid of epsilons."""
    ends = (
        f"from {epsilon_words(max(attack['step'], attack['minimum']))} up to {epsilon_words(attack['cap'])}"
    )
    grid = {
        "fixed": f"one epsilon, {epsilon_words(attack['cap'])}",
        "geometric": f"each epsilon {attack['ratio'] or 0:g} times the one before, {ends}; then the gap below the "
        f"first success in {attack['parts']} parts",
        "linear": f"steps of {short_epsilon(attack['step'])} {ends}",
    }[attack["grid"]]
    aimed = named_class(attack["class_name"], attack["class_index"])
    aim = {
        "prediction": "to leave the prediction",
        "label": f"to leave the label, {aimed}",
        "target": f"to reach {aimed}",
    }[attack["relative_to"]]
    levels = ", on 8-bit levels" if attack["eight_bit"] else ""
    return f"{attack['method'].upper()} {aim}; {grid}{levels}; {attack['checked']} epsilons tested."


def _bound(attack: Record) -> str:
    """What is known about epsilons below the smallest successful one."""
    if attack["grid"] == "fixed":
        return "Only one epsilon was tested; a smaller one may succeed too."
    if attack["at_most"]:
        return "The lowest epsilon of the grid succeeds, so the smallest successful epsilon is at most that."
    if attack["last_failure"] is None:
        return "Which smaller epsilons failed was not recorded."
    fails = f"{epsilon_words(attack['last_failure'])} fails"
    gap = attack["epsilon"] - attack["last_failure"]
    if attack["eight_bit"] and gap * 255 < 1.5:
        return f"{fails}; there is no 8-bit level between the two."
    return f"{fails}; the gap between the two, {probability(gap / attack['epsilon'])} of epsilon, was not tested."


def outcome_words(attack: Record) -> str:
    """An attack's outcome for a card: `ε 0.004`, `resisted`."""
    if attack["outcome"] != "flipped":
        return {"resisted": "resisted", "no_gradient": "no gradient"}[attack["outcome"]]
    if attack["epsilon"] == 0:
        return "there already" if attack["relative_to"] == "target" else "wrong already"
    return f"ε {'≤ ' if attack['at_most'] and attack['grid'] != 'fixed' else ''}{short_epsilon(attack['epsilon'])}"


def search_words(found: Record) -> str:
    """The outcome of a search with clamped channels: `ε 0.004`, `resists`."""
    if found["outcome"] != "flipped":
        return {"resisted": "resists", "no_gradient": "no gradient"}[found["outcome"]]
    return "changes without an attack" if found["epsilon"] == 0 else f"ε {short_epsilon(found['epsilon'])}"


def maps_words(panels: Mapping[str, Record]) -> str:
    """What the distances between the maps say; `panels` are the maps by panel (see `AttackMap`)."""
    attacked, random, noise = (panels[name] for name in ("attacked", "random_signs", "other_seed"))
    moved, by_chance, by_noise = (1 - found["rank_correlation"] for found in (attacked, random, noise))
    if by_chance > 0:
        against = (
            f": {moved / by_chance:.1f} times that of random signs of the same epsilon ({by_chance:.3f})"
        )
    else:
        against = "; random signs of the same epsilon give 0"
    if moved <= TIMES_RANDOM * by_chance:
        meaning = "The explanation of this class changes hardly more than by chance."
    elif attacked["beyond_noise"] > CLEAR_SHARE:
        meaning = "The explanation of this class changes with the attack."
    else:
        meaning = "It changes more than by chance, though few pixels clearly do."
    return (
        f"For the same class, 1 − rank correlation with the clean map is {moved:.3f}{against}. "
        f"{probability(attacked['beyond_noise'])} of the pixels differ by more than two standard errors; by chance, "
        f"about 5 % do. {meaning} Other noise draws alone would give {by_noise:.3f}: hence the same draws before and "
        "after."
    )
