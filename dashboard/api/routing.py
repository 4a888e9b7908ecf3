"""Routes that describe themselves: what they read and answer, from the types in the signatures of their functions.

`Routes` is a list of routes with one URL prefix. A function that answers takes the parts of the path by name, the
query string as `query` and the JSON object of the body as `body`; its annotations are the types that both are
checked against (see `workers.requests.members`). It returns the content of the JSON answer, `Answered` where the
status differs from 200, or a response, for instance a file. The first line of its docstring is the summary in the
OpenAPI document (`dashboard.api.openapi`), and the rest is the description.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import flask
import msgspec

from dashboard.api.answers import answer, error_response, json_body
from dashboard.state.address import Address
from workers.requests.members import one_of, read_members
from workers.requests.parameters import InvalidRequest

Content = TypeVar("Content")
View = TypeVar("View", bound=Callable[..., Any])
JSON = "application/json"
# Descriptions of errors that many routes share, by status.
NO_SUCH_NUMBER = {404: "There is nothing with that number."}
GONE = {410: "The file of the result is gone or damaged."}
LEDGER = {503: "The ledger does not respond; nothing was changed."}
STORE = {503: "A store does not respond."}
DOWNLOAD_ERRORS = {
    400: "A parameter is invalid.",
    404: "Nothing is selected by the parameters.",
    **GONE,
    **STORE,
}


class Query(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Parameters of a query string."""


class Spreadsheet(Query):
    """How cells of CSV are written."""

    spreadsheet: Annotated[
        str,
        one_of(("0", "1"), "1 adds an apostrophe before text that a spreadsheet would read as a formula."),
    ] = "0"

    @property
    def for_spreadsheet(self) -> bool:
        """Whether cells that look like formulas are escaped."""
        return self.spreadsheet == "1"


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Members of a JSON object in a request's body."""


@dataclass(frozen=True)
class Answered(Generic[Content]):
    """A JSON answer with its status and the address of what the request made, for the header `Location`."""

    content: Content
    status: int
    location: str = ""


@dataclass(frozen=True, kw_only=True)
class Route:
    """What is known of a route.

    Attributes:
        path: as in the OpenAPI document, `{name}` for a part of it.
        parts: types of these parts, by name.
        query: type of the query string; None if it has no parameters.
        address: the page whose address the query string may be, in addition to `query`.
        body: type of the JSON body; None if there is none.
        raw: whether the body is a file.
        examples: of the body, by name.
        answers: descriptions of successful answers, by status.
        content: type of the JSON answer; None if it is a file.
        media: content types of a file.
        location: what is at the address in the answer's `Location`; empty if it has none.
        errors: descriptions of errors, by status.
        error_types: types of error answers that say more than `Error`, by status.
        text_errors: whether errors are text, if the store cannot be read or nothing is found.
    """

    method: str
    path: str
    operation: str
    summary: str
    description: str
    parts: Mapping[str, Any]
    query: type[msgspec.Struct] | None
    address: type[Address] | None
    body: Any
    raw: bool
    examples: Mapping[str, Any]
    answers: Mapping[int, str]
    content: Any
    media: tuple[str, ...]
    location: str
    errors: Mapping[int, str]
    error_types: Mapping[int, Any]
    text_errors: bool


