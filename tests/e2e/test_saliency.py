"""The Saliency and Jobs pages with a real worker, a real broker and two real networks."""

import io
import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import point_at, press_run, until
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from running import Running, command, wait

from db.ledger import jobs
from db.ledger.engine import Ledger
from db.queries import jobs as job_queries
from db.settings import Settings

pytestmark = pytest.mark.browser
PAINTED = "canvas[data-painted]"
ASCENDING = """() => {
    const areas = [...document.querySelectorAll(".map-line")].map((line) => /^del ([0-9.]+)/.exec(line.textContent));
    const found = areas.filter(Boolean).map((area) => Number(area[1]));
    return found.length === 3 && found.every((area, at) => at === 0 || found[at - 1] <= area);
}"""


@pytest.fixture(scope="module")
def lab(first_run: tuple[str, Settings], small_convnext: Path) -> tuple[str, Settings]:
    """URL and settings of a running Convscope with two models over the samples."""
    url, settings = first_run
    index = Running(settings.home, "index", "--model", str(small_convnext), "--images", "samples")
    index.process.wait(200)
    assert index.process.returncode == 0, index.log.read_text()
    return url, settings


def requests_of(page: Page) -> list[str]:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    return asked


def test_six_maps_arrive_and_a_shared_link_shows_them(
    page: Page, browser: Browser, lab: tuple[str, Settings]
) -> None:
    url, _ = lab
    page.goto(f"{url}/saliency?model=efficientnet-lite0&images=samples")
    expect(page.locator("h1")).to_have_text("Saliency")
    page.get_by_label("Images by number").fill("0,1,4")
    page.get_by_label("Images by number").press("Tab")
    page.get_by_label("small-convnext").check()
    page.get_by_label("samples", exact=True).fill("8")
    page.get_by_label("samples", exact=True).press("Tab")
    expect(page.locator(".job-line")).to_contain_text("Not computed yet: 3 images by 2 models")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(PAINTED)).to_have_count(6, timeout=180_000)
    expect(page.locator(".job-line")).to_be_empty()
    assert re.search(r"ids=0,1,4(&|$)", page.url)
    assert "p_samples=8" in page.url
    assert "models=small-convnext,efficientnet-lite0" in page.url
    assert page.locator(".map-cell[data-model='efficientnet-lite0'] .name").first.inner_text() != ""
    page.reload()
    expect(page.locator(PAINTED)).to_have_count(6)
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator(PAINTED)).to_have_count(6)
    context.close()


def test_nothing_is_asked_when_nothing_runs_and_once_a_second_when_something_does(
    page: Page, lab: tuple[str, Settings]
) -> None:
    url, _ = lab
    press_run(
        page, f"{url}/saliency?model=efficientnet-lite0&images=samples&ids=2&method=gradient", arrives=PAINTED
    )
    asked = requests_of(page)
    page.wait_for_timeout(3000)
    assert [address for address in asked if "status.json" not in address] == []
    page.goto(f"{url}/saliency?model=efficientnet-lite0&images=samples&ids=0-20&p_samples=60&p_agreement=0")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".job-now")).to_contain_text("running", timeout=180_000)
    asked.clear()
    page.wait_for_timeout(5000)
    polls = [address for address in asked if "_dash-update-component" in address]
    assert 3 <= len(polls) <= 6, polls
    expect(page.locator(PAINTED).first).to_be_visible(timeout=180_000)
    page.locator(".job-now").get_by_role("button", name="Cancel").click()
    expect(page.locator(".job-now")).to_contain_text("cancelled", timeout=60_000)
    arrived = page.locator(PAINTED).count()
    assert 0 < arrived < 21, "what is finished stays"
    page.reload()
    expect(page.locator(PAINTED)).to_have_count(arrived)
    expect(page.locator(".job-now").get_by_role("button", name="Retry")).to_be_visible()


