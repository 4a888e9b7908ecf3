"""The list of functions that user SQL may call, against the pinned DuckDB, and the statements that must keep to it."""

import itertools
import json
from collections.abc import Iterator

import duckdb
import pytest

from db.sql.catalog import catalogue, prepare_empty
from db.sql.examples import EXAMPLES
from db.sql.functions import AGGREGATES, FUNCTIONS, OPERATORS, SCALARS, TABLE_FUNCTIONS, WINDOWS, near
from db.sql.guard import RefusedSQL, check
from db.sql.views import VIEWS

# Not on the list: they read files, evaluate text, show or change state outside the statement, sleep, or are
# internal to DuckDB.
_LEFT_OUT = """
    arrow_scan arrow_scan_dumb glob pandas_scan parquet_bloom_probe parquet_file_metadata parquet_full_metadata
    parquet_kv_metadata parquet_metadata parquet_scan parquet_schema python_arrow_scan python_map_function
    read_blob read_csv read_csv_auto read_duckdb read_json read_json_auto read_json_objects
    read_json_objects_auto read_ndjson read_ndjson_auto read_ndjson_objects read_parquet read_single_csv_file
    read_single_json_file read_single_parquet_file read_text seq_scan sniff_csv

    get_type histogram_values json_deserialize_sql json_execute_serialized_sql json_serialize_plan
    json_serialize_sql make_type query query_table replace_type summary

    pg_sleep sleep_ms

    checkpoint create_external_resource currval deregister_external_resource destroy_external_resource
    disable_logging disable_profiling enable_logging enable_profiling force_checkpoint getvariable nextval
    register_external_resource register_external_resource_type setval truncate_duckdb_logs write_log

    col_description current_connection_id current_query current_query_id current_schemas current_setting
    current_transaction_id format_pg_type format_type generate_subscripts get_block_size in_search_path
    map_to_pg_oid obj_description parse_duckdb_log_message shobj_description txid_current which_secret

    bitstring_byte_comparable can_cast_implicitly combine combine_aggr constant_or_null create_sort_key
    decimal_division finalize hive_partition_component icu_calendar_names icu_sort_key index_key
    is_histogram_other_bin json_copy_strftime_if_date json_copy_strftime_if_timestamp json_group_structure
    md5_number_lower md5_number_upper normalized_interval remap_struct repeat_row stats test_all_types
    test_vector_types timetz_byte_comparable to_aggregate_state variant_bytes_to_variant variant_comparator
    variant_to_parquet_variant vector_type
    """
LEFT_OUT = _LEFT_OUT.split()
LEFT_OUT_STARTS = ("__internal", "collate_", "duckdb_", "has_", "icu_collate_", "inet_", "pg_", "pragma_")
PARSED_OTHERWISE = ("__between", "__cast", "is distinct from", "is not distinct from")  # syntax, not calls


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as found:
        prepare_empty(found)
        yield found


def functions(connection: duckdb.DuckDBPyConnection, *kinds: str) -> set[str]:
    sql = "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN (SELECT unnest($kinds))"
    return {name for (name,) in connection.execute(sql, {"kinds": list(kinds)}).fetchall()}


