"""Access control before every route, installed by `guard(app, settings)`.

    request -> proxy headers -> host -> origin -> size -> visitor -> limits -> route -> headers

`OPEN` lists everything public; every other route, including future ones, requires access.
"""

from urllib.parse import urlsplit

import flask
from dash import Dash

from dashboard.api.answers import answer
from dashboard.api.uploads import MAX_LIST, MAX_PIECE
from dashboard.security import headers
from dashboard.security.access import EXTENSION, Access, TooManyRequests, address_key, rules, spend
from dashboard.security.limits import Limits, spent_by
from dashboard.security.login import login, login_address, open_sessions
from dashboard.security.origins import from_elsewhere, own_hosts, wrong_host
from dashboard.security.prefix import UnderPrefix, local
from dashboard.security.proxy import BehindProxy
from db.settings import Settings

OPEN = frozenset(
    {
        "/health.json",
        "/login",
        "/logout",  # redirects to the login page
        # used by the login page
        "/assets/style.css",
        "/assets/mark.svg",
        "/bootstrap/css/bootstrap.min.css",
    }
)
# Maximum request body in bytes by route prefix; the first match applies. JSON takes up to thirty times its
# size once parsed.
MAX_BODIES = (
    ("/api/uploads/<upload>/files/", MAX_PIECE),
    ("/api/uploads", MAX_LIST),
    ("/_dash-update-component", 4 << 20),  # contains the state of a page
    ("", 1 << 20),
)
PAGES = ("/", "/<path:path>")  # Dash's page routes, which also match unknown pages
BASIC = 'Basic realm="Convscope", charset="UTF-8"'
# An authentication scheme unknown to browsers: for Basic they would open their own dialog over an open page.
FORM = 'Form realm="Convscope"'


def guard(app: Dash, settings: Settings) -> None:
    """Restrict the application to clients with access."""
    server: flask.Flask = app.server
    limits = Limits(jobs=settings.jobs_per_minute, sql=settings.sql_per_minute)
    server.extensions[EXTENSION] = Access(settings, limits)
    open_sessions(server, settings)
    own = own_hosts(settings)
    if settings.proxies:
        server.wsgi_app = BehindProxy(server.wsgi_app, settings)  # type: ignore[method-assign]
    if settings.url_prefix:
        server.wsgi_app = UnderPrefix(server.wsgi_app, settings.url_prefix)  # type: ignore[method-assign]
    server.register_blueprint(login)
    server.before_request(lambda: pass_on(own))
    server.after_request(headers.secure(app))


def pass_on(own: frozenset[str]) -> flask.Response | None:
    """None if the current request may continue to its route, else the response to send instead."""
    request, access = flask.request, rules()
    trouble = wrong_host(request, access.settings, own)
    if trouble:
        return refuse(400, trouble)
    cookie = flask.current_app.config["SESSION_COOKIE_NAME"]
    trouble = from_elsewhere(request, cookie=cookie, is_page=_is_page())
    if trouble:
        return refuse(403, trouble)
    most = max_body(request.url_rule.rule if request.url_rule else "")
    if (request.content_length or 0) > most:
        return refuse(413, f"body: expected at most {most:,} bytes, got {request.content_length:,}")
    request.max_content_length = most
    if request.path in OPEN:
        return None
    visitor = access.visitor(request)
    if visitor is None:
        return _ask_for_login(access)
    flask.g.visitor = visitor
    bucket = spent_by(request.method, request.url_rule.rule if request.url_rule else "")
    try:
        if bucket:
            spend(bucket)
    except TooManyRequests as error:
        return refuse(429, str(error), wait=error.wait)
    return None


def max_body(rule: str) -> int:
    """Maximum body size in bytes of a request to a route."""
    return next(most for beginning, most in MAX_BODIES if rule.startswith(beginning))


def refuse(status: int, sentence: str, *, wait: int = 0) -> flask.Response:
    """An error sentence: as text for a user who opens a page, else as JSON."""
    if _is_page():
        response = flask.Response(sentence + "\n", status, mimetype="text/plain")
        response.headers["Cache-Control"] = "no-store"
    else:
        response = answer({"error": sentence}, status)
    if wait:
        response.headers["Retry-After"] = str(wait)
    return response


def _is_page() -> bool:
    rule = flask.request.url_rule
    return rule is not None and rule.rule in PAGES and flask.request.method in ("GET", "HEAD")


def _ask_for_login(access: Access) -> flask.Response:
    request = flask.request
    basic = request.authorization is not None and access.settings.password
    wait = access.limits.seconds_to_wait("wrong passwords", address_key(request)) if basic else 0
    if wait:
        return refuse(429, f"too many wrong passwords: try again in {wait} s", wait=wait)
    if _is_page():
        response = flask.redirect(login_address(request))
        response.headers["Cache-Control"] = "no-store"
        assert isinstance(response, flask.Response)
        return response
    if not access.settings.password:
        return refuse(403, "the proxy that logs people in has not said who you are: ask through it")
    response = refuse(
        401,
        "log in: send the dashboard's password by HTTP Basic authentication, with any user name, or open "
        + local("/login"),
    )
    response.headers["WWW-Authenticate"] = FORM if _asked_by_a_page(request) else BASIC
    return response


def _asked_by_a_page(request: flask.Request) -> bool:
    """Whether the sender is one of our own pages after its session expired, not a program or a user."""
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode != "navigate"
    try:
        return urlsplit(request.headers.get("Referer", "")).netloc == request.host
    except ValueError:
        return False
