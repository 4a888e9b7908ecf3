"""The Saliency page: maps of several images under several models, arriving one by one.

The address holds the request, so a link shows the same maps to everybody; the request finds its job by content.

    address --> show_saliency --> request --(browser)--> controls, grid of maps
    controls --(browser)--> address
    Run, polling, colours, hovering, the large view --(browser)--> /api/…

What is drawn from a map's numbers is drawn in the browser (`assets/heat.js`), so that colours, scale and strength
change without asking anybody.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import components, heat
from dashboard.address import ImageAddress, SaliencyAddress
from dashboard.components import Component
from dashboard.context import Catalogue, Context, Record, current
from dashboard.ids import LOCATION, make_id
from dashboard.pictures import thumbnail_address
from dashboard.wiring import in_browser
from db.job_queries import job_with_key
from db.ledger import LedgerError
from db.patch_queries import labelled_classes, pictured
from workers.methods import METHODS, WrongRequest
from workers.submit import choose_models, parse_ids, parse_target, saliency_job, short_ids

TITLE = "Saliency · Convscope"
MOST_MAPS = 240
FIRST_IMAGES = 3


def layout(mounted: Any = None, **_: Any) -> Component:
    """The page without content."""
    if mounted and mounted.get("title") == TITLE:
        raise PreventUpdate
    return html.Div(
        [
            html.Div(id=make_id("saliency", "message")),
            html.Div(html.Div(className="skeleton tall"), id=make_id("saliency", "root")),
            dcc.Store(id=make_id("saliency", "page")),
            dcc.Store(id=make_id("saliency", "constants"), data=constants()),
            html.Div(id=make_id("saliency", "drawn"), hidden=True),
        ],
        className="single-page saliency-page",
    )


def register(app: Dash) -> None:
    """Add the page's callbacks."""
    app.callback(
        Output(make_id("saliency", "message"), "children"),
        Output(make_id("saliency", "page"), "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        State(LOCATION, "pathname"),
    )(show_saliency)
    in_browser(
        app,
        "drawSaliency",
        Output(make_id("saliency", "drawn"), "children"),
        Input(make_id("saliency", "page"), "data"),
        State(make_id("saliency", "constants"), "data"),
    )


def constants() -> Record:
    """What the browser needs once: methods with their parameters, and colour maps."""
    return {
        "methods": {name: dataclasses.asdict(method) for name, method in METHODS.items()},
        "colours": {name: list(table) for name, table in heat.COLOUR_MAPS.items()},
        "diverging": heat.DIVERGING,
        "most": MOST_MAPS,
    }


def show_saliency(
    search: str | None, _status: Any, pathname: str | None
) -> tuple[Component, dict[str, Any] | None]:
    """A message where there is nothing to choose from, else what the address asks for."""
    if pathname != SaliencyAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble:
        return components.trouble(catalogue.trouble), None
    if not catalogue.runs or not catalogue.image_sets:
        return components.nothing_yet(catalogue.newest_set()), None
    return None, read_page(context, catalogue, search)


def read_page(context: Context, catalogue: Catalogue, search: str | None) -> dict[str, Any]:
    """What the page shows for an address: what is chosen, what is wrong with it, the request, its job and rows."""
    address, problems = SaliencyAddress.read(search)
    given = {
        name.removeprefix("p_"): values[-1]
        for name, values in parse_qs((search or "").lstrip("?")).items()
        if name.startswith("p_")
    }
    models = list(dict.fromkeys(run["model"] for run in catalogue.runs))
    run = catalogue.run(address.model, address.images) or catalogue.runs[0]
    image_set = catalogue.newest_set(address.images or run["image_set"])
    if address.images and image_set != address.images:
        problems["images"] = f"There is no image set “{address.images}”; this is {image_set}."
    images = next(row["images"] for row in catalogue.image_sets if row["image_set"] == image_set)
    chosen = [name for name in address.models.split(",") if name] or [address.model or run["model"]]
    page: dict[str, Any] = {
        "search": search or "",
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
        "rows": [],
    }
    try:
        ids = parse_ids(page["ids"])
        shown = ids[: MOST_MAPS // max(1, len(chosen))]
        runs = [found for model in chosen if (found := catalogue.run(model, image_set))]
        page["rows"] = rows(context, image_set, shown, address, runs)
        if len(ids) * len(chosen) > MOST_MAPS:
            raise WrongRequest(
                f"ids: this page shows up to {MOST_MAPS} maps, these are {len(ids):,} images by {len(chosen)} models: "
                "choose fewer, or queue them with convscope saliency"
            )
        new = saliency_job(
            context.atlas,
            models=choose_models(context.atlas, chosen),
            image_set=image_set,
            image_ids=ids,
            method=address.method,
            parameters=given,
            target=parse_target(address.target),
        )
        request = new.parameters
        page["parameters"] = request["parameters"]
        page["request"] = {
            "kind": "saliency",
            "models": [model["name"] for model in request["models"]],
            "images": image_set,
            "ids": page["ids"],
            "method": request["method"],
            "parameters": request["parameters"],
            "target": request["target"],
        }
        found = job_with_key(context.ledger, new.key)
        page["job"] = None if found is None else found["job"]
    except WrongRequest as error:
        problems["request"] = str(error)
        if address.method in METHODS:
            page["parameters"] = {p.name: p.default for p in METHODS[address.method].parameters} | given
    except LedgerError as error:
        problems["ledger"] = f"{error}."
    return page | {"problems": problems}


def rows(
    context: Context, image_set: str, ids: Sequence[int], address: SaliencyAddress, runs: Sequence[Record]
) -> list[Record]:
    """The images, in the order in which they were named; those that the set has not are left out.

    `classes` is the label's index by model. A model that has not the class is not there: it is not wrong. Nor is
    one that was not run over this set. Names say nothing, for two classes may have one.
    """
    found = {row["image_id"]: row for row in context.atlas.fetch(pictured(image_set, list(ids)))}
    classes: dict[int, dict[str, int]] = {image: {} for image in ids}
    for run in runs:
        for row in context.atlas.fetch(labelled_classes(run["run"], list(ids))):
            classes[row["image_id"]][run["model"]] = row["class_index"]
    there = ImageAddress(model=address.model, images=image_set)
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


def saliency_of(model: str, image_set: str, ids: Sequence[int]) -> str:
    """Address of the page for some images."""
    given = {"model": model, "images": image_set, "ids": short_ids(list(ids))}
    return SaliencyAddress.path + "?" + urlencode({name: value for name, value in given.items() if value})
