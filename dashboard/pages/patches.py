"""The Patches page: a diagram of the network, and the selected layer's channels with their patches.

Callbacks::

    subject --+--> show_drawing --> diagram, list of layers
    status  --+
    address --+--> show_patches --+--> heading, controls, messages
                                  +--> rows --(browser)--> grid
                                  +--> selected layer --(browser)--> list of layers, highlight in the diagram
    theme --(browser)--> colors of the diagram
    controls, diagram, list of layers --(browser)--> address

The address is the only source of truth: controls write to it, and everything shown derives from it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dash import Dash, Input, Output, State, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.callbacks import in_browser
from dashboard.components.drawing import draw
from dashboard.components.elements import Component
from dashboard.components.formatting import count, field_size, pixels
from dashboard.components.grid import GridRow, grid_records
from dashboard.components.onboarding import nothing_yet, tour
from dashboard.pages import model_offers
from dashboard.pages.page import Page
from dashboard.pages.patches_layout import TITLE, layout, patches_id
from dashboard.pictures.geometry import read_layer_geometry
from dashboard.pictures.routes import channel_cells, stamp
from dashboard.security.prefix import local, page_path
from dashboard.state.address import (
    ROWS_PER_PAGE,
    ChannelsError,
    PatchesAddress,
    changed,
)
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.selections import (
    ChannelSelection,
    LayerSelection,
    NothingSelected,
    NotIndexed,
    index_command,
    patches_query,
    select_channels,
    select_layer,
    select_run,
)

__all__ = ["TITLE", "layout", "register"]


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    model_offers.register(app)
    status = make_id("shell", "status")
    app.callback(
        Output(patches_id("drawing"), "elements"),
        Output(patches_id("drawing"), "style"),
        Output(patches_id("layer_list"), "data"),
        Output(patches_id("drawn"), "data"),
        Input(make_id("shell", "subject"), "data"),
        Input(status, "data"),
        State(patches_id("drawn"), "data"),
    )(show_drawing)
    app.callback(
        Output(patches_id("tour"), "children"),
        Output(patches_id("heading"), "children"),
        Output(patches_id("problems"), "children"),
        Output(patches_id("rows"), "data"),
        Output(patches_id("pager"), "children"),
        Output(patches_id("chosen"), "data"),
        Output(patches_id("problem"), "children"),
        Output(patches_id("tools"), "children"),
        Output(patches_id("channels"), "value"),
        Output(patches_id("sort"), "value"),
        Output(patches_id("k"), "value"),
        Output(patches_id("crop"), "value"),
        Output(patches_id("tile"), "value"),
        Input(LOCATION, "search"),
        Input(status, "data"),
        State(LOCATION, "pathname"),
        State(patches_id("chosen"), "data"),
    )(show_patches_anew)
    in_browser(
        app,
        "paintGrid",
        Output(patches_id("painted"), "children"),
        Input(patches_id("rows"), "data"),
    )
    in_browser(
        app,
        "drawLayers",
        Output(patches_id("listed"), "children"),
        Input(patches_id("chosen"), "data"),
        Input(patches_id("layer_list"), "data"),
    )
    in_browser(
        app,
        "drawingStyle",
        Output(patches_id("drawing"), "stylesheet"),
        Input(make_id("shell", "theme_name"), "data"),
        State(patches_id("sheet"), "data"),
    )
    in_browser(
        app,
        "lightUp",
        Output(patches_id("lit"), "children"),
        Input(patches_id("chosen"), "data"),
        Input(patches_id("drawn"), "data"),
    )
    in_browser(
        app,
        "layerAddress",
        Output(LOCATION, "search", allow_duplicate=True),
        Input(patches_id("drawing"), "tapNodeData"),
        Input(patches_id("previous"), "n_clicks"),
        Input(patches_id("next"), "n_clicks"),
        State(patches_id("layer_list"), "data"),
        State(patches_id("chosen"), "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Input(patches_id("channels"), "value"),
        Input(patches_id("sort"), "value"),
        Input(patches_id("k"), "value"),
        Input(patches_id("crop"), "value"),
        Input(patches_id("tile"), "value"),
        State(patches_id("chosen"), "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(choose)


def choose(
    channels: str | None,
    sort: str,
    k: str,
    crop: str,
    tile: str,
    chosen: Mapping[str, Any] | None,
    search: str | None,
) -> str:
    """The query string after a choice; a control that shows what the server put there changes nothing."""
    values = {"channels": channels, "sort": sort, "k": k, "crop": crop, "tile": tile}
    changes: dict[str, Any] = dict(changed(values, chosen and chosen["shown"]))
    if not changes:
        raise PreventUpdate
    if "k" in changes:
        changes["k"] = int(changes["k"])
    return PatchesAddress.read(search)[0].search_part(**changes, page=1)


def show_drawing(
    subject: Mapping[str, str] | None, _status: Any, drawn: Sequence[Any] | None
) -> tuple[Any, ...]:
    """The model's diagram and list of layers; no update if they are already shown."""
    if subject is None or subject["path"] != PatchesAddress.path:
        raise PreventUpdate
    catalogue = current().catalogue()
    try:
        run = select_run(catalogue, subject["model"], subject["images"])
    except NothingSelected:
        return [], {"width": "316px", "height": "0px"}, [], None
    layers = catalogue.layers[run["model"]]
    indexed = {layer["layer"] for layer in layers if catalogue.is_indexed(run, layer)}
    key = [run["model"], run["digest"], len(layers), *(sorted(indexed) if len(indexed) < len(layers) else [])]
    if drawn == key:
        return (no_update,) * 4
    drawing = draw(
        layers, catalogue.edges[run["model"]], indexed=indexed, model=f"{run['model']} {run['digest'][:8]} "
    )
    return (
        drawing.elements,
        {"width": f"{drawing.width}px", "height": f"{drawing.height}px"},
        layer_options(layers, indexed),
        key,
    )


