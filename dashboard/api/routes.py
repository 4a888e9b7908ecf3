"""Job and map routes of the HTTP API (`/api/…`). A test keeps them consistent with the `openapi` module."""

import json
from typing import Any

import flask

from dashboard.api.answers import (
    STATUS,
    NotFound,
    answer,
    choice,
    error_response,
    fraction,
    job_record,
    json_body,
    kept,
    map_record,
    number,
    result_bytes,
    words,
)
from dashboard.api.attack_answers import attack_record
from dashboard.api.openapi import document
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
from workers.requests.parameters import MAX_NUMBER
from workers.requests.saliency import DEFAULT_STEPS, MAX_STEPS

api = flask.Blueprint("api", __name__, url_prefix="/api")
for _kind in STATUS:
    api.register_error_handler(_kind, error_response)


@api.get("/openapi.json")
def openapi() -> flask.Response:
    """The API's OpenAPI document."""
    servers = {"servers": [{"url": local("")}]} if local("") else {}
    return flask.Response(json.dumps(document() | servers), mimetype="application/json")


@api.post("/jobs")
def submit() -> flask.Response:
    """Submit a job: 201 if there is work to do, 200 if the same job was submitted before."""
    context = current()
    body = json_body()
    new = read_request(body, Stores(context.atlas, context.ledger, context.settings))
    submitted = context.submitter.submit(new)
    record = _job(submitted.job) | {"notice": submitted.sentence()}
    return answer(record, 201 if submitted.queued else 200, Location=local(f"/api/jobs/{submitted.job}"))


@api.get("/jobs")
def list_jobs() -> flask.Response:
    """Jobs, newest first."""
    ledger = current().ledger
    states = [choice("state", "", ("", *STATES))] if "state" in flask.request.args else []
    kinds = [choice("kind", "", ("", *JOB_KINDS))] if "kind" in flask.request.args else []
    filters: dict[str, Any] = {
        "states": [state for state in states if state],
        "kinds": [kind for kind in kinds if kind],
        "model": words("model"),
        "image_set": words("images"),
    }
    found = job_queries.jobs(
        ledger,
        **filters,
        limit=number("limit", 100, low=1, high=1000),
        offset=number("offset", 0, low=0, high=MAX_NUMBER),
    )
    return answer(
        {"jobs": [job_record(job) for job in found], "total": job_queries.count_jobs(ledger, **filters)}
    )


@api.get("/jobs/<int:job>")
def show_job(job: int) -> flask.Response:
    """One job with its items and the maps or attacks computed so far; long jobs are paged by `offset`."""
    ledger = current().ledger
    record = _job(job)
    part = {
        "limit": number("limit", 1000, low=1, high=10_000),
        "offset": number("offset", 0, low=0, high=MAX_NUMBER),
    }
    shown = ("position", "model", "image_id", "state", "error", "seconds", "result", "value")
    items = [{name: item[name] for name in shown} for item in job_queries.job_items(ledger, job, **part)]
    kind = JOB_KINDS.get(record["kind"])
    result = "" if kind is None else kind.result
    steps = number("steps", record["parameters"].get("steps", DEFAULT_STEPS), low=2, high=MAX_STEPS)
    maps = job_queries.job_maps(ledger, job, steps=steps, **part) if result == "map" else []
    attacks = job_attacks(ledger, job, **part) if result == "attack" else []
    return answer(
        record
        | {
            "item_list": items,
            "maps": [map_record(found) for found in maps],
            "attacks": [attack_record(found) for found in attacks],
            "image_import": job_queries.image_import(ledger, job) if result == "import" else None,
        }
    )


@api.delete("/jobs/<int:job>")
def cancel(job: int) -> flask.Response:
    """Cancel a job."""
    _check(job)
    current().submitter.cancel(job)
    return answer(_job(job))


@api.post("/jobs/<int:job>/retry")
def retry(job: int) -> flask.Response:
    """Re-queue a failed or cancelled job."""
    _check(job)
    submitted = current().submitter.retry(job)
    return answer(_job(job) | {"notice": submitted.sentence()})


def _job(job: int) -> Record:
    _check(job)
    return job_record(job_queries.job(current().ledger, job))


def _check(job: int) -> None:
    if job > MAX_NUMBER:
        raise NoSuchJob(f"there is no job {job}")


@api.get("/maps/<int:map>")
def show_map(map: int) -> flask.Response:
    """Metadata of a map, with deletion and insertion curves of the requested number of steps."""
    found = map_record(_map(map, steps=number("steps", DEFAULT_STEPS, low=2, high=MAX_STEPS)))
    return answer(found | {"scored_steps": job_queries.scored_steps(current().ledger, map)})


@api.get("/maps/<int:map>.npy")
def map_array(map: int) -> flask.Response:
    """The map's values, or their standard errors, in NumPy format."""
    part = choice("part", "map", ("map", "standard_error"))
    found = _map(map)
    file = found["file"] if part == "map" else found["standard_error_file"]
    if file is None:
        raise NotFound(f"map {map} has no standard error: {found['method']} takes no samples")
    return kept(
        result_bytes(file), "application/octet-stream", f"map-{map}{'' if part == 'map' else '-se'}.npy"
    )


@api.get("/maps/<int:map>.png")
def map_picture(map: int) -> flask.Response:
    """The map as a color image, overlaid on the input at the requested strength."""
    found = _map(map)
    colours = choice("colours", heat.DIVERGING if found["signed"] else "inferno", tuple(heat.COLOUR_MAPS))
    clip = fraction("clip", heat.DEFAULT_CLIP, low=heat.LOWEST_CLIP, high=heat.HIGHEST_CLIP)
    strength = fraction("strength", 1.0, low=0, high=1)
    top = fraction("high", None, low=0, high=1e30)
    assert clip is not None
    assert strength is not None
    values = current().results.read_array(found["file"])
    pixels = heat.colourise(values, colours=colours, high=heat.highest(values, clip) if top is None else top)
    if strength < 1:
        picture = heat.read_png(result_bytes(found["input_file"]))
        if picture is None:
            raise ResultGone(f"the picture of map {map} is damaged: compute it again")
        pixels = heat.overlay(picture, pixels, strength)
    return kept(heat.png(pixels), "image/png", f"map-{map}.png")


@api.get("/maps/<int:map>/input.png")
def map_input(map: int) -> flask.Response:
    """The model's input image: resized and cropped, before normalization."""
    return kept(result_bytes(_map(map)["input_file"]), "image/png", f"map-{map}-input.png")


def _map(number: int, *, steps: int = DEFAULT_STEPS) -> Record:
    found = job_queries.saliency_map(current().ledger, number, steps=steps) if number <= MAX_NUMBER else None
    if found is None:
        raise NotFound(f"there is no map {number}")
    return found
