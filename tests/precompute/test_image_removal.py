"""Removal of image sets: what is deleted, and what other sets still need."""

from collections.abc import Callable
from pathlib import Path

import pytest

from db.atlas.image_sets import dependents
from db.atlas.store import Atlas, AtlasError, Query
from db.ledger.engine import Ledger
from db.queries.set_changes import NoSuchSet, remove_image_set
from db.stores.images import ImageStore, StoreBusy
from precompute.images.importing import ImportReport

Photo = Callable[..., bytes]
WriteFiles = Callable[..., Path]
Bring = Callable[..., ImportReport]


def images(atlas: Atlas, image_set: str) -> list[dict[str, object]]:
    return atlas.fetch(Query("SELECT * FROM images WHERE image_set = $image_set", {"image_set": image_set}))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


TABLES = (
    *("image_sets", "images", "runs", "models", "layers", "classes", "activations", "activations_by_image"),
    *("predictions", "channel_stats", "channel_histograms", "responses"),
)


def counts(atlas: Atlas) -> dict[str, int]:
    return {table: atlas.fetch(Query(f"SELECT count(*) AS n FROM {table}"))[0]["n"] for table in TABLES}


def test_removing_a_set_removes_exactly_its_data(
    atlas: Atlas,
    store: ImageStore,
    ledger: Ledger,
    bring: Bring,
    photo: Photo,
    write_files: WriteFiles,
    write_tar: WriteFiles,
    add_run: Callable[..., None],
) -> None:
    folder = write_files({"shared.jpg": photo(1), "kept.jpg": photo(2)})
    bring(folder, "kept")
    add_run("kept", "shared-model")
    before, files_before = counts(atlas), files_below(store.home / "thumbnails")

    bring(write_tar({"shared.jpg": photo(1), "own.jpg": photo(3)}), "gone")
    add_run("gone", "shared-model")
    add_run("gone", "own-model")
    assert [row["model"] for row in atlas.fetch(dependents("gone"))] == ["own-model", "shared-model"]

    remove_image_set(atlas, store, ledger, "gone")
    assert counts(atlas) == before
    assert files_below(store.home / "thumbnails") == files_before
    assert files_below(store.home / "originals") == set(), "the other set reads its own file"
    assert files_below(folder) == {"shared.jpg", "kept.jpg"}
    assert atlas.fetch(dependents("gone")) == []


def test_a_copy_that_another_set_reads_stays(
    atlas: Atlas, store: ImageStore, ledger: Ledger, bring: Bring, photo: Photo, write_tar: WriteFiles
) -> None:
    archive = write_tar({"1.jpg": photo(1)})
    bring(archive, "one")
    bring(archive, "two")
    remove_image_set(atlas, store, ledger, "one")
    [row] = images(atlas, "two")
    assert store.original_path(str(row["path"])).read_bytes() == photo(1)
    assert store.thumbnail_path(str(row["key"])).exists()
    remove_image_set(atlas, store, ledger, "two")
    assert files_below(store.home / "originals") == files_below(store.home / "thumbnails") == set()


def test_a_missing_set_cannot_be_removed(atlas: Atlas, store: ImageStore, ledger: Ledger) -> None:
    with pytest.raises(NoSuchSet, match="there is no image set 'none'"):
        remove_image_set(atlas, store, ledger, "none")


def test_nothing_is_removed_while_an_import_runs(
    atlas: Atlas, store: ImageStore, ledger: Ledger, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    bring(write_files({"a.jpg": photo(1)}))
    with store.adding(), pytest.raises(StoreBusy, match="imported"):
        remove_image_set(atlas, store, ledger, "pictures")
    assert len(images(atlas, "pictures")) == 1


def test_a_removal_that_breaks_an_invariant_removes_no_file(
    atlas: Atlas,
    store: ImageStore,
    ledger: Ledger,
    bring: Bring,
    photo: Photo,
    write_tar: WriteFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bring(write_tar({"1.jpg": photo(1)}))
    before = files_below(store.home)
    monkeypatch.setattr("db.atlas.store._INVARIANTS", {"never": "SELECT 1"})
    with pytest.raises(AtlasError, match="not published"):
        remove_image_set(atlas, store, ledger, "pictures")
    assert files_below(store.home) - {"IMAGES.LOCK"} == before - {"IMAGES.LOCK"}
    assert len(images(atlas, "pictures")) == 1
