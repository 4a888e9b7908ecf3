"""docs/extending.md in practice: each module and its one registry line, used through every interface."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from running import ROOT, Running, get, kill_all, wait
from synthetic_atlas import import_pictures, painted_pictures

from db.settings import Settings, read_settings

pytestmark = pytest.mark.browser
PACKAGES = ("commands", "dashboard", "db", "migrations", "precompute", "workers")
REGISTRIES = {
    "workers/attribution/methods": "workers/attribution/registry.py",
    "workers/attacks/methods": "workers/attacks/registry.py",
    "workers/jobs/kinds": "workers/jobs/registry.py",
    "dashboard/pages": "dashboard/pages/registry.py",
}
IMAGES = 3


class Extended:
    """A copy of the project with the modules of docs/extending.md, and the home that it serves."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.home = settings.home
        self.url = ""

    def command(self, *words: str) -> str:
        """Return the output of the copy's `convscope WORDS`."""
        ran = subprocess.run(
            [sys.executable, "convscope.py", *words],
            cwd=self.folder,
            env={**os.environ, "CONVSCOPE_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def ask(self, path: str, body: Any = None) -> Any:
        """Return the response of the HTTP interface."""
        if body is None:
            return json.loads(get(self.url + path))
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())


def add(folder: Path, place: str, text: str) -> None:
    """Write a module, and the one line that registers it."""
    (folder / place).write_text(text)
    registry = folder / REGISTRIES[str(Path(place).parent)]
    before = registry.read_text()
    after = re.sub(r'(_MODULES = \(\n(?:    "\w+",\n)+)', rf'\g<1>    "{Path(place).stem}",\n', before)
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    registry.write_text(after)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, small_convnext: Path) -> Iterator[Extended]:
    folder = tmp_path_factory.mktemp("extended")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "checkpoints")
        )
    shutil.copy(ROOT / "convscope.py", folder)
    files = re.findall(
        r'^```python title="(.+?)"\n(.*?)^```$',
        (ROOT / "docs" / "extending.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert sorted(str(Path(place).parent) for place, _ in files) == sorted(REGISTRIES)
    for place, text in files:
        add(folder, place, text)
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("home") / "home")})
    import_pictures(settings, painted_pictures(IMAGES), image_set="painted")
    made = Extended(folder, settings)
    made.command("index", "--model", str(small_convnext), "--images", "painted")
    running = Running(settings.home, "run", "--port", "0", root=folder)
    try:
        made.url = running.wait_for(r"(http://[\d.]+:\d+)", seconds=120)
        yield made
        running.stop()
    finally:
        kill_all(settings.home)


def test_a_method_is_one_module_and_one_line(extended: Extended, page: Page) -> None:
    assert "gray_distance" in extended.command("saliency", "--help")
    words = ["saliency", "--model", "small-convnext", "--images", "painted", "--ids", "0"]
    job = extended.command(*words, "--method", "gray_distance", "--set", "gain=2", "--wait").strip()
    (made,) = extended.ask(f"/api/jobs/{job}")["maps"]
    heat = np.load(io.BytesIO(get(extended.url + made["npy"])))
    seen = np.asarray(Image.open(io.BytesIO(get(extended.url + made["input_png"]))), np.float32) / 255
    np.testing.assert_allclose(heat, 2 * np.abs(seen - 0.5).max(-1), atol=1e-6)

    page.goto(f"{extended.url}/saliency?model=small-convnext&images=painted&ids=1")
    page.get_by_label("Method").select_option(label="Distance from gray")
    gain = page.get_by_label("gain", exact=True)
    expect(gain).to_have_value("1")
    gain.fill("3")
    gain.press("Tab")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("canvas[data-painted]")).to_have_count(1, timeout=120_000)
    expect(page.get_by_text("distance from gray, times the gain")).to_be_visible()
    assert "p_gain=3" in page.url


def test_an_attack_is_one_module_and_one_line(extended: Extended, page: Page) -> None:
    assert "brighten" in extended.command("attack", "--help")
    words = ["attack", "--model", "small-convnext", "--images", "painted", "--ids", "0"]
    job = extended.command(*words, "--method", "brighten", "--epsilon", "0.25", "--wait").split()[0]
    (made,) = extended.ask(f"/api/jobs/{job}")["attacks"]
    assert made["method"] == "brighten"
    whole = extended.ask(f"/api/attacks/{made['attack']}")
    before, after = (
        np.asarray(Image.open(io.BytesIO(get(extended.url + whole[name]))), np.int32)
        for name in ("input_png", "png")
    )
    np.testing.assert_array_equal(after, np.minimum(before + round(0.25 * 255), 255))

    page.goto(f"{extended.url}/attack?model=small-convnext&images=painted&ids=1")
    page.get_by_label("Method").select_option(label="Brighten")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".job-now")).not_to_contain_text("Not computed", timeout=120_000)
    wait(
        lambda: extended.ask("/api/jobs?kind=attack&state=done")["total"] == 2,
        seconds=120,
        what=lambda: str(extended.ask("/api/jobs")),
    )


def test_a_kind_of_job_and_its_page_are_one_module_and_one_line_each(extended: Extended, page: Page) -> None:
    assert "mean_color" in extended.command("jobs", "submit", "--help")
    job = extended.command("jobs", "submit", "mean_color", "images=painted", "ids=0-1", "--wait").strip()
    asked = {"kind": "mean_color", "images": "painted", "ids": [0, 1]}
    assert extended.ask("/api/jobs", asked)["job"] == int(job), "the same request is one job"
    items = extended.ask(f"/api/jobs/{job}")["item_list"]
    colors = [
        np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).reshape(-1, 3).mean(0)
        for picture in painted_pictures(2)
    ]
    for item, color in zip(items, colors, strict=True):
        np.testing.assert_allclose([item["value"][name] for name in ("red", "green", "blue")], color)
    found = (
        "SELECT CAST(value->>'red' AS DOUBLE) AS red FROM job_items WHERE value IS NOT NULL ORDER BY image_id"
    )
    rows = extended.command("sql", "--csv", found)
    np.testing.assert_allclose([float(row) for row in rows.splitlines()[1:]], [color[0] for color in colors])
    with pytest.raises(urllib.error.HTTPError) as refused:
        extended.ask("/api/jobs", asked | {"image": "painted"})
    assert "expected members among kind, images, ids, queue, got 'image'" in refused.value.read().decode()

    page.goto(f"{extended.url}/jobs?kind=mean_color")
    expect(page.locator(".job-list")).to_contain_text("Mean color")
    page.get_by_role("link", name="Colors", exact=True).last.click()
    expect(page.locator("h1")).to_have_text("Mean colors")
    red, green, blue = colors[1]
    expect(page.get_by_text(f"image 1: {red:.1f}, {green:.1f}, {blue:.1f}")).to_be_visible()
    here = page.get_by_label("Pages").get_by_role("link", name="Colors")
    expect(here).to_have_attribute("aria-current", "page")
