"""Components shared by several pages: records in, components out."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import dash_bootstrap_components as dbc
from dash import html

from dashboard.state.address import MAX_ADDRESS, SQLAddress
from db.atlas.store import Query

Component = Any


def attributes(**names: str) -> Any:
    """Attributes whose names contain a hyphen: `aria_label` becomes `aria-label`."""
    return {name.replace("_", "-"): value for name, value in names.items()}


def icon(name: str) -> Component:
    """A Bootstrap icon that is hidden from screen readers."""
    return html.I(className=f"bi bi-{name}", **attributes(aria_hidden="true"))


def fact(name: str, value: str, *, title: str = "") -> Component:
    """A small value with its name."""
    return html.Div([html.Dt(name), html.Dd(value)], className="fact", title=title)


def facts(items: Iterable[Component]) -> Component:
    """A line of facts."""
    return html.Dl(list(items), className="facts")


def labelled(label: str, control: Component, *, control_id: str, className: str = "") -> Component:
    """A form control below its label."""
    return html.Div(
        [html.Label(label, htmlFor=control_id), control], className=f"control {className}".strip()
    )


def select(
    control_id: str, options: Sequence[tuple[str, str]], value: str | None = None, *, placeholder: str = ""
) -> Component:
    """A native select of (value, label) pairs; `placeholder` is shown while there are no options."""
    return dbc.Select(
        id=control_id,
        options=[{"value": key, "label": text} for key, text in options],
        value=value,
        placeholder=placeholder,
        size="sm",
    )


def combobox(
    root_id: str,
    control_id: str,
    *,
    label: str,
    placeholder: str,
    none: str,
    name: str,
    most: int | None = None,
) -> Component:
    """The place of a field with a searchable list, drawn by `browser/combobox.js`.

    `name` is the part of the address that a choice is written to, `none` is shown if nothing matches, and `most`
    entries are listed at once.
    """
    given = attributes(
        data_field=control_id,
        data_label=label,
        data_placeholder=placeholder,
        data_none=none,
        data_name=name,
        data_most="Infinity" if most is None else str(most),
    )
    return html.Div(id=root_id, **given)


def step(href: str | None, symbol: str, words: str) -> Component:
    """A link to the previous or next item, as an arrow; without `href` it is disabled."""
    if href is None:
        return html.Span(icon(symbol), className="btn btn-quiet disabled", **attributes(aria_hidden="true"))
    return html.A(
        icon(symbol), href=href, className="btn btn-quiet", title=words, **attributes(aria_label=words)
    )


def sql_tools(query: Query, download: str, *, rows: int | None = None) -> Component:
    """Open in SQL, Copy SQL and Download CSV for one table; `rows` is the CSV's row count, if more than shown."""
    text = query.text()
    return html.Div(
        [
            html.Button(
                [icon("clipboard"), html.Span("Copy SQL")],
                className="btn btn-sm btn-quiet copy-sql",
                type="button",
                **attributes(data_copy=text),
            ),
            html.A(
                [icon("download"), html.Span("CSV" if rows is None else f"CSV, all {rows:,}")],
                href=download,
                title="Download as CSV",
                className="btn btn-sm btn-quiet",
                download="",
            ),
            open_in_sql(text),
        ],
        className="tools",
    )


def open_in_sql(text: str) -> Component:
    """A link that opens the statement on the SQL page; nothing if it is too long for a URL."""
    href = SQLAddress(q=text).href()
    if len(href) > MAX_ADDRESS:
        return None
    return html.A(
        [icon("database"), html.Span("Open in SQL")],
        href=href,
        className="btn btn-sm btn-quiet",
        title="Change this question, draw its answer",
    )


def sql_text(query: Query) -> Component:
    """The SQL behind a page, collapsed."""
    return html.Details(
        [html.Summary("SQL"), html.Pre(html.Code(query.text()), tabIndex="0")], className="sql"
    )


def message(title: str, *body: Component, kind: str = "info") -> Component:
    """A message shown in place of missing content."""
    picture = {"info": "info-circle", "error": "exclamation-circle", "empty": "inboxes"}[kind]
    return html.Div(
        [html.Div(icon(picture), className="message-icon"), html.Div([html.H2(title), *body])],
        className=f"message {kind}",
        role="alert" if kind == "error" else "status",
    )


def command(text: str) -> Component:
    """A shell command to type in a terminal."""
    return html.Pre(html.Code(text), className="command", tabIndex="0")


