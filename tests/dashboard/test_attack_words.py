"""Sentences about attacks: verdicts, outcomes, and what the maps before and after show."""

from typing import Any

import pytest

from dashboard.components.attack_words import (
    CLEAR_SHARE,
    TIMES_RANDOM,
    maps_words,
    outcome_words,
    search_words,
    succeeds,
    verdict,
)
from dashboard.components.formatting import epsilon_words, probability

ATTACK: dict[str, Any] = {
    "method": "fgsm", "relative_to": "prediction", "class_index": 3, "class_name": "a fish", "outcome": "flipped",
    "epsilon": 0.01, "last_failure": 0.009, "at_most": False, "grid": "linear", "ratio": None, "parts": None,
    "step": 0.001, "minimum": 0.0, "cap": 0.5, "eight_bit": False, "checked": 11, "gradient_norm": 1.5,
    "attacked_epsilon": 0.01, "class_before": 3, "name_before": "a fish", "class_after": 5, "name_after": "a bird",
    "probability_after": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        (0, "0 (0/255)"),
        (0.5, "0.5 (127.5/255)"),
        (4 / 255, "0.0157 (4/255)"),
        (0.0012345, "0.00123 (0.31/255)"),
    ],
)
def test_an_epsilon_is_shown_as_a_decimal_and_in_levels(epsilon: float, words: str) -> None:
    assert epsilon_words(epsilon) == words


def test_a_probability_has_one_decimal_and_is_never_rounded_to_zero() -> None:
    assert [probability(p) for p in (0, 0.0004, 0.0005, 0.625, 1)] == [
        "0.0 %",
        "< 0.1 %",
        "0.1 %",
        "62.5 %",
        "100.0 %",
    ]


@pytest.mark.parametrize(
    ("changes", "kind", "sentences"),
    [
        ({}, "flipped", ["a fish becomes a bird at ε 0.01 (2.55/255)", "10.0 % of epsilon, was not tested",
                         "FGSM to leave the prediction; steps of 0.001 from 0.001 (0.26/255) up to 0.5 (127.5/255); "
                         "11 epsilons tested."]),
        ({"at_most": True}, "flipped", ["at ε ≤ 0.01", "smallest successful epsilon is at most that"]),
        ({"last_failure": None}, "flipped", ["Which smaller epsilons failed was not recorded."]),
        ({"eight_bit": True, "epsilon": 3 / 255, "last_failure": 2 / 255}, "flipped",
         ["0.00784 (2/255) fails; there is no 8-bit level between the two.", ", on 8-bit levels; 11"]),
        ({"grid": "fixed", "cap": 0.01, "at_most": True, "name_before": None}, "flipped",
         ["3 becomes a bird at ε 0.01", "Only one epsilon was tested", "one epsilon, 0.01 (2.55/255)"]),
        ({"grid": "geometric", "ratio": 1.5, "parts": 8, "minimum": 0.004}, "flipped",
         ["each epsilon 1.5 times the one before, from 0.004 (1.02/255) up to 0.5", "in 8 parts"]),
        ({"epsilon": 0.0, "relative_to": "label", "class_index": 4, "class_name": "a dog"}, "already",
         ["No change is needed", "The model predicts a fish (3); the label is a dog (4).", "leave the label, a dog"]),
        ({"epsilon": 0.0, "relative_to": "target"}, "already", ["The model already predicts a fish (3)."]),
        ({"outcome": "resisted", "epsilon": None, "attacked_epsilon": 0.5}, "resisted",
         ["Resisted up to ε 0.5 (127.5/255)", "Still a bird (5), 50.0 %", "censored at the cap"]),
        ({"outcome": "no_gradient", "epsilon": None, "gradient_norm": 0.0}, "impossible",
         ["No perturbation possible", "(norm 0): FGSM has no direction"]),
    ],
)  # fmt: skip
def test_each_outcome_has_its_verdict(changes: dict[str, Any], kind: str, sentences: list[str]) -> None:
    found = verdict(ATTACK | changes)
    assert found.kind == kind
    text = " ".join([found.title, *found.lines])
    for sentence in sentences:
        assert sentence in text


@pytest.mark.parametrize(
    ("changes", "card", "search"),
    [
        ({}, "ε 0.01", "ε 0.01"),
        ({"at_most": True}, "ε ≤ 0.01", "ε 0.01"),
        ({"at_most": True, "grid": "fixed"}, "ε 0.01", "ε 0.01"),
        ({"epsilon": 0.0}, "wrong already", "changes without an attack"),
        ({"epsilon": 0.0, "relative_to": "target"}, "there already", "changes without an attack"),
        ({"outcome": "resisted", "epsilon": None}, "resisted", "resists"),
        ({"outcome": "no_gradient", "epsilon": None}, "no gradient", "no gradient"),
    ],
)
def test_outcomes_in_a_few_words(changes: dict[str, Any], card: str, search: str) -> None:
    assert (outcome_words(ATTACK | changes), search_words(ATTACK | changes)) == (card, search)


@pytest.mark.parametrize(("target", "top", "success"), [("target", 3, True), ("target", 5, False),
                                                        ("label", 3, False), ("prediction", 5, True)])  # fmt: skip
def test_success_is_leaving_the_class_or_reaching_the_target(target: str, top: int, success: bool) -> None:
    assert succeeds(ATTACK | {"relative_to": target}, {"top": [{"class_index": top}]}) is success


def panels(attacked: float, beyond: float, random: float) -> dict[str, dict[str, float]]:
    return {
        "attacked": {"rank_correlation": 1 - attacked, "beyond_noise": beyond},
        "random_signs": {"rank_correlation": 1 - random},
        "other_seed": {"rank_correlation": 0.75},
    }


@pytest.mark.parametrize(
    ("attacked", "beyond", "random", "sentence"),
    [
        (0.1 * TIMES_RANDOM, 1.0, 0.1, "changes hardly more than by chance"),
        (0.5, CLEAR_SHARE, 0.125, "changes more than by chance, though few pixels clearly do"),
        (0.5, CLEAR_SHARE + 0.01, 0.125, "The explanation of this class changes with the attack."),
        (0.5, 0.5, 0.0, "is 0.500; random signs of the same epsilon give 0."),
    ],
)
def test_what_the_maps_show_depends_on_both_thresholds(
    attacked: float, beyond: float, random: float, sentence: str
) -> None:
    words = maps_words(panels(attacked, beyond, random))
    assert sentence in words
    assert "would give 0.250" in words
