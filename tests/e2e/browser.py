"""A Chromium to drive, and a server for it to visit."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from playwright.sync_api import Locator, Page, Request, Route, expect
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
    """Return launch options: the Chromium in CONVSCOPE_TEST_CHROMIUM, else an installed one, else Playwright's."""
    named = os.environ.get("CONVSCOPE_TEST_CHROMIUM")
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    path = named or installed
    return {"args": ARGUMENTS} | ({"executable_path": path} if path else {})


@contextlib.contextmanager
def served(settings: Settings, **environment: str) -> Iterator[str]:
    """Serve a home from a separate process with the settings in `environment`; yield the dashboard's URL."""
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
    """Serve a home from a thread of this process, which has most modules loaded; yield the dashboard's URL.

    For tests that do not depend on the web server: it is up in less than a second.
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
    protocol_version = "HTTP/1.1"  # keeps connections alive

    def log_request(self, *_told: object) -> None:
        """Log nothing."""


def point_at(page: Page, canvas: Locator, *, row: int, column: int) -> None:
    """Move the pointer to the center of one pixel of a 224 x 224 map."""
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(
        box["x"] + (column + 0.5) / 224 * box["width"], box["y"] + (row + 0.5) / 224 * box["height"]
    )


def settled(page: Page, element: Locator) -> float:
    """Return the top of an element in window pixels, once it has not moved for 400 ms."""
    tops: list[float] = []
    while len(tops) < 5 or len(set(tops[-5:])) > 1:
        assert len(tops) < 300, f"it does not come to rest: {tops[-5:]}"
        page.wait_for_timeout(100)
        box = element.bounding_box(timeout=5000)
        assert box is not None
        tops.append(box["y"])
    return tops[-1]


def until(page: Page, expression: str, argument: Any = None) -> None:
    """Wait until an expression of the page is true; Playwright's own wait evaluates strings, which our CSP forbids."""
    deadline = time.monotonic() + 45
    while not page.evaluate(expression, argument):
        assert time.monotonic() < deadline, f"not within 45 s: {expression}"
        page.wait_for_timeout(50)


def hold(page: Page, changed: str) -> tuple[list[Route], Callable[[Request], bool]]:
    """Hold the callback requests that the property `changed` triggers; returns them as they leave, and their test."""
    held: list[Route] = []

    def is_held(request: Request) -> bool:
        return f'"changedPropIds":["{changed}"]' in (request.post_data or "")

    page.route(
        re.compile("/_dash-update-component"),
        lambda route: held.append(route) if is_held(route.request) else route.continue_(),
    )
    return held, is_held


def press_run(page: Page, address: str, *, arrives: str, count: int = 1) -> Locator:
    """Open a page that requests a long job, press Run, and wait until `count` elements exist."""
    page.goto(address)
    page.get_by_role("button", name="Run").click()
    found = page.locator(arrives)
    expect(found).to_have_count(count, timeout=180_000)
    return found
