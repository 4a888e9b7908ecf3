"""The dialog "Add images": choose, send, preview, import, index. It is part of the shell, so it outlives its page.

Callbacks::

    Add images, Manage ---+
    buttons, forms -------+--> on_event --+
    chosen files, sent ---+               +--> state, everything that is shown, what to send
    poll --(while a job is under way)--> on_tick

    what to send --(browser)--> progress, sent
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import dash
from dash import Dash, Input, Output, State, no_update
from dash.exceptions import PreventUpdate

from dashboard.components.callbacks import in_browser, one_at_a_time
from dashboard.pages import images_add_layout as layout
from dashboard.pages import images_add_steps as steps
from dashboard.pages import images_add_view as view
from dashboard.pages.images_add_layout import add_id
from dashboard.pages.images_add_steps import FIELDS, Adding
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import make_id

INDEX_SET = add_id("index_set")
Event = Callable[[Context, Adding, Any], Adding]

# What may happen: the element and property that report it, and what follows.
EVENTS: dict[str, tuple[str, Event]] = {
    "opened": ("data", steps.opened),
    "index_set": ("data", steps.indexing_asked),
    "chosen": ("data", lambda _context, state, _: state),
    "labels_remove": ("n_clicks", steps.unlabelled),
    "relabels_remove": ("n_clicks", steps.unlabelled),
    "form": ("n_submit", lambda context, state, _: steps.begun(context, state, preview=False)),
    "preview": ("n_clicks", lambda context, state, _: steps.begun(context, state, preview=True)),
    "sent": ("data", steps.sent),
    "import": ("n_clicks", lambda context, state, _: steps.asked(context, state, preview=False)),
    "again": ("n_clicks", lambda context, state, _: steps.asked(context, state, preview=True)),
    "cancel": ("n_clicks", steps.cancelled),
    "restart": ("n_clicks", steps.restarted),
    "more": ("n_clicks", steps.restarted),
    "index_form": ("n_submit", lambda context, state, _: steps.indexed(context, state, state.model)),
    "job_link": ("n_clicks", lambda _context, state, _: state),
    "show_patches": ("n_clicks", lambda _context, state, _: state),
    "show_images": ("n_clicks", lambda _context, state, _: state),
}
OPENING = ("opened", "index_set")
CLOSING = ("job_link", "show_patches", "show_images")


def dialog() -> Any:
    """The dialog, closed."""
    return layout.dialog([str(root) for root in current().settings.image_roots])


def register(app: Dash) -> None:
    """Register the dialog's callbacks."""
    opener = Input(make_id("images", "add"), "n_clicks")
    in_browser(app, "pressed", Output(add_id("opened"), "data"), opener, prevent_initial_call=True)
    kept = {
        "kept": State(add_id("state"), "data"),
        "model": State(add_id("model"), "value"),
        "work": State(make_id("shell", "work"), "data"),
    }
    app.callback(
        _outputs(),
        {
            "events": {name: Input(add_id(name), part) for name, (part, _) in EVENTS.items()},
            "typed": {name: State(add_id(name), "value") for name in FIELDS},
            **kept,
        },
        prevent_initial_call=True,
    )(on_event)
    # Its own callback: of two calls of one callback, Dash drops the answer to the first.
    app.callback(
        _outputs(allow_duplicate=True),
        {"_ticks": Input(add_id("poll"), "n_intervals"), **kept},
        prevent_initial_call=True,
        running=one_at_a_time(add_id("poll")),
    )(on_tick)
    in_browser(app, "sendFiles", Input(add_id("send"), "data"), prevent_initial_call=True)
    in_browser(app, "stopSending", Input(add_id("cancel"), "n_clicks"), prevent_initial_call=True)
    in_browser(app, "focusOn", Input(add_id("focus"), "data"), prevent_initial_call=True)
    in_browser(
        app,
        "proposeName",
        Output(add_id("name"), "value", allow_duplicate=True),
        Input(add_id("proposed"), "data"),
        State(add_id("name"), "value"),
        prevent_initial_call=True,
    )


def _outputs(**options: Any) -> dict[str, Any]:
    def output(name: str, part: str) -> Output:
        return Output(add_id(name), part, **options)

    return {
        "state": output("state", "data"),
        "is_open": output("dialog", "is_open"),
        "shown": {name: output(name, part) for name, part in view.SHOWN.items()},
        "links": {name: output(name, "href") for name in CLOSING},
        "job": output("job_link", "children"),
        "fields": {name: output(name, "value") for name in FIELDS},
        "models": output("model", "options"),
        "model": output("model", "value"),
        "bar": output("bar", "value"),
        "words": output("words", "children"),
        "trouble": output("trouble", "children"),
        "cancel": output("cancel", "disabled"),
        "proposed": output("proposed", "data"),
        "send": output("send", "data"),
        "focus": output("focus", "data"),
    }


