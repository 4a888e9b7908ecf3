"""`convscope models doctor`: does a model get the input that its weights expect?"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from commands.models import check_model, load, print_labels
from commands.output import CommandFailed, print_table, print_unreadable, progress_bar
from commands.stores import check_set, known_sets, open_stores, restart_for_torch

if TYPE_CHECKING:
    pass


@click.command("doctor")
@click.argument("spec")
@click.option("--images", "image_set", required=True, help="A labeled image set.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Maximum number of images to examine.",
)
def doctor(spec: str, image_set: str, limit: int) -> None:
    """Check the accuracy and preprocessing of model SPEC on labeled images.

    Reports top-1 and top-5, tries labels shifted by one and common means and standard deviations, and
    states in one sentence what looks wrong. First reports how many labels match classes of the model, and how.
    """
    atlas, store = open_stores()
    check_set(atlas, image_set)
    check_model(spec)
    restart_for_torch()
    from db.atlas.image_sets import labelled_images
    from db.stores.decoding import UnreadableImage
    from workers.jobs.set_labels import match_set
    from workers.jobs.stored_images import StoredImage, read_image
    from workers.models.doctor import diagnose

    rows = atlas.fetch(labelled_images(image_set, limit))
    if not rows:
        raise CommandFailed(f"image set {image_set!r} has no labeled images; {known_sets(atlas)}")
    model = load(spec)
    matched = match_set(atlas, model.vocabulary, model=model.name, image_set=image_set)
    classes = {one.match.label.key: one.match.index for one in matched}
    indices = [classes[row["wnid"] or row["label"]] for row in rows]
    known = [(row, index) for row, index in zip(rows, indices, strict=True) if index is not None]
    print_labels([one.row(model.vocabulary) for one in matched], model.name, image_set)
    if not known:
        raise CommandFailed(
            f"no label of {image_set!r} is a class of {model.name}; its vocabulary is {model.vocabulary.name}"
        )
    unreadable: list[str] = []
    with progress_bar(f"Examining {model.name}", "images") as progress:

        def pictures() -> Iterator[tuple[Any, int]]:
            for done, (row, index) in enumerate(known):
                progress(done, len(known))
                try:
                    yield read_image(store, StoredImage(**row), model.preprocessing), index
                except UnreadableImage as error:
                    unreadable.append(f"{row['name']}: {error.reason}")
            if len(unreadable) == len(known):
                raise CommandFailed(
                    f"no labeled image of {image_set!r} can be read; the first is {unreadable[0]}"
                )
            progress(len(known), len(known))

        diagnosis = diagnose(model, pictures())
    print_unreadable(unreadable)
    click.echo(
        f"{model.name} on {diagnosis.images:,} labeled images of {image_set}: "
        f"top-1 {diagnosis.top1:.1%}, top-5 {diagnosis.top5:.1%}\n"
    )
    print_table(
        [
            {
                "mean and std": trial.normalization,
                "label offset": f"{trial.offset:+d}",
                "images": trial.images,
                "top-1": f"{trial.top1:.1%}",
                "top-5": f"{trial.top5:.1%}",
                "loss": f"{trial.loss:.3f}",
            }
            for trial in diagnosis.trials
        ],
        "",
    )
    click.echo(f"\n{diagnosis.sentence}")
    if not diagnosis.healthy:
        sys.exit(1)
