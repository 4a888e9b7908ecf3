"""Protection against cross-site requests and DNS rebinding.

Any site that a user visits can make the user's browser send requests to this dashboard: with the session
cookie, with remembered credentials, or, on loopback, simply because it runs on this machine. The site cannot
make the browser lie about the origin of the request.

**The host** of every request must be one of ours; otherwise a page whose name resolves to this server (DNS
rebinding) would count as our own. A numeric address needs no name, so if the server listens on all addresses,
any numeric address is accepted.

**Changes** (every method except GET, HEAD and OPTIONS, including Dash's callbacks) are accepted

1. by `Sec-Fetch-Site`, if the browser sends it (HTTPS and loopback): `same-origin`, or `none`, which means
   the user started the request; not `same-site`, which is another port or another host of the lab;
2. else by `Origin`, which every browser sends with a change: its host and port must equal those of `Host`.
   The scheme is not compared, because a TLS-terminating proxy may not have forwarded it; a browser on HTTPS
   is subject to rule 1;
3. else no current browser sent the request. A program is accepted if it sends JSON, or a password with each
   request, neither of which a form on another site can do. Otherwise it is accepted only without a session
   cookie and, for POST, which is what forms use, without a form body.

**Reads** need no such rule to protect the response, which other sites cannot read. But a SQL statement
requested by another site's image, frame or script costs as much as any other. If `Sec-Fetch-Site` names
another site, it may therefore open a page in its own tab (`Sec-Fetch-Mode: navigate`, `Sec-Fetch-Dest:
document`); everything else also requires a user's click (`Sec-Fetch-User: ?1`).
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
    """Host names of this dashboard that requests may use, as in `Host`, without ports."""
    if is_loopback(settings.host):
        own: tuple[str, ...] = LOOPBACK
    elif settings.host in WILDCARDS:
        own = (*LOOPBACK, socket.gethostname().lower())
    else:
        own = (settings.host.lower(),)
    bracketed = f"[{settings.host.lower()}]" if ":" in settings.host else settings.host.lower()
    return frozenset({*own, bracketed, *settings.hosts})


def wrong_host(request: flask.Request, settings: Settings, own: frozenset[str]) -> str:
    """Why the host of a request is rejected; empty if it is accepted."""
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
    """Why a request is rejected as cross-site; empty if it is accepted.

    `cookie` is the name of the session cookie. `is_page`: the request is for a page, which is cheap until its
    callbacks run.
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
        # without a port, `Host` means the default port of the browser's scheme
        here = urlsplit(f"{sent.scheme}://{request.environ.get('HTTP_HOST', '')}")
        here_port = here.port or PORTS.get(sent.scheme)
    except ValueError:
        return False
    return sent.scheme in PORTS and sent.hostname == here.hostname and port == here_port
