"""Labels of a set and classes of a model: matched during indexing, shown in the atlas, settled by users."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from db.atlas.store import Atlas, Query
from db.ledger.engine import Ledger
from db.queries.labels import in_words, keep_choices, label_choices, label_matches
from db.queries.set_changes import remove_image_set, rename_set
from db.stores.images import ImageStore
from precompute.images.importing import import_images
from precompute.index.run import CannotIndex, run_index
from workers.jobs.set_labels import UnknownClass, class_called, match_set, settled_from, stored_vocabulary
from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import HALF, Preprocessing
from workers.models.vision import VisionModel
from workers.models.vocabularies import imagenet

LABELS = ("crane", "TENCH", "goldfish, Carassius auratus", "unicorn")


@pytest.fixture
def model() -> VisionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000)
        )
    loaded = LoadedNetwork(
        network=network,
        source="seed 0",
        architecture="Small",
        preprocessing=Preprocessing((32, 32), 32, "bilinear", HALF, HALF),
        vocabulary=imagenet(),
    )
    return VisionModel(loaded, name="small").eval().requires_grad_(False)


@pytest.fixture
def birds(
    atlas: Atlas,
    store: ImageStore,
    photo: Callable[..., bytes],
    write_files: Callable[[dict[str, bytes]], Path],
) -> str:
    """Import two images of each label."""
    files = {
        f"{label}/{n}.jpg": photo(2 * at + n, size=(40, 36))
        for at, label in enumerate(LABELS)
        for n in range(2)
    }
    import_images(atlas, store, image_set="birds", source=write_files(files))
    return "birds"


def known(atlas: Atlas) -> dict[str, int]:
    """Return the class of each label that predictions are compared with."""
    rows = atlas.fetch(
        Query(
            "SELECT DISTINCT i.label, p.class_index FROM predictions p JOIN runs r USING (run) "
            "JOIN images i USING (image_set, image_id) WHERE p.is_label"
        )
    )
    return {row["label"]: row["class_index"] for row in rows}


def test_an_index_keeps_how_each_label_was_matched(
    atlas: Atlas, store: ImageStore, model: VisionModel, birds: str
) -> None:
    run = run_index(atlas, store, model=model, image_set=birds).run
    rows = atlas.fetch(label_matches(run))
    assert [(row["label"], row["how"], row["class_index"], row["candidates"], row["images"]) for row in rows] == [
        ("crane", "ambiguous", None, ["134 crane bird", "517 crane"], 2),
        ("unicorn", "none", None, [], 2),
        ("TENCH", "case", 0, [], 2),
        ("goldfish, Carassius auratus", "exact", 1, [], 2),
    ]  # fmt: skip
    assert known(atlas) == {"TENCH": 0, "goldfish, Carassius auratus": 1}
    assert in_words(rows, "small") == (
        "2 of 4 labels are classes of small: 1 by the exact name, 1 by the name in different case, 1 ambiguous, "
        "1 not a class of the model."
    )


def test_user_matches_apply_from_the_next_index_on(
    atlas: Atlas, store: ImageStore, model: VisionModel, ledger: Ledger, birds: str
) -> None:
    run_index(atlas, store, model=model, image_set=birds)
    vocabulary = stored_vocabulary(atlas, "small")
    assert vocabulary == imagenet()
    found = match_set(atlas, vocabulary, model="small", image_set=birds)
    given = {"crane": "n02012849", "unicorn": "340", "TENCH": ""}
    settled = settled_from(vocabulary, found, given)
    assert settled == {"crane": 134, "unicorn": 340, "TENCH": None}
    with atlas.publish() as connection:
        keep_choices(connection, "small", birds, settled)
    after = match_set(atlas, vocabulary, model="small", image_set=birds)
    assert {one.match.label.label: (one.match.how, one.match.index) for one in after} == {
        "crane": ("settled", 134),
        "unicorn": ("settled", 340),
        "TENCH": ("settled", None),
        "goldfish, Carassius auratus": ("exact", 1),
    }
    run_index(atlas, store, model=model, image_set=birds, replace=True)
    assert known(atlas) == {"crane": 134, "unicorn": 340, "goldfish, Carassius auratus": 1}

    rename_set(atlas, store, ledger, birds, "animals")
    assert len(atlas.fetch(label_choices("small", "animals"))) == 3
    with atlas.publish() as connection:
        keep_choices(connection, "small", "animals", {}, forget=["unicorn", "TENCH"])
    assert atlas.fetch(label_choices("small", "animals")) == [{"label": "crane", "class_index": 134}]
    remove_image_set(atlas, store, ledger, "animals")
    assert atlas.fetch(Query("SELECT * FROM label_choices")) == []
    assert atlas.fetch(Query("SELECT * FROM label_matches")) == []


def test_a_class_that_the_model_has_not_is_refused_by_the_index(
    atlas: Atlas, store: ImageStore, model: VisionModel, birds: str
) -> None:
    with atlas.publish() as connection:
        keep_choices(connection, "small", birds, {"unicorn": 1000})
    with pytest.raises(
        CannotIndex, match=r"'unicorn' of 'birds' was settled as class 1000, small has .* 0 to 999"
    ):
        run_index(atlas, store, model=model, image_set=birds)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1000", r"expected a WordNet id, a class name or an index from 0 to 999, got '1000'"),
        ("-1", "got '-1'"),
        ("unicorn", "got 'unicorn'"),
        ("crane", "class 'crane' is ambiguous .134 crane bird, 517 crane.: give its index"),
    ],
)
def test_an_unknown_class_is_refused_by_name(text: str, sentence: str) -> None:
    with pytest.raises(UnknownClass, match=sentence):
        class_called(imagenet(), text)


def test_a_label_outside_the_set_is_reported(atlas: Atlas, birds: str) -> None:
    found = match_set(atlas, imagenet(), model="small", image_set=birds)
    with pytest.raises(KeyError, match="cranes"):
        settled_from(imagenet(), found, {"cranes": "134"})
