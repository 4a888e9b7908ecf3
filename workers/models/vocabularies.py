"""The class of each logit: ImageNet-1k keyed by WordNet id, Google's 1,001 classes, or a model's own.

The devkit's ILSVRC ids (1 to 1000) are not used anywhere: a logit's index is the rank of its WNID among the
1,000 sorted WNIDs. Class names repeat between WNIDs ("crane", "maillot"), so a class is found by WNID if
there is one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

IMAGENET = "imagenet-1k"
IMAGENET_WITH_BACKGROUND = "imagenet-1k-background"
_WNID = re.compile(r"n\d{8}")
# Fraction of labels that must agree with ImageNet's at their index for a vocabulary to count as ImageNet's:
# common lists differ in a few spellings, and unrelated lists never agree this much.
_AGREEMENT = 0.9


@dataclass(frozen=True)
class ClassEntry:
    """One class. `name` is short and may repeat; `description` has all names and, where known, a definition."""

    index: int
    wnid: str | None
    name: str
    description: str


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a model's logits, in order.

    `name` is `imagenet-1k` or `imagenet-1k-background` for those two lists only, else `<model>-classes`.
    """

    name: str
    classes: tuple[ClassEntry, ...]

    @cached_property
    def _by_wnid(self) -> dict[str, int]:
        return {entry.wnid: entry.index for entry in self.classes if entry.wnid is not None}

    def index_of_wnid(self, wnid: str) -> int | None:
        """Index of the class with that WordNet id, None if no class has it."""
        return self._by_wnid.get(wnid)


def is_wnid(text: str) -> bool:
    """Whether `text` looks like a WordNet id of a noun, such as n01440764."""
    return _WNID.fullmatch(text) is not None


@cache
def imagenet() -> Vocabulary:
    """ImageNet-1k in the order of its sorted WNIDs; names from torchvision, definitions from timm."""
    from workers.torchvision_import import import_library

    weights = import_library("torchvision.models").MobileNet_V2_Weights
    names: list[str] = weights.IMAGENET1K_V1.meta["categories"]
    info = import_library("timm.data").ImageNetInfo()
    wnids: list[str] = info.label_names()
    assert len(names) == len(wnids) == 1000
    assert wnids == sorted(wnids)
    return Vocabulary(
        IMAGENET,
        tuple(
            ClassEntry(index, wnid, name, info.label_name_to_description(wnid, detailed=True))
            for index, (wnid, name) in enumerate(zip(wnids, names, strict=True))
        ),
    )


@cache
def imagenet_with_background() -> Vocabulary:
    """Google's 1,001 classes: 0 is background, and ImageNet-1k follows, shifted by one."""
    shifted = (
        ClassEntry(entry.index + 1, entry.wnid, entry.name, entry.description) for entry in imagenet().classes
    )
    return Vocabulary(
        IMAGENET_WITH_BACKGROUND, (ClassEntry(0, None, "background", "none of the classes"), *shifted)
    )


def vocabulary_of_labels(labels: Sequence[str], *, model: str) -> Vocabulary:
    """The vocabulary of logits with the given labels: ImageNet's if the labels match it, else `<model>-classes`.

    Labels that are WNIDs keep them; nothing else is treated as a WNID. A label is the whole name of its
    class: it may contain a comma ("Pepper,_bell___healthy").
    """
    if len(labels) == 1000 and _agree(labels, imagenet().classes):
        return imagenet()
    if len(labels) == 1001 and _agree(labels[1:], imagenet().classes):
        return imagenet_with_background()
    known = {entry.wnid: entry for entry in imagenet().classes}
    entries = []
    for index, label in enumerate(labels):
        text = label.strip()
        wnid = text if is_wnid(text) else None
        entry = known.get(wnid)
        name, description = (entry.name, entry.description) if entry else (text, text)
        entries.append(ClassEntry(index, wnid, name, description))
    return Vocabulary(f"{model}-classes", tuple(entries))


def vocabulary_of_wnids(wnids: Sequence[str], descriptions: Mapping[str, str], *, model: str) -> Vocabulary:
    """A vocabulary of WordNet classes other than ImageNet-1k, such as ImageNet-21k."""
    return Vocabulary(
        f"{model}-classes",
        tuple(
            ClassEntry(index, wnid, _first_name(descriptions.get(wnid, wnid)), descriptions.get(wnid, wnid))
            for index, wnid in enumerate(wnids)
        ),
    )


def _agree(labels: Sequence[str], classes: Sequence[ClassEntry]) -> bool:
    def same(label: str, entry: ClassEntry) -> bool:
        lemmas = {_normal(lemma) for lemma in entry.description.split(":")[0].split(",")}
        return label == entry.wnid or bool(
            {_normal(part) for part in label.split(",")} & (lemmas | {_normal(entry.name)})
        )

    agreeing = sum(same(label, entry) for label, entry in zip(labels, classes, strict=True))
    return agreeing >= _AGREEMENT * len(classes)


def _first_name(text: str) -> str:
    return text.split(",")[0].strip() or text


def _normal(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("-", " ").lower().split())


def two_classes(vocabulary: Vocabulary) -> Vocabulary:
    """The classes of a network with one logit, in this order: "not X" and X if only X is named."""
    if len(vocabulary.classes) == 2:
        return vocabulary
    (positive,) = vocabulary.classes
    words = f"not {positive.name}"
    return replace(vocabulary, classes=(ClassEntry(0, None, words, words), replace(positive, index=1)))
