"""Requests from other sites, and Host headers that are not ours."""

import dataclasses
import io

import flask
import pytest
from flask.testing import FlaskClient

from dashboard.app import create_app
from dashboard.security.origins import from_elsewhere, own_hosts, wrong_host
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
    ("our origin behind TLS that the proxy does not state", {"Origin": "https://lab:8050"}, FORM, True),
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
def test_changes_are_accepted_from_own_pages_and_programs(
    method: str, who: str, headers: dict[str, str], kind: str, taken: bool
) -> None:
    if who.startswith("an old browser's form") and method != "POST":
        taken = True  # forms send no other method
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


@pytest.fixture(scope="module")
def patient_client(filled_settings: Settings) -> FlaskClient:
    """A client with a very high limit on statements."""
    return create_app(dataclasses.replace(filled_settings, sql_per_minute=10_000)).server.test_client()


LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
CLICK = LINK | {"Sec-Fetch-User": "?1"}
LOADS: list[tuple[str, dict[str, str], int, int]] = [  # status of a statement, and of a page
    ("an image", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403, 403),
    ("a script of another port", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403, 403),
    *(
        (f"a {target}", CLICK | {"Sec-Fetch-Dest": target}, 403, 403)
        for target in ("iframe", "frame", "embed", "object", "fencedframe", "empty", "style", "worker")
    ),
    ("a window that a script opens", LINK, 403, 200),
    ("a link that a person clicks", CLICK, 200, 200),
    ("our own page", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200, 200),
    ("an address that a person typed", CLICK | {"Sec-Fetch-Site": "none"}, 200, 200),
    ("a program", {}, 200, 200),
]  # fmt: skip


@pytest.mark.parametrize(("what", "headers", "statement", "page"), LOADS, ids=[load[0] for load in LOADS])
def test_another_site_runs_nothing_here_without_a_click(
    patient_client: FlaskClient, what: str, headers: dict[str, str], statement: int, page: int
) -> None:
    for path, status in (
        ("/api/sql?q=SELECT 1", statement),
        ("/download/sql.csv?q=SELECT 1", statement),
        ("/jobs?model=synthetic&images=painted", page),
    ):
        with patient_client.get(path, headers=headers) as answer:
            assert answer.status_code == status, (what, path)


class Unread(io.BytesIO):
    """A body that must not be read."""

    def read(self, *_: object) -> bytes:
        """Fail."""
        raise AssertionError("the body was read")


BODIES = [
    ("/api/jobs", "POST", 2**20), ("/api/queries", "POST", 2**20), ("/_dash-update-component", "POST", 4 * 2**20),
    ("/login", "POST", 2**20), ("/no-such-route", "PUT", 2**20), ("/api/uploads", "POST", 24 * 2**20),
    ("/api/uploads/x/files/0", "PUT", 16 * 2**20),
]  # fmt: skip


@pytest.mark.parametrize(("path", "method", "most"), BODIES)
def test_a_body_is_refused_by_its_length_before_it_is_read(
    client: FlaskClient, path: str, method: str, most: int
) -> None:
    answer = client.open(
        path,
        method=method,
        content_type=JSON,
        environ_overrides={"CONTENT_LENGTH": str(most + 1), "wsgi.input": Unread()},
    )
    assert answer.status_code == 413
    assert answer.json == {"error": f"body: expected at most {most:,} bytes, got {most + 1:,}"}


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
