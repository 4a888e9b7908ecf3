"""Static layout of the Patches page: layers at the left, controls and grid at the right."""

import dash_cytoscape as cyto
from dash import dcc, html

from dashboard.components.drawing_style import STYLESHEET
from dashboard.components.elements import Component, attributes, combobox, icon, labelled, select
from dashboard.pages import model_offers
from dashboard.pictures.compose import TILE_SIZES
from dashboard.pictures.geometry import CROPS
from dashboard.state.address import K_MOST
from dashboard.state.ids import make_id

TITLE = "Patches · Convscope"
SORTS: dict[str, str] = {
    "index": "Number",
    "strongest": "Strongest activation",
    "selectivity": "Selectivity",
    "dead_last": "Number, dead last",
}


def patches_id(name: str) -> str:
    return make_id("patches", name)


def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Section(
                [_layer_picker(), _drawing_panel()], className="side", **attributes(aria_label="Layers")
            ),
            html.Section(_content(), className="content"),
            *_state(),
        ],
        className="patches-page",
    )


def _layer_picker() -> Component:
    layers = combobox(
        patches_id("layers"),
        patches_id("layer"),
        label="Layers",
        placeholder="Search layers…",
        none="No matching layer in this model.",
        name="layer",
    )
    steps = [
        _step("previous", "chevron-up", "Previous layer"),
        _step("next", "chevron-down", "Next layer"),
    ]
    return html.Div(
        [
            labelled("Layer", layers, control_id=patches_id("layer"), className="layer-search"),
            html.Div(steps, className="steps"),
        ],
        className="layer-picker",
    )


def _drawing_panel() -> Component:
    zooms = [_zoom("−", -1, "Smaller"), _zoom("+", 1, "Larger")]
    return html.Details(
        [
            html.Summary("Drawing of the network"),
            html.Div(zooms, className="zooms"),
            html.Div(
                _drawing(),
                className="drawing-scroll",
                role="img",
                tabIndex="0",
                **attributes(aria_label="Drawing of the network; the list above holds the same layers"),
            ),
        ],
        open=True,
        className="drawing-panel",
    )


def _zoom(symbol: str, direction: int, title: str) -> Component:
    return html.Button(
        symbol, className="zoom", type="button", title=title,
        **attributes(data_zoom=str(direction), aria_label=f"{title} drawing"),
    )  # fmt: skip


def _drawing() -> Component:
    return cyto.Cytoscape(
        id=patches_id("drawing"),
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
    )


def _content() -> list[Component]:
    controls = html.Div(
        _controls(),
        className="controls",
        id=patches_id("controls"),
        role="group",
        **attributes(aria_label="What is shown"),
    )
    grid = html.Div(
        id=patches_id("grid"), className="grid", role="region", **attributes(aria_label="Patches")
    )
    return [
        html.Div(id=patches_id("tour")),
        model_offers.layout(),
        html.Div(id=patches_id("heading")),
        controls,
        html.Div(id=patches_id("problems")),
        grid,
        html.Div(id=patches_id("pager")),
    ]


def _state() -> list[Component]:
    """Stores of the page, and dummy outputs for callbacks that show nothing."""
    return [
        dcc.Store(id=patches_id("rows")),
        dcc.Store(id=patches_id("chosen")),
        dcc.Store(id=patches_id("drawn")),
        dcc.Store(id=patches_id("sheet"), data=STYLESHEET),
        html.Div(id=patches_id("painted"), hidden=True),
        html.Div(id=patches_id("lit"), hidden=True),
        dcc.Store(id=patches_id("layer_list")),
        html.Div(id=patches_id("listed"), hidden=True),
    ]


def _step(direction: str, symbol: str, title: str) -> Component:
    return html.Button(
        icon(symbol), id=patches_id(direction), className="btn btn-quiet", title=title, type="button",
        **attributes(aria_label=title),
    )  # fmt: skip


def _controls() -> list[Component]:
    tiles = [("fit", "Fit")] + [(str(size), f"{size} px") for size in TILE_SIZES if size <= 192]
    channels = dcc.Input(
        id=patches_id("channels"),
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
                html.Label("Channels, from 0", htmlFor=patches_id("channels")),
                channels,
                html.Div(id=patches_id("problem"), className="problem", role="alert"),
            ],
            className="control wide",
        ),
        labelled("Sort by", select(patches_id("sort"), list(SORTS.items())), control_id=patches_id("sort")),
        labelled(
            "Patches",
            select(patches_id("k"), [(str(number), str(number)) for number in range(1, K_MOST + 1)]),
            control_id=patches_id("k"),
        ),
        labelled("Crop", select(patches_id("crop"), list(CROPS.items())), control_id=patches_id("crop")),
        labelled("Tile", select(patches_id("tile"), tiles), control_id=patches_id("tile")),
        html.Div(id=patches_id("tools"), className="tools-place"),
    ]
