"""Job and map routes of the HTTP API (`/api/…`), and its description."""

from typing import Annotated, Any, NewType

import flask
from msgspec import UNSET, Meta, UnsetType

from dashboard.api.answer_types import ImageImport, Item, Job, JobList, Map, Submitted, WholeJob, members_of
from dashboard.api.answers import STATUS, NotFound, job_record, kept, map_record, result_bytes
from dashboard.api.attack_answers import attack_record
from dashboard.api.routing import GONE, LEDGER, NO_SUCH_NUMBER, Answered, Query, Routes
from dashboard.pictures import heat
from dashboard.security.prefix import local
from dashboard.state.context import Record, current
from db.ledger.jobs import NoSuchJob
from db.ledger.tables import STATES
from db.queries import jobs as job_queries
from db.queries.attacks import job_attacks
from db.stores.results import ResultGone
from workers.jobs.kind import Stores
from workers.jobs.registry import JOB_KINDS, read_request
from workers.requests.members import expected, is_printable, one_of
from workers.requests.parameters import MAX_NUMBER
from workers.requests.saliency import DEFAULT_STEPS, MAX_STEPS

api = Routes("api", "/api", STATUS)
OPENAPI = "convscope.openapi"  # extension of the server: a function that makes the OpenAPI document
MAX_NAME = 200
Name = Annotated[
    str,
    Meta(max_length=MAX_NAME),
    expected(f"at most {MAX_NAME} printable characters", check=is_printable),
]
JobNumber = Annotated[int, Meta(ge=0, description="Number of a job.")]
MapNumber = Annotated[int, Meta(ge=0, description="Number of a map.")]
Clip = Annotated[
    float,
    Meta(
        ge=heat.LOWEST_CLIP,
        le=heat.HIGHEST_CLIP,
        description="Percentile of the absolute values at which the colors end.",
    ),
]
Steps = Annotated[int, Meta(ge=2, le=MAX_STEPS)]
JobRequest = NewType("JobRequest", dict[str, Any])  # one of the requests of the kinds, by its member `kind`
_AT_JOB = {"location": "Address of the job."}


@api.get("/openapi.json", answers="OpenAPI 3.1.")
def openapi() -> dict[str, Any]:
    """The API's OpenAPI document."""
    found: Record = flask.current_app.extensions[OPENAPI]()
    return found | ({"servers": [{"url": local("")}]} if local("") else {})


@api.post(
    "/jobs",
    answers={200: "The same job was submitted before.", 201: "The job is queued."},
    errors=LEDGER,
    examples={kind.name: {"kind": kind.name, **kind.example} for kind in JOB_KINDS.values() if kind.example},
    **_AT_JOB,
)
def submit(body: JobRequest) -> Answered[Submitted]:
    """Submit a job.

    Identical requests share one job. A job that failed or was cancelled is queued again.
    """
    context = current()
    new = read_request(body, Stores(context.atlas, context.ledger, context.settings))
    submitted = context.submitter.submit(new)
    record: Submitted = {**_job(submitted.job), "notice": submitted.sentence()}
    status = 201 if submitted.queued else 200
    return Answered(record, status, local(f"/api/jobs/{submitted.job}"))


class JobsQuery(Query):
    """Which jobs to list; an empty text is no condition."""

    state: Annotated[str, one_of(("", *STATES), "Only jobs in this state.")] = ""
    kind: Annotated[str, one_of(("", *JOB_KINDS), "Only jobs of this kind.")] = ""
    model: Annotated[Name, Meta(description="Only jobs with this model.")] = ""
    images: Annotated[Name, Meta(description="Only jobs over this image set.")] = ""
    limit: Annotated[int, Meta(ge=1, le=1000, description="Maximum number of jobs.")] = 100
    offset: Annotated[int, Meta(ge=0, le=MAX_NUMBER, description="Number of jobs to skip.")] = 0


@api.get("/jobs", answers="Jobs, and their total number.", errors=LEDGER)
def list_jobs(query: JobsQuery) -> JobList:
    """Jobs, newest first."""
    ledger = current().ledger
    filters: dict[str, Any] = {
        "states": [query.state] if query.state else [],
        "kinds": [query.kind] if query.kind else [],
        "model": query.model,
        "image_set": query.images,
    }
    found = job_queries.jobs(ledger, **filters, limit=query.limit, offset=query.offset)
    return {"jobs": [job_record(job) for job in found], "total": job_queries.count_jobs(ledger, **filters)}


class JobQuery(Query):
    """Which items of a job to list."""

    limit: Annotated[int, Meta(ge=1, le=10_000, description="Maximum number of items and results.")] = 1000
    offset: Annotated[int, Meta(ge=0, le=MAX_NUMBER, description="Number of items to skip.")] = 0
    steps: (
        Annotated[
            Steps,
            Meta(
                description="Steps of the deletion and insertion curves; by default those of the job, "
                f"or {DEFAULT_STEPS}."
            ),
        ]
        | UnsetType
    ) = UNSET


