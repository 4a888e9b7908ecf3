"""`convscope saliency`, `attack` and `ablate`: queue a job, and optionally wait for it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from commands.jobs import queue_job
from commands.models import check_model, load
from commands.output import CommandFailed, ListingCommand
from commands.stores import check_set, named_values, open_ledger, open_stores
from db.settings import read_settings

if TYPE_CHECKING:
    from db.atlas.store import Atlas
    from db.ledger.engine import Ledger
    from workers.requests.models import ModelRef
    from workers.requests.parameters import MethodDescription


def _rows(methods: "Iterable[MethodDescription]") -> list[tuple[str, str]]:
    return [
        (method.name, ", ".join(f"{p.name}={p.default}" for p in method.parameters)) for method in methods
    ]


def _methods() -> list[tuple[str, str]]:
    from workers.attribution.registry import METHODS

    return _rows(METHODS.values())


def _attacks() -> list[tuple[str, str]]:
    from workers.attacks.registry import ATTACKS

    return _rows(ATTACKS.values())


_LISTED = "Methods and their parameters, with defaults"
_several_models = click.option(
    "--model", "models", multiple=True, required=True, help="Model; may be repeated."
)
_set_of_images = click.option(
    "--images", "image_set", required=True, help="An image set: `convscope images list`."
)
_other_parameters = click.option(
    "--set", "settings_", multiple=True, metavar="NAME=VALUE", help="Another parameter of the method."
)
_queue_option = click.option(
    "--queue",
    type=click.Choice(["interactive", "batch"]),
    default="batch",
    show_default=True,
    help="interactive passes batch.",
)


@click.command(cls=ListingCommand, title=_LISTED, rows=_methods)
@_several_models
@_set_of_images
@click.option("--ids", required=True, help="Image numbers such as 0,1,4-7.")
@click.option("--method", default="smoothgrad", show_default=True, help="One of those listed below.")
@click.option("--samples", type=int, help="Maximum number of noisy copies of the image (smoothgrad).")
@click.option("--seed", type=int, help="Random seed of the noise (smoothgrad).")
@_other_parameters
@click.option(
    "--target",
    default="prediction",
    show_default=True,
    help="Class to explain: prediction, label or an index.",
)
@_queue_option
@click.option("--wait", is_flag=True, help="Show progress, and end as the job ends.")
def saliency(
    models: tuple[str, ...],
    image_set: str,
    ids: str,
    method: str,
    samples: int | None,
    seed: int | None,
    settings_: tuple[str, ...],
    target: str,
    queue: str,
    wait: bool,
) -> None:
    """Queue saliency maps of images for models, and print the job's number.

    A running worker computes them (`convscope run` has one); the Saliency page shows them. The same request
    twice is one job.
    """
    from workers.attribution.registry import parse_method
    from workers.requests.images import image_keys, parse_ids
    from workers.requests.saliency import parse_target, saliency_job

    parameters = named_values(settings_)
    parameters |= {name: value for name, value in [("samples", samples), ("seed", seed)] if value is not None}
    atlas, _ = open_stores()
    # cheap checks first: loading a model takes seconds
    parse_method(method, parameters)
    parse_target(target)
    chosen = parse_ids(ids)
    image_keys(atlas, image_set, chosen)
    new = saliency_job(
        atlas,
        models=model_references(atlas, models),
        image_set=image_set,
        image_ids=chosen,
        method=method,
        parameters=parameters,
        target=target,
        queue=queue,
    )
    queue_job(open_ledger(), new, wait=wait)


def model_references(atlas: "Atlas", models: "Sequence[str]") -> "list[ModelRef]":
    """The models of a request: indexed ones as they are, others by loading each once for its digest.

    All names are checked before the first model is loaded.
    """
    from workers.requests.models import ModelRef, indexed_models

    known = indexed_models(atlas)
    for model in models:
        if model not in known:
            check_model(model)
    references = []
    for model in dict.fromkeys(models):
        if model in known:
            references.append(known[model])
        else:
            network = load(model)
            digest = network.digest(network.weights_sha256())
            references.append(ModelRef(network.name, network.source, digest))
    return references


@click.command(cls=ListingCommand, title=_LISTED, rows=_attacks)
@_several_models
@_set_of_images
@click.option("--ids", help="Image numbers such as 0,1,4-7 (default: all images of the set).")
@click.option(
    "--where",
    metavar="SQL",
    help="Images that satisfy a SQL condition on name, label, wnid, split, width, height, bytes and, from "
    "the first model's run, predicted, probability and verdict (right, wrong, unlabelled).",
)
@click.option("--method", default="fgsm", show_default=True, help="One of those listed below.")
@click.option("--epsilon", type=float, help="Test one epsilon instead of searching, for pixels in [0, 1].")
@click.option(
    "--grid",
    type=click.Choice(["geometric", "linear"]),
    help="Grid of the search. geometric: from 1/4080 up by a factor of 1.5 (--set ratio=), then the gap "
    "below the first success in 8 parts (--set parts=). linear: every multiple of --step. Default: "
    "geometric, or linear with --step or on 8-bit levels.",
)
@click.option("--step", type=float, help="Step between epsilons of a linear grid (default: 0.001).")
@click.option("--max", "cap", type=float, help="Largest epsilon of the search (default: 0.5).")
@click.option(
    "--relative-to",
    type=click.Choice(["prediction", "label"]),
    default="prediction",
    show_default=True,
    help="The class to leave.",
)
@click.option("--target", type=int, help="Index of a target class instead.")
@_other_parameters
@_queue_option
@click.option("--wait", is_flag=True, help="Show progress until the job ends, then report the results.")
def attack(
    models: tuple[str, ...],
    image_set: str,
    ids: str | None,
    where: str | None,
    method: str,
    epsilon: float | None,
    grid: str | None,
    step: float | None,
    cap: float | None,
    relative_to: str,
    target: int | None,
    settings_: tuple[str, ...],
    queue: str,
    wait: bool,
) -> None:
    """Queue attacks on images: the smallest epsilon that changes a model's prediction. Prints the job's number.

    A running worker computes them and stores each image when it is done; the Attack and Robustness pages show them.
    Cancelling keeps finished results; the same request again, or one with more images, computes only what is missing.
    """
    from workers.attacks.registry import parse_attack
    from workers.requests.attacks import MAX_ATTACKS, attack_job
    from workers.requests.images import image_keys, parse_ids

    if ids is not None and where is not None:
        raise click.UsageError("expected only one of --ids and --where, got both")
    parameters = named_values(settings_)
    given = {"epsilon": epsilon, "grid": grid, "step": step, "cap": cap}
    parameters |= {name: value for name, value in given.items() if value is not None}
    if epsilon is not None:
        parameters.setdefault("mode", "fixed")
    atlas, _ = open_stores()
    parse_attack(method, parameters)
    image_keys(atlas, image_set, parse_ids(ids, most=MAX_ATTACKS) if ids is not None else [])
    references = model_references(atlas, models)
    ledger = open_ledger()
    chosen = (
        parse_ids(ids, most=MAX_ATTACKS)
        if ids is not None
        else _images_where(atlas, ledger, image_set, references[0].name, where or "true")
    )
    new = attack_job(
        atlas,
        models=references,
        image_set=image_set,
        image_ids=chosen,
        method=method,
        parameters=parameters,
        relative_to=relative_to,
        target=target,
        queue=queue,
    )
    job = queue_job(ledger, new, wait=wait)
    if wait:
        _say_attacks(ledger, job)


def _images_where(atlas: "Atlas", ledger: "Ledger", image_set: str, model: str, condition: str) -> list[int]:
    from db.atlas.runs import run_of
    from db.queries.conditions import images_matching
    from db.sql.child import SQLFailed
    from db.sql.guard import RefusedSQL
    from db.sql.runner import SQLRunner
    from workers.requests.attacks import MAX_ATTACKS

    runs = atlas.fetch(run_of(model, image_set))
    runner = SQLRunner(read_settings(), atlas, ledger)
    try:
        number = runs[0]["run"] if runs else None
        chosen, more = images_matching(runner, image_set, number, condition, most=MAX_ATTACKS)
    except (RefusedSQL, SQLFailed) as error:
        raise click.BadParameter(str(error), param_hint="--where") from error
    finally:
        runner.close()
    if more:
        raise CommandFailed(f"--where: more than {MAX_ATTACKS:,} images match, the maximum for one job")
    if not chosen:
        check_set(atlas, image_set)
        raise CommandFailed(f"--where: {condition!r} is true for no image of {image_set}")
    return chosen


def _say_attacks(ledger: "Ledger", job: int) -> None:
    """Print a summary of a job's attacks."""
    from db.queries.attacks import job_attacks

    found = job_attacks(ledger, job)
    flipped, resisted, impossible = (
        sum(row["outcome"] == outcome for row in found) for outcome in ("flipped", "resisted", "no_gradient")
    )
    # neither a success at epsilon 0 nor one at a fixed epsilon locates an image's smallest epsilon
    already = sum(row["epsilon"] == 0 for row in found)
    searched = [
        (float("inf") if row["epsilon"] is None else row["epsilon"], row["at_most"])
        for row in found
        if row["outcome"] != "no_gradient" and row["epsilon"] != 0 and row["grid"] != "fixed"
    ]
    told = (
        f"{flipped - already:,} changed, {resisted:,} resisted up to the cap, {impossible:,} had no gradient"
        f"{f', {already:,} needed no change' if already else ''}"
    )
    if searched:
        median, at_most = sorted(searched)[(len(searched) - 1) // 2]
        if median < float("inf"):
            told += f"; median smallest epsilon {'at most ' if at_most else ''}{median:.4g} ({median * 255:.2f}/255)"
    click.echo(told)


@click.command()
@click.argument("attacks", metavar="ATTACKS")
@click.option("--channels", type=int, default=10, show_default=True, help="How many channels are clamped.")
@click.option(
    "--draws",
    type=int,
    default=20,
    show_default=True,
    help="Number of random draws; fewer than 19 give no verdict.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for the channels.")
@click.option(
    "--layer",
    default="",
    help="Use the channels of this layer, or of any module by its path (`convscope models show --maps` "
    "lists them; default: all layers of the index).",
)
@_queue_option
@click.option("--wait", is_flag=True, help="Show progress until the job ends, then print the verdicts.")
def ablate(attacks: str, channels: int, draws: int, seed: int, layer: str, queue: str, wait: bool) -> None:
    """Queue a test of which channels carry attacks (numbers such as 1,4-7). Prints the job's number.

    The channels that an attack shifts most are clamped to the mean of their clean map, and the search is repeated,
    as well as with random draws of as many live channels of the same layers. They carry the attack where clamping
    them raises the smallest successful epsilon more than clamping the random ones does.
    """
    from db.queries.attacks import job_ablations
    from workers.requests.followups import MAX_FOLLOWED, ablation_job
    from workers.requests.images import parse_ids

    ledger = open_ledger()
    atlas, _ = open_stores()
    numbers = parse_ids(attacks, most=MAX_FOLLOWED, name="attacks")
    new = ablation_job(
        ledger, atlas, numbers, channels=channels, draws=draws, seed=seed, layer=layer, queue=queue
    )
    job = queue_job(ledger, new, wait=wait)
    if wait:
        for row in job_ablations(ledger, job):
            click.echo(f"attack {row['attack']}: {row['verdict'].replace('_', ' ')}: {row['reason']}")
