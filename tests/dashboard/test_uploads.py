"""File uploads in chunks: straight to disk, resumable, size-limited, and never at a path chosen by the sender."""

import io
import os
import shutil
import time
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from dashboard.app import create_app
from dashboard.state.context import EXTENSION, Context
from db.ledger import jobs
from db.settings import Settings
from db.stores.uploads import UploadStore

HOSTILE_NAMES = [
    "../../../etc/cron.d/x.jpg",
    "/etc/passwd",
    "C:\\Windows\\x.jpg",
    "..\\..\\x.jpg",
    "a\0b.jpg",
    "CON",
    "nul.jpg",
    "\ud800.jpg",
    "x" * 4000,
    ".",
    "..",
    "upload.json",
    "000001",
]


@pytest.fixture
def opened(settings: Settings) -> tuple[FlaskClient, Context]:
    app = create_app(settings)
    return app.server.test_client(), app.server.extensions[EXTENSION]


@pytest.fixture
def client(opened: tuple[FlaskClient, Context]) -> FlaskClient:
    return opened[0]


def begun(client: FlaskClient, *files: tuple[str, int]) -> str:
    answer = client.post(
        "/api/uploads", json={"files": [{"name": name, "size": size} for name, size in files]}
    )
    assert answer.status_code == 201, answer.json
    assert answer.headers["Location"] == answer.json["url"]  # type: ignore[index]
    return str(answer.json["upload"])  # type: ignore[index]


def put(client: FlaskClient, key: str, file: int, data: bytes, offset: int = 0) -> Any:
    return client.put(
        f"/api/uploads/{key}/files/{file}?offset={offset}", data=data, content_type="application/octet-stream"
    )


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("a/1.txt", b"x" * 5000)
    return buffer.getvalue()


def test_a_file_grows_piece_by_piece_and_reports_its_offset(client: FlaskClient, settings: Settings) -> None:
    data = archive()
    key = begun(client, ("photos.zip", len(data)), ("empty.txt", 0))
    assert client.get(f"/api/uploads/{key}/files/0").json == {
        "file": 0, "name": "photos.zip", "size": len(data), "received": 0,
    }  # fmt: skip
    assert put(client, key, 0, data[:100]).json == {"file": 0, "received": 100}
    wrong = put(client, key, 0, data[50:200], 50)
    assert (wrong.status_code, wrong.json["received"]) == (409, 100)
    assert wrong.json["error"] == "offset: expected 100, where the file ends so far, got 50"
    assert client.get(f"/api/uploads/{key}/files/0").json["received"] == 100  # type: ignore[index]
    early = client.post(f"/api/uploads/{key}/import", json={"images": "mine"})
    assert early.status_code == 409
    assert early.json["error"].startswith(  # type: ignore[index]
        f"1 of 2 files are incomplete, the first is file 0: 100 of {len(data):,} bytes"
    )
    assert put(client, key, 0, data[100:], 100).json["received"] == len(data)
    told = client.get(f"/api/uploads/{key}").json
    assert (told["received"], told["bytes"], told["files"]) == (len(data), len(data), 2)  # type: ignore[index]
    assert (settings.home / "uploads" / key / "000000").read_bytes() == data
    assert put(client, key, 0, b"more", len(data)).status_code == 409


