"""Tables downloaded as CSV."""

import csv
import io
from typing import Any

import duckdb
import flask
import pytest
from flask.testing import FlaskClient
from synthetic_atlas import import_pictures, painted_pictures

from dashboard.pages import patches
from dashboard.state.context import Context
from db.atlas.store import Query


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_box_becomes_four_columns(client: FlaskClient) -> None:
    answer = client.get("/download/patches.csv?layer=stage2.block1.dwconv&channels=3&k=4")
    assert answer.mimetype == "text/csv"
    assert "synthetic-stage2.block1.dwconv-patches.csv" in answer.headers["Content-Disposition"]
    found = rows_of(answer.text)
    assert [row["rank"] for row in found] == ["1", "2", "3", "4"]
    assert {"box_y0", "box_x1", "erf_box_y0"} <= set(found[0])


def count(context: Context, sql: str) -> Any:
    return context.atlas.fetch(Query(sql))[0]["n"]


def test_a_download_has_the_rows_of_the_page(client: FlaskClient, context: Context) -> None:
    right = count(context, "SELECT count(*) AS n FROM predictions WHERE is_label AND rank = 1")
    assert len(rows_of(client.get("/download/images.csv?verdict=right").text)) == right
    drives = count(context, "SELECT count(*) AS n FROM activations WHERE image_id = 5")
    assert len(rows_of(client.get("/download/image-channels.csv?id=5").text)) == drives
    assert len(rows_of(client.get("/download/channel.csv?layer=embeddings&channel=1").text)) == 20


@pytest.mark.parametrize("sort", ["index", "strongest", "selectivity"])
def test_patches_are_downloaded_and_copied_in_the_order_of_the_page(
    client: FlaskClient, context: Context, sort: str
) -> None:
    search = f"?layer=stage3.block1.pwconv1&k=3&sort={sort}&channels=7,5,31,2"
    shown = patches.show_patches(search, None, "/")
    assert shown.rows is not None
    page = [
        (row["channel"], int(cell["facts"][0][1].removeprefix("rank ")), cell["image"])
        for row in shown.rows["rows"]
        for cell in row["cells"]
    ]
    copied = context.atlas.fetch(
        Query(shown.tools.children[0].to_plotly_json()["props"]["data-copy"].rstrip(";"))
    )
    assert [(row["channel"], row["rank"], row["image_id"]) for row in copied] == page
    csv_rows = rows_of(client.get("/download/patches.csv" + search).text)
    assert [(int(row["channel"]), int(row["rank"]), int(row["image_id"])) for row in csv_rows] == page


@pytest.mark.parametrize(
    "address",
    [
        "/download/patches.csv?layer=nope",
        "/download/patches.csv?channels=x",
        "/download/image-channels.csv?model=nope",
        "/download/image-channels.csv?id=99999",
        "/download/images.csv?images=nah",
        "/download/channel.csv?layer=embeddings&channel=9999",
    ],
)
def test_an_empty_download_is_an_error_sentence(client: FlaskClient, address: str) -> None:
    answer = client.get(address)
    assert (answer.status_code, answer.mimetype) == (404, "text/plain")
    assert answer.text.count("\n") == 1


def test_a_model_that_was_not_indexed_leaves_the_images_without_predictions(client: FlaskClient) -> None:
    found = rows_of(client.get("/download/images.csv?model=nah&images=painted").text)
    assert len(found) == 60
    assert {row["predicted"] for row in found} == {""}


@pytest.mark.parametrize(
    "table", ["patches", "channel-classes", "images", "image-channels", "image-predictions"]
)
def test_a_download_from_another_schema_states_the_reason(empty_context: Context, table: str) -> None:
    import_pictures(empty_context.settings, painted_pictures(3), image_set="few")
    with duckdb.connect(str(empty_context.atlas.path())) as connection:
        connection.execute("UPDATE atlas_info SET schema_version = 0")
    answer = flask.current_app.test_client().get(f"/download/{table}.csv?images=few")
    assert answer.status_code == 503  # it exists
    assert "has tables of version 0" in answer.text
