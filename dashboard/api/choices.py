"""Lookups for the browser (classes, labels, colors), as JSON below `/choices/`."""

from typing import Any, TypedDict

from dashboard.api.routes import Name
from dashboard.api.routing import Query, Routes
from dashboard.pictures import heat
from dashboard.state.context import current
from db.queries.images import image_classes
from db.queries.inventory import classes_of
from workers.requests.parameters import InvalidRequest

choices = Routes("choices", "/choices", {InvalidRequest: 400}, any_query=True)


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
