"""`convscope models`: list and show models, and decide which class each label of an image set matches."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.output import CommandFailed, print_fields, print_table, printable
from commands.stores import check_set, open_stores, restart_for_torch
from db.settings import read_settings

if TYPE_CHECKING:
    from workers.layers.receptive_field.fields import ReceptiveField
    from workers.layers.taps import Tap
    from workers.models.vision import VisionModel


@click.group()
def models() -> None:
    """List, show and check models."""


@models.command("list")
def list_models() -> None:
    """List the named models and the forms of specification."""
    from workers.models.names import NAMED_MODELS

    rows = [
        {"model": name, "source": known.spec, "what": known.title} for name, known in NAMED_MODELS.items()
    ]
    print_table(rows, "")
    click.echo(
        "\nAny other model by its specification: hf:ORG/NAME, torchvision:NAME, timm:NAME, or a folder."
    )


@models.command("show")
@click.argument("spec")
@click.option("--dot", is_flag=True, help="Print the architecture as Graphviz DOT instead.")
@click.option(
    "--maps", is_flag=True, help="List the feature maps that Grad-CAM can use: any module's output."
)
def show_model(spec: str, dot: bool, maps: bool) -> None:
    """Show the preprocessing and layers of model SPEC, and which layers are left out and why."""
    check_model(spec)
    from workers.layers.drawing import to_dot
    from workers.layers.receptive_field.fields import receptive_fields
    from workers.layers.taps import by_reason, find_left_out, find_taps, tap_edges

    model = load(spec)
    taps = find_taps(model)
    if dot:
        click.echo(to_dot(model.name, taps, tap_edges(model, taps)), nl=False)
        return
    if maps:
        print_table(_maps_in_words(model, taps), "No module of this model returns a map.")
        return
    pre = model.preprocessing
    print_fields(
        {
            "model": model.name,
            "source": model.source,
            "architecture": model.architecture,
            "parameters": f"{model.parameter_count:,}",
            "input": f"{pre.input_size[0]} x {pre.input_size[1]} pixels, {'RGB' if pre.channels == 3 else 'gray'}",
            "resize": f"{_resize_in_words(pre.resize, pre.fit)}, {pre.interpolation}, then the center",
            "mean": ", ".join(f"{value:g}" for value in pre.mean),
            "std": ", ".join(f"{value:g}" for value in pre.std),
            "preprocessing from": model.preprocessing_source,
            "vocabulary": f"{model.vocabulary.name} ({len(model.vocabulary.classes):,} classes)",
            "classes from": model.vocabulary_source,
            **({"note": model.preprocessing_note} if model.preprocessing_note else {}),
            **({"output": model.head_note} if model.head_note else {}),
        }
    )
    for note in model.notes:
        click.echo(f"  {note[0].upper()}{note[1:]}.")
    fields = receptive_fields(model, taps)
    rows = []
    for tap in taps:
        field = fields[tap.layer]
        rows.append(
            {
                "layer": tap.layer,
                "what": tap.description,
                "channels": tap.channels,
                "map": f"{tap.height} x {tap.width}",
                "field": _field_in_words(field),
                "jump": "" if field.jump is None else f"{field.jump[0]:g}",
            }
        )
    click.echo()
    print_table(rows, "No layer of this model has separate channels and positions.")
    left_out = find_left_out(model)
    if left_out:
        click.echo(f"\nLeft out: {len(left_out)} {'layer' if len(left_out) == 1 else 'layers'}.")
        for reason, modules in by_reason(left_out).items():
            click.echo(f"  {len(modules)} x {reason}:\n    {', '.join(modules)}")


def _maps_in_words(model: "VisionModel", taps: "Sequence[Tap]") -> list[dict[str, Any]]:
    """Each module's map, and how much of it reaches the class."""
    from workers.layers.module_maps import default_map, module_maps

    maps = module_maps(model, taps)
    default = default_map(maps)
    layers = {(tap.module, tap.call): tap.layer for tap in taps}
    return [
        {
            "module": found.name,
            "layer": layers.get((found.module, found.call), ""),
            "kind": found.kind,
            "channels": found.channels,
            "map": f"{found.height} x {found.width}",
            "reaches the class": f"{found.reached} of {found.height * found.width} positions",
            "holds": ("all of it" if found.whole else "a part") + (", default" if found == default else ""),
        }
        for found in maps
    ]


def _field_in_words(field: "ReceptiveField") -> str:
    words = "global" if field.size is None else f"{field.size[0]} x {field.size[1]}"
    return words if field.exact else f"at most {words}"


def _resize_in_words(resize: int | tuple[int, int], fit: str) -> str:
    if isinstance(resize, int):
        return f"shortest side to {resize}"
    size = f"{resize[0]} x {resize[1]}"
    return {"exact": f"to {size}", "cover": f"to cover {size}", "contain": f"to fit into {size}"}[fit]


LABELS_SHOWN = 20


