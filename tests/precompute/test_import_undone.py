"""An import that does not complete leaves nothing behind, whatever ended it."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from commands.output import error_sentence
from db.atlas.image_sets import remove_unlisted
from db.atlas.store import Atlas, AtlasError
from db.files import FileError
from db.settings import Settings
from db.stores.images import ImageStore
from precompute.images.importing import ImportReport
from workers.queue.runner import Stopping

Photo = Callable[..., bytes]
WriteFiles = Callable[..., Path]
Bring = Callable[..., ImportReport]
ROOT = Path(__file__).parents[2]


def pictures(store: ImageStore) -> set[str]:
    """Return every file in the store, complete or not."""
    return {str(path) for folder in store.folders() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def archive(write_tar: WriteFiles, photo: Photo) -> Path:
    return write_tar({f"{number}.jpg": photo(number, size=(300, 300)) for number in range(60)})


def stop_after(images: int, error: BaseException) -> Callable[[int, int | None], None]:
    def progress(done: int, _total: int | None) -> None:
        if done >= images:
            raise error

    return progress


def test_a_full_disk_is_named_and_left_as_free_as_before(
    bring: Bring, atlas: Atlas, store: ImageStore, archive: Path
) -> None:
    store.home.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(store.home)]
    if os.getuid() or subprocess.run(small, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(FileError) as caught:
            bring(archive)
        said = str(caught.value)
        assert said.startswith("no space left on the disk of ")
        assert str(store.home) in said
        assert "free, at least" in said
        assert "needed; free some space and try again" in said
        assert "Errno" not in said
        assert pictures(store) == set()
        assert atlas.version() is None
    finally:
        subprocess.run(["umount", "--lazy", str(store.home)], check=True)


def test_an_atlas_that_does_not_fit_undoes_its_import(
    bring: Bring, atlas: Atlas, store: ImageStore, archive: Path, write_files: WriteFiles, photo: Photo
) -> None:
    bring(write_files({"a.jpg": photo(100)}), "first")
    before = pictures(store)
    atlas_file = atlas.path()
    whole, pointer = atlas_file.read_bytes(), (atlas.folder / "CURRENT").read_bytes()
    small = ["mount", "-t", "tmpfs", "-o", f"size={len(whole) * 3 // 2 // 1024}k", "none", str(atlas.folder)]
    if os.getuid() or subprocess.run(small, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        atlas_file.write_bytes(whole)
        (atlas.folder / "CURRENT").write_bytes(pointer)
        with pytest.raises((AtlasError, OSError)) as caught:
            bring(archive)
        assert pictures(store) == before
        assert sorted(path.name for path in atlas.folder.glob("0*")) == [atlas_file.name]
        assert isinstance(caught.value, Exception)
        said = error_sentence(caught.value)
        assert f"no space left on the disk of {atlas.folder}: " in said
        assert "needed" in said or isinstance(caught.value, OSError)
        assert ".building" not in said
    finally:
        subprocess.run(["umount", "--lazy", str(atlas.folder)], check=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")], ids=repr)
def test_an_interrupted_import_leaves_the_previous_state(
    bring: Bring,
    store: ImageStore,
    archive: Path,
    write_files: WriteFiles,
    photo: Photo,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("precompute.images.files._SECONDS_BETWEEN_REPORTS", 0.0)
    bring(write_files({"a.jpg": photo(100)}), "first")
    before = pictures(store)
    with pytest.raises(type(error)):
        bring(archive, progress=stop_after(20, error))
    assert pictures(store) == before
    assert bring(archive).added == 60


def test_a_stopped_worker_keeps_the_files_its_import_needs(
    bring: Bring, store: ImageStore, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("precompute.images.files._SECONDS_BETWEEN_REPORTS", 0.0)
    with pytest.raises(Stopping):
        bring(archive, progress=stop_after(20, Stopping()))
    assert len(pictures(store)) >= 20


def test_files_of_a_killed_import_are_removed_once_unneeded(
    bring: Bring,
    atlas: Atlas,
    store: ImageStore,
    settings: Settings,
    archive: Path,
    write_files: WriteFiles,
    photo: Photo,
) -> None:
    bring(write_files({"a.jpg": photo(100)}), "first")
    before = pictures(store)
    script = f"""
        import os, signal
        from pathlib import Path
        import precompute.images.files
        from db.atlas.store import Atlas
        from db.stores.images import ImageStore
        from db.settings import read_settings
        from precompute.images.importing import import_images
        precompute.images.files._SECONDS_BETWEEN_REPORTS = 0
        settings = read_settings({{"CONVSCOPE_HOME": {str(settings.home)!r}}})
        def progress(done, total):
            if done > 20:
                os.kill(os.getpid(), signal.SIGKILL)
        import_images(Atlas(settings), ImageStore(settings), image_set="killed", source=Path({str(archive)!r}),
                      progress=progress)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=False)
    assert done.returncode == -9
    left = pictures(store) - before
    assert len(left) >= 20
    assert remove_unlisted(atlas, store, older_than=3600) == 0, "it may be taken up again"
    with store.adding():
        assert remove_unlisted(atlas, store) == 0, "images come in"
    assert remove_unlisted(atlas, store) == len(left)
    assert pictures(store) == before
