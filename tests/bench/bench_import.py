"""Measure image import: seconds, images per second and peak memory, each import in a separate process.

    CONVSCOPE_TEST_DATA=... python tests/bench/bench_import.py [SOURCE ...]

Without sources: a folder of 400 generated 3-megapixel photos, and the archives in CONVSCOPE_TEST_DATA if it
is set. `again` repeats the same import; `lost` imports after the atlas was lost but the files were not, as
after a crash. Then three ways to parallelize decoding are compared, in one process.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from db.settings import read_settings
from db.stores.decoding import read_rgb
from db.stores.images import ImageStore

ARCHIVES = ("imagenet-sample-1000.tar", "imagenette-4500.zip", "tiny-imagenet-50k.zip")

# Runs in a fresh process, because peak memory is per process.
IMPORT = r"""
import json, re, sys, time
from pathlib import Path
from db.atlas.store import Atlas
from db.stores.images import ImageStore
from db.settings import read_settings
from db.ledger.engine import Ledger
from db.queries.set_changes import remove_image_set
from precompute.images.importing import import_images
settings = read_settings({"CONVSCOPE_HOME": sys.argv[1]})
atlas, store = Atlas(settings), ImageStore(settings)
if sys.argv[3] == "remove":
    ledger = Ledger(settings)
    ledger.migrate()
    begun = time.monotonic()
    remove_image_set(atlas, store, ledger, "bench")
    images, seconds = 0, time.monotonic() - begun
else:
    report = import_images(atlas, store, image_set="bench", source=Path(sys.argv[2]))
    images, seconds = report.added + report.known, report.seconds
# not getrusage: its peak counts the process that this one was forked from
peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([images, seconds, peak]))
"""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(argument) for argument in sys.argv[1:]]
        if not sources:
            sources = [paint(Path(folder) / "photos of 3 megapixels", 400)]
            data = os.environ.get("CONVSCOPE_TEST_DATA")
            sources += [Path(data) / name for name in ARCHIVES] if data else []
        print(f"{'import':34}{'':8}{'images':>8}{'seconds':>10}{'images/s':>10}{'peak MB':>10}")
        for source in sources:
            with tempfile.TemporaryDirectory() as home:
                for step in ("first", "again", "lost", "remove"):
                    if step == "lost":
                        for file in (Path(home) / "atlas").iterdir():
                            file.unlink()
                    images, seconds, peak = run(home, source, step)
                    rate = f"{images / seconds:10,.0f}" if images else " " * 10
                    print(
                        f"{source.name:34}{step:8}{images:8,}{seconds:10.2f}{rate}{peak:10,.0f}", flush=True
                    )
        print(
            f"\n{'decode and thumbnail':34}{'pictures':>8}{'one':>12}{'threads':>12}{'processes':>12}  pictures/s"
        )
        for size in ((64, 64), (341, 256), (500, 375), (2000, 1500)):
            compare_ways(size, count=max(24, min(2000, 60_000_000 // (size[0] * size[1]))))


def run(home: str, source: Path, step: str) -> tuple[int, float, float]:
    """Return (images, seconds, peak MB) of one import."""
    command = [sys.executable, "-c", IMPORT, home, str(source), step]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    images, seconds, peak = json.loads(done.stdout)
    return images, seconds, peak


def paint(folder: Path, count: int) -> Path:
    """Write JPEGs of 2000 x 1500 with photo-like texture: blurred noise."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04d}.jpg").write_bytes(photograph((2000, 1500), number))
    return folder


def photograph(size: tuple[int, int], number: int) -> bytes:
    """Return a JPEG with detail at all scales; its bytes per pixel match ImageNet's (about a quarter)."""
    random = np.random.default_rng(number)
    layers = [
        cv2.resize(random.normal(0, spread, (cells, cells, 3)), size, interpolation=cv2.INTER_CUBIC)
        for cells, spread in ((4, 50), (32, 25), (min(size) // 3, 12))
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.clip(sum(layers) + 128, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def thumbnail_all(home: str, pictures: list[tuple[str, bytes]]) -> int:
    """Do what an import does with each image, except for copying it."""
    store = ImageStore(read_settings({"CONVSCOPE_HOME": home}))
    for key, data in pictures:
        store.add_thumbnail(key, read_rgb(data))
    return len(pictures)


def compare_ways(size: tuple[int, int], *, count: int) -> None:
    """Print images per second with one thread, one thread per core, and one process per core (already started)."""
    cores = len(os.sched_getaffinity(0))
    distinct = [photograph(size, number) for number in range(24)]
    pictures = [(f"{number:064x}", distinct[number % 24]) for number in range(count)]
    batches = [pictures[at : at + 8] for at in range(0, count, 8)]
    ways: dict[str, Callable[[], Executor]] = {
        "one": lambda: ThreadPoolExecutor(1),
        "threads": lambda: ThreadPoolExecutor(cores),
        "processes": lambda: ProcessPoolExecutor(cores, mp_context=get_context("spawn")),
    }
    rates = []
    for make in ways.values():
        with make() as pool, tempfile.TemporaryDirectory() as home:
            warm = [pool.submit(thumbnail_all, home, pictures[:1]) for _ in range(cores)]
            assert all(future.result() == 1 for future in warm)
            begun = time.monotonic()
            assert sum(pool.map(thumbnail_all, [home] * len(batches), batches)) == count
            rates.append(count / (time.monotonic() - begun))
    print(f"{size[0]:>5} x {size[1]:<26}{count:8,}" + "".join(f"{rate:12,.0f}" for rate in rates), flush=True)


if __name__ == "__main__":
    main()
