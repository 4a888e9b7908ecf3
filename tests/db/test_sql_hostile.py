"""Statements that try to read or write what they must not, or to stop the server: each is refused or terminated."""

import contextlib
import dataclasses
import hashlib
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.settings import Settings, read_settings
from db.sql.child import SQLFailed, SQLStopped
from db.sql.guard import RefusedSQL
from db.sql.places import MAX_WAITING, TooManyQueries
from db.sql.process import Session
from db.sql.runner import SQLRunner

SECRET = "the secret of the server"  # what no statement may reveal

# Statements that are refused before they run, and a word of the reason. `{place}` is a folder with a file
# `secret.csv`, `{server}` an HTTP server that records requests.
REFUSED = [
    # files, by function
    ("SELECT * FROM read_csv('{place}/secret.csv')", r"read_csv\(\) is refused"),
    ("SELECT * FROM read_csv_auto('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM read_text('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM read_blob('{place}/*')", "is refused"),
    ("SELECT * FROM read_json('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM read_ndjson_objects('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM read_parquet(['{place}/secret.csv'])", "is refused"),
    ("SELECT * FROM parquet_metadata('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM sniff_csv('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM glob('{place}/*')", "is refused"),
    ("SELECT * FROM read_duckdb('{place}/secret.csv')", "is refused"),
    ("SELECT content FROM images, read_text('{place}/secret.csv')", "is refused"),
    ("SELECT (SELECT content FROM read_text('{place}/secret.csv'))", "is refused"),
    ("WITH a AS MATERIALIZED (SELECT * FROM read_text('{place}/secret.csv')) FROM a", "is refused"),
    ("SELECT * FROM images WHERE EXISTS (SELECT 1 FROM read_text('{place}/secret.csv'))", "is refused"),
    ("FROM read_text('{place}/secret.csv')", "is refused"),
    ("SELECT ('{place}/secret.csv').read_text()", "is refused"),
    ("SELECT * FROM images, LATERAL (FROM read_text(label))", "is refused"),
    # files, by name
    ("SELECT * FROM '{place}/secret.csv'", "there is no table"),
    ('FROM "{place}/secret.csv"', "there is no table"),
    ("SELECT * FROM '{server}/secret.csv'", "there is no table"),
    ("SELECT * FROM 's3://bucket/secret.parquet'", "there is no table"),
    ("SUMMARIZE '{place}/secret.csv'", "there is no table"),
    ("DESCRIBE TABLE '{place}/secret.csv'", "there is no table"),
    ("SELECT * FROM images JOIN '{place}/secret.csv' ON true", "there is no table"),
    ("FROM '{place}/secret.csv'", "there is no table"),
    ("TABLE '{place}/secret.csv'", "there is no table"),
    ("SELECT * FROM images WHERE label IN (FROM '{place}/secret.csv')", "there is no table"),
    ("SELECT * FROM images POSITIONAL JOIN '{place}/secret.csv'", "there is no table"),
    ("SELECT * FROM (SUMMARIZE '{place}/secret.csv')", "there is no table"),
    ("SELECT * FROM 'data:text/csv;base64,YQ=='", "there is no table"),
    ("SELECT * FROM query_table('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM query('SELECT * FROM ''{place}/secret.csv''')", "is refused"),
    ("SELECT * FROM read_text('{server}/secret')", "is refused"),
    # memory of the process
    ("SELECT * FROM arrow_scan(1, 2, 3)", "is refused"),
    ("SELECT * FROM pandas_scan(1)", "is refused"),
    # other databases
    ("ATTACH '{place}/other.duckdb'", "ATTACH is refused"),
    ("ATTACH '{server}/x.duckdb' AS x (READ_ONLY)", "ATTACH is refused"),
    ("DETACH memory", "DETACH is refused"),
    ("USE memory", "is refused"),
    ("COPY FROM DATABASE a TO b", "is refused"),
    # copying data out
    ("COPY (SELECT 1) TO '{place}/out.csv'", "COPY is refused"),
    ("COPY images TO '{place}/out.parquet' (FORMAT parquet)", "COPY is refused"),
    ("COPY images FROM '{place}/secret.csv'", "COPY is refused"),
    ("EXPORT DATABASE '{place}/out'", "EXPORT is refused"),
    ("IMPORT DATABASE '{place}/out'", "is refused"),
    # extensions
    ("INSTALL httpfs", "is refused"),
    ("LOAD httpfs", "LOAD is refused"),
    ("FORCE INSTALL spatial FROM community", "is refused"),
    ("UPDATE EXTENSIONS", "is refused"),
    # settings
    ("PRAGMA database_list", "PRAGMA is refused"),
    ("PRAGMA enable_external_access=true", "is refused"),
    ("PRAGMA enable_profiling='json'", "is refused"),
    ("SET enable_external_access=true", "SET is refused"),
    ("SET memory_limit='900GB'", "SET is refused"),
    ("RESET memory_limit", "SET is refused"),
    ("SET VARIABLE x = 1", "is refused"),
    ("CALL pragma_version()", "CALL is refused"),
    ("CALL enable_logging(storage='file', storage_path='{place}')", "CALL is refused"),
    ("SELECT current_setting('allowed_paths')", "is refused"),
    ("SELECT * FROM duckdb_settings()", "is refused"),
    ("SELECT path FROM duckdb_databases()", "is refused"),
    ("SELECT * FROM duckdb_secrets()", "is refused"),
    ("SELECT * FROM duckdb_extensions()", "is refused"),
    ("SELECT * FROM duckdb_logs()", "is refused"),
    ("SELECT write_log('x')", "is refused"),
    ("SELECT getenv('HOME')", "is refused"),
    ("SELECT 'HOME'.getenv()", "is refused"),
    ("SELECT list_transform([1], lambda x: getenv('HOME'))", "is refused"),
    ("SELECT * EXCLUDE (label) REPLACE (getenv('HOME') AS key) FROM images", "is refused"),
    ("SELECT * FROM images LIMIT (SELECT length(getenv('HOME')))", "is refused"),
    ("SELECT * FROM sqlite_master", "there is no table"),
    ("SELECT * FROM pg_catalog.pg_settings", "without a schema"),
    ("SELECT * FROM pragma_database_list", "there is no table"),
    ("FROM which_secret('x', 's3')", "is refused"),
    ("CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')", "is refused"),
    # writes of every kind
    ("INSERT INTO images VALUES (1)", "INSERT is refused"),
    ("UPDATE images SET label = 'x'", "UPDATE is refused"),
    ("DELETE FROM images", "DELETE is refused"),
    ("TRUNCATE images", "is refused"),
    ("DROP TABLE images", "DROP is refused"),
    ("ALTER TABLE images ADD COLUMN x INTEGER", "ALTER is refused"),
    ("CREATE TABLE x AS SELECT 1", "CREATE is refused"),
    ("CREATE TEMP TABLE x AS SELECT * FROM range(1000000000)", "CREATE is refused"),
    ("CREATE OR REPLACE TEMP VIEW patches AS SELECT 1", "CREATE is refused"),
    ("CREATE MACRO f() AS TABLE SELECT * FROM read_text('{place}/secret.csv')", "CREATE is refused"),
    ("MERGE INTO images USING images AS b ON true WHEN MATCHED THEN DELETE", "is refused"),
    ("WITH gone AS (DELETE FROM images RETURNING *) SELECT * FROM gone", "DELETE is refused"),
    ("WITH x AS (INSERT INTO images SELECT * FROM images RETURNING *) SELECT 1", "INSERT is refused"),
    ("COMMENT ON TABLE images IS 'x'", "is refused"),
    ("SELECT nextval('run_numbers')", "is refused"),
    ("VACUUM", "is refused"),
    ("CHECKPOINT", "is refused"),
    ("BEGIN TRANSACTION", "is refused"),
    # several, prepared, hidden
    ("SELECT 1; DROP TABLE images", "2 statements"),
    ("SELECT 1;;; COPY (SELECT 1) TO '{place}/x'", "2 statements"),
    ("PREPARE p AS SELECT * FROM read_text('{place}/secret.csv')", "PREPARE is refused"),
    ("EXECUTE p", "EXECUTE is refused"),
    ("/* SELECT */ COPY /* */ (SELECT 1) /**/ TO '{place}/x'", "COPY is refused"),
    ("-- SELECT 1\nDROP TABLE images", "DROP is refused"),
    ("SELECT/**/*/**/FROM/**/ReAd_TeXt/**/('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM \"read_text\"('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM main.read_text('{place}/secret.csv')", "is refused"),
    ("SELECT * FROM system.main.read_text('{place}/secret.csv')", "is refused"),
    ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{place}/x'", "COPY is refused"),
    ("EXPLAIN SELECT * FROM read_text('{place}/secret.csv')", "is refused"),
    ("SELECT json_execute_serialized_sql('x')", "is refused"),
    ("SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))", "is refused"),
    ("PIVOT images ON split USING count(*)", "list the values of a PIVOT"),
    ("SELECT * FROM (PIVOT images ON split USING count(*))", "list the values of a PIVOT"),
    ("\ufeffDROP TABLE images", "DROP is refused"),
    ("DROP\u00a0TABLE images", "DROP is refused"),
    ("SELECT 1\0; DROP TABLE images", "NUL"),
    ("", "the statement is empty"),
    ("-- nothing", "the statement is empty"),
    ("SELECT " + "1 + " * 40_000 + "1", "the limit is 100,000"),
]

