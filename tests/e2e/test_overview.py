"""The Overview page in a real browser: its cells and bars link to the images that they count."""

import re

from playwright.sync_api import Page, expect


def test_a_cell_of_the_matrix_opens_as_many_images_as_it_says(page: Page, site: str) -> None:
    page.goto(f"{site}/images?images=painted")
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="painted as a whole")).to_be_visible()
    cell = page.locator(".matrix td.wrong a").first
    said = int(cell.inner_text())
    taken = re.match(r"(.+) taken for (.+): ", cell.get_attribute("aria-label") or "")
    assert taken is not None
    cell.click()
    expect(page).to_have_url(re.compile(r"/images\?.*predicted=\d+"))
    expect(page.locator(".thumbnails li")).to_have_count(said)
    page.get_by_role("link", name="Any prediction").click()
    expect(page.locator(".chosen-prediction")).to_have_count(0)


def test_it_fits_a_phone_and_its_link_in_the_shell_is_in_sight(phone: Page, site: str) -> None:
    phone.goto(f"{site}/overview?images=painted")
    expect(phone.get_by_role("heading", name="Duplicates")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for path in ("overview", "sql", "jobs"):
        phone.goto(f"{site}/{path}")
        expect(phone.locator(".shell nav .page-link-here")).to_be_in_viewport(ratio=0.99)
