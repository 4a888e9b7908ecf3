"""Access control: passwords, sessions, public routes, and users named by a proxy."""

import base64
import dataclasses
import re
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dashboard.app import create_app
from dashboard.security.access import NoLogin, check_binding, same_text
from dashboard.security.limits import FIRST_WRONG_PASSWORDS
from dashboard.security.login import LIFETIME, SecretError, own_path, read_secret
from dashboard.security.middleware import OPEN, PAGES
from dashboard.server import serve
from db.atlas.store import Atlas, Query
from db.settings import Settings, read_settings

PASSWORD = "naïve horse, battery"
OWN = {"Origin": "http://localhost"}
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}


@pytest.fixture(scope="module")
def closed_settings(filled_settings: Settings) -> Settings:
    return dataclasses.replace(filled_settings, password=PASSWORD)


@pytest.fixture
def server(closed_settings: Settings) -> flask.Flask:
    """A dashboard with a password and full rate limits."""
    return create_app(closed_settings).server


@pytest.fixture
def client(server: flask.Flask) -> FlaskClient:
    return server.test_client()


@pytest.fixture(scope="module")
def named(filled_settings: Settings) -> flask.Flask:
    """A dashboard behind a proxy at 10.1.2.3 that names users."""
    values = {"CONVSCOPE_HOME": str(filled_settings.home), "CONVSCOPE_USER_HEADER": "X-Remote-User"}
    return create_app(read_settings(values | {"CONVSCOPE_PROXY": "10.1.2.3"})).server


def log_in(client: FlaskClient, password: str = PASSWORD, **options: Any) -> TestResponse:
    there = options.pop("next", "/")
    given = {"headers": OWN} | options
    return client.post("/login", data={"password": password, "next": there}, **given)


def status_with(server: flask.Flask, cookie: str) -> int:
    """Return the status of a request with only this cookie."""
    return server.test_client(use_cookies=False).get("/status.json", headers={"Cookie": cookie}).status_code


def painted_key(settings: Settings) -> str:
    """Return the content key of an image in the home."""
    query = Query("SELECT key FROM images LIMIT 1")
    return str(Atlas(settings).fetch(query)[0]["key"])


def paths(server: flask.Flask) -> list[tuple[str, str, str]]:
    """Return rule, method and an example path for every route of the application."""
    found = []
    for rule in server.url_map.iter_rules():
        path = re.sub(r"<int:\w+>", "1", re.sub(r"<(string|path):\w+>", "x", rule.rule))
        found += [(rule.rule, method, re.sub(r"<\w+>", "x", path)) for method in sorted(rule.methods or ())]
    return found


def test_every_route_is_closed_without_login(server: flask.Flask, client: FlaskClient) -> None:
    """Iterates over the application's own URL map, so that routes yet to be written are checked as well."""
    wrong = []
    asked = 0
    for rule, method, path in paths(server):
        if path in OPEN:
            continue
        asked += 1
        with client.open(path, method=method) as answer:
            if rule in PAGES and method in ("GET", "HEAD"):
                right = answer.status_code == 302 and answer.headers["Location"].startswith("/login")
            else:
                right = answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic ")
                right = right and (method == "HEAD" or "log in" in (answer.json or {}).get("error", ""))
            if not right:
                wrong.append(f"{method} {path}: {answer.status_code}")
    assert wrong == []
    assert asked > 100


def test_every_route_is_closed_to_whom_the_proxy_has_not_named(named: flask.Flask) -> None:
    client = named.test_client()
    for rule, method, path in paths(named):
        if path not in OPEN:
            with client.open(path, method=method, environ_base={"REMOTE_ADDR": "10.1.2.3"}) as answer:
                assert answer.status_code == (302 if rule in PAGES and method in ("GET", "HEAD") else 403), (
                    path
                )


