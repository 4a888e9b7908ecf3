"""A labels file with uploaded images or with a folder on the server: previewed, imported, refused."""

import io
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from PIL import Image

from dashboard.app import create_app
from dashboard.state.context import EXTENSION, Context
from db.queries import jobs as job_queries
from db.queries.inventory import Query
from db.settings import Settings
from precompute.images.survey import TABLE_SUFFIXES
from precompute.jobs import set_kinds
from workers.queue.runner import Runner
from workers.requests.image_sets import LABELS_SUFFIXES

CSV = b"file,kind,site,split\na.jpg,cat,north,train\nb.jpg,dog,south,val\nlost.jpg,cat,north,train\n"


class Client:
    """The HTTP API over a home, with a worker in this process."""

    def __init__(self, settings: Settings) -> None:
        app = create_app(settings)
        self.settings = settings
        self.http: FlaskClient = app.server.test_client()
        self.context: Context = app.server.extensions[EXTENSION]

    def send(self, files: dict[str, bytes]) -> str:
        listed = [{"name": name, "size": len(content)} for name, content in files.items()]
        key = self.http.post("/api/uploads", json={"files": listed}).json["upload"]  # type: ignore[index]
        for number, content in enumerate(files.values()):
            self.put(key, number, content)
        return str(key)

    def put(self, key: str, number: int, content: bytes) -> None:
        place = f"/api/uploads/{key}/files/{number}"
        sent = self.http.put(place, data=content, content_type="application/octet-stream")
        assert sent.json == {"file": number, "received": len(content)}

    def send_labels(self, key: str, content: bytes, name: str = "labels.csv") -> int:
        made = self.http.post(f"/api/uploads/{key}/labels", json={"name": name, "size": len(content)})
        assert made.status_code == 201, made.json
        number = int(made.json["file"])  # type: ignore[index]
        assert made.headers["Location"] == f"/api/uploads/{key}/files/{number}"
        self.put(key, number, content)
        return number

    def run(self, path: str, **body: Any) -> dict[str, Any]:
        """Submit a request, run its job to the end, and return it."""
        asked = self.http.post(path, json={"images": "mine", **body})
        assert asked.status_code in (200, 201), asked.json
        job = int(asked.json["job"])  # type: ignore[index]
        Runner(
            self.settings,
            self.context.ledger,
            dict(set_kinds(self.settings, torch.device("cpu"))),
            worker="w",
            queues=("interactive", "batch"),
            stopping=threading.Event(),
        ).run(job)
        return dict(self.http.get(f"/api/jobs/{job}").json)  # type: ignore[arg-type]

    def labels(self) -> dict[str, tuple[str | None, str | None]]:
        rows = self.context.atlas.fetch(Query("SELECT name, label, split FROM images ORDER BY name"))
        return {row["name"]: (row["label"], row["split"]) for row in rows}


