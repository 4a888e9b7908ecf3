"""Images chosen for a request: the first that fit, random ones, or all that satisfy an SQL condition."""

import numpy as np

from dashboard.state.address import ImagesAddress
from dashboard.state.context import Context
from dashboard.state.selections import images_query
from db.queries.conditions import images_matching
from db.sql.child import SQLFailed
from db.sql.guard import RefusedSQL
from db.sql.places import TooManyQueries
from workers.requests.attacks import MAX_ATTACKS
from workers.requests.parameters import InvalidRequest


def choose_images(context: Context, address: ImagesAddress, count: int, *, seed: int | None) -> list[int]:
    """Ids of up to `count` images that match the filters of the Images page, random ones if there is a seed."""
    run = context.catalogue().run(address.model, address.images)
    query = images_query(run, address, limit=count if seed is None else None)
    found = [row["image_id"] for row in context.atlas.fetch(query)]
    if seed is None:
        return found
    random = np.random.default_rng(seed)
    chosen = random.choice(np.array(found, int), min(count, len(found)), replace=False)
    return sorted(chosen.tolist())


def images_where(context: Context, model: str, image_set: str, condition: str) -> list[int]:
    """Ids of a set's images that satisfy a condition; an empty one is satisfied by all.

    Raises:
        InvalidRequest: the condition is not valid, or more images satisfy it than a job may have.
    """
    run = context.catalogue().run(model, image_set)
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
    return chosen
