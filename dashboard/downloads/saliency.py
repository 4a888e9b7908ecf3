"""Downloads of the Saliency page: one figure with all maps, and the metadata of each map as CSV.

The query string names a `job`, or describes the request as the page's address does. The figure also reads
display options: `view` (overlay, map, error), `strength` (opacity of the map over the image, 0 to 1),
`colours`, `scale` (own, model: shared within a column, all) and `clip` (percentile).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import flask
import pyarrow as pa
from msgspec import UNSET, Meta, UnsetType

from dashboard.api.answers import STATUS, NotFound, file_name, result_line
from dashboard.api.routes import Clip
from dashboard.api.routing import DOWNLOAD_ERRORS, Query, Routes, Spreadsheet
from dashboard.components.formatting import activation, percent
from dashboard.pages.map_display import CHOICES, DEFAULT_STRENGTH
from dashboard.pages.request.state import chosen_here
from dashboard.pages.saliency_request import MAX_MAPS, ask, read_page
from dashboard.pictures import figure, heat
from dashboard.pictures.figure import ColourBar, FigureCell, FigureRow
from dashboard.state.address import SaliencyAddress
from dashboard.state.context import Context, Record, current
from db.queries.jobs import job, job_items, job_maps
from db.queries.patches import pictured
from db.sql.formats import csv_lines
from db.stores.results import ResultGone
from workers.attribution.registry import METHODS
from workers.requests.members import one_of
from workers.requests.parameters import MAX_NUMBER, InvalidRequest
from workers.requests.saliency import DEFAULT_STEPS, MAX_STEPS

NO_FACTS = (
    "key",
    "question",
    "file",
    "standard_error_file",
    "input_file",
    "job",
    "model",
    "image_set",
    "image_id",
    "position",
    "parameters",
)

saliency_downloads = Routes("saliency_downloads", "/download", STATUS, any_query=True)
_ABOUT: dict[str, Any] = {
    "address": SaliencyAddress,
    "answers": "The file.",
    "errors": DOWNLOAD_ERRORS,
    "text_errors": True,
}
_Job = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_NUMBER,
        description="A job of kind saliency; without it the other parameters describe the request.",
    ),
]
_Steps = Annotated[int, Meta(ge=2, le=MAX_STEPS, description="Steps of the deletion and insertion curves.")]


class MapsQuery(Spreadsheet):
    """The job, and what is written of its maps."""

    job: _Job | UnsetType = UNSET
    steps: _Steps = DEFAULT_STEPS


class View(Query):
    """How maps are displayed."""

    job: _Job | UnsetType = UNSET
    steps: _Steps = DEFAULT_STEPS
    view: Annotated[str, one_of(tuple(CHOICES["view"]), "What is shown of a map.")] = "overlay"
    strength: Annotated[float, Meta(ge=0, le=1, description="Opacity of the map over the image.")] = (
        DEFAULT_STRENGTH
    )
    colours: Annotated[
        str,
        one_of(
            ("auto", *heat.COLOUR_MAPS),
            f"Color map; auto: {heat.DIVERGING} for signed maps, inferno for others.",
        ),
    ] = "auto"
    scale: Annotated[
        str,
        one_of(tuple(CHOICES["scale"]), "Which maps share a color scale: none, those of a model, or all."),
    ] = "own"
    clip: Clip = heat.DEFAULT_CLIP

    def colours_of(self, signed: bool) -> str:
        """The color map of a figure with signed or unsigned maps."""
        if self.colours != "auto":
            return self.colours
        return heat.table_for(signed=signed and self.view != "error")


@dataclass(frozen=True)
class Asked:
    """A request's items (images down, models across) and the maps computed so far.

    `job` carries the request's image set and parameters; not every request has a job in the ledger.
    """

    job: Mapping[str, Any]
    items: Sequence[Record]
    maps: Mapping[int, Record]  # by position

    @property
    def models(self) -> list[str]:
        """The columns."""
        return [model["name"] for model in self.job["parameters"]["models"]]


def _asked(context: Context, query: MapsQuery | View) -> Asked:
    steps = query.steps
    if query.job is not UNSET:
        return _of_job(context, query.job, steps)
    page, wanted = chosen_here(context, read_page)
    request = ask(context, wanted, steps=steps)
    stored = {row["position"]: row for row in request.stored}
    if page["job"] is not None:
        of_job = _of_job(context, page["job"], steps)
        return replace(of_job, maps=stored | dict(of_job.maps))
    if not stored:
        raise NotFound("these maps were not asked for yet: run them on the Saliency page")
    items = [
        {"position": at, "model": item.model, "image_id": item.image_id, "error": None}
        | {"state": "done" if at in stored else "queued"}
        for at, item in enumerate(request.new.items)
    ]
    return Asked({"image_set": request.new.image_set, "parameters": request.new.parameters}, items, stored)


def _of_job(context: Context, number: int, steps: int) -> Asked:
    found = job(context.ledger, number)
    if found["kind"] != "saliency":
        raise NotFound(f"job {number} computes no maps but {found['kind']}")
    if found["items"] > MAX_MAPS:
        raise InvalidRequest(f"a figure holds up to {MAX_MAPS} maps, job {number} has {found['items']:,}")
    maps = {row["position"]: row for row in job_maps(context.ledger, number, steps=steps)}
    return Asked(found, job_items(context.ledger, number), maps)


@saliency_downloads.get("/saliency.png", media=("image/png",), **_ABOUT)
def draw_saliency(query: View) -> flask.Response:
    """All maps of a request in one figure.

    The parameters are those of the Saliency page's address, with the method's parameters as `p_NAME`.
    """
    context = current()
    asked = _asked(context, query)
    return _file(figure.png(saliency_figure(context, asked, query)), "image/png", _name(asked, "png"))


def saliency_figure(context: Context, asked: Asked, view: View) -> Any:
    """The figure: the model's input at the left, then a map for each model."""
    values: dict[int, Any] = {}
    gone: dict[int, str] = {}
    for position, found in asked.maps.items():
        file = found["file"] if view.view != "error" else found["standard_error_file"]
        if file is None:
            gone[position] = f"{METHODS[found['method']].title} has no standard error"
            continue
        try:
            values[position] = context.results.read_array(file)
        except ResultGone:
            gone[position] = "its file is gone: run it again"
    own = {position: heat.highest(array, view.clip) for position, array in values.items()}
    highs = shared_ends(own, {item["position"]: item["model"] for item in asked.items}, view.scale)
    colours = view.colours_of(any(found["signed"] for found in asked.maps.values()))
    labels = _labels(context, asked)
    across = len(asked.models)
    rows = []
    for first in range(0, len(asked.items), across):
        inputs, cells = None, []
        for item in asked.items[first : first + across]:
            position = item["position"]
            picture = _input(context, asked.maps.get(position))
            inputs = picture if inputs is None else inputs
            if position not in values:
                cells.append(FigureCell(None, instead=gone.get(position) or _why(item)))
                continue
            pixels = heat.colourise(values[position], colours=colours, high=highs[position])
            if view.view == "overlay" and picture is not None and picture.shape == pixels.shape:
                pixels = heat.overlay(picture, pixels, view.strength)
            cells.append(FigureCell(pixels, map_lines(asked.maps[position], highs[position])))
        image = asked.items[first]["image_id"]
        told = (f"image {image}", labels.get(image) or "no label")
        rows.append(FigureRow((FigureCell(inputs, told, "not computed"), *cells)))
    ends = set(highs.values())
    return figure.compose(
        ["Input", *asked.models],
        rows,
        bar=colour_bar(colours, view, ends.pop() if len(ends) == 1 else None),
        caption=caption(asked, view),
    )


