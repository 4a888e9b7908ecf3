"""How the HTTP interface reads requests and words its answers."""

import json
import math
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any

import flask

from dashboard.security.prefix import local
from dashboard.state.context import Record, current
from db.ledger.engine import LedgerError
from db.ledger.jobs import IllegalMove, NoSuchJob
from db.stores.results import ResultGone
from db.suggestions import hint
from workers.jobs.registry import JOB_KINDS
from workers.requests.parameters import InvalidRequest

MAX_NUMBER = 2**31 - 1
FOR_EVER = "public, max-age=31536000, immutable"


class NotFound(LookupError):
    """There is nothing of that number; the message is one sentence."""


STATUS: dict[type[Exception], int] = {
    InvalidRequest: 400,
    NoSuchJob: 404,
    NotFound: 404,
    IllegalMove: 409,
    ResultGone: 410,
    LedgerError: 503,
}


def answer(content: Any, status: int = 200, **headers: str) -> flask.Response:
    """JSON that is never cached."""
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


def error_response(error: Exception) -> flask.Response:
    """The sentence of an error that has one."""
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    return answer({"error": " ".join(str(error).split())}, status)


def json_body() -> dict[str, Any]:
    """The object that a request carries.

    Only as application/json, which a page of another site cannot send without asking first; anything else ends the
    request with 415.

    Raises:
        InvalidRequest: it is no object in JSON.
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


def only(body: Mapping[str, Any], *names: str) -> None:
    """Refuse members that nobody reads: they are misspelt ones.

    Raises:
        InvalidRequest: there is another than `names`.
    """
    for name in body:
        if name not in names:
            raise InvalidRequest(f"body: expected members among {', '.join(names)}, got {name!r}")


def number(name: str, default: int, *, low: int, high: int) -> int:
    """A whole number of the query string.

    Raises:
        InvalidRequest: it is none, or out of range.
    """
    text = flask.request.args.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 20 or not low <= int(text) <= high:
        raise InvalidRequest(f"{name}: expected a whole number from {low} to {high}, got {text!r}")
    return int(text)


def fraction(name: str, default: float | None, *, low: float, high: float) -> float | None:
    """A number of the query string.

    Raises:
        InvalidRequest: it is none, or out of range.
    """
    text = flask.request.args.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InvalidRequest(f"{name}: expected a number from {low:g} to {high:g}, got {text!r}")
    return value


def choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    """A word of the query string.

    Raises:
        InvalidRequest: it is another.
    """
    text = flask.request.args.get(name, default)
    if text not in choices:
        raise InvalidRequest(
            f"{name}: expected one of {', '.join(choices)}, got {text!r}{hint(text, choices)}"
        )
    return text


def words(name: str) -> str:
    """A text of the query string, empty where it is not given.

    Raises:
        InvalidRequest: it holds what no name holds.
    """
    text = flask.request.args.get(name, "")
    if not text.isprintable() or len(text) > 200:
        raise InvalidRequest(f"{name}: expected at most 200 printable characters, got {text!r}")
    return text


def share(job: Mapping[str, Any]) -> float:
    """How much of a job is finished, 0 to 1; once it failed or was cancelled, how much of it has a result."""
    made = job["items_done"]
    if job["state"] not in ("failed", "cancelled"):
        made += job["items_failed"] + job["progress"]
    return float(min(1.0, made / max(1, job["items"])))


def job_record(job: Mapping[str, Any]) -> Record:
    """A job as the interface shows it."""
    shown = (
        "job", "kind", "queue", "state", "image_set", "parameters", "items", "items_done", "items_failed", "attempts",
        "note", "error", "traceback", "worker", "silent", "cancel_requested", "seconds_left", "item_seconds", "age",
        "created", "started", "finished",
    )  # fmt: skip
    kind = JOB_KINDS.get(job["kind"])
    return {name: job[name] for name in shown} | {
        "models": job["models"].split(", ") if job["models"] else [],
        "progress": share(job),
        "url": local(f"/api/jobs/{job['job']}"),
        "page": result_page(job),
        "title": job["kind"] if kind is None else kind.title,
        "link": None if kind is None else {"icon": kind.link[0], "text": kind.link[1]},
    }


def result_page(job: Mapping[str, Any]) -> str | None:
    """Address of the page that shows what a job makes; None where no one page does."""
    kind = JOB_KINDS.get(job["kind"])  # an older home may have others
    page = None if kind is None else kind.page(job)
    return None if page is None else local(page)


def map_record(found: Mapping[str, Any]) -> Record:
    """A map as the interface shows it: no paths of the server."""
    hidden = (
        "key",
        "question",
        "file",
        "standard_error_file",
        "input_file",
        "model_digest",
        "image_key",
        "position",
    )
    url = local(f"/api/maps/{found['map']}")
    has_error = found["standard_error_file"] is not None
    return {name: value for name, value in found.items() if name not in hidden} | {
        "url": url,
        "npy": f"{url}.npy",
        "png": f"{url}.png",
        "standard_error_npy": f"{url}.npy?part=standard_error" if has_error else None,
        "input_png": f"{url}/input.png",
    }


def result_line(
    item: Record, facts: Record | None, parameters: Record | None, image_set: str, *, left_out: Container[str]
) -> Record:
    """What is known of an item and of what it made, flat, for a line of CSV; parameters are `parameter_NAME`.

    `facts` and `parameters` are None where nothing was made yet. What another job made counts as done.
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
    """A result's file.

    Raises:
        ResultGone: it is not there any more.
    """
    try:
        return current().results.path(file).read_bytes()
    except OSError as error:
        raise ResultGone(f"the file {file} is gone: compute it again") from error


def kept(data: bytes, kind: str, name: str) -> flask.Response:
    """A file that never changes: a result's number is given once."""
    response = flask.Response(data, mimetype=kind)
    response.headers["Cache-Control"] = FOR_EVER
    response.headers["Content-Disposition"] = f'inline; filename="{name}"'
    response.add_etag()
    response.make_conditional(flask.request)  # in place
    return response


def file_name(words: str) -> str:
    """A name that every system takes for a file: letters of ASCII, digits, - _ and dots."""
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in words
    )


def for_spreadsheet() -> bool:
    """Whether a CSV's formulas are to be guarded: `spreadsheet=1`."""
    return flask.request.args.get("spreadsheet") == "1"
