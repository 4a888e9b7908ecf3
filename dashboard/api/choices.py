"""Lookups for request forms (images, classes, labels, colors), as JSON below `/choices/`."""

from typing import Annotated, Any, TypedDict

import flask
from msgspec import UNSET, Meta, UnsetType

from dashboard.api.routes import Name
from dashboard.api.routing import Query, Routes
from dashboard.pictures import heat
from dashboard.state.address import ImagesAddress
from dashboard.state.context import current
from dashboard.state.image_choices import choose_images, images_where
from db.queries.images import image_classes
from db.queries.inventory import classes_of
from workers.requests.images import short_ids
from workers.requests.parameters import MAX_NUMBER, InvalidRequest

MOST = 240

choices = Routes("choices", "/choices", {InvalidRequest: 400}, any_query=True)


class ChosenIds(TypedDict):
    """Ids of images as a text such as 0,1,4-7, and their number."""

    ids: str
    images: int


class ModelClasses(TypedDict):
    """Class names of a model."""

    classes: list[str | None]


class SetLabel(TypedDict):
    """A label of a set: its filter key, its name, and its number of images."""

    label: str
    name: str
    images: int


class SetLabels(TypedDict):
    """Labels that occur in a set."""

    labels: list[SetLabel]


class ColorTables(TypedDict):
    """Color tables by name, and which of them signed and unsigned maps have."""

    tables: dict[str, Any]
    diverging: str
    plain: str


class SomeIds(Query):
    """How many images, in addition to the filters of the Images page; with a seed, random ones."""

    n: Annotated[int, Meta(ge=1, le=MOST)] = 6
    seed: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | UnsetType = UNSET


@choices.get("/ids.json", address=ImagesAddress)
def ids(query: SomeIds) -> ChosenIds:
    """Ids of `n` images that match the filters of the Images page: the first, or random ones with a `seed`."""
    address, problems = ImagesAddress.read(flask.request.query_string.decode(errors="replace"))
    if problems:
        raise InvalidRequest(next(iter(problems.values())))
    seed = None if query.seed is UNSET else query.seed
    chosen = choose_images(current(), address, query.n, seed=seed)
    return {"ids": short_ids(chosen), "images": len(chosen)}


class Condition(Query):
    """A condition on images of a set, in SQL."""

    images: Name = ""
    model: Name = ""
    where: str = ""


@choices.get("/where.json")
def where(query: Condition) -> ChosenIds:
    """Ids of the images of a set that satisfy a condition; without one, of all its images."""
    chosen = images_where(current(), query.model, query.images, query.where.strip())
    return {"ids": short_ids(chosen), "images": len(chosen)}


class ModelQuery(Query):
    """A model by name."""

    model: Name = ""


@choices.get("/classes.json")
def classes(query: ModelQuery) -> ModelClasses:
    """Class names of a model in index order."""
    return {"classes": [row["name"] for row in current().atlas.fetch(classes_of(query.model))]}


class SetQuery(Query):
    """An image set by name."""

    images: Name = ""


@choices.get("/labels.json")
def labels(query: SetQuery) -> SetLabels:
    """Labels that occur in a set: filter key, name, and number of images."""
    rows = current().atlas.fetch(image_classes(query.images))
    return {
        "labels": [{"label": row["class"], "name": row["label"], "images": row["images"]} for row in rows]
    }


@choices.get("/colours.json")
def colours() -> ColorTables:
    """Color tables for the painter of maps, and which of them signed and unsigned maps have."""
    tables = {name: list(table) for name, table in heat.COLOUR_MAPS.items()}
    return {"tables": tables, "diverging": heat.DIVERGING, "plain": heat.PLAIN}
