"""A channel's tuning on its page: facts, heatmap, hues, links and downloads, for responses given by a formula."""

import csv
import io
import json
import math
import re
from typing import Any

import pytest
from dash._utils import to_json
from flask.testing import FlaskClient
from synthetic_atlas import Picture, add_run, import_pictures, painted_picture, painted_pictures
from test_pages import text

from dashboard.app import create_app
from dashboard.pages import channel
from dashboard.state.context import EXTENSION, Context
from db.atlas.store import Atlas
from db.settings import read_settings
from precompute.images.stimuli import FREQUENCIES, ORIENTATIONS, design

LAYER = "stage1.block1.dwconv"


def answer(values: dict[str, Any]) -> float:
    """Strongest at 60 degrees and 12 cycles, and among hues at 120 degrees."""
    if "frequency" in values:
        turned = math.cos(math.radians(2 * (values["orientation"] - 60)))
        return math.exp(turned - math.log(values["frequency"] / 12) ** 2) + (values["phase"] == 90)
    return 1 + math.cos(math.radians(values["hue"] - 120))


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[FlaskClient, Context]:
    """A model over 12 images, and over small stand-ins for the probe images, with responses in one channel."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("tuned"))})
    import_pictures(settings, painted_pictures(12), image_set="painted")
    wanted = design(400)[: len(ORIENTATIONS) * len(FREQUENCIES) * 2 + 24]
    pictures = [
        Picture(one.name, painted_picture(place, 8, 8), None, one.kind) for place, one in enumerate(wanted)
    ]
    import_pictures(settings, pictures, image_set="stimuli")
    run = add_run(settings, image_set="stimuli", over=[LAYER])
    with Atlas(settings).publish() as connection:
        connection.execute(
            "INSERT INTO responses VALUES (?, ?, 3, ?)",
            [run, LAYER, [answer(dict(one.values)) for one in wanted]],
        )
    add_run(settings, image_set="painted")
    app = create_app(settings)
    return app.server.test_client(), app.server.extensions[EXTENSION]


def panel(search: str) -> Any:
    return channel.show_tuning(search, None, "/channel")


def page(number: int) -> Any:
    return panel(f"?images=painted&layer={LAYER}&channel={number}")


def test_the_panel_shows_the_preferences_of_the_channel(probed: tuple[FlaskClient, Context]) -> None:
    client, _ = probed
    with client.application.test_request_context():
        shown = page(3)
    words = text(shown)
    assert "prefers 60°, 12 cycles" in words
    assert f"period {236 / 12:.1f} px" in words
    assert "prefers 120°" in words
    drawn = json.dumps(json.loads(to_json(shown)))
    assert drawn.count('"--share"') == len(ORIENTATIONS) * len(FREQUENCIES)
    assert drawn.count('"best"') == 1
    links = re.findall(r"/image\?[^\"]*images=stimuli[^\"]*", drawn)
    assert len(links) >= len(ORIENTATIONS) * len(FREQUENCIES) + 24


def test_a_model_without_probe_images_shows_the_command(context: Context) -> None:
    shown = panel("?layer=embeddings&channel=1")
    assert "convscope images make stimuli\nconvscope index --model synthetic --images stimuli" in text(shown)
    assert context.atlas


@pytest.mark.parametrize("search", ["?layer=none", "?layer=embeddings&channel=4000", "?model=none"])
def test_a_missing_channel_is_reported_without_a_panel(context: Context, search: str) -> None:
    assert panel(search) is None
    assert context.atlas


def test_a_channel_without_stored_responses_shows_the_command(probed: tuple[FlaskClient, Context]) -> None:
    client, _ = probed
    with client.application.test_request_context():
        assert "convscope images make stimuli" in text(page(4))


def test_downloads_contain_the_responses(probed: tuple[FlaskClient, Context], client: FlaskClient) -> None:
    query = f"?images=painted&layer={LAYER}&channel=3"
    rows = list(csv.DictReader(io.StringIO(probed[0].get("/download/channel-gratings.csv" + query).text)))
    assert len(rows) == len(ORIENTATIONS) * len(FREQUENCIES)
    for row in rows:
        values = {"orientation": float(row["orientation"]), "frequency": float(row["frequency"]), "phase": 90}
        assert float(row["response"]) == pytest.approx(answer(values), rel=1e-6)
    rows = list(csv.DictReader(io.StringIO(probed[0].get("/download/channel-hues.csv" + query).text)))
    assert [float(row["response"]) for row in rows] == pytest.approx(
        [answer({"hue": float(row["hue"])}) for row in rows], rel=1e-6, abs=1e-7
    )
    none = client.get("/download/channel-hues.csv?layer=embeddings&channel=1")
    assert none.status_code == 404
    assert "synthetic has no run on a set of probe images." in none.text
