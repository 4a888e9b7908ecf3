"""Import of image sets: every image is read once and thumbnailed; the atlas gets all of them in one publish.

Nothing is published before the last image is read, so a stopped import leaves the atlas unchanged. Files in
the store are named by content, so the next attempt finds those already written and is fast; a refused import
removes its files.
"""

import contextlib
import time
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from db.atlas.image_sets import (
    Changes,
    add_images,
    dependents,
    known_images,
    relabelled_images,
    remove_unlisted,
    set_name_problem,
    source_of,
)
from db.atlas.store import Atlas, AtlasError, NoAtlas, Query
from db.ledger.claims import LostClaim
from db.plurals import count
from db.stores.decoding import Note
from db.stores.images import ImageStore
from precompute.images.files import Progress, store_images
from precompute.images.ground_truth import GroundTruth, load_ground_truth
from precompute.images.layouts import Layout, LayoutOptions, work_out
from precompute.images.rows import ImageRows, Refusal
from precompute.images.sources.folder import FolderSource
from precompute.images.sources.source import Columns, ImportRefused, Source, Step
from precompute.images.sources.tar import TarSource, is_tar
from precompute.images.sources.zip import ZipSource
from workers.queue.runner import Stopping

_SECONDS_BETWEEN_STEPS = 0.5


@dataclass(frozen=True)
class ImportReport:
    """Result of an import; counts are numbers of images.

    Attributes:
        added: entered into the set.
        known: already in the set, with the same name and content.
        refused: left out.
        labelled: with a label, among the added and known ones.
        relabelled: known ones whose label changed.
        moved: known ones whose file is now elsewhere.
        changed: added ones whose name the set already had with other content; the older image keeps its id.
        renamed: known ones whose path in the source changed; they get the label of the new path.
        gone: images that the set keeps although their files are gone and no other file has the same bytes.
        duplicates: added ones with the content of another image of this import, under another name.
        seconds: wall-clock time.
        layout: where split, class and label came from, and what was not used.
        notes: other remarks for the user, one sentence each.
    """

    added: int
    known: int
    refused: tuple[Refusal, ...]
    labelled: int
    relabelled: int
    moved: int
    changed: int
    duplicates: int
    renamed: int
    gone: int
    seconds: float
    layout: Layout
    notes: tuple[str, ...] = ()