@dataclass(frozen=True)
class Routes:
    """Routes below one prefix, with the HTTP statuses of the errors that they raise.

    Attributes:
        any_query: unknown parameters of the query string are ignored: it is the address of a page.
        described: the routes so far.
    """

    name: str
    prefix: str
    statuses: Mapping[type[Exception], int]
    any_query: bool = False
    blueprint: flask.Blueprint = field(init=False)
    described: list[Route] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Make the blueprint, which answers errors with their sentence."""
        object.__setattr__(self, "blueprint", flask.Blueprint(self.name, __name__, url_prefix=self.prefix))
        for kind, status in self.statuses.items():
            self.blueprint.register_error_handler(kind, functools.partial(error_response, status=status))

    def get(self, path: str, **described: Any) -> Callable[[View], View]:
        """A route that reads; see `route`."""
        return self.route("GET", path, **described)

    def post(self, path: str, **described: Any) -> Callable[[View], View]:
        """A route that makes or changes something; see `route`."""
        return self.route("POST", path, **described)

    def put(self, path: str, **described: Any) -> Callable[[View], View]:
        """A route that stores the body; see `route`."""
        return self.route("PUT", path, **described)

    def delete(self, path: str, **described: Any) -> Callable[[View], View]:
        """A route that removes something; see `route`."""
        return self.route("DELETE", path, **described)

    def route(
        self,
        method: str,
        path: str,
        *,
        answers: str | Mapping[int, str] = "",
        errors: Mapping[int, str] | None = None,
        error_types: Mapping[int, Any] | None = None,
        text_errors: bool = False,
        address: type[Address] | None = None,
        raw: bool = False,
        examples: Mapping[str, Any] | None = None,
        media: tuple[str, ...] = (),
        location: str = "",
    ) -> Callable[[View], View]:
        """Add a route at a Flask `path`; the other arguments are those of `Route`.

        `answers` may be the description of the answer with status 200.
        """

        def add(view: View) -> View:
            summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n\n")
            types = get_type_hints(view, include_extras=True)
            content = types.pop("return")
            query = types.pop("query") if is_query(types.get("query")) else None
            body = types.pop("body", None)
            if get_origin(content) is Answered:
                (content,) = get_args(content)
            self.described.append(
                Route(
                    method=method,
                    path=re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", self.prefix + path),
                    operation=view.__name__,
                    summary=" ".join(summary.split()).removesuffix("."),
                    description=" ".join(description.split()),
                    parts=types,
                    query=query,
                    address=address,
                    body=body,
                    raw=raw,
                    examples=examples or {},
                    answers={200: answers} if isinstance(answers, str) else answers,
                    content=None if media else content,
                    media=media,
                    location=location,
                    errors=errors or {},
                    error_types=error_types or {},
                    text_errors=text_errors,
                )
            )
            responds = _responding(view, query, body, any_query=self.any_query)
            self.blueprint.add_url_rule(path, view_func=responds, methods=[method])
            return view

        return add


def is_query(kind: Any) -> bool:
    """Whether a type describes a query string; a part of a path may be called `query`, too."""
    return isinstance(kind, type) and issubclass(kind, Query)


def _responding(view: Callable[..., Any], query: Any, body: Any, *, any_query: bool) -> Callable[..., Any]:
    """A Flask view that reads the request, calls `view` and makes a response of its answer."""

    @functools.wraps(view)
    def respond(**parts: Any) -> flask.Response:
        given = parts
        if body is not None:
            members = json_body()
            is_struct = isinstance(body, type) and issubclass(body, msgspec.Struct)
            given |= {"body": read_members(members, body) if is_struct else members}
        asked = read_query(query or Query, any_query=any_query)
        if query is not None:
            given |= {"query": asked}
        found = view(**given)
        if isinstance(found, flask.Response):
            return found
        if isinstance(found, Answered):
            headers = {"Location": found.location} if found.location else {}
            return answer(found.content, found.status, **headers)
        return answer(found)

    return respond


def read_query(kind: type[msgspec.Struct], *, any_query: bool = False) -> Any:
    """The parameters of the current query string; those of a SQL statement, `p.NAME`, are left out.

    Raises:
        InvalidRequest: a parameter is invalid or missing, or unknown unless `any_query`.
    """
    names = {found.encode_name for found in msgspec.structs.fields(kind)}
    given = {
        name: text
        for name, text in flask.request.args.items()
        if name in names or not (any_query or name.startswith("p."))
    }
    if given and not names:
        raise InvalidRequest(f"query: expected no parameters, got {next(iter(given))!r}")
    return read_members(given, kind, noun="query", parts="parameters", from_text=True)