def trouble(sentence: str) -> Component:
    """The page shown if the atlas cannot be read."""
    return message("The atlas cannot be read", html.P(sentence), kind="error")


def thumbnails_gone(number: int, image_set: str, source: str) -> Component:
    """A sentence shown if thumbnails are missing, with what restores them."""
    if not number:
        return None
    what = (
        "The thumbnail of 1 image here is" if number == 1 else f"The thumbnails of {number:,} images here are"
    )
    return html.P(
        [
            f"{what} gone",
            ": import the set again, ",
            html.Code(f"convscope images import {shlex.quote(image_set)} {shlex.quote(source)}"),
        ],
        className="problem",
        role="alert",
    )


def error_message(
    sentence: str,
    *,
    link: tuple[str, str] | None = None,
    choices: Sequence[str] = (),
    to_type: str = "",
) -> Component:
    """A sentence about an invalid address, with ways to fix it: a link, valid choices, a command to type."""
    body: list[Component] = []
    if to_type:
        body += [html.P("To have it, type in a terminal:"), command(to_type)]
    if choices:
        body.append(html.P("There is: " + "; ".join(choices) + "."))
    if link is not None:
        body.append(html.P(html.A(link[1], href=link[0], className="btn btn-sm btn-primary")))
    return message(sentence, *body, kind="error")


def bar(name: Component, share: float, value: str, *, marked: bool = False, title: str = "") -> Component:
    """One bar of a list: a name, a length from 0 to 1, and the value as text."""
    return html.Li(
        [
            html.Div(html.Span(name) if isinstance(name, str) else name, className="bar-name"),
            html.Div(
                html.Div(className="bar-fill", style={"width": f"{100 * min(max(share, 0), 1):.1f}%"}),
                className="bar-track",
                **attributes(aria_hidden="true"),
            ),
            html.Div(value, className="bar-value"),
        ],
        className="bar marked" if marked else "bar",
        title=title,
    )


def bars(items: Iterable[Component]) -> Component:
    """A list of bars."""
    return html.Ul(list(items), className="bars")


def legend(crop: str) -> Component:
    """Explains how to read the tiles of a crop."""
    if crop == "image":
        words: list[Component] = [
            html.Span(className="swatch field", **attributes(aria_hidden="true")),
            "theoretical field",
            html.Span(className="swatch effective", **attributes(aria_hidden="true")),
            "effective field",
        ]
    else:
        words = ["Faded: in the image, but outside the field."]
    return html.P(words, className="legend")


def card(title: str, tools: Component, *inside: Component) -> Component:
    """A section with its title, tools and content."""
    return html.Section(
        [html.Div([html.H2(title), tools], className="bar-line"), *inside], className="card-plain"
    )


def plain_table(
    head: Sequence[str], body: Sequence[Sequence[Any]], words: str, *, chosen: int | None = None
) -> Component:
    """A table that scrolls sideways, names first; `words` describes it, `chosen` is the highlighted row."""
    names = html.Tr(
        [html.Th(name, scope="col", className="end" if place else "") for place, name in enumerate(head)]
    )
    lines = [
        html.Tr(
            [html.Td(cell, className="num end" if place else "long") for place, cell in enumerate(line)],
            className="selected" if number == chosen else "",
        )
        for number, line in enumerate(body)
    ]
    return html.Div(
        html.Table([html.Thead(names), html.Tbody(lines)], className="table-plain"),
        className="table-scroll",
        tabIndex="0",
        role="region",
        **attributes(aria_label=words),
    )


def problems_list(problems: Iterable[str]) -> Component:
    """Messages about choices in the address that could not be used."""
    return [html.P(sentence, className="problem", role="alert") for sentence in problems]


def pager(words: str, *, previous: str | None, following: str | None) -> Component:
    """The current position, with links to the previous and next page."""

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


def progress_bar(share: float, words: str, state: str = "") -> Component:
    """The finished share of a job (0 to 1) as a bar, with its count in words."""
    share = min(1.0, max(0.0, share))
    track = html.Div(
        html.Div(className="job-fill", style={"width": f"{100 * share:.1f}%"}),
        className="job-track",
        role="progressbar",
        **attributes(
            aria_valuenow=str(round(100 * share)), aria_valuemin="0", aria_valuemax="100", aria_label=words
        ),
    )
    return html.Div([track, html.Span(words, className="num")], className=f"job-bar {state}".strip())