@pytest.mark.parametrize(
    "path",
    ["/assets/overview.css", "/_dash-layout", "/_dash-dependencies", "/_reload-hash", "/bootstrap/js/bootstrap.min.js",
     "/assets/../assets/overview.css", "/api//jobs", "/api/jobs/", "/status.json", "/assets/style.css/../overview.css",
     "/bootstrap/css/bootstrap.css", "/_dash-component-suites/dash/deps/react.js"],
)  # fmt: skip
def test_paths_next_to_the_public_files_need_a_login(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        assert answer.status_code in (302, 401)


def test_the_login_page_uses_only_public_files(client: FlaskClient) -> None:
    page = client.get("/login").text
    loaded = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert {"/assets/style.css", "/assets/mark.svg", "/bootstrap/css/bootstrap.min.css"} == set(loaded)
    for path in loaded:
        with client.get(path) as answer:
            assert answer.status_code == 200, path
    assert "autofocus" in page
    assert 'autocomplete="current-password"' in page


def test_health_is_public_and_reveals_nothing_else(client: FlaskClient) -> None:
    answer = client.get("/health.json")
    assert (answer.status_code, answer.json) == (200, {"ok": True})


def test_the_right_password_opens_everything_until_logout(client: FlaskClient) -> None:
    answer = log_in(client, next="/images?model=synthetic&images=painted")
    assert (answer.status_code, answer.location) == (303, "/images?model=synthetic&images=painted")
    assert client.get(answer.location).status_code == 200
    assert client.get("/status.json").status_code == 200
    layout = client.get("/_dash-layout").text
    assert "Log out" in layout
    assert client.get("/login?next=/jobs").location == "/jobs", "a user who is logged in is not asked again"
    out = client.post("/logout", headers=OWN)
    assert (out.status_code, out.location) == (303, "/login")
    assert client.get("/status.json").status_code == 401
    assert client.get("/images").location == "/login?next=%2Fimages"


def test_the_cookie_is_for_this_site_and_no_script(client: FlaskClient) -> None:
    cookie = log_in(client).headers["Set-Cookie"]
    assert re.match(r"convscope-[0-9a-f]{8}=", cookie)
    parts = cookie.split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(parts)
    assert "Secure" not in parts
    expires = parsedate_to_datetime(next(part for part in parts if part.startswith("Expires="))[8:])
    assert abs(expires - datetime.now(UTC) - LIFETIME) < timedelta(minutes=1)
    assert PASSWORD not in cookie


def test_over_https_the_cookie_stays_there(client: FlaskClient) -> None:
    answer = log_in(client, base_url="https://localhost", headers={"Origin": "https://localhost"})
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")
    assert "Strict-Transport-Security" in answer.headers


def test_https_is_believed_of_the_proxy_alone(closed_settings: Settings) -> None:
    values = {"CONVSCOPE_HOME": str(closed_settings.home), "CONVSCOPE_PASSWORD": PASSWORD}
    told = OWN | {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.5"}
    for proxy, sender, secure in [
        ("10.0.0.0/8", "10.200.1.1", True),
        ("10.0.0.0/8", "::ffff:10.200.1.1", True),
        ("10.0.0.0/8", "192.0.2.7", False),
        ("", "127.0.0.1", False),
    ]:
        client = create_app(read_settings(values | {"CONVSCOPE_PROXY": proxy})).server.test_client()
        answer = log_in(client, headers=told, environ_base={"REMOTE_ADDR": sender})
        assert ("Secure" in answer.headers["Set-Cookie"].split("; ")) is secure, sender
        assert ("Strict-Transport-Security" in answer.headers) is secure, sender


def test_a_session_ends_with_the_password_and_outlives_a_restart(closed_settings: Settings) -> None:
    cookie = log_in(create_app(closed_settings).server.test_client()).headers["Set-Cookie"].split(";")[0]
    for password, status in [(PASSWORD, 200), ("another password", 401)]:
        restarted = create_app(dataclasses.replace(closed_settings, password=password)).server
        assert status_with(restarted, cookie) == status


def test_a_session_expires(server: flask.Flask, client: FlaskClient) -> None:
    log_in(client)
    assert client.get("/status.json").status_code == 200
    server.config["PERMANENT_SESSION_LIFETIME"] = timedelta(0)
    time.sleep(2)
    assert client.get("/status.json").status_code == 401


def test_a_cookie_of_another_home_or_one_that_was_changed_opens_nothing(
    closed_settings: Settings, client: FlaskClient, tmp_path: Path
) -> None:
    elsewhere = create_app(dataclasses.replace(closed_settings, home=tmp_path)).server.test_client()
    other = log_in(elsewhere).headers["Set-Cookie"].split(";")[0]
    own = log_in(client).headers["Set-Cookie"].split(";")[0]
    name = own.split("=")[0]
    assert other.split("=")[0] != name, "two dashboards of one host keep their own"
    at = len(own) - 10
    forged = [
        f"{name}={other.split('=', 1)[1]}",
        own[:at] + ("a" if own[at] != "a" else "b") + own[at + 1 :],
        f"{name}=",
        f"{name}=" + base64.urlsafe_b64encode(b'{"session":"x"}').decode(),
    ]
    assert [status_with(client.application, cookie) for cookie in forged] == [401] * 4
    assert status_with(client.application, own) == 200


def test_the_secret_is_created_once_and_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    found: list[bytes] = []
    start = threading.Barrier(8)

    def read() -> None:
        start.wait()
        found.append(read_secret(home))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert [file.name for file in home.iterdir()] == ["session.key"]
    assert stat.S_IMODE((home / "session.key").stat().st_mode) == 0o600
    assert read_secret(home) == found[0]
    (home / "session.key").write_bytes(b"short")
    with pytest.raises(SecretError, match=r"session\.key: expected 32 bytes, got 5"):
        read_secret(home)


def test_without_a_password_there_is_no_secret_no_cookie_and_no_login(tmp_path: Path) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path)})
    client = create_app(settings).server.test_client()
    assert not (tmp_path / "session.key").exists()
    answer = client.get("/jobs")
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert client.get("/login?next=/jobs").location == "/jobs"
    assert client.post("/login", data={"next": "/jobs"}, headers=OWN).location == "/"
    assert client.post("/logout", headers=OWN).status_code == 303
    layout = client.get("/_dash-layout").text
    assert "Log out" not in layout
    assert "Logged in" not in layout


