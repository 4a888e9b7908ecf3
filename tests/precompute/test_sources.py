"""Folders, archives and shards yield the same images, whatever else they contain."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from precompute.images.importing import open_source
from precompute.images.sources.folder import FolderSource
from precompute.images.sources.source import ImportRefused, SourceImage
from precompute.images.wordnet import imagenet_wnids, label_of_index

Photo = Callable[..., bytes]
WriteFiles = Callable[..., Path]


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def shard(cells: list[Any], labels: list[Any] | None, names: list[str] | None = None) -> bytes:
    """Return a parquet file as the `datasets` library writes images."""
    columns: dict[str, Any] = {
        "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    }
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels)
        if names is not None:
            features["label"] = {"names": names, "_type": "ClassLabel"}
    table = pa.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2)
    return buffer.getvalue()


def handed_over(path: Path) -> dict[str, bytes | str]:
    """Return content, or problem, by name."""
    return {image.name: content(image) for image in open_source(path).images()}


def content(image: SourceImage) -> bytes | str:
    if image.problem is not None:
        return image.problem
    return image.data if image.data is not None else image.path.read_bytes()  # type: ignore[union-attr]


@pytest.fixture
def files(photo: Photo) -> dict[str, bytes]:
    """Two images among the files that desktops, archivers and datasets leave next to images."""
    return {
        "root/cat/1.JPG": photo(1),
        "root/dog/2.png": photo(2, kind="PNG"),
        "root/readme.txt": b"text",
        "root/.hidden.jpg": b"",
        "root/.DS_Store": b"",
        "__MACOSX/root/cat/._1.JPG": b"",
        "root/LOC_val_solution.csv": b"ImageId,PredictionString\n",
    }


PACKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "a.zip": zipped,
    "a.tar": tarred,
    "a.tar.gz": lambda files: tarred(files, "w:gz"),
    "a.tgz": lambda files: tarred(files, "w:gz"),
    "a.tar.bz2": lambda files: tarred(files, "w:bz2"),
    "a.tar.xz": lambda files: tarred(files, "w:xz"),
    "a_name_without_suffix": zipped,
}


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_yields_the_same_as_its_folder(
    name: str, files: dict[str, bytes], write_files: WriteFiles
) -> None:
    folder = write_files(files, "unpacked")
    archive = write_files({name: PACKERS[name](files)}) / name
    expected = {name: files[name] for name in ("root/cat/1.JPG", "root/dog/2.png")}
    assert handed_over(folder) == expected
    assert handed_over(archive) == expected
    for path in (folder, archive):
        source = open_source(path)
        found = source.survey()
        assert found.tables == {
            "root/LOC_val_solution.csv": b"ImageId,PredictionString\n",
            "root/readme.txt": b"text",
        }
        assert source.count() == 2
        hidden = sum(one.count for one in found.unused() if one.kind.startswith("hidden"))
        assert hidden == 3


def test_tars_in_a_tar_are_folders_as_in_the_training_set(photo: Photo, write_files: WriteFiles) -> None:
    inner = {f"{wnid}.tar": tarred({f"{wnid}_1.JPEG": photo(number)}) for number, wnid in enumerate("xy")}
    for name, mode in (("train.tar", "w"), ("train.tar.gz", "w:gz")):
        path = write_files({name: tarred(inner, mode)}) / name
        assert handed_over(path) == {"x/x_1.JPEG": photo(0), "y/y_1.JPEG": photo(1)}


def test_names_that_climb_out_of_an_archive_are_refused_by_name(
    photo: Photo, write_files: WriteFiles, tmp_path: Path
) -> None:
    names = ["../../escaped.jpg", "/tmp/escaped.jpg", "a/../../../escaped.jpg"]
    for name, pack in (("a.zip", zipped), ("a.tar", tarred)):
        path = write_files({name: pack({name: photo(1) for name in names})}) / name
        said = "its path points outside the archive"
        assert handed_over(path) == dict.fromkeys(names, said)
    assert not list(tmp_path.parent.rglob("escaped.jpg"))


def test_links_in_a_tar_are_refused_by_name(write_files: WriteFiles) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("passwd.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    path = write_files({"a.tar": buffer.getvalue()}) / "a.tar"
    assert handed_over(path) == {"passwd.jpg": "it is a link within the archive"}


def test_a_damaged_zip_entry_is_refused_by_name_and_the_others_are_not(
    photo: Photo, write_files: WriteFiles
) -> None:
    whole = zipped({"1.jpg": photo(1), "2.jpg": photo(2)})
    at = whole.index(photo(1)) + 20
    path = write_files({"a.zip": whole[:at] + b"\0\1\2\3" + whole[at + 4 :]}) / "a.zip"
    found = handed_over(path)
    assert "its zip entry is damaged" in str(found["1.jpg"])
    assert found["2.jpg"] == photo(2)


@pytest.mark.parametrize(("packing", "method"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
def test_zip_entries_that_cannot_be_unpacked_in_bounded_memory_are_refused_by_name(
    packing: int, method: str, photo: Photo, write_files: WriteFiles
) -> None:
    path = write_files({}) / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.jpg", photo(1), packing)
        archive.writestr("2.jpg", photo(2), zipfile.ZIP_DEFLATED)
    said = f"it is compressed with {method}, which is not supported: expected Deflate"
    assert handed_over(path) == {"1.jpg": said, "2.jpg": photo(2)}


def test_a_damaged_packed_zip_entry_is_refused_by_name_and_the_others_are_not(
    photo: Photo, write_files: WriteFiles
) -> None:
    path = write_files({}) / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in (1, 2):
            archive.writestr(f"{number}.jpg", photo(number))
        at = archive.getinfo("2.jpg").header_offset // 2
    data = bytearray(path.read_bytes())
    data[at : at + 30] = bytes(value ^ 0xFF for value in data[at : at + 30])
    path.write_bytes(data)
    found = handed_over(path)
    assert "its zip entry is damaged" in str(found["1.jpg"])
    assert found["2.jpg"] == photo(2)


def test_a_damaged_or_huge_ground_truth_in_a_zip_is_refused_by_name(
    photo: Photo, write_files: WriteFiles
) -> None:
    name = "LOC_val_solution.csv"
    whole = bytearray(zipped({"1.jpg": photo(1), name: b"ImageId,PredictionString"}))
    whole[whole.index(b"ImageId,") + 3] ^= 1
    path = write_files({"a.zip": bytes(whole)}) / "a.zip"
    with pytest.raises(ImportRefused, match=rf"{name} in .*a\.zip: its zip entry is damaged"):
        handed_over(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(40 * 2**20))
    with pytest.raises(
        ImportRefused, match=rf"{name} is not a ground truth: it has 41,943,040 bytes, the limit"
    ):
        handed_over(path)


def test_an_encrypted_zip_entry_is_refused_by_name(photo: Photo, write_files: WriteFiles) -> None:
    whole = bytearray(zipped({"1.jpg": photo(1)}))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        whole[whole.index(signature) + flags] |= 1
    path = write_files({"a.zip": bytes(whole)}) / "a.zip"
    assert handed_over(path) == {"1.jpg": "it is encrypted"}


@pytest.mark.parametrize("name", [name for name in PACKERS if name.startswith("a.t")])
def test_a_truncated_archive_is_refused_as_a_whole(name: str, photo: Photo, write_files: WriteFiles) -> None:
    whole = PACKERS[name]({f"{number}.jpg": photo(number, size=(90, 90)) for number in range(20)})
    path = write_files({name: whole[: len(whole) * 9 // 10]}) / name
    with pytest.raises(ImportRefused, match=r"damaged or truncated after \d+ images|or it is damaged"):
        handed_over(path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 half a zip", b"nothing of the kind", b"\x1f\x8b\x08"])
def test_a_file_that_is_not_a_source_is_refused(content: bytes, write_files: WriteFiles) -> None:
    path = write_files({"a.zip": content}) / "a.zip"
    with pytest.raises(ImportRefused, match=r"is not a folder, zip or tar archive or parquet file|damaged"):
        open_source(path)


def test_a_path_with_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r".*none"):
        open_source(tmp_path / "none")


# ---------------------------------------------------------------------------------------------- folders


def test_links_are_followed_and_circles_are_not(photo: Photo, write_files: WriteFiles) -> None:
    folder = write_files({"real/1.jpg": photo(1)})
    (folder / "linked").symlink_to("real")
    (folder / "real" / "circle").symlink_to("..")
    (folder / "2.jpg").symlink_to("real/1.jpg")
    assert handed_over(folder) == dict.fromkeys(("2.jpg", "linked/1.jpg", "real/1.jpg"), photo(1))


def test_a_link_to_itself_and_a_pipe_stop_nothing(photo: Photo, write_files: WriteFiles) -> None:
    folder = write_files({"a/1.jpg": photo(1)})
    for name in ("self", "self.jpg"):
        (folder / name).symlink_to(name)
    os.mkfifo(folder / "meta.mat")
    found = handed_over(folder)
    assert found["a/1.jpg"] == photo(1)
    assert "cannot be opened" in str(found["self.jpg"])
    assert len(found) == 2


def test_folders_outside_a_source_are_skipped(photo: Photo, write_files: WriteFiles) -> None:
    folder = write_files({"1.jpg": photo(1), "var/thumbnails/ab/2.jpg": photo(2), "var/3.jpg": photo(3)})
    source = open_source(folder, but=[folder / "var" / "thumbnails", folder / "nowhere"])
    assert [image.name for image in source.images()] == ["1.jpg", "var/3.jpg"]


def test_unreadable_files_are_yielded_with_their_problem(photo: Photo, write_files: WriteFiles) -> None:
    folder = write_files({"1.jpg": photo(1)})
    (folder / "broken.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    assert handed_over(folder) == {
        "1.jpg": photo(1),
        "broken.jpg": "it cannot be opened (No such file or directory)",
        "pipe.jpg": "it is not a regular file",
    }


def test_the_images_of_a_folder_stay_in_place(photo: Photo, write_files: WriteFiles) -> None:
    folder = write_files({"a/1.jpg": photo(1)})
    [image] = open_source(folder).images()
    assert (image.data, image.path) == (None, folder.resolve() / "a/1.jpg")


# --------------------------------------------------------------------------------------------- parquet


def test_hub_shards_contain_image_split_and_class(photo: Photo, write_files: WriteFiles) -> None:
    names = [str(label_of_index(index).name) for index in range(1000)]
    cells = [{"bytes": photo(number), "path": f"{number}.JPEG"} for number in range(3)]
    content_of_shard = shard(cells, [134, 517, -1], names)
    folder = write_files({"data/validation-00000-of-00014.parquet": content_of_shard})
    packed = write_files(
        {"hub.zip": zipped({"data/validation-00000-of-00014.parquet": content_of_shard})}, "zip"
    )
    tar = write_files(
        {"hub.tar": tarred({"data/validation-00000-of-00014.parquet": content_of_shard})}, "tar"
    )
    for path in (folder, packed / "hub.zip", tar / "hub.tar"):
        images = list(open_source(path).images())
        assert [image.name for image in images] == [
            f"data/validation-00000-of-00014.parquet/{number}.JPEG" for number in range(3)
        ]
        assert [image.data for image in images] == [photo(number) for number in range(3)]
        assert {image.split for image in images} == {"val"}
        assert [image.label and image.label.wnid for image in images] == ["n02012849", "n03126707", None]
        assert [image.label and image.label.index for image in images] == [134, 517, None]
    assert open_source(folder).count() == 3
    single = open_source(folder / "data/validation-00000-of-00014.parquet")
    assert [image.name for image in single.images()] == [
        f"validation-00000-of-00014.parquet/{number}.JPEG" for number in range(3)
    ]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([1, 0], ["cat", "crane"], [(None, "crane"), (None, "cat")]),
        (
            [0, 1],
            [imagenet_wnids()[0], imagenet_wnids()[5]],
            [("n01440764", "tench"), ("n01496331", "electric ray")],
        ),
        ([7, None], None, [(None, "7"), None]),
        (["n01440764", "dog"], None, [("n01440764", "tench"), (None, "dog")]),
        ([2, -1], ["only", "two"], [None, None]),
        (None, None, [None, None]),
    ],
)
def test_labels_of_shards_are_names_unless_they_are_wnids(
    labels: list[Any] | None,
    names: list[str] | None,
    expected: list[tuple[str | None, str] | None],
    photo: Photo,
    write_files: WriteFiles,
) -> None:
    cells = [{"bytes": photo(number), "path": None} for number in range(2)]
    images = list(open_source(write_files({"train.parquet": shard(cells, labels, names)})).images())
    assert [image.label and (image.label.wnid, image.label.name) for image in images] == expected
    assert [image.name for image in images] == ["train.parquet/00000000", "train.parquet/00000001"]
    assert {image.split for image in images} == {"train"}


def test_rows_with_repeated_paths_or_no_bytes_keep_unique_names(
    photo: Photo, write_files: WriteFiles
) -> None:
    cells = [{"bytes": photo(number), "path": "image.png"} for number in range(2)]
    cells += [{"bytes": None, "path": "gone.png"}, None]
    folder = write_files({"x.parquet": shard(cells, None)})
    assert handed_over(folder) == {
        "x.parquet/image.png": photo(0),
        "x.parquet/00000001-image.png": photo(1),
        "x.parquet/gone.png": "its row contains no bytes",
        "x.parquet/00000003": "its row contains no bytes",
    }


def test_a_bad_shard_is_yielded_with_its_problem(photo: Photo, write_files: WriteFiles) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), buffer)
    whole = shard([{"bytes": photo(1), "path": None}] * 2, None)
    files = {
        "1.jpg": photo(1),
        "cut.parquet": whole[: len(whole) // 2],
        "holed.parquet": whole[:10] + bytes(60) + whole[70:],
        "table.parquet": buffer.getvalue(),
        "whole.parquet": whole,
    }
    folder = write_files(files)
    (folder / "a.zip").write_bytes(zipped(files))
    (folder / "a.tar").write_bytes(tarred(files))
    for source in (folder, folder / "a.zip", folder / "a.tar"):
        found = handed_over(source)
        assert found["1.jpg"] == found["whole.parquet/00000001"] == photo(1)
        assert "not a parquet file, or it is damaged" in str(found["cut.parquet"])
        assert "the header of a page of its column image.bytes is damaged" in str(found["holed.parquet"])
        assert "expected a column of images" in str(found["table.parquet"])
        assert "got columns text, label" in str(found["table.parquet"])


def test_a_folder_is_walked_in_order_of_name(photo: Photo, write_files: WriteFiles) -> None:
    folder = write_files({name: photo(1) for name in ("b/1.jpg", "a/2.jpg", "c.jpg", "a/10.jpg")})
    assert [image.name for image in FolderSource(folder).images()] == [
        "a/10.jpg",
        "a/2.jpg",
        "b/1.jpg",
        "c.jpg",
    ]