def shared_ends(own: Mapping[int, float], models: Mapping[int, str], scale: str) -> dict[int, float]:
    """Upper end of each map's color scale, by position: its `own` end, or the largest of those that share it."""
    if scale == "own":
        return dict(own)
    among = {position: models[position] if scale == "model" else "" for position in own}
    return {
        position: max(end for other, end in own.items() if among[other] == among[position])
        for position in own
    }


def _labels(context: Context, asked: Asked) -> dict[int, str | None]:
    images = sorted({item["image_id"] for item in asked.items})
    rows = context.atlas.fetch(pictured(asked.job["image_set"], images))
    return {row["image_id"]: row["label"] for row in rows}


def _input(context: Context, found: Record | None) -> heat.Pixels | None:
    if found is None:
        return None
    try:
        return heat.read_png(context.results.path(found["input_file"]).read_bytes())
    except OSError:  # the cell reports it: the image below the map is gone
        return None


def _why(item: Record) -> str:
    return item["error"] or ("not computed yet" if item["state"] == "queued" else item["state"])


def map_lines(found: Record, high: float) -> tuple[str, ...]:
    """Text below a map: the prediction, the target class if it differs, and the end of the color scale.

    Also the number of samples drawn, if sampling stopped before the requested number because it had
    converged.
    """
    told = [f"{class_name(found, 'predicted')} {percent(found['predicted_probability'])}"]
    if found["target_class"] != found["predicted_class"]:
        told.append(f"target: {class_name(found, 'target')} {percent(found['target_probability'])}")
    if found["parameters"].get("layer"):
        told.append(f"at {found['parameters']['layer']}")
    if found["samples"] < found["parameters"].get("samples", 1):
        told.append(f"{found['samples']} samples drawn")
    zero = found["lowest"] == 0 == found["highest"]
    told.append("zero everywhere" if zero else f"scale ends at {activation(high)}")
    if found["deletion_auc"] is not None:
        areas = f"deletion {found['deletion_auc']:.3f}, insertion {found['insertion_auc']:.3f}"
        told.append(f"{areas} ({found['steps']} steps)")
    return tuple(told)