def photo(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def client(settings: Settings) -> Client:
    return Client(settings)


@pytest.fixture
def images() -> dict[str, bytes]:
    """Three images in a folder that is not a class, and a table in it whose labels are all wrong."""
    return {f"all/{name}.jpg": photo((number * 90, 40, 60)) for number, name in enumerate("abc")} | {
        "all/labels.csv": b"file,kind\na.jpg,wrong\nb.jpg,wrong\nc.jpg,wrong\n"
    }


def test_a_labels_file_is_previewed_changed_imported_and_gone_with_the_upload(
    client: Client, images: dict[str, bytes]
) -> None:
    key = client.send(images)
    place = f"/api/uploads/{key}/import"
    labels = client.send_labels(key, CSV)
    assert labels == 4
    layout = client.run(place, labels=labels, preview=True)["image_import"]["layout"]
    assert layout["labels"] == {}
    assert layout["notes"] == [
        "1 row of labels.csv names no image here, or several, such as 'lost.jpg'",
        "no label from labels.csv: choose one of its columns with --label-column: kind, site",
    ]
    layout = client.run(place, labels=labels, preview=True, label_column="kind")["image_import"]["layout"]
    assert layout["sentence"] == (
        "images with a table: split from column split of labels.csv; class from column kind of labels.csv "
        "(2 of 3 images); label is the value in that column"
    )
    assert layout["notes"] == ["1 row of labels.csv names no image here, or several, such as 'lost.jpg'"]
    assert layout["unused"] == [{"kind": "tables (.csv)", "count": 1, "example": "all/labels.csv"}]
    assert (layout["images"], layout["labels"]) == (3, {"cat": 1, "dog": 1})
    assert layout["splits"] == {"train": 1, "val": 1}
    # another file of the same upload is another request
    other = client.send_labels(key, b'{"file": "c.jpg", "label": "owl"}\n', "labels.jsonl")
    layout = client.run(place, labels=other, preview=True)["image_import"]["layout"]
    assert layout["labels"] == {"owl": 1}
    assert client.context.atlas.version() is None, "a preview imports nothing"
    done = client.run(place, labels=labels, label_column="kind")
    assert (done["state"], done["image_import"]["labelled"]) == ("done", 2), done
    assert client.labels() == {
        "all/a.jpg": ("cat", "train"),
        "all/b.jpg": ("dog", "val"),
        "all/c.jpg": (None, None),
    }
    assert list((client.settings.home / "uploads").iterdir()) == []


def test_a_labels_file_is_used_only_by_its_number(client: Client, images: dict[str, bytes]) -> None:
    key = client.send(images)
    client.send_labels(key, CSV)
    client.http.post(f"/api/uploads/{key}/labels", json={"name": "half.csv", "size": 100})  # never sent
    layout = client.run(f"/api/uploads/{key}/import", preview=True)["image_import"]["layout"]
    assert (layout["labels"], layout["images"]) == ({"wrong": 3}, 3)
    assert client.http.delete(f"/api/uploads/{key}").status_code == 200
    assert list((client.settings.home / "uploads").iterdir()) == []


NO_TABLE = "is not a table: expected rows with an image and its class, with or without a header"


def test_a_useless_labels_file_is_refused_and_nothing_is_written(
    client: Client, images: dict[str, bytes]
) -> None:
    key = client.send(images)
    none_of = "names none of the 3 images of the upload, such as all/a.jpg; its first row is x, y"
    property_name = "(Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"
    cases = {
        "a.csv": (b"x,y\n1,2\n3,4\n", f"--labels: a.csv {none_of}"),
        "b.csv": (b"\0\1\2\3", f"--labels: b.csv {NO_TABLE}"),
        "c.tsv": (b"  \n\n", f"--labels: c.tsv {NO_TABLE}"),
        "d.jsonl": (b"{", f"d.jsonl, line 1 is not readable JSON {property_name}"),
        "e.parquet": (b"PAR1", "e.parquet is not a parquet file, or it is damaged: download it again"),
        "f.csv": (
            b"file,label\na.jpg," + b"x" * 200_000,
            "f.csv cannot be read at line 2: field larger than field limit (131072)",
        ),
    }
    for name, (content, sentence) in cases.items():
        job = client.run(f"/api/uploads/{key}/import", labels=client.send_labels(key, content, name))
        assert (job["state"], job["error"]) == ("failed", sentence)
    assert client.context.atlas.version() is None
    assert not [path for path in (client.settings.home / "images").rglob("*") if path.is_file()]
    done = client.run(f"/api/uploads/{key}/import", labels=client.send_labels(key, CSV), label_column="kind")
    assert done["state"] == "done", "the images were not sent again"


VALID = ".csv, .tsv, .txt, .json, .jsonl, .ndjson or .parquet"


def test_invalid_labels_files_are_refused_before_upload(client: Client, images: dict[str, bytes]) -> None:
    key = client.send(images)
    before = client.http.get(f"/api/uploads/{key}").json
    mib = 2**20
    unprintable = "name: expected a printable file name of 1 to 255 characters, got "
    cases: list[tuple[str, Any, str]] = [
        ("labels.xlsx", 9, f"labels: labels.xlsx is not a table: expected {VALID} with one row per image"),
        ("labels", 9, f"labels: labels is not a table: expected {VALID} with one row per image"),
        ("x/../labels.csv", 0, "labels: labels.csv is empty: expected a table with one row per image"),
        ("labels.csv", 32 * mib + 1, "labels: labels.csv has 33,554,433 bytes, the limit is 33,554,432"),
        ("labels.json", 16 * mib + 1, "labels: labels.json has 16,777,217 bytes, the limit is 16,777,216"),
        ("a\nb.csv", 9, unprintable + repr("a\nb.csv")),
        ("x" * 252 + ".csv", 9, unprintable + "'xxx"),
        ("x/", 9, unprintable + "''"),
        ("labels.csv", True, "size: expected a whole number of bytes, got True"),
        ("labels.csv", -1, "size: expected a whole number of bytes, got -1"),
    ]
    for name, size, sentence in cases:
        answer = client.http.post(f"/api/uploads/{key}/labels", json={"name": name, "size": size})
        assert answer.status_code == 400
        assert sentence in answer.json["error"]  # type: ignore[index]
    for body, sentence in (
        ({"name": "labels.csv"}, "size: expected a whole number of bytes, got none"),
        ({"name": "labels.csv", "size": 9, "of": 1}, "body: expected members among name, size, got 'of'"),
    ):
        answer = client.http.post(f"/api/uploads/{key}/labels", json=body)
        assert answer.status_code == 400
        assert sentence in answer.json["error"]  # type: ignore[index]
    assert client.http.get(f"/api/uploads/{key}").json == before


def test_labels_are_named_by_a_number_of_their_upload_that_is_whole(
    client: Client, images: dict[str, bytes]
) -> None:
    key = client.send(images)
    assert (
        client.http.post(f"/api/uploads/{'f' * 32}/labels", json={"name": "a.csv", "size": 1}).status_code
        == 404
    )

    def refused(labels: Any) -> tuple[int, str]:
        answer = client.http.post(f"/api/uploads/{key}/import", json={"images": "mine", "labels": labels})
        return answer.status_code, answer.json["error"]  # type: ignore[index]

    assert refused(0) == (
        409,
        "labels: expected the number of a labels file, none, because the upload has none, got 0",
    )
    assert refused("labels.csv") == (400, "labels: expected the number of a labels file, got 'labels.csv'")
    half = client.http.post(f"/api/uploads/{key}/labels", json={"name": "half.csv", "size": 100}).json["file"]  # type: ignore[index]
    assert refused(0) == (409, f"labels: expected the number of a labels file, one of {half}, got 0")
    assert refused(half) == (409, "labels: half.csv is incomplete: 0 of 100 bytes")
    assert client.http.get("/api/jobs").json["jobs"] == []  # type: ignore[index]


def test_labels_files_count_towards_the_upload_limit(client: Client, settings: Settings) -> None:
    object.__setattr__(settings, "upload_gb", 1)
    listed = [{"name": "a.zip", "size": 10**9 - 10}]
    key = client.http.post("/api/uploads", json={"files": listed}).json["upload"]  # type: ignore[index]
    place = f"/api/uploads/{key}/labels"
    assert client.http.post(place, json={"name": "a.csv", "size": 10}).status_code == 201
    answer = client.http.post(place, json={"name": "b.csv", "size": 1})
    assert answer.status_code == 400
    assert "at most 1.0 GB in all (CONVSCOPE_UPLOAD_GB), got 1.0 GB" in answer.json["error"]  # type: ignore[index]


def test_a_folder_of_the_server_takes_a_labels_file_below_the_same_roots(
    settings: Settings, images: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "allowed"
    for name, content in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "truth.tsv").write_bytes(CSV.replace(b",", b"\t"))
    (tmp_path / "outside.csv").write_bytes(CSV)
    (root / "link.csv").symlink_to(tmp_path / "outside.csv")
    (root / "note.doc").write_bytes(b"x")
    object.__setattr__(settings, "image_roots", (root,))
    client = Client(settings)
    asked = {"kind": "import", "folder": str(root / "all"), "label_column": "kind"}

    def refused(labels: Any) -> str:
        answer = client.http.post("/api/jobs", json={"images": "mine", "labels": labels, **asked})
        assert answer.status_code == 400
        return str(answer.json["error"])  # type: ignore[index]

    below = f"labels: expected a file below {root} (CONVSCOPE_IMAGE_ROOTS), got "
    for wrong in (tmp_path / "outside.csv", root / "link.csv", root / ".." / "outside.csv", "truth.tsv"):
        assert refused(str(wrong)) == f"{below}{str(wrong)!r}"
    assert refused(str(root / "none.csv")) == f"labels: {str(root / 'none.csv')!r} does not exist"
    assert refused(str(root / "all")) == f"labels: expected a file, got the folder {str(root / 'all')!r}"
    assert (
        refused(str(root / "note.doc"))
        == f"labels: note.doc is not a table: expected {VALID} with one row per image"
    )
    assert refused(3) == "labels: expected the path of a file, got 3"
    job = client.run("/api/jobs", labels=str(root / "truth.tsv"), **asked)
    assert job["state"] == "done", job["error"]
    assert client.labels() == {"a.jpg": ("cat", "train"), "b.jpg": ("dog", "val"), "c.jpg": (None, None)}
    assert job_queries.image_import(client.context.ledger, job["job"]) is not None


def test_labels_files_have_the_formats_of_tables_next_to_images() -> None:
    assert set(LABELS_SUFFIXES) == (TABLE_SUFFIXES | {".parquet"}) - {".meta", ".mat"}
