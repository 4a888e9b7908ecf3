"""Opening the stores, and name checks that several commands share."""

from typing import TYPE_CHECKING, Any

import click

from commands.output import CommandFailed
from db.plurals import count as counted
from db.settings import read_settings

if TYPE_CHECKING:
    from db.atlas.store import Atlas
    from db.ledger.engine import Ledger
    from db.stores.images import ImageStore


def known_sets(atlas: "Atlas", given: str = "") -> str:
    from db.queries.inventory import image_sets
    from db.suggestions import meant

    rows = atlas.fetch(image_sets())
    if not rows:
        return "there is no image set yet: run convscope images import NAME PATH"
    near = meant(given, [row["image_set"] for row in rows]) if given else None
    names = [f"{row['image_set']} ({counted(row['images'], 'image')})" for row in rows]
    return ("" if near is None else f"did you mean {near!r}? ") + "image sets are " + ", ".join(names)


def check_set(atlas: "Atlas", image_set: str) -> None:
    """Check a set's name before loading a model, which takes seconds."""
    from db.atlas.store import NoAtlas
    from db.queries.inventory import image_sets

    try:
        known = any(row["image_set"] == image_set for row in atlas.fetch(image_sets()))
    except NoAtlas as error:
        raise CommandFailed(f"there is no image set {image_set!r}: nothing was imported yet") from error
    if not known:
        raise CommandFailed(f"there is no image set {image_set!r}; {known_sets(atlas, image_set)}")


def open_ledger() -> "Ledger":
    from db.home import open_home

    return open_home(read_settings())


def open_stores() -> tuple["Atlas", "ImageStore"]:
    from db.home import open_atlas
    from db.stores.images import ImageStore

    settings = read_settings()
    return open_atlas(settings), ImageStore(settings)


def restart_for_torch() -> None:
    """Restart the process with settings for torch, unless CONVSCOPE_SPEEDUPS leaves out `runtime`."""
    from workers.models.speedups.runtime import restart_with_settings

    if "runtime" in read_settings().speedups:
        restart_with_settings()


def named_values(given: tuple[str, ...], hint: str = "--set") -> dict[str, Any]:
    """Parse `NAME=VALUE` arguments into a dictionary."""
    values: dict[str, Any] = {}
    for words in given:
        name, equals, value = words.partition("=")
        if not equals:
            raise click.BadParameter(f"expected NAME=VALUE, got {words!r}", param_hint=hint)
        values[name.strip()] = value.strip()
    return values
