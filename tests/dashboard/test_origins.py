"""Requests of other sites, and hosts that are not ours."""

import dataclasses

import flask
import pytest
from flask.testing import FlaskClient

from dashboard.app import create_app
from dashboard.origins import from_elsewhere, own_hosts, wrong_host
from db.settings import Settings, read_settings

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
COOKIE = "convscope-1"
SITES: list[tuple[str, dict[str, str], str, bool]] = [
    ("what the browser calls our own", {"Sec-Fetch-Site": "same-origin"}, FORM, True),
    ("what the person did herself", {"Sec-Fetch-Site": "none"}, FORM, True),
    ("another site", {"Sec-Fetch-Site": "cross-site"}, JSON, False),
    ("another port of this host", {"Sec-Fetch-Site": "same-site"}, JSON, False),
    ("another site that says our origin", {"Sec-Fetch-Site": "cross-site", "Origin": "http://lab:8050"}, JSON, False),
    ("our origin", {"Origin": "http://lab:8050"}, FORM, True),
    ("our origin in capitals", {"Origin": "http://LAB:8050"}, FORM, True),
    ("our origin behind TLS that we were not told of", {"Origin": "https://lab:8050"}, FORM, True),
    ("another origin", {"Origin": "http://evil.example"}, JSON, False),
    ("another port", {"Origin": "http://lab:8051"}, JSON, False),
    ("no port", {"Origin": "http://lab"}, JSON, False),
    ("a name that begins like ours", {"Origin": "http://lab:8050.evil.example"}, JSON, False),
    ("a user that is called like us", {"Origin": "http://lab:8050@evil.example"}, JSON, False),
    ("a sandboxed page", {"Origin": "null"}, JSON, False),
    ("a file", {"Origin": "file://"}, JSON, False),
    ("an extension", {"Origin": "chrome-extension://lab:8050"}, JSON, False),
    ("nonsense", {"Origin": "http://[lab:8050"}, JSON, False),
    ("an empty origin", {"Origin": ""}, JSON, False),
    ("a program", {}, JSON, True),
    ("a program without a body", {}, "", True),
    ("a program with a session and JSON", {"Cookie": f"{COOKIE}=x"}, JSON, True),
    ("an old browser's request with a session", {"Cookie": f"{COOKIE}=x"}, "", False),
    ("an old browser's form", {}, FORM, False),
    ("an old browser's form with a file", {}, "multipart/form-data; boundary=x", False),
    ("an old browser's form that looks like JSON", {}, "text/plain", False),
    ("a program that sends a form and the password", {"Authorization": "Basic eDp5"}, FORM, True),
]  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(("who", "headers", "kind", "taken"), SITES, ids=[site[0] for site in SITES])
def test_a_change_is_taken_from_our_own_pages_and_from_programs(
    method: str, who: str, headers: dict[str, str], kind: str, taken: bool
) -> None:
    if who.startswith("an old browser's form") and method != "POST":
        taken = True  # forms send nothing else
    app = flask.Flask("test")
    with app.test_request_context(
        "/x", method=method, headers=headers | {"Host": "lab:8050"}, content_type=kind or None
    ):
        assert (not from_elsewhere(flask.request, cookie=COOKIE)) is taken, who


@pytest.mark.parametrize(
    ("host", "origin", "taken"),
    [("lab", "http://lab", True), ("lab", "https://lab", True), ("lab:443", "https://lab", True),
     ("lab:80", "https://lab", False), ("[::1]:8050", "http://[::1]:8050", True), ("lab", "http://lab:80", True)],
)  # fmt: skip
def test_a_port_that_goes_without_saying_is_the_scheme_s(host: str, origin: str, taken: bool) -> None:
    app = flask.Flask("test")
    with app.test_request_context("/x", method="POST", headers={"Host": host, "Origin": origin}):
        assert (not from_elsewhere(flask.request, cookie=COOKIE)) is taken


