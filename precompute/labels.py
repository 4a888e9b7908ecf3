"""What folders and file names say of the images in them: split and class.

Read from all names of a source at once, because a folder's meaning depends on its neighbours: `train` is a
split beside `val` and a vehicle beside `car`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from precompute.wordnet import Label, label_of_name, label_of_wnid

SPLITS: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_WNID_FOLDER = re.compile(r"n\d{8}(?:[-_ .].*)?")
# `n01440764_10026.JPEG` in ILSVRC's training set, `ILSVRC2012_val_00000293_n01440764.JPEG` on the hub
_WNID_IN_FILE = re.compile(r"^(n\d{8})_|_(n\d{8})(?=\.)")


@dataclass(frozen=True)
class Place:
    """What an image's place says: its split and its label, None where it says nothing."""

    split: str | None
    label: Label | None


def read_places(names: Sequence[str]) -> list[Place]:
    """Split and label of each image of one source, in the order of `names` (paths with `/`).

    - Folders that hold everything (`imagenet/ILSVRC/Data/CLS-LOC`) are skipped.
    - Then a level of splits, if every folder there is one.
    - The class is a folder named by a WNID; where no folder is, the first folder below, as in ImageFolder.
    - An image in no class folder has the class that its file name states by WNID, if it does.
    """
    folders = [_folders(name) for name in names]
    depth = _shared_depth(folders)
    below = [parts[depth:] for parts in folders]
    first = {parts[0] for parts in below if parts}
    split_level = bool(first) and all(name.lower() in SPLITS for name in first)
    splits = [SPLITS[parts[0].lower()] if split_level and parts else None for parts in below]
    if split_level:
        below = [parts[1:] for parts in below]
    by_wnid = [
        next((part for part in reversed(parts) if _WNID_FOLDER.fullmatch(part)), None) for parts in below
    ]
    classes = by_wnid
    if not any(by_wnid):
        classes = [parts[0] if parts else None for parts in below]
        if not split_level and len({name for name in classes if name is not None}) == 1:
            classes = [None] * len(names)  # one folder around everything is a wrapping, not a class
    labels = {name: label_of_name(name) for name in set(classes) if name is not None}
    return [
        Place(split, labels[class_name] if class_name is not None else _label_in_file(name))
        for name, split, class_name in zip(names, splits, classes, strict=True)
    ]


def _folders(name: str) -> list[str]:
    return [part for part in name.split("/")[:-1] if part not in ("", ".", "..")]


def _shared_depth(folders: list[list[str]]) -> int:
    """Number of outer folders that all images share and that are neither a split nor the class itself."""
    depth = 0
    while folders and all(len(parts) > depth for parts in folders):
        shared = folders[0][depth]
        if any(parts[depth] != shared for parts in folders):
            break
        if shared.lower() in SPLITS or _WNID_FOLDER.fullmatch(shared):
            break
        if not any(len(parts) > depth + 1 for parts in folders):
            break
        depth += 1
    return depth


def _label_in_file(name: str) -> Label | None:
    found = _WNID_IN_FILE.search(name.rsplit("/", 1)[-1])
    return None if found is None else label_of_wnid(found[1] or found[2])
