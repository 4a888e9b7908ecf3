"""The prefix of all addresses, for a dashboard that is one of several places of a site (`CONVSCOPE_URL_PREFIX`).

Routes know nothing of it: `UnderPrefix` takes it off each request's path. Whatever leaves, in pages, answers and
redirects, has it: `local` puts it on. In the browser, `convscope.local` and `convscope.pagePath` do the same.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import flask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class UnderPrefix:
    """An application whose addresses begin with `prefix`, also where a proxy has taken that off already."""

    def __init__(self, application: "WSGIApplication", prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """One request."""
        path = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            environ["PATH_INFO"] = path[len(self._prefix) :]
        environ["SCRIPT_NAME"] = self._prefix
        return self._application(environ, start_response)


def local(path: str) -> str:
    """A path of this dashboard as a browser is to ask for it."""
    return (flask.request.script_root if flask.has_request_context() else "") + path


def page_path(pathname: str | None) -> str | None:
    """The path of a page, of what a browser's address bar says."""
    if pathname is None:
        return None
    return pathname.removeprefix(local("")) or "/"
