"""Upload routes: `/api/uploads` receives files in chunks, `/api/uploads/…/import` creates an import job.

A chunk is the raw body of a PUT with type `application/octet-stream`, which a page on another site cannot
send without a CORS preflight. It is written straight to disk; the response states the offset of the next
chunk.
"""

import contextlib
from collections.abc import Iterator
from typing import Annotated, BinaryIO, cast

import flask
import msgspec
from msgspec import Meta

from dashboard.api.answer_types import (
    DeletedUpload,
    FileReceived,
    FileRoom,
    OffsetError,
    Submitted,
    Upload,
    UploadedFile,
)
from dashboard.api.answers import NotFound, answer, job_record
from dashboard.api.routing import LEDGER, Answered, Body, Query, Routes
from dashboard.security.prefix import local
from dashboard.state.context import current
from db.ledger.engine import LedgerError
from db.ledger.jobs import NewJob
from db.queries import jobs as job_queries
from db.stores.uploads import (
    MAX_FILES,
    MAX_NAME,
    NoRoom,
    NoSuchUpload,
    UploadRefused,
    UploadStore,
    WrongOffset,
)
from workers.jobs.kinds.image_import import SetImport
from workers.requests.image_sets import (
    LABELS_SUFFIXES,
    MAX_LABELS_BYTES,
    labels_problem,
    upload_job,
)
from workers.requests.members import expected
from workers.requests.parameters import InvalidRequest

MAX_PIECE = 16 * 2**20
PIECE = 4 * 2**20  # chunk size to send
MAX_LABELS_NAME = 255
MAX_LIST = 24 * 2**20  # 200,000 files with names of 100 characters
MAX_BYTES = 2**53 - 1  # of a file: what JavaScript can count

STATUS: dict[type[Exception], int] = {
    InvalidRequest: 400,
    NotFound: 404,
    LedgerError: 503,
    NoSuchUpload: 404,
    NoRoom: 507,
    UploadRefused: 409,
}
uploads = Routes("uploads", "/api/uploads", STATUS)
UploadKey = Annotated[
    str, Meta(description="Key of an upload.", extra_json_schema={"pattern": "^[0-9a-f]{32}$"})
]
FileNumber = Annotated[int, Meta(ge=0, description="Number of the file in the upload, from 0.")]
_NO_SUCH_UPLOAD = {404: "There is no such upload or file: it was imported, or removed after a day."}
_NO_ROOM = {507: "The disk is full."}


def _store() -> UploadStore:
    return UploadStore(current().settings)


