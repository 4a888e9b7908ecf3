"""What the dialog "Add images" does: its state, and what an event makes of it.

Steps::

    choosing -> sending -> (previewing -> previewed ->) importing -> imported -> indexing -> indexed

An error leads back to the step where it can be corrected. A job's row in the ledger is the truth: the dialog only
follows it, and closing the dialog changes nothing.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from dashboard.api.uploads import UploadImport, import_job, remove_upload
from dashboard.security.access import TooManyRequests, spend
from dashboard.state.context import Context, Record
from db.atlas.image_sets import set_name_problem
from db.atlas.store import AtlasError
from db.ledger.engine import LedgerError
from db.ledger.jobs import IllegalMove, NewJob, NoSuchJob
from db.ledger.tables import UNFINISHED
from db.queries import jobs as job_queries
from db.stores.uploads import NoSuchUpload, UploadRefused
from workers.jobs.kind import Stores
from workers.jobs.kinds.image_import import LAYOUT_WORDS
from workers.jobs.registry import read_request
from workers.requests.image_sets import LABELS_SUFFIXES
from workers.requests.members import read_members
from workers.requests.parameters import InvalidRequest

FIELDS = ("name", "folder", "labels_path", "relabels_path", *LAYOUT_WORDS)
JOB_STEPS = ("previewing", "importing", "indexing")
ERRORS: tuple[type[Exception], ...] = (
    InvalidRequest,
    NoSuchUpload,
    UploadRefused,
    LedgerError,
    AtlasError,
    NoSuchJob,
    TooManyRequests,
)


@dataclass(frozen=True)
class Adding:
    """The dialog's state.

    Attributes:
        step: see above.
        fields: what was typed when a button was last pressed, by name of FIELDS.
        files: count, bytes and the first name of the files that the browser holds; None for none.
        labels: number (in the browser), name and size of the label table; None for none.
        upload: key of the upload that has the files; None before they are sent.
        sent_labels, labels_file: number of the label table that was sent last, in the browser and in the upload.
        preview: after sending, preview rather than import.
        job: the job that is followed, or was followed last.
        previewed, imported: the job that previewed or imported; 0 for none.
        model: the model to index with.
        error, note: for the user; empty for none.
        focus: the control to focus; empty for none.
        picks: number of the user's last choice of files or labels that was taken note of.
        sendings: number of sendings that were begun.
    """

    step: str = "choosing"
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Record | None = None
    labels: Record | None = None
    upload: str | None = None
    sent_labels: int | None = None
    labels_file: int | None = None
    preview: bool = False
    job: int = 0
    previewed: int = 0
    imported: int = 0
    model: str = ""
    error: str = ""
    note: str = ""
    focus: str = ""
    picks: int = 0
    sendings: int = 0

    @property
    def name(self) -> str:
        """Name of the image set."""
        return self.fields.get("name", "")

    @property
    def labels_to_send(self) -> Record | None:
        """The label table, if the upload does not have it yet."""
        return self.labels if self.labels and self.labels["number"] != self.sent_labels else None

    def fresh(self, **fields: Any) -> "Adding":
        """The state at the beginning, with some fields set."""
        return Adding(picks=self.picks, sendings=self.sendings, **fields)


def opened(_context: Context, state: Adding, _value: Any) -> Adding:
    """The dialog was opened: what was finished is over."""
    return state.fresh() if state.step == "indexed" else state


def chose(state: Adding, value: Mapping[str, Any] | None) -> Adding:
    """The user's last choice of files or of a label table, unless it was taken note of before."""
    if not value or value["number"] <= state.picks:
        return state
    state = replace(state, picks=value["number"])
    if "labels" in value:
        table = dict(value["labels"])
        if not table["name"].lower().endswith(LABELS_SUFFIXES):
            expected = ", ".join(LABELS_SUFFIXES)
            return failed(state, f"Labels file: expected {expected}, got “{table['name']}”.", "labels_choose")
        return replace(state, labels=table, error="", focus=_labels_button(state))
    files = dict(value["files"])
    if not files["count"]:
        return replace(
            _without_upload(state), files=None, error="Choose at least one file: the folder is empty."
        )
    return replace(_without_upload(state), files=files, error="", note="")


def unlabelled(_context: Context, state: Adding, _value: Any) -> Adding:
    """The user removed the label table."""
    return replace(state, labels=None, error="", focus=_labels_button(state))


def _labels_button(state: Adding) -> str:
    return "relabels_choose" if state.step == "previewed" else "labels_choose"


def proposed_name(files: Record | None) -> str:
    """A name for the set, from the name of the folder or of the only file; empty if nothing suggests one."""
    if not files:
        return ""
    first = PurePosixPath(files["name"])
    if len(first.parts) > 1:
        stem = first.parts[0]
    else:
        stem = re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", first.name) if files["count"] == 1 else ""
    plain = re.sub(r"[^a-z0-9._-]+", "-", stem.lower())
    return re.sub(r"^[^a-z0-9]+", "", plain)[:100]


def failed(state: Adding, error: str, focus: str = "") -> Adding:
    """The state with an error, and the control that it is about."""
    return replace(state, error=error, focus=focus)


def begun(context: Context, state: Adding, *, preview: bool) -> Adding:
    """The user pressed Add or Preview."""
    problem = set_name_problem(state.name)
    if problem is not None:
        return failed(state, f"Image set: {problem}", "name")
    if not state.files and not state.fields.get("folder"):
        return failed(state, "Choose files first, or a folder.", "files_choose")
    if state.files and state.fields.get("labels_path"):
        return failed(
            state,
            "Labels file on the server: expected a folder on the server with it. For your own files, choose a "
            "labels file.",
            "labels_path",
        )
    if not state.files and state.labels:
        return failed(
            state,
            "Labels file: expected your own files with it. For a folder on the server, name a labels file on "
            "the server.",
            "labels_choose",
        )
    return asked(context, replace(state, previewed=0), preview=preview)


