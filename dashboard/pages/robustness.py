"""The Robustness page: attacks on a whole set, as curves, points, tables and their SQL.

    address, work, clock --> show_robustness --> everything
    a click on a figure --(browser)--> address of what it stands for

Every number is a SELECT from a view of `db.sql.views`; each table shows its own.
"""

from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.api.answers import job_record
from dashboard.components import elements as components
from dashboard.components.callbacks import in_browser, render_once
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import count
from dashboard.components.onboarding import nothing_yet
from dashboard.components.robustness_figures import (
    MAX_POINTS,
    curve_figure,
    epsilon_words,
    fixed_figure,
    matrix_figure,
    share_words,
    strip_figure,
)
from dashboard.pages.page import Page
from dashboard.pictures.routes import thumbnail_address
from dashboard.security.prefix import local, page_path
from dashboard.state.address import AttackAddress, RobustnessAddress
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from db.atlas.store import Query
from db.ledger.engine import LedgerError
from db.queries import jobs as job_queries
from db.queries import robustness as robustness_queries
from workers.requests.followups import MAX_FOLLOWED
from workers.requests.images import short_ids

TITLE = "Robustness · Convscope"
BODY = make_id("robustness", "body")
CLOCK = make_id("robustness", "clock")
CURVE = make_id("robustness", "curve")
STRIP = make_id("robustness", "strip")
MATRIX = make_id("robustness", "matrix")
MAX_CLASSES = 30
MAX_LISTED = 60
REFRESH_MILLISECONDS = 5000
QUIET_MODEBAR: Any = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}


@render_once(TITLE)
def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=BODY),
            dcc.Interval(id=CLOCK, interval=REFRESH_MILLISECONDS, disabled=True),
            html.Div(id=make_id("robustness", "went"), hidden=True),
        ],
        className="single-page robustness-page",
    )