# Statements that run, and are stopped or fail at their limits.
STOPPED = [
    ("WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t", "stopped"),
    ("WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a FROM t, range(1000)) SELECT count(*) FROM t", ""),
    ("WITH RECURSIVE t(a, b) USING KEY (a) AS (SELECT 1, 1 UNION SELECT a, b + 1 FROM t) FROM t", "stopped"),
    ("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = 3", "stopped"),
    ("SELECT repeat('x', 2000000000)", ""),
    ("SELECT length(repeat(repeat('x', 100000), 100000))", ""),
    ("SELECT list(range) FROM range(1000000000)", ""),
    ("SELECT string_agg(repeat('x', 1000), '') FROM range(100000000)", ""),
    ("SELECT * FROM range(100000000) a ORDER BY hash(range)", ""),
    ("SELECT bit_count(range::BIT) FROM range(2000000000) ORDER BY 1", ""),
    ("SELECT " + "(" * 30_000 + "1" + ")" * 30_000, ""),
    ("SELECT list_reduce(range(100000000), lambda a, b: a + b)", ""),
    ("SELECT lpad('x', 2147483647, 'y')", ""),
    ("SELECT format('{:1000000000}', 1)", ""),
    ("SELECT repeat('x', 100000000) FROM range(50)", ""),
    ("SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))", ""),
    (
        "EXPLAIN ANALYZE SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range < b.range",
        "",
    ),
    ("SELECT * FROM images AT (VERSION => 1)", "time travel"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "secret.csv").write_text(f"a,b\n1,{SECRET}\n")
    return folder


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[str, list[str]]]:
    """URL of a server, and the requests it received."""
    paths: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = read_settings(
        {
            "CONVSCOPE_HOME": str(tmp_path_factory.mktemp("sql") / "home"),
            "CONVSCOPE_SQL_SECONDS": "1",
            "CONVSCOPE_SQL_MEMORY": "256MB",
        }
    )
    import_pictures(settings, painted_pictures(12), image_set="painted")
    add_run(settings, image_set="painted")
    Ledger(settings).migrate()
    return settings


