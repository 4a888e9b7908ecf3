"""Requests are read as the types that describe them; each error is one sentence that names the member."""

import re
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import UNSET, Meta, UnsetType

from workers.requests.members import expected, is_printable, is_storable, one_of, read_members
from workers.requests.parameters import InvalidRequest


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1), expected("a text of 1 to 10 characters")]
    size: Annotated[int, Meta(ge=0), expected("a whole number of bytes")]


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    files: Annotated[list[Leaf], Meta(min_length=1), expected("a list of files")]
    sort: Annotated[str, one_of(("", "name", "size"))] = ""
    limit: Annotated[int, Meta(ge=1, le=20)] = 5
    share: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    note: Annotated[str, Meta(max_length=1000), expected("a text", check=is_storable)] = ""
    title: Annotated[str | None, expected("printable text", check=is_printable)] = None
    numbers: Annotated[str | list[int], expected("whole numbers")] = ""
    deep: bool = False

    def __post_init__(self) -> None:
        if self.deep and self.limit == 1:
            raise InvalidRequest("limit: expected more than 1 of a deep request, got 1")


FILES = [{"name": "a", "size": 1}]


def test_a_valid_request_is_read_with_its_defaults() -> None:
    found = read_members({"files": FILES, "limit": 20, "title": "x", "kind": 7}, Asked, also=("kind",))
    assert (found.files[0].size, found.limit, found.sort, found.share, found.title) == (1, 20, "", UNSET, "x")
    assert read_members({"files": FILES, "sort": ""}, Asked).sort == ""
    assert read_members({"files": FILES, "title": None}, Asked).title is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "files: expected a list of files, got none"),
        ({"files": None}, "files: expected a list of files, got None"),
        ({"files": []}, "files: expected a list of files, got []"),
        ({"files": [1]}, "files[0]: expected an object with name and size, got 1"),
        ({"files": [*FILES, {"name": "a"}]}, "files[1].size: expected a whole number of bytes, got none"),
        ({"files": [{"size": -1, "name": "a"}]}, "files[0].size: expected a whole number of bytes, got -1"),
        ({"files": [{"size": True, "name": "a"}]}, "files[0].size: expected a whole number of bytes, got True"),
        ({"files": [{"size": 1, "name": ""}]}, "files[0].name: expected a text of 1 to 10 characters, got ''"),
        ({"files": [{"size": 1, "nmae": "a"}]}, "files[0]: expected members among name, size, got 'nmae'"),
        ({"files": [{"\ud800": 1, **FILES[0]}]}, "body: expected names of members, got half of a surrogate pair"),
        ({"file": FILES}, f"body: expected members among {', '.join(Asked.__struct_fields__)}, got 'file'"),
        ({"files": FILES, "sort": "nmae"}, "sort: expected one of name, size, got 'nmae'; did you mean 'name'?"),
        ({"files": FILES, "limit": 0}, "limit: expected a whole number from 1 to 20, got 0"),
        ({"files": FILES, "limit": "3"}, "limit: expected a whole number from 1 to 20, got '3'"),
        ({"files": FILES, "share": 1.5}, "share: expected a number from 0 to 1, got 1.5"),
        ({"files": FILES, "note": "\ud800"}, r"note: expected a text, got '\ud800'"),
        ({"files": FILES, "note": "a\0"}, r"note: expected a text, got 'a\x00'"),
        ({"files": FILES, "note": "x" * 1001}, "note: expected a text, got '" + "x" * 199 + "…"),
        ({"files": FILES, "title": "a\nb"}, r"title: expected printable text, got 'a\nb'"),
        ({"files": FILES, "numbers": [1, "b"]}, "numbers: expected whole numbers, got [1, 'b']"),
        ({"files": FILES, "deep": 1}, "deep: expected true or false, got 1"),
        ({"files": FILES, "deep": True, "limit": 1}, "limit: expected more than 1 of a deep request, got 1"),
    ],
)  # fmt: skip
def test_an_invalid_request_is_one_sentence_that_names_the_member(
    given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{re.escape(sentence)}$"):
        read_members(given, Asked)


class Shown(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=20)] = 5
    clip: Annotated[float, Meta(ge=50, le=100)] = 99.5
    high: Annotated[float, Meta(ge=0, le=1e30)] | UnsetType = UNSET


def test_a_query_string_is_converted_from_text() -> None:
    found = read_members({"limit": "7", "clip": "60.5"}, Shown, from_text=True)
    assert (found.limit, found.clip, found.high) == (7, 60.5, UNSET)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("limit", "0"), ("limit", "many"), ("limit", " 5"), ("limit", "5.5"), ("limit", "9" * 5000), ("limit", ""),
        ("limit", "٣"), ("clip", "nan"), ("clip", "inf"), ("clip", "10"), ("high", "-1"), ("high", "null"),
    ],
)  # fmt: skip
def test_text_outside_the_number_range_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{name}: expected a (whole )?number from .*, got '"):
        read_members({name: text}, Shown, from_text=True)


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(
        InvalidRequest, match="query: expected parameters among limit, clip, high, got 'limti'"
    ):
        read_members({"limti": "1"}, Shown, noun="query", parts="parameters", from_text=True)
