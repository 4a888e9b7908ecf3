"""Answers of the HTTP API: JSON, errors, files, and the records of jobs and maps."""

import json
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any

import flask

from dashboard.api.answer_types import Job, Map, members_of
from dashboard.security.prefix import local
from dashboard.state.context import Record, current
from db.ledger.engine import LedgerError
from db.ledger.jobs import IllegalMove, NoSuchJob
from db.stores.results import ResultGone
from workers.jobs.registry import JOB_KINDS
from workers.requests.parameters import InvalidRequest

FOR_EVER = "public, max-age=31536000, immutable"


class NotFound(LookupError):
    """No object has the requested number; the message is one sentence."""


STATUS: dict[type[Exception], int] = {
    InvalidRequest: 400,
    NoSuchJob: 404,
    NotFound: 404,
    IllegalMove: 409,
    ResultGone: 410,
    LedgerError: 503,
}


def answer(content: Any, status: int = 200, **headers: str) -> flask.Response:
    """A JSON response that is never cached."""
    text = json.dumps(content, default=_plain, allow_nan=False)
    response = flask.Response(text + "\n", status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    for name, value in headers.items():
        response.headers[name] = value
    return response


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    raise TypeError(f"expected a value for JSON, got {type(value).__name__}")


def error_response(error: Exception, *, status: int) -> flask.Response:
    """The error's message as a JSON response."""
    return answer({"error": " ".join(str(error).split())}, status)


def json_body() -> dict[str, Any]:
    """The JSON object in the request body.

    Accepts only application/json, which a page on another site cannot send without a CORS preflight; any
    other content type aborts with 415.

    Raises:
        InvalidRequest: the body is not a JSON object.
    """
    if flask.request.mimetype != "application/json":
        flask.abort(answer({"error": "expected a body of type application/json"}, 415))
    try:
        body = json.loads(flask.request.get_data(as_text=True))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("body: expected a JSON object, got something else") from error
    if not isinstance(body, dict):
        raise InvalidRequest(f"body: expected a JSON object, got {type(body).__name__}")
    return body


def share(job: Mapping[str, Any]) -> float:
    """Finished fraction of a job, 0 to 1; for a failed or cancelled job, the fraction that has a result."""
    made = job["items_done"]
    if job["state"] not in ("failed", "cancelled"):
        made += job["items_failed"] + job["progress"]
    return float(min(1.0, made / max(1, job["items"])))


def job_record(job: Mapping[str, Any]) -> Job:
    """A job as the API returns it."""
    return members_of(
        Job,
        job,
        {
            "models": job["models"].split(", ") if job["models"] else [],
            "progress": share(job),
            "url": local(f"/api/jobs/{job['job']}"),
        },
        _result_link(job),
    )


def _result_link(job: Mapping[str, Any]) -> Record:
    """A job's title, and the page that shows its results with the link to it; None if no single page does."""
    kind = JOB_KINDS.get(job["kind"])
    if kind is None:  # a home written by an older version may contain other kinds
        return {"title": job["kind"], "page": None, "link": None}
    page = kind.page(job)
    icon, text = kind.link
    if job["items"] == 1:
        text = kind.link_of_one or text
    return {
        "title": kind.title,
        "page": None if page is None else local(page),
        "link": {"icon": icon, "text": text},
    }


def map_record(found: Mapping[str, Any]) -> Map:
    """A saliency map as the API returns it, without server paths."""
    url = local(f"/api/maps/{found['map']}")
    has_error = found["standard_error_file"] is not None
    return members_of(
        Map,
        found,
        {
            "url": url,
            "npy": f"{url}.npy",
            "png": f"{url}.png",
            "standard_error_npy": f"{url}.npy?part=standard_error" if has_error else None,
            "input_png": f"{url}/input.png",
        },
    )


def result_line(
    item: Record,
    facts: Mapping[str, Any] | None,
    parameters: Record | None,
    image_set: str,
    *,
    left_out: Container[str],
) -> Record:
    """An item and its result as one flat CSV row; parameters become `parameter_NAME` columns.

    `facts` and `parameters` are None if there is no result yet. An item whose result another job computed
    counts as done.
    """
    told = {
        "image_set": image_set,
        "image_id": item["image_id"],
        "model": item["model"],
        "state": item["state"] if facts is None else "done",
        "error": item["error"] if facts is None else None,
    }
    known = {name: value for name, value in (facts or {}).items() if name not in left_out}
    more = {f"parameter_{name}": value for name, value in (parameters or {}).items() if name not in known}
    return told | known | more


def result_bytes(file: str) -> bytes:
    """Contents of a result's file.

    Raises:
        ResultGone: the file no longer exists.
    """
    try:
        return current().results.path(file).read_bytes()
    except OSError as error:
        raise ResultGone(f"the file {file} is gone: compute it again") from error


def kept(data: bytes, kind: str, name: str) -> flask.Response:
    """A response that may be cached permanently: result numbers are never reused."""
    response = flask.Response(data, mimetype=kind)
    response.headers["Cache-Control"] = FOR_EVER
    response.headers["Content-Disposition"] = f'inline; filename="{name}"'
    response.add_etag()
    response.make_conditional(flask.request)  # modifies the response in place
    return response


def file_name(words: str) -> str:
    """A file name that is valid on every system: ASCII letters, digits, `-`, `_` and dots."""
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in words
    )
