"""Build a small home with the real commands and record what it shows.

Usage: PYTHONPATH=. python tests/db/homes/make_home.py NAME [CHECKOUT]

Run it in a checkout of the version to be kept. It writes `NAME.tar.xz` (the home), `NAME.json` (rows of both
stores) and `NAME.row.jpg` (a row of patches as the pictures route serves it) next to this file. If CHECKOUT
is a version without jobs, its commands import and index the same images with the same network, and only the
home is written. All images are drawn here and the network's weights are random: no third-party data is
involved.
"""

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[3]
KEPT = ("atlas", "ledger.sqlite", "originals", "thumbnails", "results")
CLASSES = ("disk", "square", "stripes")
SIDE = 64
ATLAS_ROWS = {
    "image_sets": "SELECT * FROM image_sets ORDER BY image_set",
    "images": "SELECT * FROM images ORDER BY image_set, image_id",
    "models": "SELECT * FROM models ORDER BY model",
    "layers": "SELECT * FROM layers ORDER BY model, position",
    "runs": "SELECT * FROM runs ORDER BY run",
    "predictions": "SELECT * FROM predictions ORDER BY run, image_id, rank",
    "label_matches": "SELECT * FROM label_matches ORDER BY run, label",
    "patches": "SELECT * FROM patches ORDER BY run, layer, channel, rank",
}
LEDGER_TABLES = (
    "jobs", "job_items", "saliency_maps", "attacks", "attack_layers", "saved_queries", "image_imports",
    "image_set_notes",
)  # fmt: skip


def drawings(shift: int) -> dict[str, bytes]:
    """Return six 64 x 64 images as PNG by path: two each of a disk, a square and stripes."""
    y, x = np.mgrid[:SIDE, :SIDE]
    found = {}
    for number in range(2):
        middle = 26 + 8 * number + shift
        shapes = {
            "disk": (y - middle) ** 2 + (x - middle) ** 2 < 18**2,
            "square": (abs(y - middle) < 14) & (abs(x - 32) < 14),
            "stripes": (x + number * y + shift) % 16 < 8,
        }
        for name, shape in shapes.items():
            ground = np.array([40 + 60 * number, 70 + shift, 110])
            color = np.array([220, 200 - 70 * number, 60 + 10 * shift])
            pixels = np.where(shape[..., None], color, ground).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            found[f"{name}/{number}.png"] = buffer.getvalue()
    return found


def pack(files: dict[str, bytes]) -> bytes:
    """Return a zip of the files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def draw_network(folder: Path) -> None:
    """Write a ConvNeXt with two blocks, three classes and random weights."""
    import torch

    from workers.torchvision_import import import_library

    library = import_library("transformers")
    torch.manual_seed(0)
    config = library.ConvNextConfig(
        num_stages=2, depths=[1, 1], hidden_sizes=[4, 6], id2label=dict(enumerate(CLASSES)), image_size=32,
        label2id={name: index for index, name in enumerate(CLASSES)}, initializer_range=0.4,
    )  # fmt: skip
    library.ConvNextForImageClassification(config).save_pretrained(folder)
    library.ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)


def command(home: Path, checkout: Path, *words: str) -> None:
    """Run a command of a checkout over the home."""
    subprocess.run(
        [sys.executable, "-m", "convscope", *words], cwd=checkout, env=environment(home, checkout), check=True
    )


def environment(home: Path, checkout: Path) -> dict[str, str]:
    """Return the environment of all commands."""
    return {
        **os.environ, "CONVSCOPE_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout),
    }  # fmt: skip


def ask(url: str, body: Any = None, *, method: str = "POST") -> Any:
    """Send a request with a body (bytes, or an object sent as JSON) and return the server's JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    request = urllib.request.Request(
        url, None if body is None else sent, {"Content-Type": kind}, method="GET" if body is None else method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def done(url: str, job: dict[str, Any]) -> None:
    """Wait until a job is done."""
    for _ in range(600):
        state = ask(f"{url}/api/jobs/{job['job']}")["state"]
        if state not in ("queued", "running"):
            break
        time.sleep(0.2)
    if state != "done":
        raise SystemExit(f"job {job['job']} is {state}")