def class_name(found: Record, which: str) -> str:
    """Name of a map's `predicted` or `target` class."""
    return found[f"{which}_name"] or f"class {found[f'{which}_class']}"


def colour_bar(colours: str, view: View, high: float | None) -> ColourBar:
    """Labels at the ends of the color bar; `high` is None if each map has its own scale."""
    end = f"{view.clip:g}th percentile" if high is None else activation(high)
    if colours == heat.DIVERGING:
        return ColourBar(colours, f"−{end}", "0", end)
    return ColourBar(colours, "0", "", end)


def caption(asked: Asked, view: View) -> list[str]:
    """Method, target, displayed quantity and scale; for sampling methods also the number of samples."""
    request = asked.job["parameters"]
    method = METHODS[request["method"]]
    told = {
        name: f"{name.replace('_', ' ')} {value}"
        for name, value in request["parameters"].items()
        if value != ""
    }
    if "samples" in told:
        told["samples"] = samples_words(request["parameters"]["samples"], asked.maps.values())
    parameters = ", ".join(told.values())
    targets = {"prediction": "each image's prediction", "label": "each image's label"}
    target = targets.get(str(request["target"]), f"class {request['target']}")
    precisions = ", ".join(sorted({found["dtype"] for found in asked.maps.values()})) or "no precision yet"
    what = {
        "overlay": f"The map over the model's input, strength {view.strength:g}.",
        "map": "The map alone.",
        "error": "Standard error of the map over its samples.",
    }[view.view]
    scale = {
        "own": "Each map has its own scale, which makes maps look alike: compare places, not strengths.",
        "model": "The maps of a model share one scale.",
        "all": "All maps share one scale.",
    }[view.scale]
    return [
        f"{method.title} ({method.reference}){': ' + parameters if parameters else ''}.",
        f"Image set {asked.job['image_set']}; target: {target}; computed in {precisions}.",
        f"{what} {scale} Colors end at the {view.clip:g}th percentile of the absolute values.",
    ]


def samples_words(most: int, maps: Iterable[Record]) -> str:
    """How many of at most `most` samples were drawn: fewer if the two halves agreed earlier."""
    drawn = sorted({found["samples"] for found in maps})
    if not drawn:
        return f"at most {most} samples"
    span = f"{drawn[0]}" if len(drawn) == 1 else f"{drawn[0]} to {drawn[-1]}"
    return f"{span} samples drawn" + (f" of at most {most}" if drawn[0] < most else "")


@saliency_downloads.get("/saliency.csv", media=("text/csv",), **_ABOUT)
def download_saliency(query: MapsQuery) -> flask.Response:
    """A row for each map of a request, including missing ones.

    The parameters are those of the Saliency page's address, with the method's parameters as `p_NAME`.
    """
    asked = _asked(current(), query)
    lines = [line(item, asked.maps.get(item["position"]), asked.job["image_set"]) for item in asked.items]
    names = list(dict.fromkeys(name for found in lines for name in found))
    table = pa.table({name: [found.get(name) for found in lines] for name in names})
    data = "".join(csv_lines(table.schema, table.to_batches(), spreadsheet=query.for_spreadsheet)).encode()
    return _file(data, "text/csv", _name(asked, "csv"))


def line(item: Record, found: Record | None, image_set: str) -> Record:
    """One map as a flat row; its parameters become `parameter_NAME` columns."""
    return result_line(item, found, found and found["parameters"], image_set, left_out=NO_FACTS)


def _name(asked: Asked, kind: str) -> str:
    words = "-".join(["saliency", asked.job["image_set"], asked.job["parameters"]["method"]])
    return f"{file_name(words)}.{kind}"


def _file(data: bytes, kind: str, name: str) -> flask.Response:
    response = flask.Response(data, mimetype=kind)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response