def asked(context: Context, state: Adding, *, preview: bool) -> Adding:
    """Send what the server does not have; then preview or import."""
    if state.files and (state.upload is None or state.labels_to_send):
        return replace(state, step="sending", preview=preview, sendings=state.sendings + 1, error="", note="")
    return _requested(context, state, preview=preview)


def sent(context: Context, state: Adding, value: Mapping[str, Any]) -> Adding:
    """The browser has sent the files, or could not."""
    if state.step != "sending":
        return state
    if value.get("upload") is None:
        kept = "" if state.upload else "; nothing was kept"
        note = f"The upload was cancelled{kept}." if value.get("stopped") else ""
        lost = replace(state, upload=None, sent_labels=None, labels_file=None)
        return replace(
            lost if value.get("status") == 404 else state,
            step=_back("previewing", state),
            error="" if note else str(value.get("error", "")),
            note=note,
        )
    state = replace(state, upload=str(value["upload"]))
    if state.labels_to_send:
        state = replace(state, sent_labels=state.labels_to_send["number"], labels_file=value["labels"])
    return _requested(context, state, preview=state.preview)


def _requested(context: Context, state: Adding, *, preview: bool) -> Adding:
    """Submit the import of what was sent or named, or its preview."""

    def request() -> NewJob:
        typed = {name: text for name in LAYOUT_WORDS if (text := state.fields.get(name, ""))}
        words = {name: _word(name, text) for name, text in typed.items()}
        if state.upload is not None:
            labels = state.labels_file if state.labels else None
            asked = {"images": state.name, "preview": preview, "labels": labels, **words}
            return import_job(state.upload, read_members(asked, UploadImport))
        table = state.fields.get("relabels_path" if state.previewed else "labels_path", "")
        body = {"kind": "import", "folder": state.fields.get("folder", ""), "images": state.name, **words}
        body |= {"preview": preview} | ({"labels": table} if table else {})
        return read_request(body, Stores(context.atlas, context.ledger, context.settings))

    return _submitted(context, state, "previewing" if preview else "importing", request)


def _word(name: str, typed: str) -> str | int:
    return int(typed) if name == "class_level" and re.fullmatch(r"-?[0-9]{1,9}", typed) else typed


def indexed(context: Context, state: Adding, model: str) -> Adding:
    """The user asked for an index of the set."""

    def request() -> NewJob:
        body = {"kind": "index", "model": model, "images": state.name}
        return read_request(body, Stores(context.atlas, context.ledger, context.settings))

    return _submitted(context, replace(state, model=model), "indexing", request)


def _submitted(context: Context, state: Adding, step: str, request: Any) -> Adding:
    try:
        spend("jobs")
        job = context.submitter.submit(request()).job
    except ERRORS as error:
        if isinstance(error, NoSuchUpload):  # deleted after a day: next time everything is sent again
            state = replace(state, upload=None, sent_labels=None, labels_file=None)
        return replace(state, step=_back(step, state), error=_sentence(error))
    return replace(state, step=step, job=job, error="", note="")


def _back(step: str, state: Adding) -> str:
    """The step where an error can be corrected; what was previewed can be previewed again."""
    if step == "indexing":
        return "imported"
    return "previewed" if state.previewed else "choosing"


def followed(context: Context, state: Adding) -> tuple[Adding, Record | None]:
    """The state after a look at its job, and the job; None if it is no longer followed or cannot be read."""
    if state.step not in JOB_STEPS:
        return state, None
    try:
        job = job_queries.job(context.ledger, state.job)
    except NoSuchJob as error:
        return replace(state, step=_back(state.step, state), error=_sentence(error)), None
    except LedgerError as error:
        return failed(state, _sentence(error)), None
    state = replace(state, error="")
    if job["state"] in UNFINISHED:
        return state, job
    if job["state"] != "done":
        reason = job["error"] or f"Job {state.job} was cancelled."
        return replace(state, step=_back(state.step, state), error=reason), None
    if state.step == "previewing":
        return replace(state, step="previewed", previewed=state.job), None
    if state.step == "importing":
        return replace(state, step="imported", imported=state.job, upload=None), None
    return replace(state, step="indexed"), None


def cancelled(context: Context, state: Adding, _value: Any) -> Adding:
    """The user pressed Cancel. The browser stops a sending itself."""
    if state.step in JOB_STEPS:
        with contextlib.suppress(IllegalMove, NoSuchJob):  # it has just ended
            context.submitter.cancel(state.job)
    return state


def restarted(_context: Context, state: Adding, _value: Any) -> Adding:
    """The user wants to add something else."""
    _without_upload(state)
    return state.fresh()


def indexing_asked(_context: Context, state: Adding, value: Mapping[str, Any]) -> Adding:
    """The dialog "Manage image set" asks for an index of a set. A job that is under way continues unseen."""
    if state.step == "sending":
        return failed(state, f"Wait until this upload has ended, then index {value['set']}.")
    _without_upload(state)
    return state.fresh(step="imported", fields={"name": str(value["set"])}, focus="model")


def _without_upload(state: Adding) -> Adding:
    """The state without its upload, which is deleted unless a job imports it."""
    if state.upload is not None:
        with contextlib.suppress(NoSuchUpload, UploadRefused, LedgerError):
            remove_upload(state.upload)
    return replace(state, upload=None, sent_labels=None, labels_file=None)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())
