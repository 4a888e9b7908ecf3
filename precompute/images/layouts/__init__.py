"""Dataset layouts: where a source states split, class and label.

One module per layout, tried in the order of `DETECTORS`. A detector takes the `Scene` and returns its
`Layout`, or None if the source does not have it. Detectors open no files: they work from names and from the
small files kept by the survey, so folders, archives and uploads are treated alike.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from precompute.images.layouts import (
    class_folders,
    cub200,
    ilsvrc,
    imagenet_v2,
    packed_files,
    pets,
    tables_beside,
    tiny_imagenet,
    webdataset,
)
from precompute.images.layouts.layout import Layout, LayoutOptions, Scene
from precompute.images.sources.source import ImportRefused
from precompute.images.survey import Survey, Unused, kind_of

# From the most specific to the one that always fits.
DETECTORS: tuple[Callable[[Scene], Layout | None], ...] = (
    packed_files.detect,
    ilsvrc.detect,
    cub200.detect,
    pets.detect,
    tiny_imagenet.detect,
    webdataset.detect,
    tables_beside.detect,
    imagenet_v2.detect,
    class_folders.detect,
)

__all__ = ["DETECTORS", "Layout", "LayoutOptions", "Scene", "work_out"]


def work_out(survey: Survey, options: LayoutOptions | None = None) -> Layout:
    """The layout of a source, with everything that remains unused.

    Raises:
        ImportRefused: an option of the user is impossible, or a table is damaged.
    """
    scene = Scene(survey, options or LayoutOptions())
    asked = scene.options
    # a user who names a table of labels needs no detection
    detectors = (
        (tables_beside.detect,)
        if asked.labels is not None
        else (packed_files.detect, tables_beside.detect, class_folders.detect)
        if asked.columns.label is not None or asked.columns.split is not None
        else (packed_files.detect, imagenet_v2.detect, class_folders.detect)
        if asked.class_level is not None
        else DETECTORS
    )
    found = next((layout for detect in detectors if (layout := detect(scene)) is not None), None)
    if found is None:
        raise ImportRefused(f"no table in {survey.origin} contains labels of its images")
    skipped = dict(found.skipped)
    unused = Counter(skipped.values())
    first = {kind: min(name for name, other in skipped.items() if other == kind) for kind in unused}
    others = [Unused(kind, count, first[kind]) for kind, count in unused.items()]
    left = Survey()
    for name in survey.tables:
        if name not in found.read:
            left.pass_over(kind_of(name), name)
    for one in survey.unused():
        left.pass_over(one.kind, one.example, one.count)
    return replace(found, unused=(*others, *left.unused()))
