"""SQL over HTTP: rows, files, images, saved queries, limits; and the worked examples against plain Python."""

import contextlib
import csv
import io
import json
import math
import re
import sqlite3
import statistics
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pyarrow.parquet as pq
import pytest
from browser import served
from flask.testing import FlaskClient
from ledger_rows import add_attack
from postgres import installed_postgres
from sqlalchemy import insert

from dashboard.app import create_app
from dashboard.server import THREADS
from dashboard.state.context import EXTENSION, Context
from db.ledger.engine import PAGE_SECONDS
from db.ledger.jobs import NewItem, NewJob, submit_job
from db.ledger.tables import AttackLayer, AttackUnit
from db.ledger.write_turns import BRIEF_SECONDS
from db.settings import read_settings
from db.sql.catalog import catalogue
from db.sql.examples import EXAMPLES
from db.sql.functions import by_kind

Site = tuple[FlaskClient, Context]
ENDLESS = "SELECT count(*) FROM range(10000000000) a, range(1000000) b"
ALL = {example.title: example for example in EXAMPLES}


@pytest.fixture
def client(site: Site) -> FlaskClient:
    return site[0]


def rows(client: FlaskClient, sql: str, **values: Any) -> list[dict[str, Any]]:
    """Return all rows of a statement, through the interface."""
    given = {"q": sql, "limit": 20000} | {f"p.{name}": value for name, value in values.items()}
    told: Any = client.get("/api/sql", query_string=given).json
    names = [column["name"] for column in told["columns"]]
    return [dict(zip(names, row, strict=True)) for row in told["rows"]]


def test_rows_come_with_types_and_say_where_they_stop(client: FlaskClient) -> None:
    told: Any = client.get("/api/sql?limit=3&q=SELECT i, i / 2 AS half, 1 AS half FROM range(9) t(i)").json
    assert [(one["name"], one["type"]) for one in told["columns"]] == [
        ("i", "BIGINT"), ("half", "DOUBLE"), ("half", "INTEGER"),
    ]  # fmt: skip
    assert told["rows"] == [[0, 0, 1], [1, 0.5, 1], [2, 1, 1]]
    assert told["more"] is True
    assert told["seconds"] > 0
    assert client.get("/api/sql?q=EXPLAIN SELECT 1").json["plan"] is True  # type: ignore[index]


def test_values_outside_json_are_sent_as_text(client: FlaskClient) -> None:
    sql = "SELECT 'nan'::DOUBLE, 9007199254740993, DATE '2026-01-02', NULL, [1, 2], {'a': 'x'}, 'ab'::BLOB"
    told: Any = client.get("/api/sql", query_string={"q": sql}).json
    assert told["rows"][0] == ["NaN", "9007199254740993", "2026-01-02", None, [1, 2], {"a": "x"}, "6162"]


def test_parameters_are_bound_and_never_part_of_the_statement(client: FlaskClient) -> None:
    found = rows(client, "SELECT $n + 1 AS n, $t AS t", n="41", t="1; DROP TABLE images --")
    assert found == [{"n": 42, "t": "1; DROP TABLE images --"}]


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ({}, 400, "q: expected an SQL statement, got none"),
        ({"q": "SELECT"}, 400, "SELECT clause without selection list"),
        ({"q": "DROP TABLE images"}, 400, "only reading is allowed"),
        ({"q": "SELECT * FROM '/etc/passwd'"}, 400, "passwd"),
        ({"q": "SELECT $n"}, 400, "parameters without a value: n"),
        ({"q": "SELECT error('so')"}, 400, "so"),
        ({"q": "SELECT " + "1 + " * 2000 + "1"}, 400, "nested too deeply"),
        ({"q": "SELECT json_serialize_plan('SELECT 1')"}, 400, "json_serialize_plan() is refused"),
    ],
)
@pytest.mark.parametrize("path", ["/api/sql", "/download/sql.csv"])
def test_invalid_statements_give_one_sentence(
    client: FlaskClient, query: dict[str, str], status: int, sentence: str, path: str
) -> None:
    answer = client.get(path, query_string=query)
    assert answer.status_code == status
    assert sentence in answer.json["error"]  # type: ignore[index]


