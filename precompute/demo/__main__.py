"""Training of `convnext-demo`, the ConvNeXt whose weights come with Convscope.

    python -m precompute.demo train --data DATA --work WORK      hours on two cores; resumes an interrupted run
    python -m precompute.demo export --work WORK                 weights, log and curve into the checkout
    python -m precompute.demo evaluate --data DATA               the numbers of the model card

DATA holds `tiny-imagenet-50k.zip`, `imagenette-4500.zip` and `imagenet-sample-1000.tar`; WORK keeps what is
expensive (the images in one array, the teacher's answers) and the state after each epoch.
"""

from dataclasses import replace
from pathlib import Path

import click

from precompute.demo.data import foolbox_photos, imagenette_validation, tiny_imagenet
from precompute.demo.evaluate import CARD_COLUMNS, card_row, measure
from precompute.demo.export import CHECKPOINTS, export_run
from precompute.demo.recipe import STAGES, TEACHER, Recipe
from precompute.demo.run import Run
from precompute.demo.teacher import ask
from precompute.demo.train import STATE, train_run
from workers.models.vision import DEMO_FOLDER, load_model


@click.group(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, export or evaluate the demo model."""


_data = click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)


_work = click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True)


@main.command()
@_data
@_work
@click.option("--seed", default=Recipe.seed, show_default=True)
@click.option("--until", type=int, help="Stop after this epoch; the next call resumes.")
def train(data: Path, work: Path, seed: int, until: int | None) -> None:
    """Train, or resume the run in WORK."""
    work.mkdir(parents=True, exist_ok=True)
    state = work / STATE
    stages = [replace(recipe, seed=seed) for recipe in STAGES]
    run = Run.load(state) if state.exists() else Run.new(stages[0])
    if run.recipe not in stages:
        raise click.UsageError(
            f"the run in {work} has other settings (its seed is {run.recipe.seed}, {seed} was given): "
            "give its seed or another folder"
        )
    train_run(run, stages, data, work, until=until)


@main.command()
@_work
@click.option(
    "--to", default=DEMO_FOLDER, type=click.Path(file_okay=False, path_type=Path), show_default=True
)
@click.option(
    "--checkpoints",
    default=CHECKPOINTS,
    type=click.Path(file_okay=False, path_type=Path),
    show_default=True,
    help="Folder of the checkpoints.",
)
def export(work: Path, to: Path, checkpoints: Path) -> None:
    """Write weights as float16, configuration, log and curve into a model folder, and the checkpoints."""
    export_run(Run.load(work / STATE), work, to, checkpoints)


@main.command()
@_data
def evaluate(data: Path) -> None:
    """Print the model card's table, measured with the weights in the checkout."""
    network = load_model("convnext-demo").network
    teacher = load_model(TEACHER)
    click.echo(f"| images | {' | '.join(CARD_COLUMNS.values())} |\n|{' --- |' * (len(CARD_COLUMNS) + 1)}")
    for name, images in (
        ("Tiny-ImageNet, validation", tiny_imagenet(data, "val")),
        ("Imagenette, ImageNet's validation images", imagenette_validation(data)),
        ("photos from Foolbox", foolbox_photos()),
    ):
        click.echo(card_row(name, measure(network, images, ask(teacher, images).probabilities)))


if __name__ == "__main__":
    main()
