"""Rows of a run: missing values stay missing, and a full-size run is published in seconds."""

import time

import numpy as np
import pytest
import torch

from db.atlas.runs import set_images
from db.atlas.store import Atlas, Query
from db.settings import Settings
from precompute.index.publish import ModelRows, RunMetadata, publish_run
from precompute.index.state import IndexState
from workers.jobs.stored_images import StoredImage
from workers.layers.receptive_field.fields import ReceptiveField
from workers.layers.taps import Tap
from workers.models.label_matching import SetLabel, match_labels
from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import HALF, Preprocessing
from workers.models.vision import VisionModel
from workers.models.vocabularies import ClassEntry, Vocabulary

IMAGES = 50


@pytest.fixture
def model() -> VisionModel:
    loaded = LoadedNetwork(
        network=torch.nn.Identity(),
        source="nothing",
        architecture="Identity",
        preprocessing=Preprocessing((8, 6), (9, 7), "bicubic", HALF, HALF),
        vocabulary=Vocabulary(
            "two-classes", (ClassEntry(0, None, "one", "one"), ClassEntry(1, None, "two", "two"))
        ),
    )
    return VisionModel(loaded, name="made-up")


@pytest.fixture
def atlas(settings: Settings) -> Atlas:
    """An atlas with a set of images that have no files."""
    atlas = Atlas(settings)
    with atlas.publish() as connection:
        connection.execute(
            f"INSERT INTO image_sets VALUES ('photos', 'nowhere', {IMAGES}, 0, now()::TIMESTAMP)"
        )
        connection.execute(
            f"INSERT INTO images (image_set, image_id) SELECT 'photos', range::INTEGER FROM range({IMAGES})"
        )
    return atlas


def taps(count: int, channels: int) -> tuple[Tap, ...]:
    return tuple(
        Tap(
            layer=f"stage1.block{number}.conv", label="", module="", call=0, kind="conv", description="",
            stage="stage 1", block=None, layout="NCHW", prefix_tokens=0, channels=channels, height=3, width=2,
            position=number,
        )
        for number in range(count)
    )  # fmt: skip


def filled(layers: tuple[Tap, ...], outputs: torch.Tensor, *, k: int) -> IndexState:
    """Return a state after images for which every layer gave `outputs` N,C,3,2."""
    state = IndexState(layers, k=k, batch_size=len(outputs), device=torch.device("cpu"))
    state.begin(range(len(outputs)))
    for tap in layers:
        state.take(tap, outputs)
    state.end(torch.arange(2.0).expand(len(outputs), 2), [None] * len(outputs))
    return state


def publish(atlas: Atlas, model: VisionModel, state: IndexState) -> int:
    described = ModelRows(
        model=model,
        weights_sha256="0" * 64,
        digest="1" * 64,
        taps=state.taps,
        edges=(),
        fields={
            tap.layer: ReceptiveField(is_global=True, size=None, jump=None, start=None) for tap in state.taps
        },
        effective_sizes={tap.layer: 5 for tap in state.taps},
        left_out=(),
    )
    listed = [StoredImage(**row) for row in atlas.fetch(set_images("photos"))]
    now = np.datetime64("2026-01-02T03:04:05", "us").item()
    made = RunMetadata(
        image_set="photos", listed=listed, k=20, dtype="float32", device="cpu", images=IMAGES, unreadable=0,
        seconds=1.0, started=now, finished=now,
        matches=match_labels(model.vocabulary, [SetLabel(image.wnid, image.label) for image in listed]),
    )  # fmt: skip
    return publish_run(atlas, described=described, made=made, state=state)


def test_missing_values_are_null(atlas: Atlas, model: VisionModel) -> None:
    outputs = torch.zeros(3, 2, 3, 2)
    outputs[:, 0] = torch.nan
    publish(atlas, model, filled(taps(1, 2), outputs, k=2))
    stats = atlas.fetch(
        Query("SELECT channel, mean, std, min, max, dead, nonfinite FROM channel_stats ORDER BY 1")
    )
    assert stats == [
        {"channel": 0, "mean": None, "std": None, "min": None, "max": None, "dead": False, "nonfinite": 3},
        {"channel": 1, "mean": 0.0, "std": 0.0, "min": 0.0, "max": 0.0, "dead": True, "nonfinite": 0},
    ]
    rows = atlas.fetch(
        Query("SELECT channel, rank, image_id, activation, y, x FROM activations ORDER BY ALL")
    )
    assert rows == [
        {"channel": 1, "rank": rank, "image_id": rank - 1, "activation": 0.0, "y": 0, "x": 0}
        for rank in (1, 2)
    ]
    fields = atlas.fetch(Query("SELECT rf_global, rf_size_y, jump_y, start_x, erf_size, block FROM layers"))
    assert fields == [
        {"rf_global": True, "rf_size_y": None, "jump_y": None, "start_x": None, "erf_size": 5, "block": None}
    ]
    described = atlas.fetch(
        Query("SELECT input_height, resize_height, resize_width, classes, mean FROM models")
    )
    assert described == [
        {"input_height": 8, "resize_height": 9, "resize_width": 7, "classes": 2, "mean": [0.5, 0.5, 0.5]}
    ]


def test_positions_become_rows_and_columns(atlas: Atlas, model: VisionModel) -> None:
    outputs = torch.zeros(1, 1, 3, 2)
    outputs[0, 0, 2, 1] = 4.0
    publish(atlas, model, filled(taps(1, 1), outputs, k=2))
    assert atlas.fetch(Query("SELECT activation, y, x FROM activations")) == [
        {"activation": 4.0, "y": 2, "x": 1}
    ]


def test_forty_thousand_channels_are_published_in_seconds(atlas: Atlas, model: VisionModel) -> None:
    torch.manual_seed(0)
    state = filled(taps(58, 710), torch.randn(IMAGES, 710, 3, 2), k=20)
    started = time.process_time()
    publish(atlas, model, state)
    assert time.process_time() - started < 15, "seconds of the processor; rows one by one take minutes"
    counted = atlas.fetch(Query("SELECT count(*) AS n, count(DISTINCT layer) AS layers FROM activations"))
    assert counted == [{"n": 58 * 710 * 20, "layers": 58}]
    assert atlas.fetch(Query("SELECT count(*) AS n FROM channel_stats")) == [{"n": 58 * 710}]
