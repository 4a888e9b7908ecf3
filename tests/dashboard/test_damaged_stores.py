"""Whatever is damaged in a home, each route answers with an error that names the file, and the rest still works."""

import json
import logging
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dash import Dash
from flask.testing import FlaskClient
from ledger_rows import add_attack, claimed, finish_items, picture_of
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.app import create_app
from dashboard.pages.attack_request import read_page
from dashboard.pages.registry import PAGES
from dashboard.state.context import EXTENSION, current
from db.home import open_home
from db.ledger import claims
from db.ledger.jobs import NewItem, NewJob, submit_job
from db.settings import Settings, read_settings
from db.stores.results import ResultStore

LAYER = "stage1.block1.dwconv"
KEY = "0" * 64
ADDRESS = f"model=synthetic&images=painted&layer={LAYER}&channel=0&id=0&ids=0,1"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with 12 images, a run, a job with two maps and a job with one attack; to be copied."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("whole") / "home")})
    import_pictures(settings, painted_pictures(12), image_set="painted")
    add_run(settings, image_set="painted", divide=64, k=5)
    ledger = open_home(settings)
    models = {"models": [{"name": "synthetic", "source": "s", "digest": KEY}]}
    asked = {
        "image_set": "painted",
        "ids": [0, 1],
        "method": "smoothgrad",
        "target": "prediction",
        "parameters": {},
    }
    items = tuple(NewItem("synthetic", image, f"{image:064d}") for image in (0, 1))
    maps, _ = submit_job(
        ledger, NewJob("k" * 64, "saliency", "batch", "synthetic", "painted", models | asked, items)
    )
    claim = claimed(ledger, maps)
    finish_items(settings, ledger, claim)
    claims.finish(ledger, claim)
    attack = models | asked | {"ids": "0-1", "method": "fgsm", "relative_to": "label", "target": None}
    attacks, _ = submit_job(
        ledger, NewJob("a" * 64, "attack", "batch", "synthetic", "painted", attack, items[:1])
    )
    picture = ResultStore(settings).write_picture("inputs", "b" * 64, picture_of(0))
    with ledger.write() as connection:
        add_attack(connection, attacks, file=picture, input_file=picture)
    ledger.close()
    return settings.home


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Settings:
    """Settings of a copy of that home."""
    shutil.copytree(template, tmp_path / "home")
    return read_settings({"CONVSCOPE_HOME": str(tmp_path / "home")})


def addresses(app: Dash) -> list[str]:
    """Return one URL of each route that reads, and of each page."""
    values = {
        "run": 1, "mark": "0", "layer": LAYER, "channel": 0, "job": 1, "map": 1, "attack": 1, "number": 1, "key": KEY,
        "upload": "0" * 32, "file": 0, "query": 1, "image_set": "painted", "form": "csv", "table": "classes",
    }  # fmt: skip
    found = [f"{page.path}?{ADDRESS}" for page in PAGES]
    for rule in app.server.url_map.iter_rules():
        started = rule.rule.startswith(
            ("/api", "/choices", "/pictures", "/download", "/status", "/health", "/_dash-l")
        )
        if "GET" in (rule.methods or ()) and started:
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda name: str(values[name[1]]), rule.rule)
            found.append(f"{path}?{ADDRESS}&q=SELECT+count(*)+FROM+attacks,images&table=images")
    return found


# Keys of the elements that every SQL page shows; of other patterns a page may show none.
SHOWN = {"sql_side": ("examples", "tables", "saved"), "sql_columns": ("images",), "sql_table": ("images",)}