def test_an_answer_has_as_many_rows_as_may_be(client: FlaskClient) -> None:
    refused = client.get("/api/sql?q=SELECT 1&limit=0")
    assert refused.status_code == 400
    assert "limit: expected a whole number from 1 to 20000, got '0'" in refused.json["error"]  # type: ignore[index]


def test_files_have_all_rows(client: FlaskClient) -> None:
    sql = quote("SELECT i, '=1+' || i AS text FROM range(30000) t(i)")
    lines = list(csv.reader(io.StringIO(client.get(f"/download/sql.csv?q={sql}").text)))
    assert lines[0] == ["i", "text"]
    assert lines[-1] == ["29999", "=1+29999"]
    guarded = client.get(f"/download/sql.csv?spreadsheet=1&q={sql}").text
    assert list(csv.reader(io.StringIO(guarded)))[-1] == ["29999", "'=1+29999"], (
        "no formula for a spreadsheet"
    )
    found = json.loads(client.get(f"/download/sql.json?q={sql}").data)
    assert found[-1] == {"i": 29999, "text": "=1+29999"}
    answer = client.get(f"/download/sql.parquet?q={sql}")
    assert pq.read_table(io.BytesIO(answer.data)).column("i").to_pylist() == list(range(30000))
    assert answer.headers["Content-Disposition"] == 'attachment; filename="result.parquet"'
    twice = client.get("/download/sql.parquet?q=SELECT 1 AS a, 2 AS a")
    assert pq.read_table(io.BytesIO(twice.data)).to_pylist() == [{"a": 1, "a_2": 2}]
    far = quote("SELECT DATE '20000-01-01' AS d, '2026-01-02 03:04:05.000000001'::TIMESTAMP_NS AS t")
    rows = client.get(f"/api/sql?q={far}").json["rows"]  # type: ignore[index]
    assert rows == [["20000-01-01", "2026-01-02T03:04:05.000000001"]]
    assert client.get("/download/sql.xlsx?q=SELECT 1").status_code == 404


def test_functions_are_listed(client: FlaskClient) -> None:
    told: Any = client.get("/api/sql/functions").json
    assert told == by_kind()
    assert "median" in told["aggregates"]


def test_tables_are_listed_with_comments_and_rows(client: FlaskClient) -> None:
    told: Any = client.get("/api/sql/tables").json["tables"]  # type: ignore[index]
    found = {one["name"]: one for one in told}
    assert set(found) == {one.name for one in catalogue()}
    assert found["images"]["rows"] == 12
    assert found["patches"]["rows"] is None
    assert all(column["comment"] and column["kind"] for one in told for column in one["columns"])


def test_a_query_is_saved_found_replaced_and_forgotten(client: FlaskClient) -> None:
    asked = {"name": " Mine ", "description": "why", "sql": "SELECT 1"}
    made: Any = client.post("/api/queries", json=asked)
    assert (made.status_code, made.json["name"]) == (201, "Mine")
    again: Any = client.post("/api/queries", json=asked)
    assert (again.status_code, "'Mine' already" in again.json["error"]) == (409, True)
    other: Any = client.post("/api/queries", json=asked | {"sql": "SELECT 2", "replace": True})
    assert (other.status_code, other.json["query"]) == (201, made.json["query"])
    listed: Any = client.get("/api/queries").json
    assert [(one["name"], one["sql"]) for one in listed["queries"]] == [("Mine", "SELECT 2")]
    assert rows(client, "SELECT name, description FROM saved_queries") == [
        {"name": "Mine", "description": "why"}
    ]
    assert client.delete(f"/api/queries/{made.json['query']}").status_code == 200
    assert client.delete(f"/api/queries/{made.json['query']}").status_code == 404
    assert client.post("/api/queries", data="{}").status_code == 415


