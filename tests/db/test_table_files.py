"""Every DuckDB type survives CSV, JSON, Parquet, HTTP rows and terminal cells without loss or change."""

import csv
import io
import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.ledger.engine import Ledger
from db.settings import Settings, read_settings
from db.sql.formats import csv_lines, distinct, json_lines, parquet_pieces, plain, values
from db.sql.runner import SQLRunner, as_value

ROOM = {"rows": 1000, "size": 1 << 24}
# A type, an expression of that type, its cell in CSV, its value in JSON.
CASES: list[tuple[str, str, str, object]] = [
    ("boolean", "true", "True", True),
    ("null", "NULL", "", None),
    ("text", "'-'", "-", "-"),
    ("formula", "'=1+1'", "=1+1", "=1+1"),
    ("tinyint", "(-128)::TINYINT", "-128", -128),
    ("bigint", "9007199254740993::BIGINT", "9007199254740993", "9007199254740993"),
    ("ubigint", "18446744073709551615::UBIGINT", "18446744073709551615", "18446744073709551615"),
    (
        "hugeint",
        "(-170141183460469231731687303715884105727)::HUGEINT",
        "-170141183460469231731687303715884105727",
        "-170141183460469231731687303715884105727",
    ),
    (
        "uhugeint",
        "340282366920938463463374607431768211455::UHUGEINT",
        "340282366920938463463374607431768211455",
        "340282366920938463463374607431768211455",
    ),
    (
        "bignum",
        "123456789012345678901234567890123456789012::BIGNUM",
        *["123456789012345678901234567890123456789012"] * 2,
    ),
    ("decimal", "1.50::DECIMAL(10,2)", "1.50", 1.5),
    (
        "wide_decimal",
        "12345678901234567890.1234567891::DECIMAL(38,10)",
        *["12345678901234567890.1234567891"] * 2,
    ),
    ("small_decimal", "0.0000000001::DECIMAL(20,10)", "0.0000000001", 1e-10),
    ("double", "0.1::DOUBLE", "0.1", 0.1),
    ("nan", "'nan'::DOUBLE", "nan", "NaN"),
    ("inf", "'inf'::FLOAT", "inf", "Infinity"),
    ("minus_inf", "'-inf'::DOUBLE", "-inf", "-Infinity"),
    ("uuid", "'00000000-0000-0000-0000-000000000001'::UUID", *["00000000-0000-0000-0000-000000000001"] * 2),
    ("blob", "'\\xAA\\x00'::BLOB", "aa00", "aa00"),
    ("bit", "'0101'::BIT", "0101", "0101"),
    ("interval", "INTERVAL '1 month 2 days 3.5 seconds'", *["1 month 2 days 00:00:03.5"] * 2),
    ("date", "DATE '2026-01-02'", *["2026-01-02"] * 2),
    ("date_bc", "DATE '0044-03-15 (BC)'", *["-0043-03-15"] * 2),
    ("date_far", "DATE '10000-01-01'", *["10000-01-01"] * 2),
    ("date_first", "DATE '5877642-06-25 (BC)'", *["-5877641-06-25"] * 2),
    ("date_inf", "'infinity'::DATE", *["infinity"] * 2),
    ("date_minus_inf", "'-infinity'::DATE", *["-infinity"] * 2),
    ("time", "TIME '12:34:56.5'", *["12:34:56.500000"] * 2),
    ("midnight", "TIME '24:00:00'", *["24:00:00"] * 2),
    ("time_ns", "'12:34:56.123456789'::TIME_NS", *["12:34:56.123456789"] * 2),
    ("timetz", "'12:34:56.5+02'::TIMETZ", *["12:34:56.5+02"] * 2),
    ("timestamp", "TIMESTAMP '2026-01-02 03:04:05.000678'", *["2026-01-02T03:04:05.000678"] * 2),
    ("timestamp_early", "TIMESTAMP '1969-12-31 23:59:59.5'", *["1969-12-31T23:59:59.500000"] * 2),
    ("timestamp_far", "TIMESTAMP '294246-12-31 00:00:00'", *["294246-12-31T00:00:00"] * 2),
    ("timestamp_inf", "'infinity'::TIMESTAMP", *["infinity"] * 2),
    ("timestamp_s", "'2026-01-02 03:04:05'::TIMESTAMP_S", *["2026-01-02T03:04:05"] * 2),
    ("timestamp_ms", "'2026-01-02 03:04:05.678'::TIMESTAMP_MS", *["2026-01-02T03:04:05.678000"] * 2),
    ("timestamp_ns", "'2026-01-02 03:04:05.123456789'::TIMESTAMP_NS", *["2026-01-02T03:04:05.123456789"] * 2),
    ("timestamptz", "'2026-01-02 03:04:05+02'::TIMESTAMPTZ", *["2026-01-02T01:04:05+00:00"] * 2),
    ("timestamptz_inf", "'-infinity'::TIMESTAMPTZ", *["-infinity"] * 2),
    ("enum", "'b'::ENUM('a','b')", "b", "b"),
    ("json", "'{\"a\":1}'::JSON", '{"a":1}', '{"a":1}'),
    ("list", "[DATE '10000-01-01', NULL]", '["10000-01-01", null]', ["10000-01-01", None]),
    ("list_interval", "[INTERVAL 1 DAY]", "[1 day]", "[1 day]"),
    ("null_list", "NULL::INTEGER[]", "", None),
    ("empty_list", "[]::DATE[]", "[]", []),
    ("array", "array_value(1, 2)", "[1, 2]", [1, 2]),
    ("map", "MAP {'a': DATE '0001-01-01'}", '[["a", "0001-01-01"]]', [["a", "0001-01-01"]]),
    ("union", "union_value(num := 2)", "2", "2"),
    ("variant", "1::VARIANT", "1", "1"),
    (
        "nested",
        "[{'a': {'b': [TIME '01:02:03']}}]",
        '[{"a": {"b": ["01:02:03"]}}]',
        [{"a": {"b": ["01:02:03"]}}],
    ),
]
NAMES = [name for name, *_ in CASES]
STATEMENT = "SELECT " + ", ".join(f"{expression} AS {name}" for name, expression, *_ in CASES)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("home"))})
    Ledger(settings).migrate()
    return settings


