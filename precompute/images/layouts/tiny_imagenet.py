"""Tiny-ImageNet: folders of WordNet ids for training, `val_annotations.txt` for the flat validation images.

Reference: Y. Le and X. Yang, "Tiny ImageNet Visual Recognition Challenge", Stanford CS 231N, 2015.
"""

from dataclasses import replace

from db.plurals import count
from precompute.images.layouts.layout import NOTHING, Layout, Scene
from precompute.images.layouts.matching import Matcher
from precompute.images.wordnet import WNID, label_of_wnid


def detect(scene: Scene) -> Layout | None:
    """Detects a `val_annotations.txt` that assigns WordNet ids to images."""
    name = scene.table_named("val_annotations.txt")
    if name is None:
        return None
    matcher = Matcher(scene.images)
    folder = name.rpartition("/")[0]
    titles = {}
    words = scene.table_named("words.txt")
    for line in scene.lines(words) if words else []:
        wnid, _, title = line.partition("\t")
        titles[wnid] = title.split(",")[0].strip()
    labels = {}
    for line in scene.lines(name):
        cells = line.split("\t")
        found = matcher.find(cells[0], folder)
        if found is not None and len(cells) > 1 and WNID.fullmatch(cells[1]):
            labels[found[0]] = label_of_wnid(cells[1], titles.get(cells[1]))
    if not labels:
        return None
    base = scene.folder_layout("Tiny-ImageNet")
    folders = "" if base.classes == NOTHING else f", and {base.classes}"
    return scene.labelled(
        replace(base, read=frozenset({name} | ({words} if words else set()))),
        labels,
        classes=f"val_annotations.txt ({count(len(labels), 'image')}){folders}",
        label="ImageNet's name of the WordNet id",
    )
