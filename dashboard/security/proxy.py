"""Reverse proxies: what they say is believed, what others say in their words is not."""

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

from db.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BY_PROXY = "convscope.by_proxy"  # no header can make it: those begin with HTTP_


class BehindProxy:
    """An application behind reverse proxies.

    Of a request from one of `settings.proxies`, the client's address and scheme are what it says in
    `X-Forwarded-For` and `X-Forwarded-Proto`. Not the host: a page of another site whose name leads here by DNS
    rebinding can send `X-Forwarded-Host`, and not `Host`. From elsewhere, the user header is taken away.
    """

    def __init__(self, application: "WSGIApplication", settings: Settings) -> None:
        self._application = application
        self._fixed = ProxyFix(application, x_for=1, x_proto=1)
        self._proxies = settings.proxies
        self._user = "HTTP_" + settings.user_header.upper().replace("-", "_")

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """One request."""
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
        # a socket for both versions shows addresses of version 4 as ::ffff:127.0.0.1
        known = getattr(address, "ipv4_mapped", None) or address
        return any(known in network for network in self._proxies)


def is_from_proxy(environ: dict[str, Any]) -> bool:
    """Whether one of the proxies sent this request."""
    return environ.get(BY_PROXY) is True
