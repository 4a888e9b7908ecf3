"""Data of a page that submits jobs, read from its address: choices and their problems, the request, its job.

The Saliency and Attack pages have the same choices (models, images, a method with its parameters, a class).
They look up a request's job by its content, so a link shows the same to everybody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import flask

from dashboard.api.answers import NotFound
from dashboard.pictures.routes import thumbnail_address
from dashboard.state.address import AttackAddress, ImageAddress, SaliencyAddress
from dashboard.state.context import Catalogue, Context, Record
from dashboard.state.selections import select_run
from db.atlas.store import AtlasError
from db.ledger.engine import LedgerError
from db.ledger.jobs import NewJob
from db.queries.jobs import job_with_key
from db.queries.patches import labelled_classes, pictured
from workers.requests.attacks import MAX_ATTACKS
from workers.requests.images import parse_ids, short_ids
from workers.requests.parameters import InvalidRequest, MethodDescription

FIRST_IMAGES = 3


@dataclass(frozen=True)
class Chosen:
    """The choices in an address; `parameters` contains only those given explicitly."""

    models: Sequence[str]
    image_set: str
    ids: Sequence[int]
    method: str
    parameters: Mapping[str, Any]
    target: str


@dataclass(frozen=True)
class Asked:
    """What a choice requests: the job, the other fields needed to submit it, and its stored rows, from any job."""

    new: NewJob
    rest: Record
    stored: Sequence[Record] = ()


Ask = Callable[[Context, Chosen], Asked]


def read_request(
    context: Context,
    catalogue: Catalogue,
    search: str | None,
    address: SaliencyAddress | AttackAddress,
    problems: dict[str, str],
    methods: Mapping[str, MethodDescription],
    most: int,
    ask: Ask,
    show: Callable[[Record], Mapping[str, Any]],
) -> Record:
    """The page's data for an address.

    `most` limits the results shown; `ask` builds the job; `show` removes server-only fields from a stored
    row.
    """
    given = {
        name.removeprefix("p_"): values[-1]
        for name, values in parse_qs((search or "").lstrip("?")).items()
        if name.startswith("p_")
    }
    models = list(dict.fromkeys(run["model"] for run in catalogue.runs))
    run = catalogue.run(address.model, address.images) or select_run(catalogue, "", "")
    image_set = catalogue.newest_set(address.images or run["image_set"])
    if address.images and image_set != address.images:
        problems["images"] = f"There is no image set “{address.images}”; this is {image_set}."
    images = next(row["images"] for row in catalogue.image_sets if row["image_set"] == image_set)
    chosen = [name for name in address.models.split(",") if name] or [address.model or run["model"]]
    page: Record = {
        "search": search or "",
        "version": catalogue.version,
        "models": models,
        "chosen": chosen,
        "image_set": image_set,
        "images": images,
        "ids": address.ids or short_ids(list(range(min(FIRST_IMAGES, images)))),
        "method": address.method,
        "parameters": {},
        "target": address.target,
        "request": None,
        "job": None,
        "stored": [],
        "rows": [],
    }
    try:
        ids = parse_ids(page["ids"], most=MAX_ATTACKS)
        shown = ids[: most // max(1, len(chosen))]
        runs = [found for model in chosen if (found := catalogue.run(model, image_set))]
        page["rows"] = rows(context, image_set, shown, address.model, runs)
        asked = ask(context, Chosen(chosen, image_set, ids, address.method, given, address.target))
        request = asked.new.parameters
        page["parameters"] = request["parameters"]
        page["request"] = {
            "models": [model["name"] for model in request["models"]],
            "images": image_set,
            "ids": page["ids"],
            "method": request["method"],
            "parameters": request["parameters"],
            **asked.rest,
        }
        page["stored"] = [show(row) for row in asked.stored]
        found = job_with_key(context.ledger, asked.new.key)
        page["job"] = None if found is None else found["job"]
    except InvalidRequest as error:
        problems["request"] = str(error)
        if address.method in methods:
            page["parameters"] = {p.name: p.default for p in methods[address.method].parameters} | given
    except LedgerError as error:
        problems["ledger"] = f"{error}."
    return page | {"problems": problems}


def chosen_here(
    context: Context, read: Callable[[Context, Catalogue, str | None], Record]
) -> tuple[Record, Chosen]:
    """The page's data for the current query string, as returned by `read`, and its choices.

    Raises:
        AtlasError, LedgerError: a store cannot be read at the moment.
        NotFound: no model has been indexed.
        InvalidRequest: part of the request is invalid.
    """
    catalogue = context.catalogue()
    if catalogue.trouble:
        raise AtlasError(catalogue.trouble)
    if not catalogue.runs:
        raise NotFound("no model was indexed yet")
    page = read(context, catalogue, flask.request.query_string.decode(errors="replace"))
    problems = page["problems"]
    if "ledger" in problems:
        raise LedgerError(problems["ledger"].rstrip("."))
    for problem in problems.values():
        raise InvalidRequest(problem.rstrip("."))
    ids = parse_ids(page["ids"], most=MAX_ATTACKS)
    return page, Chosen(
        page["chosen"], page["image_set"], ids, page["method"], page["parameters"], page["target"]
    )


def rows(
    context: Context, image_set: str, ids: Sequence[int], model: str, runs: Sequence[Record]
) -> list[Record]:
    """The images in the requested order; those missing from the set are omitted.

    `classes` maps models to the label's class index. A model is missing if it does not have the class, or was
    not run over this set: that does not count as wrong. Names are not compared, since two classes may share
    one.
    """
    found = {row["image_id"]: row for row in context.atlas.fetch(pictured(image_set, list(ids)))}
    classes: dict[int, dict[str, int]] = {image: {} for image in ids}
    for run in runs:
        for row in context.atlas.fetch(labelled_classes(run["run"], list(ids))):
            classes[row["image_id"]][run["model"]] = row["class_index"]
    there = ImageAddress(model=model, images=image_set)
    return [
        {
            "id": image,
            "label": found[image]["label"],
            "classes": classes[image],
            "thumbnail": thumbnail_address(found[image]["key"]),
            "href": there.href(id=image),
        }
        for image in ids
        if image in found
    ]