@pytest.mark.parametrize(
    ("path", "method"),
    [("/_dash-update-component", "POST"), ("/api/jobs", "POST"), ("/api/jobs/1", "DELETE"),
     ("/api/jobs/1/retry", "POST"), ("/api/queries", "POST"), ("/api/queries/1", "DELETE"), ("/login", "POST"),
     ("/logout", "POST"), ("/", "POST"), ("/no-such-route", "PUT")],
)  # fmt: skip
@pytest.mark.parametrize("password", ["", "correct horse"])
def test_no_route_takes_another_site_s_change_also_without_a_login(
    filled_settings: Settings, path: str, method: str, password: str
) -> None:
    client = create_app(dataclasses.replace(filled_settings, password=password)).server.test_client()
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        answer = client.open(path, method=method, json={}, headers=headers)
        assert answer.status_code == 403
        assert "this dashboard's own pages" in answer.json["error"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({}, 200),
    ],
)
def test_another_site_may_lead_to_a_statement_but_not_have_it_run_by_a_picture(
    client: FlaskClient, headers: dict[str, str], status: int
) -> None:
    assert client.get("/api/sql?q=SELECT 1", headers=headers).status_code == status


HOSTS: list[tuple[dict[str, str], str, bool]] = [
    ({}, "localhost", True),
    ({}, "localhost:8050", True),
    ({}, "LOCALHOST:8050", True),
    ({}, "127.0.0.1:9", True),
    ({}, "[::1]:8050", True),
    ({}, "[::1]", True),
    ({}, "evil.example", False),
    ({}, "localhost.evil.example", False),
    ({}, "127.0.0.1.evil.example", False),
    ({}, "192.168.1.20", False),
    ({}, "", False),
    ({}, "localhost:x", False),
    ({}, "localhost@evil.example", False),
    ({"CONVSCOPE_HOSTS": "Lab.example.org, other"}, "lab.example.org", True),
    ({"CONVSCOPE_HOSTS": "lab.example.org,other"}, "other:8443", True),
    ({"CONVSCOPE_HOSTS": "lab.example.org"}, "localhost:8050", True),
    ({"CONVSCOPE_HOSTS": "lab.example.org"}, "x.lab.example.org", False),
    ({"CONVSCOPE_HOST": "192.168.1.20"}, "192.168.1.20:8050", True),
    ({"CONVSCOPE_HOST": "192.168.1.20"}, "192.168.1.21:8050", False),
    ({"CONVSCOPE_HOST": "192.168.1.20"}, "localhost", False),
    ({"CONVSCOPE_HOST": "lab.example.org"}, "lab.example.org", True),
    ({"CONVSCOPE_HOST": "2001:db8::1"}, "[2001:db8::1]:8050", True),
    ({"CONVSCOPE_HOST": "2001:db8::1", "CONVSCOPE_HOSTS": "2001:DB8:0::2"}, "[2001:db8::2]", True),
    ({"CONVSCOPE_HOST": "0.0.0.0"}, "192.168.1.21:8050", True),
    ({"CONVSCOPE_HOST": "::"}, "[2001:db8::7]:8050", True),
    ({"CONVSCOPE_HOST": "0.0.0.0"}, "evil.example", False),
    ({"CONVSCOPE_HOST": "0.0.0.0", "CONVSCOPE_HOSTS": "lab"}, "lab", True),
]


@pytest.mark.parametrize(("values", "host", "answered"), HOSTS)
def test_a_request_names_a_host_that_is_ours(values: dict[str, str], host: str, answered: bool) -> None:
    settings = read_settings(values)
    app = flask.Flask("test")
    with app.test_request_context("/x", environ_overrides={"HTTP_HOST": host}):
        assert (not wrong_host(flask.request, settings, own_hosts(settings))) is answered


@pytest.mark.parametrize("path", ["/", "/jobs", "/api/jobs", "/_dash-layout", "/health.json", "/login"])
def test_a_page_of_another_name_that_leads_here_gets_a_sentence(client: FlaskClient, path: str) -> None:
    for headers in ({"Host": "evil.example"}, {"Host": "evil.example", "X-Forwarded-Host": "localhost"}):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 400
        assert "got 'evil.example'" in answer.text
        assert "CONVSCOPE_HOSTS" in answer.text
