"""The dashboard below a URL path, in a browser: every request and every link stays below it."""

from urllib.parse import urlsplit

import pytest
from browser import served
from playwright.sync_api import Page, expect

from db.settings import Settings

PREFIX = "/lab/convscope"
LINKS = """() => [...document.querySelectorAll("a[href], img[src], link[href], script[src], form[action]")]
    .map((element) => new URL(element.href || element.src || element.action).pathname)"""


@pytest.mark.browser
def test_a_walk_over_all_pages_stays_below_the_prefix(page: Page, filled_home: Settings) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))

    def stays() -> None:
        outside = [path for path in page.evaluate(LINKS) if not path.startswith(f"{PREFIX}/")]
        assert outside == []

    with served(filled_home, CONVSCOPE_URL_PREFIX=PREFIX) as url:
        page.goto(f"{url}{PREFIX}/")
        page.wait_for_selector("#patches-grid[data-painted]")
        stays()
        page.locator("#patches-grid a.row-head, #patches-grid a").first.click()
        expect(page.locator("h1")).to_contain_text("Channel")
        stays()
        page.go_back()
        page.wait_for_selector("#patches-grid[data-painted]")
        for name in ("Images", "Saliency", "Attack", "Robustness", "SQL", "Jobs"):
            page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True).click()
            expect(page.get_by_role("navigation", name="Pages").locator(".page-link-here")).to_have_text(name)
            expect(page.locator("#content h1")).to_be_visible()
            assert urlsplit(page.url).path == f"{PREFIX}/{name.lower()}"
            stays()
        page.reload()
        expect(page.locator("#content h1")).to_have_text("Jobs")
        page.goto(f"{url}{PREFIX}/images?images=painted")
        page.locator("#images-body a[href*='/image?']").first.click()
        expect(page.locator("h1")).to_contain_text("image 0")
        stays()
        page.goto(f"{url}{PREFIX}/sql?q=SELECT+image_set,+image_id+FROM+images+LIMIT+3")
        expect(page.get_by_text("3 rows").first).to_be_visible()
        stays()
        page.goto(f"{url}{PREFIX}/nowhere")
        page.get_by_role("link", name="Show the patches").click()
        page.wait_for_selector("#patches-grid[data-painted]")
        page.goto("about:blank")  # or the page would miss its server during shutdown
    assert len(asked) > 50
    assert [path for path in asked if path != PREFIX and not path.startswith(f"{PREFIX}/")] == []
