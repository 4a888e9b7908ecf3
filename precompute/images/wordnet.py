"""ImageNet's classes by WordNet id, from the data files of installed packages, without loading torch.

An index is the position of a WNID among ImageNet-1k's 1,000 sorted WNIDs, never one of the devkit's ILSVRC
ids. Names are the short ones of torchvision's weights (which models print), else WordNet's first lemma.
"""

import ast
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WNID = re.compile(r"n\d{8}")
# Lists in circulation differ from WordNet's in a few spellings; an unrelated list never agrees this far.
_AGREEMENT = 0.9


@dataclass(frozen=True)
class Label:
    """The class an image is labeled with: WordNet id, ImageNet-1k index and name, each None if unknown."""

    wnid: str | None
    index: int | None
    name: str | None


def label_of_wnid(wnid: str, name: str | None = None) -> Label:
    """The label of a WordNet id; `name` is used for ids missing from the installed lists."""
    index = _indices().get(wnid)
    known = _short_names()[index] if index is not None else _lemmas().get(wnid, "").split(",")[0].strip()
    return Label(wnid, index, known or name or wnid)


def label_of_name(name: str) -> Label:
    """The label of a class called `name`: by WNID if the name is one or starts with one, else by name only.

    A plain name is never looked up, because names are ambiguous ("crane", "maillot").
    """
    match = re.fullmatch(r"(n\d{8})(?:[-_ .]+(.*))?", name)
    return label_of_wnid(match[1], match[2]) if match else Label(None, None, name)


def label_of_index(index: int) -> Label:
    """The label at an index of ImageNet-1k's sorted WNIDs, 0 to 999."""
    return label_of_wnid(imagenet_wnids()[index])


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """ImageNet-1k's WNIDs, sorted."""
    wnids = tuple((_data_folder("timm") / "data/_info/imagenet_synsets.txt").read_text().split())
    assert len(wnids) == 1000
    assert list(wnids) == sorted(wnids)
    return wnids


def is_imagenet(names: Sequence[str]) -> bool:
    """Whether `names` are ImageNet-1k's classes in WNID order, as WNIDs or as WordNet names."""
    if len(names) != 1000:
        return False
    agreeing = 0
    for name, wnid, short in zip(names, imagenet_wnids(), _short_names(), strict=True):
        known = _parts(_lemmas().get(wnid, "")) | {short.lower(), wnid}
        agreeing += bool(_parts(name) & known)
    return agreeing >= _AGREEMENT * len(names)


def _parts(name: str) -> set[str]:
    return {part.strip().lower().replace("_", " ") for part in name.split(",")} - {""}


@cache
def _indices() -> dict[str, int]:
    return {wnid: index for index, wnid in enumerate(imagenet_wnids())}


@cache
def _lemmas() -> dict[str, str]:
    lines = (_data_folder("timm") / "data/_info/imagenet_synset_to_lemma.txt").read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines)


@cache
def _short_names() -> tuple[str, ...]:
    """torchvision's category names, parsed from its source: importing it would load torch."""
    tree = ast.parse((_data_folder("torchvision") / "models/_meta.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_IMAGENET_CATEGORIES":
            names = tuple(ast.literal_eval(node.value))
            assert len(names) == 1000
            return names
    raise LookupError("torchvision's list of ImageNet categories has moved")


def _data_folder(package: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0])
