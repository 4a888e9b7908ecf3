"""Measure how long the Patches page takes: 30 channels x 20 patches, from the click on a layer to the last pixel.

Cold: a different layer each time, with an empty browser cache. Warm: back and forth between two layers.
Prints medians of 10 runs, and p50 and p99 of the page's queries.
"""

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "dashboard"), str(Path(__file__).parents[1] / "e2e")]

from browser import chromium, served  # noqa: E402  # next to the tests, not installed
from playwright.sync_api import Page, sync_playwright  # noqa: E402
from synthetic_atlas import add_run, import_pictures, painted_pictures  # noqa: E402

from db.atlas.store import Atlas, Query  # noqa: E402
from db.queries import patches as patch_queries  # noqa: E402
from db.settings import Settings, read_settings  # noqa: E402

PICTURES = 1000
REPEATS = 10
# Clicks a layer in the drawing, then checks each frame until every row of the new layer is painted.
CLICK = """
(layer) => new Promise((done) => {
    const start = performance.now();
    const grid = document.getElementById("patches-grid");
    const cy = document.getElementById("patches-drawing")._cyreg.cy;
    const wanted = `/${layer}/`;
    cy.nodes().filter((node) => node.data("layer") === layer).emit("tap");
    const look = () => {
        const row = grid.querySelector(".channel-row");
        const there = row && row.style.getPropertyValue("--row").includes(wanted);
        if (there && Number(grid.dataset.painted || 0) > start) {
            requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
        } else requestAnimationFrame(look);
    };
    look();
})
"""


def main() -> None:
    """Build an atlas, serve it, click and print."""
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings({"CONVSCOPE_HOME": folder})
        import_pictures(settings, painted_pictures(PICTURES), image_set="painted")
        run = add_run(settings, image_set="painted", divide=1)
        print(f"atlas of {PICTURES:,} images and a ConvNeXt-tiny's 58 layers, k = 20")
        with served(settings) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(**chromium())
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            print(f"page, 30 channels x 20 patches, medians of {REPEATS}:")
            for name, seconds in (("cold", cold(page, url)), ("warm", warm(page, url))):
                middle = statistics.median(seconds)
                print(f"  {name}  {middle:.3f} s  (from {min(seconds):.3f} to {max(seconds):.3f})")
            browser.close()
        queries(settings, run)


def cold(page: Page, url: str) -> list[float]:
    """Time layers not shown before, each with an empty browser cache."""
    page.goto(f"{url}/?k=20")
    page.wait_for_selector("#patches-grid[data-painted]")
    session = page.context.new_cdp_session(page)
    found = []
    for number in range(REPEATS):
        session.send("Network.clearBrowserCache")
        found.append(click(page, f"stage3.block{number % 9 + 1}.{'dwconv' if number < 9 else 'pwconv1'}"))
    return found


def warm(page: Page, url: str) -> list[float]:
    """Time two alternating layers, both shown before."""
    page.goto(f"{url}/?k=20")
    page.wait_for_selector("#patches-grid[data-painted]")
    layers = ("stage3.block1.dwconv", "stage3.block2.dwconv")
    for layer in layers:
        click(page, layer)
    return [click(page, layers[number % 2]) for number in range(REPEATS)]


def click(page: Page, layer: str) -> float:
    """Return the seconds from the click to the last pixel."""
    milliseconds: float = page.evaluate(CLICK, layer)
    page.wait_for_timeout(300)
    return milliseconds / 1000


def queries(settings: Settings, run: int) -> None:
    """Print p50 and p99 of the page's atlas queries, over the layers in turn."""
    atlas = Atlas(settings)
    layers = [
        f"stage{stage}.block{block}.{kind}" for stage in (1, 2, 3, 4) for block in (1, 2, 3)
        for kind in ("dwconv", "pwconv1")
    ]  # fmt: skip
    shown = list(range(30))
    asked: dict[str, Callable[[str], Query]] = {
        "channels by number": lambda layer: patch_queries.channels(
            run, layer, only=None, order="index", limit=30
        ),
        "channels by selectivity": lambda layer: patch_queries.channels(
            run, layer, only=None, order="selectivity", limit=30
        ),
        "patches, the SQL that is copied": lambda layer: patch_queries.patches(run, layer, shown, k=20),
        "grid: places of patches": lambda layer: patch_queries.places(run, layer, shown),
        "grid: images of patches": lambda _layer: patch_queries.pictured("painted", list(range(600))),
        "grid: classes of images": lambda _layer: patch_queries.labelled_classes(run, list(range(600))),
    }
    print("queries, rows as Python records:")
    for name, make in asked.items():
        times = [timed(functools.partial(atlas.fetch, make(layer))) for layer in layers * 5]
        ranked = sorted(times)
        p50, p99 = ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)]
        print(f"  {name:32s} p50 {1000 * p50:5.1f} ms   p99 {1000 * p99:5.1f} ms")


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
