"""The OpenAPI document, made from the descriptions of the routes and from the types that they read and answer."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, is_typeddict

import msgspec

from dashboard.api.answer_types import Error
from dashboard.api.routing import JSON, Route
from dashboard.state.address import Address
from workers.jobs.registry import JOB_KINDS

JSONSchema = dict[str, Any]
_REFERENCE = "#/components/schemas/"
_ABOUT = (
    "Queue long jobs, follow them, and fetch their results. Errors are `{"
    '"error": one sentence}`. If the dashboard has a password, send it with each request by HTTP Basic '
    "authentication, with any user name. Changes that a page of another site sends are refused."
)
_PASSWORD = "If there is a login: the dashboard's password, with any user name."
_WAIT = {"Retry-After": {"description": "Seconds to wait, if known.", "schema": {"type": "integer"}}}
# Generated clients name their classes by these components; other types are written out where they are used.
_COMPONENTS = (
    "Error", "Job", "Submitted", "WholeJob", "Item", "Map", "Attack", "AttackMap", "WholeAttack", "SQLResult",
    "SQLTable", "QueryToSave", "SavedQuery", "ImageImport", "UploadToBegin", "Upload", "ImageSet", "Dependents",
    "WholeImageSet",
)  # fmt: skip
_COMMON = {"401": "LoginNeeded", "403": "NotFromHere", "429": "TooOften"}
_INVALID = {
    400: "Something in the request is invalid; the sentence names it.",
    415: "The body is not application/json.",
}


def document(routes: Iterable[Route]) -> JSONSchema:
    """The whole document; component names and operation ids stay, since generated clients use them as names."""
    described = list(routes)
    kinds = list(JOB_KINDS.values())
    requests = [kind.request for kind in kinds]
    types = [
        kind
        for route in described
        for kind in (route.body, route.content, *route.error_types.values())
        if _has_members(kind)
    ]
    schemas = _Schemas([*requests, *types, Error], [*_COMPONENTS, *(kind.__name__ for kind in requests)])
    for kind in kinds:
        schema = schemas.components[kind.request.__name__]
        schema["properties"] = {"kind": {"const": kind.name}} | schema["properties"]
        schema["required"] = ["kind", *schema.get("required", ())]
    references = [{"$ref": _REFERENCE + kind.request.__name__} for kind in kinds]
    paths: dict[str, JSONSchema] = {}
    for route in described:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Convscope", "version": "1", "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas.components | {"JobRequest": {"oneOf": references}},
            "securitySchemes": {"password": {"type": "http", "scheme": "basic", "description": _PASSWORD}},
            "responses": _responses(schemas.of(Error)),
        },
        "security": [{}, {"password": []}],
    }


def _has_members(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or is_typeddict(kind))


class _Schemas:
    """Schemas of types with members: those in `names` are components, others are written where they are used."""

    def __init__(self, types: Iterable[type], names: Sequence[str]) -> None:
        wanted = list(dict.fromkeys(types))
        _, found = msgspec.json.schema_components(wanted, ref_template=_REFERENCE + "{name}")
        self._inline = {
            name: {part: value for part, value in schema.items() if part != "title"}
            for name, schema in found.items()
            if name not in names
        }
        self.components: dict[str, JSONSchema] = {name: self._written(found[name]) for name in names}

    def of(self, kind: Any) -> JSONSchema:
        """The schema of a type."""
        if _has_members(kind):
            found: JSONSchema = self._written({"$ref": _REFERENCE + kind.__name__})
            return found
        return msgspec.json.schema(kind)

    def _written(self, schema: Any) -> Any:
        """A schema in which inline types are written out."""
        if isinstance(schema, list):
            return [self._written(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        name = str(schema.get("$ref", "")).removeprefix(_REFERENCE)
        if name in self._inline:
            rest = {part: value for part, value in schema.items() if part != "$ref"}
            return self._written(self._inline[name] | rest)
        return {part: self._written(value) for part, value in schema.items()}


def _operation(route: Route, schemas: _Schemas) -> JSONSchema:
    found: JSONSchema = {"operationId": route.operation, "summary": route.summary}
    if route.description or route.address is not None:
        found["description"] = route.description or "The parameters are those of the page's address."
    parameters = [
        _parameter(name, schemas.of(kind), place="path", required=True) for name, kind in route.parts.items()
    ]
    query = {} if route.query is None else _members(route.query)
    if route.address is not None:
        parameters += [one for one in address_parameters(route.address) if one["name"] not in query]
    parameters += query.values()
    if parameters:
        found["parameters"] = parameters
    if route.body is not None or route.raw:
        found["requestBody"] = {"required": True, "content": _body(route, schemas)}
    found["responses"] = _answers(route, schemas) | _errors(route, schemas)
    return found


def _body(route: Route, schemas: _Schemas) -> JSONSchema:
    if route.raw:
        return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    reference = {"$ref": _REFERENCE + route.body.__name__}
    content = {"schema": schemas.of(route.body) if _has_members(route.body) else reference}
    if len(route.examples) > 1:
        content["examples"] = {name: {"value": value} for name, value in route.examples.items()}
    elif route.examples:
        (content["example"],) = route.examples.values()
    return {JSON: content}


def _members(kind: type[msgspec.Struct]) -> dict[str, JSONSchema]:
    """The parameters that the members of a query string's type are, by name."""
    (_, found), required = (
        msgspec.json.schema_components([kind], ref_template="{name}"),
        {one.encode_name for one in msgspec.structs.fields(kind) if one.required},
    )
    properties = found[kind.__name__]["properties"]
    return {
        name: _parameter(name, schema, place="query", required=name in required)
        for name, schema in properties.items()
    }


