# ruff: noqa: E501  # a tree reads best on one line
"""Twenty-odd layouts of real datasets as small trees, with the split, class and count that each must yield.

The outcomes are the table in docs/image-layouts.md; `python tests/precompute/test_layouts.py` rewrites it.
"""

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from precompute.images.importing import ImportRefused, ImportReport, open_source
from precompute.images.layouts import Layout, LayoutOptions, work_out
from precompute.images.sources.source import Columns

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "image-layouts.md"
Files = dict[str, bytes]
MASKS = "images that annotate others, such as masks"
DICOM = "DICOM files (.dcm), which are not supported: export them as PNG"


def png(number: int) -> bytes:
    """Return a small image, different for every number."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def tree(*names: str, **texts: str) -> Files:
    """Return images with these names, each different, and text files."""
    return {name: png(number) for number, name in enumerate(names)} | {
        name: text.encode() for name, text in texts.items()
    }


def shard(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def cifar(count: int, first: int) -> bytes:
    data = np.random.default_rng(first).integers(0, 256, (count, 3072), dtype=np.uint8)
    batch = {
        "data": data,
        "labels": [n % 2 for n in range(count)],
        "filenames": [f"f{first + n}.png" for n in range(count)],
    }
    return pickle.dumps(batch, protocol=2)


@dataclass(frozen=True)
class Case:
    """A dataset's tree and the expected outcome.

    Attributes:
        files: contents by path.
        expected: number of images to be imported by (split, label).
        unused: number of files to be listed as unused, by kind.
        options: the options that the user gives.
        says: text that the sentence or a note must contain.
    """

    files: Files
    expected: dict[tuple[str | None, str | None], int]
    unused: dict[str, int] = field(default_factory=dict)
    options: LayoutOptions | None = None
    says: str = ""
    folder: str = "source"


WNIDS = ("n01443537", "n01629819")
CASES: dict[str, Case] = {
    "ImageFolder": Case(tree("cat/1.png", "cat/2.png", "dog/1.png"), {(None, "cat"): 2, (None, "dog"): 1}),
    "ImageFolder with train, val and dev": Case(
        tree("train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "dev/dog/3.png"),
        {("train", "cat"): 1, ("train", "dog"): 1, ("val", "cat"): 1, ("dev", "dog"): 1},
        says="split from the folders dev, train, val",
    ),
    "Intel scenes (seg_train/seg_train)": Case(
        tree("seg_train/seg_train/sea/1.jpg", "seg_test/seg_test/sea/2.jpg", "seg_test/seg_test/ice/2.jpg", "seg_pred/seg_pred/3.jpg"),
        {("train", "sea"): 1, ("test", "sea"): 1, ("test", "ice"): 1, ("pred", None): 1},
    ),
    "Cats and dogs (training_set)": Case(
        tree("training_set/training_set/cats/1.jpg", "training_set/training_set/dogs/1.jpg", "test_set/test_set/cats/2.jpg"),
        {("train", "cats"): 1, ("train", "dogs"): 1, ("test", "cats"): 1},
    ),
    "Unknown split beside train and test": Case(
        tree("train/ant/1.png", "train/bee/1.png", "test/ant/2.png", "night/3.png"),
        {("train", "ant"): 1, ("train", "bee"): 1, ("test", "ant"): 1, ("night", None): 1},
    ),
    "Oxford-IIIT Pet": Case(
        tree("images/Abyssinian_1.jpg", "images/great_pyrenees_2.jpg", "annotations/trimaps/Abyssinian_1.png",
             "annotations/trimaps/great_pyrenees_2.png")
        | {"annotations/trainval.txt": b"Abyssinian_1 1 1 1\n", "annotations/test.txt": b"great_pyrenees_2 2 2 1\n",
           "annotations/xmls/Abyssinian_1.xml": b"<a/>"},
        {("trainval", "Abyssinian"): 1, ("test", "great_pyrenees"): 1},
        {MASKS: 2, "XML files (.xml), such as boxes around objects": 1},
    ),
    "CUB-200": Case(
        tree("images/001.Albatross/a.jpg", "images/002.Auklet/b.jpg", "segmentations/001.Albatross/a.png")
        | {"images.txt": b"1 001.Albatross/a.jpg\n2 002.Auklet/b.jpg\n", "classes.txt": b"1 001.Albatross\n2 002.Auklet\n",
           "image_class_labels.txt": b"1 1\n2 2\n", "train_test_split.txt": b"1 1\n2 0\n"},
        {("train", "001.Albatross"): 1, ("test", "002.Auklet"): 1},
        {MASKS: 1},
    ),
    "Food-101": Case(
        tree("images/apple_pie/1.jpg", "images/apple_pie/2.jpg", "images/waffles/1.jpg")
        | {"meta/train.txt": b"apple_pie/1\nwaffles/1\n", "meta/test.txt": b"apple_pie/2\n", "meta/classes.txt": b"apple_pie\nwaffles\n"},
        {("train", "apple_pie"): 1, ("train", "waffles"): 1, ("test", "apple_pie"): 1},
        {"text files (.txt)": 1},
    ),
    "SUN397 (letter folders)": Case(
        tree("a/abbey/1.jpg", "a/apse/indoor/1.jpg", "b/bar/1.jpg"),
        {(None, "abbey"): 1, (None, "apse/indoor"): 1, (None, "bar"): 1},
    ),
    "EuroSAT (Kaggle's tables)": Case(
        tree("EuroSAT/Forest/Forest_1.jpg", "EuroSAT/River/River_1.jpg")
        | {"EuroSAT/train.csv": b",Filename,Label,ClassName\n0,Forest/Forest_1.jpg,1,Forest\n",
           "EuroSAT/test.csv": b",Filename,Label,ClassName\n0,River/River_1.jpg,8,River\n"},
        {("train", "Forest"): 1, ("test", "River"): 1},
    ),
    "CIFAR-10 (Python version)": Case(
        {"cifar-10-batches-py/data_batch_1": cifar(3, 0), "cifar-10-batches-py/test_batch": cifar(1, 9),
         "cifar-10-batches-py/batches.meta": pickle.dumps({"label_names": ["airplane", "automobile"]}, protocol=2)},
        {("train", "airplane"): 2, ("train", "automobile"): 1, ("test", "airplane"): 1},
    ),
    "CIFAR-10 (binary version)": Case(
        {"data_batch_1.bin": bytes([1]) + bytes(range(256)) * 12, "test_batch.bin": bytes([0]) + bytes(3072),
         "batches.meta.txt": b"airplane\nautomobile\n"},
        {("train", "automobile"): 1, ("test", "airplane"): 1},
    ),
    "MNIST (idx files)": Case(
        {"train-images-idx3-ubyte.gz": gzip.compress(idx(np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4))),
         "train-labels-idx1-ubyte.gz": gzip.compress(idx(np.array([7, 0, 7], np.uint8))),
         "t10k-images-idx3-ubyte": idx(np.ones((1, 4, 4), np.uint8)), "t10k-labels-idx1-ubyte": idx(np.array([2], np.uint8))},
        {("train", "7"): 2, ("train", "0"): 1, ("test", "2"): 1},
    ),
    "COCO": Case(
        tree("train2017/1.jpg", "val2017/2.jpg", "annotations/panoptic_val2017/2.png")
        | {"annotations/instances_val2017.json": json.dumps({"images": [{"id": 5, "file_name": "2.jpg"}], "categories": [{"id": 1, "name": "person"}],
           "annotations": [{"image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1]}]}).encode()},
        {("train", None): 1, ("val", None): 1},
        {MASKS: 1, "JSON files (.json)": 1},
        says="contains object boxes",
    ),
    "Hugging Face imagefolder (metadata.csv)": Case(
        tree("train/0.png", "train/1.png", "test/0.png")
        | {"train/metadata.csv": b"file_name,label,text\n0.png,cat,a\n1.png,dog,b\n", "test/metadata.jsonl": b'{"file_name": "0.png", "label": "dog"}\n'},
        {("train", "cat"): 1, ("train", "dog"): 1, ("test", "dog"): 1},
    ),
    "Hugging Face imagefolder (metadata.parquet)": Case(
        tree("a.png", "b.png") | {"metadata.parquet": shard({"file_name": ["a.png", "b.png"], "label": ["x", "y"], "split": ["train", "validation"]})},
        {("train", "x"): 1, ("val", "y"): 1},
    ),
    "WebDataset (.cls)": Case(
        {"000.jpg": png(0), "000.cls": b"0", "001.jpg": png(1), "001.cls": b"1", "002.jpg": png(2), "002.cls": b"1"},
        {(None, "0"): 1, (None, "1"): 2},
        says="the classes are numbers",
    ),
    "WebDataset (.json)": Case(
        {"000.jpg": png(0), "000.json": b'{"label": "cat", "width": 9}', "001.jpg": png(1), "001.json": b'{"label": "dog"}'},
        {(None, "cat"): 1, (None, "dog"): 1},
    ),
    "WebDataset (.txt)": Case(
        {f"{n:03d}.{end}": data for n in range(4) for end, data in (("jpg", png(n)), ("txt", (b"cat", b"dog")[n % 2]))},
        {(None, "cat"): 2, (None, "dog"): 2},
    ),
    "YOLO (Roboflow)": Case(
        tree("train/images/a.jpg", "valid/images/b.jpg") | {"train/labels/a.txt": b"0 0.5 0.5 0.1 0.1\n", "valid/labels/b.txt": b"1 0.5 0.5 0.1 0.1\n", "data.yaml": b"names: [a]"},
        {("train", None): 1, ("val", None): 1},
        {"text files (.txt)": 2, "settings (.yaml)": 1},
    ),
    "Roboflow's one-hot table": Case(
        tree("train/a.jpg", "train/b.jpg", "valid/c.jpg")
        | {"train/_classes.csv": b"filename, cat, dog\na.jpg, 1, 0\nb.jpg, 0, 1\n", "valid/_classes.csv": b"filename, cat, dog\nc.jpg, 1, 0\n"},
        {("train", "cat"): 1, ("train", "dog"): 1, ("val", "cat"): 1},
    ),
    "ImageNetV2 (index folders)": Case(
        tree("imagenetv2-matched-frequency/0/a.jpeg", "imagenetv2-matched-frequency/134/b.jpeg"),
        {(None, "tench"): 1, (None, "crane bird"): 1},
        says="0 to 999",
    ),
    "Index folders of another set": Case(
        tree("0/a.png", "1/b.png"), {(None, "0"): 1, (None, "1"): 1}, says="the classes are numbers"
    ),
    "Tiny-ImageNet": Case(
        tree(f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG")
        | {"val/val_annotations.txt": f"val_0.JPEG\t{WNIDS[1]}\t0\t1\t2\t3\nval_1.JPEG\t{WNIDS[0]}\t0\t1\t2\t3\n".encode(), "wnids.txt": b"n01443537\n"},
        {("train", "goldfish"): 1, ("val", "European fire salamander"): 1, ("val", "goldfish"): 1, ("test", None): 1},
        {"text files (.txt)": 1},
    ),
    "Kaggle (labels.csv beside train/)": Case(
        tree("train/ab1.jpg", "train/ab2.jpg", "test/ab3.jpg") | {"labels.csv": b"id,breed\nab1,boxer\nab2,beagle\n"},
        {("train", "boxer"): 1, ("train", "beagle"): 1, ("test", None): 1},
    ),
    "Table of objects": Case(
        tree("a.jpg", "b.jpg") | {"_annotations.csv": b"filename,class,xmin\na.jpg,cat,1\na.jpg,dog,2\nb.jpg,cat,3\n"},
        {(None, None): 2},
        {"tables (.csv)": 1},
        says="states several classes for 1 image",
    ),
    "Several columns, none named a class": Case(
        tree("a.jpg", "b.jpg") | {"data.csv": b"file,camera,site\na.jpg,c1,s1\nb.jpg,c2,s2\n"},
        {(None, None): 2},
        {"tables (.csv)": 1},
        says="choose one of its columns with --label-column: camera, site",
    ),
    "The same with --label-column site": Case(
        tree("a.jpg", "b.jpg") | {"data.csv": b"file,camera,site\na.jpg,c1,s1\nb.jpg,c2,s2\n"},
        {(None, "s1"): 1, (None, "s2"): 1},
        options=LayoutOptions(columns=Columns(label="site")),
    ),
    "Medical masks (images/ and masks/)": Case(
        tree("images/normal/1.png", "images/polyp/1.png", "masks/normal/1.png", "masks/polyp/1.png"),
        {(None, "normal"): 1, (None, "polyp"): 1},
        {MASKS: 2},
    ),
    "BUSI (x_mask.png beside x.png)": Case(
        tree("benign/benign (1).png", "benign/benign (1)_mask.png", "normal/normal (1).png", "normal/normal (1)_mask.png", "normal/normal (1)_mask_1.png"),
        {(None, "benign"): 1, (None, "normal"): 1},
        {MASKS: 3},
    ),
    "Odd names, no names and DICOM": Case(
        tree("ok/1.png", "ok/2.jpg?w=300&h=200", "bad/3") | {"bad/scan.dcm": bytes(128) + b"DICM", "bad/IM0001": bytes(128) + b"DICM"},
        {(None, "ok"): 2, (None, "bad"): 1},
        {DICOM: 2},
    ),
    "Deeper classes with --class-level 2": Case(
        tree("site1/cat/1.png", "site2/dog/2.png"),
        {(None, "cat"): 1, (None, "dog"): 1},
        options=LayoutOptions(class_level=2),
    ),
    "Sites as splits with --split-from 1": Case(
        tree("site1/cat/1.png", "site2/dog/2.png"),
        {("site1", "cat"): 1, ("site2", "dog"): 1},
        options=LayoutOptions(split_level=1),
    ),
}  # fmt: skip


def write(folder: Path, case: Case) -> Path:
    root = folder / case.folder
    for name, content in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def packed(case: Case, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in case.files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for name, content in case.files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def come_to(path: Path, case: Case) -> tuple[Layout, Counter[tuple[str | None, str | None]], list[str]]:
    """Return the layout, the counts by (split, label) of all images handed over, and the problems."""
    columns = case.options.columns if case.options else None
    source = open_source(path, columns=columns)
    layout = work_out(source.survey(), case.options)
    found: Counter[tuple[str | None, str | None]] = Counter()
    problems = []
    for image in source.images(layout.skipped.keys()):
        if image.problem is not None:
            problems.append(f"{image.name}: {image.problem}")
            continue
        place = layout.place(image.name)
        split, label = (place.split, place.label) if image.folders else (image.split, image.label)
        found[split, label and label.name] += 1
    return layout, found, problems


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_detected_in_a_folder_and_in_archives(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    layout, found, problems = come_to(write(tmp_path, case), case)
    assert problems == []
    assert found == case.expected
    assert {one.kind: one.count for one in layout.unused} == case.unused
    assert case.says in " ".join((layout.sentence(), *layout.notes))
    for kind in ("zip", "tar", "tar.gz"):
        (tmp_path / f"a.{kind}").write_bytes(packed(case, kind))
        archived, found, problems = come_to(tmp_path / f"a.{kind}", case)
        assert (found, problems) == (case.expected, []), kind
        assert archived.sentence() == layout.sentence(), kind
        assert {one.kind: one.count for one in archived.unused} == case.unused, kind


def table() -> str:
    """Return the outcomes as Markdown."""
    lines = ["| Files | What is taken | Images by split and label | Not used |", "| --- | --- | --- | --- |"]
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            layout, found, _ = come_to(write(Path(folder), case), case)
        images = ", ".join(
            f"{split or 'no split'}/{label or 'no label'} {count}"
            for (split, label), count in sorted(found.items(), key=repr)
        )
        unused = ", ".join(f"{one.count} {one.kind}" for one in layout.unused) or "nothing"
        notes = "".join(f"; note: {note}" for note in layout.notes)
        cells = [name, f"{layout.sentence()}{notes}", images, unused]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def test_the_documented_outcomes_are_the_actual_ones() -> None:
    assert DOC.read_text().partition("<!-- outcomes -->\n")[2] == table()


def test_the_labels_of_the_layout_enter_the_atlas(
    bring: Callable[..., ImportReport], atlas: Any, tmp_path: Path
) -> None:
    bring(write(tmp_path, CASES["BUSI (x_mask.png beside x.png)"]))
    sql = "SELECT name, label FROM images ORDER BY name"
    with atlas.read() as cursor:
        assert cursor.execute(sql).fetchall() == [
            ("benign/benign (1).png", "benign"),
            ("normal/normal (1).png", "normal"),
        ]


def options(**words: Any) -> LayoutOptions:
    from precompute.images.layouts.asked import layout_options

    return layout_options(**words)


def test_a_given_table_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(
        "name;kind;part\ncat/1.png;tabby;train\n/home/me/dog/2.png;boxer;test\n../../etc/passwd;x;x\n"
    )
    asked = options(labels=tmp_path / "truth.csv", label_column="kind", split_from="part")
    case = Case(
        tree("cat/1.png", "dog/2.png", "dog/3.png"),
        {("train", "tabby"): 1, ("test", "boxer"): 1, (None, None): 1},
        options=asked,
    )
    layout, found, _ = come_to(write(tmp_path, case), case)
    assert found == case.expected
    assert layout.notes == ("1 row of truth.csv names no image here, or several, such as '../../etc/passwd'",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"labels": "none.csv"}, "--labels: there is no file at"),
        ({"labels": "other.csv"}, "names none of the 2 images .* such as a/1.png; its first row is"),
        ({"labels": "good.csv", "label_column": "kind"}, "--label-column: good.csv has no column 'kind': its columns are file, label"),
        ({"labels": "good.csv", "image_column": "kind"}, "--image-column: good.csv has no column 'kind'"),
        ({"label_column": "kind"}, "no table in .* has the requested columns"),
        ({"class_level": 5}, "level 5: no image is nested that deeply"),
        ({"split_from": "0"}, "--split-from: expected none, a folder level"),
        ({"split_from": "7"}, "level 7: no image"),
        ({"class_names": "none.txt"}, "--class-names: there is no file at"),
    ],
)  # fmt: skip
def test_invalid_options_are_refused_in_a_sentence(words: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("file,label\nx.png,cat\n")
    (tmp_path / "good.csv").write_text("file,label\na/1.png,cat\n")
    source = write(tmp_path, Case(tree("a/1.png", "b/1.png"), {}))
    given = {
        key: tmp_path / value if key in ("labels", "class_names") else value for key, value in words.items()
    }
    if "class_names" in given:
        given["class_names"] = str(given["class_names"])
    with pytest.raises(ImportRefused, match=said):
        work_out(open_source(source).survey(), options(**given))


def test_numbered_classes_get_the_names_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("aardvark\nbadger\n")
    for given, expected in (
        (str(tmp_path / "names.txt"), {(None, "badger"): 1}),
        ("imagenet-1k", {(None, "goldfish"): 1}),
    ):
        case = Case({"0.jpg": png(0), "0.cls": b"1"}, expected, options=options(class_names=given))
        assert come_to(write(tmp_path, case), case)[1] == expected
    case = Case(
        tree("1/a.png", "0/b.png"),
        {(None, "badger"): 1, (None, "aardvark"): 1},
        options=options(class_names=str(tmp_path / "names.txt")),
        folder="x",
    )
    assert come_to(write(tmp_path, case), case)[1] == case.expected


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch harmed",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"data": _Harm(), "labels": [0]}),
        pickle.dumps({"data": np.zeros((1, 3072), object), "labels": [0]}),
        pickle.dumps({"data": np.zeros((1, 3071), np.uint8), "labels": [0]}),
        pickle.dumps([1] * 4000),
        b"\x80\x02" + bytes(4000),
    ],
    ids=["calls a program", "objects", "another width", "a list", "damaged"],
)
def test_a_pickle_that_is_not_a_batch_is_refused_and_not_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = Case({"data_batch_1": content + bytes(max(0, 3100 - len(content)))}, {})
    _, found, problems = come_to(write(tmp_path, case), case)
    assert not found
    assert len(problems) == 1
    assert problems[0].startswith("data_batch_1: it")
    assert not (tmp_path / "harmed").exists()


def test_multi_label_tables_give_no_label(tmp_path: Path) -> None:
    cells = pa.array(
        [{"bytes": png(n), "path": None} for n in range(3)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    case = Case(
        {"train.parquet": shard({"image": cells, "labels": [[0, 1], [1], []]})},
        {("train", None): 2, ("train", "1"): 1},
    )
    assert come_to(write(tmp_path, case), case)[1] == case.expected


def test_a_dry_run_reports_everything_and_changes_nothing(tmp_path: Path) -> None:
    case = CASES["Tiny-ImageNet"]
    environment = os.environ | {"CONVSCOPE_HOME": str(tmp_path / "home")}
    command = [
        sys.executable,
        "-m",
        "convscope",
        "images",
        "import",
        "tiny",
        str(write(tmp_path, case)),
        "--dry-run",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "tiny: would import 4 images; nothing was changed",
        "  3 splits: test 1, train 1, val 2",
        "  2 labels: goldfish 2, European fire salamander 1",
    ]
    assert "not used: text files (.txt): wnids.txt" in done.stdout
    assert not list((tmp_path / "home").rglob("*.duckdb"))


if __name__ == "__main__":
    head = DOC.read_text().partition("<!-- outcomes -->\n")[0]
    DOC.write_text(f"{head}<!-- outcomes -->\n{table()}")
