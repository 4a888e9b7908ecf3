"""Labels of ILSVRC's validation images, from each format they are published in."""

import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from precompute.images.ground_truth import load_ground_truth
from precompute.images.sources.source import ImportRefused
from precompute.images.wordnet import imagenet_wnids

LIST = "ILSVRC2012_validation_ground_truth.txt"
WriteFiles = Callable[..., Path]


def devkit_order() -> list[str]:
    """WNIDs by ILSVRC id, in an order that is not sorted, as in the devkit."""
    wnids = list(imagenet_wnids())
    random.Random(0).shuffle(wnids)
    return wnids


def meta_mat() -> bytes:
    """A `meta.mat` like the devkit's: a struct array of 1,000 classes followed by inner nodes."""
    wnids = [*devkit_order(), "n00001740", "n00001930"]
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    synsets = np.empty((len(wnids), 1), dtype=kind)
    for row, wnid in enumerate(wnids):
        synsets[row, 0] = (float(row + 1), wnid, "a name", 0.0 if row < 1000 else 3.0)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    return buffer.getvalue()


IDS = b"490\n361\n171\n"
NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3)]


def assert_devkit(path: Path) -> None:
    truth = load_ground_truth(path)
    order = devkit_order()
    labels = [truth.label(name) for name in NAMES]
    assert [label and label.wnid for label in labels] == [order[489], order[360], order[170]]
    # the index is that of the sorted WNIDs, not the ILSVRC id
    assert [label and label.index for label in labels] == [
        imagenet_wnids().index(order[i]) for i in (489, 360, 170)
    ]


def test_the_devkit_is_read_from_its_folder_its_data_its_list_or_its_archive(
    write_files: WriteFiles, tmp_path: Path
) -> None:
    kit = write_files({f"data/{LIST}": IDS, "data/meta.mat": meta_mat()}, "ILSVRC2012_devkit_t12")
    archive = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(kit, kit.name)
    for path in (kit, kit / "data", kit / "data" / LIST, kit / "data" / "meta.mat", archive):
        assert_devkit(path)


def test_the_devkit_s_list_alone_is_refused_with_what_to_add(write_files: WriteFiles) -> None:
    folder = write_files({LIST: IDS})
    for path in (folder, folder / LIST):
        with pytest.raises(ImportRefused, match=r"ILSVRC ids.*put meta\.mat next to it"):
            load_ground_truth(path)


def test_an_id_that_does_not_exist_is_refused_by_its_line(write_files: WriteFiles) -> None:
    folder = write_files({LIST: b"1\n1001\n", "meta.mat": meta_mat()})
    with pytest.raises(ImportRefused, match=r"from 1 to 1000 at line 2, got '1001'"):
        load_ground_truth(folder)


def test_a_damaged_meta_mat_is_refused(write_files: WriteFiles) -> None:
    for damaged in (b"", b"nonsense", meta_mat()[:5000]):
        folder = write_files({LIST: IDS, "meta.mat": damaged})
        with pytest.raises(ImportRefused, match=r"meta\.mat of .* cannot be read"):
            load_ground_truth(folder)


def test_byte_order_marks_are_ignored(write_files: WriteFiles) -> None:
    folder = write_files(
        {
            "solution.csv": b"\xef\xbb\xbfImageId,PredictionString\nILSVRC2012_val_00000001,n01751748 1 2 3 4\n",
            "list.txt": b"\xef\xbb\xbfn01751748\n",
        }
    )
    for name in ("solution.csv", "list.txt"):
        label = load_ground_truth(folder / name).label(NAMES[0])
        assert label is not None
        assert label.wnid == "n01751748"


def test_a_truncated_archive_is_refused(write_files: WriteFiles, tmp_path: Path) -> None:
    archive = tmp_path / "devkit.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(write_files({LIST: IDS, "meta.mat": meta_mat()}), "data")
    whole = archive.read_bytes()
    for length, words in (
        (30, "not a readable ground truth"),
        (len(whole) // 2, "damaged or truncated"),
    ):
        archive.write_bytes(whole[:length])
        with pytest.raises(ImportRefused, match=words):
            load_ground_truth(archive)


def test_oversized_or_special_files_are_refused(write_files: WriteFiles) -> None:
    folder = write_files(
        {"a.csv": b"ImageId,PredictionString\n" + b"x" * 200_000, "b.txt": b"n" * (33 * 2**20)}
    )
    os.mkfifo(folder / "c.txt")
    for name, words in (
        ("a.csv", "cannot be read at line 2: field larger"),
        ("b.txt", "it has 34,603,008 bytes"),
        ("c.txt", "not a regular file"),
    ):
        with pytest.raises(ImportRefused, match=words):
            load_ground_truth(folder / name)


def test_the_first_wnid_of_kaggles_table_is_used(write_files: WriteFiles) -> None:
    table = (
        b"ImageId,PredictionString\n"
        b"ILSVRC2012_val_00048981,n03995372 85 1 499 272 \n"
        b"ILSVRC2012_val_00037956,n03481172 131 0 499 254 n03481172 1 2 3 4 \n"
    )
    folder = write_files({"LOC_val_solution.csv": table, "under_another_name.csv": table})
    for path in (folder, folder / "LOC_val_solution.csv", folder / "under_another_name.csv"):
        truth = load_ground_truth(path)
        label = truth.label("some/folder/ILSVRC2012_val_00048981.JPEG")
        assert label is not None
        assert (label.wnid, label.name) == ("n03995372", "power drill")
        assert truth.label("ILSVRC2012_val_00000001.JPEG") is None


def test_a_damaged_row_of_kaggle_s_table_is_refused_by_its_line(write_files: WriteFiles) -> None:
    folder = write_files({"LOC_val_solution.csv": b"ImageId,PredictionString\na,n03995372 1\nb,\n"})
    with pytest.raises(ImportRefused, match="at line 3, got 'b,'"):
        load_ground_truth(folder)


def test_lists_of_wnids_are_read_by_line_or_by_name(write_files: WriteFiles) -> None:
    folder = write_files({"by_line.txt": b"n01440764\nn01751748\n", "by_name.txt": b"val/x.JPEG n01751748\n"})
    by_line = load_ground_truth(folder / "by_line.txt").label(NAMES[1])
    by_name = load_ground_truth(folder / "by_name.txt").label("x.JPEG")
    assert by_line == by_name
    assert by_line is not None
    assert by_line.wnid == "n01751748"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ILSVRC2012_val_00000001.JPEG 65\n", "class numbers without stating their order"),
        (b"some prose\n", "not a readable ground truth"),
        (b"", "not a readable ground truth"),
    ],
)
def test_ambiguous_ground_truth_is_refused(write_files: WriteFiles, content: bytes, words: str) -> None:
    folder = write_files({"val.txt": content})
    with pytest.raises(ImportRefused, match=words):
        load_ground_truth(folder / "val.txt")
    with pytest.raises(ImportRefused, match="contains no ground truth"):
        load_ground_truth(folder)


def test_a_path_with_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"no ground truth found at .*none"):
        load_ground_truth(tmp_path / "none")