def test_an_upload_becomes_a_job_once(opened: tuple[FlaskClient, Context]) -> None:
    client, context = opened
    key = begun(client, ("a.jpg", 3))
    put(client, key, 0, b"abc")
    refused = client.post(f"/api/uploads/{key}/import", json={"images": "My Photos"})
    assert refused.status_code == 400
    assert refused.json["error"].startswith("images: expected a name of at most 100 lowercase letters")  # type: ignore[index]
    first = client.post(f"/api/uploads/{key}/import", json={"images": "mine"})
    assert (first.status_code, first.json["kind"], first.json["image_set"]) == (201, "import", "mine")  # type: ignore[index]
    assert (first.json["models"], first.json["page"]) == ([], None)  # type: ignore[index]
    again = client.post(f"/api/uploads/{key}/import", json={"images": "mine"})
    assert (again.status_code, again.json["job"]) == (200, first.json["job"])  # type: ignore[index]
    held = client.delete(f"/api/uploads/{key}")
    assert held.status_code == 409
    assert "is being imported" in held.json["error"]  # type: ignore[index]
    jobs.cancel(context.ledger, first.json["job"])  # type: ignore[index]
    assert client.delete(f"/api/uploads/{key}").status_code == 200
    assert client.get(f"/api/uploads/{key}").status_code == 404
    assert list((context.settings.home / "uploads").iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_of_the_sender_s_is_only_a_label(
    name: str, client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    key = begun(client, (name, 3), ("b.jpg", 3))
    assert put(client, key, 0, b"abc").status_code == 200
    made = set(tmp_path.rglob("*")) - before
    folder = settings.home / "uploads" / key
    assert made - {settings.home / "uploads", folder} == {folder / "upload.json", folder / "000000"}
    assert UploadStore(settings).file(key, 0).name == name


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "files: expected a list of 1 to 200,000 objects with name and size, got none"),
        ({"files": []}, "files: expected a list of 1 to 200,000 objects with name and size, got []"),
        ({"files": [{"name": "a"}]}, "files[0].size: expected a whole number of bytes, got none"),
        ({"files": [{"name": "", "size": 1}]}, "name: expected a string of 1 to 4,096 characters"),
        ({"files": [{"name": "a", "size": -1}]}, "size: expected a whole number of bytes, got -1"),
        ({"files": [{"name": "a", "size": True}]}, "size: expected a whole number of bytes, got True"),
        ({"files": [{"name": "a", "size": 30 * 10**9}]}, r"at most 20.0 GB in all (CONVSCOPE_UPLOAD_GB), got 30.0 GB"),
        ({"files": [{"name": "a", "size": 1}], "x": 1}, "body: expected members among files, got 'x'"),
    ],
)  # fmt: skip
def test_invalid_uploads_are_refused_by_name(
    body: dict[str, Any], sentence: str, client: FlaskClient, settings: Settings
) -> None:
    answer = client.post("/api/uploads", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json["error"]  # type: ignore[index]
    assert not (settings.home / "uploads").exists()


def test_pieces_that_cannot_be_are_refused_and_leave_the_file_as_it_was(client: FlaskClient) -> None:
    key = begun(client, ("a.jpg", 10))
    assert put(client, key, 0, b"x" * 11).status_code == 409
    assert put(client, key, 1, b"x").status_code == 404
    assert put(client, "f" * 32, 0, b"x").status_code == 404
    assert put(client, "..", 0, b"x").status_code == 404
    assert client.put(f"/api/uploads/{key}/files/0", data=b"x", content_type="text/plain").status_code == 415
    assert client.get(f"/api/uploads/{key}/files/0").json["received"] == 0  # type: ignore[index]


def test_a_full_disk_is_reported_before_the_upload(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = begun(client, ("a.jpg", 10))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 4 * 10**8, 6 * 10**8))
    answer = client.post("/api/uploads", json={"files": [{"name": "a.zip", "size": 10**9}]})
    assert answer.status_code == 507
    assert "not enough disk space: expected 2.0 GB free on top of 0.5 GB, got 63.1 MB" in answer.json["error"]  # type: ignore[index]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9, 0))
    assert put(client, key, 0, b"x").status_code == 507
    assert [path.name for path in (settings.home / "uploads").iterdir()] == [key]


def test_uploads_expire_after_a_day_unless_a_job_needs_them(client: FlaskClient, settings: Settings) -> None:
    store = UploadStore(settings)
    old, needed, fresh = (begun(client, ("a.jpg", 1)) for _ in range(3))
    for key in (old, needed):
        os.utime(settings.home / "uploads" / key, (time.time() - 90_000,) * 2)
    assert store.remove_stale(but={needed}) == 1
    assert {path.name for path in store.folder.iterdir()} == {needed, fresh}
    os.utime(settings.home / "uploads" / needed, (time.time() - 90_000,) * 2)
    put(client, needed, 0, b"x")
    assert store.remove_stale() == 0, "a piece makes it fresh"
