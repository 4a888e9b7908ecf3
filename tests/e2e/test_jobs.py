"""The Jobs page in a real browser over a ledger with many jobs; no worker runs."""

import re
from collections.abc import Iterator

import pytest
from browser import served_here
from job_rows import add_jobs, change_job
from playwright.sync_api import Browser, Page, expect
from synthetic_atlas import import_pictures, painted_pictures

from db.ledger.engine import Ledger
from db.queries.jobs import job
from db.settings import Settings, read_settings

pytestmark = pytest.mark.browser
ROWS = ".job-list .job-card"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose ledger has 120 jobs that are done, and no others."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("jobs"))})
    import_pictures(settings, painted_pictures(2), image_set="painted")
    return settings


@pytest.fixture(scope="module")
def ledger(home: Settings) -> Iterator[Ledger]:
    found = Ledger(home)
    found.migrate()
    add_jobs(found, 115)
    add_jobs(found, 4, state="failed", kind="attack", error="RuntimeError: no such layer", items_done=0)
    add_jobs(found, 1, state="running", items_done=1, progress=0.5)
    yield found
    found.close()


@pytest.fixture(scope="module")
def many(home: Settings, ledger: Ledger) -> Iterator[str]:
    """URL of the dashboard over that home."""
    assert job(ledger, 120)["state"] == "running"
    with served_here(home) as url:
        yield url


@pytest.fixture
def running(ledger: Ledger) -> int:
    """The number of a job that a worker computes, a quarter done."""
    change_job(
        ledger, 120, state="running", items_done=0, progress=0.5, cancel_requested=False, finished=None
    )
    return 120


@pytest.mark.usefixtures("running")
def test_pages_and_filters_of_the_list_are_in_the_address(page: Page, many: str) -> None:
    page.goto(f"{many}/jobs")
    expect(page.locator(ROWS)).to_have_count(25)
    expect(page.locator("#jobs-count")).to_have_text("120 jobs")
    expect(page.locator(".job-name").first).to_contain_text("#120")
    page.get_by_role("link", name="Next").click()
    expect(page).to_have_url(re.compile("page=2"))
    expect(page.locator(".job-name").first).to_contain_text("#95")
    for number in (3, 4, 5):
        page.get_by_role("link", name="Next").click()
        expect(page).to_have_url(re.compile(f"page={number}"))
    expect(page.locator(ROWS)).to_have_count(20)
    page.get_by_label("State").select_option("failed")
    expect(page).to_have_url(re.compile("state=failed"))
    assert "page" not in page.url
    expect(page.locator(ROWS)).to_have_count(4)
    expect(page.locator("#jobs-count")).to_have_text("4 jobs")
    page.get_by_label("Kind").select_option("saliency")
    expect(page.get_by_role("heading", name="No such job")).to_be_visible()
    expect(page.locator(ROWS).first).to_be_hidden()
    link = page.url
    page.go_back()
    expect(page.get_by_label("Kind")).to_have_value("any")
    expect(page.locator(ROWS)).to_have_count(4)
    page.go_back()
    expect(page.get_by_label("State")).to_have_value("any")
    expect(page.locator(".job-name").first).to_contain_text("#20")
    page.goto(link)
    expect(page.get_by_label("State")).to_have_value("failed")
    expect(page.get_by_label("Kind")).to_have_value("saliency")


def test_an_opened_job_stays_as_it_is_while_its_progress_moves(
    page: Page, many: str, ledger: Ledger, running: int
) -> None:
    page.goto(f"{many}/jobs")
    page.locator(f"#job-{running}").click()
    expect(page).to_have_url(re.compile(f"job={running}"))
    opened = page.locator(".job-card.open")
    expect(opened).to_contain_text("noise level")
    expect(page.locator(f"#job-{running}")).to_have_attribute("aria-expanded", "true")
    expect(page.locator(f"#job-{running}")).to_be_focused()
    opened.get_by_text("Items (2)").click()
    table = opened.get_by_role("region", name="Items")
    expect(table).to_be_visible()
    button = page.locator(ROWS).first.get_by_role("button", name=f"Cancel job {running}")
    button.focus()
    change_job(ledger, running, items_done=1, progress=0.5)
    for place in (opened, page.locator(ROWS).first):
        expect(place.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "75")
    expect(table).to_be_visible()
    expect(button).to_be_focused()
    page.locator("#job-97").scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    assert place > 300
    page.locator("#job-97").click()
    expect(opened.get_by_role("heading", name="#97")).to_be_in_viewport()
    assert page.evaluate("scrollY") == place
    page.locator("#job-119").click()
    expect(opened).to_contain_text("no such layer")
    expect(opened.get_by_role("region", name="Items")).to_be_hidden()
    opened.get_by_role("link", name="Close job 119").click()
    expect(opened).to_have_count(0)
    page.go_back()
    expect(opened).to_contain_text("#119")


