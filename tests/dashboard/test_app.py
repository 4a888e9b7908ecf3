"""The application as a whole: imports, redirects, and assets served from this server only."""

import fcntl
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from browser import served
from dash import Dash
from dash.exceptions import PreventUpdate
from flask.testing import FlaskClient
from synthetic_atlas import add_run

from dashboard import document, router
from dashboard.api.status import status
from dashboard.app import create_app
from dashboard.pages.page import Page
from dashboard.pages.registry import PAGES
from dashboard.server import PortTaken, address, check_port
from dashboard.state.context import EXTENSION, Context
from dashboard.state.indexing_status import LOCKS, builds_under_way
from db.settings import Settings, read_settings


def test_the_web_process_never_loads_torch() -> None:
    script = (
        "import sys, dashboard.app, dashboard.server\n"
        "assert not {'torch', 'torchvision', 'transformers', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_importing_the_dashboard_opens_and_registers_nothing() -> None:
    script = "import dash, dashboard.app\nassert not dash.page_registry and not dash._callback.GLOBAL_CALLBACK_LIST"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_two_applications_in_one_process_show_their_own_homes(
    tmp_path: Path, filled_settings: Settings
) -> None:
    empty = create_app(read_settings({"CONVSCOPE_HOME": str(tmp_path)})).server.test_client()
    filled = create_app(filled_settings).server.test_client()
    assert empty.get("/status.json").json["version"] is None  # type: ignore[index]
    assert filled.get("/status.json").json["runs"] == [[1, "synthetic", "painted"]]  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/", "/?model=synthetic&images=painted"),
        ("/?layer=a+%26+b&k=3", "/?model=synthetic&images=painted&layer=a+%26+b&k=3"),
        ("/image?id=4&images=painted", "/image?model=synthetic&images=painted&id=4"),
        ("/images/", "/images?model=synthetic&images=painted"),
        ("/image/?model=synthetic&images=painted&id=4", "/image?model=synthetic&images=painted&id=4"),
    ],
)
def test_an_address_that_leaves_the_run_open_is_sent_on_to_one_that_names_it(
    client: FlaskClient, path: str, there: str
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.location) == (302, there)
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get(there).status_code == 200


@pytest.mark.parametrize(
    "path", ["/?model=synthetic&images=none", "/?images=none", "/?model=none", "/status.json"]
)
def test_an_address_without_a_run_stays(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_shows_its_page_once(filled_app: Dash, page: Page) -> None:
    for prefix in ("", "/lab"):
        with filled_app.server.test_request_context(environ_overrides={"SCRIPT_NAME": prefix}):
            shown, title = router.show_page(prefix + page.path, None)
            assert title == page.title
            assert shown.className == page.layout().className
            with pytest.raises(PreventUpdate):
                router.show_page(prefix + page.path, title)
            assert router.show_page(f"{prefix}/nowhere", title)[1] == "Not found · Convscope"


@pytest.mark.parametrize("path", ["/", "/channel", "/images", "/image", "/no-such-page"])
def test_every_page_loads_from_this_server_alone(client: FlaskClient, path: str) -> None:
    answer = client.get(path, follow_redirects=True)
    assert answer.status_code == 200
    assert (
        "//"
        not in answer.text.replace("http://www.w3.org", "")
        .replace("https://dash.plotly.com", "")
        .split("<script>")[0]
        .split("<!DOCTYPE html>")[1]
    )
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    ["css/bootstrap.min.css", "css/font/bootstrap-icons.min.css", "css/font/fonts/bootstrap-icons.woff2"],
)
def test_bootstrap_comes_from_here(client: FlaskClient, name: str) -> None:
    with client.get(f"/bootstrap/{name}") as answer:  # a file: the response closes it
        assert answer.status_code == 200


def test_nothing_but_bootstrap_s_files_is_served_from_its_package(client: FlaskClient) -> None:
    assert client.get("/bootstrap/../../__init__.py").status_code == 404
    assert client.get("/bootstrap/%2e%2e/%2e%2e/__init__.py").status_code == 404


def test_modules_are_kept_for_good_under_the_hash_of_all_of_them(client: FlaskClient) -> None:
    page = client.get("/jobs", follow_redirects=True).get_data(as_text=True)
    found = set(re.findall(r'"(/modules/[^"]+)"', page))
    assert {path.split("/")[2] for path in found} == {document.modules_version()}
    assert {path.split("/")[3] for path in found} == {path.name for path in document.MODULES.glob("*.js")}
    for path in found:
        with client.get(path) as answer:
            assert answer.mimetype == "text/javascript"
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    with client.get("/modules/0123456789abcdef/main.js") as answer:  # of a page older than the server
        assert answer.status_code == 200
        assert "immutable" not in answer.headers["Cache-Control"]
    for name in ("globals.d.ts", "../app.py", "vendor/package.json", "vendor/../main.js"):
        assert client.get(f"/modules/{document.modules_version()}/{name}").status_code == 404


