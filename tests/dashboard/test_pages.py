"""Callbacks, called as plain functions."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pytest
from dash import no_update
from dash._utils import to_json
from dash.exceptions import PreventUpdate
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard import shell
from dashboard.components.formatting import activation, box_words
from dashboard.components.grid import agreement, cell
from dashboard.pages import channel, image, images, patches
from dashboard.pictures.geometry import read_layer_geometry
from dashboard.pictures.routes import channel_cells
from dashboard.state.address import ImagesAddress
from dashboard.state.context import Context
from dashboard.state.selections import images_query
from db.atlas.store import Query
from db.queries import patches as patch_queries


def text(component: Any) -> str:
    """Return all text of a component, in reading order."""
    return " ".join(_words(json.loads(to_json(component))))


def _words(found: Any) -> Iterator[str]:
    if isinstance(found, str):
        yield found
    elif isinstance(found, list):
        for item in found:
            yield from _words(item)
    elif isinstance(found, dict):
        yield from _words(found.get("props", {}).get("children"))


def show(search: str) -> patches.Shown:
    return patches.show_patches(search, None, "/")


def test_without_a_choice_a_layer_of_the_newest_run_is_shown(context: Context) -> None:
    shown = show("")
    assert "stage 1  ›  block 3  ›  dwconv" in text(shown.heading)
    assert shown.rows is not None
    assert shown.chosen == {
        "layer": "stage1.block3.dwconv",
        "shown": {"channels": "", "sort": "index", "k": "10", "crop": "field", "tile": "fit"},
    }
    assert [row["channel"] for row in shown.rows["rows"]] == [0, 1, 2, 3, 4, 5]
    ranks = [f"rank {rank}" for rank in range(1, 11)]
    assert [[cell["facts"][0][1] for cell in row["cells"]] for row in shown.rows["rows"]] == [ranks] * 6
    assert context.catalogue().runs[0]["k"] == 20


def test_cells_show_the_values_of_the_atlas(context: Context) -> None:
    shown = show("?layer=stage2.block1.dwconv&channels=3&k=20")
    assert shown.rows is not None
    rows = context.atlas.fetch(
        Query(
            "SELECT p.*, c.class_index FROM patches p LEFT JOIN (SELECT * FROM predictions WHERE is_label) c "
            "USING (run, image_id) WHERE layer = 'stage2.block1.dwconv' AND channel = 3 ORDER BY p.rank"
        )
    )
    assert len(rows) == 20
    for patch, row in zip(shown.rows["rows"][0]["cells"], rows, strict=True):
        assert patch["image"] == row["image_id"]
        (label, rank), *rest = patch["facts"]
        assert (label, rank) == (row["label"] or "no label", f"rank {row['rank']}")
        class_index = {} if row["class_index"] is None else {"class": str(row["class_index"])}
        wnid = {"WNID": row["wnid"]} if row["wnid"] else {}
        assert dict(rest) == class_index | wnid | {
            "activation": activation(row["activation"]),
            "image": f"{row['image_id']} · {row['name'].split('/')[-1]}",
            "position": f"row {row['y']}, column {row['x']}",
            "field": box_words(row["box"]),
            "effective": box_words(row["erf_box"]),
        }


def test_a_patch_is_described_by_what_is_known_of_it(context: Context) -> None:
    run = context.catalogue().runs[0]
    layer = next(one for one in context.catalogue().layers[run["model"]] if one["layer"] == "embeddings")
    geometry = read_layer_geometry(layer, run)
    patch = {"rank": 1, "activation": 1.5, "image_id": 7, "name": "fish/7.png", "y": 0, "x": 0}
    known = cell(patch | {"label": "tench", "class_index": 0, "wnid": "n01440764"}, geometry)
    assert [name for name, _ in known["facts"]] == [
        "tench", "activation", "class", "WNID", "image", "position", "field", "effective",
    ]  # fmt: skip
    assert ("class", "0") in known["facts"], "class 0 is a class"
    assert ("image", "7 · 7.png") in known["facts"]
    bare = cell(patch | {"label": "", "class_index": None, "wnid": ""}, geometry)
    assert [name for name, _ in bare["facts"]] == [
        "no label", "activation", "image", "position", "field", "effective",
    ]  # fmt: skip


def test_agreement_of_a_row_equals_the_view(context: Context) -> None:
    layer, run = "stage3.block1.pwconv1", context.catalogue().runs[0]["run"]
    found = channel_cells(context, context.catalogue().runs[0], layer, range(96))
    for row in context.atlas.fetch(patch_queries.agreement(run, layer, range(96))):
        agreed = agreement(found[row["channel"]])
        assert agreed is not None
        assert (agreed.labelled, agreed.classes, agreed.label) == (
            row["labelled"], row["classes"], row["majority_label"],
        )  # fmt: skip
        assert agreed.share == pytest.approx(row["majority_share"])
    assert agreement([{"wnid": None, "label": None}]) is None


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("index", lambda row: row["channel"]),
        ("strongest", lambda row: (row["dead"], -row["max"])),
        ("selectivity", lambda row: (row["dead"], row["entropy_bits"])),
        ("dead_last", lambda row: (row["dead"], row["channel"])),
    ],
)
def test_channels_are_sorted_over_the_whole_layer(context: Context, sort: str, order: Any) -> None:
    shown = show(f"?layer=stage3.block1.pwconv1&sort={sort}")
    stats = context.atlas.fetch(
        Query(
            "SELECT * FROM channel_stats JOIN selectivity USING (run, layer, channel) "
            "WHERE layer = 'stage3.block1.pwconv1' ORDER BY channel"
        )
    )
    assert len(stats) == 96
    assert shown.rows is not None
    by_channel = {row["channel"]: row for row in stats}
    found = [order(by_channel[row["channel"]]) for row in shown.rows["rows"]]
    expected = [order(row) for row in sorted(stats, key=order)[:30]]
    assert np.array(found) == pytest.approx(np.array(expected))


def test_long_layers_come_in_pages(context: Context) -> None:
    shown = show("?layer=stage3.block1.pwconv1&page=4")
    assert shown.rows is not None
    assert [row["channel"] for row in shown.rows["rows"]] == [90, 91, 92, 93, 94, 95]
    assert "91–96 of 96 channels" in text(shown.pager)
    assert show("?layer=stage3.block1.pwconv1&page=400").rows == shown.rows
    assert context.pages


def test_labels_that_were_corrected_are_shown_at_once(empty_context: Context) -> None:
    """A set that is imported again keeps its run, while the labels of its images may change."""
    settings = empty_context.settings
    import_pictures(settings, painted_pictures(3), image_set="painted")
    run = add_run(settings, image_set="painted", divide=96, over=("embeddings",))

    def labels() -> set[str | None]:
        row = next(row for row in empty_context.catalogue().runs if row["run"] == run)
        cells = channel_cells(empty_context, row, "embeddings", [0])[0]
        shown = show("?layer=embeddings&channels=0")
        assert shown.rows is not None
        assert all(str(cell["label"]) in json.dumps(shown.rows) for cell in cells)
        return {cell["label"] for cell in cells}

    assert labels() == {"<b>tench</b> & co", "kind 1", "kind 2"}
    with empty_context.atlas.publish() as connection:
        connection.execute("UPDATE images SET label = 'corrected' WHERE label = 'kind 1'")
    assert labels() == {"<b>tench</b> & co", "corrected", "kind 2"}


def test_exactly_the_listed_channels_are_shown(context: Context) -> None:
    shown = show("?layer=stage3.block1.pwconv1&channels=7,90-92")
    assert shown.rows is not None
    assert [row["channel"] for row in shown.rows["rows"]] == [7, 90, 91, 92]
    assert context.atlas


def test_invalid_channels_are_reported_next_to_the_field(context: Context) -> None:
    shown = show("?channels=1-x&k=44")
    assert shown.problem == "Expected a range such as 0-29 or a list such as 5, 17, got “1-x”."
    assert "k: expected a whole number from 1 to 20, got “44”." in text(shown.problems)
    assert (shown.rows, shown.channels, shown.k) == (None, "1-x", "10")
    assert context.atlas


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("?layer=nope", "synthetic has no layer “nope”."),
        ("?model=nope", "nope was not indexed."),
        ("?images=nope", "No model was indexed over nope."),
        ("?model=synthetic&images=nope", "synthetic was not indexed over nope."),
    ],
)
def test_an_unknown_address_is_reported_with_a_link(context: Context, search: str, sentence: str) -> None:
    shown = show(search)
    assert sentence in text(shown.heading)
    assert "Show what there is" in text(shown.heading)
    assert shown.rows is None
    assert context.atlas


def test_no_text_of_the_address_or_the_atlas_becomes_html(context: Context) -> None:
    evil = "<img src=x onerror=alert(1)>"
    page = to_json(show(f"?layer={evil}"))
    assert "dangerously" not in page.lower()
    labels = {row["label"] for row in context.atlas.fetch(Query("SELECT label FROM images"))}
    assert "<b>tench</b> & co" in labels  # so that the browser tests exercise it
    assert context.atlas


def test_an_empty_home_shows_the_next_step(empty_context: Context) -> None:
    assert empty_context.catalogue().version is None
    for words in (
        text(show("").heading),
        text(images.show_images("", None, "/images").body),
        text(image.show_image("", None, "/image")[0]),
        text(channel.show_channel("", None, "/channel")),
    ):
        assert "convscope images import" in words
        assert "convscope index" in words


def test_images_without_a_run_are_shown_and_the_next_step_is_named(empty_context: Context) -> None:
    import_pictures(empty_context.settings, painted_pictures(8), image_set="few")
    assert "convscope index" in text(show("").heading)
    shown = images.show_images("", None, "/images")
    assert "1–8 of 8 images" in text(shown.pager)
    assert "No model was indexed" in text(image.show_image("?id=3", None, "/image")[0])
    assert "no predictions" in text(images.show_images("?verdict=right", None, "/images").body)


@pytest.mark.parametrize(
    ("search", "condition"),
    [
        ("", "true"),
        ("?verdict=right", "t.rank = 1"),
        ("?verdict=wrong", "t.rank > 1"),
        ("?verdict=unlabelled", "t.rank IS NULL"),
        ("?label=n10000003", "i.wnid = 'n10000003'"),
        ("?search=0003", "i.image_id = 3 OR i.name LIKE '%0003%'"),
        ("?search=KIND+4", "i.label LIKE 'kind 4%'"),
        ("?search=100%25_'", "false"),
    ],
)
def test_images_are_filtered(context: Context, search: str, condition: str) -> None:
    expected = context.atlas.fetch(
        Query(
            "SELECT i.image_id FROM images i LEFT JOIN (SELECT * FROM predictions WHERE is_label) t "
            f"USING (image_id) WHERE {condition} ORDER BY 1"
        )
    )
    shown = images.show_images(search + ("&" if search else "?") + "view=table", None, "/images")
    words = text(shown.heading)
    assert f"shown {len(expected)}" in words
    if not expected:
        assert "No matching images" in text(shown.body)
        return
    ids = [
        int(row["props"]["children"][2]["props"]["children"]["props"]["children"])
        for row in json.loads(to_json(shown.body))["props"]["children"]["props"]["children"][1]["props"][
            "children"
        ]
    ]
    assert ids == [row["image_id"] for row in expected]


def test_an_image_s_page_marks_the_labelled_class_and_lists_what_it_drives(context: Context) -> None:
    page, channels = image.show_image("?id=3", None, "/image")
    words = text(page)
    assert "kind 3" in words
    assert "wrong: its label is number" in words
    assert channels is not None
    expected = context.atlas.fetch(
        Query(
            "SELECT count(*) AS n, count(DISTINCT layer) AS layers FROM activations "
            "JOIN channel_stats USING (run, layer, channel) WHERE image_id = 3 AND NOT dead"
        )
    )[0]
    assert len(channels["groups"]) == expected["layers"]
    assert sum(len(group["chips"]) + group["more"] for group in channels["groups"]) == expected["n"]
    assert all(len(group["chips"]) <= image.PER_LAYER for group in channels["groups"])


def test_an_unlabelled_image_is_not_called_wrong(context: Context) -> None:
    page, _ = image.show_image("?id=6", None, "/image")
    assert "unlabeled for this model" in text(page)
    assert "wrong" not in text(page)
    assert context.atlas


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("?id=999", "painted has images 0 to 59, not 999."),
        ("?images=nope", "There is no image set “nope”."),
    ],
)
def test_a_missing_image_is_reported(context: Context, search: str, sentence: str) -> None:
    page, channels = image.show_image(search, None, "/image")
    assert sentence in text(page)
    assert channels is None
    assert context.atlas


def test_a_channel_s_page_has_its_patches_statistics_classes_histogram_and_sql(context: Context) -> None:
    words = text(channel.show_channel("?layer=stage2.block1.dwconv&channel=3", None, "/channel"))
    for part in (
        "Channel  3",
        "strongest",
        "bits",
        "Classes in its top 20",
        "FROM patches p",
        "channel = ANY([3])",
    ):
        assert part in words
    assert "has channels 0 to 11, not 12." in text(
        channel.show_channel("?layer=stage2.block1.dwconv&channel=12", None, "/channel")
    )
    assert "dead" in text(channel.show_channel("?layer=stage2.block1.dwconv&channel=11", None, "/channel"))
    assert context.atlas


def test_copied_sql_runs_in_any_client_and_gives_the_same_rows(context: Context) -> None:
    query = channel.patches_query(
        patches.select_layer(context.catalogue(), patches.PatchesAddress(layer="stage1.block1.dwconv")), 2
    )
    with context.atlas.read() as cursor:
        assert cursor.sql(query.text().rstrip(";")).to_arrow_table().to_pylist() == context.atlas.fetch(query)


@pytest.mark.parametrize(
    "callback", [patches.show_patches, images.show_images, image.show_image, channel.show_channel]
)
def test_a_hidden_page_sends_no_requests(context: Context, callback: Any) -> None:
    with pytest.raises(PreventUpdate):
        callback("", None, "/somewhere")
    assert context.atlas


def test_a_control_that_stays_as_it_is_is_not_touched(context: Context) -> None:
    before = show("?k=4").chosen
    again = patches.show_patches_anew("?k=4&sort=strongest", None, "/", before)
    touched = dict(zip(patches.Shown._fields, again, strict=True))
    assert (touched["channels"], touched["k"], touched["sort"]) == (no_update, no_update, "strongest")
    table = images.show_images("?view=table", None, "/images").shown
    found = images.show_images_anew("?view=table&search=3", None, "/images", table)
    touched = dict(zip(images.Shown._fields, found, strict=True))
    assert (touched["view"], touched["search"]) == (no_update, "3")
    assert context.atlas


def test_the_shell_names_the_run_and_keeps_the_choice_in_its_links(context: Context) -> None:
    subject = {"path": "/channel", "model": "synthetic", "images": "painted"}
    outputs = shell.show_shell(subject, None)
    (href, here, page), (_, there, other) = outputs[:3], outputs[3:6]
    models, model, sets, chosen, corner, filled = outputs[-6:]
    assert list(outputs[6:-6:3]) == [
        f"/{name}?model=synthetic&images=painted"
        for name in ("saliency", "attack", "robustness", "sql", "jobs")
    ]
    assert href == "/?model=synthetic&images=painted"
    assert (here, there) == ("page-link-here", "page-link-there")
    assert (page, other) == ("page", "false")
    assert ([row["value"] for row in models], model) == (["synthetic"], "synthetic")
    assert ([row["value"] for row in sets], chosen) == (["painted"], "painted")
    assert filled == {"model": "synthetic", "images": "painted", "run": True}
    assert "run 1 · cpu · k 20" in text(corner)
    assert "atlas 2 · 60 images" in text(corner)
    assert context.atlas


def test_the_shell_shows_the_running_index(context: Context) -> None:
    subject = {"path": "/", "model": "", "images": ""}
    *_, corner, _filled = shell.show_shell(subject, {"indexing": [["big", "many"]]})
    assert "indexing… big over many" in text(corner)
    assert context.atlas


def test_the_shell_of_an_empty_home_shows_that_nothing_is_published(empty_context: Context) -> None:
    *_, corner, _filled = shell.show_shell({"path": "/", "model": "", "images": ""}, None)
    assert "nothing published yet" in text(corner)
    assert empty_context.catalogue().runs == ()


def test_a_class_without_images_stays_selected_and_is_reported(context: Context) -> None:
    shown = images.show_images("?label=unicorn", None, "/images")
    assert shown.classes["chosen"] == "unicorn"
    first, second, *_ = shown.classes["options"]
    assert first == {"value": "", "label": "All classes", "description": ""}
    assert second == {"value": "unicorn", "label": "unicorn", "description": "0 images"}
    assert "No image of painted has the class “unicorn”" in text(shown.body)
    known = images.show_images("?label=n10000003", None, "/images")
    assert [row["value"] for row in known.classes["options"]].count("n10000003") == 1
    assert context.atlas


def test_a_missing_run_is_reported_when_another_model_is_shown(context: Context) -> None:
    page, channels = image.show_image("?model=nope&images=painted&id=3", None, "/image")
    assert "nope was not indexed over painted: what follows is of synthetic." in text(page)
    assert channels is not None
    shown = images.show_images("?model=nope&images=painted", None, "/images")
    assert "nope was not indexed over painted" in text(shown.problems)
    assert "there is synthetic" in text(shown.problems)
    assert context.atlas


def test_a_number_that_is_searched_for_is_the_first_image(context: Context) -> None:
    for sort in ("id", "name", "label", "unsurest"):
        address = ImagesAddress(images="painted", search="5", sort=sort)
        rows = context.atlas.fetch(images_query(context.catalogue().runs[0], address, limit=None))
        assert len(rows) > 2
        assert rows[0]["image_id"] == 5


def test_an_atlas_of_another_schema_is_reported_on_every_page(empty_context: Context) -> None:
    import_pictures(empty_context.settings, painted_pictures(3), image_set="few")
    with duckdb.connect(str(empty_context.atlas.path())) as connection:
        connection.execute("UPDATE atlas_info SET schema_version = 0")
    for words in (
        text(show("").heading),
        text(images.show_images("", None, "/images").body),
        text(image.show_image("", None, "/image")[0]),
        text(channel.show_channel("", None, "/channel")),
    ):
        assert "The atlas cannot be read" in words
        assert "has tables of version 0" in words


def test_the_command_before_the_first_run_names_the_set_that_is_there(empty_context: Context) -> None:
    import_pictures(empty_context.settings, painted_pictures(3), image_set="few")
    import_pictures(empty_context.settings, painted_pictures(2), image_set="my set")
    for search, named in (("?images=few", "few"), ("?images=my+set", "'my set'")):
        for words in (text(show(search).heading), text(channel.show_channel(search, None, "/channel"))):
            assert f"convscope index --model efficientnet-lite0 --images {named}" in words
