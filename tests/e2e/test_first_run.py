"""`convscope run` in an empty home: what a person sees who just cloned the repository.

Real photographs, real weights, a real index, a real browser.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from running import Running, get, kill_all, wait

from db.atlas import Atlas, Query
from db.images import ImageStore, read_rgb
from db.settings import Settings
from workers.preprocessing import Preprocessing


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    command = Running(settings.home, "run", "--port", "0")
    yield command
    kill_all(settings.home)
    command.process.wait(10)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for left-over processes in /proc")
@pytest.mark.parametrize("killer", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_everything_within_ten_seconds(running: Running, killer: signal.Signals) -> None:
    url = running.wait_for(r"Convscope is at (http://\S+)", seconds=180)
    assert b"Convscope" in get(url)
    running.wait_for(r"(worker.started)", seconds=180)
    running.stop(by=killer, within=10)
    assert running.processes() == {}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for left-over processes in /proc")
def test_a_killed_command_leaves_no_process_behind(running: Running) -> None:
    running.wait_for(r"Convscope is at (http://\S+)", seconds=180)
    running.wait_for(r"(worker.started)", seconds=180)
    assert len(running.processes()) >= 4, "web, broker, worker, first run"
    running.stop(by=signal.SIGKILL)
    wait(lambda: not running.processes(), seconds=10, what=lambda: str(running.processes()))


def test_the_first_run_fills_the_page_with_samples(first_run: tuple[str, Settings]) -> None:
    url, settings = first_run
    assert json.loads(get(f"{url}/status.json"))["runs"] == [[1, "efficientnet-lite0", "samples"]]
    right = Atlas(settings).fetch(
        Query("SELECT count(*) AS n FROM predictions WHERE rank = 1 AND is_label"),
    )
    # 20 of the photographs are labelled; chance would be right on none
    assert right[0]["n"] >= 15


@pytest.mark.browser
def test_the_patch_on_the_page_is_the_region_that_the_network_saw(
    page: Page, first_run: tuple[str, Settings]
) -> None:
    """Cells of the real index, against the network's own input cut by hand with the field's own numbers."""
    url, settings = first_run
    layer, channel = "stage3.block1.dwconv", 7
    atlas, store = Atlas(settings), ImageStore(settings)
    rows = atlas.fetch(
        Query(
            "SELECT a.rank, a.y, a.x, i.path, l.rf_size_y AS size, l.jump_y AS jump, l.start_y AS start "
            "FROM activations a JOIN images i USING (image_id) JOIN layers l USING (layer) "
            "WHERE layer = $layer AND channel = $channel AND i.image_set = 'samples' ORDER BY rank",
            {"layer": layer, "channel": channel},
        )
    )
    seen = Preprocessing((224, 224), 256, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    page.goto(f"{url}/?layer={layer}&channels={channel}&k=20&tile=128")
    page.wait_for_selector("#patches-grid[data-painted]")
    expect(page.locator("h1")).to_contain_text("dwconv")
    compared = 0
    for row in rows:
        top, left = (round(row["start"] + row["jump"] * row[axis]) for axis in ("y", "x"))
        bottom, right = top + row["size"], left + row["size"]
        if min(top, left) < 0 or max(bottom, right) > 224:
            continue
        network_input = seen(read_rgb(store.original_path(row["path"]).read_bytes()))
        region = network_input[top:bottom, left:right, ::-1]
        cell = page.locator(f"[aria-label='channel {channel}'] .cell").nth(row["rank"] - 1)
        shot = cv2.imdecode(np.frombuffer(cell.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert shot is not None
        expected = cv2.resize(region, shot.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        inner = (slice(8, -8), slice(8, -8))
        difference = np.abs(shot[inner].astype(int) - expected[inner]).mean()
        shifted = np.abs(shot[inner].astype(int) - np.roll(expected, 24, (0, 1))[inner]).mean()
        assert difference < 16
        if expected.std() > 20:  # a flat patch looks like its neighbours
            assert difference < shifted
            compared += 1
    assert compared >= 3
