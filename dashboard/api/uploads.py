"""Upload routes: `/api/uploads` receives files in chunks, `/api/uploads/…/import` creates an import job.

A chunk is the raw body of a PUT with type `application/octet-stream`, which a page on another site cannot
send without a CORS preflight. It is written straight to disk; the response states the offset of the next
chunk.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import flask

from dashboard.api.answers import NotFound, answer, error_response, job_record, json_body, number
from dashboard.security.prefix import local
from dashboard.state.context import Record, current
from db.ledger.engine import LedgerError
from db.queries import jobs as job_queries
from db.stores.uploads import MAX_NAME, NoRoom, NoSuchUpload, UploadRefused, UploadStore, WrongOffset
from workers.requests.image_sets import LAYOUT_WORDS, labels_problem, layout_words, upload_job
from workers.requests.parameters import InvalidRequest, only

MAX_PIECE = 16 * 2**20
PIECE = 4 * 2**20  # chunk size to send
MAX_LABELS_NAME = 255
MAX_LIST = 24 * 2**20  # 200,000 files with names of 100 characters

uploads = flask.Blueprint("uploads", __name__, url_prefix="/api/uploads")
STATUS: dict[type[Exception], int] = {NoSuchUpload: 404, NoRoom: 507, WrongOffset: 409, UploadRefused: 409}
for _general in (InvalidRequest, NotFound, LedgerError):
    uploads.register_error_handler(_general, error_response)


def sorry_for_upload(error: Exception) -> flask.Response:
    """The error's message as a JSON response, with the offset to resume at."""
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    told: Record = {"error": str(error)}
    if isinstance(error, WrongOffset):
        told["received"] = error.received
    return answer(told, status)


for _kind in STATUS:
    uploads.register_error_handler(_kind, sorry_for_upload)


def _store() -> UploadStore:
    return UploadStore(current().settings)


@uploads.post("")
def begin_upload() -> flask.Response:
    """Begin an upload of files, given by name and size."""
    body = json_body()
    only(body, "files")
    listed = body.get("files")
    if not isinstance(listed, list) or not listed:
        raise InvalidRequest("files: expected a list of objects with name and size, got none")
    files = [_file(one) for one in listed]
    with _wrong_where_refused():
        key = _store().begin(files)
    return answer(_record(key) | {"piece": PIECE}, 201, Location=local(f"/api/uploads/{key}"))


@contextlib.contextmanager
def _wrong_where_refused() -> Iterator[None]:
    """Report files that cannot be accepted as an invalid request rather than a conflict."""
    try:
        yield
    except NoRoom:
        raise
    except UploadRefused as error:
        raise InvalidRequest(str(error)) from error


@uploads.post("/<upload>/labels")
def add_labels(upload: str) -> flask.Response:
    """Add a table of labels to an upload."""
    body = json_body()
    only(body, "name", "size")
    if body.keys() != {"name", "size"}:
        raise InvalidRequest("body: expected name and size of a labels file, got another")
    given, size = _file(body)
    name = given.replace("\\", "/").rpartition("/")[2]
    if not 1 <= len(name) <= MAX_LABELS_NAME or not name.isprintable():
        raise InvalidRequest(
            f"name: expected a printable file name of 1 to {MAX_LABELS_NAME} characters, got {name!r:.200}"
        )
    problem = labels_problem(name, size)
    if problem is not None:
        raise InvalidRequest(f"labels: {problem}")
    with _wrong_where_refused():
        file = _store().add_labels(upload, name, size)
    place = f"/api/uploads/{upload}/files/{file}"
    return answer({"file": file, "piece": PIECE}, 201, Location=local(place))


def _file(given: Any) -> tuple[str, int]:
    if not isinstance(given, dict) or given.keys() != {"name", "size"}:
        raise InvalidRequest("files: expected objects with name and size, got another")
    name, size = given["name"], given["size"]
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        raise InvalidRequest(
            f"name: expected a text of 1 to {MAX_NAME:,} characters, got {str(name)[:100]!r}"
        )
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**53:
        raise InvalidRequest(f"size: expected a whole number of bytes, got {size!r}")
    return name, size


def _record(key: str) -> Record:
    files = _store().files(key)
    return {
        "upload": key,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "received": sum(file.received for file in files),
        "url": local(f"/api/uploads/{key}"),
    }


@uploads.get("/<upload>")
def show_upload(upload: str) -> flask.Response:
    """How much of an upload has arrived."""
    return answer(_record(upload) | {"piece": PIECE})


@uploads.get("/<upload>/files/<int:file>")
def show_file(upload: str, file: int) -> flask.Response:
    """How much of a file has arrived: the offset to resume at."""
    found = _store().file(upload, file)
    return answer({"file": file, "name": found.name, "size": found.size, "received": found.received})


@uploads.put("/<upload>/files/<int:file>")
def receive(upload: str, file: int) -> flask.Response:
    """Receive a chunk of a file that starts at `offset`."""
    if flask.request.mimetype != "application/octet-stream":
        return answer({"error": "expected a body of type application/octet-stream"}, 415)
    length = flask.request.content_length
    if length is None or not 0 <= length <= MAX_PIECE:
        raise InvalidRequest(f"body: expected at most {MAX_PIECE:,} bytes with their length, got {length}")
    offset = number("offset", 0, low=0, high=2**53)
    stream = cast(BinaryIO, flask.request.stream)
    received = _store().write(upload, file, offset, length, stream)
    return answer({"file": file, "received": received})


@uploads.delete("/<upload>")
def abandon(upload: str) -> flask.Response:
    """Delete an upload, unless a job imports it."""
    remove_upload(upload)
    return answer({"upload": upload})


def remove_upload(upload: str) -> None:
    """Delete an upload.

    Raises:
        NoSuchUpload, UploadRefused: there is no such upload, or a job imports it.
    """
    if upload in job_queries.unfinished_uploads(current().ledger):
        raise UploadRefused(f"upload {upload} is being imported: cancel the job")
    _store().remove(upload)


@uploads.post("/<upload>/import")
def import_upload(upload: str) -> flask.Response:
    """Import a complete upload into an image set, or preview the import."""
    body = json_body()
    only(body, "images", "queue", "preview", "labels", *LAYOUT_WORDS)
    name, queue = body.get("images", ""), body.get("queue", "interactive")
    if not isinstance(name, str) or not isinstance(queue, str):
        raise InvalidRequest("images: expected a text, got something else")
    context = current()
    new = upload_job(
        _store(),
        upload=upload,
        image_set=name,
        queue=queue,
        preview=body.get("preview", False),
        words=layout_words(body),
        labels=body.get("labels"),
    )
    submitted = context.submitter.submit(new)
    record = job_record(job_queries.job(context.ledger, submitted.job)) | {"notice": submitted.sentence()}
    return answer(record, 201 if submitted.queued else 200, Location=local(f"/api/jobs/{submitted.job}"))
