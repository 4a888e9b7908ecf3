"""The Overview page: every number against a count by hand, and the page in its states."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import flask
import pytest
from dash._utils import to_json
from flask.testing import FlaskClient
from synthetic_atlas import LEFT_OUT, add_run, import_pictures, painted_pictures
from test_pages import text

from dashboard.app import create_app
from dashboard.components.confusion import confusion_matrix
from dashboard.pages import images as images_page
from dashboard.pages import overview
from dashboard.state.address import ImagesAddress
from dashboard.state.context import EXTENSION, Context
from dashboard.state.selections import images_query
from db.atlas.store import Query
from db.queries import overview as overview_queries
from db.queries.labels import keep_choices
from db.settings import read_settings


@pytest.fixture
def judged(context: Context) -> list[dict[str, Any]]:
    """Each image with its class, prediction and the rank of its label, read without the page's queries."""
    rows: list[dict[str, Any]] = context.atlas.fetch(
        Query(
            """SELECT image_id, coalesce(wnid, label) AS class, width, height, bytes,
            (SELECT class_index FROM predictions p WHERE p.image_id = i.image_id AND rank = 1) AS said,
            (SELECT probability FROM predictions p WHERE p.image_id = i.image_id AND rank = 1) AS probability,
            (SELECT class_index FROM predictions p WHERE p.image_id = i.image_id AND is_label) AS true,
            (SELECT rank FROM predictions p WHERE p.image_id = i.image_id AND is_label) AS rank
            FROM images i ORDER BY image_id"""
        )
    )
    return rows


def test_accuracy_equals_a_count(context: Context, judged: list[dict[str, Any]]) -> None:
    (row,) = context.atlas.fetch(overview_queries.accuracy("painted"))
    ranks = [one["rank"] for one in judged if one["rank"] is not None]
    assert row["judged"] == len(ranks)
    assert row["unjudged"] == len(judged) - len(ranks) > 0
    assert row["top1"] == pytest.approx(sum(rank == 1 for rank in ranks) / len(ranks))
    assert row["top5"] == pytest.approx(sum(rank <= 5 for rank in ranks) / len(ranks))
    for name, kept in (("right", lambda rank: rank == 1), ("wrong", lambda rank: rank > 1)):
        sure = [one["probability"] for one in judged if one["rank"] is not None and kept(one["rank"])]
        assert row[f"probability_{name}"] == pytest.approx(sum(sure) / len(sure))


@pytest.mark.parametrize("order", ["images", "worst", "best", "name"])
def test_classes_are_counted_and_ordered(context: Context, judged: list[dict[str, Any]], order: str) -> None:
    run = context.catalogue().runs[0]["run"]
    rows = context.atlas.fetch(overview_queries.classes("painted", run, order=order, limit=None))
    labelled = [one for one in judged if one["class"] is not None]
    assert {row["class"]: row["images"] for row in rows} == Counter(one["class"] for one in labelled)
    for row in rows:
        ranks = [one["rank"] for one in labelled if one["class"] == row["class"] and one["rank"] is not None]
        assert row["judged"] == len(ranks)
        assert row["top1"] == pytest.approx(sum(rank == 1 for rank in ranks) / len(ranks))
    keys = {
        "images": [-row["images"] for row in rows],
        "worst": [row["top1"] for row in rows],
        "best": [-row["top1"] for row in rows],
        "name": [row["label"].lower() for row in rows],
    }
    assert keys[order] == sorted(keys[order])
    assert context.atlas.fetch(overview_queries.classes("painted", run, order=order, limit=2)) == rows[:2]


def test_confusions_equal_a_count_and_cells_open_their_images(
    context: Context, judged: list[dict[str, Any]]
) -> None:
    run = context.catalogue().runs[0]
    pairs = context.atlas.fetch(overview_queries.confusions(run["run"]))
    counted = Counter((one["true"], one["said"]) for one in judged if one["true"] is not None)
    assert {(row["class_index"], row["predicted_index"]): row["images"] for row in pairs} == counted
    assert [row["images"] for row in pairs] == sorted((row["images"] for row in pairs), reverse=True)
    for row in pairs[:5]:
        address = ImagesAddress(images="painted", label=row["class"], predicted=str(row["predicted_index"]))
        listed = context.atlas.fetch(images_query(run, address, limit=None))
        assert {one["image_id"] for one in listed} == {
            one["image_id"]
            for one in judged
            if (one["true"], one["said"]) == (row["class_index"], row["predicted_index"])
        }


