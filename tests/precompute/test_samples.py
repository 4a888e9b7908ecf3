"""The set `samples` provides real photos on a machine without internet access."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import precompute.images.samples
from db.atlas.store import Atlas, Query
from db.first_run import SAMPLES
from db.stores.decoding import read_rgb
from db.stores.images import ImageStore
from precompute.images.samples import import_samples
from precompute.images.sources.source import ImportRefused
from precompute.images.wordnet import imagenet_wnids


def rows(atlas: Atlas) -> list[dict[str, object]]:
    return atlas.fetch(Query("SELECT * FROM images WHERE image_set = 'samples' ORDER BY image_id"))


def test_at_least_thirty_photographs_are_found_twenty_with_their_classes(
    atlas: Atlas, store: ImageStore
) -> None:
    heard: list[tuple[int, int | None]] = []
    report = import_samples(atlas, store, progress=lambda done, total: heard.append((done, total)))
    assert report.added >= 30
    assert report.labelled == 20
    assert report.refused == ()
    assert heard[-1] == (report.added, report.added)
    for row in rows(atlas):
        path = store.original_path(str(row["path"]))
        assert path.is_relative_to(store.home), "packages come and go"
        picture = np.asarray(read_rgb(path.read_bytes()))
        assert picture.std() > 10, f"{row['name']} shows nothing"
    labelled = [row for row in rows(atlas) if row["wnid"] is not None]
    for row in labelled:
        index = int(str(row["name"]).removesuffix(".jpg").rsplit("_", 1)[1])
        assert (row["label_index"], row["wnid"]) == (index, imagenet_wnids()[index])
    assert {row["label"] for row in labelled} >= {"strawberry", "dalmatian", "bald eagle"}
    [known_set] = atlas.fetch(Query("SELECT image_set, images FROM image_sets"))
    assert known_set == {"image_set": SAMPLES, "images": report.added}


def test_a_second_time_adds_nothing(atlas: Atlas, store: ImageStore) -> None:
    first = import_samples(atlas, store)
    version = atlas.version()
    again = import_samples(atlas, store)
    assert (again.added, again.known) == (0, first.added)
    assert atlas.version() == version


def test_photographs_that_a_package_lacks_are_passed_over(
    atlas: Atlas, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = precompute.images.samples._folder("skimage/data")
    (tmp_path / "skimage/data").mkdir(parents=True)
    shutil.copy(real / "coffee.png", tmp_path / "skimage/data/coffee.png")
    monkeypatch.setattr(precompute.images.samples, "_folder", lambda place: tmp_path / place)
    assert import_samples(atlas, store).added == 1
    assert [row["name"] for row in rows(atlas)] == ["skimage/data/coffee.png"]


def test_a_machine_without_sample_packages_gets_an_error(
    atlas: Atlas, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.images.samples, "_PHOTOGRAPHS", {"no_such_package/data": ("a.jpg",)})
    monkeypatch.setattr(precompute.images.samples, "_FOOLBOX", "no_such_package/data")
    with pytest.raises(ImportRefused, match="no image found in photos from installed packages"):
        import_samples(atlas, store)
