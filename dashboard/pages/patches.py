"""The Patches page: a drawing of the network, and the chosen layer's channels with their patches.

Callbacks::

    subject --+--> show_drawing --> drawing, list of layers
    status  --+
    address --+--> show_patches --+--> heading, controls, sentences
                                  +--> rows --(browser)--> grid
                                  +--> chosen layer --(browser)--> list of layers, layer lit up in the drawing
    theme --(browser)--> drawing's colours
    controls, drawing, list of layers --(browser)--> address

The address is the only source: controls write it, and everything is shown from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import dash_cytoscape as cyto
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard import components
from dashboard.address import (
    K_MOST,
    ROWS_PER_PAGE,
    ChannelsError,
    PatchesAddress,
)
from dashboard.components import Component, attributes, icon, labelled, select
from dashboard.compose import TILE_SIZES
from dashboard.context import Catalogue, Context, Record, current
from dashboard.drawing import draw
from dashboard.geometry import CROPS, read_layer_geometry
from dashboard.grid import GridRow, grid_records
from dashboard.ids import LOCATION, make_id
from dashboard.pictures import channel_cells, stamp
from dashboard.selections import (
    ChannelSelection,
    LayerSelection,
    NothingSelected,
    patches_query,
    select_channels,
    select_layer,
    select_run,
)
from dashboard.wiring import in_browser
from dashboard.words import count, pixels

TITLE = "Patches · Convscope"
SORTS: dict[str, str] = {
    "index": "Number",
    "strongest": "Strongest activation",
    "selectivity": "Selectivity",
    "dead_last": "Number, dead last",
}


def _id(name: str) -> str:
    return make_id("patches", name)


def layout(mounted: Any = None, **_: Any) -> Component:
    """The page without content. Dash calls this on every change of the address: once drawn, it stays."""
    if mounted and mounted.get("title") == TITLE:
        raise PreventUpdate
    return html.Div(
        [
            html.Section(
                [
                    html.Div(
                        [
                            labelled(
                                "Layer",
                                dcc.Dropdown(
                                    id=_id("layer"),
                                    clearable=False,
                                    placeholder="Search layers…",
                                    optionHeight=44,
                                    maxHeight=480,
                                ),
                                control_id=_id("layer"),
                                className="layer-search",
                            ),
                            html.Div(
                                [
                                    _step("previous", "chevron-up", "Previous layer"),
                                    _step("next", "chevron-down", "Next layer"),
                                ],
                                className="steps",
                            ),
                        ],
                        className="layer-picker",
                    ),
                    html.Details(
                        [
                            html.Summary("Drawing of the network"),
                            html.Div(
                                [
                                    html.Button(
                                        "−",
                                        className="zoom",
                                        type="button",
                                        title="Smaller",
                                        **attributes(data_zoom="-1", aria_label="Smaller drawing"),
                                    ),
                                    html.Button(
                                        "+",
                                        className="zoom",
                                        type="button",
                                        title="Larger",
                                        **attributes(data_zoom="1", aria_label="Larger drawing"),
                                    ),
                                ],
                                className="zooms",
                            ),
                            html.Div(
                                cyto.Cytoscape(
                                    id=_id("drawing"),
                                    elements=[],
                                    stylesheet=[],
                                    layout={"name": "preset", "fit": False},
                                    style={"width": "316px", "height": "400px"},
                                    zoom=1,
                                    pan={"x": 0, "y": 0},
                                    minZoom=0.3,
                                    maxZoom=4,
                                    userZoomingEnabled=False,
                                    userPanningEnabled=False,
                                    autoungrabify=True,
                                    boxSelectionEnabled=False,
                                    autoRefreshLayout=True,
                                    responsive=False,
                                ),
                                className="drawing-scroll",
                                **attributes(
                                    aria_label="Drawing of the network; the list above holds the same layers"
                                ),
                            ),
                        ],
                        open=True,
                        className="drawing-panel",
                    ),
                ],
                className="side",
                **attributes(aria_label="Layers"),
            ),
            html.Section(
                [
                    html.Div(id=_id("heading")),
                    html.Div(
                        _controls(),
                        className="controls",
                        id=_id("controls"),
                        role="group",
                        **attributes(aria_label="What is shown"),
                    ),
                    html.Div(id=_id("problems")),
                    html.Div(
                        id=_id("grid"), className="grid", role="region", **attributes(aria_label="Patches")
                    ),
                    html.Div(id=_id("pager")),
                ],
                className="content",
            ),
            dcc.Store(id=_id("rows")),
            dcc.Store(id=_id("chosen")),
            dcc.Store(id=_id("drawn")),
            html.Div(id=_id("painted"), hidden=True),
            html.Div(id=_id("lit"), hidden=True),
        ],
        className="patches-page",
    )


def _step(direction: str, symbol: str, title: str) -> Component:
    return html.Button(
        icon(symbol), id=_id(direction), className="btn btn-quiet", title=title, type="button",
        **attributes(aria_label=title),
    )  # fmt: skip


def _controls() -> list[Component]:
    tiles = [("fit", "Fit")] + [(str(size), f"{size} px") for size in TILE_SIZES if size <= 192]
    channels = dcc.Input(
        id=_id("channels"),
        type="text",
        debounce=True,
        placeholder="all, 0-29 or 5, 17",
        className="form-control form-control-sm",
        autoComplete="off",
        spellCheck=False,
    )
    return [
        html.Div(
            [
                html.Label("Channels, from 0", htmlFor=_id("channels")),
                channels,
                html.Div(id=_id("problem"), className="problem", role="alert"),
            ],
            className="control wide",
        ),
        labelled("Sort by", select(_id("sort"), list(SORTS.items())), control_id=_id("sort")),
        labelled(
            "Patches",
            select(_id("k"), [(str(number), str(number)) for number in range(1, K_MOST + 1)]),
            control_id=_id("k"),
        ),
        labelled("Crop", select(_id("crop"), list(CROPS.items())), control_id=_id("crop")),
        labelled("Tile", select(_id("tile"), tiles), control_id=_id("tile")),
        html.Div(id=_id("tools"), className="tools-place"),
    ]


def register(app: Dash) -> None:
    """Add the page's callbacks."""
    status = make_id("shell", "status")
    app.callback(
        Output(_id("drawing"), "elements"),
        Output(_id("drawing"), "style"),
        Output(_id("layer"), "options"),
        Output(_id("drawn"), "data"),
        Input(make_id("shell", "subject"), "data"),
        Input(status, "data"),
        State(_id("drawn"), "data"),
    )(show_drawing)
    app.callback(
        Output(_id("heading"), "children"),
        Output(_id("problems"), "children"),
        Output(_id("rows"), "data"),
        Output(_id("pager"), "children"),
        Output(_id("chosen"), "data"),
        Output(_id("problem"), "children"),
        Output(_id("tools"), "children"),
        Output(_id("channels"), "value"),
        Output(_id("sort"), "value"),
        Output(_id("k"), "value"),
        Output(_id("crop"), "value"),
        Output(_id("tile"), "value"),
        Input(LOCATION, "search"),
        Input(status, "data"),
        State(LOCATION, "pathname"),
        State(_id("chosen"), "data"),
    )(show_patches_anew)
    in_browser(
        app,
        "paintGrid",
        Output(_id("painted"), "children"),
        Input(_id("rows"), "data"),
    )
    in_browser(
        app,
        "layerValue",
        Output(_id("layer"), "value"),
        Input(_id("chosen"), "data"),
        Input(_id("layer"), "options"),
    )
    in_browser(
        app,
        "drawingColours",
        Output(_id("drawing"), "stylesheet"),
        Input(make_id("shell", "colours"), "data"),
    )
    in_browser(
        app,
        "lightUp",
        Output(_id("lit"), "children"),
        Input(_id("chosen"), "data"),
        Input(_id("drawn"), "data"),
    )
    in_browser(
        app,
        "patchesAddress",
        Output(LOCATION, "search", allow_duplicate=True),
        Input(_id("layer"), "value"),
        Input(_id("drawing"), "tapNodeData"),
        Input(_id("previous"), "n_clicks"),
        Input(_id("next"), "n_clicks"),
        Input(_id("channels"), "value"),
        Input(_id("sort"), "value"),
        Input(_id("k"), "value"),
        Input(_id("crop"), "value"),
        Input(_id("tile"), "value"),
        State(_id("layer"), "options"),
        State(_id("chosen"), "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )


def show_drawing(
    subject: Mapping[str, str] | None, _status: Any, drawn: Sequence[Any] | None
) -> tuple[Any, ...]:
    """The drawing and the list of layers of the model; nothing where it is drawn already."""
    if subject is None or subject["path"] != PatchesAddress.path:
        raise PreventUpdate
    catalogue = current().catalogue()
    try:
        run = select_run(catalogue, subject["model"], subject["images"])
    except NothingSelected:
        return [], {"width": "316px", "height": "0px"}, [], None
    key = [run["model"], run["weights_sha256"], len(catalogue.layers[run["model"]])]
    if drawn == key:
        return (no_update,) * 4
    layers = catalogue.layers[run["model"]]
    drawing = draw(layers, catalogue.edges[run["model"]])
    return (
        drawing.elements,
        {"width": f"{drawing.width}px", "height": f"{drawing.height}px"},
        layer_options(layers),
        key,
    )


def layer_options(layers: Sequence[Record]) -> list[dict[str, Any]]:
    """The list of layers, to be searched by name."""
    return [
        {
            "value": layer["layer"],
            "label": html.Div(
                [html.Span(layer["label"]), html.Small(layer["description"])], className="layer-option"
            ),
            # not the description: a search for stage 4 would find all that have 384 channels
            "search": f"{layer['label']} {layer['layer']}",
        }
        for layer in layers
    ]


class Shown(NamedTuple):
    """What `show_patches` gives the page, in the order of its outputs."""

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
    """`show_patches`, but controls that stay as they are are left alone: somebody may be typing in one."""
    shown = show_patches(search, status, pathname)
    kept = {} if before is None else before["shown"]
    return tuple(
        no_update if name in kept and kept[name] == value else value
        for name, value in shown._asdict().items()
    )


def show_patches(search: str | None, _status: Any, pathname: str | None) -> Shown:
    """Everything that follows from the address."""
    if pathname != PatchesAddress.path:
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
        return _blank(
            components.sorry(str(nothing), link=(link, "Show what there is"), choices=nothing.choices),
            address,
        )
    found: ChannelSelection | None = None
    rows: dict[str, Any] | None = None
    query = None
    pager: Component = None
    wrong = ""
    try:
        found = select_channels(selection)
        rows, shown = page_rows(context, selection, found)
        query = patches_query(selection, shown)
        pager = _pager(selection.address, found)
    except ChannelsError as error:
        wrong = str(error)
    tools = None
    if query is not None:
        download = "/download/patches.csv" + selection.address.href().lstrip("/")
        tools = components.sql_tools(query, download)
    return Shown(
        heading(selection, catalogue.dead.get((selection.run["run"], selection.layer["layer"]), 0), found),
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
    """The rows of a page and their channels. A run never changes, so what was asked once is kept."""
    key = (stamp(selection.run), selection.address, found.page)
    kept = context.pages.get(key)
    if kept is None:
        channels = context.atlas.fetch(found.query)
        kept = (grid(context, selection, channels), [channel["channel"] for channel in channels])
        context.pages.put(key, kept)
    return kept


def grid(context: Context, selection: LayerSelection, channels: Sequence[Record]) -> dict[str, Any]:
    """The rows of `channels`. The same cells are kept for their pictures, which are asked for next."""
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
        return components.message("The atlas cannot be read", html.P(catalogue.trouble), kind="error")
    if not catalogue.runs:
        return components.nothing_yet(has_images=bool(catalogue.image_sets))
    unindexed = address.images and not address.model and catalogue.run("", address.images) is None
    if unindexed and any(found["image_set"] == address.images for found in catalogue.image_sets):
        return components.message(
            f"No model was indexed over {address.images} yet",
            html.P("Find what excites each channel of a model with:"),
            components.command(
                f"convscope index --model {catalogue.runs[0]['model']} --images {address.images}"
            ),
            kind="empty",
        )
    return None


def shown_values(address: PatchesAddress) -> dict[str, str]:
    """What the controls show. The browser compares with it: a control as the server left it writes nothing."""
    return {
        "channels": address.channels,
        "sort": address.sort,
        "k": str(address.k),
        "crop": address.crop,
        "tile": address.tile,
    }


def _blank(instead: Component, address: PatchesAddress) -> Shown:
    values = shown_values(address)
    return Shown(instead, None, None, None, {"layer": None, "shown": values}, "", None, *values.values())


def heading(selection: LayerSelection, dead: int, found: ChannelSelection | None) -> Component:
    """What the layer is."""
    layer = selection.layer
    jump = pixels((layer["jump_y"], layer["jump_x"]))
    items = [
        components.fact("channels", f"{layer['channels']:,}", title="Numbered from 0"),
        components.fact("map", f"{layer['height']} × {layer['width']}", title="Rows and columns of the feature map"),
        components.fact(
            "field",
            "global" if layer["rf_global"] else pixels((layer["rf_size_y"], layer["rf_size_x"])),
            title="Theoretical receptive field: every input pixel that can reach a unit",
        ),
        components.fact("step", jump if jump != "global" else "–",
                        title="Input pixels between the fields of two neighbouring units"),
        components.fact(
            "effective field",
            f"{layer['erf_size']} px" if layer["erf_size"] else "–",
            title="Side of the centred box that holds 95 % of the mean absolute input gradient",
        ),
        components.fact("dead", f"{dead:,}", title="Channels with the very same value for all images"),
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
    """`stage 2 > block 1 > dwconv` with what matters last and strongest."""
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
    return pager(
        f"{first + 1}–{last} of {found.total:,} channels"
        if found.pages > 1
        else count(found.total, "channel"),
        previous=address.href(page=found.page - 1) if found.page > 1 else None,
        following=address.href(page=found.page + 1) if found.page < found.pages else None,
    )


def pager(words: str, *, previous: str | None, following: str | None) -> Component:
    """Where one is, with links to the pages before and after."""

    def link(text: str, href: str | None, symbol: str) -> Component:
        classes = "btn btn-sm btn-quiet" + ("" if href else " disabled")
        if href is None:
            return html.Span([icon(symbol), text], className=classes, **attributes(aria_hidden="true"))
        return html.A([icon(symbol), text], href=href, className=classes)

    return html.Nav(
        [link("Previous", previous, "chevron-left"), html.Span(words, className="num"),
         link("Next", following, "chevron-right")],
        className="pager",
        **attributes(aria_label="Pages of the list"),
    )  # fmt: skip
