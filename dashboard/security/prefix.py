"""URL prefix of a dashboard that shares a site with others (`CONVSCOPE_URL_PREFIX`).

Routes do not know the prefix: `UnderPrefix` strips it from each request's path. Every address in pages,
responses and redirects includes it: `local` adds it. In the browser, `local` and `pagePath`
of `browser/base.js` do the same.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import flask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class UnderPrefix:
    """WSGI middleware that serves an application below `prefix`, even if a proxy has already stripped it."""

    def __init__(self, application: "WSGIApplication", prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Handle one request."""
        path = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            environ["PATH_INFO"] = path[len(self._prefix) :]
        environ["SCRIPT_NAME"] = self._prefix
        return self._application(environ, start_response)


def local(path: str) -> str:
    """A path of this dashboard as the browser must request it."""
    return (flask.request.script_root if flask.has_request_context() else "") + path


def page_path(pathname: str | None) -> str | None:
    """The page's path without the prefix, from the path in the browser's address bar."""
    if pathname is None:
        return None
    return pathname.removeprefix(local("")) or "/"
