"""Lookups for request forms (images, classes, labels), as JSON below `/choices/`."""

import flask
import numpy as np

from dashboard.api.answers import answer, error_response, number, words
from dashboard.state.address import ImagesAddress
from dashboard.state.context import current
from dashboard.state.selections import images_query
from db.queries.conditions import images_matching
from db.queries.images import image_classes
from db.queries.inventory import classes_of
from db.sql.child import SQLFailed
from db.sql.guard import RefusedSQL
from db.sql.places import TooManyQueries
from workers.requests.attacks import MAX_ATTACKS
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
    run = context.catalogue().run(address.model, address.images)
    if "seed" in flask.request.args:
        query = images_query(run, address, limit=None)
        there = np.array([row["image_id"] for row in context.atlas.fetch(query)], int)
        random = np.random.default_rng(number("seed", 0, low=0, high=MAX_NUMBER))
        chosen = sorted(random.choice(there, min(wanted, len(there)), replace=False).tolist())
    else:
        chosen = [row["image_id"] for row in context.atlas.fetch(images_query(run, address, limit=wanted))]
    return answer({"ids": short_ids(chosen), "images": len(chosen)})


@choices.get("/where.json")
def where() -> flask.Response:
    """Ids of the images of a set that satisfy a condition; without one, of all its images."""
    context = current()
    image_set, condition = words("images"), flask.request.args.get("where", "").strip()
    run = context.catalogue().run(words("model"), image_set)
    try:
        chosen, more = images_matching(
            context.sql,
            image_set,
            None if run is None else run["run"],
            condition or "true",
            most=MAX_ATTACKS,
        )
    except (RefusedSQL, SQLFailed, TooManyQueries) as error:
        raise InvalidRequest(f"where: {error}") from error
    if more:
        raise InvalidRequest(f"where: more than {MAX_ATTACKS:,} images match, the maximum for one job")
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
