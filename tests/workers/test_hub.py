"""Models on a hub are downloaded completely into the library's own cache; an unreachable hub is reported in time."""

import hashlib
import http.server
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from workers.models.hub import HubUnreachable, _bytes_below, fetch_file, fetch_repository, repository_in_cache
from workers.models.vision import ModelUnavailable, load_model
from workers.torchvision_import import import_library

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of ORG/NAME repositories served over the hub's protocol, and an empty cache for downloads."""
    folder = tmp_path / "hub"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                repository = folder / parts[2] / parts[3]
                if not repository.is_dir():
                    self._send(404, b"{}", body=body)
                    return
                files = sorted(path for path in repository.rglob("*") if path.is_file())
                names = [str(path.relative_to(repository)) for path in files]
                if parts[4] == "tree":
                    sizes = [path.stat().st_size for path in files]
                    tree = [
                        {"type": "file", "path": name, "size": size, "oid": COMMIT}
                        for name, size in zip(names, sizes, strict=True)
                    ]
                    self._send(200, json.dumps(tree).encode(), body=body)
                    return
                found = {
                    "id": "/".join(parts[2:4]),
                    "sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in names],
                }
                self._send(200, json.dumps(found).encode(), body=body)
                return
            path = folder.joinpath(*parts[:2], *parts[4:])
            data = path.read_bytes() if path.is_file() else None
            self._send(200 if data is not None else 404, data or b"", body=body)

        def _send(self, status: int, data: bytes, *, body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    constants = import_library("huggingface_hub.constants")
    cache = tmp_path / "cache"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def save_model(folder: Path) -> Any:
    library = import_library("transformers")
    config = library.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_labels=3)
    network = library.ConvNextForImageClassification(config)
    network.save_pretrained(folder)
    library.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875).save_pretrained(folder)
    return network


def test_a_hub_model_is_fetched_once_with_only_the_needed_files(hub: Path) -> None:
    save_model(hub / "org" / "net")
    (hub / "org" / "net" / "tf_model.h5").write_bytes(b"another framework's weights")
    (hub / "org" / "net" / "pytorch_model.bin").write_bytes(b"the same weights, pickled")
    model = load_model("hf:org/net", hub_timeout=60)
    assert (model.name, model.source) == ("org--net", "hf:org/net")
    assert model.preprocessing.input_size == (64, 64)
    folder = repository_in_cache("org/net")
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    shutil.rmtree(hub / "org")
    assert load_model("hf:org/net", hub_timeout=0.1).weights_sha256() == model.weights_sha256()


def test_downloaded_bytes_are_counted_while_folders_change(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "weights").write_bytes(b"12345")
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            folders = [tmp_path / str(number) for number in range(20)]
            for folder in folders:
                folder.mkdir()
            for folder in folders:
                folder.rmdir()

    busy = threading.Thread(target=come_and_go)
    busy.start()
    try:
        assert {_bytes_below(tmp_path) for _ in range(300)} == {5}
    finally:
        stop.set()
        busy.join()


def test_a_repository_that_the_hub_does_not_know_is_named(hub: Path) -> None:
    hub.mkdir()
    with pytest.raises(HubUnreachable, match=r"404|not found|RepositoryNotFound"):
        fetch_repository("org/absent", timeout=60)


def test_a_repository_without_weights_is_refused(hub: Path) -> None:
    (hub / "org" / "words").mkdir(parents=True)
    (hub / "org" / "words" / "config.json").write_text("{}")
    with pytest.raises(HubUnreachable, match="contains no readable weights"):
        fetch_repository("org/words", timeout=60)


def test_weights_in_several_files_count_as_fetched_when_all_are_there(hub: Path) -> None:
    network = save_model(hub / "org" / "big")
    (hub / "org" / "big" / "model.safetensors").unlink()
    network.save_pretrained(hub / "org" / "big", max_shard_size="10KB")
    shards = sorted(path.name for path in (hub / "org" / "big").glob("*.safetensors"))
    assert len(shards) > 1
    folder = fetch_repository("org/big", timeout=60)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == shards
    assert load_model("hf:org/big", hub_timeout=0.1).parameter_count == network.num_parameters()
    (folder / shards[0]).unlink()
    assert repository_in_cache("org/big") is None


@pytest.fixture
def silent_server() -> Iterator[str]:
    """URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("spec", "how"),
    [
        ("hf:nobody/nothing", "hf download nobody/nothing --local-dir nobody--nothing"),
        ("timm:resnet10t.c3_in1k", "hf download timm/resnet10t.c3_in1k --local-dir resnet10t.c3_in1k"),
    ],
)
def test_a_hub_that_never_answers_times_out(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, how: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", silent_server)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    started = time.monotonic()
    with pytest.raises(ModelUnavailable) as caught:
        load_model(spec, hub_timeout=3, models_folder=tmp_path / "models")
    assert time.monotonic() - started < 8
    message = str(caught.value)
    assert message.startswith(f"{spec} cannot be fetched (no data arrived for 3 seconds): run `{how}`")
    assert str(tmp_path / "models") in message
    assert "\n" not in message


def test_a_refusal_by_the_hub_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    message = (
        r"hf:nobody/nothing cannot be fetched \(OSError: no connection to 127.0.0.1: Connection refused\)"
    )
    with pytest.raises(ModelUnavailable, match=message):
        load_model("hf:nobody/nothing", hub_timeout=60)


@pytest.fixture
def file_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """URL and folder of a file server; `cut` in a file name makes it close the connection half-way."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)

        def copyfile(self, source: Any, outputfile: Any) -> None:
            data = source.read()
            outputfile.write(data[: len(data) // 2] if "cut" in self.path else data)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_whole(file_server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = file_server
    (folder / "weights.bin").write_bytes(b"abc" * 100_000)
    target = fetch_file(f"{address}/weights.bin", tmp_path / "cache" / "weights.bin", timeout=20)
    assert target.read_bytes() == b"abc" * 100_000
    assert [path.name for path in target.parent.iterdir()] == ["weights.bin"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.bin", "the connection ended after 150000 of 300000 bytes"),
        ("net-01234567.pth", "SHA-256 starts with [0-9a-f]{8}, not 01234567"),
        ("absent.bin", "HTTP Error 404"),
    ],
)
def test_half_a_file_or_another_file_is_not_kept(
    file_server: tuple[str, Path], tmp_path: Path, name: str, message: str
) -> None:
    address, folder = file_server
    if name != "absent.bin":
        (folder / name).write_bytes(b"abc" * 100_000)
    with pytest.raises(HubUnreachable, match=message):
        fetch_file(f"{address}/{name}", tmp_path / "cache" / name, timeout=20)
    assert list((tmp_path / "cache").iterdir()) == []
