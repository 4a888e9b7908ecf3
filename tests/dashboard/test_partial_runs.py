"""A run over only some layers of its model (`convscope index --layers`)."""

import json
from collections.abc import Iterator

import pytest
from dash import Dash
from synthetic_atlas import add_run, import_pictures, painted_pictures
from test_pages import text

from dashboard.app import create_app
from dashboard.pages import channel, patches
from dashboard.state.context import EXTENSION, Context
from db.settings import read_settings

INDEXED = ("stage1.block1.dwconv", "stage2.downsampling")


@pytest.fixture(scope="module")
def partial_app(tmp_path_factory: pytest.TempPathFactory) -> Dash:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("home"))})
    import_pictures(settings, painted_pictures(30), image_set="painted")
    add_run(settings, image_set="painted", over=INDEXED)
    return create_app(settings)


@pytest.fixture
def partial_context(partial_app: Dash) -> Iterator[Context]:
    """The context of a dashboard over a run of 2 of 58 layers."""
    with partial_app.server.test_request_context():
        found: Context = partial_app.server.extensions[EXTENSION]
        yield found


def test_the_page_opens_at_an_indexed_layer(partial_context: Context) -> None:
    shown = patches.show_patches("", None, "/")
    assert shown.chosen is not None
    assert shown.chosen["layer"] == INDEXED[1]  # the first that sees a third of the input
    assert shown.rows is not None
    assert len(shown.rows["rows"]) == 12
    assert partial_context.catalogue().runs[0]["layers"] == 2


@pytest.mark.parametrize("page", ["patches", "channel"])
def test_a_layer_outside_the_index_shows_how_to_index_it(partial_context: Context, page: str) -> None:
    if page == "patches":
        shown = patches.show_patches("?layer=embeddings", None, "/")
        assert shown.rows is None
        assert shown.chosen is not None
        assert shown.chosen["layer"] == "embeddings"  # so that the drawing shows the position
        words = text(shown.heading)
    else:
        words = text(channel.show_channel("?layer=embeddings&channel=1", None, "/channel"))
    assert "patch embedding was not indexed in run 1 (2 of 58 layers)." in words
    assert "convscope index --model synthetic:convnext --name synthetic --images painted --replace" in words
    assert partial_context.atlas


def test_layers_without_an_index_are_marked_in_the_list_and_in_the_drawing(partial_context: Context) -> None:
    subject = {"path": "/", "model": "", "images": ""}
    elements, _, options, drawn = patches.show_drawing(subject, None, None)
    assert [option["value"] for option in options if not option["disabled"]] == list(INDEXED)
    assert options[0]["disabled"]
    layers = [node for node in elements if node.get("classes", "").startswith("layer")]
    assert len(layers) == 58
    assert [node["data"]["layer"] for node in layers if "unindexed" not in node["classes"]] == list(INDEXED)
    assert json.dumps(drawn)
    assert partial_context.atlas


def test_a_layer_that_was_not_indexed_has_no_download(partial_app: Dash) -> None:
    answer = partial_app.server.test_client().get("/download/patches.csv?layer=embeddings")
    assert answer.status_code == 404
    assert "was not indexed in run 1" in answer.text
