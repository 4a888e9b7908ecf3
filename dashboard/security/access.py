"""Who may use the dashboard, and as whom.

Without a password and a user header there is no login, and only loopback is served. With a password, whoever knows it
may do everything, by a session (see `login.py`) or, programs, by HTTP Basic authentication. With a user header,
whomever the proxy names may do everything; the proxy alone is believed (see `proxy.py`).
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
SESSION = "session"  # what a cookie holds: a number of its own, which limits count
WILDCARDS = ("", "0.0.0.0", "::", "0", "*")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MAX_NAME = 100


class NoLogin(RuntimeError):
    """Others could reach the dashboard and nothing would ask who they are; the message is one sentence."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who may. `name` is what the proxy calls them, `key` whom limits count."""

    name: str
    key: str
    may_log_out: bool = False


@dataclass(frozen=True)
class Access:
    """The rules of one application, and what its visitors have spent."""

    settings: Settings
    limits: Limits

    @property
    def asks_for_login(self) -> bool:
        """Whether somebody may not."""
        return bool(self.settings.password or self.settings.user_header)

    def visitor(self, request: flask.Request) -> Visitor | None:
        """Who asks, None where they may not. A wrong password of HTTP Basic is counted."""
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
        """Whether it is the password. False for any, right or wrong, while `address` has been wrong too often."""
        if self.limits.seconds_to_wait("wrong passwords", address):
            return False
        if same_text(given, self.settings.password):
            return True
        self.limits.spend("wrong passwords", address)
        return False


def same_text(given: str, expected: str) -> bool:
    """Compare in a time that tells neither how much of `given` fits nor how long `expected` is."""
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, expected)]
    return hmac.compare_digest(digests[0], digests[1])


def address_key(request: flask.Request) -> str:
    """Whom limits count where nobody is known: an address; of version 6 its network, for one person has a whole one."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return "address unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return f"address {ipaddress.ip_network((address, 64), strict=False)}"
    return f"address {getattr(address, 'ipv4_mapped', None) or address}"


def rules() -> Access:
    """Those of the application that serves the present request."""
    return cast(Access, flask.current_app.extensions[EXTENSION])


def who() -> Visitor | None:
    """Who sent the present request; None where nobody was asked, as on the login page."""
    return cast(Visitor | None, flask.g.get("visitor"))


def is_loopback(host: str) -> bool:
    """Whether a dashboard that listens on `host` is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_binding(settings: Settings) -> None:
    """Refuse to listen where others reach the dashboard and nothing asks who they are.

    Raises:
        NoLogin: neither a password nor a user header is set, and the host is not loopback.
    """
    if settings.password or settings.user_header or is_loopback(settings.host):
        return
    raise NoLogin(
        f"others could reach {settings.host or 'all addresses'} and nothing would ask who they are: set "
        "CONVSCOPE_PASSWORD, or CONVSCOPE_USER_HEADER behind a proxy that logs people in, or listen on 127.0.0.1"
    )