@api.get("/jobs/<int:job>", answers="The job.", errors=NO_SUCH_NUMBER | LEDGER)
def show_job(job: JobNumber, query: JobQuery) -> WholeJob:
    """One job with its items and the maps or attacks computed so far.

    Long jobs are paged by `offset`.
    """
    ledger = current().ledger
    record = _job(job)
    part = {"limit": query.limit, "offset": query.offset}
    kind = JOB_KINDS.get(record["kind"])
    result = "" if kind is None else kind.result
    steps = record["parameters"].get("steps", DEFAULT_STEPS) if query.steps is UNSET else query.steps
    maps = job_queries.job_maps(ledger, job, steps=steps, **part) if result == "map" else []
    attacks = job_attacks(ledger, job, **part) if result == "attack" else []
    imported = job_queries.image_import(ledger, job) if result == "import" else None
    return {
        **record,
        "item_list": [members_of(Item, item) for item in job_queries.job_items(ledger, job, **part)],
        "maps": [map_record(found) for found in maps],
        "attacks": [attack_record(found) for found in attacks],
        "image_import": None if imported is None else members_of(ImageImport, imported),
    }


@api.delete(
    "/jobs/<int:job>",
    answers="The job; `cancel_requested` if its worker has not stopped yet.",
    errors={**NO_SUCH_NUMBER, 409: "It has ended.", **LEDGER},
)
def cancel(job: JobNumber) -> Job:
    """Cancel a job.

    A queued job is cancelled at once; a running one stops between two batches of work. Finished results stay.
    """
    _check(job)
    current().submitter.cancel(job)
    return _job(job)


@api.post(
    "/jobs/<int:job>/retry",
    answers="The job.",
    errors={**NO_SUCH_NUMBER, 409: "It is queued, running or done.", **LEDGER},
)
def retry(job: JobNumber) -> Submitted:
    """Re-queue a failed or cancelled job."""
    _check(job)
    submitted = current().submitter.retry(job)
    return {**_job(job), "notice": submitted.sentence()}


def _job(job: int) -> Job:
    _check(job)
    return job_record(job_queries.job(current().ledger, job))


def _check(job: int) -> None:
    if job > MAX_NUMBER:
        raise NoSuchJob(f"there is no job {job}")


class MapQuery(Query):
    """Which curves of a map to show."""

    steps: Annotated[Steps, Meta(description="Steps of the deletion and insertion curves.")] = DEFAULT_STEPS


@api.get("/maps/<int:map>", answers="The map.", errors=NO_SUCH_NUMBER | LEDGER)
def show_map(map: MapNumber, query: MapQuery) -> Map:
    """Metadata of a map, with deletion and insertion curves of the requested number of steps."""
    found = map_record(_map(map, steps=query.steps))
    found["scored_steps"] = job_queries.scored_steps(current().ledger, map)
    return found


class MapArrayQuery(Query):
    """The part of a map."""

    part: Annotated[
        str, one_of(("map", "standard_error"), "The map, or the standard error of its values.")
    ] = "map"


@api.get(
    "/maps/<int:map>.npy",
    answers="An array: float32, H by W.",
    errors=NO_SUCH_NUMBER | GONE | LEDGER,
    media=("application/octet-stream",),
)
def map_array(map: MapNumber, query: MapArrayQuery) -> flask.Response:
    """The map's values, or their standard errors, in NumPy format."""
    part = query.part
    found = _map(map)
    file = found["file"] if part == "map" else found["standard_error_file"]
    if file is None:
        raise NotFound(f"map {map} has no standard error: {found['method']} takes no samples")
    return kept(
        result_bytes(file), "application/octet-stream", f"map-{map}{'' if part == 'map' else '-se'}.npy"
    )


class MapImageQuery(Query):
    """How a map is displayed."""

    colours: Annotated[
        str,
        one_of(
            tuple(heat.COLOUR_MAPS),
            f"Color map; by default inferno, and {heat.DIVERGING} for signed maps. All but {heat.DIVERGING} show "
            "magnitudes.",
        ),
    ] = ""
    clip: Clip = heat.DEFAULT_CLIP
    high: (
        Annotated[
            float, Meta(ge=0, le=1e30, description="Value at which the colors end, instead of a percentile.")
        ]
        | UnsetType
    ) = UNSET
    strength: Annotated[
        float, Meta(ge=0, le=1, description="Opacity of the map: 0 shows the image alone, 1 the map alone.")
    ] = 1.0


@api.get(
    "/maps/<int:map>.png",
    answers="An image.",
    errors=NO_SUCH_NUMBER | GONE | LEDGER,
    media=("image/png",),
)
def map_picture(map: MapNumber, query: MapImageQuery) -> flask.Response:
    """The map as a color image, overlaid on the input at the requested strength."""
    found = _map(map)
    colours = query.colours or heat.table_for(signed=found["signed"])
    values = current().results.read_array(found["file"])
    top = heat.highest(values, query.clip) if query.high is UNSET else query.high
    pixels = heat.colourise(values, colours=colours, high=top)
    if query.strength < 1:
        picture = heat.read_png(result_bytes(found["input_file"]))
        if picture is None:
            raise ResultGone(f"the image of map {map} is damaged: compute it again")
        pixels = heat.overlay(picture, pixels, query.strength)
    return kept(heat.png(pixels), "image/png", f"map-{map}.png")


@api.get(
    "/maps/<int:map>/input.png",
    answers="An image.",
    errors=NO_SUCH_NUMBER | GONE | LEDGER,
    media=("image/png",),
)
def map_input(map: MapNumber) -> flask.Response:
    """The model's input image: resized and cropped, before normalization."""
    return kept(result_bytes(_map(map)["input_file"]), "image/png", f"map-{map}-input.png")


def _map(number: int, *, steps: int = DEFAULT_STEPS) -> Record:
    found = job_queries.saliency_map(current().ledger, number, steps=steps) if number <= MAX_NUMBER else None
    if found is None:
        raise NotFound(f"there is no map {number}")
    return found
