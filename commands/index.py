"""`convscope index`: find the top-k activations of every channel over an image set."""

from typing import TYPE_CHECKING, Any

import click

from commands.models import check_model, load
from commands.output import CommandFailed, print_unreadable, progress_bar, remark
from commands.stores import check_set, open_stores, restart_for_torch
from db.plurals import count as counted

if TYPE_CHECKING:
    from db.atlas.store import Atlas
    from db.stores.images import ImageStore


@click.command()
@click.option("--model", required=True, help="A model's name or specification: `convscope models list`.")
@click.option("--images", "image_set", required=True, help="An image set: `convscope images list`.")
@click.option(
    "--k",
    type=click.IntRange(1, 100),
    default=20,
    show_default=True,
    help="Number of top images kept per channel.",
)
@click.option("--layers", default="*", show_default=True, help="Layers to index, as GLOB or GLOB,GLOB.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the forward pass; use bfloat16 only for previews.",
)
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Batch size (default: by device).")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
@click.option("--resume", is_flag=True, help="Resume from the checkpoint of an earlier run.")
@click.option("--replace", is_flag=True, help="Replace the existing run.")
@click.option(
    "--name", help="Name of the model in tables and pages (default: the name in the specification)."
)
def index(image_set: str, model: str, **options: Any) -> None:
    """Find the k top-activating images of each channel of each layer.

    One forward pass over the set. Stopping it (Ctrl-C, kill) leaves a checkpoint for --resume. The result is
    published at the end, all at once; a running dashboard shows it without restarting.
    """
    from workers.models.names import model_name

    atlas, store = open_stores()
    check_set(atlas, image_set)
    check_model(model, options["name"])
    _check_layers(atlas, options["name"] or model_name(model), options["layers"])
    _index(atlas, store, model=model, image_set=image_set, **options)


def _check_layers(atlas: "Atlas", model: str, patterns: str) -> None:
    """Check that each pattern matches a layer of a previously indexed model."""
    from db.queries.inventory import layers as layers_of
    from workers.requests.image_sets import layers_problem

    problem = layers_problem([row["layer"] for row in atlas.fetch(layers_of(model))], patterns, model)
    if problem is not None:
        raise CommandFailed(problem)


def _index(
    atlas: "Atlas",
    store: "ImageStore",
    *,
    model: str,
    image_set: str,
    name: str | None = None,
    **options: Any,
) -> None:
    restart_for_torch()
    from precompute.index.run import run_index

    network = load(model, name=name)
    with progress_bar(f"Indexing {image_set} with {network.name}", "images") as progress:
        report = run_index(
            atlas, store, model=network, image_set=image_set, progress=progress, say=remark, **options
        )
    click.echo(
        f"run {report.run}: {counted(report.images, 'image')}, {counted(report.layers, 'layer')}, "
        f"{counted(report.channels, 'channel')}, "
        f"{report.images_per_second:.1f} images/s ({report.seconds:.1f} s)"
    )
    print_unreadable([str(entry) for entry in report.unreadable])
    if network.head_note:
        remark(network.head_note)
    if report.unpredicted:
        click.echo(
            f"  the logits of {report.unpredicted:,} of {report.images:,} images are not finite (NaN or infinite): "
            "these images have no prediction",
            err=True,
        )
    if report.nonfinite_channels:
        click.echo(
            f"  {report.nonfinite_channels:,} of {report.channels:,} channels have activations that are not finite: "
            "these are left out of the top-activating patches",
            err=True,
        )