def callbacks(app: Dash, page: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a browser that shows `page` sends for each server callback."""
    known = {"pathname": page, "search": f"?{ADDRESS}"}
    stored = {
        "shell-subject": {"path": page, "model": "synthetic", "images": "painted"},
        "attack-pressed": {"act": "cancel", "job": 1},
        "saliency-pressed": {"act": "cancel", "job": 1},
    }

    def given(one: dict[str, str]) -> dict[str, Any] | list[Any]:
        if one["id"].startswith("{"):
            return matching(one)
        return one | {"value": stored.get(one["id"], known.get(one["property"]))}

    def matching(one: dict[str, str]) -> dict[str, Any] | list[Any]:
        """What a pattern finds on the page: an element per key in SHOWN, or one element where it is MATCH."""
        pattern = json.loads(one["id"])
        keys = SHOWN.get(pattern.get("type", ""), ())
        wild = next(name for name, key in pattern.items() if isinstance(key, list))
        found = [one | {"id": pattern | {wild: key}, "value": None} for key in keys]
        return found[0] if pattern[wild] == ["MATCH"] else found

    def changed(one: dict[str, Any] | list[Any]) -> list[str]:
        """The element that triggers the callback: the first, if there is any."""
        if isinstance(one, list):
            return changed(one[0]) if one else []
        key = one["id"]
        name = key if isinstance(key, str) else json.dumps(key, sort_keys=True, separators=(",", ":"))
        return [f"{name}.{one['property']}"]

    for output, callback in app.callback_map.items():
        if "callback" not in callback:
            continue
        names = output.removeprefix("..").removesuffix("..").split("...")
        outputs: list[Any] = [
            {"id": name.rsplit(".", 1)[0], "property": name.rsplit(".", 1)[1].split("@")[0]} for name in names
        ]
        inputs = [given(one) for one in callback["inputs"]]
        outputs = [given(one) if one["id"].startswith("{") else one for one in outputs]
        yield (
            output[:60],
            {
                "output": output,
                "outputs": outputs if output.startswith("..") else outputs[0],
                "inputs": inputs,
                "state": [given(one) for one in callback["state"]],
                "changedPropIds": changed(inputs[0]),
            },
        )


def sweep(app: Dash, caplog: pytest.LogCaptureFixture) -> tuple[list[str], list[str], str]:
    """Request everything; return the failures, the error messages and all response text."""
    client: FlaskClient = app.server.test_client()
    failed, sentences, said = [], [], []
    for address in addresses(app):
        answer = client.get(address)
        text = (
            answer.get_data(as_text=True) if answer.mimetype.startswith(("text", "application/json")) else ""
        )
        said.append(text)
        if answer.status_code == 500:
            failed.append(address)
        elif answer.status_code >= 400:
            sentences.append(f"{answer.status_code} {address.partition('?')[0]}: {text.strip()}")
            whole = re.sub(r"<[^>]*>|\s+", " ", text)
            assert "Traceback" not in whole
            assert len(whole) > 10, f"{address} says nothing"
    for page in (page.path for page in PAGES):
        for name, body in callbacks(app, page):
            caplog.clear()
            answer = client.post("/_dash-update-component", json=body)
            said.append(answer.get_data(as_text=True))
            faults = [one for one in caplog.records if one.name == "convscope.faults"]
            if answer.status_code not in (200, 204) or faults:
                failed.append(f"{page} {name}: {answer.status_code} {[one.getMessage() for one in faults]}")
    return failed, sentences, "\n".join(said)


def overwrite(path: Path, start: float, end: float) -> None:
    """Overwrite part of a file with garbage; `start` and `end` are fractions of its length."""
    data = bytearray(path.read_bytes())
    first, last = int(start * len(data)), int(end * len(data))
    data[first:last] = b"garbage!"[: max(1, (last - first) % 8)] * (
        (last - first) // max(1, (last - first) % 8) + 1
    )
    path.write_bytes(bytes(data[: max(last, len(data))]))


def atlas_file(settings: Settings) -> Path:
    return next((settings.home / "atlas").glob("*.duckdb"))


def half_an_atlas(settings: Settings) -> None:
    atlas_file(settings).write_bytes(
        atlas_file(settings).read_bytes()[: atlas_file(settings).stat().st_size // 2]
    )


def an_empty_atlas(settings: Settings) -> None:
    atlas_file(settings).write_bytes(b"")


def garbage_for_an_atlas(settings: Settings) -> None:
    atlas_file(settings).write_bytes(b"garbage!" * 10_000)


def an_atlas_without_tables(settings: Settings) -> None:
    path = atlas_file(settings)
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE atlas_info AS SELECT 4 AS schema_version")


def no_atlas_file(settings: Settings) -> None:
    atlas_file(settings).unlink()


def a_wrong_pointer(settings: Settings) -> None:
    (settings.home / "atlas" / "CURRENT").write_bytes(b"\xff../../etc/passwd")


def an_empty_pointer(settings: Settings) -> None:
    (settings.home / "atlas" / "CURRENT").write_bytes(b"")


def a_folder_for_a_pointer(settings: Settings) -> None:
    (settings.home / "atlas" / "CURRENT").unlink()
    (settings.home / "atlas" / "CURRENT").mkdir()


def garbage_for_a_ledger(settings: Settings) -> None:
    (settings.home / "ledger.sqlite").write_bytes(b"garbage!" * 10_000)


def half_a_ledger(settings: Settings) -> None:
    path = settings.home / "ledger.sqlite"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage_in_the_ledgers_middle(settings: Settings) -> None:
    overwrite(settings.home / "ledger.sqlite", 0.1, 0.9)


def with_sql(statement: str) -> Callable[[Settings], None]:
    def damage(settings: Settings) -> None:
        with sqlite3.connect(settings.home / "ledger.sqlite") as connection:
            connection.execute(statement)
        connection.close()

    damage.__name__ = re.sub(r"\W+", "_", statement)[:40]
    return damage


def no_pictures(settings: Settings) -> None:
    for folder in ("thumbnails", "originals", "results"):
        shutil.rmtree(settings.home / folder)


def empty_pictures_and_garbage_beside(settings: Settings) -> None:
    garbage_beside(settings)
    for folder in ("thumbnails", "originals", "results"):
        for path in (settings.home / folder).rglob("*.*"):
            path.write_bytes(b"")


def garbage_beside(settings: Settings) -> None:
    build = settings.home / "builds" / "0"
    upload = settings.home / "uploads" / ("0" * 32)
    for folder in (build, upload):
        folder.mkdir(parents=True)
    for path in (
        build / "facts.json",
        build / "LOCK",
        upload / "upload.json",
        settings.home / "first-run.json",
    ):
        path.write_bytes(b"\xff garbage")


# Each kind of damage, with what the answers must contain.
DAMAGE: dict[Callable[[Settings], None], str] = {
    half_an_atlas: "atlas",
    an_empty_atlas: ".duckdb",
    garbage_for_an_atlas: ".duckdb",
    an_atlas_without_tables: "atlas",
    no_atlas_file: ".duckdb is missing",
    a_wrong_pointer: "CURRENT is damaged",
    an_empty_pointer: "CURRENT is damaged",
    a_folder_for_a_pointer: "CURRENT",
    garbage_for_a_ledger: "ledger.sqlite",
    half_a_ledger: "ledger.sqlite",
    garbage_in_the_ledgers_middle: "ledger.sqlite",
    with_sql("DROP TABLE jobs"): "ledger.sqlite",
    with_sql("UPDATE jobs SET parameters = 'no JSON'"): "ledger.sqlite",
    with_sql("UPDATE jobs SET created = 'yesterday'"): "ledger.sqlite",
    no_pictures: "gone",
    empty_pictures_and_garbage_beside: "",
}


def test_a_whole_home_fails_nowhere(home: Settings, caplog: pytest.LogCaptureFixture) -> None:
    failed, _, _ = sweep(create_app(home), caplog)
    assert failed == [], "the sweep itself must be sound"


# Damage that files which are already open hide or show differently.
WHILE = (half_an_atlas, garbage_for_a_ledger)


@pytest.mark.parametrize(
    ("when", "damage"),
    [*(("before", damage) for damage in DAMAGE), *(("while", damage) for damage in WHILE)],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_a_damaged_home_answers_everywhere(
    home: Settings, damage: Callable[[Settings], None], when: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Damaged before the server starts, or while it has its files open."""
    caplog.set_level(logging.ERROR)
    if when == "before":
        damage(home)
    app = create_app(home)
    if when == "while":
        client = app.server.test_client()
        assert client.get("/api/jobs").status_code == client.get("/api/image_sets").status_code == 200
        damage(home)
        app.server.extensions[EXTENSION].atlas.close()  # as after the next publication
        app.server.extensions[EXTENSION].ledger.close()
    failed, sentences, said = sweep(app, caplog)
    print("\n".join(sentences))
    assert failed == []
    assert DAMAGE[damage] in json.dumps(said) + said
    client = app.server.test_client()
    if "ledger" not in DAMAGE[damage]:
        assert client.get("/api/jobs").status_code == 200, "jobs continue"
    if DAMAGE[damage] == "ledger.sqlite":
        assert client.get(f"/download/patches.csv?{ADDRESS}").status_code == 200, "patches still work"
    assert client.get("/health.json").json == {"ok": True}


# A store, requests, and the response of an intact home. A damaged store must not be reported as missing data.
HELD = {
    "ledger": (
        ("/api/attacks/1", 200),
        ("/api/jobs/1", 200),
        ("/api/maps/1", 200),
        (f"/download/attacks.csv?{ADDRESS}", 404),
        ("/download/attacks.csv?attack=1", 404),
        (f"/download/saliency.csv?{ADDRESS}", 404),
        ("/download/attack-steps.csv?attack=1", 410),
    ),
    "atlas": (
        (f"/download/attacks.csv?{ADDRESS}", 404),
        (f"/download/saliency.csv?{ADDRESS}", 404),
        (f"/download/patches.csv?{ADDRESS}", 200),
        (f"/download/robustness/curve.csv?{ADDRESS}", 200),
        (f"/pictures/images/{KEY}.jpg", 404),
    ),
}


@pytest.mark.parametrize("store", HELD)
def test_a_damaged_store_is_not_reported_as_missing_results(home: Settings, store: str) -> None:
    app = create_app(home)
    client = app.server.test_client()
    assert [client.get(address).status_code for address, _ in HELD[store]] == [
        status for _, status in HELD[store]
    ]
    (garbage_for_a_ledger if store == "ledger" else garbage_for_an_atlas)(home)
    app.server.extensions[EXTENSION].atlas.close()
    app.server.extensions[EXTENSION].ledger.close()
    for address, _ in HELD[store]:
        answer = client.get(address)
        assert answer.status_code == 503, f"{address}: {answer.status_code} {answer.get_data(as_text=True)}"
        assert "ledger.sqlite" in answer.text if store == "ledger" else ".duckdb" in answer.text
    if store == "ledger":
        with app.server.test_request_context():
            context = current()
            page = read_page(context, context.catalogue(), "?attack=1")
        assert list(page["problems"]) == ["ledger"]
        assert "ledger.sqlite cannot be read" in page["problems"]["ledger"]


def test_a_read_only_home_is_served_and_refuses_writes(
    home: Settings,
    caplog: pytest.LogCaptureFixture,
    only_read: Callable[[Path], AbstractContextManager[None]],
) -> None:
    before = {path: path.read_bytes() for path in home.home.rglob("*") if path.is_file()}
    with only_read(home.home):
        app = create_app(home)
        client = app.server.test_client()
        answer = client.get("/api/sql?q=SELECT+count(*)+AS+n+FROM+attacks,images")
        assert answer.json["rows"] == [[12]]  # type: ignore[index]
        failed, _, _ = sweep(app, caplog)
        assert failed == []
        asked = [
            client.post("/api/queries", json={"name": "n", "sql": "SELECT 1"}),
            client.post("/api/uploads", json={"files": [{"name": "a.png", "size": 10}]}),
            client.post("/api/image_sets/painted", json={"description": "new"}),
            client.post("/api/image_sets/painted", json={"name": "other"}),
            client.delete("/api/image_sets/painted?confirm=painted"),
            client.post("/api/jobs/1/retry"),
            client.delete("/api/jobs/2"),
        ]
        for refused in asked:
            assert refused.status_code in (403, 503), refused.get_data(as_text=True)
            said = refused.json["error"]  # type: ignore[index]
            assert "read-only" in said or "no permission" in said
        app.server.extensions[EXTENSION].ledger.close()
    assert {path: path.read_bytes() for path in home.home.rglob("*") if path.is_file()} == before
