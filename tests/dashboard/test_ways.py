"""Links between pages: back, to neighbors, to downloads, and their labels."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dash._utils import to_json
from flask.testing import FlaskClient
from synthetic_atlas import add_run, import_pictures, painted_pictures
from test_pages import show, text

from dashboard.app import create_app
from dashboard.pages import channel, image, images
from dashboard.state.address import ImageAddress, ImagesAddress, PatchesAddress
from dashboard.state.context import Context
from dashboard.state.selections import images_query
from db.atlas.store import Query
from db.queries import images as image_queries
from db.settings import read_settings


def properties(component: Any, name: str) -> Iterator[str]:
    """Return all values of a property, at any depth of a component."""
    found = json.loads(to_json(component)) if not isinstance(component, list | dict) else component
    if isinstance(found, dict) and name in found:
        yield found[name]
    for inner in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        if isinstance(inner, list | dict):
            yield from properties(inner, name)


def hrefs(component: Any) -> list[str]:
    """Return all URLs that a component links to."""
    return list(properties(component, "href"))


def test_the_way_back_from_a_channel_is_the_page_one_came_from(context: Context) -> None:
    search = "?layer=stage3.block1.pwconv1&sort=strongest&k=4&tile=96&page=3&crop=image"
    shown = show(search)
    assert shown.rows is not None
    there = shown.rows["rows"][0]["href"]
    page = channel.show_channel("?" + there.partition("?")[2], None, "/channel")
    assert there.startswith("/channel?")
    back = next(href for href in hrefs(page) if href.startswith("/?"))
    assert PatchesAddress.read(back[1:])[0] == replace(
        PatchesAddress.read(search)[0], model="synthetic", images="painted"
    )
    listed = channel.show_channel("?layer=stage3.block1.pwconv1&k=4&channel=65", None, "/channel")
    assert "/?model=synthetic&images=painted&layer=stage3.block1.pwconv1&page=3&k=4" in hrefs(listed)
    assert context.atlas


def test_previous_and_next_image_walk_the_list_one_came_from(context: Context) -> None:
    search = "?verdict=wrong&sort=unsurest&search=kind&view=table"
    run = context.catalogue().runs[0]
    address = replace(ImagesAddress.read(search)[0], images="painted")
    ids = [row["image_id"] for row in context.atlas.fetch(images_query(run, address, limit=None))]
    shown = images.show_images(search, None, "/images")
    there = next(href for href in hrefs(shown.body) if f"id={ids[1]}" in href.split("&"))
    page, _ = image.show_image("?" + there.partition("?")[2], None, "/image")
    steps = [
        ImageAddress.read(href.partition("?")[2])[0] for href in hrefs(page) if href.startswith("/image?")
    ]
    assert [step.id for step in steps[:2]] == [ids[0], ids[2]]
    assert steps[0].verdict == "wrong"
    assert f"2 of {len(ids)}" in text(page)
    back = next(href for href in hrefs(page) if href.startswith("/images?"))
    assert ImagesAddress.read(back.partition("?")[2])[0] == replace(address, model="synthetic")


def test_an_image_outside_the_list_has_the_neighbours_of_its_set(context: Context) -> None:
    page, _ = image.show_image("?verdict=wrong&search=nothing&id=5", None, "/image")
    assert "6 of 60" in text(page)
    steps = [
        ImageAddress.read(href.partition("?")[2])[0].id for href in hrefs(page) if href.startswith("/image?")
    ]
    assert steps[:2] == [4, 6]
    first, _ = image.show_image("?id=0", None, "/image")
    assert "id=-1" not in str(hrefs(first))
    assert context.atlas


def test_all_channels_activated_by_an_image_can_be_shown(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "PER_LAYER", 2)
    page, channels = image.show_image("?id=3", None, "/image")
    assert channels is not None
    total = sum(len(group["chips"]) + group["more"] for group in channels["groups"])
    assert f"Show all {total}" in text(page)
    link = next(href for href in hrefs(page) if "driven=all" in href)
    page, channels = image.show_image("?" + link.partition("?")[2], None, "/image")
    assert channels is not None
    assert sum(len(group["chips"]) for group in channels["groups"]) == total
    assert not any(group["more"] for group in channels["groups"])
    assert "Show at most 2 per layer" in text(page)
    assert context.atlas


def test_a_download_larger_than_the_page_shows_its_size(context: Context) -> None:
    assert "CSV, all" not in text(images.show_images("", None, "/images").heading)
    page, _ = image.show_image("?id=3", None, "/image")
    drives = context.atlas.fetch(Query("SELECT count(*) AS n FROM activations WHERE image_id = 3"))[0]["n"]
    assert f"CSV, all {drives}" in text(page)


def test_the_reason_for_an_unjudged_image_is_shown(context: Context) -> None:
    assert "unlabeled for this model: the image has no label" in text(
        image.show_image("?id=6", None, "/image")[0]
    )
    rows = context.atlas.fetch(image_queries.image_predictions("painted", 6, first=1))
    words = text(image.prediction_lists(rows, {"label": "gryphon", "wnid": None}))
    assert "unlabeled for this model: “gryphon” is none of its classes" in words


def test_every_table_of_the_channel_and_image_pages_has_its_sql_and_its_csv(
    context: Context, client: FlaskClient
) -> None:
    pages = (
        (channel.show_channel("?layer=stage2.block1.dwconv&channel=3", None, "/channel"), 3),
        (image.show_image("?id=3", None, "/image")[0], 2),
    )
    for page, tables in pages:
        queries = list(properties(page, "data-copy"))
        downloads = [href for href in hrefs(page) if href.startswith("/download/")]
        assert len(queries) == len(downloads) == tables
        for query, href in zip(queries, downloads, strict=True):
            answer = client.get(href)
            assert answer.status_code == 200
            rows = context.atlas.fetch(Query(query.rstrip(";")))
            if "image-channels" not in href:  # that one also lists the tied ones
                assert len(list(csv.reader(io.StringIO(answer.text)))) == len(rows) + 1


def test_in_the_table_thumbnail_and_label_lead_to_the_image_too(context: Context) -> None:
    shown = images.show_images("?view=table&search=0003", None, "/images")
    assert sum("id=3" in href.split("&") for href in hrefs(shown.body)) == 3
    assert context.atlas


def test_the_chosen_model_s_predictions_come_first(tmp_path: Path) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path)})
    import_pictures(settings, painted_pictures(5), image_set="few")
    add_run(settings, image_set="few", model="older", seed=1)
    add_run(settings, image_set="few", model="newer", seed=2)
    with create_app(settings).server.test_request_context():
        for model in ("older", "newer"):
            words = text(image.show_image(f"?model={model}&images=few&id=1", None, "/image")[0])
            first = min(("older", "newer"), key=lambda name: words.index(name, words.index("Predictions")))
            assert first == model


def test_cards_of_a_channel_carry_their_rank(context: Context) -> None:
    words = text(channel.show_channel("?layer=stage2.block1.dwconv&channel=3", None, "/channel"))
    assert all(f"#{rank} " in words for rank in range(1, 21))
    assert context.atlas