@pytest.mark.parametrize(("colours", "strength"), [("inferno", 1), ("grey", 0.4), ("rdbu", 0.4)])
def test_what_is_drawn_is_the_servers_picture(
    page: Page, lab: tuple[str, Settings], colours: str, strength: float
) -> None:
    url, _ = lab
    query = f"model=efficientnet-lite0&images=samples&ids=3&method=gradient_x_input&colours={colours}"
    canvas = press_run(page, f"{url}/saliency?{query}&strength={strength}&clip=99", arrives=PAINTED)
    drawn = np.array(
        canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    ).reshape(224, 224, 4)[:, :, :3]
    number = canvas.get_attribute("data-map")
    with urllib.request.urlopen(
        f"{url}/api/maps/{number}.png?colours={colours}&clip=99&strength={strength}", timeout=20
    ) as answer:
        expected = np.asarray(Image.open(io.BytesIO(answer.read())))
    assert np.abs(drawn - expected.astype(int)).max() <= 2


def test_the_value_under_the_pointer_is_the_arrays(page: Page, lab: tuple[str, Settings]) -> None:
    url, _ = lab
    canvas = press_run(
        page, f"{url}/saliency?model=efficientnet-lite0&images=samples&ids=2&method=gradient", arrives=PAINTED
    )
    canvas.scroll_into_view_if_needed()
    row, column = 61, 117
    point_at(page, canvas, row=row, column=column)
    tip = page.locator("#tip")
    expect(tip).to_contain_text(f"row {row}, column {column}")
    number = canvas.get_attribute("data-map")
    with urllib.request.urlopen(f"{url}/api/maps/{number}.npy", timeout=20) as answer:
        value = float(np.load(io.BytesIO(answer.read()))[row, column])
    shown = float(tip.locator("b").inner_text())
    assert shown == pytest.approx(value, rel=0.01)


def test_curves_come_on_asking_and_order_the_rows(page: Page, lab: tuple[str, Settings]) -> None:
    url, settings = lab
    press_run(
        page,
        f"{url}/saliency?model=efficientnet-lite0&images=samples&ids=0,1,4&method=gradient",
        arrives=PAINTED,
        count=3,
    )
    page.get_by_role("button", name="Deletion and insertion").click()
    expect(page.get_by_text(re.compile(r"^del 0\.\d{3}$"))).to_have_count(3, timeout=180_000)
    page.get_by_label("Order", exact=True).select_option("deletion")
    until(page, ASCENDING)
    assert "order=deletion" in page.url
    page.locator(".map-open").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".curve")).to_have_count(2)
    ledger = Ledger(settings)
    number = int(dialog.locator("canvas[data-map]").get_attribute("data-map") or 0)
    scored = job_queries.saliency_map(ledger, number, steps=50)
    assert scored is not None
    expect(dialog).to_contain_text(f"area {scored['deletion_auc']:.3f}")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    ledger.close()


def test_another_class_is_found_by_its_name(page: Page, lab: tuple[str, Settings]) -> None:
    url, _ = lab
    page.goto(f"{url}/saliency?model=efficientnet-lite0&images=samples&ids=2&method=gradient")
    page.get_by_label("Class to explain").select_option("index")
    page.get_by_label("Class", exact=True).fill("goldfish")
    page.get_by_label("Class", exact=True).press("Tab")  # Enter would run it at once
    expect(page).to_have_url(re.compile("target=1(&|$)"))
    expect(page.locator(".job-line")).to_contain_text("Not computed yet")
    page.get_by_label("Class", exact=True).press("Enter")
    expect(page.locator(PAINTED)).to_have_count(1, timeout=180_000)
    expect(page.locator(".map-cell")).to_contain_text("for goldfish")


