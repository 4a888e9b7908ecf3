"""ILSVRC's flat validation folder with Kaggle's table or the devkit's list; see `images.ground_truth`."""

from dataclasses import replace

from db.plurals import count
from precompute.images.ground_truth import META, read_ground_truth
from precompute.images.layouts.layout import Layout, Scene
from precompute.images.sources.source import GROUND_TRUTH_FILES


def detect(scene: Scene) -> Layout | None:
    """Detects ground truth files next to the images that name some of them."""
    files = {}
    for name, content in scene.survey.tables.items():
        if name.rpartition("/")[2] in GROUND_TRUTH_FILES:
            files[name.rpartition("/")[2]] = content
    if not files.keys() - {META}:
        return None
    truth = read_ground_truth(files, scene.survey.origin)
    labels = {name: label for name in scene.images if (label := truth.label(name)) is not None}
    if not labels:
        return None
    read = frozenset(name for name in scene.survey.tables if name.rpartition("/")[2] in GROUND_TRUTH_FILES)
    layout = replace(scene.folder_layout("ILSVRC's validation images"), read=read)
    return scene.labelled(
        layout,
        labels,
        classes=f"{', '.join(sorted(name.rpartition('/')[2] for name in read))} ({count(len(labels), 'image')})",
        label="ImageNet's name of the WordNet id",
    )
