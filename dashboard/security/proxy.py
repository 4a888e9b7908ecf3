"""Reverse proxies: their forwarded headers are trusted, the same headers from anyone else are not."""

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

from db.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BY_PROXY = "convscope.by_proxy"  # no header can set it: header keys start with HTTP_


class BehindProxy:
    """WSGI middleware for an application behind reverse proxies.

    For a request from one of `settings.proxies`, the client's address and scheme are taken from
    `X-Forwarded-For` and `X-Forwarded-Proto`. The host is not: a page whose name resolves to this server (DNS
    rebinding) can set `X-Forwarded-Host` but not `Host`. For requests from elsewhere, the user header is
    removed.
    """

    def __init__(self, application: "WSGIApplication", settings: Settings) -> None:
        self._application = application
        self._fixed = ProxyFix(application, x_for=1, x_proto=1)
        self._proxies = settings.proxies
        self._user = "HTTP_" + settings.user_header.upper().replace("-", "_")

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Handle one request."""
        if self._is_proxy(environ.get("REMOTE_ADDR", "")):
            environ[BY_PROXY] = True
            return self._fixed(environ, start_response)
        environ.pop(self._user, None)
        return self._application(environ, start_response)

    def _is_proxy(self, sender: str) -> bool:
        try:
            address = ipaddress.ip_address(sender)
        except ValueError:
            return False
        # a dual-stack socket reports IPv4 addresses as ::ffff:127.0.0.1
        known = getattr(address, "ipv4_mapped", None) or address
        return any(known in network for network in self._proxies)


def is_from_proxy(environ: dict[str, Any]) -> bool:
    """Whether one of the trusted proxies sent this request."""
    return environ.get(BY_PROXY) is True