def work(url: str, model: str) -> None:
    """Do what a user does in the browser: a map, attacks, an upload with a description, a saved query."""
    job = ask(
        f"{url}/api/jobs",
        {
            "kind": "saliency",
            "models": [model],
            "images": "drawn",
            "ids": [0, 3],
            "parameters": {"samples": 4},
        },
    )
    done(url, job)
    job = ask(f"{url}/api/jobs", {"kind": "attack", "models": [model], "images": "drawn", "ids": [0, 1, 2]})
    done(url, job)
    archive = pack(drawings(3))
    upload = ask(f"{url}/api/uploads", {"files": [{"name": "sent.zip", "size": len(archive)}]})["upload"]
    ask(f"{url}/api/uploads/{upload}/files/0?offset=0", archive, method="PUT")
    done(url, ask(f"{url}/api/uploads/{upload}/import", {"images": "sent"}))
    ask(f"{url}/api/image_sets/sent", {"description": "Sent from a browser."})
    ask(
        f"{url}/api/queries",
        {
            "name": "strongest",
            "description": "One patch a layer.",
            "sql": "SELECT * FROM patches WHERE rank = 1",
        },
    )


def row_picture() -> bytes:
    """Return a row of patches as the Patches page requests it (JPEG): channel 1 of the first depthwise convolution."""
    from dashboard.app import create_app
    from dashboard.pictures.routes import row_address
    from db.atlas.store import Atlas
    from db.queries.inventory import layers, runs
    from db.settings import read_settings

    settings = read_settings()
    atlas = Atlas(settings)
    run = atlas.fetch(runs())[0]
    layer = next(row["layer"] for row in atlas.fetch(layers(run["model"])) if row["kind"] == "dwconv")
    server = create_app(settings).server
    with server.test_request_context():
        address = row_address(run, layer, 1, k=3, crop="field", tile=64)
    answer = server.test_client().get(address)
    if answer.status_code != 200:
        raise SystemExit(answer.text)
    return bytes(answer.data)


def rows_of(home: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the rows of both stores, by table."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"atlas": {}, "ledger": {}}
    with duckdb.connect(str(next((home / "atlas").glob("*.duckdb"))), read_only=True) as atlas:
        for table, query in ATLAS_ROWS.items():
            found["atlas"][table] = atlas.sql(query).to_arrow_table().to_pylist()
    ledger = sqlite3.connect(home / "ledger.sqlite")
    ledger.row_factory = sqlite3.Row
    for table in LEDGER_TABLES:
        found["ledger"][table] = [dict(row) for row in ledger.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
    ledger.close()
    return found


def forget_the_machine(home: Path) -> None:
    """Remove the names of this machine's processes from the ledger, and merge its write-ahead log into its file."""
    ledger = sqlite3.connect(home / "ledger.sqlite", isolation_level=None)
    ledger.execute("DELETE FROM workers")
    ledger.execute("UPDATE jobs SET worker = 'worker'")
    ledger.execute("VACUUM")
    ledger.execute("PRAGMA journal_mode = DELETE")
    ledger.close()


def serve_and_work(home: Path, log: Path) -> None:
    """Serve the home and do what a user does."""
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "convscope", "run", "--port", "0"],
            cwd=ROOT, env=environment(home, ROOT), stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        found = None
        while found is None and server.poll() is None:
            time.sleep(0.5)
            found = re.search(r"Convscope is at (http://\S+)", log.read_text())
        if found is None:
            raise SystemExit(log.read_text())
        work(found[1], "tiny")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def main(name: str, checkout: Path | None = None) -> None:
    """Build and write the home and, unless a checkout is given, its rows and its row of patches."""
    beside = Path(__file__).parent / name
    with tempfile.TemporaryDirectory() as folder:
        home, source, network = (Path(folder) / part for part in ("home", "drawn.zip", "tiny"))
        os.environ["CONVSCOPE_HOME"] = str(home)
        source.write_bytes(pack(drawings(0)))
        draw_network(network)
        command(home, checkout or ROOT, "images", "import", "drawn", str(source))
        command(home, checkout or ROOT, "index", "--model", str(network), "--images", "drawn", "--k", "3")
        if checkout is None:
            serve_and_work(home, Path(folder) / "log")
            forget_the_machine(home)
            beside.with_suffix(".json").write_text(
                json.dumps(rows_of(home), default=str, separators=(",", ":")) + "\n"
            )
            beside.with_suffix(".row.jpg").write_bytes(row_picture())
        with tarfile.open(beside.with_suffix(".tar.xz"), "w:xz", preset=9) as archive:
            for part in KEPT:
                if (home / part).exists():
                    archive.add(home / part, f"home/{part}")


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
