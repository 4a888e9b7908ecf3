"""The labels of an image set matched to classes of a model, with the user's own mappings from the atlas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.atlas.store import Atlas
from db.queries.labels import set_labels, settled_labels, vocabulary_of
from workers.models.label_matching import LabelMatch, SetLabel, match_labels
from workers.models.vocabularies import ClassEntry, Vocabulary


class UnknownClass(ValueError):
    """No class, or more than one, has this name; the message is one sentence."""


@dataclass(frozen=True)
class MatchedLabel:
    """A label, how many images of the set have it, and its match."""

    match: LabelMatch
    images: int

    def row(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """The row, as in the atlas's `label_matches`, with class names."""
        index, classes = self.match.index, vocabulary.classes
        return {
            "label": self.match.label.label,
            "wnid": self.match.label.wnid,
            "images": self.images,
            "how": self.match.how,
            "class_index": index,
            "class": None if index is None or index >= len(classes) else classes[index].name,
            "candidates": [f"{at} {classes[at].name}" for at in self.match.candidates],
        }


def match_set(atlas: Atlas, vocabulary: Vocabulary, *, model: str, image_set: str) -> list[MatchedLabel]:
    """All labels of a set, most frequent first."""
    rows = atlas.fetch(set_labels(image_set))
    labels = [SetLabel(row["wnid"], row["label"]) for row in rows]
    found = match_labels(vocabulary, labels, settled_labels(atlas, model, image_set))
    return [MatchedLabel(found[label], row["images"]) for label, row in zip(labels, rows, strict=True)]


def stored_vocabulary(atlas: Atlas, model: str) -> Vocabulary | None:
    """The classes of an indexed model, without loading it; None if it is not indexed."""
    rows = atlas.fetch(vocabulary_of(model))
    if not rows:
        return None
    classes = (ClassEntry(row["class_index"], row["wnid"], row["name"], row["description"]) for row in rows)
    return Vocabulary(rows[0]["vocabulary"], tuple(classes))


def class_called(vocabulary: Vocabulary, text: str) -> int | None:
    """The class that a user names by WNID, by a unique name or by index; None for "".

    Raises:
        UnknownClass: it is none of these.
    """
    if not text.strip():
        return None
    last = len(vocabulary.classes) - 1
    match = match_labels(vocabulary, [SetLabel(None, text)])[SetLabel(None, text)]
    if match.how == "ambiguous":
        named = ", ".join(f"{at} {vocabulary.classes[at].name}" for at in match.candidates)
        raise UnknownClass(f"class {text!r} is ambiguous ({named}): give its index")
    if match.index is not None:
        return match.index
    if text.strip().isdecimal() and int(text) <= last:
        return int(text)
    raise UnknownClass(f"expected a WordNet id, a class name or an index from 0 to {last}, got {text!r}")


def settled_from(
    vocabulary: Vocabulary, found: list[MatchedLabel], given: Mapping[str, str]
) -> dict[str, int | None]:
    """Class index by label key, from a user's mapping of the set's labels (by WNID or name) to classes.

    Raises:
        UnknownClass: a class does not exist.
        KeyError: the set does not have a label; the argument is that label.
    """
    keys: dict[str, str] = {}
    for one in found:
        label = one.match.label
        for name in (label.label, label.wnid):
            if name is not None:
                keys[name] = label.key
    return {keys[label]: class_called(vocabulary, text) for label, text in given.items()}
