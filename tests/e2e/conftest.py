"""A browser, and a page on a server over the test's own home."""

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from browser import chromium, served
from playwright.sync_api import Browser, BrowserContext, Error, Page, ViewportSize, expect, sync_playwright
from running import Running, get, kill_all
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.settings import Settings, read_settings

DESKTOP: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}


class Told(Protocol):
    """Records a fault and its outcome."""

    def __call__(self, fault: str, states: Mapping[str, int]) -> None: ...


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Told:
    """Records a fault and its outcome for the table at the end of the run (see tests/conftest.py)."""
    begun = time.monotonic()

    def note(fault: str, states: Mapping[str, int]) -> None:
        outcome = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        line = f"{fault:<62}{outcome:<24}{time.monotonic() - begun:6.1f} s"
        request.node.user_properties.append(("faults and outcomes", line))

    return note


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A running Chromium. If none is found, tests fail in CI and are skipped with a prominent message elsewhere."""
    expect.set_options(timeout=45_000)  # a loaded machine is slow, not wrong
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(**chromium())
        except Error as error:
            words = f"NO BROWSER: set CONVSCOPE_TEST_CHROMIUM to a Chromium ({error.message.splitlines()[0]})"
            if os.environ.get("CI"):
                pytest.fail(words)
            pytest.skip(words)
        yield found
        found.close()


@pytest.fixture(scope="session")
def filled_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with 60 images and a run; read-only."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("browsed"))})
    import_pictures(settings, painted_pictures(60), image_set="painted")
    add_run(settings, image_set="painted")
    return settings


@pytest.fixture(scope="session")
def site(filled_home: Settings) -> Iterator[str]:
    """URL of the dashboard over the filled home."""
    with served(filled_home) as url:
        yield url


@pytest.fixture(scope="module")
def desktop(browser: Browser) -> Iterator[BrowserContext]:
    """What the desktop pages of a module share: files of the server are fetched and compiled once."""
    with browser.new_context(viewport=DESKTOP, color_scheme="light") as context:
        yield context


@pytest.fixture(scope="module")
def pocket(browser: Browser) -> Iterator[BrowserContext]:
    """The same for pages of a phone."""
    with browser.new_context(viewport=PHONE, color_scheme="light") as context:
        yield context


@pytest.fixture
def page(desktop: BrowserContext) -> Iterator[Page]:
    """A 1440 x 900 page with the light color scheme; the test fails if the page logged an error."""
    yield from _watched(desktop)


@pytest.fixture(scope="module")
def visitor(desktop: BrowserContext) -> Iterator[Page]:
    """The same, shared by a module whose tests visit many pages."""
    yield from _watched(desktop)


@pytest.fixture
def phone(pocket: BrowserContext) -> Iterator[Page]:
    """A 390 x 844 page."""
    yield from _watched(pocket)


def _watched(context: BrowserContext) -> Iterator[Page]:
    wrong: list[str] = []
    others = list(context.pages)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if "//127.0.0.1" not in asked.url else None)
    yield page
    for opened in context.pages:
        if opened not in others:
            if opened.url.startswith("http"):
                opened.evaluate("localStorage.clear()")
            opened.close()
    context.clear_cookies()
    context.clear_permissions()
    elsewhere = [said for said in wrong if not said.startswith(("data:", "blob:"))]
    assert not elsewhere, f"the page logged errors or asked other servers: {elsewhere}"


@pytest.fixture
def empty_home(tmp_path: Path) -> Settings:
    """A home in which nothing was published."""
    return read_settings({"CONVSCOPE_HOME": str(tmp_path / "empty")})


@pytest.fixture(scope="session")
def first_run_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home filled by a first run, to be copied. Built once, by whichever process of pytest-xdist comes first.

    The run is interrupted in the middle and resumes where it was.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    filled = place / "first-run" / "home"
    with (place / "first-run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not filled.exists():
            made = place / "first-run-begun" / "home"
            shutil.rmtree(made.parent, ignore_errors=True)  # left by an attempt that failed
            try:
                command = Running(made, "run", "--port", "0")
                url = command.wait_for(r"Convscope is at (http://\S+)", seconds=180)
                status = json.loads(get(f"{url}/status.json"))
                assert status["runs"] == [], "it serves before it has anything to show"
                assert status["first_run"] == [0, ""]
                command.wait_for(r"(Index samples with efficientnet-lite0: \d+ s)", seconds=300)
                command.stop(by=signal.SIGINT)
                command = Running(made, "run", "--port", "0")
                command.wait_for(r"(Ready)", seconds=600)
                told = command.log.read_text()
                assert "Import photos as samples:" not in told
                assert "Index samples with efficientnet-lite0:" not in told
                assert "Index stimuli with convnext-demo:" in told
                command.stop()  # so that the copies are complete
            finally:
                kill_all(made)
            made.parent.rename(filled.parent)
    return filled


@pytest.fixture(scope="session")
def first_run(
    first_run_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Settings]]:
    """URL and settings of a completed first run."""
    home = tmp_path_factory.mktemp("first") / "home"
    shutil.copytree(first_run_home, home)
    settings = read_settings({"CONVSCOPE_HOME": str(home)})
    command = Running(settings.home, "run", "--port", "0")
    try:
        url = command.wait_for(r"Convscope is at (http://\S+)", seconds=180)
        command.wait_for(r"(Ready)", seconds=120)
        yield url, settings
    finally:
        command.stop()
        kill_all(settings.home)
