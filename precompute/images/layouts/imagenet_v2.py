"""ImageNetV2: folders `0` to `999` are indices into ImageNet-1k's sorted WordNet ids.

Reference: B. Recht et al., "Do ImageNet Classifiers Generalize to ImageNet?", ICML 2019.
"""

import re
from dataclasses import replace

from precompute.images.layouts.layout import Layout, Scene
from precompute.images.wordnet import label_of_index


def detect(scene: Scene) -> Layout | None:
    """Detects classes that are all numbers below 1,000 in a source whose name mentions ImageNet."""
    folders = scene.folders.class_folders
    if not folders or scene.options.columns.names is not None:
        return None
    if not all(re.fullmatch(r"0|[1-9]\d{0,2}", folder) for folder in folders):
        return None
    named = {
        scene.survey.origin.rpartition("/")[2],
        *(name.split("/")[0] for name in scene.survey.pictures[:1]),
    }
    if not any("imagenet" in name.lower() for name in named):
        return None
    reading = scene.read_folders({folder: label_of_index(int(folder)) for folder in folders})
    return replace(
        scene.folder_layout("ImageNetV2", reading),
        label="ImageNet's name of the class with the folder's number (0 to 999, WordNet ids in order)",
    )
