"""Import and removal of image sets: what is imported, what is not, and what remains when something fails."""

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import precompute.images.files
from db.atlas.image_sets import labelled_images
from db.atlas.store import Atlas, Query
from db.settings import Settings
from db.stores.decoding import read_rgb
from db.stores.images import ImageStore
from precompute.images.importing import ImportReport, import_images
from precompute.images.sources.source import ImportRefused

Photo = Callable[..., bytes]
WriteFiles = Callable[..., Path]


Bring = Callable[..., ImportReport]


def rows(atlas: Atlas, image_set: str = "pictures") -> list[dict[str, Any]]:
    return atlas.fetch(
        Query("SELECT * FROM images WHERE image_set = $image_set ORDER BY image_id", {"image_set": image_set})
    )


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------ what is imported


def test_a_folder_enters_in_order_of_name_and_its_files_stay_where_they_are(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    files = {
        "n01440764/b.jpg": photo(1),
        "n01440764/a.jpg": photo(2, size=(300, 600)),
        "n01751748/c.png": photo(3, kind="PNG"),
    }
    folder = write_files(files)
    report = bring(folder)
    assert (report.added, report.known, report.refused, report.labelled) == (3, 0, (), 3)
    found = rows(atlas)
    assert [row["name"] for row in found] == ["n01440764/a.jpg", "n01440764/b.jpg", "n01751748/c.png"]
    assert [row["image_id"] for row in found] == [0, 1, 2]
    assert [(row["width"], row["height"]) for row in found] == [(300, 600), (16, 12), (16, 12)]
    assert [(row["wnid"], row["label_index"], row["label"]) for row in found] == [
        ("n01440764", 0, "tench"),
        ("n01440764", 0, "tench"),
        ("n01751748", 65, "sea snake"),
    ]
    for row in found:
        assert row["path"] == str(folder.resolve() / row["name"])
        assert row["key"] == hashlib.sha256(files[row["name"]]).hexdigest()
        assert row["bytes"] == len(files[row["name"]])
        assert store.thumbnail_path(row["key"]).exists()
    assert not (store.home / "originals").exists()
    [known_set] = atlas.fetch(Query("SELECT * FROM image_sets"))
    assert (known_set["images"], known_set["labelled"], known_set["source"]) == (3, 3, str(folder))


def test_an_import_notes_low_bits_and_extra_pages(
    bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(buffer, "PNG")
    pages = io.BytesIO()
    Image.new("L", (8, 8), 200).save(pages, "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))])
    folder = write_files(
        {"12.png": buffer.getvalue(), "two.tif": pages.getvalue(), "plain.png": photo(1, kind="PNG")}
    )
    for report in (bring(folder), bring(folder)):  # the second import decodes nothing
        low, several = report.notes
        assert low.startswith("1 image uses only the lower 12 bits of its 16 and looks nearly black")
        assert several == "1 file holds several pages or frames; the first is used"
    assert bring(write_files({"plain.png": photo(2, kind="PNG")}, "plain"), image_set="plain").notes == ()


def test_images_of_an_archive_are_copied(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_tar: WriteFiles
) -> None:
    # a wrong suffix: the copy is named for its actual format
    bring(write_tar({"train/cat/1.jpg": photo(1, kind="PNG"), "train/dog/2.jpg": photo(2)}))
    one, two = rows(atlas)
    assert (one["path"], two["path"]) == (
        f"originals/{one['key'][:2]}/{one['key']}.png",
        f"originals/{two['key'][:2]}/{two['key']}.jpg",
    )
    assert store.original_path(one["path"]).read_bytes() == photo(1, kind="PNG")
    assert [(row["split"], row["label"]) for row in (one, two)] == [("train", "cat"), ("train", "dog")]


def test_ground_truth_labels_a_flat_folder_and_goes_before_folders(
    atlas: Atlas, bring: Bring, photo: Photo, write_files: WriteFiles, tmp_path: Path
) -> None:
    folder = write_files({f"ILSVRC2012_val_{number:08d}.JPEG": photo(number) for number in (1, 2, 3)})
    truth = tmp_path / "LOC_val_solution.csv"
    truth.write_text("ImageId,PredictionString\nILSVRC2012_val_00000002,n01751748 1 2 3 4\n")
    report = bring(folder, ground_truth=truth)
    assert report.labelled == 1
    assert [row["label"] for row in rows(atlas)] == [None, "sea snake", None]
    # the same table among the images is found without an option
    write_files(
        {"n01440764/ILSVRC2012_val_00000002.JPEG": photo(2), "LOC_val_solution.csv": truth.read_bytes()}, "b"
    )
    bring(tmp_path / "b", "beside")
    assert [row["label"] for row in rows(atlas, "beside")] == ["sea snake"]


def test_the_same_content_under_two_names_enters_twice_and_is_stored_once(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_tar: WriteFiles
) -> None:
    archive = write_tar({"1.jpg": photo(1), "2.jpg": photo(1), "3.jpg": photo(3)})
    report = bring(archive)
    assert (report.added, report.duplicates) == (3, 1)
    assert len({row["key"] for row in rows(atlas)}) == 2
    assert len(files_below(store.home / "originals")) == len(files_below(store.home / "thumbnails")) == 2


def test_the_size_is_that_of_the_upright_image(
    atlas: Atlas, store: ImageStore, bring: Bring, write_files: WriteFiles
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 24)).save(buffer, "JPEG", exif=exif)
    bring(write_files({"a.jpg": buffer.getvalue()}))
    [row] = rows(atlas)
    assert (row["width"], row["height"]) == (24, 40)
    with Image.open(store.thumbnail_path(row["key"])) as thumbnail:
        assert thumbnail.size == (24, 40)


# -------------------------------------------------------------------------------------------- refusals


def test_bad_files_are_named_with_their_reasons_and_never_half_enter(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    folder = write_files(
        {
            "cut.jpg": photo(2, size=(90, 90))[:2000],
            "empty.png": b"",
            "good.jpg": photo(1),
            "page.jpg": b"<!DOCTYPE html><html></html>",
            "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "notes.txt": b"not a picture, and not meant as one",
        }
    )
    report = bring(folder)
    assert report.added == 1
    reasons = {refusal.name: refusal.reason for refusal in report.refused}
    assert set(reasons) == {"cut.jpg", "empty.png", "page.jpg", "drawing.svg"}
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["empty.png"] == "the file is empty"
    assert "web page" in reasons["page.jpg"]
    assert [row["name"] for row in rows(atlas)] == ["good.jpg"]
    assert len(files_below(store.home / "thumbnails")) == 1


def test_a_file_name_that_is_not_utf8_is_refused_by_name(
    bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    folder = write_files({"good.jpg": photo(1)})
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(photo(2))
    report = bring(folder)
    assert report.added == 1
    [refusal] = report.refused
    assert refusal.name == "caf\\udce9.jpg"
    (folder / "two\nlines.jpg").write_bytes(b"")
    assert "two\\nlines.jpg" in [refusal.name for refusal in bring(folder).refused]
    assert "UTF-8" in refusal.reason


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no image found in"),
        ({"notes.txt": b"text"}, r"no image found in .*: expected files such as \.jpg"),
        ({"a.jpg": b"", "b.jpg": b""}, r"none of the 2 images in .* the first, a\.jpg: the file is empty"),
    ],
)
def test_a_source_without_an_image_is_refused(
    files: dict[str, bytes], words: str, atlas: Atlas, bring: Bring, write_files: WriteFiles
) -> None:
    with pytest.raises(ImportRefused, match=words):
        bring(write_files(files))
    assert atlas.version() is None


@pytest.mark.parametrize("name", ["", "Photos", "my photos", "../up", "-x", ".x", "a/b", "a\n", "é"])
def test_a_name_that_does_not_fit_into_an_address_is_refused(name: str, bring: Bring, tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="expected a name of at most 100 lowercase letters"):
        bring(tmp_path, name)


def test_ground_truth_that_names_none_of_the_images_is_refused(
    atlas: Atlas, bring: Bring, photo: Photo, write_files: WriteFiles, tmp_path: Path
) -> None:
    truth = tmp_path / "val.txt"
    truth.write_text("other.jpg n01440764\n")
    with pytest.raises(ImportRefused, match=r"names none of the images of .* \(1\), such as a\.jpg"):
        bring(write_files({"a.jpg": photo(1)}), ground_truth=truth)
    assert atlas.version() is None


# ----------------------------------------------------------------------------------- repeated imports


def test_importing_again_adds_nothing_and_publishes_nothing(
    atlas: Atlas, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    folder = write_files({f"cat/{number}.jpg": photo(number) for number in range(5)})
    bring(folder)
    version = atlas.version()
    report = bring(folder)
    assert (report.added, report.known, report.duplicates) == (0, 5, 0)
    assert atlas.version() == version


def test_new_images_are_numbered_after_existing_ones(
    atlas: Atlas, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    bring(write_files({"m.jpg": photo(1), "z.jpg": photo(2)}))
    report = bring(write_files({"a.jpg": photo(3), "n.jpg": photo(4)}))
    assert (report.added, report.known) == (2, 2)
    assert [(row["image_id"], row["name"]) for row in rows(atlas)] == [
        (0, "m.jpg"),
        (1, "z.jpg"),
        (2, "a.jpg"),
        (3, "n.jpg"),
    ]


def test_a_file_with_new_content_is_a_new_image(
    atlas: Atlas, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    bring(write_files({"a.jpg": photo(1)}))
    report = bring(write_files({"a.jpg": photo(2)}))
    assert (report.added, report.known, report.changed) == (1, 0, 1)
    assert [row["key"] for row in rows(atlas)] == [hashlib.sha256(photo(n)).hexdigest() for n in (1, 2)]


def test_a_folder_that_moved_is_followed(
    atlas: Atlas, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    old = write_files({"a.jpg": photo(1), "b.jpg": photo(2)}, "old")
    bring(old)
    new = old.rename(old.with_name("new"))
    report = bring(new)
    assert (report.added, report.known, report.moved) == (0, 2, 2)
    assert [row["path"] for row in rows(atlas)] == [str(new.resolve() / name) for name in ("a.jpg", "b.jpg")]
    copy = write_files({"a.jpg": photo(1)}, "copy")
    assert bring(copy).moved == 0, "the files that are listed are still there"


def test_labels_can_be_added_until_a_run_has_used_them(
    atlas: Atlas,
    bring: Bring,
    photo: Photo,
    write_files: WriteFiles,
    tmp_path: Path,
    add_run: Callable[..., None],
) -> None:
    folder = write_files({"a.jpg": photo(1), "b.jpg": photo(2)})
    bring(folder)
    truth = tmp_path / "labels.txt"
    truth.write_text("a.jpg n01440764\n")
    report = bring(folder, ground_truth=truth)
    assert (report.added, report.relabelled, report.labelled) == (0, 1, 1)
    assert [row["wnid"] for row in rows(atlas)] == ["n01440764", None]
    assert bring(folder).relabelled == 0, "who states no label takes none away"
    assert [row["wnid"] for row in rows(atlas)] == ["n01440764", None]
    add_run("pictures")
    truth.write_text("a.jpg n01751748\n")
    with pytest.raises(
        ImportRefused, match=r"1 image of 'pictures' has different labels now than when a-model used them"
    ):
        bring(folder, ground_truth=truth)
    assert [row["wnid"] for row in rows(atlas)] == ["n01440764", None]


def test_lost_thumbnails_and_copies_are_made_again(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_tar: WriteFiles
) -> None:
    archive = write_tar({"1.jpg": photo(1)})
    bring(archive)
    [row] = rows(atlas)
    lost = [store.thumbnail_path(row["key"]), store.original_path(row["path"])]
    for path in lost:
        path.unlink()
    assert bring(archive).known == 1
    assert all(path.exists() for path in lost)


# ---------------------------------------------------------------------------------------------------- failures


def test_an_import_that_is_stopped_changes_nothing(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_files: WriteFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = write_files({f"{number:02d}.jpg": photo(number, size=(120, 90)) for number in range(40)})
    monkeypatch.setattr(precompute.images.files, "_SECONDS_BETWEEN_REPORTS", 0)

    def stop(done: int, _total: int | None) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(folder, progress=stop)
    assert atlas.version() is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert files_below(store.home) - {"IMAGES.LOCK"} == set()
    assert bring(folder).added == 40


def test_a_truncated_archive_changes_nothing(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_tar: WriteFiles
) -> None:
    archive = write_tar({f"{n}.jpg": photo(n, size=(90, 90)) for n in range(9)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    bring(write_tar({"0.jpg": photo(0, size=(90, 90))}, "other.tar"), "other")
    before = files_below(store.home) - {"IMAGES.LOCK"}
    with pytest.raises(ImportRefused, match="truncated"):
        bring(archive)
    assert rows(atlas) == []
    assert files_below(store.home) - {"IMAGES.LOCK"} == before, (
        "its files are removed, those of other sets stay"
    )
    archive.write_bytes(whole)
    assert bring(archive).added == 9


def test_a_folder_that_contains_the_home_gives_only_its_own_images(
    settings: Settings, bring: Bring, photo: Photo
) -> None:
    source = settings.home.parent
    (source / "1.jpg").write_bytes(photo(1))
    assert bring(source).added == 1
    again = bring(source)
    assert (again.added, again.known) == (0, 1)


def test_an_overtaken_import_reports_the_existing_images(
    atlas: Atlas, store: ImageStore, bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    folder = write_files({f"{number}.jpg": photo(number) for number in range(3)})
    overtaken = False

    def overtake(done: int, _total: int | None) -> None:
        nonlocal overtaken
        if done == 3 and not overtaken:
            overtaken = True
            import_images(atlas, store, image_set="pictures", source=folder)

    report = bring(folder, progress=overtake)
    assert (report.added, report.known) == (0, 3)


def test_a_source_whose_path_is_not_utf8_is_refused_before_it_is_read(
    bring: Bring, photo: Photo, write_files: WriteFiles
) -> None:
    folder = write_files({"a.jpg": photo(1)})
    odd = Path(os.fsdecode(os.fsencode(folder) + b"-\xff"))
    folder.rename(odd)
    with pytest.raises(ImportRefused, match=r"-\\udcff' is not valid UTF-8"):
        bring(odd)


def test_two_imports_of_one_set_at_once_enter_each_image_once(
    settings: Settings, photo: Photo, write_files: WriteFiles
) -> None:
    folder = write_files({f"{number}.jpg": photo(number) for number in range(30)})
    code = (
        "import sys; from pathlib import Path; from db.atlas.store import Atlas;"
        "from db.stores.images import ImageStore;"
        "from db.settings import read_settings; from precompute.images.importing import import_images;"
        "s = read_settings({'CONVSCOPE_HOME': sys.argv[1]});"
        "import_images(Atlas(s), ImageStore(s), image_set='pictures', source=Path(sys.argv[2]))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(settings.home), str(folder)]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert [row["image_id"] for row in rows(Atlas(settings))] == list(range(30))


def test_progress_counts_to_the_end(bring: Bring, photo: Photo, write_files: WriteFiles) -> None:
    heard: list[tuple[int, int | None]] = []
    folder = write_files({f"{number}.jpg": photo(number) for number in range(7)} | {"bad.jpg": b""})
    bring(folder, progress=lambda done, total: heard.append((done, total)))
    assert heard[0] == (0, 8)
    assert heard[-1] == (8, 8)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


# -------------------------------------------------------------------------------------------- real photos


def test_a_thousand_photographs_enter_with_their_classes(
    atlas: Atlas, store: ImageStore, bring: Bring, shared_data: Path
) -> None:
    report = bring(shared_data / "imagenet-sample-1000.tar")
    assert (report.added, report.labelled, report.refused) == (1000, 1000, ())
    found = rows(atlas)
    assert [row["label_index"] for row in found] == list(range(1000)), "one per class, in order of WNID"
    for row in found[::97]:
        assert row["name"].split("/")[1] == row["wnid"]
        picture = read_rgb(store.original_path(row["path"]).read_bytes())
        assert picture.size == (row["width"], row["height"])
        with Image.open(store.thumbnail_path(row["key"])) as thumbnail:
            shown = np.asarray(thumbnail.resize((64, 64), Image.Resampling.BOX), dtype=float)
        assert np.abs(shown - np.asarray(picture.resize((64, 64), Image.Resampling.BOX))).mean() < 3
    # a sample of labeled images covers classes throughout the set
    for limit in (1, 10, 333, 1000, 5000):
        sample = [row["image_id"] for row in atlas.fetch(labelled_images("pictures", limit))]
        assert len(sample) == min(limit, 1000)
        assert limit == 1 or max(sample) >= 1000 - 1000 / min(limit, 1000)


def fetch(atlas: Atlas, sql: str) -> list[tuple[Any, ...]]:
    with atlas.read() as cursor:
        return cursor.execute(sql).fetchall()


def test_a_renamed_class_folder_is_followed_and_old_rows_are_replaced(
    bring: Bring, photo: Photo, write_files: WriteFiles, atlas: Atlas
) -> None:
    folder = write_files(
        {"cta/1.jpg": photo(1), "cta/2.jpg": photo(2), "dog/1.jpg": photo(3), "dog/2.jpg": photo(4)}
    )
    bring(folder)
    before = dict(fetch(atlas, "SELECT key, image_id FROM images"))
    (folder / "cta").rename(folder / "cat")
    (folder / "dog/2.jpg").unlink()
    report = bring(folder)
    assert (report.added, report.renamed, report.relabelled, report.gone) == (0, 2, 2, 1)
    rows = fetch(atlas, "SELECT name, label, key, image_id FROM images ORDER BY name")
    assert [row[:2] for row in rows] == [
        ("cat/1.jpg", "cat"), ("cat/2.jpg", "cat"), ("dog/1.jpg", "dog"), ("dog/2.jpg", "dog"),
    ]  # fmt: skip
    assert {key: number for _, _, key, number in rows} == before
    assert (report.added, bring(folder).renamed) == (0, 0)


def test_the_same_bytes_under_one_more_name_are_one_more_image(
    bring: Bring, photo: Photo, write_files: WriteFiles, atlas: Atlas
) -> None:
    folder = write_files({"a/1.jpg": photo(1), "b/2.jpg": photo(2)})
    bring(folder)
    (folder / "b/copy.jpg").write_bytes(photo(1))
    report = bring(folder)
    assert (report.added, report.renamed, report.gone) == (1, 0, 0)
    assert fetch(atlas, "SELECT count(*) FROM images") == [(3,)]


def test_a_renamed_folder_in_an_archive_that_is_imported_again_is_followed(
    bring: Bring, photo: Photo, write_tar: Callable[..., Path], atlas: Atlas
) -> None:
    bring(write_tar({"cta/1.jpg": photo(1), "dog/2.jpg": photo(2)}))
    report = bring(write_tar({"cat/1.jpg": photo(1), "dog/2.jpg": photo(2)}))
    assert (report.added, report.renamed) == (0, 1)
    assert fetch(atlas, "SELECT DISTINCT label FROM images ORDER BY label") == [("cat",), ("dog",)]
    # another archive implies nothing about images of the first
    report = bring(write_tar({"bird/1.jpg": photo(1)}, name="b.tar"))
    assert (report.added, report.renamed) == (1, 0)


def test_a_renamed_class_is_refused_where_a_run_has_used_the_old_name(
    bring: Bring, photo: Photo, write_files: WriteFiles, add_run: Callable[..., None]
) -> None:
    folder = write_files({"cta/1.jpg": photo(1), "dog/2.jpg": photo(2)})
    bring(folder)
    add_run("pictures")
    (folder / "cta").rename(folder / "cat")
    with pytest.raises(ImportRefused, match="1 image of 'pictures' has different labels now"):
        bring(folder)
