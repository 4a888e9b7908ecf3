"""Matches each label of an image set to a class of a model: by tiers, never by a guess.

The first tier that finds a class decides:

1. `settled`: set by a user (`convscope models map-labels`).
2. `wnid`: both sides have WordNet ids. A WNID that no class has ends the search: it means another class.
3. `exact`: the name of a class, letter for letter; for ImageNet's classes also WordNet's first name, which is what
   most published lists use, and the whole list ("tench, Tinca tinca").
4. `unicode`: equal in Unicode's composed form (NFC).
5. `separators`: equal if underscores, hyphens and runs of spaces count as one space.
6. `case`: equal ignoring case.
7. `synonym`: one of WordNet's other names, or a list of them.

A tier that finds several classes ends the search as `ambiguous`: "crane" is a bird and a machine. The same
applies to two labels of one set that differ only in separators or case and would match the same class.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from workers.models.vocabularies import ClassEntry, Vocabulary, imagenet, is_wnid


@dataclass(frozen=True)
class SetLabel:
    """A label of an image set; one of the two fields may be missing."""

    wnid: str | None
    label: str | None

    @property
    def key(self) -> str:
        """What users call it: its WNID, else its name."""
        return self.wnid or self.label or ""


@dataclass(frozen=True)
class LabelMatch:
    """The match of a label.

    `how` is a tier's name, `ambiguous` or `none`; `index` is None for the last two, and if a user set that
    the label is no class. `candidates` are the classes of an ambiguous label.
    """

    label: SetLabel
    index: int | None
    how: str
    candidates: tuple[int, ...] = ()


def match_labels(
    vocabulary: Vocabulary, labels: Iterable[SetLabel], settled: Mapping[str, int | None] | None = None
) -> dict[SetLabel, LabelMatch]:
    """The match of each label of one image set; case and separators depend on which labels the set has.

    Args:
        settled: class index, or None for no class, by `SetLabel.key`.
    """
    found = dict.fromkeys(labels)
    names = [label.label for label in found if label.label is not None]
    shared = {how: Counter(key(name) for name in set(names)) for how, key in _LOOSE.items()}
    return {label: _match(vocabulary, label, settled or {}, shared) for label in found}


def _match(
    vocabulary: Vocabulary,
    label: SetLabel,
    settled: Mapping[str, int | None],
    shared: Mapping[str, Mapping[str, int]],
) -> LabelMatch:
    if label.key and label.key in settled:
        return LabelMatch(label, settled[label.key], "settled")
    match = _names(vocabulary).match(label)
    if match.index is not None and match.how in shared:
        assert label.label is not None, "these tiers go by the name"
        if shared[match.how][_LOOSE[match.how](label.label)] > 1:
            return LabelMatch(label, None, "ambiguous", (match.index,))
    return match


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _spaced(text: str) -> str:
    """The name with spaces for separators; a name without letters (the sign "-") stays as it is."""
    told = unicodedata.normalize("NFKC", text)
    return " ".join(told.replace("_", " ").replace("-", " ").split()) or told.strip()


def _folded(text: str) -> str:
    return _spaced(_spaced(text).casefold())


_TIERS: dict[str, Callable[[str], str]] = {
    "exact": str.strip,
    "unicode": _composed,
    "separators": _spaced,
    "case": _folded,
}
# Tiers in which two labels of one set may collide. Unicode's forms are not among them: file systems choose
# those.
_LOOSE = {how: _TIERS[how] for how in ("separators", "case")}


class _Names:
    """The names of a vocabulary's classes, by tier."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._has_wnids = any(entry.wnid is not None for entry in vocabulary.classes)
        self._tiers: dict[str, dict[str, set[int]]] = {how: defaultdict(set) for how in _TIERS}
        self._synonyms: dict[str, set[int]] = defaultdict(set)
        self._meant: dict[str, set[int]] = defaultdict(
            set
        )  # classes without a WNID, by the one that their names mean
        for entry in vocabulary.classes:
            for name in _own_names(entry):
                for how, key in _TIERS.items():
                    self._tiers[how][key(name)].add(entry.index)
            meant = entry.wnid or _wnid_of_list(entry.description)
            if entry.wnid is None and meant is not None:
                self._meant[meant].add(entry.index)
            for name in _parts(_lemmas(entry)) | (_imagenet_names().get(meant or "", frozenset())):
                self._synonyms[name].add(entry.index)

    def match(self, label: SetLabel) -> LabelMatch:
        wnid = label.wnid
        if wnid is None and label.label is not None and is_wnid(label.label.strip()):
            wnid = label.label.strip()
        if wnid is not None and self._has_wnids:
            index = self._vocabulary.index_of_wnid(wnid)
            return LabelMatch(label, index, "none" if index is None else "wnid")
        if label.label is not None:
            for how, key in _TIERS.items():
                classes = self._tiers[how].get(key(label.label))
                if classes:
                    return _decided(label, classes, how)
        return _decided(label, self._by_synonyms(wnid, label.label), "synonym")

    def _by_synonyms(self, wnid: str | None, name: str | None) -> set[int]:
        if wnid is not None and wnid in self._meant:
            return self._meant[wnid]
        parts = _parts(name or "")
        if not parts:
            return set()
        found = set.intersection(*(self._synonyms.get(part, set()) for part in parts))
        meant = _wnid_of_list(name or "")
        if found or meant is None:
            return found
        # a list of one WordNet class's names, and a class whose only name is one of them
        others = (self._tiers["case"].get(other, set()) for other in _imagenet_names()[meant])
        return set().union(*others)


_names = lru_cache(maxsize=8)(_Names)


def _decided(label: SetLabel, classes: set[int], how: str) -> LabelMatch:
    if not classes:
        return LabelMatch(label, None, "none")
    if len(classes) > 1:
        return LabelMatch(label, None, "ambiguous", tuple(sorted(classes)))
    return LabelMatch(label, next(iter(classes)), how)


def _lemmas(entry: ClassEntry) -> str:
    """WordNet's names of a class, separated by commas; "" if it has no WNID."""
    return entry.description.split(":")[0] if entry.wnid is not None else ""


def _own_names(entry: ClassEntry) -> set[str]:
    lemmas = _lemmas(entry)
    first = lemmas.split(",")[0]
    whole = lemmas if entry.wnid is not None else entry.description
    return {name for name in (entry.name, first, whole) if name.strip()}


def _parts(names: str) -> frozenset[str]:
    return frozenset(_folded(name) for name in names.split(",")) - {""}


@lru_cache(maxsize=1)
def _imagenet_names() -> dict[str, frozenset[str]]:
    """All names of each ImageNet-1k class, case-folded, by WNID."""
    return {str(entry.wnid): _parts(f"{entry.name},{_lemmas(entry)}") for entry in imagenet().classes}


@lru_cache(maxsize=1)
def _wnids_of_name() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for wnid, names in _imagenet_names().items():
        for name in names:
            found[name].add(wnid)
    return found


def _wnid_of_list(text: str) -> str | None:
    """The ImageNet class that a list of names ("tench, Tinca tinca") means; None for one name, which may repeat."""
    parts = _parts(text)
    if len(parts) < 2:
        return None
    found = set.intersection(*(_wnids_of_name().get(part, set()) for part in parts))
    return next(iter(found)) if len(found) == 1 else None
