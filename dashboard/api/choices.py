"""Lookups for request forms (images, classes, labels), as JSON below `/choices/`."""

import flask

from dashboard.api.answers import answer, error_response, number, words
from dashboard.pictures import heat
from dashboard.state.address import ImagesAddress
from dashboard.state.context import current
from dashboard.state.image_choices import choose_images, images_where
from db.queries.images import image_classes
from db.queries.inventory import classes_of
from workers.requests.images import short_ids
from workers.requests.parameters import MAX_NUMBER, InvalidRequest

MOST = 240

choices = flask.Blueprint("choices", __name__, url_prefix="/choices")
choices.register_error_handler(InvalidRequest, error_response)


@choices.get("/ids.json")
def ids() -> flask.Response:
    """Ids of `n` images that match the filters of the Images page: the first, or random ones with a `seed`."""
    context = current()
    wanted = number("n", 6, low=1, high=MOST)
    address, problems = ImagesAddress.read(flask.request.query_string.decode(errors="replace"))
    if problems:
        raise InvalidRequest(next(iter(problems.values())))
    seed = number("seed", 0, low=0, high=MAX_NUMBER) if "seed" in flask.request.args else None
    chosen = choose_images(context, address, wanted, seed=seed)
    return answer({"ids": short_ids(chosen), "images": len(chosen)})


@choices.get("/where.json")
def where() -> flask.Response:
    """Ids of the images of a set that satisfy a condition; without one, of all its images."""
    condition = flask.request.args.get("where", "").strip()
    chosen = images_where(current(), words("model"), words("images"), condition)
    return answer({"ids": short_ids(chosen), "images": len(chosen)})


@choices.get("/classes.json")
def classes() -> flask.Response:
    """Class names of a model in index order."""
    rows = current().atlas.fetch(classes_of(words("model")))
    return answer({"classes": [row["name"] for row in rows]})


@choices.get("/labels.json")
def labels() -> flask.Response:
    """Labels that occur in a set: filter key, name, and number of images."""
    rows = current().atlas.fetch(image_classes(words("images")))
    found = [{"label": row["class"], "name": row["label"], "images": row["images"]} for row in rows]
    return answer({"labels": found})


@choices.get("/colours.json")
def colours() -> flask.Response:
    """Color tables for the painter of maps, and which of them signed and unsigned maps have."""
    tables = {name: list(table) for name, table in heat.COLOUR_MAPS.items()}
    return answer({"tables": tables, "diverging": heat.DIVERGING, "plain": heat.PLAIN})