def test_the_matrix_counts_every_image_of_its_rows_once(context: Context) -> None:
    pairs = context.atlas.fetch(overview_queries.confusions(context.catalogue().runs[0]["run"]))
    classes = {row["class_index"] for row in pairs}
    images = sum(row["images"] for row in pairs)
    whole = confusion_matrix(pairs, 1000)
    assert [kind.index for kind in whole.classes] == sorted(classes)
    assert sum(map(sum, whole.counts)) + sum(whole.others) == images
    assert whole.left_out == 0
    for most in range(1, len(classes)):
        part = confusion_matrix(pairs, most)
        assert len(part.classes) == most
        assert part.left_out == len(classes) - most
        for place, kind in enumerate(part.classes):
            assert sum(part.counts[place]) + part.others[place] == kind.images


def test_a_confusion_matrix_begins_with_the_most_confused_classes() -> None:
    def pair(true: int, said: int, images: int) -> dict[str, Any]:
        return {
            "class": f"n{true}", "class_index": true, "label": f"class {true}", "predicted_index": said,
            "predicted": f"class {said}", "images": images,
        }  # fmt: skip

    pairs = [pair(0, 0, 50), pair(7, 7, 9), pair(7, 3, 8), pair(3, 3, 5), pair(0, 9, 1)]
    matrix = confusion_matrix(pairs, 2)
    assert [kind.index for kind in matrix.classes] == [3, 7]
    assert matrix.counts == ((5, 0), (8, 9))
    assert matrix.others == (0, 0)
    # 9 is predicted and is nobody's label: a column without a row
    assert confusion_matrix(pairs, 9).others == (1, 0, 0)


def test_unmatched_labels_are_listed_with_the_command_to_match_them(empty_context: Context) -> None:
    """Four labels: one has a WordNet id, one is a synonym, "crane" is ambiguous (2 images), "unicorn" no class (1)."""
    settings = empty_context.settings
    import_pictures(settings, painted_pictures(12), image_set="birds")
    run = add_run(settings, image_set="birds", divide=96, over=("embeddings",))

    def shown() -> str:
        return text(overview.show_overview("", None, "/overview"))

    assert "This run did not record it. To list the classes:" in shown()
    assert "convscope models map-labels synthetic --images birds" in shown()
    matches = [
        ("tench", "n01440764", 5, "wnid", 0, []),
        ("goldfish", None, 4, "synonym", 1, []),
        ("crane", None, 2, "ambiguous", None, [1, 2]),
        ("unicorn", None, 1, "none", None, []),
    ]
    with empty_context.atlas.publish() as connection:
        connection.executemany(
            "INSERT INTO label_matches VALUES (?, ?, ?, ?, ?, ?, ?)", [(run, *match) for match in matches]
        )
    words = shown()
    assert (
        "2 of 4 labels are classes of synthetic: 1 by WordNet id, 1 by a synonym, 1 ambiguous, 1 not a "
        "class of the model."
    ) in words
    assert "crane 2 1 kind 1, 2 kind 2 unicorn 1 no class" in " ".join(words.split())
    assert "convscope models map-labels synthetic --images birds" in words
    answer = flask.current_app.test_client().get("/download/overview/labels.csv?images=birds")
    assert [line.split(",")[0] for line in answer.text.splitlines()] == [
        "label", "crane", "unicorn", "tench", "goldfish",
    ]  # fmt: skip
    with empty_context.atlas.publish() as connection:
        keep_choices(connection, "synthetic", "birds", {"crane": 1})
    assert "1 label settled since this run: predictions follow with the next index." in shown()


@pytest.mark.usefixtures("context")
def test_layers_that_are_left_out_are_named_with_the_reason() -> None:
    shown = " ".join(text(overview.show_overview("", None, "/overview")).split())
    assert "Layers of synthetic that are left out" in shown
    assert f"Reason Layers Names {LEFT_OUT} 1 classifier" in shown
    answer = flask.current_app.test_client().get("/download/overview/left_out.csv?images=painted")
    assert answer.text.splitlines()[1].startswith(f'"{LEFT_OUT}",1,')


