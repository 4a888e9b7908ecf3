"""A complete training run: stages, cached views and teacher outputs, log, and files written after each epoch."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from precompute.demo.data import Images, larger_images, tiny_imagenet
from precompute.demo.epoch import train_epoch
from precompute.demo.evaluate import measure
from precompute.demo.recipe import KEPT_EPOCHS, LOG_FIELDS, TEACHER, Recipe
from precompute.demo.run import Run
from precompute.demo.teacher import Answers, ask, classifier_of
from workers.models.vision import VisionModel, load_model

STATE = "state.pt"  # in the work folder: the run after its latest epoch


def train_run(run: Run, stages: Sequence[Recipe], data: Path, work: Path, *, until: int | None) -> None:
    """Train until the end of the last stage, or until epoch `until`; prints and saves each epoch.

    Args:
        run: may be at any epoch of any stage.
    """
    teacher = load_model(TEACHER)
    validation, teachers_validation = _stored(
        work / "validation.npz",
        lambda: tiny_imagenet(data, "val", stages[0].large_side),
        teacher,
        quick=False,
    )
    epochs = sum(recipe.epochs for recipe in stages)
    until = min(until or epochs, epochs)
    while len(run.log) < until:
        ended = len(run.log) - run.begun == run.recipe.epochs
        recipe = stages[stages.index(run.recipe) + 1] if ended else run.recipe
        views = work / f"stage-{stages.index(recipe) + 1}.npz"
        images, answers = _stored(views, partial(_training_images, data, recipe), teacher, quick=True)
        if ended:
            run = Run.following(run, recipe, images, answers, classifier_of(teacher))
        while len(run.log) < min(until, run.begun + recipe.epochs):
            began = time.monotonic()
            line = train_epoch(run, images, answers)
            numbers = measure(run.average, validation, teachers_validation.probabilities)
            line |= {name: numbers[name] for name in ("top1", "agreement")}
            line["seconds"] = time.monotonic() - began
            run.log.append(line)
            run.save(work / STATE)
            if len(run.log) in KEPT_EPOCHS:
                small = {name: weight.half() for name, weight in run.average.state_dict().items()}
                torch.save(small, work / f"epoch-{len(run.log):03d}.pt")
            click.echo("  ".join(f"{name} {line[name]:.4g}" for name in LOG_FIELDS))


def _training_images(data: Path, recipe: Recipe) -> Images:
    parts = tiny_imagenet(data, "train", recipe.view_side), larger_images(data, recipe)
    return Images(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts])
    )


def _stored(
    path: Path, read: Callable[[], Images], teacher: VisionModel, *, quick: bool
) -> tuple[Images, Answers]:
    """Images and the teacher's outputs, loaded from the file, which is computed first if it is missing."""
    if not path.exists():
        images = read()
        click.echo(f"{path.stem}: {len(images):,} views read; asking the teacher")
        answers = ask(teacher, images, quick=quick)
        part = path.with_suffix(".part.npz")
        np.savez(part, pixels=images.pixels, labels=images.labels, **vars(answers))
        part.rename(path)
    with np.load(path) as file:
        return Images(file["pixels"], file["labels"]), Answers(file["features"], file["probabilities"])
