"""Headers of every response, and scripts that the content security policy lists."""

import base64
import dataclasses
import hashlib
import re

import pytest
from flask.testing import FlaskClient

from dashboard.app import create_app
from dashboard.pages.registry import PAGES
from db.settings import Settings

EVERYWHERE = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def policy(header: str) -> dict[str, list[str]]:
    """Return the sources by directive."""
    parts = [part.split() for part in header.split(";")]
    return {words[0]: words[1:] for words in parts}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 302), ("/jobs?model=synthetic&images=painted", 200), ("/no-such-page", 200), ("/api/jobs", 200),
     ("/api/jobs/999", 404), ("/api/sql?q=DROP", 400), ("/assets/overview.css", 200), ("/assets/none.js", 404),
     ("/bootstrap/css/bootstrap.min.css", 200), ("/_dash-layout", 200), ("/download/images.csv", 200),
     ("/health.json", 200), ("/login", 303)],
)  # fmt: skip
def test_every_answer_has_them(client: FlaskClient, path: str, status: int) -> None:
    with client.get(path) as answer:
        assert answer.status_code == status
        assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE
        assert "camera=()" in answer.headers["Permissions-Policy"]
        found = policy(answer.headers["Content-Security-Policy"])
        assert found["default-src"] == ["'self'"]
        assert found["frame-ancestors"] == found["object-src"] == found["base-uri"] == ["'none'"]
        assert "Strict-Transport-Security" not in answer.headers, "on HTTPS alone"


def test_refusals_have_them_as_well(filled_settings: Settings) -> None:
    client = create_app(dataclasses.replace(filled_settings, password="correct horse")).server.test_client()
    for answer in (
        client.get("/api/jobs"),
        client.post("/api/jobs", headers={"Origin": "http://evil.example"}),
        client.get("/", headers={"Host": "evil.example"}),
        client.put("/login"),
        client.get("/login"),
    ):
        assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE, answer.status


def test_https_is_to_be_kept(client: FlaskClient) -> None:
    answer = client.get("/health.json", base_url="https://localhost")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize("path", [*(page.path for page in PAGES), "/login"])
@pytest.mark.parametrize("first", [True, False], ids=["first request", "later"])
def test_only_the_scripts_of_the_page_may_run_inline(
    filled_settings: Settings, path: str, first: bool
) -> None:
    client = create_app(dataclasses.replace(filled_settings, password="correct horse")).server.test_client()
    if not first:
        client.get("/health.json")
    answer = client.get(
        path, auth=("x", "correct horse") if path != "/login" else None, follow_redirects=True
    )
    assert answer.status_code == 200
    sources = policy(answer.headers["Content-Security-Policy"])["script-src"]
    inline = [
        script
        for attributes, script in re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.DOTALL)
        if script and "application/json" not in attributes
    ]
    assert inline
    for script in inline:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in sources, script[:80]
    assert "'unsafe-inline'" not in sources
    assert "'unsafe-eval'" not in sources
    assert not re.search(r"<[^>]+\son[a-z]+=", answer.text), "no script in an attribute"