def register(app: Dash) -> None:
    """Add the page's callbacks."""
    app.callback(
        Output(BODY, "children"),
        Output(CLOCK, "disabled"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        Input(make_id("shell", "work"), "data"),
        Input(CLOCK, "n_intervals"),
        State(LOCATION, "pathname"),
    )(show_robustness)
    in_browser(
        app,
        "openPoint",
        Output(make_id("robustness", "went"), "children"),
        Input(CURVE, "clickData"),
        Input(STRIP, "clickData"),
        Input(MATRIX, "clickData"),
        prevent_initial_call=True,
    )


def show_robustness(
    search: str | None, _status: Any, _work: Any, _clock: Any, pathname: str | None
) -> tuple[Component, bool]:
    """The page, and whether nothing goes on that would change it."""
    if page_path(pathname) != RobustnessAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble:
        return components.trouble(catalogue.trouble), True
    if not catalogue.runs or not catalogue.image_sets:
        return nothing_yet(catalogue.newest_set()), True
    address, problems = RobustnessAddress.read(search)
    try:
        return page(context, catalogue, address, problems)
    except LedgerError as error:
        return components.message("The ledger cannot be read", html.P(f"{error}."), kind="error"), True


def page(
    context: Context, catalogue: Catalogue, address: RobustnessAddress, problems: dict[str, str]
) -> tuple[Component, bool]:
    """The page's parts."""
    image_set = catalogue.newest_set(address.images)
    if address.images and image_set != address.images:
        problems["images"] = f"There is no image set “{address.images}”; this is {image_set}."
    images = next(row["images"] for row in catalogue.image_sets if row["image_set"] == image_set)
    running = job_queries.jobs(
        context.ledger,
        states=("queued", "running"),
        kinds=("attack", "transfer"),
        image_set=image_set,
        limit=5,
    )
    ways = context.both.fetch(robustness_queries.protocols(image_set))
    way = next((found for found in ways if found["protocol"] == address.protocol), None)
    if address.protocol and way is None:
        problems["protocol"] = f"{image_set} was not attacked by “{address.protocol}”."
    way = way or next(iter(ways), None)
    heading = _heading(image_set, images, address)
    lines = [_job_line(job) for job in running]
    if way is None:
        told = components.problems_list(problems.values())
        return html.Div([heading, *told, *lines, _empty(address, image_set, images)]), not running
    here = RobustnessAddress(
        model=address.model if address.model in way["models"] else way["models"][0],
        images=image_set,
        protocol=way["protocol"],
        label=address.label,
        axis=address.axis,
        sort=address.sort,
        epsilon=address.epsilon,
        listed=address.listed if address.listed in way["models"] else "",
    )
    parts = [
        heading,
        *components.problems_list(problems.values()),
        *lines,
        _controls(context, here, ways),
        *_curve(context, here, way),
        # one epsilon alone finds no smallest one
        *([] if way["fixed"] else _strip(context, here, way)),
        html.Div([_outcomes(context, here, images), _leaderboard(context, here, way)], className="two"),
        _transfers(context, catalogue, here),
        html.Div([_matrix(context, here, way), _classes(context, here, way)], className="two"),
    ]
    return html.Div(parts), not running


def _heading(image_set: str, images: int, address: RobustnessAddress) -> Component:
    there = AttackAddress(model=address.model, images=image_set, ids=f"0-{images - 1}" if images > 1 else "0")
    return html.Div(
        [
            html.Div(
                [html.H1("Robustness"), html.P(f"{image_set} · {count(images, 'image')}")], className="title"
            ),
            html.Div(
                html.A(
                    [icon("lightning-charge"), html.Span("Attack the whole set…")],
                    href=there.href(),
                    className="btn btn-sm btn-quiet",
                ),
                className="tools tools-place",
            ),
        ],
        className="heading",
    )


def _job_line(job: Record) -> Component:
    record = job_record(job)
    done = f"{job['items_done']:,} of {job['items']:,}" + (
        f", {job['items_failed']:,} failed" if job["items_failed"] else ""
    )
    return html.Div(
        [
            html.A(f"Job {job['job']}", href=local(f"/jobs?job={job['job']}"), className="num"),
            html.Span(job["state"]),
            html.Div(
                [
                    html.Div(
                        html.Div(className="job-fill", style={"width": f"{100 * record['progress']:.1f}%"}),
                        className="job-track",
                    ),
                    html.Span(
                        f"{done} {'attacks' if job['kind'] == 'attack' else 'judgements'}", className="num"
                    ),
                ],
                className="job-bar",
            ),
        ],
        className="job-now",
        role="status",
    )


def _empty(address: RobustnessAddress, image_set: str, images: int) -> Component:
    there = AttackAddress(model=address.model, images=image_set, ids=f"0-{images - 1}" if images > 1 else "0")
    return components.message(
        f"{image_set} was not attacked yet",
        html.P(
            [
                "Ask on the ",
                html.A("Attack page", href=there.href()),
                ", or in a terminal. Each image is written as it ends; a job can be cancelled, resumed and extended.",
            ]
        ),
        components.command(f"convscope attack --model {address.model or 'MODEL'} --images {image_set}"),
        kind="empty",
    )


def _controls(context: Context, here: RobustnessAddress, ways: Sequence[Record]) -> Component:
    classes = context.both.fetch(
        robustness_queries.by_class(here.images, here.protocol, here.model, order="name", limit=None)
    )
    return html.Div(
        [
            _choice(
                "How it was attacked",
                "protocol",
                [(way["protocol"], f"{way['protocol']} ({way['attacks']:,})") for way in ways],
                here.protocol,
            ),
            _choice(
                "Class",
                "label",
                [
                    ("all", "All classes"),
                    *((row["class"], f"{row['label']} ({row['images']})") for row in classes),
                ],
                here.label or "all",
            ),
            _choice("Epsilon axis", "axis", [("log", "Logarithmic"), ("linear", "Linear")], here.axis),
        ],
        className="controls",
        role="group",
        **attributes(aria_label="What is shown"),
    )


def _choice(label: str, name: str, options: Sequence[tuple[str, str]], chosen: str) -> Component:
    """A select that writes the address (`assets/pages/robustness.js`)."""
    control = make_id("robustness", name)
    return components.labelled(label, components.select(control, options, chosen), control_id=control)


def _tools(query: Query, here: RobustnessAddress, table: str) -> Component:
    return components.sql_tools(query, local(f"/download/robustness/{table}.csv") + here.search_part())


def _card(title: str, query: Query, here: RobustnessAddress, table: str, *inside: Component) -> Component:
    tools = _tools(query, here, table)
    return components.card(title, tools, *inside, components.sql_text(query))


def _curve(context: Context, here: RobustnessAddress, way: Record) -> list[Component]:
    query = robustness_queries.curve(here.images, here.protocol, image_class=here.label)
    rows = context.both.fetch(query)
    if not rows:
        return [components.message("No attack of that class", html.P("Choose another class."), kind="empty")]
    of_label = way["measure"] == "robust accuracy"
    if way["fixed"]:
        figure = fixed_figure(rows)
        told = (
            "Over the attacked images: clean accuracy, and accuracy at the one epsilon that was looked at"
            if of_label
            else "Share of predictions, right or wrong, that the one epsilon that was looked at leaves as they are"
        )
        told += ", with a 95 % bootstrap interval over images. Nothing is known of other epsilons."
    else:
        figure = curve_figure(rows, cap=way["cap"], step=_step(rows), axis=here.axis)
        told = (
            "At ε = 0 the clean accuracy over the attacked images; above, the share that is right and that no epsilon "
            "looked at up to there changes."
            if of_label
            else "The share of images whose prediction no epsilon looked at up to there changes, be it right or wrong. "
            "For accuracy, attack relative to the label."
        )
        told += (
            " Kaplan and Meier's estimate with a 95 % bootstrap band over images: images that resist leave it at the "
            "largest epsilon, those without a gradient at 0. Choose a point to list the images that change there."
        )
    title = "Robust accuracy" if of_label else "Predictions kept"
    return [
        _card(
            title,
            query,
            here,
            "curve",
            _graph(CURVE, figure, f"{title} against epsilon", 380),
            html.P(told, className="quiet"),
        ),
        *_listed(context, here),
    ]


def _step(rows: Sequence[Record]) -> float:
    """The smallest epsilon above 0 that changed something: where a logarithmic axis begins."""
    return min((row["epsilon"] for row in rows if row["epsilon"] > 0), default=0.001)


def _graph(name: str, figure: Any, words: str, height: int | None = None) -> Component:
    return html.Div(
        dcc.Graph(
            id=name,
            figure=figure,
            config=QUIET_MODEBAR,
            responsive=True,
            style={"height": f"{height or figure.layout.height}px"},
        ),
        role="group",
        **attributes(aria_label=words),
    )


LISTED = {
    "wrong_before": "Wrong before any attack: {} of {}",
    "changed": "Changed at ε {2}: {0} of {1}",
    "resisted": "Resist up to ε {2}: {0} of {1}",
}


def _listed(context: Context, here: RobustnessAddress) -> list[Component]:
    """The images that change at the epsilon that the address names, and those that resist up to it."""
    try:
        epsilon = float(here.epsilon)
    except ValueError:
        return []
    model = here.listed or here.model
    rows = context.both.fetch(
        robustness_queries.at_epsilon(here.images, here.protocol, model, epsilon, image_class=here.label)
    )
    sections = [
        _listed_section([row for row in rows if row["verdict"] == verdict], words, model, epsilon)
        for verdict, words in LISTED.items()
    ]
    close = html.A(
        [icon("x-lg"), "Close"], href=here.href(epsilon="", listed=""), className="btn btn-sm btn-quiet"
    )
    nothing = None if rows else html.H2(f"No image of {model} changes at ε {epsilon_words(epsilon)}")
    return [
        html.Section(
            [html.Div([html.Span(nothing), close], className="bar-line"), *sections], className="card-plain"
        )
    ]


def _listed_section(rows: Sequence[Record], words: str, model: str, epsilon: float) -> Component:
    if not rows:
        return None
    told = [
        f"{row['class_name']}, taken for {row['name_before']}"
        if row["verdict"] == "wrong_before"
        else f"{row['class_name']}, still {row['name_after']}"
        if row["verdict"] == "resisted"
        else f"{row['name_before']} → {row['name_after']}"
        for row in rows[:MAX_LISTED]
    ]
    return html.Div(
        [
            html.H2(words.format(count(len(rows), "image"), model, epsilon_words(epsilon))),
            html.Div(
                [
                    html.A(
                        [
                            html.Img(src=thumbnail_address(row["key"]), alt=""),
                            html.Div(html.Span(line, className="name"), className="caption"),
                        ],
                        href=local(f"/attack?attack={row['attack']}"),
                        title=f"image {row['image_id']}: {line}",
                    )
                    for row, line in zip(rows, told, strict=False)
                ],
                className="thumbnails",
            ),
            html.P(f"The first {MAX_LISTED}.", className="quiet") if len(rows) > MAX_LISTED else None,
        ]
    )


def _strip(context: Context, here: RobustnessAddress, way: Record) -> list[Component]:
    query = robustness_queries.strip(here.images, here.protocol, image_class=here.label)
    rows = context.both.fetch(query)
    if not rows:
        return []
    figure = strip_figure(rows, cap=way["cap"], step=min(row["smallest"] for row in rows), axis=here.axis)
    censored = sum(row["censored"] for row in rows)
    told = "Each point is an image: choose one to open its attack. "
    told += f"The lowest epsilon looked at is {epsilon_words(way['lowest'])}: an image there changes at that or less."
    if way["measure"] == "robust accuracy":
        told += " Images that are wrong before any attack are left out."
    if censored:
        told += f" Open triangles ({censored:,}) resist up to the largest epsilon: theirs lies beyond."
    if len(rows) > MAX_POINTS:
        told += f" {MAX_POINTS:,} images of each model, drawn at random."
    return [
        _card(
            "Smallest epsilon of each image",
            query,
            here,
            "strip",
            _graph(STRIP, figure, "Smallest epsilon of each image"),
            html.P(told, className="quiet"),
        )
    ]


def _outcomes(context: Context, here: RobustnessAddress, images: int) -> Component:
    query = robustness_queries.outcomes(here.images, here.protocol, image_class=here.label)
    rows = context.both.fetch(query)
    of_label = bool(rows) and rows[0]["measure"] == "robust accuracy"
    names = {
        "images": "Attacked",
        **({"wrong_before": "Wrong before"} if of_label else {}),
        "changed": "Changed",
        "resisted": "Resist",
        "no_gradient": "No gradient",
    }
    body = [[row["model"], *(f"{row[name]:,}" for name in names)] for row in rows]
    told = f"Images, of the {images:,} of {here.images}."
    if of_label:
        told += " Only images with a label that the model knows can be attacked away from it."
    if any(row["no_gradient"] for row in rows):
        told += " Without a gradient nothing was attacked: such an image counts at ε = 0 alone."
    return _card(
        "Outcomes",
        query,
        here,
        "outcomes",
        components.plain_table(["Model", *names.values()], body, "Outcomes"),
        html.P(told, className="quiet"),
    )


def _leaderboard(context: Context, here: RobustnessAddress, way: Record) -> Component:
    query = robustness_queries.leaderboard(here.images, here.protocol)
    rows = context.both.fetch(query)
    of_label = way["measure"] == "robust accuracy"
    shares = {
        name: words
        for name, words in (
            ("right_at_0", "Clean"),
            *((f"{'right' if of_label else 'kept'}_at_{level}", f"{level}/255") for level in (1, 4, 8)),
        )
        if name != "right_at_0" or of_label
    }
    body = [
        [
            html.A(row["model"], href=here.href(model=row["model"])),
            f"{row['images']:,}",
            *(share_words(row[name]) for name in shares),
            *([] if way["fixed"] else [_median(row, way, row["changed"])]),
        ]
        for row in rows
    ]
    told = "Over the images that all these models were attacked on: " + (
        "clean accuracy, and robust accuracy up to so many levels of 255."
        if of_label
        else "the share of predictions, right or wrong, kept up to so many levels of 255."
    )
    told += " A dash: nothing was looked at there." + (
        ""
        if way["fixed"]
        else " Median ε: of the images that are right before the attack."
        if of_label
        else " Median ε: of all images with a gradient."
    )
    return _card(
        "Leaderboard" + ("" if of_label else ": predictions kept"),
        query,
        here,
        "leaderboard",
        components.plain_table(
            ["Model", "Images", *shares.values(), *([] if way["fixed"] else ["Median ε"])],
            body,
            "Leaderboard",
        ),
        html.P(told if rows else "No image was attacked under all models.", className="quiet"),
    )


def _median(row: Record, way: Record, changed: int) -> str:
    """A median of smallest epsilons: at most the lowest that was looked at, or beyond the largest."""
    median = row["median_epsilon"]
    if median is None:
        return f"> {way['cap']:.3g}" if changed + row["resisted"] else "–"
    return ("≤ " if median <= way["lowest"] * (1 + 1e-9) else "") + epsilon_words(median)


def _transfers(context: Context, catalogue: Catalogue, here: RobustnessAddress) -> Component:
    query = robustness_queries.transfers(here.images, here.protocol)
    rows = context.both.fetch(query)
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    attacked = list(dict.fromkeys(row["model"] for row in rows))
    pairs = {(row["model"], row["judge"]): row for row in rows}
    body = [
        [
            model,
            *(_transfer_cell(pairs[(model, judge)]) if (model, judge) in pairs else "–" for judge in judges),
        ]
        for model in attacked
    ]
    others = sorted({run["model"] for run in catalogue.runs} - {here.model})
    attacks = [
        row["attack"]
        for row in context.both.fetch(robustness_queries.strip(here.images, here.protocol))
        if row["model"] == here.model and row["verdict"] == "changed"
    ][:MAX_FOLLOWED]
    ask = (
        html.Button(
            [icon("people"), f"Ask {', '.join(others)} about {here.model}"],
            type="button",
            className="btn btn-sm btn-quiet ask-judges",
            **attributes(data_judges=",".join(others), data_attacks=short_ids(attacks)),
        )
        if others and attacks
        else None
    )
    return _card(
        "Transfer",
        query,
        here,
        "transfer",
        components.plain_table(["Made against", *judges], body, "Transfer") if rows else None,
        html.P(
            "Of the images that an attack on one model changed, and that another model had right before, the share "
            "whose class changes for that one too."
            if rows
            else "Nobody was asked yet whether the attacked images fool other models too."
            if others
            else "No other model was indexed.",
            className="quiet",
        ),
        ask,
    )


def _transfer_cell(row: Record) -> str:
    if row["share_fooled"] is None:
        return f"none right before; {share_words(row['share_moved'])} of {row['judged']:,} change"
    return f"{share_words(row['share_fooled'])} of {row['right_before']:,}"


def _matrix(context: Context, here: RobustnessAddress, way: Record) -> Component:
    query = robustness_queries.flips(here.images, here.protocol, here.model, limit=None)
    rows = context.both.fetch(query)
    start = "True class" if way["measure"] == "robust accuracy" else "Prediction"
    inside = (
        _graph(MATRIX, matrix_figure(rows, start=start.lower()), "From which class to which")
        if rows
        else html.P("The attack changed no image.", className="quiet")
    )
    told = (
        "The classes that most changed images become, and those they were. Choose a cell to open an example."
    )
    return _card(
        f"{start} → class after the attack, {here.model}",
        query,
        here,
        "flips",
        inside,
        html.P(told, className="quiet") if rows else None,
    )


def _classes(context: Context, here: RobustnessAddress, way: Record) -> Component:
    query = robustness_queries.by_class(
        here.images, here.protocol, here.model, order=here.sort, limit=MAX_CLASSES
    )
    rows = context.both.fetch(query)
    of_label = way["measure"] == "robust accuracy"
    names = {
        **({"wrong_already": "Wrong before"} if of_label else {}),
        "flipped": "Changed",
        "resisted": "Resist",
    }
    body = [
        [
            html.A(row["label"] or row["class"], href=here.href(label=row["class"])),
            f"{row['images']:,}",
            *(f"{row[name]:,}" for name in names),
            *([] if way["fixed"] else [_median(row, way, row["flipped"])]),
        ]
        for row in rows
    ]
    orders = {"weakest": "weakest", "strongest": "strongest", "images": "most images", "name": "name"}
    return _card(
        f"Classes, {here.model}",
        query,
        here,
        "classes",
        html.Div(
            [
                html.A(
                    words,
                    href=here.href(sort=order),
                    className=f"segment{' on' if order == here.sort else ''}",
                )
                for order, words in orders.items()
            ],
            className="segments",
        ),
        components.plain_table(
            ["Class", "Images", *names.values(), *([] if way["fixed"] else ["Median ε"])], body, "Classes"
        )
        if rows
        else html.P("No attacked image has a label.", className="quiet"),
    )


PAGE = Page(
    name="robustness",
    title=TITLE,
    address=RobustnessAddress,
    layout=layout,
    register=register,
    label="Robustness",
    icon="graph-down",
)
