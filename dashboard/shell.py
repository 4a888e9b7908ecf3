"""The shell around every page: name, page links, pickers, status corner, theme.

Callbacks::

    poll --(browser fetches /status.json)--> notice that no server answers
                                         +--> work --> running jobs, first run
                                         +--> status -+
    address --(browser)--> subject -------------------+--> links, pickers, corner
    pickers --> address
    theme button --(browser)--> theme

The subject is the part of the address that concerns more than one page: path, model, image set. It rarely
changes, so a click on a layer requests nothing but that layer from the server.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import router
from dashboard.api.status import status, work
from dashboard.components.callbacks import in_browser
from dashboard.components.corner import busy_corner, corner
from dashboard.components.elements import attributes, icon, select
from dashboard.components.onboarding import first_run_line
from dashboard.pages import images_add, images_manage
from dashboard.pages.registry import LINKED, PAGES
from dashboard.security.access import who
from dashboard.security.prefix import local
from dashboard.state.address import PatchesAddress
from dashboard.state.context import current
from dashboard.state.ids import LOCATION, make_id

POLL_MILLISECONDS = 4000
# Parts of an address that mean nothing for another model or image set.
OF_MODEL = ("layer", "channels", "channel", "models", "attack", "predicted", "page")
OF_IMAGES = ("id", "label", "search", "ids", "attack", "predicted", "page")


def layout() -> Any:
    """The shell around the page; rebuilt for each visit, so it starts with the current status."""
    now = work(current())
    return html.Div(
        [
            html.A("Skip to content", href="#content", className="skip"),
            html.Header(
                [
                    html.A(
                        [
                            html.Img(src=local("/assets/mark.svg"), alt="", width=26, height=26),
                            html.Span("Convscope"),
                        ],
                        href=local("/"),
                        className="brand",
                    ),
                    html.Nav(
                        [
                            html.A(
                                [icon(page.icon), page.label],
                                id=make_id("shell", page.name),
                                href=local(page.path),
                            )
                            for page in LINKED
                        ],
                        **attributes(aria_label="Pages"),
                    ),
                    html.Div(
                        [
                            _picker("model", "Model"),
                            _picker("images_set", "Images"),
                        ],
                        className="pickers",
                    ),
                    html.A(
                        id=make_id("shell", "busy"),
                        href=local("/jobs"),
                        className="corner busy-corner",
                        **busy_corner(now),
                    ),
                    html.Div(id=make_id("shell", "corner"), className="corner", role="status"),
                    html.Button(
                        [icon("circle-half")],
                        id=make_id("shell", "theme"),
                        className="btn btn-quiet theme-toggle",
                        title="Light or dark theme",
                        type="button",
                        **attributes(aria_label="Switch between light and dark theme"),
                    ),
                    *_person(),
                ],
                className="shell",
            ),
            html.Div(id="away", role="alert"),
            html.Div(id=make_id("shell", "fault"), role="alert"),
            html.Div(
                id="first-run",
                role="region",
                **first_run_line(now["first_run"]),
                **attributes(aria_label="First run"),
            ),
            html.Main(router.layout(), id="content", tabIndex="-1"),
            images_add.dialog(),
            images_manage.dialog(),
            dcc.Interval(id=make_id("shell", "poll"), interval=POLL_MILLISECONDS),
            dcc.Store(id=make_id("shell", "status"), data=status(current())),
            dcc.Store(id=make_id("shell", "work"), data=now),
            dcc.Store(id=make_id("shell", "notices"), data=_notices()),
            dcc.Store(id=make_id("shell", "subject")),
            dcc.Store(id=make_id("shell", "filled")),
            dcc.Store(id=make_id("shell", "theme_name")),
            html.Div(id="tip", role="tooltip", hidden=True),
        ],
        className="app",
        **attributes(data_pages=" ".join(page.path for page in PAGES)),
    )


def _notices() -> dict[str, Any]:
    """What the browser shows while it gets no status."""
    return {
        "away": "Convscope does not answer. Is it still running? What you see may be out of date.",
        # the server leads an address that requires a login to it, and back
        "logged_out": ["Your login has ended: ", html.A("log in again", href="", target="_self"), "."],
    }


def _person() -> list[Any]:
    """The logged-in user, if a proxy names one, and a logout link, if this dashboard has its own login."""
    visitor = who()
    shown: list[Any] = []
    if visitor and visitor.name:
        shown.append(
            html.Span(
                [icon("person"), visitor.name], className="person", title=f"Logged in as {visitor.name}"
            )
        )
    if visitor and visitor.may_log_out:
        button = html.Button(
            [icon("box-arrow-right"), html.Span("Log out")],
            type="submit",
            className="btn btn-quiet",
            title="Log out",
        )
        shown.append(html.Form(button, action=local("/logout"), method="post", className="log-out"))
    return shown


def _picker(name: str, label: str) -> Any:
    control = make_id("shell", name)
    return html.Div(
        [html.Label(label, htmlFor=control), select(control, [], placeholder="none yet")], className="picker"
    )


def register(app: Dash) -> None:
    """Register the shell's callbacks."""
    in_browser(
        app,
        "poll",
        Output(make_id("shell", "status"), "data"),
        Output(make_id("shell", "work"), "data"),
        Output("away", "children"),
        Input(make_id("shell", "poll"), "n_intervals"),
        State(make_id("shell", "status"), "data"),
        State(make_id("shell", "work"), "data"),
        State(make_id("shell", "notices"), "data"),
        prevent_initial_call=True,
    )
    app.callback(
        {name: Output(make_id("shell", "busy"), name) for name in ("children", "hidden", "title")},
        Input(make_id("shell", "work"), "data"),
        prevent_initial_call=True,
    )(show_work)
    app.callback(
        {name: Output("first-run", name) for name in ("children", "hidden", "className")},
        Input(make_id("shell", "work"), "data"),
        prevent_initial_call=True,
    )(show_first_run)
    app.callback(
        *[
            Output(make_id("shell", page.name), part)
            for page in LINKED
            for part in ("href", "className", "aria-current")
        ],
        Output(make_id("shell", "model"), "options"),
        Output(make_id("shell", "model"), "value"),
        Output(make_id("shell", "images_set"), "options"),
        Output(make_id("shell", "images_set"), "value"),
        Output(make_id("shell", "corner"), "children"),
        Output(make_id("shell", "filled"), "data"),
        Input(make_id("shell", "subject"), "data"),
        Input(make_id("shell", "status"), "data"),
        prevent_initial_call=True,
    )(show_shell)
    in_browser(app, "showHere", Input(make_id("shell", "filled"), "data"))
    in_browser(
        app,
        "subject",
        Output(make_id("shell", "subject"), "data"),
        Output(make_id("shell", "fault"), "children"),
        Input(LOCATION, "pathname"),
        Input(LOCATION, "search"),
        State(make_id("shell", "subject"), "data"),
    )
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Input(make_id("shell", "model"), "value"),
        Input(make_id("shell", "images_set"), "value"),
        State(make_id("shell", "filled"), "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(pick)
    in_browser(
        app,
        "theme",
        Output(make_id("shell", "theme_name"), "data"),
        Input(make_id("shell", "theme"), "n_clicks"),
    )


def show_work(work: Mapping[str, Any] | None) -> dict[str, Any]:
    """The corner about jobs."""
    return busy_corner(work or {})


def show_first_run(work: Mapping[str, Any] | None) -> dict[str, Any]:
    """The line about the first run."""
    return first_run_line((work or {}).get("first_run"))


def show_shell(subject: Mapping[str, str] | None, state: Mapping[str, Any] | None) -> tuple[Any, ...]:
    """Links that keep the model and the image set, pickers, corner."""
    if subject is None:
        raise PreventUpdate
    catalogue = current().catalogue()
    address = PatchesAddress(model=subject["model"], images=subject["images"])
    path = subject["path"]
    # the Images page also shows sets without any run
    run = catalogue.run(address.model, address.images)
    links: list[str] = []
    shown = next((page.part_of or page.name for page in PAGES if page.path == path), "")
    for page in LINKED:
        here = page.name == shown
        links += [
            page.address(model=address.model, images=address.images).href(),
            "page-link-here" if here else "page-link-there",
            "page" if here else "false",
        ]
    models = list(dict.fromkeys(found["model"] for found in catalogue.runs))
    sets = [found["image_set"] for found in catalogue.image_sets]
    model = address.model or (run["model"] if run else "")
    images = address.images or (run["image_set"] if run else sets[0] if sets else "")
    return (
        *links,
        _options(models, model),
        model,
        _options(sets, images),
        images,
        corner(catalogue, model, images, indexing=(state or {}).get("indexing", [])),
        {"model": model, "images": images, "run": run is not None},
    )


def pick(model: str | None, images: str | None, filled: Mapping[str, Any] | None, search: str | None) -> str:
    """The query string of any page for another model or image set."""
    query = dict(parse_qsl((search or "").lstrip("?"), keep_blank_values=True))
    before = dict(query)
    for name, value, without in (("model", model, OF_MODEL), ("images", images, OF_IMAGES)):
        if filled and value and value != filled[name]:
            query = {key: text for key, text in query.items() if key not in without} | {name: value}
    if query == before:
        raise PreventUpdate
    return "?" + urlencode(query, safe=",")


def _options(names: Sequence[str], chosen: str) -> list[dict[str, str]]:
    """Options of a picker; an unknown name from the address stays listed."""
    listed = [*names, chosen] if chosen and chosen not in names else list(names)
    return [{"value": name, "label": name} for name in listed]