def test_a_vendored_module_is_served_and_changes_the_version_but_no_page_preloads_it(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = client.get("/sql", follow_redirects=True).get_data(as_text=True)
    assert "/vendor/" not in page
    with client.get(f"/modules/{document.modules_version()}/vendor/codemirror.js") as answer:
        assert (answer.status_code, answer.mimetype) == (200, "text/javascript")
        assert "immutable" in answer.headers["Cache-Control"]
    (tmp_path / "vendor").mkdir()
    monkeypatch.setattr(document, "MODULES", tmp_path)
    (tmp_path / "main.js").write_text("1;")
    versions = [document.modules_version()]
    for text in ("1;", "22;"):
        (tmp_path / "vendor" / "library.js").write_text(text)
        versions.append(document.modules_version())
    assert len(set(versions)) == 3


def test_each_import_of_a_module_is_a_module_that_is_served() -> None:
    names = {path.name for path in document.MODULES.glob("*.js")} | {"vendor/codemirror.js"}
    for path in document.MODULES.glob("*.js"):
        imported = re.findall(r'(?:from |import |import\()"(.+?)"', path.read_text())
        assert {f"./{name}" for name in names} >= set(imported), path.name


def test_a_timer_pauses_until_its_callback_has_answered(client: FlaskClient) -> None:
    """Of two calls of one callback, Dash drops the answer to the first: all of them, if answers take that long."""
    found = 0
    for callback in client.get("/_dash-dependencies").get_json():
        timers = [one["id"] for one in callback["inputs"] if one["property"] == "n_intervals"]
        if callback["clientside_function"]:
            continue
        for timer in timers:
            found += 1
            assert callback["running"] == {
                "running": {f"{timer}.max_intervals": 0},
                "runningOff": {f"{timer}.max_intervals": -1},
            }
    assert found >= 4


def test_assets_name_no_other_server() -> None:
    import dashboard.app

    folder = Path(dashboard.app.__file__).parent
    for path in (*folder.glob("assets/**/*.*"), *folder.glob("browser/*.js")):
        assert "http" not in path.read_text().replace("http://www.w3.org/2000/svg", "").replace(
            "plain http", ""
        )


def test_the_catalogue_follows_the_atlas(tmp_path: Path) -> None:
    from synthetic_atlas import import_pictures, painted_pictures

    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path)})
    context: Context = create_app(settings).server.extensions[EXTENSION]
    before = status(context)
    import_pictures(settings, painted_pictures(5), image_set="five")
    between = status(context)
    add_run(settings, image_set="five")
    after = status(context)
    assert (before["version"], between["runs"], after["runs"]) == (None, [], [[1, "synthetic", "five"]])
    assert context.catalogue() is context.catalogue()


def test_an_index_under_way_is_seen_and_its_lock_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "builds" / "digest"
    folder.mkdir(parents=True)
    (folder / "facts.json").write_text('{"model": "big", "image set": "many"}')
    assert builds_under_way(tmp_path) == []
    with (folder / "LOCK").open("w") as lock:
        assert builds_under_way(tmp_path) == []
        fcntl.flock(lock, fcntl.LOCK_EX)
        if LOCKS.exists():
            assert builds_under_way(tmp_path) == [("big", "many")]
        assert builds_under_way(tmp_path, tmp_path / "no such list") == []
    assert builds_under_way(tmp_path) == []


def test_an_atlas_of_another_version_is_reported(tmp_path: Path) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path)})
    context: Context = create_app(settings).server.extensions[EXTENSION]
    with context.atlas.publish() as connection:
        connection.execute("UPDATE atlas_info SET schema_version = 99")
    assert "tables of version 99" in context.catalogue().trouble


def test_the_server_prints_its_address_and_answers(filled_settings: Settings) -> None:
    with served(filled_settings) as url, urllib.request.urlopen(f"{url}/status.json") as answer:
        assert b'"synthetic"' in answer.read()
        port = int(url.rsplit(":", 1)[1])
        taken = read_settings({"CONVSCOPE_HOME": str(filled_settings.home), "CONVSCOPE_PORT": str(port)})
        with pytest.raises(PortTaken, match=f"cannot listen on 127.0.0.1:{port}.*set CONVSCOPE_PORT"):
            check_port(taken)


def test_an_address_for_all_interfaces_is_opened_here() -> None:
    assert address("0.0.0.0", 9000) == "http://127.0.0.1:9000"
    assert address("::1", 9000) == "http://[::1]:9000"
