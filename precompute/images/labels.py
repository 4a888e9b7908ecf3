"""Infer splits, classes and annotation images from folder and file names.

All names of a source are read at once, because a folder's meaning depends on its neighbors: `train` is a
split next to `val` and a vehicle next to `car`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from precompute.images.wordnet import Label, label_of_name, label_of_wnid

SPLITS: dict[str, str] = {
    "train": "train", "training": "train", "trainset": "train",
    "val": "val", "valid": "val", "validation": "val", "valset": "val", "dev": "dev", "devel": "dev",
    "eval": "eval", "evaluation": "eval",
    "test": "test", "testing": "test", "testset": "test",
    "pred": "pred", "predict": "pred", "prediction": "pred", "predictions": "pred",
    "unlabeled": "unlabeled", "unlabelled": "unlabeled", "holdout": "holdout",
    "query": "query", "gallery": "gallery",
}  # fmt: skip
# Words that may accompany the split in a folder's name: `training_set`, `seg_train`, `train2017`,
# `images_test`.
_SPLIT_FILLERS = frozenset(
    {
        "set",
        "data",
        "dataset",
        "seg",
        "images",
        "image",
        "imgs",
        "img",
        "split",
        "files",
        "folder",
        "stage",
        "the",
    }
)
# Folder names that only say that images are inside.
CONTENT = frozenset(
    {
        "images",
        "image",
        "imgs",
        "img",
        "jpegimages",
        "jpg",
        "jpgs",
        "jpeg",
        "jpegs",
        "png",
        "pngs",
        "pictures",
        "data",
    }
)
# Additional ones that say so only next to a folder of annotations; elsewhere they may be classes.
_CONTENT_BESIDE = CONTENT | {
    "original", "originals", "input", "inputs", "photo", "photos", "frames", "frame", "rgb", "source", "raw",
}  # fmt: skip
ANNOTATIONS = frozenset(
    {"annotations", "annotation", "masks", "mask", "labels", "label", "segmentation", "segmentations",
     "segmentationclass", "segmentationobject", "trimaps", "trimap", "groundtruth", "gt", "gts", "depth", "seg",
     "segs", "bboxes",
     "maskimages", "labelmaps", "attributes", "parts"}
)  # fmt: skip
_MASK_FILE = re.compile(
    r"(.+?)[-_ .](?:mask|masks|seg|segmentation|trimap|gt|groundtruth|label|labels|annotation)(?:[-_ ]?\d+)?",
    re.IGNORECASE,
)
_WNID_FOLDER = re.compile(r"n\d{8}(?:[-_ .].*)?")
# `n01440764_10026.JPEG` in ILSVRC's training set, `ILSVRC2012_val_00000293_n01440764.JPEG` on the hub
_WNID_IN_FILE = re.compile(r"^(n\d{8})_|_(n\d{8})(?=\.)")
_SHOWN = 4

Folder = tuple[str, ...]


class NoSuchLevel(Exception):
    """No path has the requested folder level; the message is one sentence."""


@dataclass(frozen=True)
class Place:
    """Split and label from an image's path, None if the path says nothing."""

    split: str | None
    label: Label | None


@dataclass(frozen=True)
class Reading:
    """What the names of a source imply.

    Attributes:
        places: split and label of each name, in order; both None for an annotation.
        annotations: indices of images that annotate others, such as masks.
        split, classes: where split and class come from, in words.
        class_folders: names of the folders taken as classes.
    """

    places: list[Place] = field(default_factory=list)
    annotations: set[int] = field(default_factory=set)
    split: str = "nothing"
    classes: str = "nothing"
    class_folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Said:
    """What one folder says about its contents."""

    split: str | None = None
    klass: str | None = None
    annotation: bool = False


def read_places(names: Sequence[str]) -> list[Place]:
    """Split and label of each image of one source; see `read_folders`."""
    return read_folders(names).places


