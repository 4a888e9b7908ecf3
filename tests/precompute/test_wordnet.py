"""ImageNet's classes in the data files agree with those of the model libraries."""

import subprocess
import sys

import pytest

from precompute.images.wordnet import (
    imagenet_wnids,
    is_imagenet,
    label_of_index,
    label_of_name,
    label_of_wnid,
)


def test_indices_and_names_are_those_of_the_models() -> None:
    from workers.models.vocabularies import imagenet

    for entry in imagenet().classes:
        label = label_of_index(entry.index)
        assert (label.wnid, label.index, label.name) == (entry.wnid, entry.index, entry.name)


def test_a_wnid_outside_the_thousand_has_a_name_and_no_index() -> None:
    label = label_of_wnid("n00004475")
    assert (label.index, label.name) == (None, "organism")


def test_an_unknown_wnid_is_named_by_its_folder_or_id() -> None:
    assert label_of_name("n99999999-Unicorn").name == "Unicorn"
    assert label_of_wnid("n99999999").name == "n99999999"


@pytest.mark.parametrize("name", ["n0144076", "n014407641", "N01440764", "tench", "n01440764x"])
def test_a_string_that_is_not_a_wnid_is_a_name(name: str) -> None:
    label = label_of_name(name)
    assert (label.wnid, label.index, label.name) == (None, None, name)


def test_lists_of_imagenet_are_known_by_their_order() -> None:
    from workers.torchvision_import import import_torchvision

    import_torchvision()  # before timm, which would import it without our workarounds
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    lemmas = [info.index_to_description(index) for index in range(1000)]
    assert is_imagenet(lemmas)
    assert is_imagenet(imagenet_wnids())
    assert not is_imagenet(lemmas[::-1])
    assert not is_imagenet(lemmas[:999])
    assert not is_imagenet(["tench"] * 1000)


def test_the_classes_are_read_without_torch() -> None:
    code = (
        "import sys, precompute.images.importing, precompute.images.samples as s;"
        "s.label_of_index(0); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
