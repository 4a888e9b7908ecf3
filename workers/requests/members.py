"""Reads requests: JSON objects and query strings, as the `msgspec.Struct` types that describe them.

A type lists the members with their limits; the OpenAPI document is made from it, and `read_members` checks a
request against it. Its errors are one sentence that names the member, what is valid, and what was given.
"""

import functools
import re
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from db.suggestions import hint
from workers.requests.parameters import InvalidRequest

Members = TypeVar("Members", bound=msgspec.Struct)
_SHOWN = 200  # characters shown of an invalid value
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def expected(
    what: str, description: str = "", *, check: Callable[[Any], bool] | None = None, **schema: Any
) -> Meta:
    """Annotation of a member: `what` completes "expected …" in the error for an invalid value.

    `check` says whether a value is valid, where its type and limits do not say all; it applies to the members
    of a request itself, not to those of objects in it. `description` and `schema` (members of JSON Schema) go
    into the OpenAPI document.
    """
    return Meta(
        description=description or None,
        extra_json_schema=schema or None,
        extra={"expected": what} | ({} if check is None else {"check": check}),
    )


def one_of(choices: Collection[str], description: str = "") -> Meta:
    """Annotation of a text with a fixed set of values."""
    shown = [choice for choice in choices if choice]
    return Meta(
        description=description or None,
        extra_json_schema={"enum": list(choices)},
        extra={"expected": f"one of {', '.join(shown)}", "check": choices.__contains__, "choices": shown},
    )


def is_printable(text: str) -> bool:
    """Whether a text is one line of printable characters."""
    return text.isprintable()


def is_storable(text: str) -> bool:
    """Whether the stores can keep a text: PostgreSQL keeps no NUL, and half a surrogate pair has no UTF-8."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def read_members(
    given: Mapping[str, Any],
    kind: type[Members],
    *,
    noun: str = "body",
    parts: str = "members",
    also: tuple[str, ...] = (),
    from_text: bool = False,
) -> Members:
    """The request that the members in `given` make.

    Args:
        noun, parts: what an error about an unknown member calls the whole and its parts.
        also: members that are allowed but not read, named first in that error.
        from_text: the values are text, as in a query string, and are converted.

    Raises:
        InvalidRequest: a member is unknown, missing or invalid.
    """
    known = {name: value for name, value in given.items() if name not in also}
    names = _types(kind)
    for name in known:
        if name not in names:
            raise InvalidRequest(f"{noun}: expected {parts} among {', '.join((*also, *names))}, got {name!r}")
    try:
        request = msgspec.convert(known, kind, strict=not from_text)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InvalidRequest):
            raise error.__cause__ from None
        raise InvalidRequest(_sentence(str(error), known, kind)) from None
    except UnicodeEncodeError:  # of a member of an object in the request
        raise InvalidRequest(f"{noun}: expected names of {parts}, got half of a surrogate pair") from None
    for name in known:
        value = getattr(request, name)
        for meta in _metas(names[name]):
            check = (meta.extra or {}).get("check")
            if check is not None and value is not None and not check(value):
                raise InvalidRequest(_wrong(name, names[name], known[name]))
    return request


@functools.cache
def _types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a Struct's members by name, a queue last."""
    found = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    return {name: found[name] for name in sorted(found, key=lambda name: name == "queue")}


def _sentence(error: str, given: Any, kind: Any) -> str:
    """One sentence, in our terms, for an error that msgspec reported."""
    _, _, path = error.partition(" - at `$")
    place, value = "", given
    for name, number in _STEP.findall(path.rstrip("`")):
        struct = _struct(kind)
        inner = _types(struct)[name] if name and struct else next(iter(get_args(_plain(kind))), None)
        if struct is None and _struct(inner) is None:
            break  # an element of a list: the list is named
        kind, value = inner, value[name or int(number)]
        place += f".{name}" if name and place else name or f"[{number}]"
    struct = _struct(kind)
    if isinstance(value, Mapping) and struct is not None:
        types = _types(struct)
        unknown = next((name for name in value if name not in types), None)
        if unknown is not None:
            return f"{place}: expected members among {', '.join(types)}, got {unknown!r}"
        missing = re.search(r"missing required field `(\w+)`", error)
        if missing is None:
            raise AssertionError(f"no member is named in {error!r}")
        name = missing[1]
        return f"{place}{'.' if place else ''}{name}: expected {_expected(types[name])}, got none"
    return _wrong(place, kind, value)


def _wrong(place: str, kind: Any, value: Any) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    choices = next(
        (meta.extra["choices"] for meta in _metas(kind) if meta.extra and "choices" in meta.extra), ()
    )
    return f"{place}: expected {_expected(kind)}, got {shown}{hint(value, choices)}"


def _expected(kind: Any) -> str:
    metas = _metas(kind)
    for meta in metas:
        if meta.extra and "expected" in meta.extra:
            return str(meta.extra["expected"])
    limits = {
        name: limit
        for meta in metas
        for name in ("ge", "le", "max_length")
        if (limit := getattr(meta, name)) is not None
    }
    plain = _plain(kind)
    if plain is int and {"ge", "le"} <= limits.keys():
        return f"a whole number from {limits['ge']} to {limits['le']}"
    if plain is float and {"ge", "le"} <= limits.keys():
        return f"a number from {limits['ge']:g} to {limits['le']:g}"
    if plain is bool:
        return "true or false"
    if plain is str and "max_length" in limits:
        return f"a string of at most {limits['max_length']:,} characters"
    if _struct(kind) is not None:
        return f"an object with {' and '.join(_types(plain))}"
    raise AssertionError(f"{kind} does not say what is expected: see `expected`")


def _metas(kind: Any) -> list[Meta]:
    """The annotations of a type, also of the one type that a union allows besides None or UNSET."""
    own = list(getattr(kind, "__metadata__", ()))
    inner = kind.__origin__ if own else kind
    return own + ([] if (one := _besides_none(inner)) is inner else _metas(one))


def _plain(kind: Any) -> Any:
    """A type without its annotations, None and UNSET."""
    inner = kind.__origin__ if hasattr(kind, "__metadata__") else kind
    return inner if (one := _besides_none(inner)) is inner else _plain(one)


def _besides_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        others = [one for one in get_args(kind) if one not in (type(None), msgspec.UnsetType)]
        if len(others) == 1:
            return others[0]
    return kind


def _struct(kind: Any) -> Any:
    plain = _plain(kind)
    return plain if isinstance(plain, type) and issubclass(plain, msgspec.Struct) else None
