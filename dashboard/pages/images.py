"""The Images page: the images of a set as a grid or a table, filtered and sorted.

Callbacks::

    address --+--> show_images --> controls, list of classes, images or table, pager
    status  --+
    controls --> address
    list of classes --(browser)--> address
    images or table --(browser)--> selection (`browser/selection.js`)
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, attributes, icon, labelled, select
from dashboard.components.formatting import count, percent
from dashboard.components.onboarding import nothing_yet
from dashboard.pages import images_add, images_list, images_manage
from dashboard.pages.page import Page
from dashboard.pages.saliency_request import saliency_of
from dashboard.pictures.routes import thumbnails_gone
from dashboard.security.prefix import local, page_path
from dashboard.state.address import AttackAddress, ImagesAddress, OverviewAddress, SaliencyAddress, changed
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.selections import IMAGES_PER_PAGE, image_filter, images_query, resolve
from db.ledger.engine import LedgerError
from db.queries import images as image_queries
from db.queries.set_changes import descriptions

TITLE = "Images · Convscope"
VIEWS = {"grid": "Grid", "table": "Table"}
VERDICTS = {"any": "Any", "right": "Correct", "wrong": "Wrong", "unlabelled": "Unlabeled"}
MAPPED_AT_ONCE = 6
SORTS = {
    "id": "Number",
    "name": "Name",
    "label": "Label",
    "surest": "Most confident prediction",
    "unsurest": "Least confident prediction",
}

ALL_CLASSES = {"value": "", "label": "All classes", "description": ""}


def _id(name: str) -> str:
    return make_id("images", name)


def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(
                [
                    html.Button(
                        [icon(symbol), html.Span(words)],
                        id=_id(name),
                        type="button",
                        className="btn btn-sm btn-quiet",
                        **attributes(aria_haspopup="dialog"),
                    )
                    for name, symbol, words in (("add", "plus-lg", "Add images"), ("manage", "gear", "Manage"))
                ],
                className="tools set-tools",
            ),
            html.Div(id=_id("heading")),
            html.Div(
                [
                    labelled(
                        "Search",
                        dcc.Input(
                            id=_id("search"), type="search", debounce=True, placeholder="Number, name or label",
                            className="form-control form-control-sm", autoComplete="off",
                        ),
                        control_id=_id("search"),
                        className="wide",
                    ),
                    labelled(
                        "Class",
                        components.combobox(
                            _id("classes"), _id("label"), label="Classes", placeholder="All classes",
                            none="No matching class in this set.", name="label", most=300,
                        ),
                        control_id=_id("label"),
                        className="wide layer-search",
                    ),
                    labelled("Prediction", select(_id("verdict"), list(VERDICTS.items())), control_id=_id("verdict")),
                    labelled("Sort by", select(_id("sort"), list(SORTS.items())), control_id=_id("sort")),
                    labelled("View", select(_id("view"), list(VIEWS.items())), control_id=_id("view")),
                ],
                className="controls",
                role="group",
                **attributes(aria_label="What is shown"),
            ),
            html.Div(id=_id("problems")),
            html.Div(html.Div(className="skeleton tall"), id=_id("body")),
            html.Div(id=_id("pager")),
            selection_bar(),
            html.Div(id=_id("marked"), hidden=True),
            html.Div(id=_id("listed"), hidden=True),
            dcc.Store(id=_id("class_list")),
            dcc.Store(id=_id("shown")),
        ],
        className="single-page images-page",
    )  # fmt: skip


def selection_bar() -> Component:
    """The bar for selected images, filled by `browser/selection.js`."""
    small = "btn btn-sm btn-quiet"
    return html.Div(
        [
            html.Span(className="num", id=_id("selected")),
            html.A(
                [icon("bullseye"), " Saliency"],
                id=_id("mapped"),
                className="btn btn-sm btn-primary",
                **attributes(data_path=local(SaliencyAddress.path)),
            ),
            html.A(
                [icon("lightning-charge"), " Attack"],
                id=_id("attacked"),
                className=small,
                **attributes(data_path=local(AttackAddress.path)),
            ),
            html.Button("Select all on this page", id=_id("all"), type="button", className=small),
            html.Button("Clear", id=_id("clear"), type="button", className=small),
        ],
        id=_id("selection"),
        className="selection",
        role="status",
        hidden=True,
    )


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    app.callback(
        Output(_id("heading"), "children"),
        Output(_id("problems"), "children"),
        Output(_id("body"), "children"),
        Output(_id("pager"), "children"),
        Output(_id("class_list"), "data"),
        Output(_id("search"), "value"),
        Output(_id("verdict"), "value"),
        Output(_id("sort"), "value"),
        Output(_id("view"), "value"),
        Output(_id("shown"), "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        State(LOCATION, "pathname"),
        State(_id("shown"), "data"),
    )(show_images_anew)
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Input(_id("search"), "value"),
        Input(_id("verdict"), "value"),
        Input(_id("sort"), "value"),
        Input(_id("view"), "value"),
        State(_id("shown"), "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(choose)
    images_add.register(app)
    images_manage.register(app)
    in_browser(app, "markSelected", Output(_id("marked"), "children"), Input(_id("body"), "children"))
    in_browser(app, "drawClasses", Output(_id("listed"), "children"), Input(_id("class_list"), "data"))


class Shown(NamedTuple):
    """Return value of `show_images`, in the order of its outputs; `shown` repeats the controls' values."""

    heading: Component
    problems: Component
    body: Component
    pager: Component
    classes: dict[str, Any]
    search: str
    verdict: str
    sort: str
    view: str
    shown: dict[str, Any]