def test_images_belong_to_the_objects_of_a_row(client: FlaskClient) -> None:
    top = rows(client, "SELECT * FROM patches WHERE rank = 1 ORDER BY layer, channel LIMIT 1")[0]

    def card(sql: str, **more: str) -> Any:
        return client.get("/api/sql", query_string={"q": sql, "cards": 1, **more}).json["cards"][0]  # type: ignore[index]

    key = rows(client, f"SELECT key FROM images WHERE image_id = {top['image_id']}")[0]["key"]
    patch = card("SELECT * FROM patches WHERE rank = 1 ORDER BY layer, channel LIMIT 1")
    assert patch["kind"] == "patch"
    assert f"{key}.jpg?y={top['y']}&x={top['x']}" in patch["src"]
    assert patch["href"].startswith("/channel?model=synthetic&images=painted&layer=")
    picture = client.get(patch["src"])
    assert (picture.status_code, picture.mimetype) == (200, "image/jpeg")
    image = card("SELECT 3 AS image_id", images="painted")
    assert image["href"] == "/image?images=painted&id=3"
    assert client.get(image["src"]).status_code == 200
    assert card("SELECT 3 AS image_id, 'painted' AS image_set")["src"] == image["src"]
    assert card("SELECT 99 AS image_id, 'painted' AS image_set") is None
    assert card("SELECT 'x' AS image_id, 7 AS image_set, -1 AS attack") is None
    assert card("SELECT 5 AS attack")["href"] == "/attack?attack=5"
    assert card("SELECT 5 AS map")["src"] == "/api/maps/5.png"
    for wrong in ("y=999&x=0", "y=0", "y=0&x=0&crop=all", "y=0&x=0&tile=7"):
        assert client.get(patch["src"].split("?")[0] + "?" + wrong).status_code in (400, 404)


def test_a_disconnected_client_cancels_its_query(site: Site) -> None:
    """On a real server: a closed socket frees the query's place long before its time limit."""
    settings = site[1].settings
    with served(settings) as url:
        address = f"{url}/api/sql?q={quote(ENDLESS)}"

        def leave() -> None:
            with pytest.raises(OSError, match="timed out"):
                urllib.request.urlopen(address, timeout=1.5)

        leaving = [threading.Thread(target=leave) for _ in range(settings.sql_at_once)]
        for one in leaving:
            one.start()
        begun = time.monotonic()
        with urllib.request.urlopen(f"{url}/status.json", timeout=5) as answer:
            assert answer.status == 200
        assert time.monotonic() - begun < 1.5, "the page answers beside endless queries"
        for one in leaving:
            one.join()
        with urllib.request.urlopen(f"{url}/api/sql?q=SELECT+42", timeout=10) as answer:
            assert json.load(answer)["rows"] == [[42]]


