"""Checks user SQL: a single statement that only reads existing tables and views.

DuckDB itself is configured to touch nothing else (see `db.sql.process`). This check comes first and refuses
with a readable message. It works on the syntax tree from DuckDB's own parser, so comments, quotes and letter
case cannot hide anything.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from db.sql.functions import AGGREGATES, BY_NAME, FUNCTIONS, TABLE_FUNCTIONS, near
from db.suggestions import hint

MAX_CHARACTERS = 100_000
QUERY_NODES = ("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE")
_WRITES = "only reading is allowed"
_OTHERS = {
    "PRAGMA": "to list tables and columns, use SHOW TABLES or DESCRIBE",
    "CALL": "procedures are not available",
    "SET": "settings are fixed",
    "VARIABLE_SET": "write the value into the statement, or use a parameter: $name",
    "LOAD": "extensions are not available",
    "ATTACH": "other databases cannot be opened",
    "DETACH": "other databases cannot be opened",
    "COPY": "download the result instead",
    "COPY_DATABASE": "download the result instead",
    "EXPORT": "download the result instead",
    "PREPARE": "use a parameter for the value instead: $name",
    "EXECUTE": "use a parameter for the value instead: $name",
    "TRANSACTION": _WRITES,
    "MULTI": "list the values of a PIVOT: PIVOT … ON column IN ('a', 'b')",
}


class RefusedSQL(ValueError):
    """The statement is refused; the message is one sentence."""


@dataclass(frozen=True)
class Checked:
    """A statement that may run: its text, the tables and views it names, and its parameters.

    `plan` is EXPLAIN or EXPLAIN ANALYZE if the statement only requests its plan, otherwise empty.
    """

    sql: str
    names: frozenset[str]
    parameters: tuple[str, ...]
    plan: str = ""


def check(connection: duckdb.DuckDBPyConnection, sql: str, tables: Collection[str]) -> Checked:
    """Check a statement without running it.

    Args:
        tables: names of the existing tables and views, in lower case.

    Raises:
        RefusedSQL: there is no statement or more than one, it does not only read, or it names something that
            does not exist.
    """
    if len(sql) > MAX_CHARACTERS:
        raise RefusedSQL(f"the statement has {len(sql):,} characters; the limit is {MAX_CHARACTERS:,}")
    if "\0" in sql:
        raise RefusedSQL("the statement contains a NUL character")
    plan, text = _without_explain(sql)
    statements = _statements(connection, text)
    if not statements:
        raise RefusedSQL("the statement is empty: write a SELECT")
    if len(statements) > 1:
        raise RefusedSQL(f"these are {len(statements)} statements: run one at a time")
    try:
        kind = statements[0].type.name
    except (TypeError, ValueError):  # a type that DuckDB's bindings have no name for
        kind = "THIS"
    if kind != "SELECT":
        raise RefusedSQL(f"{kind.replace('_', ' ')} is refused: {_OTHERS.get(kind, _WRITES)}")
    tree = _tree(connection, text)
    names = set()
    inner = {name.lower() for name in _inner_names(tree)}
    for node in _nodes(tree):
        what = str(node.get("type", ""))
        if what.endswith("_NODE") and what not in QUERY_NODES:  # inside a WITH clause
            raise RefusedSQL(f"{what.removesuffix('_NODE').removesuffix('_QUERY')} is refused: {_WRITES}")
        if what == "BASE_TABLE" or (what == "SHOW_REF" and node.get("show_type") == "SHOW"):
            names |= _table(node, tables, inner)
        elif what == "SHOW_REF" and node.get("show_type") == "SHOW_SPECIAL":
            names |= set(tables)
        elif what == "TABLE_FUNCTION":
            _rows(node)
        if node.get("function_name"):
            _function(node)
    return Checked(text, frozenset(names), tuple(sorted(statements[0].named_parameters)), plan)


def _without_explain(sql: str) -> tuple[str, str]:
    """Split off a leading EXPLAIN or EXPLAIN ANALYZE."""
    words: list[tuple[int, int]] = []
    tokens = duckdb.tokenize(sql)
    for place, (start, kind) in enumerate(tokens[:8]):
        if kind == duckdb.token_type.comment:
            continue
        end = tokens[place + 1][0] if place + 1 < len(tokens) else len(sql)
        words.append((start, end))
    named = [_word(sql, *word) for word in words[:2]]
    if not named or named[0] != "EXPLAIN":
        return "", sql
    last = words[1 if named[1:] == ["ANALYZE"] else 0]
    return " ".join(named[: 1 + (named[1:] == ["ANALYZE"])]), sql[last[0] :][len(_plain(sql, *last)) :]


def _plain(sql: str, start: int, end: int) -> str:
    letters = sql[start:end]
    return letters[: next((i for i, letter in enumerate(letters) if not letter.isalpha()), len(letters))]


def _word(sql: str, start: int, end: int) -> str:
    return _plain(sql, start, end).upper()


def _statements(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    try:
        return list(connection.extract_statements(sql))
    except duckdb.Error as error:
        raise RefusedSQL(one_sentence(error)) from error


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    found = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()
    tree = json.loads(found[0]) if found else {"error": True}
    if tree["error"]:
        raise RefusedSQL(str(tree.get("error_message", "this statement cannot be checked")))
    return tree["statements"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects of a tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _inner_names(tree: Any) -> Iterator[str]:
    """Names that the statement gives to its own subqueries: WITH name AS (…)."""
    for node in _nodes(tree):
        cte = node.get("cte_map")
        if isinstance(cte, dict):
            yield from (entry["key"] for entry in cte.get("map", ()))
        if node.get("type") == "RECURSIVE_CTE_NODE":
            yield node["cte_name"]


def _table(node: dict[str, Any], tables: Collection[str], inner: Collection[str]) -> set[str]:
    """The readable tables that a node names: one, all for information_schema, none for a subquery of the statement."""
    name = str(node.get("table_name", "")).lower()
    schema = str(node.get("schema_name", "")).lower()
    if schema == "information_schema" and not node.get("catalog_name"):
        return set(tables)
    if schema or node.get("catalog_name"):
        raise RefusedSQL(f"{schema or node['catalog_name']}.{name}: name the table without a schema")
    if name in tables:
        return {name}
    if name in inner:
        return set()
    there = sorted({*tables, *inner})
    raise RefusedSQL(f"there is no table {name!r}: there are {', '.join(there)}{hint(name, there)}")


def _rows(node: dict[str, Any]) -> None:
    name = str((node.get("function") or {}).get("function_name", "")).lower()
    if name not in TABLE_FUNCTIONS:
        raise RefusedSQL(f"{name}() is refused: FROM accepts tables and {', '.join(TABLE_FUNCTIONS)}")


def _function(node: dict[str, Any]) -> None:
    """Check by name alone, ignoring the schema: `label.upper()` has the schema `label`."""
    name = str(node["function_name"]).lower()
    if name not in FUNCTIONS:
        raise RefusedSQL(_not_listed(name))
    if name in BY_NAME:
        _aggregate(name, node.get("arguments") or [])


def _not_listed(name: str) -> str:
    like = near(name)
    return (
        f"{name}() is refused: it is not in the list of allowed functions"
        f"{', similar ones are ' + ', '.join(like) if like else ''}"
        " (`convscope sql --functions`, /api/sql/functions)"
    )


def _aggregate(name: str, arguments: list[dict[str, Any]]) -> None:
    """Check the aggregate named in the second argument: it must be a literal, so that it is known before running."""
    second = arguments[1] if len(arguments) > 1 else {}
    literal = second.get("expression", {}).get("literal") or {}
    text = literal.get("text") if literal.get("kind") == "STRING" and not second["name"] else None
    if not isinstance(text, str) or text.lower() not in AGGREGATES:
        given = f"got {text!r}" if isinstance(text, str) else "got an expression"
        raise RefusedSQL(
            f"{name}() is refused: expected the name of an aggregate such as 'sum', in quotes, {given}"
            " (`convscope sql --functions`, /api/sql/functions)"
        )


NEEDS_MORE_MEMORY = "the query exceeds its memory limit"


def one_sentence(error: BaseException) -> str:
    """DuckDB's message in one line, without its excerpt of the statement; memory and nesting errors are reworded."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(line for line in lines if not line.startswith(("LINE ", "^")))
    if isinstance(error, MemoryError) or "Out of Memory Error" in told or "std::bad_alloc" in told:
        return NEEDS_MORE_MEMORY
    if isinstance(error, RecursionError) or "expression depth limit" in told:
        return "the statement is nested too deeply: write it with fewer levels, for example with WITH"
    return told[:1000] or type(error).__name__