def digest(*folders: Path) -> str:
    """Return a hash of the names and contents of everything in the folders."""
    told = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            told.update(str(file).encode())
            if file.is_file():
                told.update(file.read_bytes())
    return told.hexdigest()


def outcome(runner: SQLRunner, sql: str) -> tuple[str, str]:
    """Return `rows`, `refused` or `stopped`, and the text: the rows or the error."""
    try:
        table = runner.run(sql, rows=1000, size=10_000_000).table()
    except RefusedSQL as error:
        return "refused", str(error)
    except SQLFailed as error:
        return "stopped", str(error)
    return "rows", str(table.to_pylist())


def test_hostile_statements_are_refused(
    runner: SQLRunner,
    home: Settings,
    place: Path,
    asked: tuple[str, list[str]],
    request: pytest.FixtureRequest,
) -> None:
    before = digest(place, home.home / "atlas")
    for statement, why in REFUSED:
        sql = statement.replace("{place}", str(place)).replace("{server}", asked[0])
        what, told = outcome(runner, sql)
        request.node.user_properties.append(("hostile SQL", line(statement, what, told)))
        assert what == "refused", f"{sql[:200]}: {what}: {told}"
        assert re.search(why, told), f"{sql[:200]}: {told}"
        assert SECRET not in told
        assert len(told.splitlines()) == 1
    assert digest(place, home.home / "atlas") == before, "nothing was written"
    assert asked[1] == [], "nobody was asked"