def print_labels(rows: list[dict[str, Any]], model: str, image_set: str) -> None:
    """Print how many labels of a set match a model's classes, and which do not."""
    from db.queries.labels import in_words

    click.echo(in_words(rows, model))
    left = [row for row in rows if row["how"] in ("ambiguous", "none")]
    for row in sorted(left, key=lambda row: row["how"] != "ambiguous")[:LABELS_SHOWN]:
        may = f"may be {', '.join(row['candidates'])}" if row["candidates"] else "is not a class"
        noun = "image" if row["images"] == 1 else "images"
        click.echo(f"  {printable(row['label'] or row['wnid'])} ({row['images']:,} {noun}) {may}")
    if len(left) > LABELS_SHOWN:
        click.echo(f"  and {len(left) - LABELS_SHOWN:,} more")
    if left:
        click.echo(f"To set them: convscope models map-labels {model} --images {image_set}")
    click.echo()


@models.command("map-labels")
@click.argument("spec")
@click.option("--images", "image_set", required=True, help="An image set with labels.")
@click.option(
    "--set",
    "given",
    nargs=2,
    multiple=True,
    metavar="LABEL CLASS",
    help='Label of the set (name or WordNet id) and its class (index, WordNet id or name; "" for none).',
)
@click.option(
    "--from",
    "table",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV file with columns label and class, as printed by --csv.",
)
@click.option("--unset", "unset", multiple=True, metavar="LABEL", help="Discard the match set for a label.")
@click.option("--clear", is_flag=True, help="Discard all matches that were set.")
@click.option("--csv", "as_csv", is_flag=True, help="Print label, class, class_name, how and images as CSV.")
def map_labels(
    spec: str,
    image_set: str,
    given: tuple[tuple[str, str], ...],
    table: Path | None,
    unset: tuple[str, ...],
    clear: bool,
    as_csv: bool,
) -> None:
    """Show which class of model SPEC each label of a set matches, and set ambiguous matches.

    Matches that you set are stored in the atlas. Attacks and saliency maps use them at once; predictions and accuracies
    follow when the set is indexed again (`convscope index --replace`).
    """
    from db.queries.labels import keep_choices, settled_labels
    from db.suggestions import choices as suggested
    from workers.jobs.set_labels import match_set, settled_from, stored_vocabulary
    from workers.models.names import model_name

    atlas, _ = open_stores()
    check_set(atlas, image_set)
    vocabulary = stored_vocabulary(atlas, name := spec) or stored_vocabulary(atlas, name := model_name(spec))
    if vocabulary is None:
        model = load(spec)
        name, vocabulary = model.name, model.vocabulary
    found = match_set(atlas, vocabulary, model=name, image_set=image_set)
    wanted = (_label_rows(table) if table is not None else {}) | dict(given)
    settled = settled_labels(atlas, name, image_set)
    try:
        choices = settled_from(vocabulary, found, wanted)
        forgotten = (
            list(settled) if clear else list(settled_from(vocabulary, found, dict.fromkeys(unset, "")))
        )
    except KeyError as error:
        known = [one.match.label.label or one.match.label.key for one in found]
        raise CommandFailed(
            f"{image_set!r} has no label {error.args[0]!r}; {suggested(error.args[0], known)}"
        ) from error
    if choices or forgotten:
        with atlas.publish() as connection:
            keep_choices(connection, name, image_set, choices, forget=forgotten)
        found = match_set(atlas, vocabulary, model=name, image_set=image_set)
    rows = [one.row(vocabulary) for one in found]
    if as_csv:
        _print_label_csv(rows)
        return
    if not rows:
        raise CommandFailed(f"no image of {image_set!r} has a label")
    print_table(
        [
            {
                "label": printable(row["label"] or row["wnid"]),
                "images": row["images"],
                "how": row["how"],
                "class": "" if row["class_index"] is None else f"{row['class_index']} {row['class']}",
                "may be": ", ".join(row["candidates"]),
            }
            for row in rows
        ],
        "",
    )
    click.echo()
    print_labels(rows, name, image_set)
    if choices or forgotten:
        click.echo(
            f"Saved. Predictions follow with: convscope index --model {spec} --images {image_set} --replace"
        )


def _label_rows(path: Path) -> dict[str, str]:
    """Classes by label, from a CSV file."""
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"label", "class"} <= set(reader.fieldnames or ()):
                raise CommandFailed(
                    f"{path}: expected the columns label and class, got {', '.join(reader.fieldnames or ()) or 'none'}"
                )
            # a label that --csv printed without a class has not been decided
            return {
                row["label"]: row["class"] or ""
                for row in reader
                if row["class"] or row.get("how") in (None, "", "settled")
            }
    except (UnicodeDecodeError, csv.Error) as error:
        raise CommandFailed(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _print_label_csv(rows: list[dict[str, Any]]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["label", "class", "class_name", "how", "images"])
    for row in rows:
        writer.writerow(
            [row["wnid"] or row["label"], row["class_index"], row["class"], row["how"], row["images"]]
        )


def check_model(spec: str, name: str | None = None) -> None:
    """Check a model's name before loading torch, which takes seconds."""
    from workers.models.names import name_problem, spec_problem

    problem = spec_problem(spec, read_settings().home / "models") or name_problem(name)
    if problem is not None:
        raise CommandFailed(problem)


def load(spec: str, *, name: str | None = None) -> "VisionModel":
    check_model(spec, name)
    restart_for_torch()
    from workers.models.vision import load_model

    settings = read_settings()
    return load_model(
        spec, name=name, hub_timeout=settings.hub_timeout, models_folder=settings.home / "models"
    )