def test_an_index_without_modules_shows_how_to_list_them(empty_context: Context) -> None:
    settings = empty_context.settings
    import_pictures(settings, painted_pictures(4), image_set="painted")
    add_run(settings, image_set="painted", divide=96, over=("embeddings",))
    with empty_context.atlas.publish() as connection:
        connection.execute("DELETE FROM modules")
    shown = " ".join(text(overview.show_overview("", None, "/overview")).split())
    assert (
        "The index of synthetic did not record them. To list them: convscope models show synthetic" in shown
    )


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(("listed", "words"), [(4, "1 other 12"), (3, "2 others 24")])
def test_sizes_that_are_not_listed_are_counted(
    listed: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 images of five sizes, twelve of each."""
    monkeypatch.setattr("dashboard.pages.overview_sections.MAX_SIZES", listed)
    assert words in " ".join(text(overview.show_overview("", None, "/overview")).split())


def test_sizes_equal_a_count(context: Context, judged: list[dict[str, Any]]) -> None:
    rows = context.atlas.fetch(overview_queries.sizes("painted", limit=None))
    assert {(row["width"], row["height"]): row["images"] for row in rows} == Counter(
        (one["width"], one["height"]) for one in judged
    )
    (row,) = context.atlas.fetch(overview_queries.size_summary("painted"))
    short = sorted(min(one["width"], one["height"]) for one in judged)
    assert (row["shortest"], row["longest"]) == (short[0], short[-1])
    assert row["middle"] == (short[29] + short[30]) / 2
    assert row["bytes"] == sum(one["bytes"] for one in judged)
    assert row["unlabelled"] == sum(one["class"] is None for one in judged)


@pytest.mark.usefixtures("context")
def test_the_page_shows_them_with_links() -> None:
    shown = json.loads(to_json(overview.show_overview("?images=painted", None, "/overview")))
    words = json.dumps(shown, ensure_ascii=False)
    for part in ("painted as a whole", "Classes", "Sizes, width × height", "Models", "takes for what",
                 "Surest mistakes of synthetic", "/images?", "predicted="):  # fmt: skip
        assert part in words
    assert overview.show_repeats("?images=painted", None, "/overview") is not None


def test_a_set_without_a_run_still_has_classes_and_sizes(tmp_path: Path) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path)})
    import_pictures(settings, painted_pictures(5), image_set="few")
    app = create_app(settings)
    with app.server.test_request_context():
        assert app.server.extensions[EXTENSION].catalogue().image_sets
        words = to_json(overview.show_overview("", None, "/overview"))
        assert "few as a whole" in words
        assert "No model was indexed yet" in words
        assert "takes for what" not in words


@pytest.mark.usefixtures("context")
def test_a_set_that_is_not_there_is_named() -> None:
    words = to_json(overview.show_overview("?images=elsewhere", None, "/overview"))
    assert "There is no image set" in words
    assert "elsewhere" in words


@pytest.mark.usefixtures("empty_context")
def test_an_empty_home_shows_how_to_begin() -> None:
    assert "convscope images import" in to_json(overview.show_overview("", None, "/overview"))
    assert overview.show_repeats("", None, "/overview") is None


@pytest.mark.parametrize("table", ["classes", "sizes", "accuracy", "confusions", "mistakes", "repeats"])
def test_every_table_downloads(client: FlaskClient, table: str) -> None:
    answer = client.get(f"/download/overview/{table}.csv?images=painted")
    assert answer.status_code == 200
    assert len(answer.get_data(as_text=True).splitlines()) > (1 if table != "repeats" else 0)


def test_an_unknown_table_is_refused_by_name(client: FlaskClient) -> None:
    answer = client.get("/download/overview/nothing.csv?images=painted")
    assert answer.status_code == 404
    assert "expected one of classes" in answer.get_data(as_text=True)


@pytest.mark.parametrize("predicted", ["x", "-1", "99999999999"])
def test_an_invalid_predicted_class_is_refused_by_name(predicted: str) -> None:
    address, problems = ImagesAddress.read(f"?predicted={predicted}")
    assert address.predicted == ""
    assert predicted in problems["predicted"]


def test_the_images_page_shows_and_clears_the_prediction_filter(context: Context) -> None:
    run = context.catalogue().runs[0]
    pair = next(
        row
        for row in context.atlas.fetch(overview_queries.confusions(run["run"]))
        if row["class_index"] != row["predicted_index"]
    )
    shown = images_page.show_images(f"?images=painted&predicted={pair['predicted_index']}", None, "/images")
    words = to_json(shown.heading) + to_json(shown.problems)
    assert f"predicted {pair['predicted']}" in words
