"""Files that contain images and labels together: parquet shards, CIFAR's batches, MNIST's idx files."""

from dataclasses import replace

from precompute.images.layouts.layout import Layout, Scene
from precompute.images.packed import label_files
from precompute.images.sources.source import is_parquet
from precompute.images.survey import idx_of


def detect(scene: Scene) -> Layout | None:
    """Detects sources of such files only; splits and labels are read row by row."""
    packed = scene.survey.packed
    if not packed or scene.survey.pictures:
        return None
    facts = [scene.survey.facts[name] for name in packed if name in scene.survey.facts]
    labels = list(dict.fromkeys(one.label for one in facts))
    notes = tuple(dict.fromkeys(one.note for one in facts if one.note))
    columns = scene.options.columns
    if all(is_parquet(name) for name in packed):
        kind, split = (
            "parquet shards",
            f"column {columns.split}" if columns.split else "the names of the shards",
        )
    elif all(idx_of(name) for name in packed):
        kind, split = "MNIST's idx files", "the names of the files"
    else:
        kind, split = "CIFAR's batches", "the names of the files"
    layout = Layout(kind, split, ", ".join(labels), "the name of the class, its number where it has none")
    return replace(layout, notes=notes, read=frozenset(label_files(packed, scene.survey.tables)))
