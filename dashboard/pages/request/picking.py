"""Choosing images: the first or random ones, all, or those that satisfy a condition."""

import functools
from typing import Any

from dash import Dash, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate

from dashboard.pages import job_progress
from dashboard.pages.request.classes import find_label
from dashboard.pages.request.form import PICKED, RequestForm, merged, text_of
from dashboard.security.access import TooManyRequests, spend
from dashboard.state.address import ImagesAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION
from dashboard.state.image_choices import choose_images, images_where
from db.atlas.store import AtlasError
from db.queries.images import image_classes
from workers.requests.images import short_ids
from workers.requests.parameters import InvalidRequest

MAX_PICKED = 240


def register(app: Dash, form: RequestForm) -> None:
    """Register the callback of First, Random, All and the condition."""
    app.callback(
        output={
            "go": Output(form.id("go"), "data", allow_duplicate=True),
            "event": job_progress.reports(form.page),
            "seed": Output(form.id("pickseed"), "value", allow_duplicate=True),
            "drawn": Output(form.id("drawn"), "data"),
        },
        inputs={
            "clicks": [Input(form.id(name), "n_clicks") for name in ("first", "random", "all")],
            "where": Input(form.id("where"), "value"),
            "entered": Input(form.id("where"), "n_submit"),
        },
        state={
            "n": State(form.id("n"), "value"),
            "label": State(form.id("label"), "value"),
            "seed": State(form.id("pickseed"), "value"),
            "right": State(form.id("verdict"), "value"),
            "filled": State(form.id("filled"), "data"),
            "drawn": State(form.id("drawn"), "data"),
            "search": State(LOCATION, "search"),
        },
        prevent_initial_call=True,
    )(functools.partial(picked, form))


def picked(
    form: RequestForm,
    clicks: list[int | None],
    where: str | None,
    entered: int | None,
    n: Any,
    label: str | None,
    seed: Any,
    right: bool | None,
    filled: Record | None,
    drawn: Any,
    search: str | None,
) -> Record:
    """The images that First, Random, All or a condition choose; one callback, so that the last one counts."""
    del clicks
    fired = {one["prop_id"] for one in ctx.triggered if one["value"] is not None}
    name = {prop.partition(".")[0].partition("-")[2] for prop in fired}
    if filled is None or not name:
        raise PreventUpdate
    condition = text_of(where)
    typed = name == {"where"}
    if typed and condition == filled["where"] and not any(prop.endswith("n_submit") for prop in fired):
        raise PreventUpdate  # the address has just been shown
    del entered
    context, image_set, model = current(), filled["image_set"], filled["model"]
    result: Record = {"go": no_update, "event": no_update, "seed": no_update, "drawn": no_update}
    try:
        if typed or "all" in name:
            condition = condition if typed else ""
            spend("SQL statements")
            ids = images_where(context, model, image_set, condition)
            how = {"where": condition}
        else:
            address, count = _images(context, image_set, model, n, label, right)
            number = None
            if "random" in name:
                number = _whole("seed", seed, 0)
                draw = [count, address.label, address.verdict, image_set, model]
                if drawn == [*draw, number]:  # pressed again: draw others
                    number += 1
                    result["seed"] = str(number)
                result["drawn"] = [*draw, number]
            ids = choose_images(context, address, count, seed=number)
            how = {
                "n": str(count),
                "seed": "" if number is None else str(number),
                "label": address.label,
                "verdict": "right" if right else "",
            }
    except (InvalidRequest, AtlasError, TooManyRequests) as error:
        return result | {"event": job_progress.report(str(error), about=form.about(search))}
    if not ids:
        problem = f"No matching images in {image_set}."
        return result | {"event": job_progress.report(problem, about=form.about(search))}
    changes = {
        **filled["implied"],
        "ids": short_ids(ids),
        **dict.fromkeys(PICKED, ""),
        **how,
        "attack": "",
    }
    about = form.about(merged(search, changes))
    return result | {"go": changes, "event": job_progress.report(about=about)}


def _images(
    context: Context, image_set: str, model: str, n: Any, label: str | None, right: bool | None
) -> tuple[ImagesAddress, int]:
    wanted = text_of(label)
    found = ""
    if wanted:
        found = find_label(context.atlas.fetch(image_classes(image_set)), wanted)
        if not found:
            raise InvalidRequest(f"No image of {image_set} is labeled “{wanted}”.")
    verdict = "right" if right else ImagesAddress.verdict
    address = ImagesAddress(model=model, images=image_set, label=found, verdict=verdict)
    count = _whole("n", n, 1)
    if count > MAX_PICKED:
        raise InvalidRequest(f"n: expected a whole number from 1 to {MAX_PICKED}, got {count}")
    return address, count


def _whole(name: str, value: Any, low: int) -> int:
    text = text_of(value)
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < low:
        raise InvalidRequest(f"{name}: expected a whole number from {low}, got {text!r}")
    return int(text)
