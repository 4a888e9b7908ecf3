"""A Chromium to drive, and a server to look at."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Locator, Page, expect
from werkzeug.serving import WSGIRequestHandler, make_server

from dashboard.app import create_app
from db.settings import Settings

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")
SERVE = """
import json, sys
from dashboard.server import serve
from db.settings import read_settings
serve(read_settings(json.loads(sys.argv[1])))
"""


def chromium() -> dict[str, Any]:
    """How to start a Chromium: the one that is named, else an installed one, else Playwright's own."""
    named = os.environ.get("CONVSCOPE_TEST_CHROMIUM")
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    path = named or installed
    return {"args": ARGUMENTS} | ({"executable_path": path} if path else {})


@contextlib.contextmanager
def served(settings: Settings, **environment: str) -> Iterator[str]:
    """The dashboard over a home, in a process of its own, with settings as in `environment`; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    values = {"CONVSCOPE_HOME": str(settings.home), "CONVSCOPE_PORT": str(port)} | environment
    process = subprocess.Popen([sys.executable, "-c", SERVE, json.dumps(values)])
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode} before it answered")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health.json", timeout=5):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"the server did not answer at {url} within 30 s")
        yield url
    finally:
        process.terminate()
        process.wait(15)


@contextlib.contextmanager
def served_here(settings: Settings) -> Iterator[str]:
    """The dashboard over a home, in a thread of this process, which has most of its modules; gives its URL.

    For pages whose web server is not what is tested: there in less than a second.
    """
    server = make_server("127.0.0.1", 0, create_app(settings).server, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are used again

    def log_request(self, *_told: object) -> None:
        """Say nothing."""


def point_at(page: Page, canvas: Locator, *, row: int, column: int) -> None:
    """Put the pointer onto the middle of one pixel of a map of 224 x 224."""
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(
        box["x"] + (column + 0.5) / 224 * box["width"], box["y"] + (row + 0.5) / 224 * box["height"]
    )


def settled(page: Page, element: Locator) -> float:
    """Top of an element in pixels of the window, once it has stayed there for 400 ms."""
    tops: list[float] = []
    while len(tops) < 5 or len(set(tops[-5:])) > 1:
        assert len(tops) < 300, f"it does not come to rest: {tops[-5:]}"
        page.wait_for_timeout(100)
        box = element.bounding_box(timeout=5000)
        assert box is not None
        tops.append(box["y"])
    return tops[-1]


def until(page: Page, expression: str, argument: Any = None) -> None:
    """Wait until an expression of the page is true; Playwright's own way evaluates text, which our policy forbids."""
    deadline = time.monotonic() + 45
    while not page.evaluate(expression, argument):
        assert time.monotonic() < deadline, f"not within 45 s: {expression}"
        page.wait_for_timeout(50)


def press_run(page: Page, address: str, *, arrives: str, count: int = 1) -> Locator:
    """Open a page that asks for long work, press Run, and wait until `count` elements are there."""
    page.goto(address)
    page.get_by_role("button", name="Run").click()
    found = page.locator(arrives)
    expect(found).to_have_count(count, timeout=180_000)
    return found
