"""CUB-200: numbered lists of images, classes and splits.

Reference: C. Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", Caltech technical report, 2011.
"""

from dataclasses import replace

from db.plurals import count
from precompute.images.layouts.layout import Layout, Scene
from precompute.images.layouts.matching import Matcher
from precompute.images.wordnet import label_of_name

_SPLITS = {"1": "train", "0": "test"}


def detect(scene: Scene) -> Layout | None:
    """Detects `images.txt`, which numbers the images, with `image_class_labels.txt` for their classes."""
    images, classes = scene.table_named("images.txt"), scene.table_named("image_class_labels.txt")
    if images is None or classes is None:
        return None
    matcher = Matcher(scene.images)
    names = {
        number: found[0]
        for number, path in _pairs(scene, images)
        if (found := matcher.find(path)) is not None
    }
    if not names:
        return None
    named, split = scene.table_named("classes.txt"), scene.table_named("train_test_split.txt")
    titles = dict(_pairs(scene, named)) if named else {}
    labels = {
        names[image]: label_of_name(titles.get(number, number))
        for image, number in _pairs(scene, classes)
        if image in names
    }
    read = {images, classes} | ({named} if named else set()) | ({split} if split else set())
    layout = scene.labelled(
        replace(scene.folder_layout("CUB-200"), read=frozenset(read)),
        labels,
        classes=f"image_class_labels.txt ({count(len(set(labels.values())), 'class')})",
        label="the name in classes.txt" if named else "the number of the class",
    )
    splits = {
        names[image]: _SPLITS[one]
        for image, one in (_pairs(scene, split) if split else [])
        if image in names and one in _SPLITS
    }
    return scene.split(layout, splits, "train_test_split.txt")


def _pairs(scene: Scene, name: str) -> list[tuple[str, str]]:
    words = [line.split(None, 1) for line in scene.lines(name)]
    return [(one[0], one[1].strip()) for one in words if len(one) == 2]