def on_event(
    events: Mapping[str, Any],
    typed: Mapping[str, str | None],
    kept: Record | None,
    model: str | None,
    work: Record | None,
) -> dict[str, Any]:
    """What follows from a button, a choice, or the end of a sending."""
    name = str(dash.ctx.triggered_id).removeprefix("add-")
    if not events[name]:
        raise PreventUpdate
    return happened(name, events, typed, kept, model, work)


def happened(
    name: str,
    events: Mapping[str, Any],
    typed: Mapping[str, str | None],
    kept: Record | None = None,
    model: str | None = None,
    work: Record | None = None,
) -> dict[str, Any]:
    """What follows from the event `name`. `events` has the values of all, so that no choice is lost."""
    before = Adding(**(kept or {}))
    now = steps.chose(before, events["chosen"])
    now = replace(now, model=model or now.model, focus=now.focus if name == "chosen" else "")
    if name != "sent":
        now = replace(now, fields={field: (text or "").strip() for field, text in typed.items()})
    try:
        after = EVENTS[name][1](current(), now, events[name])
    except steps.ERRORS as error:
        after = steps.failed(now, " ".join(str(error).split()))
    outputs = _followed(before, now, after, work)
    if name in OPENING + CLOSING:
        outputs["is_open"] = name in OPENING
    if name in OPENING:
        outputs |= _models(after)
    if name == "cancel":
        outputs["cancel"] = True
    if name == "chosen" and "files" in events["chosen"]:
        outputs["proposed"] = steps.proposed_name(after.files)
    return outputs


def on_tick(_ticks: int, kept: Record | None, model: str | None, work: Record | None) -> dict[str, Any]:
    """A look at the job."""
    state = Adding(**(kept or {}))
    before = replace(state, model=model or state.model, focus="")
    return _followed(before, before, before, work)


def _followed(before: Adding, now: Adding, after: Adding, work: Record | None) -> dict[str, Any]:
    """The outputs for the step from `before` to `after`, after a look at the job; an event saw `now`."""
    context = current()
    after, job = steps.followed(context, after)
    outputs = _unchanged() | _progress(job, work)
    if after == before:
        return outputs
    moved = after.step != before.step
    outputs |= {
        "state": asdict(after),
        "shown": view.shown(context, after),
        "links": view.links(after),
        "job": f"job {after.job}" if after.step in steps.JOB_STEPS else "",
        "fields": _written(now, after),
    }
    if moved:
        outputs |= _models(after)
    else:
        outputs["shown"]["details"] = no_update  # the user may have opened it
    if after.sendings > before.sendings:
        outputs |= {"send": view.order(after), "bar": 0, "words": "", "trouble": None, "cancel": False}
    focus = after.focus or (view.FIRST_CONTROL.get(after.step, "") if moved else "")
    if focus:
        outputs["focus"] = {"id": add_id(focus), "at": time.time()}
    return outputs


def _models(state: Adding) -> dict[str, Any]:
    options = view.model_options(current())
    return {"models": options, "model": state.model or options[0]["value"]}


def _unchanged() -> dict[str, Any]:
    names = ("state", "is_open", "job", "models", "model", "bar", "words", "trouble", "cancel", "proposed")
    return {
        **dict.fromkeys((*names, "send", "focus"), no_update),
        "shown": dict.fromkeys(view.SHOWN, no_update),
        "links": dict.fromkeys(CLOSING, no_update),
        "fields": dict.fromkeys(FIELDS, no_update),
    }


def _progress(job: Record | None, work: Record | None) -> dict[str, Any]:
    """Progress of the job; nothing without one."""
    if job is None:
        return {}
    percentage, words = view.progress(job)
    return {
        "bar": percentage,
        "words": words,
        "trouble": view.trouble(work),
        "cancel": bool(job["cancel_requested"]),
    }


def _written(now: Adding, after: Adding) -> dict[str, Any]:
    """Values of the text fields; only those that an event changed, because the user may be typing."""
    if after.fields is not now.fields:
        return {name: after.fields.get(name, "") for name in FIELDS}
    written = dict.fromkeys(FIELDS, no_update)
    if after.previewed and not now.previewed:
        return written | {"relabels_path": after.fields.get("labels_path", "")}
    return written