def layer_options(layers: Sequence[Record], indexed: Collection[str]) -> list[dict[str, Any]]:
    """The searchable list of layers; layers without an index in this run cannot be chosen."""
    return [
        {
            "value": layer["layer"],
            "label": layer["label"],
            "description": ("" if layer["layer"] in indexed else "not indexed · ") + layer["description"],
            "disabled": layer["layer"] not in indexed,
        }
        for layer in layers
    ]


class Shown(NamedTuple):
    """Return value of `show_patches`, in the order of its outputs."""

    tour: Component
    heading: Component
    problems: Component
    rows: dict[str, Any] | None
    pager: Component
    chosen: dict[str, Any] | None
    problem: str
    tools: Component
    channels: str
    sort: str
    k: str
    crop: str
    tile: str


def show_patches_anew(
    search: str | None, status: Any, pathname: str | None, before: Mapping[str, Any] | None
) -> tuple[Any, ...]:
    """Like `show_patches`, but without updating unchanged controls: the user may be typing in one."""
    shown = show_patches(search, status, pathname)
    kept = {} if before is None else before["shown"]
    return tuple(
        no_update if name in kept and kept[name] == value else value
        for name, value in shown._asdict().items()
    )


def show_patches(search: str | None, _status: Any, pathname: str | None) -> Shown:
    """Everything that follows from the address."""
    if page_path(pathname) != PatchesAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    address, problems = PatchesAddress.read(search)
    empty = _trouble(catalogue, address)
    if empty is not None:
        return _blank(empty, address)
    try:
        selection = select_layer(catalogue, address)
    except NothingSelected as nothing:
        link = address.href(layer="", channels="", page=1)
        if not address.layer:
            link = PatchesAddress().href()
        to_type = nothing.command if isinstance(nothing, NotIndexed) else ""
        return _blank(
            components.error_message(
                str(nothing), link=(link, "Show what there is"), choices=nothing.choices, to_type=to_type
            ),
            address,
            layer=nothing.layer["layer"] if isinstance(nothing, NotIndexed) else None,
        )
    found: ChannelSelection | None = None
    rows: dict[str, Any] | None = None
    query = None
    pager: Component = None
    wrong = ""
    try:
        found = select_channels(selection)
        selection = replace(selection, address=replace(selection.address, page=found.page))
        rows, shown = page_rows(context, selection, found)
        query = patches_query(selection, shown)
        pager = _pager(selection.address, found)
    except ChannelsError as error:
        wrong = str(error)
    tools = None
    if query is not None:
        download = local("/download/patches.csv") + selection.address.search_part()
        tools = components.sql_tools(query, download)
    return Shown(
        tour(context, catalogue, selection.run) if address == address.start() else None,
        heading(selection, catalogue.dead[selection.run["run"]][selection.layer["layer"]], found),
        [*components.problems_list(problems.values()), components.legend(address.crop) if rows else None],
        rows,
        pager,
        {"layer": selection.layer["layer"], "shown": shown_values(address)},
        wrong,
        tools,
        *shown_values(address).values(),
    )


