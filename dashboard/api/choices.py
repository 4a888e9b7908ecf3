"""Routes that help to choose what a request is about, as JSON below `/choices/`."""

import flask
import numpy as np

from dashboard.api.answers import MAX_NUMBER, answer, error_response, number, words
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
from workers.requests.parameters import InvalidRequest

MOST = 240

choices = flask.Blueprint("choices", __name__, url_prefix="/choices")
choices.register_error_handler(InvalidRequest, error_response)


@choices.get("/ids.json")
def ids() -> flask.Response:
    """Numbers of `n` images of a filter of the Images page: the first, or with a `seed` random ones."""
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
    """Numbers of the images of a set for which a condition holds; all of the set without one."""
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
        raise InvalidRequest(
            f"where: more than {MAX_ATTACKS:,} images are like that, as many as a job may have"
        )
    return answer({"ids": short_ids(chosen), "images": len(chosen)})


@choices.get("/classes.json")
def classes() -> flask.Response:
    """Names of a model's classes in their order."""
    rows = current().atlas.fetch(classes_of(words("model")))
    return answer({"classes": [row["name"] for row in rows]})


@choices.get("/labels.json")
def labels() -> flask.Response:
    """Classes that images of a set are labelled with: the key that a filter takes, the name, how many images."""
    rows = current().atlas.fetch(image_classes(words("images")))
    found = [{"label": row["class"], "name": row["label"], "images": row["images"]} for row in rows]
    return answer({"labels": found})
