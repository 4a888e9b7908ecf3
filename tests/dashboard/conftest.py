"""A published synthetic atlas, and the dashboard over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dash import Dash
from flask.testing import FlaskClient
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.app import create_app
from dashboard.state.context import EXTENSION, Context
from db.settings import Settings, read_settings

IMAGES = 60


@pytest.fixture(scope="session")
def filled_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a home with 60 images and a run of a simulated ConvNeXt over them; read-only."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("home"))})
    import_pictures(settings, painted_pictures(IMAGES), image_set="painted")
    add_run(settings, image_set="painted")
    return settings


@pytest.fixture(scope="session")
def filled_app(filled_settings: Settings) -> Dash:
    """The dashboard over the filled home."""
    return create_app(filled_settings)


@pytest.fixture
def context(filled_app: Dash) -> Iterator[Context]:
    """The context of the filled dashboard, within a request, as callbacks and pages see it."""
    with filled_app.server.test_request_context():
        found: Context = filled_app.server.extensions[EXTENSION]
        yield found


@pytest.fixture
def client(filled_app: Dash) -> FlaskClient:
    """A client for the routes of the filled dashboard."""
    return filled_app.server.test_client()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[FlaskClient, Context]:
    """A dashboard of 12 images whose ledger a module's tests fill: a client for its routes, and its context."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("site"))})
    import_pictures(settings, painted_pictures(12), image_set="painted")
    add_run(settings, image_set="painted")
    app = create_app(settings)
    return app.server.test_client(), app.server.extensions[EXTENSION]


@pytest.fixture
def empty_context(tmp_path: Path) -> Iterator[Context]:
    """The context of a dashboard over an empty home, within a request."""
    app = create_app(read_settings({"CONVSCOPE_HOME": str(tmp_path)}))
    with app.server.test_request_context():
        found: Context = app.server.extensions[EXTENSION]
        yield found
