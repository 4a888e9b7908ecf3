"""Folders named by class, with or without splits: ImageFolder, SUN397, EuroSAT, flat trees of COCO and YOLO.

Lists of images named by split (`train.txt` in Food-101's `meta/`) state the split if no folder does.
"""

import re
from dataclasses import replace

from precompute.images.labels import split_of
from precompute.images.layouts.layout import NOTHING, Layout, Scene
from precompute.images.layouts.matching import Matcher
from precompute.images.sources.source import suffix_of
from precompute.images.wordnet import Label


def detect(scene: Scene) -> Layout | None:
    """The layout that always fits."""
    names = scene.options.columns.names
    numbers: dict[str, Label] = {}
    if names is not None:
        numbers = {
            folder: names[int(folder)]
            for folder in scene.folders.class_folders
            if re.fullmatch(r"\d{1,9}", folder) and int(folder) < len(names)
        }
    reading = scene.read_folders(numbers) if numbers else scene.folders
    if reading.classes != NOTHING:
        kind = "class folders"
    else:
        kind = "folders of splits without classes" if reading.split != NOTHING else "images without classes"
    layout = scene.folder_layout(kind, reading)
    if numbers:
        layout = replace(layout, label="the name of the class with the folder's number")
    elif reading.class_folders and all(folder.isdecimal() for folder in reading.class_folders):
        layout = replace(layout, notes=("the classes are numbers: name them with --class-names",))
    return with_split_lists(scene, layout) if reading.split == NOTHING else layout


def with_split_lists(scene: Scene, layout: Layout) -> Layout:
    """`layout` with the splits stated by lists of images; contradictory lists are ignored."""
    lists = {
        name: split
        for name in scene.survey.tables
        if suffix_of(name) == ".txt" and (split := list_split(name)) is not None
    }
    if not lists:
        return layout
    matcher = Matcher(scene.images)
    splits: dict[str, str] = {}
    read = set()
    for name, split in lists.items():
        lines = scene.lines(name)
        found = [matcher.find(line) for line in lines]
        named = {one[0] for one in found if one is not None}
        if not named or len(named) < 0.5 * min(len(lines), len(scene.images)):
            continue
        if any(splits.get(one, split) != split for one in named):
            return replace(
                layout, notes=(*layout.notes, f"lists such as {name} disagree on the split: none was used")
            )
        splits |= dict.fromkeys(named, split)
        read.add(name)
    found_layout = scene.split(layout, splits, f"the lists {', '.join(sorted(read))}")
    return replace(found_layout, read=layout.read | read) if read else layout


def list_split(name: str) -> str | None:
    """The split in the name of a list of images; None if there is none."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return "trainval" if stem.lower() == "trainval" else split_of(stem)
