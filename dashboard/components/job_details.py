"""An opened job: its state, parameters, errors, items, and what an import did."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from dashboard.components.elements import Component, attributes, command, icon
from dashboard.components.formatting import count, when
from dashboard.components.import_report import layout_report, refusals
from dashboard.components.job_cells import (
    BESIDE,
    OF_ONE_ITEM,
    age,
    possible_actions,
    progress_bar,
    result_link,
    state,
    subject,
)
from dashboard.security.prefix import local
from dashboard.state.address import AttackAddress
from dashboard.state.context import Record
from workers.jobs.registry import JOB_KINDS

MAX_ITEMS = 200
_MAX_TEXT = 160  # characters of a list of numbers
_LISTS = ("ids", "maps", "attacks")
_HIDDEN = ("upload", "before", "parameters", "models")  # numbers of files, and what is shown otherwise
_COUNTS = (
    ("known", "already there"),
    ("labelled", "with a label"),
    ("duplicates", "with the same bytes as another"),
    ("changed", "with other content than before"),
    ("relabelled", "with a new label"),
    ("moved", "read from a new place"),
    ("renamed", "moved or renamed"),
    ("gone", "without a file"),
)


def action_id(action: Any, job: Any) -> Any:
    """The id of a button of the opened job; with ALL for both, the pattern of all of them."""
    return {"page": "jobs", "action": action, "job": job}


def part_id(name: str) -> Any:
    """The id of a part of the opened job."""
    return f"jobs-part-{name}"


def job_parts(shown: Record, items: Sequence[Record], image_import: Record | None) -> dict[str, Component]:
    """What changes in an opened job while it runs, by name: each part is replaced only if it differs."""
    return {
        "status": [
            html.Div([state(shown), age(shown)], className="job-now-state"),
            progress_bar(shown),
            html.P(shown["note"], className="quiet job-note") if shown["note"] else None,
        ],
        "actions": [result_link(shown), *_buttons(shown)],
        "problem": _problem(shown),
        "facts": [html.Div([html.Dt(name), html.Dd(value)]) for name, value in facts(shown).items()],
        "import": import_summary(image_import) if image_import else None,
        "items": _item_table(shown, items),
    }


def job_details(shown: Record, parts: Mapping[str, Component], *, close: str) -> Component:
    """An opened job; `close` is the address of the page without it."""
    number = shown["job"]
    return html.Section(
        [
            html.Div(
                [
                    html.H2([html.Span(f"#{number}", className="num job-number"), shown["title"]]),
                    html.A(
                        icon("x-lg"),
                        href=close,
                        className="btn btn-sm btn-quiet",
                        title="Close",
                        **attributes(aria_label=f"Close job {number}", data_stay=BESIDE),
                    ),
                ],
                className="bar-line",
            ),
            html.P(subject(shown), className="quiet") if subject(shown) else None,
            _part("status", parts),
            _part("actions", parts, className="job-actions"),
            _part("problem", parts),
            html.Dl(parts["facts"], id=part_id("facts"), className="job-parameters"),
            _part("import", parts),
            _item_section(shown, parts),
        ],
        className="job-card job-inside open",
        **attributes(aria_label=f"Job {number}"),
    )


def _part(name: str, parts: Mapping[str, Component], **options: Any) -> Component:
    return html.Div(parts[name], id=part_id(name), **options)


def _problem(job: Record) -> Component:
    if not job["error"]:
        return None
    return [
        html.P(job["error"], className="problem", role="alert"),
        html.Details([html.Summary("Traceback"), command(job["traceback"])]) if job["traceback"] else None,
    ]


def _item_section(job: Record, parts: Mapping[str, Component]) -> Component:
    """The items, folded; the frame stays while its rows change, so it keeps its place."""
    if job["kind"] in OF_ONE_ITEM:
        return html.Div(id=part_id("items"), hidden=True)
    more = f"The first {MAX_ITEMS}; /api/jobs/{job['job']} returns all of them."
    return html.Details(
        [
            html.Summary(f"Items ({job['items']:,})"),
            _part(
                "items",
                parts,
                className="table-scroll",
                tabIndex="0",
                role="region",
                **attributes(aria_label="Items"),
            ),
            html.P(more, className="quiet") if job["items"] > MAX_ITEMS else None,
        ]
    )


def _buttons(job: Record) -> list[Component]:
    return [
        html.Button(
            [icon(symbol), label],
            id=action_id(name, job["job"]),
            type="button",
            className="btn btn-sm btn-quiet",
            **attributes(aria_label=f"{label} job {job['job']}"),
        )
        for name, label, symbol in possible_actions(job)
    ]


def facts(job: Record) -> dict[str, str]:
    """The parameters of a job and how it ran, by name, as text; what it does not have is left out."""
    request = job["parameters"]
    found: Record = {
        name: value
        for name, value in (request | (request.get("parameters") or {})).items()
        if name not in _HIDDEN
    }
    found |= {
        "models": ", ".join(job["models"]) or None,
        "queue": job["queue"],
        "attempts": job["attempts"],
        "submitted": when(job["created"]),
        "started": when(job["started"]) if job["started"] else None,
        "finished": when(job["finished"]) if job["finished"] else None,
        "worker": job["worker"],
    }
    return {name.replace("_", " "): _text(name, value) for name, value in found.items() if value is not None}


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if name in _LISTS and len(text) > _MAX_TEXT:
        return text[: _MAX_TEXT - 3] + "…"
    return text


def import_summary(report: Record) -> Component:
    """What entered an image set, and the files that were refused."""
    layout = report["layout"] or {}
    if layout.get("preview"):
        return html.Div(
            [html.P("A preview: nothing was imported."), layout_report(layout)], className="import-report"
        )
    counts = [f"{report[name]:,} {words}" for name, words in _COUNTS if report[name]]
    sentence = ", ".join([f"{count(report['added'], 'image')} added", *counts])
    return html.Div(
        [html.P(f"{sentence}."), layout_report(layout), refusals(report)], className="import-report"
    )


def _item_table(job: Record, items: Sequence[Record]) -> Component:
    kind = JOB_KINDS.get(job["kind"])
    result = kind.result if kind else ""
    head = ["", "Image", "Model", "State", "Seconds", *([result.capitalize()] if result else [])]
    body = [
        html.Tr(
            [
                html.Td(str(item["position"]), className="num quiet"),
                html.Td(str(item["image_id"]), className="num"),
                html.Td(item["model"]),
                html.Td(
                    html.Span(item["error"], className="problem") if item["error"] else item["state"],
                ),
                html.Td("" if item["seconds"] is None else f"{item['seconds']:.1f}", className="num end"),
                *([html.Td(_result(result, item["result"]), className="num end")] if result else []),
            ]
        )
        for item in items
    ]
    names = html.Tr([html.Th(name, scope="col") for name in head])
    return html.Table([html.Thead(names), html.Tbody(body)], className="table-plain")


def _result(kind: str, number: int | None) -> Component:
    if number is None:
        return ""
    if kind == "attack":
        return html.A(str(number), href=AttackAddress(attack=number).href())
    return html.A(str(number), href=local(f"/api/maps/{number}.png"), target="_blank")
