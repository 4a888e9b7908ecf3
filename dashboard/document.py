"""The HTML document around every page, and the JavaScript modules that it loads.

The modules import one another by relative path. They are served below a folder named after the hash of all of
them, so browsers keep them for good and never mix two versions. Every page loads those in `browser/`; those in
`browser/vendor/` are the libraries that a page imports when it needs them.
"""

import functools
import hashlib
from pathlib import Path

import flask

MODULES = Path(__file__).parent / "browser"
YEAR = 365 * 24 * 60 * 60

# Sets the theme before the first paint, so a dark page never flashes white.
HEAD = """<!DOCTYPE html>
<html lang="en" data-bs-theme="light">
    <head>
        {%metas%}
        <title>{%title%}</title>
        <link rel="icon" href="/assets/mark.svg" type="image/svg+xml">
        <script>
            (function () {
                var kept = null;
                try { kept = localStorage.getItem("convscope-theme"); } catch (error) { /* private mode */ }
                var dark = window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches;
                document.documentElement.setAttribute("data-bs-theme", kept || (dark ? "dark" : "light"));
            })();
        </script>
        <link rel="stylesheet" href="/bootstrap/css/bootstrap.min.css">
        <link rel="stylesheet" href="/bootstrap/css/font/bootstrap-icons.min.css">
        {%css%}
        {modules}
    </head>
    <body>
        {%app_entry%}
        <footer>{%config%}{%scripts%}{main}</footer>
    </body>
</html>"""


def head(prefix: str) -> str:
    """The HTML around Dash's own markup, for a dashboard served below `prefix`.

    Dash's renderer is started by `browser/main.js`, once the clientside callbacks it will look for are there.
    """
    version = modules_version()
    folder = f"/modules/{version}"
    preloads = [
        f'<link rel="modulepreload" href="{folder}/{name}">' for name in _modules() if "/" not in name
    ]
    main = f'<script id="_dash-renderer" type="module" src="{folder}/main.js"></script>'
    page = HEAD.replace("{modules}", "\n        ".join(preloads)).replace("{main}", main)
    for attribute in ("href", "src"):
        page = page.replace(f'{attribute}="/', f'{attribute}="{prefix}/')
    return page


def modules_version() -> str:
    """Hash of the modules' names and contents."""
    found = hashlib.sha256()
    for name, path in _modules().items():
        stat = path.stat()
        found.update(f"{name}\n".encode() + _digest(path, stat.st_mtime_ns, stat.st_size))
    return found.hexdigest()[:16]


@functools.lru_cache(maxsize=200)
def _digest(path: Path, _modified: int, _size: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def module_file(version: str, name: str) -> flask.Response:
    """One module. Only the present version may be kept: a page that is older than the server loads the new one."""
    path = _modules().get(name)
    if path is None:
        flask.abort(404)
    response = flask.send_file(path, mimetype="text/javascript", max_age=0)
    if version == modules_version():
        response.headers["Cache-Control"] = f"public, max-age={YEAR}, immutable"
    return response


def _modules() -> dict[str, Path]:
    """Files by their paths below MODULES."""
    found = [*MODULES.glob("*.js"), *MODULES.glob("vendor/*.js")]
    return {path.relative_to(MODULES).as_posix(): path for path in sorted(found)}