def test_a_wrong_password_is_reported(client: FlaskClient) -> None:
    answer = log_in(client, "not this one", next="/jobs")
    assert answer.status_code == 403
    assert re.search(r'role="alert">That is not the password\.<', answer.text)
    assert 'name="next" value="/jobs"' in answer.text
    assert "not this one" not in answer.text
    assert "Set-Cookie" not in answer.headers


def test_after_ten_wrong_passwords_an_address_waits_even_with_the_right_one(server: flask.Flask) -> None:
    client = server.test_client()
    for attempt in range(FIRST_WRONG_PASSWORDS):
        assert log_in(client, f"guess {attempt}").status_code == (403 if attempt < 9 else 429)
    answer = log_in(client)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
    assert re.search(r'role="alert">Too many wrong passwords: try again in \d+ s\.<', answer.text)
    assert client.get("/status.json").status_code == 401
    basic = client.get("/status.json", auth=("x", PASSWORD))
    assert basic.status_code == 429, "HTTP Basic is no way around it"
    assert int(basic.headers["Retry-After"]) >= 1
    assert log_in(server.test_client(), environ_base=ELSEWHERE).status_code == 303, "others are not held up"


def test_a_whole_network_of_version_6_is_one_guesser(server: flask.Flask) -> None:
    client = server.test_client()
    for guess in range(FIRST_WRONG_PASSWORDS):
        log_in(client, "wrong one", environ_base={"REMOTE_ADDR": f"2001:db8::{guess:x}"})
    assert log_in(client, environ_base={"REMOTE_ADDR": "2001:db8::ffff"}).status_code == 429
    assert log_in(client, environ_base={"REMOTE_ADDR": "2001:db8:0:1::1"}).status_code == 303


def test_a_form_of_megabytes_is_not_read(client: FlaskClient) -> None:
    assert log_in(client, "x" * (1 << 20)).status_code == 413


