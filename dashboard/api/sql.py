"""SQL routes of the HTTP API: run a statement, download all its rows, and store saved queries.

`/api/sql` runs the statement `q`; the value of its parameter `$name` is `p.name`, converted to a number if it
parses as one. `/download/sql.*` exports all rows, `/api/queries` stores queries.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import flask
import pyarrow as pa

from dashboard.api.answers import (
    NotFound,
    answer,
    error_response,
    for_spreadsheet,
    json_body,
    number,
    words,
)
from dashboard.components.sql_cards import MAX_CARDS, cards, has_pictures
from dashboard.state.context import Record, current
from db.atlas.store import AtlasError
from db.ledger.engine import LedgerError
from db.ledger.saved_queries import (
    MAX_NAME,
    MAX_TEXT,
    NameTaken,
    NoSuchQuery,
    delete_query,
    save_query,
    saved_queries,
)
from db.sql.catalog import catalogue, row_counts
from db.sql.child import Result, SQLFailed, SQLStopped
from db.sql.formats import csv_lines, distinct, json_lines, parquet_pieces, plain, values
from db.sql.functions import by_kind
from db.sql.guard import MAX_CHARACTERS, RefusedSQL
from db.sql.places import TooManyQueries
from db.sql.runner import as_value
from workers.requests.parameters import MAX_NUMBER, InvalidRequest, only

STANDARD_ROWS = 1000
MAX_ROWS = 20_000
MAX_BYTES = 32 << 20  # of a response that a browser displays
ALL_ROWS = 1 << 40
ALL_BYTES = 8 << 30
FORMS = {"csv": "text/csv", "json": "application/json", "parquet": "application/vnd.apache.parquet"}

sql_api = flask.Blueprint("sql_api", __name__)
STATUS: dict[type[Exception], int] = {
    RefusedSQL: 400,
    SQLStopped: 422,
    SQLFailed: 400,
    TooManyQueries: 429,
    NameTaken: 409,
    NoSuchQuery: 404,
    AtlasError: 503,
}
for _general in (InvalidRequest, NotFound, LedgerError):
    sql_api.register_error_handler(_general, error_response)


def sorry_for_sql(error: Exception) -> flask.Response:
    """The error's message as a JSON response."""
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    return answer({"error": " ".join(str(error).split())}, status)


for _kind in STATUS:
    sql_api.register_error_handler(_kind, sorry_for_sql)


@sql_api.get("/api/sql")
def run_sql() -> flask.Response:
    """The first rows of a statement, with its columns; `cards=1` adds an image for each row that has one."""
    most = number("limit", STANDARD_ROWS, low=1, high=MAX_ROWS)
    wants_cards = number("cards", 0, low=0, high=1)
    found = _run(rows=most, size=MAX_BYTES)
    table = found.table()
    columns = [
        {"name": name, "type": kind} for name, kind in zip(table.column_names, found.kinds, strict=True)
    ]
    lists = [[plain(value) for value in values(column)] for column in table.columns]
    told: Record = {
        "columns": columns,
        "rows": list(zip(*lists, strict=True)),
        "more": found.more,
        "seconds": round(found.seconds, 4),
        "plan": bool(found.plan),
        "pictures": has_pictures(table.column_names),
    }
    if wants_cards:
        rows = [dict(zip(table.column_names, row, strict=True)) for row in told["rows"][:MAX_CARDS]]
        rows = rows if distinct(table.column_names) == table.column_names else []
        told["cards"] = cards(current(), rows, image_set=words("images"))
    return answer(told)


