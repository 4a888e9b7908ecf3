"""Error responses: JSON for programs, a page for browsers, a message above the page for Dash callbacks.

`handle_faults(server)` covers every route, `callback_fault` every callback. Expected errors (an unreadable
store, a full disk) respond with their own message. Anything else is a bug in Convscope: the traceback goes to
the log, and the response states the time, so the log entry can be found.
"""

import logging
from datetime import UTC, datetime

import flask
from dash import html, set_props
from werkzeug.exceptions import HTTPException

from dashboard.api.answers import answer
from dashboard.security.headers import INLINE_SCRIPTS
from dashboard.state.ids import make_id
from db.atlas.store import AtlasError, NoAtlas
from db.files import FULL, file_sentence
from db.home import HomeError
from db.ledger.engine import LedgerError, ReadOnlyHome
from db.ledger.set_states import SetChanged
from db.stores.images import StoreBusy
from db.stores.results import ResultGone

logger = logging.getLogger("convscope.faults")
FAULT = make_id("shell", "fault")
# The first match applies.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NoAtlas, 404),
    (ResultGone, 410),
    (StoreBusy, 409),
    (SetChanged, 409),
    (ReadOnlyHome, 403),
    (AtlasError, 503),
    (LedgerError, 503),
    (HomeError, 503),
)
_FOR_PROGRAMS = ("/api/", "/choices/", "/status.json", "/_")


def handle_faults(server: flask.Flask) -> None:
    """Install handlers for exceptions that routes do not catch."""
    server.register_error_handler(Exception, say_fault)


def say_fault(error: Exception) -> flask.Response | HTTPException:
    """The response to a request whose route raised `error`."""
    if isinstance(error, HTTPException):
        return error
    status, sentence = explain(error, flask.request.path)
    path = flask.request.path
    if path.startswith(_FOR_PROGRAMS):
        return answer({"error": sentence}, status)
    if path.startswith(("/download/", "/pictures/")):
        response = flask.Response(f"{sentence}\n", status, mimetype="text/plain")
    else:
        page = flask.render_template("fault.html", sentence=sentence, script=INLINE_SCRIPTS[0])
        response = flask.Response(page, status)
    response.headers["Cache-Control"] = "no-store"
    return response


def callback_fault(error: Exception) -> None:
    """Show a callback's error above the page; the callback's outputs stay unchanged."""
    _, sentence = explain(error, "a callback")
    set_props(FAULT, {"children": [html.Span(f"{sentence[0].upper()}{sentence[1:]}.")]})


def explain(error: Exception, where: str) -> tuple[int, str]:
    """HTTP status and message of an error; an unexpected error is logged with its traceback."""
    for kind, status in STATUS:
        if isinstance(error, kind):
            return status, _line(error)
    if isinstance(error, OSError) and error.filename is not None:
        logger.error("%s: %s", where, error, exc_info=error)
        return (507 if error.errno in FULL else 503), file_sentence(error)
    if isinstance(error, MemoryError):
        logger.error("%s: no memory", where, exc_info=error)
        return 503, "there is not enough memory for this: close other programs, or ask for less"
    logger.error("%s: a fault in Convscope", where, exc_info=error)
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return 500, f"a fault in Convscope, {type(error).__name__}: its log has the traceback at {moment} UTC"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