def test_nothing_is_requested_once_everything_has_ended(
    page: Page, many: str, ledger: Ledger, running: int
) -> None:
    asked: list[str] = []
    page.goto(f"{many}/jobs")
    expect(page.locator(ROWS).first).to_contain_text("running")
    change_job(ledger, running, state="done", items_done=2, progress=0.0)
    expect(page.locator(ROWS).first).to_contain_text("done")
    expect(page.locator("#shell-busy")).to_be_hidden()
    page.wait_for_timeout(1000)
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert [url for url in asked if "/_dash-update-component" in url] == []


def test_buttons_work_from_the_keyboard_and_say_why_they_did_not(
    page: Page, many: str, ledger: Ledger, running: int
) -> None:
    page.goto(f"{many}/jobs")
    page.locator(f"#job-{running}").focus()
    page.keyboard.press("Tab")  # the link to the maps
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name=f"Cancel job {running}")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(ROWS).first).to_contain_text("cancelling")
    change_job(ledger, running, state="cancelled", cancel_requested=False)
    retry = page.locator(ROWS).first.get_by_role("button", name=f"Retry job {running}")
    expect(retry).to_be_visible()
    retry.click()
    expect(page.locator(ROWS).first).to_contain_text("queued")
    expect(page.locator("#jobs-note")).to_contain_text("No worker")
    page.goto(f"{many}/jobs?job=119")
    opened = page.locator(".job-card.open")
    expect(opened.get_by_role("button", name="Retry job 119")).to_be_visible()
    change_job(ledger, 119, state="done")
    opened.get_by_role("button", name="Retry job 119").click()
    expect(page.locator("#jobs-note")).to_contain_text("Job 119 is done")
    change_job(ledger, 119, state="failed")


def test_progress_arrives_although_answers_take_longer_than_the_page_waits_between_questions(
    page: Page, many: str, ledger: Ledger, running: int
) -> None:
    page.goto(f"{many}/jobs?state=running")
    row = page.locator(ROWS).first
    expect(row).to_contain_text("0 of 2")
    slow = {"offline": False, "latency": 2500, "downloadThroughput": -1, "uploadThroughput": -1}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    for done in (1, 2):
        change_job(ledger, running, items_done=done)
        expect(row).to_contain_text(f"{done} of 2", timeout=20_000)


def test_progress_arrives_after_requests_without_an_answer(
    browser: Browser, many: str, ledger: Ledger, running: int
) -> None:
    page = browser.new_context().new_page()  # the `page` fixture fails its test on what the browser logs
    page.goto(f"{many}/jobs?state=running")
    row = page.locator(ROWS).first
    expect(row).to_contain_text("0 of 2")
    page.route(re.compile("/_dash-update-component"), lambda route: route.abort())
    with page.expect_event("requestfailed"):
        pass
    page.unroute_all()
    change_job(ledger, running, items_done=1)
    expect(row).to_contain_text("1 of 2")
    page.context.close()


def test_an_address_that_names_what_is_not_there_says_so(page: Page, many: str) -> None:
    page.goto(f"{many}/jobs?job=4711")
    expect(page.locator("#jobs-note")).to_contain_text("There is no job 4711.")
    expect(page.locator(ROWS)).to_have_count(25)
    page.goto(f"{many}/jobs?state=nope")
    expect(page.locator("#jobs-note")).to_contain_text("expected one of queued, running")


@pytest.mark.usefixtures("running")
def test_a_phone_shows_jobs_as_cards(phone: Page, many: str) -> None:
    phone.goto(f"{many}/jobs")
    first = phone.locator(ROWS).first
    expect(first.get_by_role("progressbar")).to_be_visible()
    expect(first.get_by_role("button", name="Cancel job 120")).to_be_in_viewport()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.locator("#job-118").click()
    opened = phone.locator(".job-card.open")
    expect(opened.get_by_role("heading", name="#118")).to_be_in_viewport()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.set_viewport_size({"width": 1200, "height": 800})
    expect(phone.get_by_role("columnheader", name="Progress")).to_be_visible()
