"""What the dialog "Add images" shows: everything that follows from its state."""

from typing import Any

from dash import html

from dashboard.api.answers import share
from dashboard.api.image_sets import models_to_index_with
from dashboard.components.elements import Component
from dashboard.components.formatting import byte_size, count
from dashboard.components.import_report import added, counted, layout_report, refusals
from dashboard.pages.images_add_layout import NOTHING_CHOSEN
from dashboard.pages.images_add_steps import JOB_STEPS, Adding
from dashboard.security.prefix import local
from dashboard.state.address import ImagesAddress, PatchesAddress
from dashboard.state.context import Context, Record
from db.queries import jobs as job_queries
from workers.jobs.kinds.image_import import LAYOUT_WORDS

STEPS_OF = {
    "choosing": ("choosing",),
    "moving": ("sending", *JOB_STEPS),
    "looking": ("previewed",),
    "ending": ("imported", "indexed"),
}
DOING = {"sending": "Sending", "previewing": "Previewing", "importing": "Importing", "indexing": "Indexing"}
FIRST_CONTROL = {
    "sending": "cancel",
    "previewing": "cancel",
    "importing": "cancel",
    "indexing": "cancel",
    "previewed": "import",
    "imported": "model",
    "indexed": "show_patches",
}
UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("bytes", 1))
# The properties that follow from the state, by element.
SHOWN: dict[str, str] = {
    **dict.fromkeys(STEPS_OF, "hidden"),
    **{f"{section}_problem": "children" for section in STEPS_OF},
    **dict.fromkeys(("files", "labels_name", "relabels_name", "doing", "said", "layout", "ended"), "children"),
    **dict.fromkeys(("labels_remove", "relabels_remove", "relabels_of_files", "relabels_of_folder"), "hidden"),
    **dict.fromkeys(("indexing", "show_patches", "show_images"), "hidden"),
    "sets": "children",
    "details": "open",
    "poll": "disabled",
}  # fmt: skip


def shown(context: Context, state: Adding) -> dict[str, Any]:
    """The properties of SHOWN."""
    step, files, labels = state.step, state.files, state.labels
    problem = html.P(state.error, className="problem", role="alert") if state.error else None
    table = f"{labels['name']}, {byte_size(labels['size'])}" if labels else ""
    return {
        **{section: step not in steps for section, steps in STEPS_OF.items()},
        **{f"{section}_problem": problem if step in steps else None for section, steps in STEPS_OF.items()},
        "files": chosen_words(files) or NOTHING_CHOSEN,
        "labels_name": table,
        "relabels_name": table,
        "labels_remove": not labels,
        "relabels_remove": not labels,
        "relabels_of_files": not files,
        "relabels_of_folder": bool(files),
        "doing": doing(state),
        "said": said(state),
        "layout": _preview(context, state) if step == "previewed" else None,
        "ended": _end(context, state) if step in STEPS_OF["ending"] else None,
        "indexing": step == "indexed",
        "show_patches": step != "indexed",
        "show_images": step == "indexed",
        "sets": [html.Option(value=found["image_set"]) for found in context.catalogue().image_sets],
        "details": bool(state.error) or any(state.fields.get(name) for name in LAYOUT_WORDS),
        "poll": step not in JOB_STEPS,
    }


def links(state: Adding) -> dict[str, str]:
    """Addresses of the dialog's links."""
    return {
        "job_link": local(f"/jobs?job={state.job}"),
        "show_patches": PatchesAddress(model=state.model, images=state.name).href(),
        "show_images": ImagesAddress(images=state.name).href(),
    }


def model_options(context: Context) -> list[dict[str, str]]:
    """Options of the models that can index the set."""
    return [
        {"value": found["name"], "label": found["name"], "title": found["title"]}
        for found in models_to_index_with(context.catalogue())
    ]


def chosen_words(files: Record | None) -> str:
    """`My Photos.zip, 3 MB`, `1,200 files, 310 MB`; empty without files."""
    if not files:
        return ""
    name = files["name"] if files["count"] == 1 else f"{files['count']:,} files"
    return f"{name}, {byte_size(files['bytes'])}"


def doing(state: Adding) -> Component:
    """What is under way."""
    name = html.B(state.name)
    if state.step == "sending":
        return ["Sending ", _sent_words(state), " for ", name, ". Keep this page open."]
    if state.step in JOB_STEPS:
        return [f"{DOING[state.step]} ", name, ". It continues if you close this page: "]
    return None


def _sent_words(state: Adding) -> str:
    table = [state.labels_to_send["name"]] if state.labels_to_send else []
    return " and ".join([*([] if state.upload else [chosen_words(state.files)]), *table])


def said(state: Adding) -> str:
    """The step, for screen readers."""
    if state.note:
        return state.note
    done = {
        "previewed": "The preview of {} is ready",
        "imported": "{} is imported",
        "indexed": "{} is indexed",
    }
    if state.step in done:
        return done[state.step].format(state.name)
    return f"{DOING[state.step]} {state.name}" if state.step in DOING else ""


def order(state: Adding) -> dict[str, Any]:
    """What the browser is to send: the files unless `upload` has them, and the label table of this number."""
    table = state.labels_to_send
    total = (state.files["bytes"] if state.files and not state.upload else 0) + (
        table["size"] if table else 0
    )
    unit, size = next((found for found in UNITS if total >= found[1]), UNITS[-1])
    return {
        "upload": state.upload,
        "labels": table["number"] if table else None,
        "unit": unit,
        "unit_bytes": size,
        "number": state.sendings,
    }


def progress(job: Record) -> tuple[float, str]:
    """Percentage of a job that is done, and words beside its bar."""
    percentage = 100 * share(job)
    return percentage, job["note"] or (
        "waiting for a worker" if job["state"] == "queued" else f"{int(percentage)} %"
    )


def trouble(work: Record | None) -> Component:
    """Why the job does not start; None if nothing is wrong."""
    if not work:
        return None
    if work["trouble"]:
        words = f"The job list cannot be read: {work['trouble']}"
    elif not work["workers"]:
        words = "No worker is running. Start convscope run, or convscope worker."
    elif not work["broker"] and work["queued"]:
        words = (
            "The broker is not reachable. Jobs continue when it is back: convscope run starts one, "
            "CONVSCOPE_REDIS_URL names another."
        )
    else:
        return None
    return html.P(words, className="problem")


def _preview(context: Context, state: Adding) -> list[Component]:
    """What would be imported."""
    report = job_queries.image_import(context.ledger, state.previewed)
    layout = (report or {}).get("layout") or {}
    number = layout.get("images")
    splits = layout.get("splits", {})
    return [
        html.P(
            [
                "Images" if number is None else count(number, "image"),
                " would be added to ",
                html.B(state.name),
                ". Nothing is imported yet.",
            ]
        ),
        layout_report(layout),
        counted(splits, len(splits), "split"),
        counted(layout.get("labels", {}), layout.get("classes", 0), "class"),
    ]


def _end(context: Context, state: Adding) -> list[Component]:
    """What was imported or indexed."""
    name = html.B(state.name)
    if state.step == "indexed":
        return [html.P([name, f" is indexed with {state.model}."])]
    report = job_queries.image_import(context.ledger, state.imported) if state.imported else None
    if report is None:
        found = [row for row in context.catalogue().image_sets if row["image_set"] == state.name]
        return [html.P([name, f": {count(found[0]['images'], 'image')}." if found else ""])]
    return [
        html.P([name, f": {added(report)}."]),
        layout_report(report["layout"]),
        refusals(report),
    ]