def read_folders(
    names: Sequence[str],
    *,
    class_level: int | None = None,
    split_level: int | None = None,
    no_split: bool = False,
    numbers: Mapping[str, Label] | None = None,
) -> Reading:
    """Split and label of each image of one source, in the order of `names` (paths with `/`).

    - Images below `masks/`, `annotations/` and the like annotate others if next to a folder of images or of a
      split; so does `x_mask.png` next to `x.png`.
    - Folders that contain everything (`imagenet/ILSVRC/Data/CLS-LOC`), and `images/` anywhere, are skipped.
    - Then there may be a level of splits: every folder's name is a split, or the named splits contain only
      folders, some of which also occur in the other folders of the level. A second split of the same meaning
      (`seg_train/seg_train`) is skipped, as is a level of single letters.
    - The class is the folder named by a WNID; if there is none, the first folder below, as in ImageFolder.
    - An image outside a class folder has the class of the WNID in its file name, if any.

    Args:
        class_level: which folder of the path is the class: 1 for the outermost, -1 for the innermost, 0 for
            none.
        split_level: which folder of the path is the split, counted likewise.
        no_split: no folder is a split.
        numbers: labels of class folders with numbers instead of names (ImageNetV2's `0` to `999`).

    Raises:
        NoSuchLevel: no path has that many folders.
    """
    folders = {name.rpartition("/")[0] for name in names}
    parts = {folder: _parts(folder) for folder in folders}
    marked = _annotation_folders(parts.values())
    if len(marked) == len(parts):  # there is nothing that they could annotate
        marked = set()
    annotations = {at for at, name in enumerate(names) if parts[name.rpartition("/")[0]] in marked}
    annotations |= _mask_files(names)
    kept = {found for folder, found in parts.items() if found not in marked}
    said, split, classes = _read(kept, class_level, split_level, no_split)
    known = {one.klass for one in said.values() if one.klass is not None}
    labels = {name: (numbers or {}).get(name) or label_of_name(name) for name in known}
    places = []
    for at, name in enumerate(names):
        found = said.get(parts[name.rpartition("/")[0]], _Said())
        if at in annotations:
            places.append(Place(None, None))
        elif found.klass is not None:
            places.append(Place(found.split, labels[found.klass]))
        else:
            places.append(Place(found.split, _label_in_file(name)))
    if not known and any(place.label for place in places):
        classes = "the WordNet id in each file's name"
    return Reading(places, annotations, split, classes, tuple(sorted(known)))


def split_of(folder: str) -> str | None:
    """The split meant by a folder's name (train, val, dev, test, ...); None if it is not a split."""
    words = [word for word in re.split(r"[-_ .\d]+", folder.lower()) if word]
    found = [SPLITS[word] for word in words if word in SPLITS]
    others = [word for word in words if word not in SPLITS and word not in _SPLIT_FILLERS]
    return found[0] if len(found) == 1 and not others else None