def page_rows(
    context: Context, selection: LayerSelection, found: ChannelSelection
) -> tuple[dict[str, Any], list[int]]:
    """The rows of a page and their channels, cached per atlas version, because labels may change."""
    key = (context.catalogue().version, stamp(selection.run), selection.address)
    kept = context.pages.get(key)
    if kept is None:
        channels = context.atlas.fetch(found.query)
        kept = (grid(context, selection, channels), [channel["channel"] for channel in channels])
        context.pages.put(key, kept)
    return kept


def grid(context: Context, selection: LayerSelection, channels: Sequence[Record]) -> dict[str, Any]:
    """The rows of `channels`. Fetching their cells also caches them for the row images requested next."""
    shown = [channel["channel"] for channel in channels]
    found = channel_cells(context, selection.run, selection.layer["layer"], shown)
    geometry = read_layer_geometry(selection.layer, selection.run)
    return grid_records(
        selection.run,
        selection.address,
        geometry,
        [GridRow(channel, found.get(channel["channel"], ())) for channel in channels],
    )


def _trouble(catalogue: Catalogue, address: PatchesAddress) -> Component | None:
    if catalogue.trouble:
        return components.trouble(catalogue.trouble)
    if not catalogue.runs:
        return nothing_yet(catalogue.newest_set(address.images))
    unindexed = address.images and not address.model and catalogue.run("", address.images) is None
    if unindexed and any(found["image_set"] == address.images for found in catalogue.image_sets):
        return components.message(
            f"No model was indexed over {address.images} yet",
            html.P("Find the top-activating patches of each channel with:"),
            components.command(index_command(select_run(catalogue, "", ""), address.images)),
            kind="empty",
        )
    return None


def shown_values(address: PatchesAddress) -> dict[str, str]:
    """The controls' values: the browser writes no address for a control left as the server set it."""
    return {
        "channels": address.channels,
        "sort": address.sort,
        "k": str(address.k),
        "crop": address.crop,
        "tile": address.tile,
    }


def _blank(instead: Component, address: PatchesAddress, *, layer: str | None = None) -> Shown:
    values = shown_values(address)
    return Shown(
        None, instead, None, None, None, {"layer": layer, "shown": values}, "", None, *values.values()
    )


def heading(selection: LayerSelection, dead: int, found: ChannelSelection | None) -> Component:
    """Heading of the layer."""
    layer = selection.layer
    jump = pixels((layer["jump_y"], layer["jump_x"]))
    items = [
        components.fact("channels", f"{layer['channels']:,}", title="Numbered from 0"),
        components.fact("map", f"{layer['height']} × {layer['width']}", title="Rows and columns of the feature map"),
        components.fact(
            "field",
            field_size(layer),
            title="Theoretical receptive field: every input pixel that can reach a unit",
        ),
        components.fact("step", jump if jump != "global" else "–",
                        title="Input pixels between the fields of two neighboring units"),
        components.fact(
            "effective field",
            f"{layer['erf_size']} px" if layer["erf_size"] else "–",
            title="Side of the centered box that holds 95 % of the mean absolute input gradient",
        ),
        components.fact("dead", f"{dead:,}", title="Channels with the same value for all images"),
    ]  # fmt: skip
    chosen = "" if found is None or found.only is None else f"{count(found.total, 'channel')} chosen"
    return html.Div(
        [
            html.Div(
                [
                    html.H1(_path_name(layer["label"])),
                    html.P([layer["description"], chosen and f" · {chosen}"]),
                ],
                className="title",
            ),
            components.facts(items),
        ],
        className="heading",
    )


def _path_name(label: str) -> list[Component]:
    """`stage 2 > block 1 > dwconv`, with the last part emphasized."""
    *above, name = label.split(" > ")
    parts: list[Component] = []
    for part in above:
        parts += [html.Span(part, className="above"), html.Span(" › ", className="above")]
    return [*parts, html.Span(name)]


def _pager(address: PatchesAddress, found: ChannelSelection) -> Component:
    if found.total == 0:
        return None
    first = (found.page - 1) * ROWS_PER_PAGE
    last = min(found.total, first + ROWS_PER_PAGE)
    return components.pager(
        f"{first + 1}–{last} of {count(found.total, 'channel')}"
        if found.pages > 1
        else count(found.total, "channel"),
        previous=address.href(page=found.page - 1) if found.page > 1 else None,
        following=address.href(page=found.page + 1) if found.page < found.pages else None,
    )


PAGE = Page(
    name="patches",
    title=TITLE,
    address=PatchesAddress,
    layout=layout,
    register=register,
    label="Patches",
    icon="grid-3x3-gap",
)