def choose(
    text: str | None, verdict: str, sort: str, view: str, shown: Record | None, search: str | None
) -> str:
    """The query string after a choice; a control that shows what the server put there changes nothing."""
    changes = changed({"search": text, "verdict": verdict, "sort": sort, "view": view}, shown)
    if not changes:
        raise PreventUpdate
    return ImagesAddress.read(search)[0].search_part(**changes, page=1)


def show_images_anew(
    search: str | None, status: Any, pathname: str | None, before: Mapping[str, Any] | None
) -> tuple[Any, ...]:
    """Like `show_images`, but without updating unchanged controls: the user may be typing in one."""
    shown = show_images(search, status, pathname)
    kept = before or {}
    return tuple(
        no_update if name in kept and kept[name] == value else value
        for name, value in shown._asdict().items()
    )


def show_images(search: str | None, _status: Any, pathname: str | None) -> Shown:
    """Everything that follows from the address."""
    if page_path(pathname) != ImagesAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    address, problems = ImagesAddress.read(search)
    if catalogue.trouble:
        return _blank(components.trouble(catalogue.trouble), address)
    if not catalogue.image_sets:
        return _blank(nothing_yet(), address)
    run, address = resolve(catalogue, address)
    there = next((row for row in catalogue.image_sets if row["image_set"] == address.images), None)
    if there is None:
        sets = tuple(row["image_set"] for row in catalogue.image_sets)
        link = (ImagesAddress().href(), "Show the images there are")
        return _blank(
            components.error_message(f"There is no image set “{address.images}”.", link=link, choices=sets),
            address,
        )
    if run is None and address.model:
        problems["model"] = not_indexed(catalogue, address)
    number = None if run is None else run["run"]
    total = context.atlas.fetch(
        image_queries.count_images(address.images, number, image_filter(address))
    )[0]["images"]  # fmt: skip
    pages = max(1, -(-total // IMAGES_PER_PAGE))
    page = min(address.page, pages)
    query = images_query(run, address, limit=IMAGES_PER_PAGE, offset=(page - 1) * IMAGES_PER_PAGE)
    rows = context.atlas.fetch(query)
    classes = context.atlas.fetch(image_queries.image_classes(address.images))
    chosen = _prediction(context, run, address)
    first = (page - 1) * IMAGES_PER_PAGE
    body: Component
    if rows:
        body = (
            images_list.table(rows, address)
            if address.view == "table"
            else images_list.pictures(rows, address)
        )
    elif run is None and address.verdict != "any":
        body = components.message("No model was indexed over this set yet, so there are no predictions.")
    else:
        unknown = address.label and all(row["class"] != address.label for row in classes)
        body = components.message(
            f"No image of {address.images} has the class “{address.label}”"
            if unknown
            else "No matching images",
            html.P(html.A("Show all images", href=_everything(address), className="btn btn-sm btn-primary")),
            kind="empty",
        )
    return Shown(
        _heading(
            there,
            total,
            components.sql_tools(
                query,
                local("/download/images.csv") + address.search_part(),
                rows=total if total > len(rows) else None,
            ),
            saliency_link(address, [row["image_id"] for row in rows]),
            description_of(context, there["image_set"]),
            address,
        ),
        [
            *components.problems_list(problems.values()),
            chosen,
            components.thumbnails_gone(
                thumbnails_gone(context, [row["key"] for row in rows]), there["image_set"], there["source"]
            ),
        ],
        body,
        components.pager(
            f"{first + 1:,}–{first + len(rows):,} of {count(total, 'image')}",
            previous=address.href(page=page - 1) if page > 1 else None,
            following=address.href(page=page + 1) if page < pages else None,
        )
        if rows
        else None,
        {"options": [ALL_CLASSES, *class_options(classes, address.label)], "chosen": address.label},
        *_controls(address),
    )


def not_indexed(catalogue: Catalogue, address: ImagesAddress) -> str:
    """Explains why the model in the address has no predictions."""
    models = ", ".join(run["model"] for run in catalogue.runs if run["image_set"] == address.images)
    have = f"there is {models}" if models else "no model was"
    return f"{address.model} was not indexed over {address.images}, so it has no predictions here: {have}."


def class_options(classes: list[Record], chosen: str) -> list[dict[str, Any]]:
    """Options of the class list, including a chosen class without images; WNIDs distinguish equal names."""
    absent = chosen and all(row["class"] != chosen for row in classes)
    return [{"value": chosen, "label": chosen, "description": count(0, "image")}] * bool(absent) + [
        {
            "value": row["class"],
            "label": row["label"] or row["class"],
            "description": " · ".join(filter(None, [row["wnid"], count(row["images"], "image")])),
            "search": row["wnid"] or "",
        }
        for row in classes
    ]


def _controls(address: ImagesAddress) -> tuple[str, str, str, str, dict[str, Any]]:
    """The controls' values, also as a dict: the browser writes no address for a control left unchanged."""
    values = (address.search, address.verdict, address.sort, address.view)
    return (*values, dict(zip(("search", "verdict", "sort", "view"), values, strict=True)))


def _blank(instead: Component, address: ImagesAddress) -> Shown:
    return Shown(
        None, None, instead, None, {"options": [ALL_CLASSES], "chosen": address.label}, *_controls(address)
    )


def _everything(address: ImagesAddress) -> str:
    return ImagesAddress(model=address.model, images=address.images, view=address.view).href()


def saliency_link(address: ImagesAddress, ids: list[int]) -> Component:
    """A link to saliency maps of the first images of a list."""
    if not ids:
        return None
    few = ids[:MAPPED_AT_ONCE]
    return html.A(
        [icon("bullseye"), html.Span("Saliency of these images")],
        href=saliency_of(address.model, address.images, few),
        className="btn btn-sm btn-quiet",
        title=f"Maps of the first {len(few)}" if len(ids) > len(few) else "Maps of all that are shown",
    )


def _overview_link(address: ImagesAddress) -> Component:
    return html.A(
        [icon("clipboard-data"), html.Span("Overview")],
        href=address.at(OverviewAddress).href(),
        className="btn btn-sm btn-quiet",
        title="Classes, sizes, accuracy, confusions, duplicate images",
    )


def description_of(context: Context, image_set: str) -> str:
    """A user's description of a set; empty if the ledger does not respond, which the Jobs page reports."""
    try:
        return descriptions(context.ledger).get(image_set, "")
    except LedgerError:
        return ""


def _prediction(context: Context, run: Record | None, address: ImagesAddress) -> Component:
    """The predicted class that filters the images, with a link that clears it; None without such a filter."""
    if not address.predicted or run is None:
        return None
    found = context.atlas.fetch(image_queries.class_name(run["run"], int(address.predicted)))
    name = found[0]["name"] if found else f"class {address.predicted}"
    return html.P(
        [
            html.Span(f"predicted {name}"),
            html.A(
                icon("x-lg"),
                href=address.href(predicted="", page=1),
                title="Any prediction",
                **attributes(aria_label="Any prediction"),
            ),
        ],
        className="chosen-prediction",
    )


def _heading(
    image_set: Record, total: int, tools: Component, link: Component, description: str, address: ImagesAddress
) -> Component:
    labelled_share = percent(image_set["labelled"] / image_set["images"]) if image_set["images"] else "–"
    return html.Div(
        [
            html.Div(
                [
                    html.H1(image_set["image_set"]),
                    html.P(image_set["source"]),
                    html.P(description, id=_id("description"), className="set-description"),
                ],
                className="title",
                **attributes(data_set=image_set["image_set"]),
            ),
            components.facts(
                [
                    components.fact("images", f"{image_set['images']:,}"),
                    components.fact("labelled", labelled_share),
                    components.fact("shown", f"{total:,}"),
                ]
            ),
            html.Div([_overview_link(address), link, tools], className="tools"),
        ],
        className="heading",
    )


PAGE = Page(
    name="images",
    title=TITLE,
    address=ImagesAddress,
    layout=layout,
    register=register,
    label="Images",
    icon="images",
)