def test_wrong_addresses_are_said_in_a_sentence(page: Page, lab: tuple[str, Settings]) -> None:
    url, _ = lab
    for query, sentence in [
        ("ids=99", "ids: samples has images 0 to 35, not 99"),
        ("ids=x", "ids: expected numbers such as 0,1,4-7"),
        ("method=lime", "method: expected one of"),
        ("p_samples=0", "samples: expected a whole number from 1 to 1000"),
        ("models=nobody", "models: 'nobody' is not indexed"),
        ("target=cat", "target: expected prediction, label or a class index"),
        ("ids=0-35&models=efficientnet-lite0,small-convnext&p_sigma=1", "has no parameter 'sigma'"),
    ]:
        page.goto(f"{url}/saliency?model=efficientnet-lite0&images=samples&{query}")
        expect(page.locator(".problem")).to_contain_text(sentence)
        expect(page.get_by_role("button", name="Run")).to_be_disabled()


def test_jobs_are_listed_opened_cancelled_and_tried_again(page: Page, lab: tuple[str, Settings]) -> None:
    url, settings = lab
    page.goto(f"{url}/saliency?model=efficientnet-lite0&images=samples&ids=0-20&p_samples=90&p_agreement=0")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".job-now")).to_contain_text("running", timeout=180_000)
    page.get_by_role("link", name=re.compile("Job ")).click()
    expect(page.locator("h1")).to_have_text("Jobs")
    card = page.locator(".job-card.open")
    expect(card).to_contain_text("noise level")
    expect(card.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", "0", timeout=90_000)
    card.get_by_role("button", name=re.compile("Cancel")).click()
    expect(card).to_contain_text("cancelled", timeout=60_000)
    page.reload()
    expect(page.locator(".job-card.open")).to_contain_text("cancelled")
    page.get_by_label("State").select_option("cancelled")
    expect(page).to_have_url(re.compile("state=cancelled"))
    again = page.locator(".job-card").first.get_by_role("button", name=re.compile("Retry"))
    again.click()
    ledger = Ledger(settings)
    wait(
        lambda: "running" in {row["state"] for row in job_queries.jobs(ledger, limit=5)},
        seconds=60,
        what=lambda: str(job_queries.jobs(ledger, limit=5)),
    )
    for row in job_queries.jobs(ledger, states=["queued", "running"]):
        jobs.cancel(ledger, row["job"])
    ledger.close()


def test_the_terminal_waits_for_maps_and_ends_as_their_job_ends(lab: tuple[str, Settings]) -> None:
    home = lab[1].home
    words = ("saliency", "--images", "samples", "--ids", "7", "--method", "gradient", "--wait")
    made = command(*words, "--model", "efficientnet-lite0", "--model", "small-convnext", home=home)
    assert made.returncode == 0, made.stderr
    number = made.stdout.strip()
    assert f"job {number} is done" in made.stderr
    assert "2 of 2" in command("jobs", "list", "--limit", "1", home=home).stdout
    long = ("--ids", "0-20", "--samples", "500", "--set", "agreement=0")
    queued = command(*words[:3], "--model", "efficientnet-lite0", *long, home=home).stdout.strip()
    assert command("jobs", "cancel", queued, home=home).returncode == 0
    waited = command("jobs", "wait", queued, home=home)
    assert waited.returncode == 1
    assert f"job {queued} was cancelled" in waited.stderr


def test_the_page_fits_a_phone(phone: Page, lab: tuple[str, Settings]) -> None:
    url, _ = lab
    for path in ("/saliency?ids=0,1,4&method=gradient&model=efficientnet-lite0&images=samples", "/jobs"):
        phone.goto(url + path)
        phone.wait_for_timeout(1500)
        width = phone.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{path} is {width} pixels wide"


def test_images_that_were_selected_are_those_that_are_mapped(page: Page, lab: tuple[str, Settings]) -> None:
    url, _ = lab
    page.goto(f"{url}/images?model=efficientnet-lite0&images=samples")
    page.wait_for_selector(".thumbnails li")
    for place in (1, 3):
        tile = page.locator(".thumbnails li").nth(place)
        tile.hover()
        tile.get_by_role("checkbox").click()
    page.locator("#images-selection").get_by_role("link", name="Saliency").click()
    expect(page.get_by_label("Images by number")).to_have_value("1,3")
