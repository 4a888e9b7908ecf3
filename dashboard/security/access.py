"""Access control: who may use the dashboard, and under which name.

Without a password and a user header there is no login, and the server only listens on loopback. With a
password, anyone who knows it has full access, through a session (see `login.py`) or, for programs, HTTP Basic
authentication. With a user header, anyone named by the proxy has full access; the header is trusted only from
the proxy (see `proxy.py`).
"""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from typing import cast

import flask

from dashboard.security.limits import Limits
from dashboard.security.proxy import is_from_proxy
from db.settings import Settings

EXTENSION = "convscope-access"
SESSION = "session"  # key in the session cookie; its random value identifies the session to rate limits
WILDCARDS = ("", "0.0.0.0", "::", "0", "*")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MAX_NAME = 100


class TooManyRequests(ValueError):
    """The visitor has used up a rate limit; the message is one sentence, `wait` the seconds until the next token."""

    def __init__(self, name: str, most: int, wait: int) -> None:
        super().__init__(f"expected at most {most:,} {name} a minute, got more: wait {wait} s")
        self.wait = wait


class NoLogin(RuntimeError):
    """The dashboard would be reachable from other machines without authentication; the message is one sentence."""


@dataclass(frozen=True)
class Visitor:
    """A client with access. `name` is the user name set by the proxy; rate limits are counted per `key`."""

    name: str
    key: str
    may_log_out: bool = False


@dataclass(frozen=True)
class Access:
    """Access rules of one application, and the rate limits used up by its visitors."""

    settings: Settings
    limits: Limits

    @property
    def asks_for_login(self) -> bool:
        """Whether authentication is required."""
        return bool(self.settings.password or self.settings.user_header)

    def visitor(self, request: flask.Request) -> Visitor | None:
        """The sender of a request; None without access. A wrong password in HTTP Basic counts."""
        address = address_key(request)
        if not self.asks_for_login:
            return Visitor("", address)
        name = self._named_by_proxy(request)
        if name:
            return Visitor(name, f"user {name}")
        if not self.settings.password:
            return None
        session = flask.session.get(SESSION)
        if isinstance(session, str):
            return Visitor("", f"session {session}", may_log_out=True)
        given = request.authorization
        if given is None or given.type != "basic" or given.password is None:
            return None
        return Visitor("", address) if self.try_password(given.password, address) else None

    def _named_by_proxy(self, request: flask.Request) -> str:
        if not self.settings.user_header or not is_from_proxy(request.environ):
            return ""
        sent = request.headers.get(self.settings.user_header, "")
        name = sent.encode("latin-1", "replace").decode("utf-8", "replace").strip()
        return "".join(letter for letter in name if letter.isprintable())[:MAX_NAME]

    def try_password(self, given: str, address: str) -> bool:
        """Whether `given` is the password. Always False while `address` is blocked for too many wrong ones."""
        if self.limits.seconds_to_wait("wrong passwords", address):
            return False
        if same_text(given, self.settings.password):
            return True
        self.limits.spend("wrong passwords", address)
        return False


def same_text(given: str, expected: str) -> bool:
    """Compare without leaking through timing how much of `given` matches or how long `expected` is."""
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, expected)]
    return hmac.compare_digest(digests[0], digests[1])


def address_key(request: flask.Request) -> str:
    """Rate limit key of an unnamed client: its address, or for IPv6 its /64 network, all of which it may own."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return "address unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return f"address {ipaddress.ip_network((address, 64), strict=False)}"
    return f"address {getattr(address, 'ipv4_mapped', None) or address}"


def rules() -> Access:
    """Access rules of the application that serves the current request."""
    return cast(Access, flask.current_app.extensions[EXTENSION])


def who() -> Visitor | None:
    """Sender of the current request; None if it was not authenticated, as on the login page."""
    return cast(Visitor | None, flask.g.get("visitor"))


def spend(name: str) -> None:
    """Take one of the visitor's tokens from a bucket of `limits`.

    The middleware does so for routes. Callbacks of pages share one route: those that submit a job or run a
    user's SQL call this.

    Raises:
        TooManyRequests: there is none left.
    """
    visitor = who()
    if visitor is None:
        return
    limits = rules().limits
    wait = limits.spend(name, visitor.key)
    if wait:
        raise TooManyRequests(name, limits.most[name], wait)


def is_loopback(host: str) -> bool:
    """Whether a dashboard that listens on `host` is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_binding(settings: Settings) -> None:
    """Refuse to listen on a reachable address without authentication.

    Raises:
        NoLogin: neither a password nor a user header is set, and the host is not loopback.
    """
    if settings.password or settings.user_header or is_loopback(settings.host):
        return
    raise NoLogin(
        f"others could reach {settings.host or 'all addresses'} and nothing would ask who they are: set "
        "CONVSCOPE_PASSWORD, or CONVSCOPE_USER_HEADER behind a proxy that logs people in, or listen on 127.0.0.1"
    )