class FileToUpload(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A file by its name and size."""

    name: Annotated[
        str,
        Meta(min_length=1, max_length=MAX_NAME),
        expected(
            f"a string of 1 to {MAX_NAME:,} characters", "A label: folders in it may state class and split."
        ),
    ]
    size: Annotated[int, Meta(ge=0, le=MAX_BYTES), expected("a whole number of bytes", "In bytes.")]


class UploadToBegin(Body):
    """The files of an upload."""

    files: Annotated[
        list[FileToUpload],
        Meta(min_length=1, max_length=MAX_FILES),
        expected(f"a list of 1 to {MAX_FILES:,} objects with name and size"),
    ]


@uploads.post(
    "",
    answers={201: "The upload has begun."},
    errors={
        400: "Something in the request is invalid, or the files exceed CONVSCOPE_UPLOAD_GB.",
        **_NO_ROOM,
    },
    examples={"": {"files": [{"name": "photos.zip", "size": 123456}]}},
    location="Address of the upload.",
)
def begin_upload(body: UploadToBegin) -> Answered[Upload]:
    """Begin an upload of images or archives.

    Then PUT the files in pieces, and import. Unfinished uploads are removed after a day.
    """
    with _wrong_where_refused():
        key = _store().begin([(file.name, file.size) for file in body.files])
    return Answered(_record(key), 201, local(f"/api/uploads/{key}"))


@contextlib.contextmanager
def _wrong_where_refused() -> Iterator[None]:
    """Report files that cannot be accepted as an invalid request rather than a conflict."""
    try:
        yield
    except NoRoom:
        raise
    except UploadRefused as error:
        raise InvalidRequest(str(error)) from error


class LabelsToAdd(Body):
    """A table of labels by its file name and size."""

    name: Annotated[
        str,
        expected(
            "a file name",
            f"File name with its suffix: {', '.join(LABELS_SUFFIXES)}.",
            minLength=1,
            maxLength=MAX_LABELS_NAME,
        ),
    ]
    size: Annotated[
        int,
        expected(
            "a whole number of bytes",
            "In bytes; at most 16 MiB for .json.",
            minimum=1,
            maximum=MAX_LABELS_BYTES,
        ),
    ]

    @property
    def file_name(self) -> str:
        """The name without folders."""
        return self.name.replace("\\", "/").rpartition("/")[2]

    def __post_init__(self) -> None:
        """Reject what cannot be a table of labels."""
        if not 1 <= len(self.file_name) <= MAX_LABELS_NAME or not self.file_name.isprintable():
            raise InvalidRequest(
                f"name: expected a printable file name of 1 to {MAX_LABELS_NAME} characters, "
                f"got {self.file_name!r:.200}"
            )
        if self.size < 0:
            raise InvalidRequest(f"size: expected a whole number of bytes, got {self.size}")
        problem = labels_problem(self.file_name, self.size)
        if problem is not None:
            raise InvalidRequest(f"labels: {problem}")


@uploads.post(
    "/<upload>/labels",
    answers={201: "The file can be sent."},
    errors={
        400: "The name or the size is invalid for a table of labels, or the upload would exceed CONVSCOPE_UPLOAD_GB.",
        **_NO_SUCH_UPLOAD,
        **_NO_ROOM,
    },
    examples={"": {"name": "labels.csv", "size": 1234}},
    location="Address of the file.",
)
def add_labels(upload: UploadKey, body: LabelsToAdd) -> Answered[FileRoom]:
    """Add a table of labels to an upload.

    A CSV, TSV, JSON, JSON lines or parquet table with one row per image. PUT it as the file with the returned number,
    and pass this number as `labels` of the import.
    """
    with _wrong_where_refused():
        file = _store().add_labels(upload, body.file_name, body.size)
    return Answered({"file": file, "piece": PIECE}, 201, local(f"/api/uploads/{upload}/files/{file}"))


def _record(key: str) -> Upload:
    files = _store().files(key)
    return {
        "upload": key,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "received": sum(file.received for file in files),
        "url": local(f"/api/uploads/{key}"),
        "piece": PIECE,
    }


@uploads.get("/<upload>", answers="The upload.", errors=_NO_SUCH_UPLOAD)
def show_upload(upload: UploadKey) -> Upload:
    """How much of an upload has arrived."""
    return _record(upload)


@uploads.get("/<upload>/files/<int:file>", answers="The file.", errors=_NO_SUCH_UPLOAD)
def show_file(upload: UploadKey, file: FileNumber) -> UploadedFile:
    """How much of a file has arrived: the offset to resume at."""
    found = _store().file(upload, file)
    return {"file": file, "name": found.name, "size": found.size, "received": found.received}


class Offset(Query):
    """The place of a piece in its file."""

    offset: Annotated[
        int, Meta(ge=0, le=2**53, description="Where the piece begins: where the file ends so far.")
    ] = 0


@uploads.put(
    "/<upload>/files/<int:file>",
    raw=True,
    answers="The piece is stored.",
    errors={
        400: "The piece is too large, or its length is not stated.",
        **_NO_SUCH_UPLOAD,
        409: "The file ends elsewhere, at `received`; or it would exceed its stated size.",
        415: "The body is not application/octet-stream.",
        **_NO_ROOM,
    },
    error_types={409: OffsetError},
)
def receive(upload: UploadKey, file: FileNumber, query: Offset) -> FileReceived:
    """Send a piece of a file."""
    if flask.request.mimetype != "application/octet-stream":
        flask.abort(answer({"error": "expected a body of type application/octet-stream"}, 415))
    length = flask.request.content_length
    if length is None or not 0 <= length <= MAX_PIECE:
        raise InvalidRequest(f"body: expected at most {MAX_PIECE:,} bytes with their length, got {length}")
    stream = cast(BinaryIO, flask.request.stream)
    return {"file": file, "received": _store().write(upload, file, query.offset, length, stream)}


@uploads.blueprint.errorhandler(WrongOffset)
def wrong_offset(error: WrongOffset) -> flask.Response:
    """The error's message with the offset to resume at."""
    found: OffsetError = {"error": str(error), "received": error.received}
    return answer(found, 409)


@uploads.delete(
    "/<upload>",
    answers="The upload is deleted.",
    errors={**_NO_SUCH_UPLOAD, 409: "A job is importing it.", **LEDGER},
)
def abandon(upload: UploadKey) -> DeletedUpload:
    """Delete an upload, unless a job imports it."""
    remove_upload(upload)
    return {"upload": upload}


def remove_upload(upload: str) -> None:
    """Delete an upload.

    Raises:
        NoSuchUpload, UploadRefused: there is no such upload, or a job imports it.
    """
    if upload in job_queries.unfinished_uploads(current().ledger):
        raise UploadRefused(f"upload {upload} is being imported: cancel the job")
    _store().remove(upload)


class UploadImport(SetImport, kw_only=True):
    """The image set of an upload, and how its files are read."""

    labels: (
        Annotated[
            int,
            expected(
                "the number of a labels file",
                "Number of a labels file of this upload. Images that it does not name have no label.",
                minimum=0,
            ),
        ]
        | None
    ) = None


@uploads.post(
    "/<upload>/import",
    answers={200: "The same import was submitted before.", 201: "The job is queued."},
    errors={
        **_NO_SUCH_UPLOAD,
        409: "Files are missing, or the upload has no such labels file.",
        **LEDGER,
    },
    location="Address of the job.",
)
def import_upload(upload: UploadKey, body: UploadImport) -> Answered[Submitted]:
    """Import a complete upload into an image set, or preview the import.

    The job is of kind `import`; its result is its `image_import`.
    """
    context = current()
    submitted = context.submitter.submit(import_job(upload, body))
    job = job_record(job_queries.job(context.ledger, submitted.job))
    return Answered(
        {**job, "notice": submitted.sentence()},
        201 if submitted.queued else 200,
        local(f"/api/jobs/{submitted.job}"),
    )


def import_job(upload: str, asked: UploadImport) -> NewJob:
    """The job that imports an upload; see `workers.requests.image_sets.upload_job`."""
    return upload_job(
        _store(),
        upload=upload,
        image_set=asked.images,
        queue=asked.queue,
        preview=asked.preview,
        words=asked.layout(),
        labels=asked.labels,
    )
