"""SQL routes of the HTTP API: run a statement, download all its rows, and store saved queries.

`/api/sql` runs the statement `q`; the value of its parameter `$name` is `p.name`, converted to a number if it
parses as one. `/download/sql.*` exports all rows, `/api/queries` stores queries.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated, Any

import flask
import pyarrow as pa
from msgspec import Meta

from dashboard.api.answer_types import (
    Card,
    DeletedQuery,
    SavedQueries,
    SavedQuery,
    SQLFunctions,
    SQLResult,
    SQLTable,
    SQLTables,
    members_of,
)
from dashboard.api.answers import NotFound
from dashboard.api.routes import Name
from dashboard.api.routing import LEDGER, NO_SUCH_NUMBER, STORE, Answered, Body, Query, Routes, Spreadsheet
from dashboard.components.sql_cards import MAX_CARDS, answer_cards, has_pictures
from dashboard.state.context import current
from dashboard.state.sql_statements import MAX_BYTES, MAX_ROWS, STANDARD_ROWS, Answer
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
from db.sql.formats import csv_lines, json_lines, parquet_pieces
from db.sql.functions import by_kind
from db.sql.guard import MAX_CHARACTERS, RefusedSQL
from db.sql.places import TooManyQueries
from db.sql.runner import as_value
from workers.requests.members import expected, is_storable
from workers.requests.parameters import MAX_NUMBER, InvalidRequest

ALL_ROWS = 1 << 40
ALL_BYTES = 8 << 30
FORMS = {"csv": "text/csv", "json": "application/json", "parquet": "application/vnd.apache.parquet"}

STATUS: dict[type[Exception], int] = {
    InvalidRequest: 400,
    NotFound: 404,
    LedgerError: 503,
    RefusedSQL: 400,
    SQLStopped: 422,
    SQLFailed: 400,
    TooManyQueries: 429,
    NameTaken: 409,
    NoSuchQuery: 404,
    AtlasError: 503,
}
sql_api = Routes("sql_api", "", STATUS)
sql_downloads = Routes("sql_downloads", "", STATUS, any_query=True)
Statement = Annotated[
    str,
    Meta(min_length=1, examples=["SELECT label, count(*) AS images FROM images GROUP BY ALL"]),
    expected("an SQL statement", "The statement.", check=lambda text: bool(text.strip())),
]
QueryNumber = Annotated[int, Meta(ge=0, description="Number of a saved query.")]
_STOPPED = {422: "It exceeded its limit of time or memory and was stopped."}


class SQLQuery(Query):
    """A statement, and how much of its result is returned."""

    q: Statement
    limit: Annotated[int, Meta(ge=1, le=MAX_ROWS, description="Maximum number of rows.")] = STANDARD_ROWS
    cards: Annotated[
        int,
        Meta(
            ge=0,
            le=1,
            description=f"1 adds an image for each of the first {MAX_CARDS} rows that name an image, a patch, a map "
            "or an attack.",
        ),
    ] = 0
    images: Annotated[Name, Meta(description="Image set of rows that name none.")] = ""


@sql_api.get(
    "/api/sql",
    answers="The rows.",
    errors={
        400: "The statement is refused, or failed; the sentence says why.",
        **_STOPPED,
        429: "Too many statements are running, or more requests than one person may send in a minute.",
        **STORE,
    },
)
def run_sql(query: SQLQuery) -> SQLResult:
    """The first rows of an SQL statement.

    One reading statement in DuckDB's SQL over activations, images, predictions, attacks, maps and jobs. It runs in
    a separate process with limits of time and memory. `p.name` is the value of its parameter `$name`: a number if
    it can be read as one, text in quotes otherwise. Closing the connection cancels the statement.
    `/download/sql.csv`, `sql.json` and `sql.parquet` take the same statement and return all rows.
    """
    found = Answer.read(_run(query.q, rows=query.limit, size=MAX_BYTES))
    told: SQLResult = {
        "columns": [{"name": column.name, "type": column.kind} for column in found.columns],
        "rows": [list(row) for row in found.rows],
        "more": found.more,
        "seconds": found.seconds,
        "plan": found.plan,
        "pictures": has_pictures(found.names),
    }
    if query.cards:
        told["cards"] = [
            None if card is None else members_of(Card, card)
            for card in answer_cards(current(), found, image_set=query.images)
        ]
    return told


class SQLDownload(Spreadsheet, kw_only=True):
    """A statement, and how cells of CSV are written."""

    q: Statement


@sql_downloads.get(
    "/download/sql.<form>",
    answers="The file.",
    errors={
        400: "The statement is refused, or failed; the sentence says why.",
        404: "There is no such format.",
        **_STOPPED,
        **STORE,
    },
    media=tuple(FORMS.values()),
    text_errors=True,
)
def download_sql(
    form: Annotated[str, Meta(description="The format.", extra_json_schema={"enum": list(FORMS)})],
    query: SQLDownload,
) -> flask.Response:
    """All rows of an SQL statement as a file.

    `p.NAME` is the value of the parameter `$NAME`, as for /api/sql. `spreadsheet` applies to CSV.
    """
    if form not in FORMS:
        raise NotFound(f"expected sql.csv, sql.json or sql.parquet, got sql.{form}")
    result = _run(query.q, rows=ALL_ROWS, size=ALL_BYTES)
    try:
        batches = _whole(result)
        pieces: Iterator[Any] = (
            parquet_pieces(result.schema, batches)
            if form == "parquet"
            else csv_lines(result.schema, batches, spreadsheet=query.for_spreadsheet)
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


def _run(sql: str, *, rows: int, size: int) -> Result:
    values = {
        name.removeprefix("p."): as_value(text)
        for name, text in flask.request.args.items()
        if name.startswith("p.")
    }
    return current().sql.run(sql, values, rows=rows, size=size, gone=client_gone())


def client_gone() -> Callable[[], bool]:
    """A function that returns whether the client has disconnected; always False if the server does not know."""
    gone: Callable[[], bool] = flask.request.environ.get("waitress.client_disconnected", lambda: False)
    return gone


@sql_api.get("/api/sql/tables", answers="Tables and views.", errors=STORE)
def sql_tables() -> SQLTables:
    """Tables and views with their columns, comments and numbers of rows."""
    context = current()
    counts = row_counts(context.atlas, context.ledger)
    return {
        "tables": [members_of(SQLTable, asdict(one), {"rows": counts.get(one.name)}) for one in catalogue()]
    }


@sql_api.get("/api/sql/functions", answers="Names of DuckDB's functions by kind.")
def sql_functions() -> SQLFunctions:
    """Functions that a statement may call; all others are refused."""
    return members_of(SQLFunctions, by_kind())


@sql_api.get("/api/queries", answers="All saved queries.", errors=STORE)
def list_queries() -> SavedQueries:
    """Saved queries by name."""
    return {"queries": [members_of(SavedQuery, row) for row in saved_queries(current().ledger)]}


class QueryToSave(Body, kw_only=True):
    """A query to save under a name."""

    name: Annotated[
        str,
        Meta(min_length=1, max_length=MAX_NAME),
        expected(
            f"one line of 1 to {MAX_NAME:,} printable characters",
            check=lambda text: text.isprintable() and bool(text.strip()),
        ),
    ]
    description: Annotated[
        str,
        Meta(max_length=MAX_TEXT),
        expected(f"a string of at most {MAX_TEXT:,} characters", check=is_storable),
    ] = ""
    sql: Annotated[
        str,
        Meta(min_length=1, max_length=MAX_CHARACTERS),
        expected(
            f"a string of 1 to {MAX_CHARACTERS:,} characters",
            check=lambda text: is_storable(text) and bool(text.strip()),
        ),
    ]
    replace: bool = False


@sql_api.post(
    "/api/queries",
    answers={201: "The query is saved."},
    errors={409: "A query with this name exists, and `replace` is not true.", **LEDGER},
    examples={
        "": {
            "name": "Images by class",
            "description": "",
            "sql": "SELECT label, count(*) FROM images GROUP BY ALL",
            "replace": True,
        }
    },
)
def keep_query(body: QueryToSave) -> Answered[SavedQuery]:
    """Save a query under a name."""
    found = save_query(
        current().ledger,
        name=body.name.strip(),
        description=body.description.strip(),
        sql=body.sql.strip(),
        replace=body.replace,
    )
    return Answered(members_of(SavedQuery, found), 201)


@sql_api.delete("/api/queries/<int:query>", answers="It is deleted.", errors=NO_SUCH_NUMBER | LEDGER)
def remove_query(query: QueryNumber) -> DeletedQuery:
    """Delete a saved query."""
    if query > MAX_NUMBER:
        raise NoSuchQuery(f"there is no saved query {query}")
    delete_query(current().ledger, query)
    return {"query": query}