@pytest.mark.parametrize("path", ["/api/jobs", "/download/images.csv", "/status.json", "/jobs"])
def test_programs_send_the_password_with_each_request(client: FlaskClient, path: str) -> None:
    answer = client.get(path, auth=("anybody", PASSWORD), follow_redirects=True)
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    refused = client.get("/api/jobs", auth=("anybody", "wrong password"))
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="Convscope", charset="UTF-8"'
    assert "HTTP Basic" in refused.json["error"]  # type: ignore[index]


@pytest.mark.parametrize("sent", ["Basic", "Basic !!!", "Basic Og==", "Bearer x", "Digest username=x", ""])
def test_an_invalid_authorization_header_is_refused(client: FlaskClient, sent: str) -> None:
    assert client.get("/api/jobs", headers={"Authorization": sent}).status_code == 401


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ({}, "Basic"),
        ({"Sec-Fetch-Mode": "navigate"}, "Basic"),
        ({"Sec-Fetch-Mode": "cors"}, "Form"),
        ({"Referer": "http://localhost/saliency"}, "Form"),
        ({"Referer": "http://[broken"}, "Basic"),
    ],
)
def test_an_open_page_whose_login_ended_makes_no_browser_ask_over_it(
    client: FlaskClient, headers: dict[str, str], scheme: str
) -> None:
    answer = client.get("/api/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].split()[0] == scheme


OWN_PATHS = ["/", "/jobs", "/saliency?model=a&images=b%20c", "/image?id=4#top", "/%2f%2fevil.example", "/a:b"]
EVIL_PATHS = [
    "", "//evil.example", "///evil.example", "https://evil.example", "https:evil.example", "https:/evil.example",
    "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil.example", "\t//evil.example",
    " //evil.example", "javascript:alert(1)", "evil.example", "%2f%2fevil.example", "%2fjobs", "data:text/html,x",
    "//[broken", "/jobs\r\nSet-Cookie: a=b", "/login", "/login?next=/jobs", "/logout", "/" + "x" * 5000,
    "/\u2028/evil.example",
]  # fmt: skip


@pytest.mark.parametrize("path", OWN_PATHS)
def test_a_login_leads_to_the_requested_page(client: FlaskClient, path: str) -> None:
    assert log_in(client, next=path).location == path


@pytest.mark.parametrize("path", EVIL_PATHS, ids=repr)
def test_a_login_leads_nowhere_else(client: FlaskClient, path: str) -> None:
    assert own_path(path) == "/"
    assert log_in(client, next=path).location == "/"
    assert client.get("/login", query_string={"next": path}).location == "/", "nor does the login page"


@pytest.mark.parametrize(
    "path", ["/x//evil.example/", "/%2f%2fevil.example", "/%0d%0aX:%20y", "/%5cevil.example"]
)
def test_a_strange_address_is_sent_to_the_login_of_this_dashboard(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (302, 401)
    assert (answer.location or "/login").startswith("/login")


def test_a_deep_link_comes_back_after_login(client: FlaskClient) -> None:
    deep = "/?model=synthetic&images=painted&layer=stage1.block1.dwconv&q=a%26b"
    asked = client.get(deep)
    page = client.get(asked.location).text
    kept = re.search(r'name="next" value="([^"]*)"', page)
    assert kept is not None
    assert log_in(client, next=kept[1].replace("&amp;", "&")).location == deep


def test_the_proxy_names_the_user_and_nobody_else_does(named: flask.Flask) -> None:
    client = named.test_client()
    ada = {"X-Remote-User": "ada"}
    proxy = {"REMOTE_ADDR": "10.1.2.3"}
    layout = client.get("/_dash-layout", headers=ada, environ_base=proxy)
    assert layout.status_code == 200
    assert "Logged in as ada" in layout.text
    assert "Log out" not in layout.text, "that only the proxy sets"
    for forged in ({"REMOTE_ADDR": "10.1.2.4"}, {"REMOTE_ADDR": "127.0.0.1"}, {"REMOTE_ADDR": "::1"}):
        assert client.get("/_dash-layout", headers=ada, environ_base=forged).status_code == 403
        spoken_for = ada | {"X-Forwarded-For": "10.1.2.3"}
        assert client.get("/_dash-layout", headers=spoken_for, environ_base=forged).status_code == 403
    for empty in ({}, {"X-Remote-User": ""}, {"X-Remote-User": "  "}):
        answer = client.get("/_dash-layout", headers=empty, environ_base=proxy)
        assert answer.status_code == 403
        assert "proxy" in answer.json["error"]  # type: ignore[index]
    page = client.get("/login", environ_base=proxy)
    assert page.status_code == 403
    assert 'role="alert">The proxy that logs people in' in page.text
    assert "<input" not in page.text


def test_a_user_s_name_is_shown_as_it_is_written(named: flask.Flask) -> None:
    """The server decodes headers as Latin-1; proxies send names as UTF-8."""
    sent = {"X-Remote-User": "Zoë <b>\x7f".encode().decode("latin-1") + "x" * 500}
    layout: Any = named.test_client().get(
        "/_dash-layout", headers=sent, environ_base={"REMOTE_ADDR": "10.1.2.3"}
    )
    shell = next(part for part in layout.json["props"]["children"] if part["type"] == "Header")
    person = next(part for part in shell["props"]["children"] if part["props"].get("className") == "person")
    assert person["props"]["title"] == "Logged in as " + ("Zoë <b>" + "x" * 500)[:100]


def test_a_password_works_together_with_proxy_users(filled_settings: Settings) -> None:
    settings = read_settings(
        {
            "CONVSCOPE_HOME": str(filled_settings.home),
            "CONVSCOPE_PASSWORD": PASSWORD,
            "CONVSCOPE_USER_HEADER": "X-Remote-User",
        }
    )
    client = create_app(settings).server.test_client()
    assert client.get("/status.json", headers={"X-Remote-User": "ada"}).status_code == 200, (
        "loopback by default"
    )
    assert (
        client.get("/status.json", headers={"X-Remote-User": "ada"}, environ_base=ELSEWHERE).status_code
        == 401
    )
    assert log_in(client, environ_base=ELSEWHERE).status_code == 303
    assert client.get("/status.json", environ_base=ELSEWHERE).status_code == 200


def test_protected_responses_are_not_cached_publicly(client: FlaskClient, filled_settings: Settings) -> None:
    log_in(client)
    open_client = create_app(filled_settings).server.test_client()
    page = open_client.get("/jobs", follow_redirects=True).text
    suite = re.search(r'src="(/_dash-component-suites/[^"]+)"', page)
    assert suite is not None
    key = painted_key(filled_settings)
    for path in (suite[1], f"/pictures/thumbnails/{key}.jpg", "/assets/overview.css"):
        with open_client.get(path) as answer:
            kept = answer.headers["Cache-Control"].removeprefix("public, ")
        with client.get(path) as answer:
            assert answer.status_code == 200
            assert answer.headers["Cache-Control"] == f"private, {kept}"
    assert client.get("/jobs", follow_redirects=True).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [("abc", "abc", True), ("abc", "abd", False), ("", "abc", False), ("abcd", "abc", False), ("ä", "ä", True),
     ("ä", "a\u0308", False), ("\ud800", "abc", False)],
)  # fmt: skip
def test_texts_are_compared_by_digests_of_one_length(given: str, expected: str, same: bool) -> None:
    assert same_text(given, expected) is same
    assert "compare_digest" in same_text.__code__.co_names


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.20", "lab.example.org", "2001:db8::1", "0", "127.0.0.1.nip.io"]
)
def test_others_are_served_only_with_a_login(host: str, tmp_path: Path) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path / "home"), "CONVSCOPE_HOST": host})
    with pytest.raises(NoLogin, match="set CONVSCOPE_PASSWORD, or CONVSCOPE_USER_HEADER") as caught:
        serve(settings)
    assert "\n" not in str(caught.value)
    assert host in str(caught.value)
    assert not (tmp_path / "home").exists()
    check_binding(dataclasses.replace(settings, password=PASSWORD))
    check_binding(dataclasses.replace(settings, user_header="X-Remote-User"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.10"])
def test_loopback_needs_no_login(host: str) -> None:
    check_binding(read_settings({"CONVSCOPE_HOST": host}))