def import_images(
    atlas: Atlas,
    store: ImageStore,
    *,
    image_set: str,
    source: Path,
    ground_truth: Path | None = None,
    options: LayoutOptions | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Add the images at `source` to `image_set`, which is created if it does not exist.

    Images in a folder stay where they are; those in archives and parquet shards are copied into the store.

    Args:
        source: a folder (ImageFolder tree, ILSVRC's flat validation folder, any flat folder, parquet shards),
            a parquet file, or a zip or tar archive of these.
        options: the user's choices about the layout.
        ground_truth: labels of a flat folder, see `precompute.images.ground_truth`; detected automatically
            inside `source`.
        progress: called with (images done, total or None if unknown).

    Raises:
        ImportRefused: nothing can be imported, and nothing was changed.
        StoreBusy: another process is removing images.
    """
    _check_names(image_set, source)
    truth = load_ground_truth(ground_truth) if ground_truth is not None else None
    return import_source(
        atlas,
        store,
        image_set=image_set,
        # the home may lie inside the source folder: its thumbnails are not images to import
        source=open_source(source, but=store.folders(), columns=options.columns if options else None),
        truth=truth,
        options=options,
        origin=str(source),
        progress=progress,
    )


def _check_names(image_set: str, source: Path) -> None:
    check_set_name(image_set)
    try:
        str(source).encode()
    except UnicodeEncodeError as error:
        raise ImportRefused(f"{str(source)!r} is not valid UTF-8: rename it, or link to it") from error


@dataclass(frozen=True)
class Preview:
    """What an import would do, determined before any image is read.

    Attributes:
        layout: where split, class and label come from, and what is not used.
        images: number of images; None if known only after reading them.
        splits, labels: number of images by split and by label; empty if known only after reading them.
    """

    layout: Layout
    images: int | None
    splits: dict[str, int]
    labels: dict[str, int]


def preview_import(
    source: Source,
    *,
    truth: GroundTruth | None = None,
    options: LayoutOptions | None = None,
    progress: Progress | None = None,
) -> Preview:
    """What `import_source` would import from a source; changes nothing.

    Raises:
        ImportRefused: the import would be refused.
    """
    survey = source.survey(_looking(progress or _silent))
    layout = work_out(survey, options)
    count = source.count()
    used = [name for name in survey.pictures if name not in layout.skipped]
    placed = [layout.place(name) for name in used]
    stated = [truth.label(name) if truth is not None else None for name in used]
    labels = Counter(
        found.name
        for place, said in zip(placed, stated, strict=True)
        if (found := said or place.label) is not None and found.name is not None
    )
    return Preview(
        layout,
        None if count is None else count - len(layout.skipped),
        dict(sorted(Counter(place.split for place in placed if place.split is not None).items())),
        dict(sorted(labels.items(), key=lambda one: (-one[1], one[0]))),
    )


def preview_path(
    store: ImageStore,
    *,
    image_set: str,
    source: Path,
    ground_truth: Path | None = None,
    options: LayoutOptions | None = None,
) -> Preview:
    """What `import_images` would import; see `preview_import`."""
    _check_names(image_set, source)
    truth = load_ground_truth(ground_truth) if ground_truth is not None else None
    opened = open_source(source, but=store.folders(), columns=options.columns if options else None)
    return preview_import(opened, truth=truth, options=options)


def import_source(
    atlas: Atlas,
    store: ImageStore,
    *,
    image_set: str,
    source: Source,
    origin: str,
    truth: GroundTruth | None = None,
    options: LayoutOptions | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Like `import_images`, from a source that is already open; `origin` is its display name."""
    started = time.monotonic()
    gathered = ImageRows()
    try:
        with store.adding():
            known = _known(atlas, image_set)
            layout = work_out(source.survey(_looking(progress or _silent)), options)
            for image in store_images(source, store, known, progress or _silent, skip=layout.skipped.keys()):
                gathered.add(image)
            if not gathered.names:
                raise ImportRefused(_nothing(origin, gathered.refused, layout))
            gone = _gone(atlas, store, image_set, origin, known, gathered)
            rows, stated = gathered.table(layout, truth, gone)
            if truth is not None and not stated:
                raise ImportRefused(
                    f"the ground truth names none of the images of {origin} ({rows.num_rows:,}), such as "
                    f"{gathered.names[0]}"
                )
            if gathered.copied:
                store.settle()
            changes = _publish(atlas, image_set, origin, rows)
    except (Stopping, LostClaim):  # another attempt reuses what was written
        raise
    except BaseException:  # refused, cancelled, disk full, Ctrl-C: remove files that the atlas does not list
        with contextlib.suppress(AtlasError):
            remove_unlisted(atlas, store)
        raise
    return ImportReport(
        added=changes.added,
        # counted now: a concurrent import of the same set may have added some first
        known=rows.num_rows - changes.added,
        refused=tuple(gathered.refused),
        labelled=rows.num_rows - rows.column("label").null_count,
        relabelled=changes.relabelled,
        moved=changes.moved,
        changed=gathered.changed,
        duplicates=gathered.duplicates,
        renamed=changes.renamed,
        gone=max(0, sum(map(len, gone.values())) - changes.renamed),
        seconds=time.monotonic() - started,
        layout=layout,
        notes=tuple(
            _noted(note, gathered.noted[note])
            for note in (Note.LOW_BITS, Note.FIRST_OF_SEVERAL)
            if gathered.noted[note]
        ),
    )


def _noted(note: Note, number: int) -> str:
    one = number == 1
    if note is Note.LOW_BITS:
        return (
            f"{count(number, 'image')} {'uses' if one else 'use'} only the lower 12 bits of "
            f"{'its' if one else 'their'} 16 and {'looks' if one else 'look'} nearly black: "
            f"where that is the camera's range, save {'it' if one else 'them'} scaled to 16 bits and import again"
        )
    hold = "holds" if one else "hold"
    return f"{count(number, 'file')} {hold} several pages or frames; the first is used"


def check_set_name(image_set: str) -> None:
    """Raise ImportRefused unless `image_set` is a valid name for addresses and file names."""
    problem = set_name_problem(image_set)
    if problem is not None:
        raise ImportRefused(problem)


def open_source(
    path: Path, *, but: Iterable[Path] = (), within: Path | None = None, columns: Columns | None = None
) -> Source:
    """The source at `path`, by its type.

    Folders in `but` are excluded, links that lead out of `within` are refused. `columns` are those of its
    shards chosen by the user.

    Raises:
        ImportRefused: `path` does not exist, or is nothing that images can be read from.
    """
    if not path.exists():
        raise ImportRefused(f"{path} does not exist: expected a folder, an archive or a parquet file")
    if path.is_dir():
        return FolderSource(path, but=but, within=within, columns=columns)
    if path.suffix.lower() == ".parquet":
        return FolderSource(path.parent, only=path.name, columns=columns)
    if is_tar(path):  # before zip: a tar that ends with a zip file looks like one
        return TarSource(path, columns=columns)
    if zipfile.is_zipfile(path):
        return ZipSource(path, columns=columns)
    raise ImportRefused(f"{path} is not a folder, zip or tar archive or parquet file, or it is damaged")


def _publish(atlas: Atlas, image_set: str, origin: str, rows: pa.Table) -> Changes:
    """Publish the changes in `rows`; without changes, publish nothing."""
    new = rows.num_rows - sum(rows.column("known").to_pylist())
    moved = sum(rows.column("moved").to_pylist())
    relabelled = 0
    renamed = rows.num_rows - rows.column("formerly").null_count
    if new < rows.num_rows or renamed:
        with atlas.read() as cursor:
            relabelled = relabelled_images(cursor, image_set, rows)
        runs = [row["model"] for row in _rows(atlas, dependents(image_set)) if row["model"] is not None]
        if relabelled and runs:
            raise ImportRefused(
                f"{count(relabelled, 'image')} of {image_set!r} {'has' if relabelled == 1 else 'have'} "
                f"different labels now than when {', '.join(runs)} used them: import under another name, or "
                f"remove {image_set!r} first"
            )
    if not (new or moved or relabelled):
        return Changes(0, 0, 0, 0)
    with atlas.publish() as connection:
        return add_images(connection, image_set, source=origin, rows=rows)


def _gone(
    atlas: Atlas,
    store: ImageStore,
    image_set: str,
    origin: str,
    known: dict[str, dict[str, str]],
    gathered: ImageRows,
) -> dict[str, list[str]]:
    """Names of the set's images that this import lacks and whose files are gone, by content hash.

    An image from an archive is a copy in the store: it counts as gone if the same archive is imported again
    without it.
    """
    again = any(row["source"] == origin for row in _rows(atlas, source_of(image_set)))
    gone: dict[str, list[str]] = {}
    for name, contents in known.items():
        for key, path in contents.items():
            if gathered.holds(name, key):
                continue
            if again if not Path(path).is_absolute() else not store.original_path(path).exists():
                gone.setdefault(key, []).append(name)
    return gone


def _known(atlas: Atlas, image_set: str) -> dict[str, dict[str, str]]:
    """Content hashes and files of a set's images, by name."""
    known: dict[str, dict[str, str]] = {}
    for row in _rows(atlas, known_images(image_set)):
        known.setdefault(row["name"], {})[row["key"]] = row["path"]
    return known


def _rows(atlas: Atlas, query: Query) -> list[dict[str, Any]]:
    try:
        return atlas.fetch(query)
    except NoAtlas:
        return []


def _nothing(origin: str, refused: list[Refusal], layout: Layout) -> str:
    if not refused:
        there = "; ".join(one.sentence() for one in layout.unused[:5])
        said = f"no image found in {origin}: expected files such as .jpg or .png, or parquet shards"
        return f"{said}; there are {there}" if there else said
    first = refused[0]
    if len(refused) == 1:
        return f"the only image in {origin}, {first.name}, cannot be read: {first.reason}"
    return f"none of the {len(refused):,} images in {origin} can be read; the first, {first.name}: {first.reason}"


def _silent(_done: int, _total: int | None) -> None:
    pass


def _looking(progress: Progress) -> Step:
    """A step function that calls `progress` periodically during a survey, which lets a cancelled job stop."""
    told = time.monotonic()

    def step() -> None:
        nonlocal told
        if time.monotonic() - told > _SECONDS_BETWEEN_STEPS:
            progress(0, None)
            told = time.monotonic()

    return step