@sql_api.get("/download/sql.<form>")
def download_sql(form: str) -> flask.Response:
    """All rows of a statement as a streamed file; `spreadsheet=1` escapes formulas in CSV."""
    if form not in FORMS:
        raise NotFound(f"expected sql.csv, sql.json or sql.parquet, got sql.{form}")
    result = _run(rows=ALL_ROWS, size=ALL_BYTES)
    try:
        batches = _whole(result)
        pieces: Iterator[Any] = (
            parquet_pieces(result.schema, batches)
            if form == "parquet"
            else csv_lines(result.schema, batches, spreadsheet=for_spreadsheet())
            if form == "csv"
            else json_lines(result.schema, batches)
        )
        first = next(pieces)  # immediate errors become an error response
    except BaseException:
        result.close()
        raise
    response = flask.Response(itertools.chain([first], pieces), mimetype=FORMS[form])
    response.call_on_close(result.close)
    response.headers["Content-Disposition"] = f'attachment; filename="result.{form}"'
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _whole(result: Result) -> Iterator[pa.RecordBatch]:
    """All batches; raises if the result is truncated, so a partial file is never mistaken for a complete one."""
    yield from result
    if result.more:
        raise SQLStopped(f"the result has more than {ALL_BYTES >> 30} GB, the most that is sent")


def _run(*, rows: int, size: int) -> Result:
    sql = flask.request.args.get("q", "")
    if not sql.strip():
        raise InvalidRequest("q: expected an SQL statement, got none")
    values = {
        name.removeprefix("p."): as_value(text)
        for name, text in flask.request.args.items()
        if name.startswith("p.")
    }
    return current().sql.run(sql, values, rows=rows, size=size, gone=client_gone())


def client_gone() -> Callable[[], bool]:
    """A function that returns whether the client has disconnected; always False if the server cannot tell."""
    gone: Callable[[], bool] = flask.request.environ.get("waitress.client_disconnected", lambda: False)
    return gone


@sql_api.get("/api/sql/tables")
def sql_tables() -> flask.Response:
    """Tables and views with their columns, comments and row counts (null for views)."""
    context = current()
    counts = row_counts(context.atlas, context.ledger)
    return answer({"tables": [asdict(one) | {"rows": counts.get(one.name)} for one in catalogue()]})


@sql_api.get("/api/sql/functions")
def sql_functions() -> flask.Response:
    """Functions that a statement may call."""
    return answer(by_kind())


@sql_api.get("/api/queries")
def list_queries() -> flask.Response:
    """Saved queries by name."""
    return answer({"queries": saved_queries(current().ledger)})


@sql_api.post("/api/queries")
def keep_query() -> flask.Response:
    """Save a query under a name; 409 if the name is taken, unless `replace` is set."""
    body = json_body()
    only(body, "name", "description", "sql", "replace")
    name, description, sql = (_text(body, part) for part in ("name", "description", "sql"))
    replace = body.get("replace", False)
    if not isinstance(replace, bool):
        raise InvalidRequest(f"replace: expected true or false, got {replace!r}")
    for part, text, most in (("name", name, MAX_NAME), ("sql", sql, MAX_CHARACTERS)):
        if not text or len(text) > most:
            raise InvalidRequest(f"{part}: expected 1 to {most:,} characters, got {len(text):,}")
    if not name.isprintable():
        raise InvalidRequest("name: expected one line of printable characters")
    if len(description) > MAX_TEXT:
        raise InvalidRequest(
            f"description: expected at most {MAX_TEXT:,} characters, got {len(description):,}"
        )
    found = save_query(current().ledger, name=name, description=description, sql=sql, replace=replace)
    return answer(found, 201)


def _text(body: Record, name: str) -> str:
    text = body.get(name, "")
    if not isinstance(text, str) or "\0" in text:
        raise InvalidRequest(f"{name}: expected a text, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name}: expected a text, got half of a surrogate pair") from error
    return text.strip()


@sql_api.delete("/api/queries/<int:query>")
def remove_query(query: int) -> flask.Response:
    """Delete a saved query."""
    if query > MAX_NUMBER:
        raise NoSuchQuery(f"there is no saved query {query}")
    delete_query(current().ledger, query)
    return answer({"query": query})