def test_every_function_of_the_pinned_duckdb_is_on_the_list_or_left_out(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Functions of a newer DuckDB fail here until someone has read what they do; until then they are refused."""
    there = functions(connection, "scalar", "aggregate", "window", "macro", "table", "table_macro")
    known = FUNCTIONS | set(LEFT_OUT) | set(PARSED_OTHERWISE)
    assert {name for name in there - known if not name.startswith(LEFT_OUT_STARTS)} == set()
    assert FUNCTIONS - there - {"count_star"} == set(), "there is no such function"
    assert not FUNCTIONS & set(LEFT_OUT)
    assert not [name for name in FUNCTIONS if name.startswith(LEFT_OUT_STARTS)]


def test_the_kinds_are_duckdbs(connection: duckdb.DuckDBPyConnection) -> None:
    assert functions(connection, "aggregate") >= AGGREGATES
    assert functions(connection, "window") >= WINDOWS
    assert functions(connection, "scalar", "macro") >= SCALARS | OPERATORS
    rows = functions(connection, "table", "table_macro")
    alone = functions(connection, "scalar", "aggregate", "window", "macro")
    assert (SCALARS | OPERATORS | AGGREGATES | WINDOWS) & (rows - alone) == set()
    assert set(TABLE_FUNCTIONS) <= rows


def test_macros_on_the_list_call_functions_on_the_list(connection: duckdb.DuckDBPyConnection) -> None:
    sql = "SELECT function_name, macro_definition FROM duckdb_functions() WHERE function_type = 'macro'"
    read = 0
    for name, body in connection.execute(sql).fetchall():
        if name.lower() in FUNCTIONS:
            check(connection, f"SELECT {body}", ())
            read += 1
    assert read > 40


def test_session_dependent_functions_are_left_out(connection: duckdb.DuckDBPyConnection) -> None:
    """DuckDB itself lists the functions with side effects; of those, random numbers and `error` are on the list."""
    sql = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE has_side_effects"
    found = {name for (name,) in connection.execute(sql).fetchall()}
    assert found & FUNCTIONS == {
        "error", "gen_random_uuid", "random", "setseed", "uuid", "uuidv4", "uuidv7",
    }  # fmt: skip


# Each position in a statement where an expression can occur.
PLACES = [
    "SELECT {f}",
    "SELECT {f}::INTEGER, TRY_CAST({f} AS VARCHAR)",
    "SELECT upper({f})",
    "SELECT [{f}], {{'a': {f}}}, MAP {{1: {f}}}, ({f}, 1)",
    "SELECT [{f}][1], [1][{f}], [1][{f}:2], {{'a': {f}}}.a",
    "SELECT [{f} FOR x IN [1]], [x FOR x IN [1] IF {f}]",
    "SELECT list_transform([1], lambda x: {f})",
    "SELECT CASE WHEN {f} THEN 1 ELSE 2 END, CASE 1 WHEN {f} THEN {f} END",
    "SELECT coalesce(NULL, {f}), TRY({f}), {f} IS NULL, NOT {f}, -{f}, {f} || 'x'",
    "SELECT {f} BETWEEN 1 AND 2, 1 BETWEEN {f} AND 2, 1 IN (1, {f}), 'x' LIKE {f}, 'x' SIMILAR TO {f}",
    "SELECT {f} COLLATE NOCASE, {f} AT TIME ZONE 'UTC', EXTRACT(year FROM {f}), INTERVAL ({f}) DAY",
    "SELECT max({f}), max(1) FILTER ({f}), list(1 ORDER BY {f}), quantile_cont({f}, 0.5)",
    "SELECT sum(1) OVER (PARTITION BY {f} ORDER BY {f} ROWS BETWEEN {f} PRECEDING AND {f} FOLLOWING)",
    "SELECT lag(1, {f}, {f}) OVER (), first(1 ORDER BY {f}) OVER w FROM images WINDOW w AS (ORDER BY {f})",
    "SELECT DISTINCT ON ({f}) label FROM images",
    "SELECT label FROM images WHERE {f}",
    "SELECT count(*) FROM images GROUP BY {f}",
    "SELECT count(*) FROM images GROUP BY GROUPING SETS (({f}), ())",
    "SELECT count(*) FROM images HAVING {f}",
    "SELECT label FROM images QUALIFY row_number() OVER () = {f}",
    "SELECT label FROM images ORDER BY {f}",
    "SELECT label FROM images LIMIT {f}",
    "SELECT label FROM images LIMIT 1 OFFSET {f}",
    "SELECT * REPLACE ({f} AS label) FROM images",
    "SELECT COLUMNS(lambda c: {f}) FROM images",
    "SELECT COLUMNS(*)::VARCHAR || {f} FROM images",
    "SELECT unnest([{f}])",
    "SELECT (SELECT {f}), EXISTS (SELECT {f}), 1 = ANY (SELECT {f}), ARRAY(SELECT {f})",
    "SELECT * FROM range({f})",
    "SELECT * FROM unnest([{f}])",
    "SELECT * FROM images JOIN runs ON {f}",
    "SELECT * FROM images ASOF JOIN runs ON images.image_id >= {f}",
    "SELECT * FROM images, LATERAL (SELECT {f})",
    "SELECT * FROM (VALUES ({f})) t(a)",
    "VALUES ({f})",
    "FROM images SELECT {f}",
    "SELECT 1 UNION SELECT {f}",
    "WITH a AS (SELECT {f}) FROM a",
    "WITH RECURSIVE a AS (SELECT 1 AS n UNION ALL SELECT {f} FROM a) FROM a",
    "FROM (UNPIVOT images ON ({f}) AS a)",
    "FROM (PIVOT images ON split IN ('a') USING max({f}))",
    "SELECT * FROM (SUMMARIZE SELECT {f})",
    "DESCRIBE SELECT {f}",
    "EXPLAIN SELECT {f}",
    "EXPLAIN ANALYZE SELECT {f}",
]


@pytest.mark.parametrize("place", PLACES)
def test_functions_are_checked_in_every_position(connection: duckdb.DuckDBPyConnection, place: str) -> None:
    tables = [one.name for one in catalogue()]
    harmless = place.format(f="pi()")
    check(connection, harmless, tables)
    calls = ("getenv('HOME')", "'HOME'.getenv()", '"GetEnv"($a)', "system.main.getenv('HOME')")
    parts = harmless.split("pi()")
    for at, call in itertools.product(range(1, len(parts)), calls):
        sql = "pi()".join(parts[:at]) + call + "pi()".join(parts[at:])
        with pytest.raises(RefusedSQL, match=r"getenv\(\) is refused"):
            check(connection, sql, tables)


@pytest.mark.parametrize(
    "name", [*LEFT_OUT, "duckdb_settings", "pragma_version", "not_yet_there", "collate_de"]
)
def test_functions_outside_the_list_are_refused(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    for before, after in itertools.product(
        ("", "main.", "system.main.", "pg_catalog."), ("SELECT ", "FROM ")
    ):
        with pytest.raises(RefusedSQL, match=rf"{name}\(\) is refused"):
            check(connection, f"{after}{before}{name}('x')", ())
    with pytest.raises(RefusedSQL, match=rf"{name}\(\) is refused"):
        check(connection, f"SELECT {name}(1) OVER ()", ())


def test_a_refusal_names_the_nearest_and_where_the_list_is(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(RefusedSQL) as refused:
        check(connection, "SELECT rond(1.5)", ())
    assert str(refused.value) == (
        "rond() is refused: it is not in the list of allowed functions, similar ones are round, second, random"
        " (`convscope sql --functions`, /api/sql/functions)"
    )
    assert near("medain")[0] == "median"


@pytest.mark.parametrize(
    ("call", "got"),
    [
        ("list_aggregate([1], 'sum_up')", "got 'sum_up'"),
        ("list_aggr([1], 'combine_aggr')", "got 'combine_aggr'"),
        ("[1].array_aggregate('s' || 'um')", "got an expression"),
        ("array_aggr([1], $name)", "got an expression"),
        ("aggregate([1])", "got an expression"),
        ("list_aggregate([1], f := 'sum')", "got an expression"),
    ],
)
def test_an_aggregate_that_is_named_by_text_is_looked_at_too(
    connection: duckdb.DuckDBPyConnection, call: str, got: str
) -> None:
    with pytest.raises(RefusedSQL, match=f"the name of an aggregate such as 'sum', in quotes, {got}"):
        check(connection, f"SELECT {call}", ())
    check(connection, "SELECT list_aggregate([1, 2], 'SUM'), [1].list_aggr('string_agg', '-')", ())


def test_convscopes_queries_use_only_listed_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """The worked examples, and the views, whose SQL is meant to be copied and edited."""
    tables = [one.name for one in catalogue()]
    views = connection.execute("SELECT view_name, sql FROM duckdb_views()").fetchall()
    asked = [one.sql for one in EXAMPLES] + [view.sql for view in VIEWS.values()]
    asked += [sql.split(" AS ", 1)[1] for name, sql in views if name in tables]
    assert len(asked) > 30
    for sql in asked:
        check(connection, sql, [*tables, "atlas_info"])


def test_the_tree_that_is_looked_at_has_every_call(connection: duckdb.DuckDBPyConnection) -> None:
    """The guard reads `function_name`; if a newer DuckDB renamed it, nothing would be refused."""
    text = connection.execute("SELECT json_serialize_sql('SELECT abs(1), sum(1), rank() OVER ()')").fetchone()
    assert text is not None
    names = [node["function_name"] for node in json.loads(text[0])["statements"][0]["node"]["select_list"]]
    assert names == ["abs", "sum", "rank"]
