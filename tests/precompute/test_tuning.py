"""Handmade filters: the probe images recover their orientation, frequency and hue."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from db.atlas.store import Atlas, Query
from db.settings import read_settings
from db.stores.images import ImageStore
from precompute.images.stimuli import FREQUENCIES, HUES, ORIENTATIONS, import_stimuli
from precompute.index import run as index
from precompute.index.run import run_index
from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import HALF, Preprocessing
from workers.models.vision import VisionModel
from workers.models.vocabularies import imagenet

SIDE = 224
GABORS = [(0, 12), (0, 28), (30, 12), (30, 28), (105, 12), (105, 28), (90, 18)]
COLOURS = [0, 60, 120, 240]


def gabor(orientation: float, frequency: float, size: int = 61) -> np.ndarray:
    """Return a zero-mean cosine under a circular Gaussian, with `frequency` in cycles per 224 pixels."""
    half = size // 2
    x, y = np.meshgrid(np.arange(-half, half + 1), -np.arange(-half, half + 1))
    angle = math.radians(orientation)
    across = y * math.cos(angle) - x * math.sin(angle)
    envelope = np.exp(-(x**2 + y**2) / (2 * (0.7 * SIDE / frequency) ** 2))
    wave = envelope * np.cos(2 * np.pi * frequency / SIDE * across)
    wave -= envelope * wave.sum() / envelope.sum()
    return wave / np.abs(np.fft.fft2(wave, (SIDE, SIDE))).max()


class Filters(nn.Sequential):
    """Gabor filters on luminance, then filters for one hue each, then an arbitrary classifier."""

    def __init__(self) -> None:
        bank = nn.Conv2d(3, len(GABORS) + len(COLOURS), 61, stride=2)
        weight = np.zeros((len(GABORS) + len(COLOURS), 3, 61, 61), np.float32)
        for place, (orientation, frequency) in enumerate(GABORS):
            weight[place] = gabor(orientation, frequency) / 3
        for place, hue in enumerate(COLOURS, len(GABORS)):
            for channel, middle in enumerate((0, 120, 240)):
                weight[place, channel, 30, 30] = math.cos(math.radians(hue - middle))
        bank.weight = nn.Parameter(torch.from_numpy(weight))
        bank.bias = nn.Parameter(torch.zeros(len(weight)))
        super().__init__(bank, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(len(weight), 1000))


def filters() -> VisionModel:
    loaded = LoadedNetwork(
        network=Filters(),
        source="by hand",
        architecture="Filters",
        preprocessing=Preprocessing((SIDE, SIDE), SIDE, "bilinear", HALF, HALF),
        vocabulary=imagenet(),
    )
    return VisionModel(loaded, name="filters").eval().requires_grad_(False)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """An atlas with an index of the filters over the probe images."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("tuning"))})
    atlas, store = Atlas(settings), ImageStore(settings)
    import_stimuli(atlas, store, count=400)
    run_index(atlas, store, model=filters(), image_set="stimuli", k=5)
    yield atlas
    atlas.close()


def test_gabor_filters_get_their_orientation_and_frequency_back(indexed: Atlas) -> None:
    rows = indexed.fetch(Query("SELECT * FROM tuning ORDER BY channel"))
    assert len(rows) == len(GABORS) + len(COLOURS)
    found = [(row["orientation"], row["frequency"]) for row in rows[: len(GABORS)]]
    assert found == GABORS
    assert all(row["orientation_selectivity"] > 0.5 for row in rows[: len(GABORS)])


def test_colour_filters_get_their_hue_back(indexed: Atlas) -> None:
    rows = indexed.fetch(Query("SELECT * FROM tuning ORDER BY channel"))[len(GABORS) :]
    assert [row["hue"] for row in rows] == COLOURS
    assert all(row["hue_selectivity"] > 0.3 for row in rows)


def test_selectivity_is_one_less_circular_variance(indexed: Atlas) -> None:
    for row in indexed.fetch(Query("SELECT * FROM tuning ORDER BY channel")):
        here = {name: row[name] for name in ("layer", "channel")}
        told = indexed.fetch(
            Query("SELECT * FROM grating_responses WHERE layer = $layer AND channel = $channel", here)
        )
        assert len(told) == len(ORIENTATIONS) * len(FREQUENCIES)
        grid = {(one["orientation"], one["frequency"]): one["response"] for one in told}
        lowest = min(grid.values())
        angles = np.radians(ORIENTATIONS)
        raised = np.array([grid[orientation, row["frequency"]] - lowest for orientation in ORIENTATIONS])
        if raised.sum():
            expected = abs(np.sum(raised * np.exp(2j * angles))) / raised.sum()
            assert row["orientation_selectivity"] == pytest.approx(expected, abs=1e-6)
        else:
            assert row["orientation_selectivity"] is None, "it answers all of them alike"
        hues = indexed.fetch(
            Query(
                "SELECT * FROM hue_responses WHERE layer = $layer AND channel = $channel ORDER BY hue", here
            )
        )
        assert [one["hue"] for one in hues] == list(HUES)
        raised = np.array([one["response"] for one in hues])
        raised -= raised.min()
        if raised.sum():
            expected = abs(np.sum(raised * np.exp(1j * np.radians(HUES)))) / raised.sum()
            assert row["hue_selectivity"] == pytest.approx(expected, abs=1e-6)


def test_responses_are_the_best_activations_of_every_image(indexed: Atlas) -> None:
    wrong = indexed.fetch(
        Query(
            """SELECT count(*) AS n, count(*) FILTER (a.activation <> i.activation) AS other
            FROM activations a JOIN image_responses i USING (run, layer, channel, image_id)"""
        )
    )
    assert wrong == [{"n": 5 * (len(GABORS) + len(COLOURS)), "other": 0}]
    [row] = indexed.fetch(
        Query(
            """SELECT max(abs(s.mean - r.mean)) AS apart, bool_and(r.n = 400) AS whole
            FROM channel_stats s JOIN (
                SELECT run, layer, channel, avg(activation) AS mean, count(activation) AS n
                FROM image_responses GROUP BY ALL
            ) r USING (run, layer, channel)"""
        )
    )
    assert row["apart"] < 1e-6
    assert row["whole"]


def test_responses_of_a_large_set_are_not_kept(indexed: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_MAX_RESPONSES", 400 * (len(GABORS) + len(COLOURS)) - 1)
    store = ImageStore(read_settings({"CONVSCOPE_HOME": str(indexed.home)}))
    run = run_index(indexed, store, model=filters(), image_set="stimuli", k=5, replace=True).run
    assert indexed.fetch(Query("SELECT count(*) AS n FROM responses")) == [{"n": 0}]
    assert indexed.fetch(Query("SELECT count(*) AS n FROM activations WHERE run = $run", {"run": run}))[0][
        "n"
    ]