def shown_list(names: Iterable[str]) -> str:
    """The first few names, and the number of further ones."""
    listed = sorted(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _read(
    kept: set[Folder], class_level: int | None, split_level: int | None, no_split: bool
) -> tuple[dict[Folder, _Said], str, str]:
    """Split and class of each folder, and in words where both come from."""
    below = _without_content(kept)
    depth = _shared_depth(list(below.values()))
    below = {folder: rest[depth:] for folder, rest in below.items()}
    splits: dict[Folder, str | None] = dict.fromkeys(kept)
    split_words = "nothing"
    if split_level is not None:
        splits = {folder: _at_level(folder, split_level) for folder in kept}
        _check_level(splits.values(), split_level)
        split_words = f"folder level {split_level} ({_shown(splits.values())})"
        below = {
            folder: tuple(part for part in rest if part != splits[folder]) for folder, rest in below.items()
        }
    elif not no_split:
        splits, below, split_words = _take_splits(below)
    if class_level is not None:
        classes = {folder: _at_level(folder, class_level) if class_level else None for folder in kept}
        if class_level:
            _check_level(classes.values(), class_level)
        class_words = f"folder level {class_level} ({_shown(classes.values())})" if class_level else "nothing"
    else:
        classes, class_words = _take_classes(below, wrapped=split_words == "nothing")
    return (
        {folder: _Said(splits[folder], classes[folder]) for folder in kept},
        split_words,
        class_words,
    )


def _take_splits(
    below: dict[Folder, Folder],
) -> tuple[dict[Folder, str | None], dict[Folder, Folder], str]:
    first = {rest[0] for rest in below.values() if rest}
    level = _split_level(first, below)
    if level:
        splits = {folder: level.get(rest[0]) if rest else None for folder, rest in below.items()}
        rest_of = {}
        for folder, rest in below.items():
            inner = rest[1:]
            # `seg_train/seg_train`, `training_set/training_set`
            while inner and (inner[0] == rest[0] or split_of(inner[0]) == level[rest[0]]):
                inner = inner[1:]
            rest_of[folder] = inner
        return splits, rest_of, f"the folders {shown_list(first)}"
    second = {rest[1] for rest in below.values() if len(rest) > 1}
    inner_level = {name: split_of(name) for name in second}
    every = all(len(rest) > 1 for rest in below.values())
    if (
        every
        and second
        and len(first) > 1
        and len(set(inner_level.values())) > 1
        and all(inner_level.values())
    ):
        # `cat/train`, `cat/test`, `dog/train`, ...
        return (
            {folder: inner_level[rest[1]] for folder, rest in below.items()},
            {folder: (rest[0], *rest[2:]) for folder, rest in below.items()},
            f"the folders {shown_list(second)} inside each class",
        )
    return dict.fromkeys(below), below, "nothing"


def _split_level(first: set[str], below: Mapping[Folder, Folder]) -> dict[str, str]:
    """The splits of a folder level, by name; empty if the level is not one of splits."""
    named = {name: split_of(name) for name in first}
    known = {name: split for name, split in named.items() if split is not None}
    if known and len(known) == len(first):
        return known
    inside: dict[str, set[str]] = defaultdict(set)
    loose = {rest[0] for rest in below.values() if len(rest) == 1}
    for rest in below.values():
        if len(rest) > 1:
            inside[rest[0]].add(rest[1])
    # If the known splits contain only folders (the classes), neighbors that share some are splits of another
    # name.
    deep = all(inside[name] and name not in loose for name in known)
    others = [name for name in first if name not in known]
    alike = all(
        not inside[name] or inside[name] & set().union(*(inside[one] for one in known)) for name in others
    )
    if deep and alike and (len(set(known.values())) > 1 or (known and all(inside[name] for name in others))):
        return known | {name: name for name in others}
    return {}


def _take_classes(below: Mapping[Folder, Folder], *, wrapped: bool) -> tuple[dict[Folder, str | None], str]:
    by_wnid = {
        folder: next((part for part in reversed(rest) if _WNID_FOLDER.fullmatch(part)), None)
        for folder, rest in below.items()
    }
    if any(by_wnid.values()):
        return by_wnid, f"the folder named with a WordNet id ({_shown(by_wnid.values())})"
    if _is_letters(below):
        joined = {folder: "/".join(rest[1:]) or None for folder, rest in below.items()}
        return joined, f"the folders under single letters ({_shown(joined.values())})"
    classes = {folder: rest[0] if rest else None for folder, rest in below.items()}
    found = {name for name in classes.values() if name is not None}
    if not found or (wrapped and len(found) == 1):  # a single folder around all is a wrapper
        return dict.fromkeys(below), "nothing"
    return classes, f"the {'first folder' if wrapped else 'folder below the split'} ({_shown(found)})"


def _is_letters(below: Mapping[Folder, Folder]) -> bool:
    """Whether the first level groups the second by first letter, as in SUN397."""
    filled = [rest for rest in below.values() if rest]
    return (
        bool(filled)
        and len({rest[0] for rest in filled}) > 1
        and all(
            len(rest[0]) == 1 and len(rest) > 1 and rest[1].lower().startswith(rest[0].lower())
            for rest in filled
        )
    )


def _shown(names: Iterable[str | None]) -> str:
    found = {name for name in names if name is not None}
    return f"{len(found):,}: {shown_list(found)}"


def _at_level(folder: Folder, level: int) -> str | None:
    at = level - 1 if level > 0 else level
    return folder[at] if -len(folder) <= at < len(folder) else None


def _check_level(found: Iterable[str | None], level: int) -> None:
    if not any(name is not None for name in found):
        raise NoSuchLevel(f"level {level}: no image is nested that deeply")


def _parts(folder: str) -> Folder:
    return tuple(part for part in folder.split("/") if part not in ("", ".", ".."))


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _annotation_folders(folders: Iterable[Folder]) -> set[Folder]:
    """Folders of images that annotate the images in a neighboring folder."""
    inside = _children(folders)
    found = set()
    for folder in folders:
        for depth, part in enumerate(folder):
            if _plain(part) not in ANNOTATIONS:
                continue
            beside = inside[folder[:depth]] - {part}
            if any(_plain(name) in _CONTENT_BESIDE or split_of(name) for name in beside):
                found.add(folder)
    return found


def _children(folders: Iterable[Folder]) -> dict[Folder, set[str]]:
    inside: dict[Folder, set[str]] = defaultdict(set)
    for folder in folders:
        for depth, part in enumerate(folder):
            inside[folder[:depth]].add(part)
    return inside


def _mask_files(names: Sequence[str]) -> set[int]:
    """Indices of images whose names mark them as masks of a neighboring image, such as `x_mask.png` of `x.png`."""
    found = {}
    for at, name in enumerate(names):
        match = _MASK_FILE.fullmatch(name.rpartition(".")[0].rpartition("/")[2])
        if match is not None:
            found[at] = f"{name.rpartition('/')[0]}/{match[1]}"
    if not found:
        return set()
    stems = {f"{name.rpartition('/')[0]}/{name.rpartition('/')[2].rpartition('.')[0]}" for name in names}
    return {at for at, stem in found.items() if stem in stems}


def _without_content(kept: Iterable[Folder]) -> dict[Folder, Folder]:
    """Each folder without the parts that only say that images are inside."""
    return {folder: tuple(part for part in folder if _plain(part) not in CONTENT) for folder in kept}


def _shared_depth(folders: list[Folder]) -> int:
    """Number of outer folders shared by all images that are neither a split nor the class itself."""
    depth = 0
    while folders and all(len(parts) > depth for parts in folders):
        shared = folders[0][depth]
        if any(parts[depth] != shared for parts in folders):
            break
        if split_of(shared) or _WNID_FOLDER.fullmatch(shared):
            break
        if not any(len(parts) > depth + 1 for parts in folders):
            break
        depth += 1
    return depth


def _label_in_file(name: str) -> Label | None:
    found = _WNID_IN_FILE.search(name.rsplit("/", 1)[-1])
    return None if found is None else label_of_wnid(found[1] or found[2])
