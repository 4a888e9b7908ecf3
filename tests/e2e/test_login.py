"""Logging in and out in a real browser, and every page under the headers that a login implies."""

import re
from collections.abc import Iterator

import pytest
from browser import served
from playwright.sync_api import Browser, Page, expect

from dashboard.pages.registry import PAGES
from db.settings import Settings

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def locked(filled_home: Settings) -> Iterator[str]:
    """URL of a dashboard that asks for a password."""
    with served(filled_home, CONVSCOPE_PASSWORD=PASSWORD) as url:
        yield url


def log_in(page: Page, password: str) -> None:
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def test_a_link_is_kept_through_the_login_and_the_way_back_is_closed_by_the_logout(
    page: Page, locked: str
) -> None:
    there = f"{locked}/images?images=painted&view=table"
    page.goto(there)
    expect(page).to_have_url(f"{locked}/login?next=%2Fimages%3Fimages%3Dpainted%26view%3Dtable")
    expect(page.get_by_label("Password")).to_be_focused()
    log_in(page, PASSWORD)
    expect(page).to_have_url(re.compile(r"/images\?.*images=painted.*view=table"))
    expect(page.locator("tbody tr").first).to_be_visible()
    assert all(cookie["httpOnly"] and cookie["sameSite"] == "Lax" for cookie in page.context.cookies())
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(0)


def test_a_wrong_password_is_said_and_the_right_one_still_leads_on(browser: Browser, locked: str) -> None:
    page = browser.new_context().new_page()  # a refusal is logged as an error by the browser
    page.goto(f"{locked}/sql")
    log_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    log_in(page, PASSWORD)
    expect(page).to_have_url(re.compile(r"/sql(\?|$)"))
    page.context.close()


def test_every_page_works_without_a_script_or_a_frame_that_the_policy_forbids(
    page: Page, locked: str
) -> None:
    page.goto(locked)
    log_in(page, PASSWORD)
    expect(page.locator("main, #content").first).to_be_visible()
    for path in (page.path for page in PAGES):
        answer = page.goto(locked + path)
        assert answer is not None
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        expect(page.locator(".skeleton")).to_have_count(0)
        page.wait_for_load_state("networkidle")
