"""Oxford-IIIT Pet: the class is in each file's name, `annotations/` lists the training and test images.

Reference: O. M. Parkhi et al., "Cats and Dogs", CVPR 2012.
"""

import re
from dataclasses import replace

from db.plurals import count
from precompute.images.layouts.layout import Layout, Scene
from precompute.images.layouts.matching import Matcher
from precompute.images.wordnet import label_of_name

# `Abyssinian_100 1 1 1`: image, class, species, breed of the species
_LINE = re.compile(r"(\S+_\d+) \d+ \d+ \d+")


def detect(scene: Scene) -> Layout | None:
    """Detects `annotations/list.txt` or its parts, with lines of `<breed>_<number>` and three numbers."""
    lists = {
        name: split
        for ending, split in (
            ("annotations/list.txt", None), ("annotations/trainval.txt", "trainval"), ("annotations/test.txt", "test"),
        )
        if (name := scene.table_named(ending)) is not None
    }  # fmt: skip
    matcher = Matcher(scene.images) if lists else None
    labels, splits, read = {}, {}, set()
    for name, split in lists.items():
        lines = [line for line in scene.lines(name) if not line.startswith("#")]
        stems = [found[1] for line in lines if (found := _LINE.fullmatch(line)) is not None]
        if not stems or len(stems) < len(lines):
            continue
        read.add(name)
        for stem in stems:
            found_image = matcher.find(stem) if matcher is not None else None
            if found_image is not None:
                labels[found_image[0]] = label_of_name(stem.rpartition("_")[0])
                if split is not None:
                    splits[found_image[0]] = split
    if not labels:
        return None
    layout = scene.labelled(
        replace(scene.folder_layout("Oxford-IIIT Pet"), read=frozenset(read)),
        labels,
        classes=f"the name before the number in each file name ({count(len(set(labels.values())), 'breed')})",
        label="that name",
    )
    return scene.split(layout, splits, f"the lists {', '.join(sorted(read))}")
