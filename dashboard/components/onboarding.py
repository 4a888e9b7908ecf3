"""First-visit content: progress of the first run, a guided tour, and models that can be added."""

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from dash import html

from dashboard.components import elements as components
from dashboard.components.elements import Component, attributes, icon
from dashboard.state.address import (
    AttackAddress,
    ChannelAddress,
    ImageAddress,
    ImagesAddress,
    OverviewAddress,
    SaliencyAddress,
    SQLAddress,
)
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.selections import default_layer
from db.first_run import SAMPLES, STIMULI, FirstRun, read_first_run
from db.queries.images import ImageFilter, images
from db.queries.tuning import most_oriented, probe_run
from workers.models.names import NAMED_MODELS


class Stop(NamedTuple):
    """A stop of the tour: its link, and a description of what it shows."""

    href: str
    symbol: str
    name: str
    text: str


def nothing_yet(image_set: str = "") -> Component:
    """The page before there is a run, about `image_set`, by default the newest set, if there is one."""
    first = read_first_run(current().settings.home)
    if first is not None and image_set in ("", SAMPLES, STIMULI):
        return _steps(first)
    if image_set:
        return components.message(
            "No model was indexed yet",
            html.P("The images are here. Find what excites each channel of a model with:"),
            components.command(
                f"convscope index --model efficientnet-lite0 --images {shlex.quote(image_set)}"
            ),
            html.P("This page updates automatically when the run is done."),
            kind="empty",
        )
    return components.message(
        "Nothing here yet",
        html.P("Convscope needs images and a model. Bring a folder of images, then index it:"),
        components.command(
            "convscope images import my-images /path/to/folder\n"
            "convscope index --model efficientnet-lite0 --images my-images"
        ),
        html.P("This page updates automatically when the run is done."),
        kind="empty",
    )


def _steps(first: FirstRun) -> Component:
    """The steps of the first run; the line above every page shows the progress of the current one."""
    states = dict.fromkeys(range(first.at), ("check-circle-fill", "done"))
    states[first.at] = (
        ("x-circle-fill", "failed") if first.error else ("arrow-right-circle-fill", "under way")
    )
    listed = []
    for place, words in enumerate(first.steps):
        symbol, state = states.get(place, ("circle", "waiting"))
        listed.append(
            html.Li(
                [icon(symbol), words, html.Span(f" ({state})", className="visually-hidden")],
                className=f"step {state.split()[0]}",
                **attributes(aria_current="step") if place == first.at else {},
            )
        )
    return components.message(
        "The first run has stopped" if first.error else "Making something to look at",
        html.P(f"{first.error}. It resumes with the next convscope run.")
        if first.error
        else html.P(
            "A minute or two, the first time. This page updates automatically as soon as a model is indexed."
        ),
        html.Ol(listed, className="first-steps"),
        kind="error" if first.error else "empty",
    )


def first_run_line(first: Mapping[str, Any] | None) -> dict[str, Any]:
    """Properties of the line above every page: progress of the first run, which is also announced step by step."""
    if first is None:
        return {"children": None, "hidden": True, "className": ""}
    step = first["steps"][first["at"]]
    if first["error"]:
        head = "The first run has stopped"
        words = f"{step}: {first['error']}. It resumes with the next convscope run."
        line: list[Component] = [html.Span(words)]
    else:
        head = f"First run, step {first['at'] + 1} of {len(first['steps'])}"
        words, done, total = step, first["done"], first["total"]
        counted = f"{done:,} of {total:,}" if total else ""
        line = [
            html.Progress(
                max=total or None, value=str(done) if total else None, **attributes(aria_label=step)
            ),
            html.Span(step),
            html.Span(f"{first['phase']} {counted}".strip(), className="quiet num"),
        ]
    said = html.Span(f"{head}: {words}", role="status", className="visually-hidden")
    return {
        "children": [said, html.B(head), *line],
        "hidden": False,
        "className": "failed" if first["error"] else "",
    }


