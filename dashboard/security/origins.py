"""Requests that a page of another site sent, or sent under a name that is not ours.

The browser of somebody who may is asked by any site that they visit to send requests here: with their cookie, with
the credentials that it remembers, or, on loopback, with no more than that it runs on this machine. What it cannot be
made to do is to lie about who asked.

**The host** of every request is one of ours, or a page whose name was made to lead here (DNS rebinding) would count as
our own. An address in numbers needs no name, so where all addresses are listened on any of them is ours.

**Changes** (every method but GET, HEAD and OPTIONS, Dash's callbacks included) are taken

1. by `Sec-Fetch-Site`, where the browser says it (HTTPS and loopback): `same-origin`, or `none`, which is the person
   herself; not `same-site`, which is another port or another host of the lab;
2. else by `Origin`, which every browser sends with a change: its host and port are those of `Host`. The scheme is not
   compared, since a proxy that speaks TLS may not have told us of it; a browser on HTTPS is held to 1;
3. else no browser of this decade has sent it. A program is taken where it sends JSON, or a password with each request,
   neither of which a form of another site does; otherwise only without a session's cookie and, of POST, which is what
   forms send, without a form's body.

**Reading** needs no such rule for its answer, which other sites cannot see, but a statement of SQL that another site's
image, frame or script asks for costs as much as any. So where `Sec-Fetch-Site` names another site, it may open a page
in a tab of its own (`Sec-Fetch-Mode: navigate`, `Sec-Fetch-Dest: document`), and everything else only where a person
clicked (`Sec-Fetch-User: ?1`).
"""

import ipaddress
import socket
from urllib.parse import urlsplit

import flask

from dashboard.security.access import LOOPBACK, WILDCARDS, is_loopback
from db.settings import Settings

READING = ("GET", "HEAD", "OPTIONS")
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
PORTS = {"http": 80, "https": 443}


def own_hosts(settings: Settings) -> frozenset[str]:
    """Names that requests may call this dashboard by, as `Host` writes them, without ports."""
    if is_loopback(settings.host):
        own: tuple[str, ...] = LOOPBACK
    elif settings.host in WILDCARDS:
        own = (*LOOPBACK, socket.gethostname().lower())
    else:
        own = (settings.host.lower(),)
    bracketed = f"[{settings.host.lower()}]" if ":" in settings.host else settings.host.lower()
    return frozenset({*own, bracketed, *settings.hosts})


def wrong_host(request: flask.Request, settings: Settings, own: frozenset[str]) -> str:
    """What is wrong with the host that a request names; empty where nothing is."""
    given = request.environ.get("HTTP_HOST", "")
    host = _without_port(given)
    if host in own or (settings.host in WILDCARDS and _is_address(host)):
        return ""
    return (
        f"host: expected one of {', '.join(sorted(own))}, got {given!r}: if it is this dashboard's, name it in "
        "CONVSCOPE_HOSTS"
    )


def _without_port(given: str) -> str:
    host, separator, port = given.lower().rpartition(":")
    return host if separator and port.isascii() and port.isdecimal() else given.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def from_elsewhere(request: flask.Request, *, cookie: str, is_page: bool = False) -> str:
    """Why a request is not taken for one of our own pages' or a program's; empty where it is.

    `cookie` is the name of the session's. `is_page`: a page is asked for, which costs little before it runs.
    """
    site = request.headers.get("Sec-Fetch-Site", "").lower()
    if request.method in READING:
        if site not in ("cross-site", "same-site"):
            return ""
        mode = request.headers.get("Sec-Fetch-Mode", "navigate").lower()
        target = request.headers.get("Sec-Fetch-Dest", "document").lower()
        if (
            mode == "navigate"
            and target == "document"
            and (is_page or request.headers.get("Sec-Fetch-User") == "?1")
        ):
            return ""
        return "another site may link here, but not load or open anything from here without a click"
    origin = request.headers.get("Origin")
    if site:
        return "" if site in ("same-origin", "none") else _refusal(origin or site, request)
    if origin is not None:
        return "" if _is_same(origin, request) else _refusal(origin, request)
    if request.mimetype == "application/json" or request.authorization is not None:
        return ""
    if cookie in request.cookies or (request.method == "POST" and request.mimetype in FORMS):
        return (
            "a form of another site could have sent this: a program sends application/json, or the password with "
            "each request by HTTP Basic authentication"
        )
    return ""


def _refusal(origin: str, request: flask.Request) -> str:
    here = request.environ.get("HTTP_HOST", "")
    return f"expected a request from this dashboard's own pages at {here}, got one from {origin[:200]}"


def _is_same(origin: str, request: flask.Request) -> bool:
    try:
        sent = urlsplit(origin)
        port = sent.port or PORTS.get(sent.scheme)
        # without a port, `Host` means that of the scheme that the browser speaks
        here = urlsplit(f"{sent.scheme}://{request.environ.get('HTTP_HOST', '')}")
        here_port = here.port or PORTS.get(sent.scheme)
    except ValueError:
        return False
    return sent.scheme in PORTS and sent.hostname == here.hostname and port == here_port
