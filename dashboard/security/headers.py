"""Security headers of every response: what a page may load, who may embed it, and who may cache it."""

import base64
import hashlib
import re
from collections.abc import Callable

import flask
from dash import Dash

from dashboard import document
from dashboard.security.access import rules

INLINE_SCRIPTS: tuple[str, ...] = tuple(re.findall(r"<script>(.*?)</script>", document.HEAD, re.DOTALL))
# Dash components, the diagram and the editor inject inline styles; scripts are files, or inline ones with a
# known hash.
POLICY = (
    "default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
FIXED = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HSTS = "max-age=31536000"


def secure(app: Dash) -> Callable[[flask.Response], flask.Response]:
    """A function that adds the headers to each response of `app`."""

    def add(response: flask.Response) -> flask.Response:
        # Dash adds scripts when the first page is requested
        scripts = " ".join([*map(_hash, INLINE_SCRIPTS), *app.csp_hashes()])
        response.headers["Content-Security-Policy"] = POLICY.format(scripts=scripts)
        for name, value in FIXED.items():
            response.headers[name] = value
        if flask.request.is_secure:
            response.headers["Strict-Transport-Security"] = HSTS
        if rules().asks_for_login:
            _keep_private(response)
        return response

    return add


def _keep_private(response: flask.Response) -> None:
    """Keep responses out of shared caches, and pages out of the browser's cache after logout."""
    kept = re.sub(r"\bpublic\b", "private", response.headers.get("Cache-Control", "no-store"))
    said = "private" in kept or "no-store" in kept
    response.headers["Cache-Control"] = kept if said else f"private, {kept}"


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
