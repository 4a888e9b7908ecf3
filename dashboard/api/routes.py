"""The HTTP interface: `/api/…`. `openapi.json` beside this file describes it, and a test holds the two together."""

import json
from pathlib import Path
from typing import Any

import flask

from dashboard.api.answers import (
    MOST_NUMBER,
    STATUS,
    NotFound,
    answer,
    choice,
    fraction,
    job_record,
    json_body,
    kept,
    map_record,
    number,
    only,
    result_bytes,
    sorry,
    words,
)
from dashboard.api.attack_answers import attack_record
from dashboard.pictures import heat
from dashboard.security.prefix import local
from dashboard.state.context import Record, current
from db.ledger.jobs import NoSuchJob
from db.ledger.tables import STATES
from db.queries import jobs as job_queries
from db.queries.attacks import job_attacks
from db.stores.results import ResultGone
from db.suggestions import hint
from workers.attribution.registry import DEFAULT_METHOD
from workers.requests.image_sets import LAYOUT_WORDS, folder_job, index_job, layout_words
from workers.requests.parameters import WrongRequest
from workers.requests.submit import (
    DEFAULT_STEPS,
    MOST_STEPS,
    choose_models,
    faithfulness_job,
    parse_ids,
    saliency_job,
)
from workers.requests.submit_attacks import (
    DRAWS,
    MOST_ATTACKS,
    MOST_FOLLOWED,
    ablation_job,
    attack_job,
    comparison_job,
    transfer_job,
)

KINDS = ("saliency", "faithfulness", "attack", "comparison", "transfer", "ablation", "import", "index")

api = flask.Blueprint("api", __name__, url_prefix="/api")
for _kind in STATUS:
    api.register_error_handler(_kind, sorry)


@api.get("/openapi.json")
def openapi() -> flask.Response:
    """The description of this interface."""
    described = Path(__file__).with_name("openapi.json").read_bytes()
    if local(""):
        described = json.dumps(json.loads(described) | {"servers": [{"url": local("")}]}).encode()
    return flask.Response(described, mimetype="application/json")


@api.post("/jobs")
def submit() -> flask.Response:
    """Ask for work: 201 where there is something to do, 200 where it was asked for before."""
    context = current()
    body = json_body()
    kind = body.get("kind")
    if kind == "saliency":
        new = _saliency(body)
    elif kind == "faithfulness":
        only(body, "kind", "maps", "steps", "queue")
        new = faithfulness_job(
            context.ledger,
            _whole_numbers("maps", body.get("maps")),
            steps=body.get("steps", DEFAULT_STEPS),
            queue=_word(body, "queue", "batch"),
        )
    elif kind == "attack":
        new = _attack(body)
    elif kind == "comparison":
        only(body, "kind", "attacks", "parameters", "queue")
        attacks = _attack_numbers(body)
        queue = _word(body, "queue", "interactive")
        new = comparison_job(context.ledger, attacks, _object(body, "parameters"), queue=queue)
    elif kind == "transfer":
        only(body, "kind", "attacks", "judges", "queue")
        new = transfer_job(
            context.ledger,
            _attack_numbers(body),
            choose_models(context.atlas, _names(body, "judges")),
            queue=_word(body, "queue", "batch"),
        )
    elif kind == "ablation":
        only(body, "kind", "attacks", "channels", "draws", "seed", "layer", "queue")
        new = ablation_job(
            context.ledger,
            context.atlas,
            _attack_numbers(body),
            channels=body.get("channels", 10),
            draws=body.get("draws", DRAWS),
            seed=body.get("seed", 0),
            layer=body.get("layer", ""),
            queue=_word(body, "queue", "interactive"),
        )
    elif kind == "import":
        only(body, "kind", "images", "folder", "queue", "preview", "labels", *LAYOUT_WORDS)
        new = folder_job(
            context.ledger,
            context.settings.image_roots,
            folder=_word(body, "folder", ""),
            image_set=_word(body, "images", ""),
            queue=_word(body, "queue", "interactive"),
            preview=body.get("preview", False),
            words=layout_words(body),
            labels=body.get("labels"),
        )
    elif kind == "index":
        new = _index(body)
    else:
        raise WrongRequest(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}{hint(kind, KINDS)}")
    submitted = context.office.submit(new)
    record = _job(submitted.job) | {"notice": submitted.sentence()}
    return answer(record, 201 if submitted.queued else 200, Location=local(f"/api/jobs/{submitted.job}"))


def _saliency(body: Record) -> Any:
    only(body, "kind", "models", "images", "ids", "method", "parameters", "target", "queue")
    ids = body.get("ids")
    atlas = current().atlas
    return saliency_job(
        atlas,
        models=choose_models(atlas, _names(body, "models")),
        image_set=_word(body, "images", ""),
        image_ids=parse_ids(ids) if isinstance(ids, str) else _whole_numbers("ids", ids),
        method=_word(body, "method", DEFAULT_METHOD),
        parameters=_object(body, "parameters"),
        target=body.get("target", "prediction"),
        queue=_word(body, "queue", "interactive"),
    )


