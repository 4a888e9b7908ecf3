"""The dashboard: `create_app(settings)` builds it; nothing happens at import.

Site map: `/` patches, `/channel` one channel, `/images` an image set, `/image` one image, `/saliency` maps,
`/attack` attacks, `/robustness` attacks on whole sets, `/sql` user queries, `/jobs` jobs. `/pictures/…`,
`/download/…`, `/choices/….json` and `/status.json` serve their data; `/api/…` is for programs too;
`/bootstrap/…` serves Bootstrap's files, `/modules/…` the JavaScript. Everything requires access except `/login`,
`/logout` and `/health.json` (see `security/middleware.py`).
"""

import functools
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import flask
import flask_bootstrap
from dash import Dash

from dashboard import document, router, shell
from dashboard.api.attacks import attack_api
from dashboard.api.choices import choices
from dashboard.api.errors import callback_fault, handle_faults
from dashboard.api.image_sets import set_api
from dashboard.api.openapi import document as document_of
from dashboard.api.routes import OPENAPI, api
from dashboard.api.routing import Routes
from dashboard.api.sql import sql_api, sql_downloads
from dashboard.api.status import status_route
from dashboard.api.uploads import uploads
from dashboard.downloads.attacks import attack_downloads
from dashboard.downloads.saliency import saliency_downloads
from dashboard.downloads.tables import downloads
from dashboard.pages.registry import PAGES
from dashboard.pictures.routes import pictures
from dashboard.security.middleware import guard
from dashboard.security.prefix import local
from dashboard.state.context import EXTENSION, Context, current
from dashboard.state.health import Health
from db.atlas.store import Atlas
from db.home import open_to_serve
from db.queries.federation import AtlasWithLedger
from db.settings import Settings
from db.sql.runner import SQLRunner
from db.stores.images import ImageStore
from db.stores.results import ResultStore
from workers.requests.submit import JobSubmitter

HERE = Path(__file__).parent
# The routes for programs, in the order of the OpenAPI document.
DESCRIBED: tuple[Routes, ...] = (
    api,
    attack_api,
    sql_api,
    uploads,
    set_api,
    downloads,
    attack_downloads,
    saliency_downloads,
    sql_downloads,
)


def create_app(settings: Settings) -> Dash:
    """The dashboard over one home; may be called more than once in a process."""
    app = Dash(
        "dashboard",
        assets_folder=str(HERE / "assets"),
        title="Convscope",
        update_title="",
        index_string=document.head(settings.url_prefix),
        requests_pathname_prefix=f"{settings.url_prefix}/",
        routes_pathname_prefix="/",
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        suppress_callback_exceptions=True,
        enable_mcp=False,
        on_error=callback_fault,
        use_async=False,  # with it, an installed asgiref would make every route start an event loop
    )
    app.layout = shell.layout
    server: flask.Flask = app.server
    handle_faults(server)
    guard(app, settings)
    ledger = open_to_serve(settings)
    ledger.serve_pages()
    atlas = Atlas(settings)
    server.extensions[EXTENSION] = Context(
        settings,
        atlas,
        ImageStore(settings),
        ledger,
        ResultStore(settings),
        JobSubmitter(settings, ledger),
        Health(settings),
        AtlasWithLedger(atlas, ledger),
        SQLRunner(settings, atlas, ledger),
    )
    for routes in (*DESCRIBED, choices):
        server.register_blueprint(routes.blueprint)
    for blueprint in (pictures, status_route):
        server.register_blueprint(blueprint)
    server.extensions[OPENAPI] = functools.cache(openapi)
    server.add_url_rule("/bootstrap/<path:name>", "bootstrap", bootstrap_file)
    server.add_url_rule("/modules/<version>/<path:name>", "modules", document.module_file)
    server.before_request(name_the_run)
    router.register(app)
    shell.register(app)
    for page in PAGES:
        page.register(app)
    return app


def openapi() -> dict[str, Any]:
    """The OpenAPI document of the routes for programs."""
    return document_of(route for routes in DESCRIBED for route in routes.described)


def name_the_run() -> flask.Response | None:
    """Redirect an address without an explicit run to the one that names it.

    The address bar then identifies what is shown, and shows the same after a newer run is published.
    """
    given = flask.request.args.to_dict()
    path = flask.request.path.rstrip("/") or "/"
    if path not in {page.path for page in PAGES}:
        return None
    query = given
    if not {"model", "images"} <= given.keys():
        run = current().catalogue().run(given.get("model", ""), given.get("images", ""))
        query = given if run is None else {"model": run["model"], "images": run["image_set"]} | given
    if query == given and path == flask.request.path:
        return None
    response = flask.redirect(local(path) + ("?" + urlencode(query) if query else ""))
    response.headers["Cache-Control"] = "no-store"
    return cast(flask.Response, response)


def bootstrap_file(name: str) -> flask.Response:
    """Bootstrap's CSS and icons from the Bootstrap-Flask package: nothing is loaded from a CDN."""
    folder = Path(flask_bootstrap.__file__).parent / "static" / "bootstrap5"
    return flask.send_from_directory(folder, name, max_age=86400)
