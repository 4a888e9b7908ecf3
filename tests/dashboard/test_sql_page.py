"""The SQL page's parts in Python: its address, its tables, charts and cards, and how statements end."""

from typing import Any

import pytest

from dashboard.components.sql_chart import Chart, chart_of, figure
from dashboard.components.sql_result import possible_views
from dashboard.components.sql_table import as_text, column_definitions, grid_rows, shortened
from dashboard.state.address import MAX_ADDRESS
from dashboard.state.sql_address import Asked, parameters_in
from dashboard.state.sql_statements import Answer, Column, Statements


def answer(columns: dict[str, str], *rows: tuple[Any, ...]) -> Answer:
    return Answer(tuple(Column(name, kind) for name, kind in columns.items()), rows, False, False, 0.1)


def test_parameters_in_strings_names_and_comments_are_none() -> None:
    sql = """SELECT $a, '$b it''s $c', "$d" -- $e
/* $f
*/ FROM t WHERE x = $g AND y = $a AND z = $1"""
    assert parameters_in(sql) == ["a", "g"]


def test_the_pickers_give_model_and_images_until_a_value_is_typed() -> None:
    asked = Asked.read("?model=m&images=s&q=SELECT+%24model%2C+%24images%2C+%24n&p.images=other&p.n=")
    assert asked.values() == {"model": "m", "images": "other", "n": ""}


def test_the_same_statement_keeps_its_view_and_another_does_not() -> None:
    asked = Asked.read("?model=m&images=s&q=SELECT+1&view=chart&x=a&limit=20&explain=1")
    assert asked.statement("SELECT 1", {}, {}) == "?model=m&images=s&q=SELECT+1&view=chart&x=a&limit=20"
    values = {"model": "m", "n": "3"}
    assert asked.statement("SELECT 2", values, {"view": "gallery"}) == (
        "?model=m&images=s&q=SELECT+2&p.n=3&view=gallery"
    )
    assert asked.with_view(view="", x="b c") == "?model=m&images=s&q=SELECT+1&x=b+c&limit=20&explain=1"
    with pytest.raises(ValueError, match=f"expected at most {MAX_ADDRESS:,} characters, encoded, got"):
        asked.statement("é" * 2000, {}, {})


def test_explain_is_added_once() -> None:
    assert Asked({"q": "SELECT 1", "explain": "1"}).run_sql == "EXPLAIN SELECT 1"
    assert Asked({"q": " explain SELECT 1", "explain": "1"}).run_sql == " explain SELECT 1"


def test_the_view_is_no_part_of_the_question() -> None:
    asked = Asked.read("?q=SELECT+1&p.n=2&view=chart&x=a&y=b&kind=bar&colour=c&limit=5")
    assert asked.question() == {"q": "SELECT 1", "p.n": "2", "limit": "5"}


@pytest.mark.parametrize(
    ("value", "kind", "there"),
    [(0.1234567891, "FLOAT", 0.1234568), (0.12345678912345, "DOUBLE", 0.123456789123), (7, "INTEGER", 7),
     ("NaN", "DOUBLE", "NaN"), (None, "DOUBLE", None), (1e300, "DOUBLE", 1e300)],
)  # fmt: skip
def test_numbers_have_the_digits_worth_reading(value: Any, kind: str, there: Any) -> None:
    assert shortened(value, kind) == there


def test_cells_are_numbers_or_text() -> None:
    found = answer(
        {"n": "DOUBLE", "t": "VARCHAR"}, (0.5, "a"), (None, None), ("Infinity", ["é", 1]), (2, True)
    )
    first, second = [column["field"] for column in column_definitions(found)]
    assert grid_rows(found) == [
        {first: 0.5, second: "a"},
        {first: None, second: ""},
        {first: "Infinity", second: '["é",1]'},
        {first: 2, second: "true"},
    ]


def test_the_same_columns_have_the_same_fields_and_others_have_others() -> None:
    def fields(columns: dict[str, str]) -> list[str]:
        return [column["field"] for column in column_definitions(answer(columns))]

    assert fields({"a": "INTEGER"}) == fields({"a": "INTEGER"})
    assert not {*fields({"a": "INTEGER"})} & {*fields({"a": "VARCHAR"}), *fields({"b": "INTEGER"})}


@pytest.mark.parametrize(
    ("kind", "number"),
    [("INTEGER", True), ("UBIGINT", True), ("HUGEINT", True), ("DECIMAL(18,3)", True), ("FLOAT", True),
     ("VARCHAR", False), ("INTEGER[]", False), ("INTERVAL", False), ("BOOLEAN", False), ("DATE", False)],
)  # fmt: skip
def test_columns_of_numbers_are_known_by_their_type(kind: str, number: bool) -> None:
    assert Column("a", kind).is_number is number


def test_a_chart_takes_the_first_suitable_columns_for_what_the_address_leaves_open() -> None:
    found = answer({"label": "VARCHAR", "n": "BIGINT", "m": "DOUBLE"}, ("a", 1, 0.5))
    assert chart_of(found, {}) == Chart("bar", "label", "n", "")
    assert chart_of(found, {"x": "n"}) == Chart("scatter", "n", "m", "")
    given = {"x": "gone", "y": "m", "kind": "pie", "colour": "label"}
    assert chart_of(found, given) == Chart("bar", "label", "m", "label")
    assert possible_views(answer({"label": "VARCHAR"}, ("a",)))["chart"] == (
        "this result has no column of numbers"
    )


def test_a_figure_has_a_trace_for_each_of_eleven_values_and_one_for_all_others() -> None:
    found = answer(
        {"x": "BIGINT", "y": "BIGINT", "c": "VARCHAR"}, *((n, n * n, f"g{n % 13}") for n in range(26))
    )
    drawn = figure(found, Chart("scatter", "x", "y", "c"))
    assert [trace.name for trace in drawn.data] == [*(f"g{n}" for n in range(11)), "all others"]
    assert list(drawn.data[0].x) == [0, 13]
    assert list(drawn.data[-1].y) == [121, 144, 576, 625]
    alone = figure(found, Chart("histogram", "y", "x", ""))
    assert [trace.type for trace in alone.data] == ["histogram"]
    assert list(alone.data[0].x) == [n * n for n in range(26)]


def test_a_tab_s_statement_ends_with_the_next_one_on_cancel_and_when_its_page_is_left() -> None:
    statements = Statements()
    first, other = statements.begin("tab"), statements.begin("another tab")
    assert not first()
    second = statements.begin("tab")
    assert first()
    assert not second()
    statements.cancel("tab")
    assert second()
    assert not other()
    third = statements.begin("tab")
    statements.leave("tab")
    assert third()
    assert statements.begin("tab")(), "a statement that arrives after its page was left"
    assert not other()


def test_text_of_values() -> None:
    assert [as_text(value) for value in (None, "a", False, {"a": [1, None]})] == [
        "",
        "a",
        "false",
        '{"a":[1,null]}',
    ]