def _parameter(name: str, schema: Mapping[str, Any], *, place: str, required: bool) -> JSONSchema:
    described = {"description": schema["description"]} if "description" in schema else {}
    rest = {part: value for part, value in schema.items() if (part, value) != ("default", "")}
    rest.pop("description", None)
    return {"name": name, "in": place, "required": required, **described, "schema": rest}


def address_parameters(kind: type[Address]) -> list[JSONSchema]:
    """The choices in a page's address, as parameters."""
    found = []
    for one in dataclasses.fields(kind):
        schema: JSONSchema = {"type": "string"}
        if "low" in one.metadata:
            schema = {"type": "integer", "minimum": one.metadata["low"], "maximum": one.metadata["high"]}
        elif "choices" in one.metadata:
            schema["enum"] = list(one.metadata["choices"])
        found.append(_parameter(one.name, schema | {"default": one.default}, place="query", required=False))
    return found


def _answers(route: Route, schemas: _Schemas) -> JSONSchema:
    if route.media:
        content: JSONSchema = {
            media: {
                "schema": {
                    "type": "string",
                    **({} if media.startswith("text/") or media == JSON else {"format": "binary"}),
                }
            }
            for media in route.media
        }
    else:
        content = {JSON: {"schema": schemas.of(route.content)}}
    headers = (
        {"headers": {"Location": {"description": route.location, "schema": {"type": "string"}}}}
        if route.location
        else {}
    )
    return {
        str(status): {"description": text, **headers, "content": content}
        for status, text in route.answers.items()
    }


def _errors(route: Route, schemas: _Schemas) -> JSONSchema:
    invalid = {status: text for status, text in _INVALID.items() if _may_be(status, route)}
    found: JSONSchema = {
        status: {"$ref": f"#/components/responses/{name}"} for status, name in _COMMON.items()
    }
    for status, text in (invalid | dict(route.errors)).items():
        schema = {"schema": schemas.of(route.error_types.get(status, Error))}
        plain = {"text/plain": {"schema": {"type": "string"}}} if route.text_errors else {}
        headers = {"headers": _WAIT} if status == 429 else {}
        found[str(status)] = {"description": text, **headers, "content": {**plain, JSON: schema}}
    return dict(sorted(found.items()))


def _may_be(status: int, route: Route) -> bool:
    if status == 415:
        return route.body is not None
    return route.body is not None or route.query is not None


def _responses(error: JSONSchema) -> JSONSchema:
    """Answers of the access control, which comes before every route."""
    content = {JSON: {"schema": error}}
    login = {"description": "How to log in.", "schema": {"type": "string"}}
    return {
        "LoginNeeded": {
            "description": "There is a login, and the password is missing or wrong.",
            "headers": {"WWW-Authenticate": login},
            "content": content,
        },
        "NotFromHere": {
            "description": "A page of another site may have sent this, or the proxy did not name the user.",
            "content": content,
        },
        "TooOften": {
            "description": "More requests than one person may send in a minute, or too many wrong passwords.",
            "headers": _WAIT,
            "content": content,
        },
    }
