"""`convscope images`: import, create, list, show, rename, describe and remove image sets."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.output import CommandFailed, print_fields, print_table, progress_bar
from commands.stores import check_set, known_sets, open_ledger, open_stores
from db.plurals import count as counted

if TYPE_CHECKING:
    from db.atlas.store import Atlas
    from db.stores.images import ImageStore
    from precompute.images.importing import ImportReport, Preview
    from precompute.images.layouts import Layout


DEFAULT_SET = "samples"
PROBES = "stimuli"


@click.group()
def images() -> None:
    """Import, list, show and remove image sets."""


@images.command("import")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--ground-truth",
    type=click.Path(path_type=Path),
    help="Labels of a flat folder: Kaggle's LOC_val_solution.csv, or the ILSVRC devkit.",
)
@click.option("--labels", type=click.Path(path_type=Path), help="A table of labels, one row per image.")
@click.option("--label-column", metavar="C", help="Column of a table or parquet shard with the class.")
@click.option("--image-column", metavar="C", help="Column with the image or its name.")
@click.option(
    "--class-level",
    type=int,
    metavar="N",
    help="Folder level that is the class: 1 is the outermost, -1 the innermost, 0 none.",
)
@click.option("--split-from", metavar="S", help="Source of the split: none, a folder level, or a column.")
@click.option(
    "--class-names",
    metavar="FILE",
    help="File with the names of numbered classes, one per line from 0; or imagenet-1k.",
)
@click.option("--dry-run", is_flag=True, help="Report what would be imported without importing it.")
def import_set(
    name: str,
    path: Path,
    ground_truth: Path | None,
    labels: Path | None,
    label_column: str | None,
    image_column: str | None,
    class_level: int | None,
    split_from: str | None,
    class_names: str | None,
    dry_run: bool,
) -> None:
    """Import the images at PATH as image set NAME.

    PATH is a folder, a zip or tar archive, or a parquet file. Split, class and label are detected from class
    folders, splits, tables next to the images and common dataset layouts (docs/image-layouts.md). The report states
    their sources in one sentence and lists unused files; --dry-run shows it without importing. Unreadable files
    are reported and skipped. Importing again adds new images and follows moved files.
    """
    from precompute.images.importing import import_images, preview_path
    from precompute.images.layouts.asked import layout_options

    options = layout_options(
        labels=labels,
        label_column=label_column,
        image_column=image_column,
        class_level=class_level,
        split_from=split_from,
        class_names=class_names,
    )
    atlas, store = open_stores()
    if dry_run:
        preview = preview_path(store, image_set=name, source=path, ground_truth=ground_truth, options=options)
        _say_preview(name, preview)
        return
    with progress_bar(f"Importing {name}", "images") as progress:
        report = import_images(
            atlas,
            store,
            image_set=name,
            source=path,
            ground_truth=ground_truth,
            options=options,
            progress=progress,
        )
    _say_import(name, report)


def _say_preview(name: str, preview: "Preview") -> None:
    images = "an unknown number of images" if preview.images is None else counted(preview.images, "image")
    click.echo(f"{name}: would import {images}; nothing was changed")
    for noun, counts in (("split", preview.splits), ("label", preview.labels)):
        if counts:
            shown = ", ".join(f"{value} {number:,}" for value, number in list(counts.items())[:10])
            more = f" and {len(counts) - 10:,} more" if len(counts) > 10 else ""
            click.echo(f"  {counted(len(counts), noun)}: {shown}{more}")
    _say_layout(preview.layout)


def _say_layout(layout: "Layout") -> None:
    click.echo(f"  {layout.sentence()}")
    for note in layout.notes:
        click.echo(f"  note: {note}")
    for unused in layout.unused:
        click.echo(f"  not used: {unused.sentence()}")


@images.command("make")
@click.argument("name", type=click.Choice([DEFAULT_SET, PROBES]))
@click.option(
    "--count",
    type=click.IntRange(400, 50_000),
    help="Number of images in `stimuli`; a larger number extends a smaller one (default: 1000).",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Random seed for the parameters of `stimuli` (default: 0)."
)
def make_set(name: str, count: int | None, seed: int | None) -> None:
    """Create a set: `samples` from photos in installed packages, or `stimuli`, probe images painted by Convscope.

    `stimuli` are labeled probe images: gratings over orientation, frequency, phase, contrast and color axis,
    plaids, checkerboards, rings, spokes, dots, edges, bars, corners, arcs, noise, textures, letters, shapes and plain
    colors. The view `stimuli` has their parameters as columns (`convscope sql --tables stimuli`).
    """
    if name == PROBES:
        _make_stimuli(*open_stores(), count=count, seed=seed or 0)
        return
    if count is not None or seed is not None:
        raise click.UsageError(f"--count and --seed are only for {PROBES}, got {name}")
    _make_samples(*open_stores())


def _make_stimuli(atlas: "Atlas", store: "ImageStore", *, count: int | None, seed: int) -> None:
    from precompute.images.stimuli import USUAL, import_stimuli

    with progress_bar(f"Painting {PROBES}", "images") as progress:
        report = import_stimuli(atlas, store, count=count or USUAL, seed=seed, progress=progress)
    _say_import(PROBES, report)


def _make_samples(atlas: "Atlas", store: "ImageStore") -> None:
    from precompute.images.samples import import_samples

    with progress_bar(f"Importing {DEFAULT_SET}", "images") as progress:
        report = import_samples(atlas, store, progress=progress)
    _say_import(DEFAULT_SET, report)


def _say_import(name: str, report: "ImportReport") -> None:
    click.echo(
        f"{name}: {counted(report.added, 'image')} added, {report.known:,} already there, "
        f"{len(report.refused):,} refused; {report.labelled:,} labeled ({report.seconds:.1f} s)"
    )
    for count, noun, what in [
        (report.relabelled, "known image", "relabeled as now stated"),
        (report.moved, "known image", "now read from another file"),
        (
            report.renamed,
            "known image",
            "moved or renamed: same bytes, new path and label",
        ),
        (report.gone, "image", "of the set without a file, kept in the set"),
        (report.changed, "file", "with other content than before, added as new"),
        (report.duplicates, "image", "with the same bytes as another one"),
    ]:
        if count:
            click.echo(f"  {counted(count, noun)} {what}")
    for note in report.notes:
        click.echo(f"  note: {note}")
    _say_layout(report.layout)
    for refusal in report.refused:
        click.echo(f"  refused {refusal.name}: {refusal.reason}", err=True)


@images.command("list")
def list_sets() -> None:
    """List the image sets."""
    from db.queries.inventory import image_sets

    atlas, _ = open_stores()
    print_table(atlas.fetch(image_sets()), "No image set yet: convscope images import NAME PATH")


@images.command("show")
@click.argument("name")
@click.argument("image_id", metavar="ID", type=click.IntRange(0))
def show_image(name: str, image_id: int) -> None:
    """Show image ID of set NAME."""
    from db.queries.images import image

    atlas, store = open_stores()
    rows = atlas.fetch(image(name, image_id))
    if not rows:
        check_set(atlas, name)
        raise CommandFailed(f"there is no image {image_id} in image set {name!r}; {known_sets(atlas)}")
    row = rows[0]
    row["file"] = str(store.original_path(row["path"]))
    print_fields(row)


@images.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def remove_set(name: str, yes: bool) -> None:
    """Remove set NAME with its runs, jobs, maps and attacks. Your original files are not touched."""
    from db.queries.set_changes import dependents_of, remove_image_set

    atlas, store = open_stores()
    ledger = open_ledger()
    found = dependents_of(atlas, ledger, name)
    results = [
        counted(count, noun) for count, noun in [(found.maps, "map"), (found.attacks, "attack")] if count
    ]
    what = f"{name} ({counted(found.images, 'image')})" + (
        f", its {' and '.join(results)}" if results else ""
    )
    what += f" and its runs by {', '.join(found.runs)}" if found.runs else ""
    if not yes:
        click.confirm(f"Remove {what}?", abort=True, err=True)
    remove_image_set(atlas, store, ledger, name)
    click.echo(f"removed {what}")


@images.command("rename")
@click.argument("name")
@click.argument("new")
def rename_images(name: str, new: str) -> None:
    """Rename set NAME to NEW, in the atlas and in all results."""
    from db.queries.set_changes import rename_set

    atlas, store = open_stores()
    rename_set(atlas, store, open_ledger(), name, new)
    click.echo(f"{name} is {new} now")


@images.command("describe")
@click.argument("name")
@click.argument("text")
def describe_images(name: str, text: str) -> None:
    """Store TEXT as the description of set NAME; the Images page shows it."""
    from db.queries.set_changes import describe_set

    atlas, _ = open_stores()
    describe_set(atlas, open_ledger(), name, text)
