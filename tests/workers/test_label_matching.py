"""Labels of a set are matched to classes of a model in tiers, and ambiguous ones are never guessed."""

import unicodedata

import pytest

from workers.models.label_matching import SetLabel, match_labels
from workers.models.vocabularies import ClassEntry, Vocabulary, imagenet, vocabulary_of_labels


def own(*names: str) -> Vocabulary:
    return Vocabulary("own", tuple(ClassEntry(n, None, name, name) for n, name in enumerate(names)))


def found(
    vocabulary: Vocabulary, *labels: str | SetLabel, settled: dict[str, int | None] | None = None
) -> list[tuple[str, int | None]]:
    given = [label if isinstance(label, SetLabel) else SetLabel(None, label) for label in labels]
    matches = match_labels(vocabulary, given, settled)
    return [(matches[label].how, matches[label].index) for label in given]


COMPOSED = unicodedata.normalize("NFC", "Café")
APART = unicodedata.normalize("NFD", "Café")


@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        # single letters that differ only in case
        (("A", "B", "a", "b"), ("A", "b", "a"), [("exact", 0), ("exact", 3), ("exact", 2)]),
        (("A", "a"), ("Á",), [("none", None)]),
        (("Cat", "dog"), ("cat", "DOG"), [("case", 0), ("case", 1)]),
        (("Cat", "cat"), ("CAT",), [("ambiguous", None)]),
        (("b",), ("b", "B"), [("exact", 0), ("ambiguous", None)]),
        (("b",), ("B",), [("case", 0)]),
        # Unicode normalization forms, separators
        ((COMPOSED, "tea"), (APART,), [("unicode", 0)]),
        ((APART,), (COMPOSED, APART), [("unicode", 0), ("exact", 0)]),
        (("polar bear", "polar-bear2"), ("polar_bear", "polar  bear"), [("ambiguous", None)] * 2),
        (("polar bear", "brown bear"), ("polar_bear", "Brown-Bear"), [("separators", 0), ("case", 1)]),
        (("STRASSE",), ("straße",), [("case", 0)]),
        # symbols contain no letters
        (("-", "_", "+"), ("-", "+", "_", "--"), [("exact", 0), ("exact", 2), ("exact", 1), ("none", None)]),
        # commas are part of names
        (
            ("Pepper,_bell___Bacterial_spot", "Pepper,_bell___healthy"),
            ("Pepper,_bell___healthy", "Pepper", "bell   healthy"),
            [("exact", 1), ("none", None), ("none", None)],
        ),
        (("crane", "crane", "tench"), ("crane", "tench"), [("ambiguous", None), ("exact", 2)]),
    ],
)
def test_names_are_matched_by_the_nearest_tier(
    classes: tuple[str, ...], labels: tuple[str, ...], expected: list[tuple[str, int | None]]
) -> None:
    assert found(own(*classes), *labels) == expected


def test_a_wnid_decides_alone() -> None:
    machine = SetLabel("n03126707", "crane")
    assert found(imagenet(), machine, "n02012849") == [("wnid", 517), ("wnid", 134)]
    assert found(imagenet(), SetLabel("n00000001", "tench")) == [("none", None)]


def test_a_name_of_two_imagenet_classes_is_ambiguous() -> None:
    matches = match_labels(imagenet(), [SetLabel(None, "crane"), SetLabel(None, "maillot")])
    assert [(match.how, match.index, match.candidates) for match in matches.values()] == [
        ("ambiguous", None, (134, 517)),
        ("ambiguous", None, (638, 639)),
    ]


def test_full_imagenet_names_match_each_class_but_those_that_two_have() -> None:
    whole = [entry.description.split(":")[0] for entry in imagenet().classes]
    got = found(imagenet(), *whole)
    # two cranes share one list of names; "maillot" alone is also the first name of another class
    assert [n for n, (_, index) in enumerate(got) if index != n] == [134, 517, 638]
    short = [entry.name for entry in imagenet().classes]
    assert [n for n, (_, index) in enumerate(found(imagenet(), *short)) if index != n] == [517, 638]
    upper = [name.upper().replace(" ", "_") for name in short]
    wrong = {n: result for n, result in enumerate(found(imagenet(), *upper)) if result[1] not in (n, None)}
    assert not wrong


def test_synonyms_and_lists_meet_in_both_directions() -> None:
    assert found(imagenet(), "Tinca tinca", "Tinca tinca, tench") == [("synonym", 0)] * 2
    some = vocabulary_of_labels(["tench, Tinca tinca", "goldfish, Carassius auratus"], model="some")
    assert [entry.name for entry in some.classes] == ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    labels = ("goldfish", SetLabel("n01440764", "tench"), "goldfish, Carassius auratus")
    assert found(some, *labels) == [("synonym", 1), ("synonym", 0), ("exact", 1)]
    assert found(own("tench", "goldfish"), "tench, Tinca tinca") == [("synonym", 0)]
    assert found(own("dog", "cat"), "dog, black") == [("none", None)]


def test_user_matches_take_precedence() -> None:
    settled: dict[str, int | None] = {"crane": 134, "tench": None, "n01443537": 5}
    labels = ("crane", "tench", SetLabel("n01443537", "goldfish"))
    assert found(imagenet(), *labels, settled=settled) == [
        ("settled", 134),
        ("settled", None),
        ("settled", 5),
    ]


def test_a_missing_label_has_no_class() -> None:
    assert found(imagenet(), SetLabel(None, None), "", " ") == [("none", None)] * 3
