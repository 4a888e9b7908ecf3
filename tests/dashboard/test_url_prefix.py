"""A dashboard below a URL path: every address it emits and every route it answers is below that path."""

import dataclasses
import re
from pathlib import Path

import flask
import pytest
from flask.testing import FlaskClient

from dashboard.app import create_app
from dashboard.security.login import own_path
from dashboard.security.prefix import local, page_path
from db.settings import Settings

PREFIX = "/lab/convscope"
ASSETS = Path(__file__).parents[2] / "dashboard" / "assets"
ORIGIN = {"Origin": "http://localhost"}


@pytest.fixture(scope="module")
def server(filled_settings: Settings) -> flask.Flask:
    found: flask.Flask = create_app(dataclasses.replace(filled_settings, url_prefix=PREFIX)).server
    return found


@pytest.fixture
def client(server: flask.Flask) -> FlaskClient:
    return server.test_client()


def named(text: str) -> list[str]:
    """Return the URLs in HTML."""
    return re.findall(r'(?:href|src|action)="(/[^"]*)"', text)


# a proxy may pass on the path unchanged, or strip the prefix
@pytest.mark.parametrize("came", [PREFIX, ""])
def test_pages_and_images_use_addresses_under_the_prefix(client: FlaskClient, came: str) -> None:
    sent_on = client.get(f"{came}/")
    assert sent_on.status_code == 302
    assert sent_on.headers["Location"].startswith(f"{PREFIX}/?model=")
    page = client.get(f"{came}/images?model=synthetic&images=painted").get_data(as_text=True)
    assert len(named(page)) > 10
    assert [path for path in named(page) if not path.startswith(f"{PREFIX}/")] == []
    assert r'"requests_pathname_prefix":"\u002flab\u002fconvscope\u002f"' in page
    for path in named(page):
        with client.get(came + path.removeprefix(PREFIX)) as answer:
            assert answer.status_code in (200, 302), path


def test_the_prefix_itself_is_the_first_page(client: FlaskClient) -> None:
    assert client.get(PREFIX).headers["Location"].startswith(f"{PREFIX}/?model=")


def test_a_path_that_only_starts_like_the_prefix_is_outside_it(client: FlaskClient) -> None:
    assert client.get(f"{PREFIX}er/health.json").mimetype != "application/json"
    assert client.get(f"{PREFIX}/health.json").json == {"ok": True}


def test_answers_for_programs_name_addresses_below_the_prefix(client: FlaskClient) -> None:
    begun = client.post(
        f"{PREFIX}/api/uploads", json={"files": [{"name": "a.png", "size": 3}]}, headers=ORIGIN
    )
    assert begun.status_code == 201
    assert begun.headers["Location"].startswith(f"{PREFIX}/api/uploads/")
    assert begun.json is not None
    assert client.get(begun.json["url"]).status_code == 200
    assert client.delete(begun.json["url"], headers=ORIGIN).status_code == 200
    described = client.get(f"{PREFIX}/api/openapi.json").json
    assert described is not None
    assert described["servers"] == [{"url": PREFIX}]
    question = "SELECT image_set, image_id FROM images LIMIT 1"
    found = client.get(f"{PREFIX}/api/sql", query_string={"q": question, "cards": 1}).json
    assert found is not None
    card = found["cards"][0]
    assert card["src"].startswith(f"{PREFIX}/pictures/thumbnails/")
    assert card["href"].startswith(f"{PREFIX}/image?")
    assert client.get(card["src"]).mimetype == "image/jpeg"


def test_addresses_are_unchanged_without_a_prefix(filled_settings: Settings) -> None:
    server = create_app(filled_settings).server
    described = server.test_client().get("/api/openapi.json").json
    assert described is not None
    assert "servers" not in described
    with server.test_request_context("/images"):
        assert local("/images") == "/images"
        assert page_path("/images") == "/images"


def test_a_login_and_its_cookie_stay_below_the_prefix(filled_settings: Settings) -> None:
    settings = dataclasses.replace(filled_settings, url_prefix=PREFIX, password="correct horse")
    server = create_app(settings).server
    client = server.test_client()
    asked = client.get(f"{PREFIX}/images?images=painted")
    assert asked.headers["Location"] == f"{PREFIX}/login?next=%2Flab%2Fconvscope%2Fimages%3Fimages%3Dpainted"
    form = client.get(asked.headers["Location"]).get_data(as_text=True)
    assert [path for path in named(form) if not path.startswith(f"{PREFIX}/")] == []
    there = f"{PREFIX}/images?images=painted"
    assert f'value="{there}"' in form
    logged_in = client.post(
        f"{PREFIX}/login", data={"password": "correct horse", "next": there}, headers=ORIGIN
    )
    assert logged_in.headers["Location"] == there
    assert "; Path=/lab/convscope/" in logged_in.headers["Set-Cookie"]
    assert client.get(f"{PREFIX}/api/jobs").status_code == 200
    assert client.post(f"{PREFIX}/logout", headers=ORIGIN).headers["Location"] == f"{PREFIX}/login"
    assert client.get(f"{PREFIX}/api/jobs").status_code == 401
    with server.test_request_context("/", environ_overrides={"SCRIPT_NAME": PREFIX}):
        for elsewhere in ("/images", "/lab/other", f"{PREFIX}/../other", "//evil", f"{PREFIX}/login", PREFIX):
            assert own_path(elsewhere) == f"{PREFIX}/"
        assert own_path(there) == there


def test_scripts_name_no_address_without_the_prefix() -> None:
    """`ask` and two functions in base.js add the prefix; no other script contains a URL that begins with a slash."""
    bare = re.compile(r"(?:href[:=]|src[:=]|fetch\(|go\(|script\(|open\(\"\w+\",|location =)\s*[\"'`]/(?!/)")
    found = [
        f"{path.name}: {line.strip()[:100]}"
        for path in sorted(ASSETS.rglob("*.js"))
        for line in path.read_text().splitlines()
        if bare.search(line)
    ]
    assert found == []