def tour(context: Context, catalogue: Catalogue, run: Record) -> Component:
    """The guided tour, and the models that can be added."""
    key = f"{catalogue.version} {run['run']}"
    stops = context.tours.get(key)
    if stops is None:
        stops = tuple(_stops(context, catalogue, run))
        context.tours.put(key, stops)
    return html.Details(
        [
            html.Summary([icon("signpost-split"), "What to click first"]),
            html.Ul(
                [
                    html.Li(
                        html.A([icon(stop.symbol), html.B(stop.name), html.Span(stop.text)], href=stop.href)
                    )
                    for stop in stops
                ],
                className="tour-stops",
            ),
            _offers(catalogue, run["image_set"]),
        ],
        className="tour",
        id="tour",
        open=True,
    )


def _stops(context: Context, catalogue: Catalogue, run: Record) -> list[Stop]:
    here = {"model": run["model"], "images": run["image_set"]}
    channel = _channel(context, catalogue, run)
    found = context.atlas.fetch(
        images(run["image_set"], run["run"], ImageFilter(verdict="right"), order="surest", limit=1)
    ) or context.atlas.fetch(images(run["image_set"], run["run"], ImageFilter(), order="id", limit=1))
    number = found[0]["image_id"] if found else 0  # empty if the run was replaced just now
    named = (found[0]["label"] or found[0]["predicted"] or found[0]["name"]) if found else f"image {number}"
    return [
        Stop(
            ChannelAddress(**here, layer=channel["layer"], channel=channel["channel"]).href(),
            "bullseye",
            "One channel",
            "Its patches, its tuning to bars",
        ),
        Stop(
            ImageAddress(**here, id=number).href(),
            "image",
            "One image",
            f"What is seen in: {named}",
        ),
        Stop(
            SaliencyAddress(**here, ids=str(number)).href(),
            "brightness-high",
            "The pixels behind it",
            "SmoothGrad: press Run",
        ),
        Stop(
            AttackAddress(**here, ids=str(number)).href(),
            "lightning-charge",
            "What breaks it",
            "The smallest epsilon: press Run",
        ),
        Stop(
            OverviewAddress(**here).href(),
            "grid",
            "The set as a whole",
            "Classes, confusions, mistakes",
        ),
        Stop(SQLAddress(**here).href(), "database", "Every number", "All tables in SQL, with examples"),
        Stop(ImagesAddress(**here).href(), "folder-plus", "Your own images", "Add them, then index"),
    ]


def _channel(context: Context, catalogue: Catalogue, run: Record) -> Record:
    """A channel worth a look.

    If probe images are indexed: in a layer about a sixth of the way through the network, where networks
    detect edges, the channel most selective for the orientation of bars.
    """
    layers = [layer for layer in catalogue.layers[run["model"]] if catalogue.is_indexed(run, layer)]
    probes = context.atlas.fetch(probe_run(run["model"]))
    if probes and layers:
        found = context.atlas.fetch(most_oriented(probes[0]["run"], layers[len(layers) // 6]["layer"]))
        if found:
            return found[0]
    layer = default_layer(run, layers)
    return {"layer": layer["layer"] if layer else "", "channel": 0}


def _offers(catalogue: Catalogue, image_set: str) -> Component:
    """Models available on a hub; each is a button, because they are downloaded only on request."""
    have = {run["model"] for run in catalogue.runs}
    offered = [(name, known) for name, known in NAMED_MODELS.items() if known.download and name not in have]
    if not offered:
        return None
    return html.Div(
        [
            html.Span(f"With internet, index {image_set} with another network too:"),
            *[
                html.Button(
                    [icon("plus-lg"), html.B(name), html.Span(f"{known.download} MB")],
                    type="button",
                    className="btn btn-sm btn-quiet offer",
                    key=name,
                    title=f"Fetch {known.title} and index {image_set} with it",
                    **attributes(data_page="offer", data_act="index", data_offer=name, data_images=image_set),
                )
                for name, known in offered
            ],
        ],
        className="offers",
    )
