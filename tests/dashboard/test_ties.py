"""Channels whose top-k all share one activation: only the lowest image numbers are listed."""

from collections.abc import Iterator

import pytest
from dash import Dash
from synthetic_atlas import add_run, import_pictures, painted_pictures
from test_pages import text

from dashboard.app import create_app
from dashboard.pages import channel, image, patches
from dashboard.state.context import EXTENSION, Context
from db.atlas.store import Atlas, Query
from db.settings import read_settings

LAYER, TIED = "stage1.block1.dwconv", 2


@pytest.fixture(scope="module")
def tied_app(tmp_path_factory: pytest.TempPathFactory) -> Dash:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("home"))})
    import_pictures(settings, painted_pictures(30), image_set="painted")
    add_run(settings, image_set="painted")
    with Atlas(settings).publish() as connection:
        for table in ("activations", "activations_by_image"):
            connection.execute(f"DELETE FROM {table} WHERE layer = '{LAYER}' AND channel = {TIED}")
            connection.execute(
                f"INSERT INTO {table} BY NAME SELECT 1 AS run, '{LAYER}' AS layer, {TIED} AS channel, i + 1 AS rank, "
                "i * 7 % 11 * 2 AS image_id, 0 AS activation, 0 AS y, 0 AS x FROM range(11) t(i)"
            )
    return create_app(settings)


@pytest.fixture
def tied_context(tied_app: Dash) -> Iterator[Context]:
    """The context of a dashboard with one tied channel that is not dead."""
    with tied_app.server.test_request_context():
        found: Context = tied_app.server.extensions[EXTENSION]
        yield found


def test_a_tied_row_is_marked_and_shows_no_agreement(tied_context: Context) -> None:
    shown = patches.show_patches(f"?layer={LAYER}", None, "/")
    assert shown.rows is not None
    lines = {row["channel"]: row["lines"] for row in shown.rows["rows"]}
    assert lines[TIED][1:] == ["all 11 tied"]
    assert lines[5] == ["dead"]
    assert not any("tied" in line for line in lines[0])
    assert tied_context.atlas


def test_a_tied_channel_is_not_selective(tied_context: Context) -> None:
    shown = patches.show_patches(f"?layer={LAYER}&sort=selectivity", None, "/")
    assert shown.rows is not None
    assert [row["channel"] for row in shown.rows["rows"]][-2:] == [TIED, 5]
    assert tied_context.atlas


def test_the_page_of_a_tied_channel_is_marked(tied_context: Context) -> None:
    words = text(channel.show_channel(f"?layer={LAYER}&channel={TIED}", None, "/channel"))
    assert "All 11 tied at 0: their order has no meaning." in words
    assert "bits" not in words
    assert "tied" not in text(channel.show_channel(f"?layer={LAYER}&channel=1", None, "/channel"))
    assert tied_context.atlas


def test_the_image_page_omits_tied_channels_and_says_so(tied_context: Context) -> None:
    page, channels = image.show_image("?id=4", None, "/image")
    assert channels is not None
    chips = {(group["layer"], chip[0]) for group in channels["groups"] for chip in group["chips"]}
    assert (LAYER, TIED) not in chips
    (expected,) = tied_context.atlas.fetch(
        Query(
            "SELECT count(*) FILTER (tied) AS tied, count(*) FILTER (NOT tied) AS others FROM activations_by_image "
            "JOIN (SELECT layer, channel, min(activation) = max(activation) AS tied FROM activations GROUP BY ALL) "
            "USING (layer, channel) WHERE image_id = 4"
        )
    )
    assert f"{expected['tied']} channels have this image among tied images only" in text(page)
    assert sum(len(group["chips"]) + group["more"] for group in channels["groups"]) == expected["others"]


def test_the_download_has_tied_channels_and_marks_them(tied_app: Dash) -> None:
    rows = tied_app.server.test_client().get("/download/image-channels.csv?id=4").text.splitlines()
    heading = rows[0].split(",")
    (row,) = [row for row in rows if row.startswith(f"{LAYER},") and row.split(",")[2] == str(TIED)]
    assert row.split(",")[heading.index("tied")] == "True"