def _attack(body: Record) -> Any:
    only(body, "kind", "models", "images", "ids", "method", "parameters", "relative_to", "target", "queue")
    ids = body.get("ids")
    atlas = current().atlas
    return attack_job(
        atlas,
        models=choose_models(atlas, _names(body, "models")),
        image_set=_word(body, "images", ""),
        image_ids=parse_ids(ids, most=MOST_ATTACKS) if isinstance(ids, str) else _whole_numbers("ids", ids),
        method=_word(body, "method", "fgsm"),
        parameters=_object(body, "parameters"),
        relative_to=_word(body, "relative_to", "prediction"),
        target=body.get("target"),
        queue=_word(body, "queue", "interactive"),
    )


def _index(body: Record) -> Any:
    only(body, "kind", "model", "images", "k", "layers", "dtype", "batch_size", "replace", "queue")
    return index_job(
        current().atlas,
        model=_word(body, "model", ""),
        image_set=_word(body, "images", ""),
        k=body.get("k", 20),
        layers=body.get("layers", "*"),
        dtype=body.get("dtype", "float32"),
        batch_size=body.get("batch_size"),
        replace=body.get("replace", False),
        queue=_word(body, "queue", "batch"),
    )


def _attack_numbers(body: Record) -> list[int]:
    given = body.get("attacks")
    if isinstance(given, str):
        return parse_ids(given, most=MOST_FOLLOWED, name="attacks")
    return _whole_numbers("attacks", given)


def _names(body: Record, name: str) -> list[str]:
    given = body.get(name)
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise WrongRequest(f"{name}: expected a list of names, got {given!r}")
    return given


def _object(body: Record, name: str) -> Record:
    given = body.get(name, {})
    if not isinstance(given, dict):
        raise WrongRequest(f"{name}: expected an object, got {given!r}")
    return given


def _word(body: Record, name: str, default: str) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise WrongRequest(f"{name}: expected a text, got {value!r}")
    return value


def _whole_numbers(name: str, given: Any) -> list[int]:
    if not isinstance(given, list) or not all(type(n) is int and 0 <= n <= MOST_NUMBER for n in given):
        raise WrongRequest(f"{name}: expected a list of whole numbers, got {given!r}")
    return given


@api.get("/jobs")
def list_jobs() -> flask.Response:
    """Jobs, newest first."""
    ledger = current().ledger
    states = [choice("state", "", ("", *STATES))] if "state" in flask.request.args else []
    kinds = [choice("kind", "", ("", *KINDS))] if "kind" in flask.request.args else []
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
        offset=number("offset", 0, low=0, high=MOST_NUMBER),
    )
    return answer(
        {"jobs": [job_record(job) for job in found], "total": job_queries.count_jobs(ledger, **filters)}
    )


@api.get("/jobs/<int:job>")
def show_job(job: int) -> flask.Response:
    """One job with its items and the maps or attacks that they have so far; of many, those from `offset` on."""
    ledger = current().ledger
    record = _job(job)
    part = {
        "limit": number("limit", 1000, low=1, high=10_000),
        "offset": number("offset", 0, low=0, high=MOST_NUMBER),
    }
    shown = ("position", "model", "image_id", "state", "error", "seconds", "result")
    items = [{name: item[name] for name in shown} for item in job_queries.job_items(ledger, job, **part)]
    has_maps, has_attacks = record["kind"] in ("saliency", "faithfulness"), record["kind"] == "attack"
    steps = number("steps", record["parameters"].get("steps", DEFAULT_STEPS), low=2, high=MOST_STEPS)
    maps = job_queries.job_maps(ledger, job, steps=steps, **part) if has_maps else []
    attacks = job_attacks(ledger, job, **part) if has_attacks else []
    return answer(
        record
        | {
            "item_list": items,
            "maps": [map_record(found) for found in maps],
            "attacks": [attack_record(found) for found in attacks],
            "image_import": job_queries.image_import(ledger, job) if record["kind"] == "import" else None,
        }
    )


@api.delete("/jobs/<int:job>")
def cancel(job: int) -> flask.Response:
    """Cancel a job."""
    _check(job)
    current().office.cancel(job)
    return answer(_job(job))


@api.post("/jobs/<int:job>/retry")
def retry(job: int) -> flask.Response:
    """Queue a job again that failed or was cancelled."""
    _check(job)
    submitted = current().office.retry(job)
    return answer(_job(job) | {"notice": submitted.sentence()})


def _job(job: int) -> Record:
    _check(job)
    return job_record(job_queries.job(current().ledger, job))


def _check(job: int) -> None:
    if job > MOST_NUMBER:
        raise NoSuchJob(f"there is no job {job}")


@api.get("/maps/<int:map>")
def show_map(map: int) -> flask.Response:
    """What is known of a map, with its curves of as many steps as are asked for."""
    found = map_record(_map(map, steps=number("steps", DEFAULT_STEPS, low=2, high=MOST_STEPS)))
    return answer(found | {"scored_steps": job_queries.scored_steps(current().ledger, map)})


@api.get("/maps/<int:map>.npy")
def map_array(map: int) -> flask.Response:
    """The map's numbers, or their standard errors, as NumPy writes them."""
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
    """The map in colours, over the picture as strong as asked for."""
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
    """The picture that the model saw, resized and cropped, before normalisation."""
    return kept(result_bytes(_map(map)["input_file"]), "image/png", f"map-{map}-input.png")


def _map(number: int, *, steps: int = DEFAULT_STEPS) -> Record:
    found = job_queries.saliency_map(current().ledger, number, steps=steps) if number <= MOST_NUMBER else None
    if found is None:
        raise NotFound(f"there is no map {number}")
    return found