def test_pages_answer_while_sixteen_writers_wait_for_a_locked_ledger(site: Site) -> None:
    """On a real server with as many threads, while another process holds the lock throughout."""
    settings = site[1].settings

    def seconds(request: str | urllib.request.Request) -> tuple[float, int, str]:
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, body = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, body = error.code, error.read().decode()
        return time.monotonic() - begun, status, body

    with served(settings) as url, ThreadPoolExecutor(THREADS) as pool:
        seconds(f"{url}/jobs")  # the first page loads what later ones already have
        with contextlib.closing(sqlite3.connect(settings.home / "ledger.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            posts = [
                urllib.request.Request(
                    f"{url}/api/queries",
                    json.dumps({"name": f"waits {number}", "sql": "SELECT 1"}).encode(),
                    {"Content-Type": "application/json"},
                )
                for number in range(THREADS)
            ]
            writers = [pool.submit(seconds, post) for post in posts]
            read = [seconds(url + path) for path in ("/status.json", "/jobs", "/api/queries", "/api/jobs")]
            assert not all(writer.done() for writer in writers), "they wait while pages are read"
            assert [status for _, status, _ in read] == [200] * 4
            assert sum(took for took, _, _ in read) < BRIEF_SECONDS + 2, "where they waited for 14 s"
            file = settings.home / "ledger.sqlite"
            locked = f"the ledger {file} is locked by another writer, and nothing was written"
            for took, status, body in (writer.result() for writer in writers):
                assert status == 503
                assert json.loads(body) == {"error": f"{locked}: try again in a moment"}
                assert took < PAGE_SECONDS + 2
            other.rollback()
        assert seconds(posts[0])[1] == 201


def test_writers_that_wait_for_a_row_of_postgresql_leave_pages_their_connections(tmp_path: Path) -> None:
    """More writers than the server has connections wait for one row, which another client has locked."""
    count = 24
    with installed_postgres() as (url, _), contextlib.ExitStack() as stack:
        app = create_app(
            read_settings({"CONVSCOPE_HOME": str(tmp_path / "home"), "CONVSCOPE_LEDGER_URL": url})
        )
        stack.callback(app.server.extensions[EXTENSION].ledger.close)
        pool = stack.enter_context(ThreadPoolExecutor(count))

        def asked(method: str, path: str, body: Any = None) -> tuple[int, Any]:
            answer = app.server.test_client().open(path, method=method, json=body)
            return answer.status_code, answer.json

        status, saved = asked("POST", "/api/queries", {"name": "held", "sql": "SELECT 1"})
        assert status == 201
        there = f"/api/queries/{saved['query']}"
        other = stack.enter_context(psycopg.connect(url))
        other.execute("SELECT * FROM saved_queries FOR UPDATE")
        writers = [pool.submit(asked, "DELETE", there) for _ in range(count)]
        time.sleep(0.2)
        read = [asked("GET", path) for path in ("/status.json", "/api/queries", "/api/jobs")]
        assert not all(writer.done() for writer in writers), "they wait while pages are read"
        assert [status for status, _ in read] == [200] * 3
        for status, body in (writer.result() for writer in writers):
            assert status == 503
            assert re.fullmatch(
                "the ledger postgresql.* is locked by another writer, .*: try again in a moment",
                body["error"],
            )
        other.rollback()
        assert asked("DELETE", there)[0] in (200, 204)


# ---- the worked examples, against plain Python over the rows of the tables they read


@pytest.fixture(scope="module")
def told(site: Site) -> dict[str, list[dict[str, Any]]]:
    """The rows of each example over a filled atlas and ledger, and those of the tables themselves."""
    client, context = site
    job, _ = submit_job(
        context.ledger,
        NewJob("k", "attack", "batch", "synthetic", "painted", {}, (NewItem("synthetic", 0, "0"),)),
    )
    with context.ledger.write() as connection:
        for image_id in range(8):
            outcome = "resisted" if image_id == 5 else "flipped"
            more = {} if image_id == 5 else {"epsilon": 0.001 * (1 + image_id * 5 % 7)}
            add_attack(
                connection,
                job,
                image_id=image_id,
                outcome=outcome,
                probability_before=1 - image_id / 9,
                **more,
            )
        # of other protocols, or wrong before: in none of the examples about one search
        add_attack(connection, job, image_id=8, epsilon=0.0, class_before=5)
        add_attack(connection, job, image_id=9, epsilon=0.0005, relative_to="prediction")
        for image_id in range(12):
            add_attack(connection, job, image_id=image_id, epsilon=0.2, step=0.2, cap=0.2, minimum=0.2)
        add_attack(connection, job, image_id=10, outcome="resisted", relative_to="target")
        # one attack shifts a channel up, one down, one was ranked by an earlier rule; some that only
        # resisted, or belong to another protocol, shift another channel
        for attack, channel, shift in (
            (1, 2, 3.0),
            (2, 2, -3.0),
            (3, 2, -1.0),
            (4, 2, 7.0),
            (6, 1, 9.0),
            (11, 1, 9.0),
        ):
            layer = rows(client, "SELECT layer FROM layers ORDER BY position LIMIT 1")[0]["layer"]
            connection.execute(
                insert(AttackUnit).values(
                    attack=attack, layer=layer, rank=1, channel=channel, activation_before=1.0,
                    activation_after=1 + shift, shift=shift, deviations=shift / 2, y_before=0, x_before=0, y=0, x=0,
                )
            )  # fmt: skip
            layer_of = {
                "attack": attack,
                "layer": layer,
                "position": 0,
                "mean_shift": 1.0,
                "relative_change": 1.0,
            }
            connection.execute(insert(AttackLayer).values(**layer_of, dead=None if attack == 4 else 2))
    layer = rows(client, "SELECT layer FROM layers ORDER BY position LIMIT 1")[0]["layer"]
    labels = [row["label"] for row in rows(client, "SELECT label FROM images ORDER BY image_id LIMIT 2")]
    values = {"model": "synthetic", "images": "painted", "layer": layer, "channel": 1, "image": 4,
              "first": labels[0], "second": labels[1]}  # fmt: skip
    found = {title: rows(client, example.sql, **values) for title, example in ALL.items()}
    for table in ("images", "activations", "predictions", "layers", "channel_stats"):
        found[table] = rows(client, f"SELECT * FROM {table}")
    # 20,000 is the maximum of one answer, so the activations of this atlas come in parts
    found["activations"] = [
        row
        for part in range(8)
        for row in rows(client, f"SELECT * FROM activations WHERE channel % 8 = {part}")
    ]
    found["values"] = [values]
    return found


Told = dict[str, list[dict[str, Any]]]


def test_classes_are_counted(told: Told) -> None:
    expected = Counter(row["label"] for row in told["images"])
    assert {row["label"]: row["images"] for row in told["Classes of an image set"]} == expected


def test_a_channels_images_are_its_top(told: Told) -> None:
    values = told["values"][0]
    mine = [r for r in told["activations"] if r["layer"] == values["layer"] and r["channel"] == 1]
    expected = [(r["rank"], r["image_id"]) for r in sorted(mine, key=lambda r: r["rank"])]
    assert [(r["rank"], r["image_id"]) for r in told["Top-activating images of a channel"]] == expected


def test_an_images_channels_are_ordered_by_their_own_spread(told: Told) -> None:
    stats = {(r["layer"], r["channel"]): r for r in told["channel_stats"]}
    stds: dict[str, list[float]] = {}
    for its in told["channel_stats"]:
        if its["std"] and its["max"] != 0:
            stds.setdefault(its["layer"], []).append(its["std"])

    def deviations(row: dict[str, Any]) -> float:
        its = stats[row["layer"], row["channel"]]
        if not its["std"] or its["max"] == 0:
            return -math.inf
        return float(
            (row["activation"] - its["mean"]) / max(its["std"], 0.25 * statistics.median(stds[row["layer"]]))
        )

    expected = sorted((deviations(r) for r in told["activations"] if r["image_id"] == 4), reverse=True)[:60]
    found = [row["deviations"] for row in told["Channels that an image activates"]]
    assert found == pytest.approx(expected, rel=1e-6)


def test_selectivity_is_the_entropy_of_labels(told: Told) -> None:
    classes = {r["image_id"]: r["wnid"] or r["label"] for r in told["images"]}
    labels: dict[tuple[str, int], list[str]] = {}
    values: dict[tuple[str, int], set[float]] = {}
    for row in told["activations"]:
        values.setdefault((row["layer"], row["channel"]), set()).add(row["activation"])
    # a channel whose whole top-k is tied is uninformative
    telling = {key for key, found in values.items() if len(found) > 1}
    for row in told["activations"]:
        if classes[row["image_id"]] is not None:
            labels.setdefault((row["layer"], row["channel"]), []).append(classes[row["image_id"]])

    def entropy(found: list[str]) -> float:
        return -sum(n / len(found) * math.log2(n / len(found)) for n in Counter(found).values())

    by_layer: dict[str, list[float]] = {}
    for (layer, channel), found in labels.items():
        if (layer, channel) in telling:
            by_layer.setdefault(layer, []).append(entropy(found))
    for row in told["Selectivity by layer"]:
        expected = sum(by_layer[row["layer"]]) / len(by_layer[row["layer"]])
        assert row["mean_entropy_bits"] == pytest.approx(expected)
    best = told["Channels selective for one class"][0]
    share = max(
        Counter(found).most_common(1)[0][1] / len(found)
        for key, found in labels.items()
        if len(found) >= 5 and key in telling
    )
    assert best["majority_share"] == pytest.approx(share)
    shared = told["Channels shared by two classes"]
    first, second = (
        next(r["wnid"] or r["label"] for r in told["images"] if r["label"] == told["values"][0][name])
        for name in ("first", "second")
    )
    expected_shared = {
        key: (found.count(first), found.count(second))
        for key, found in labels.items()
        if first in found and second in found
    }
    for row in shared:
        assert expected_shared[row["layer"], row["channel"]] == (row["of_the_first"], row["of_the_second"])
    assert len(shared) == min(50, len(expected_shared))


def test_accuracy_and_mistakes_are_recounted(told: Told) -> None:
    labels = {row["image_id"]: row["label"] for row in told["images"]}
    # an image whose label is not a class of the model is not judged, so it is not wrong
    judged = {row["image_id"] for row in told["predictions"] if row["is_label"]}
    assert judged <= {image for image, label in labels.items() if label is not None}
    first = [row for row in told["predictions"] if row["rank"] == 1 and row["image_id"] in judged]
    for row in told["Accuracy by class"]:
        mine = [one["is_label"] for one in first if labels[one["image_id"]] == row["label"]]
        assert (row["images"], row["accuracy"]) == (len(mine), pytest.approx(sum(mine) / len(mine)))
    wrong = sorted((one["probability"] for one in first if not one["is_label"]), reverse=True)
    found = [row["probability"] for row in told["Most confident mistakes"]]
    assert found == pytest.approx(wrong[:60])
    for row in told["Calibration: confidence and accuracy"]:
        mine = [
            one["is_label"]
            for one in first
            if min(math.floor(one["probability"] * 10), 9) / 10 == row["confidence"]
        ]
        assert (row["images"], row["accuracy"]) == (len(mine), pytest.approx(sum(mine) / len(mine)))


def test_dead_channels_are_counted(told: Told) -> None:
    for row in told["Dead channels by layer"]:
        mine = [one["dead"] for one in told["channel_stats"] if one["layer"] == row["layer"]]
        assert (row["channels"], row["dead"]) == (len(mine), sum(mine))


def test_attacks_are_sorted_by_epsilon_without_resisting_images(told: Told) -> None:
    found = told["Images with the smallest successful epsilon"]
    expected = sorted((0.001 * (1 + image * 5 % 7), image) for image in range(8) if image != 5)
    assert [row["epsilon"] for row in found] == pytest.approx([epsilon for epsilon, _ in expected])
    assert {row["image_id"] for row in found} == {image for _, image in expected}
    points = told["Confidence and smallest successful epsilon"]
    assert [row["probability_before"] for row in points] == sorted(
        row["probability_before"] for row in points
    )
    assert [(row["epsilon"], row["what"]) for row in points if row["what"] != "changes there"] == [
        (0.5, "resists, lies beyond")
    ], "an image that resists is not drawn as one that changes"
    assert len(points) == 8
    assert {row["protocol"] for row in found + points} == {"FGSM, leaves the label, step 0.001 to 0.5"}


def test_shifts_up_and_down_do_not_cancel(told: Told) -> None:
    (row,) = told["Channels that attacks shift most often"]
    assert (row["channel"], row["attacks"], row["up"], row["down"]) == (2, 3, 1, 2)
    assert row["mean_size_in_deviations"] == pytest.approx((1.5 + 1.5 + 0.5) / 3)


def test_every_example_names_its_objects(told: Told) -> None:
    assert len(EXAMPLES) >= 12
    for title, example in ALL.items():
        if not told[title]:
            continue  # the ledger of this test has no rows for it
        names = told[title][0].keys()
        assert {example.chart.get(axis, next(iter(names))) for axis in ("x", "y")} <= names
        if example.view == "gallery":
            assert {"image_id", "attack"} & names
