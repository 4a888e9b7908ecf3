"""Homes written by real commands of earlier versions open and show what they showed (`homes/make_home.py`)."""

import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dash import Dash
from homes.make_home import ATLAS_ROWS
from PIL import Image

from dashboard.app import create_app
from dashboard.pages import channel, image, images, overview, patches
from dashboard.pictures.routes import row_address
from db.atlas.migrations import latest_version
from db.atlas.schema import VIEW_NAMES
from db.atlas.store import Atlas, Query
from db.home import open_home
from db.ledger.engine import head
from db.queries.inventory import layers, runs
from db.settings import Settings, read_settings

HOMES = Path(__file__).parent / "homes"
Rows = list[dict[str, Any]]


def opened(name: str, folder: Path) -> Settings:
    """Open a copy of a kept home once, in an empty folder, and return its settings."""
    with tarfile.open(HOMES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    settings = read_settings({"CONVSCOPE_HOME": str(folder / "home")})
    open_home(settings).close()
    return settings


def written_down() -> dict[str, dict[str, Rows]]:
    """What the home of version 4 contained when it was made, by store and table."""
    found: dict[str, dict[str, Rows]] = json.loads((HOMES / "version-4.json").read_text())
    return found


def as_written(rows: Rows, columns: dict[str, Any]) -> Rows:
    """Return those columns of the rows as JSON has them: a later version may add others."""
    found: Rows = json.loads(json.dumps([{name: row[name] for name in columns} for row in rows], default=str))
    return found


def atlas_rows(settings: Settings, table: str, columns: dict[str, Any]) -> Rows:
    return as_written(Atlas(settings).fetch(Query(ATLAS_ROWS[table])), columns)


@pytest.fixture(scope="module")
def version_4(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The home of version 4, read-only."""
    return opened("version-4", tmp_path_factory.mktemp("version-4"))


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The home of version 1, which had no ledger; read-only."""
    return opened("version-1", tmp_path_factory.mktemp("version-1"))


@pytest.mark.parametrize("table", ATLAS_ROWS)
def test_every_row_of_the_atlas_is_there(version_4: Settings, table: str) -> None:
    expected = written_down()["atlas"][table]
    assert len(expected) > 0
    assert atlas_rows(version_4, table, expected[0]) == expected


def test_every_row_of_the_ledger_is_there_and_its_files_too(version_4: Settings) -> None:
    ledger = sqlite3.connect(version_4.home / "ledger.sqlite")
    ledger.row_factory = sqlite3.Row
    expected = written_down()["ledger"]
    for table, rows in expected.items():
        assert len(rows) > 0, table
        found = [dict(row) for row in ledger.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
        assert as_written(found, rows[0]) == rows, table
    ledger.close()
    files = [
        row[name]
        for table in ("saliency_maps", "attacks")
        for row in expected[table]
        for name in row
        if name.endswith("file") and row[name] is not None
    ]
    assert len(files) >= 10
    assert [name for name in files if not (version_4.home / name).is_file()] == []


def test_both_stores_are_of_the_present_version(version_4: Settings) -> None:
    ledger = open_home(version_4)
    assert (Atlas(version_4).schema(), ledger.revision()) == (latest_version(), head())
    ledger.close()


def row_of_patches(settings: Settings) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Pixels of the row of patches that `make_home.py` kept, as the image route serves it now."""
    atlas = Atlas(settings)
    run = atlas.fetch(runs())[0]
    layer = next(row["layer"] for row in atlas.fetch(layers(run["model"])) if row["kind"] == "dwconv")
    server = create_app(settings).server
    with server.test_request_context():
        address = row_address(run, layer, 1, k=3, crop="field", tile=64)
    answer = server.test_client().get(address)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.data)), np.int16)


@pytest.mark.parametrize("version", ["version_4", "version_1"])
def test_the_same_images_are_served(request: pytest.FixtureRequest, version: str) -> None:
    served = row_of_patches(request.getfixturevalue(version))
    kept = np.asarray(Image.open(HOMES / "version-4.row.jpg"), np.int16)
    assert served.shape == kept.shape
    assert np.abs(served - kept).max() <= 2, "the same pixels, but for the rounding of a JPEG"
    assert kept.std() > 20, "a row of one color would be like any other"


def test_jobs_maps_attacks_and_queries_are_listed(version_4: Settings) -> None:
    client = create_app(version_4).server.test_client()
    expected = written_down()["ledger"]
    jobs = client.get("/api/jobs").json["jobs"]
    assert [(job["job"], job["kind"], job["state"]) for job in jobs] == [
        (row["job"], row["kind"], "done") for row in reversed(expected["jobs"])
    ]
    (query,) = client.get("/api/queries").json["queries"]
    assert (query["name"], query["sql"]) == ("strongest", "SELECT * FROM patches WHERE rank = 1")
    sets = {found["image_set"]: found for found in client.get("/api/image_sets").json["image_sets"]}
    assert sets["sent"]["description"] == "Sent from a browser."


# What version 1 recorded of a patch; the network's source is a folder that had another name.
PATCHES = dict.fromkeys(
    (
        *(
            "run",
            "image_set",
            "layer",
            "channel",
            "rank",
            "activation",
            "image_id",
            "y",
            "x",
            "box",
            "erf_box",
        ),
        *("label", "name"),
    )
)


def test_a_home_of_the_first_version_shows_the_same_patches_and_predictions(version_1: Settings) -> None:
    expected = written_down()["atlas"]
    assert atlas_rows(version_1, "patches", PATCHES) == as_written(expected["patches"], PATCHES)
    assert atlas_rows(version_1, "predictions", expected["predictions"][0]) == expected["predictions"]
    matches = dict.fromkeys(("label", "wnid", "images", "how", "class_index", "candidates"))
    assert atlas_rows(version_1, "label_matches", matches) == as_written(expected["label_matches"], matches)


# Number of rows of each view: version 1 had no probe images and could not store responses or hashes.
VIEWS = {"patches": 210, "selectivity": 70} | dict.fromkeys(VIEW_NAMES - {"patches", "selectivity"}, 0)


@pytest.mark.parametrize("view", sorted(VIEW_NAMES))
def test_views_answer_over_a_home_of_the_first_version(version_1: Settings, view: str) -> None:
    assert len(Atlas(version_1).fetch(Query(f"SELECT * FROM {view}"))) == VIEWS[view]


PAGES: dict[str, Callable[[], object]] = {
    "patches": lambda: patches.show_patches("", None, "/"),
    "channel": lambda: channel.show_channel("", None, "/channel"),
    "tuning": lambda: channel.show_tuning("", None, "/channel"),
    "image": lambda: image.show_image("?id=3", None, "/image"),
    "images": lambda: images.show_images("?view=table", None, "/images"),
    "overview": lambda: overview.show_overview("", None, "/overview"),
    "repeats": lambda: overview.show_repeats("", None, "/overview"),
}


@pytest.fixture(scope="module")
def dashboard(version_1: Settings) -> Dash:
    """The dashboard over the home of version 1."""
    return create_app(version_1)


@pytest.mark.parametrize("page", PAGES)
def test_pages_show_a_home_of_the_first_version(dashboard: Dash, page: str) -> None:
    with dashboard.server.test_request_context():
        shown = str(PAGES[page]())
    assert "cannot" not in shown
    if page == "overview":
        assert "The index of tiny did not record them. To list them:" in shown
        assert "3 of 3 labels are classes of tiny" in shown
    if page == "repeats":
        assert "6 images without colors" in shown
