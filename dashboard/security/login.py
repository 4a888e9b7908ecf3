"""The login page and its sessions.

A session is a cookie signed with the home's secret and the password: it expires after LIFETIME, or when the
password changes. The server stores no sessions: logging out deletes the cookie, but a copy of it would remain
valid until it expires.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlencode, urlsplit

import flask
from flask.sessions import SecureCookieSessionInterface

from dashboard.security.access import SESSION, address_key, rules
from dashboard.security.headers import INLINE_SCRIPTS
from dashboard.security.prefix import local, page_path
from db.files import is_writable, make_home, sync
from db.settings import Settings

LIFETIME = timedelta(days=30)
SECRET_BYTES = 32
MAX_FORM = 16 << 10
MAX_NEXT = 4000
FIRST_PAGE = "/"

login = flask.Blueprint("login", __name__, template_folder="templates")


class SecretError(RuntimeError):
    """The secret's file has unexpected content; the message is one sentence."""


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookie with SHA-256; marked Secure if it was set over HTTPS."""

    digest_method = staticmethod(hashlib.sha256)

    def get_cookie_secure(self, app: flask.Flask) -> bool:  # noqa: ARG002
        """Whether the browser may send the cookie over HTTPS only."""
        return flask.request.is_secure


def open_sessions(server: flask.Flask, settings: Settings) -> None:
    """Set up the application's sessions; without a password there are none."""
    if not settings.password:
        return
    secret = read_secret(settings.home)
    server.session_interface = Sessions()
    server.secret_key = hmac.digest(secret, settings.password.encode("utf-8", "surrogatepass"), "sha256")
    server.config.update(
        # cookies are per host, not per port: two dashboards on one host must not share a name
        SESSION_COOKIE_NAME=f"convscope-{hmac.digest(secret, b'name', 'sha256').hex()[:8]}",
        SESSION_COOKIE_PATH=f"{settings.url_prefix}/",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=LIFETIME,
    )


def read_secret(home: Path) -> bytes:
    """The home's secret, created on first use; concurrent callers agree on one.

    Raises:
        SecretError: the file has unexpected content.
        OSError: the file cannot be read or created.
    """
    path = home / "session.key"
    if not path.exists() and not is_writable(home):
        return secrets.token_bytes(SECRET_BYTES)  # sessions end with this process
    if not path.exists():
        make_home(home)
        temporary = home / f".session.key.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(home)
    found = path.read_bytes()
    if len(found) != SECRET_BYTES:
        raise SecretError(
            f"{path}: expected {SECRET_BYTES} bytes, got {len(found)}: delete it, and all users log in again"
        )
    return found


@login.get("/login")
def show_login() -> flask.Response:
    """The login form; a client that already has access is redirected to the page it requested."""
    access = rules()
    there = own_path(flask.request.args.get("next", ""))
    if access.visitor(flask.request) is not None:
        return _go(there)
    if not access.settings.password:
        return _page(
            there, 403, "The proxy that logs people in has not said who you are: open Convscope through it."
        )
    return _page(there, 200)


@login.post("/login")
def log_in() -> flask.Response:
    """Start a session if the password is correct."""
    flask.request.max_content_length = MAX_FORM
    access = rules()
    there = own_path(flask.request.form.get("next", ""))
    if not access.settings.password:
        return _go(local(FIRST_PAGE))
    address = address_key(flask.request)
    if access.try_password(flask.request.form.get("password", ""), address):
        flask.session.clear()
        flask.session.permanent = True
        flask.session[SESSION] = secrets.token_hex(16)
        return _go(there)
    wait = access.limits.seconds_to_wait("wrong passwords", address)
    if not wait:
        return _page(there, 403, "That is not the password.")
    response = _page(there, 429, f"Too many wrong passwords: try again in {wait} s.")
    response.headers["Retry-After"] = str(wait)
    return response


@login.post("/logout")
def log_out() -> flask.Response:
    """End the session, if there is one."""
    if rules().settings.password:
        flask.session.clear()
    return _go(local("/login"))


def login_address(request: flask.Request) -> str:
    """Address of the login page that leads back to what a request wanted."""
    asked = request.full_path.removesuffix("?")
    return local("/login") + ("" if asked == FIRST_PAGE else "?" + urlencode({"next": local(asked)}))


def own_path(given: str) -> str:
    r"""A path of this dashboard, or its first page for anything else (`//evil`, `/\evil`, `https:evil`).

    Browsers treat a backslash as a slash and drop tabs and line breaks, so a path may contain none of them.
    """
    first = local(FIRST_PAGE)
    wrong = "\\" in given or not given.isprintable() or len(given) > MAX_NEXT
    if wrong or not given.startswith(first) or given.startswith("//"):
        return first
    try:
        parts = urlsplit(given)
    except ValueError:
        return first
    leads_out = ".." in parts.path.split("/") or page_path(parts.path) in ("/login", "/logout")
    return first if parts.scheme or parts.netloc or leads_out else given


def _go(there: str) -> flask.Response:
    response = flask.redirect(there, 303)
    response.headers["Cache-Control"] = "no-store"
    return cast(flask.Response, response)


def _page(there: str, status: int, trouble: str = "") -> flask.Response:
    has_form = bool(rules().settings.password)
    text = flask.render_template(
        "login.html", next=there, trouble=trouble, has_form=has_form, script=INLINE_SCRIPTS[0]
    )
    return flask.Response(text, status, headers={"Cache-Control": "no-store"})