@pytest.mark.parametrize(("statement", "why"), STOPPED, ids=[sql[:40] for sql, _ in STOPPED])
def test_statements_without_end_are_ended(
    runner: SQLRunner, statement: str, why: str, request: pytest.FixtureRequest
) -> None:
    what, told = outcome(runner, statement)
    request.node.user_properties.append(("hostile SQL", line(statement, what, told)))
    assert what in ("stopped", "refused"), told[:200]
    assert why in told
    assert outcome(runner, "SELECT 41 + 1 AS answer") == ("rows", "[{'answer': 42}]")


def test_queries_at_once_do_not_take_the_ledger_from_each_other(runner: SQLRunner) -> None:
    """`jobs` is read again for each of them, and the previous file is deleted."""
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda _: outcome(runner, "SELECT count(*) AS n FROM jobs"), range(60)))
    assert set(told) == {("rows", "[{'n': 0}]")}
    assert len(list(runner._folder.glob("jobs-*.arrow"))) == 1


def test_waiting_queries_run_in_order(home: Settings) -> None:
    settings = dataclasses.replace(home, sql_at_once=1)
    runner = SQLRunner(settings, Atlas(settings), Ledger(settings))
    served: list[int] = []

    def ask(number: int) -> None:
        with runner.run("SELECT 1", rows=1, size=1000):
            served.append(number)

    with contextlib.closing(runner), ThreadPoolExecutor(MAX_WAITING) as pool:
        asked = []
        with runner.run("SELECT 1", rows=1, size=1000):
            for number in range(MAX_WAITING):
                asked.append(pool.submit(ask, number))
                time.sleep(0.1)  # many times the polling interval
        for future in asked:
            future.result()
    assert served == list(range(MAX_WAITING))


def line(statement: str, what: str, told: str) -> str:
    """Return one row of the table of outcomes."""
    return f"{' '.join(statement.split())[:58]:<60}{what:<9}{told[:90]}"


def test_the_process_has_no_access_to_anything(place: Path) -> None:
    """DuckDB itself refuses what the guard would let through."""
    session = Session("", 200 << 20)
    for sql in (
        f"SELECT * FROM '{place}/secret.csv'",
        f"SELECT * FROM read_text('{place}/secret.csv')",
        f"COPY (SELECT 1) TO '{place}/out.csv'",
        f"ATTACH '{place}/other.duckdb'",
        "SET enable_external_access = true",
        "SET memory_limit = '10GB'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM glob('/etc/*')",
    ):
        with pytest.raises(duckdb.Error):
            session.connection.execute(sql).fetchall()
    assert sorted(file.name for file in place.iterdir()) == ["secret.csv"]


def test_few_queries_wait_and_none_for_disconnected_clients(home: Settings) -> None:
    settings = dataclasses.replace(home, sql_at_once=1)
    runner = SQLRunner(settings, Atlas(settings), Ledger(settings))
    left = threading.Event()

    def ask(gone: Callable[[], bool]) -> Exception | None:
        try:
            runner.run("SELECT 1", rows=1, size=1000, gone=gone).close()
        except (SQLStopped, TooManyQueries) as error:
            return error
        return None

    def wait() -> Exception | None:
        while isinstance(error := ask(left.is_set), TooManyQueries):
            pass  # the probe below, which tests whether all wait, held the last place for a moment
        return error

    with contextlib.closing(runner):
        with (
            contextlib.closing(runner.run("SELECT 1", rows=1, size=1000)),
            ThreadPoolExecutor(MAX_WAITING) as pool,
        ):
            waiting = [pool.submit(wait) for _ in range(MAX_WAITING)]
            while not isinstance(ask(lambda: True), TooManyQueries):
                time.sleep(0.01)  # until all of them wait; the test's timeout ends the loop
            assert not any(future.done() for future in waiting)
            left.set()
            assert all(isinstance(future.result(), SQLStopped) for future in waiting)
            assert isinstance(ask(lambda: True), SQLStopped), "their places are free again"
        assert ask(lambda: False) is None
