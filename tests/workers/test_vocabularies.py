"""Classes are keyed by WNID, common label lists are recognized, and repeated names decide nothing."""

from workers.models.vocabularies import (
    imagenet,
    imagenet_with_background,
    vocabulary_of_labels,
)


def test_imagenets_classes_are_its_sorted_wnids() -> None:
    classes = imagenet().classes
    assert [entry.index for entry in classes] == list(range(1000))
    wnids = [entry.wnid for entry in classes]
    assert wnids == sorted(wnids, key=str)
    assert classes[0].wnid == "n01440764"
    assert classes[0].name == "tench"
    assert classes[999].name == "toilet tissue"
    assert imagenet().index_of_wnid("n02012849") == 134  # crane, the bird
    assert imagenet().index_of_wnid("n03126707") == 517  # crane, the machine


def test_googles_list_has_background_first_and_the_rest_one_further_on() -> None:
    shifted = imagenet_with_background()
    assert len(shifted.classes) == 1001
    assert shifted.classes[0].name == "background"
    assert shifted.index_of_wnid("n01440764") == 1


def circulating_labels() -> list[str]:
    """All names of each class, as the hub's ImageNet classifiers carry them: "tench, Tinca tinca"."""
    return [entry.description.split(":")[0] for entry in imagenet().classes]


def test_lists_in_circulation_are_recognised_as_imagenet() -> None:
    assert vocabulary_of_labels(circulating_labels(), model="m") is imagenet()
    assert vocabulary_of_labels([str(entry.wnid) for entry in imagenet().classes], model="m") is imagenet()
    assert (
        vocabulary_of_labels(["background", *circulating_labels()], model="m") is imagenet_with_background()
    )


def test_a_thousand_other_classes_are_not_taken_for_imagenet() -> None:
    assert vocabulary_of_labels([f"LABEL_{n}" for n in range(1000)], model="m").name == "m-classes"
    shuffled = circulating_labels()[1:] + circulating_labels()[:1]
    assert vocabulary_of_labels(shuffled, model="m").name == "m-classes"


def test_a_comma_is_part_of_a_class_name() -> None:
    labels = ["Pepper,_bell___Bacterial_spot", "Pepper,_bell___healthy"]
    assert [entry.name for entry in vocabulary_of_labels(labels, model="plants").classes] == labels