@pytest.fixture(scope="module")
def table(runner: SQLRunner) -> pa.Table:
    return runner.run(STATEMENT, **ROOM).table()


def test_csv_writes_every_type(table: pa.Table) -> None:
    heading, row = csv.reader(io.StringIO("".join(csv_lines(table.schema, table.to_batches()))))
    assert dict(zip(heading, row, strict=True)) == {name: cell for name, _, cell, _ in CASES}


def test_json_writes_every_type(table: pa.Table) -> None:
    (row,) = json.loads("".join(json_lines(table.schema, table.to_batches())))
    assert row == {name: value for name, _, _, value in CASES}


def test_page_rows_contain_every_type(table: pa.Table) -> None:
    cells = {name: [plain(cell) for cell in values(table[name])] for name in NAMES}
    assert cells == {name: [value] for name, _, _, value in CASES}


def test_parquet_writes_every_type_as_duckdb_reads_it(table: pa.Table, tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    file.write_bytes(b"".join(parquet_pieces(table.schema, table.to_batches())))
    again = pq.read_table(file)
    assert again.num_rows == 1
    assert {name: [plain(cell) for cell in values(again[name])] for name in NAMES} == {
        name: [value] for name, _, _, value in CASES
    }
    with duckdb.connect() as connection:
        (read,) = connection.sql(
            f"SELECT timestamp_ns::VARCHAR, date_bc::VARCHAR, interval FROM '{file}'"
        ).fetchall()
    assert read == ("2026-01-02 03:04:05.123456789", "0044-03-15 (BC)", "1 month 2 days 00:00:03.5")


def test_times_equal_duckdbs_over_the_whole_range(runner: SQLRunner) -> None:
    """Against DuckDB's own text of the same moments, for years that both format alike."""
    statement = """
        SELECT moment, replace(moment::VARCHAR, ' ', 'T') AS told
        FROM (SELECT epoch_ms((i * 86399989997)::BIGINT) AS moment FROM range(-700, 2900) r(i))"""
    found = runner.run(statement, rows=10_000, size=1 << 24).table()
    shown = [cell[:-3] if "." in cell else cell for cell in values(found["moment"])]
    wanted = [f"{cell:0<23}" if "." in cell else cell for cell in found["told"].to_pylist()]
    assert len(shown) == 3600
    assert shown == wanted


def test_columns_of_one_name_keep_all_their_values(runner: SQLRunner, tmp_path: Path) -> None:
    found = runner.run("SELECT 1 AS a, 2 AS a, 3 AS a_2, INTERVAL 1 DAY AS a", **ROOM).table()
    assert json.loads("".join(json_lines(found.schema, found.to_batches()))) == [
        {"a": 1, "a_3": 2, "a_2": 3, "a_4": "1 day"}
    ]
    file = tmp_path / "a.parquet"
    file.write_bytes(b"".join(parquet_pieces(found.schema, found.to_batches())))
    assert pq.read_table(file).to_pylist() == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": "1 day"}]
    assert "".join(csv_lines(found.schema, found.to_batches())) == "a,a,a_2,a\r\n1,2,3,1 day\r\n"


def test_duplicate_names_are_made_unique() -> None:
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a_2", "a_3"]
    assert distinct(["a", "a", "a_2"]) == ["a", "a_3", "a_2"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_formulas_are_guarded_on_request_alone(start: str) -> None:
    table = pa.table({"label": [start + "x"]})
    for guarded, expected in ((False, start + "x"), (True, "'" + start + "x")):
        lines = "".join(csv_lines(table.schema, table.to_batches(), spreadsheet=guarded))
        assert list(csv.reader(io.StringIO(lines))) == [["label"], [expected]]


@pytest.mark.parametrize(
    ("statement", "given", "expected"),
    [
        ("SELECT label FROM (VALUES ('cat'), ('1'), ('01')) t(label) WHERE label = $x", "1", ["1"]),
        ("SELECT label FROM (VALUES ('cat'), ('1'), ('01')) t(label) WHERE label = $x", "01", ["01"]),
        ("SELECT n FROM (VALUES (1), (2)) t(n) WHERE n = $x", "2", [2]),
        ("SELECT n FROM (VALUES (1.5), (12)) t(n) WHERE n > $x", "9", [12.0]),
        ("SELECT $x + 1", "5", [6]),
        ("SELECT label FROM (VALUES ('cat'), ('1')) t(label) WHERE label = $y AND $x + 1 = 6", "5", ["1"]),
        ("SELECT n FROM range(5) t(n) LIMIT $x", "2", [0, 1]),
        ("SELECT n FROM (VALUES (0), (1)) t(n) WHERE n > $x", "0.5", [1]),
    ],
)
def test_a_whole_number_takes_the_type_it_is_compared_with(
    runner: SQLRunner, statement: str, given: str, expected: list[object]
) -> None:
    found = runner.run(statement, {"x": as_value(given), "y": as_value("1")}, **ROOM).table()
    assert [plain(value) for value in values(found.column(0))] == expected
