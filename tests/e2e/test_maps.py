"""What the browser does with existing maps: drawing, values, scales, order; and selecting images for maps.

The test plays the worker, so nothing waits for a network.
"""

import json
import re
import urllib.request
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
import pytest
from browser import point_at, served
from ledger_rows import claimed, finish_items, values_of
from PIL import Image
from playwright.sync_api import Page, expect
from sqlalchemy import insert
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.pictures import heat
from db.atlas.store import Atlas
from db.ledger import jobs
from db.ledger.engine import Ledger, now
from db.ledger.tables import MapScore
from db.queries.jobs import job_maps
from db.settings import Settings, read_settings
from workers.requests.models import choose_models
from workers.requests.saliency import saliency_job

pytestmark = pytest.mark.browser
IMAGES = (0, 3, 5)
LABELS = (
    "SELECT image_id, class_index FROM predictions JOIN runs USING (run) WHERE model = 'first' AND is_label"
)
PIXELS = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a dashboard with maps of three images for two models; the second model's curves are better."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("mapped"))})
    import_pictures(settings, painted_pictures(120), image_set="painted")
    for model in ("first", "second"):
        add_run(settings, image_set="painted", model=model, divide=48)
    with served(settings) as url:
        compute(settings)
        yield url


def compute(settings: Settings) -> None:
    atlas, ledger = Atlas(settings), Ledger(settings)
    new = saliency_job(
        atlas, models=choose_models(atlas, ["first", "second"]), image_set="painted", image_ids=IMAGES,
        method="smoothgrad", parameters={},
    )  # fmt: skip
    job, _ = jobs.submit_job(ledger, new)
    finish_items(settings, ledger, claimed(ledger, job))
    with ledger.write() as connection:
        for found in job_maps(ledger, job, steps=50):
            area = found["image_id"] / 10 + (0.4 if found["model"] == "first" else 0.0)
            connection.execute(
                insert(MapScore).values(
                    map=found["map"], job=job, steps=50, deletion_auc=area, insertion_auc=1 - area,
                    deletion=[1.0, area, 0.0], insertion=[0.0, 1 - area, 1.0], seconds=1.0, created=now(),
                )
            )  # fmt: skip
    ledger.close()


def opened(page: Page, url: str, more: str = "") -> None:
    """The page with the six maps, painted."""
    page.goto(f"{url}/saliency?model=first&images=painted&models=first,second&ids=0,3,5{more}")
    expect(page.locator("canvas[data-painted]")).to_have_count(6)


def pixels_of(page: Page, canvas: str) -> np.ndarray:
    found = page.locator(canvas)
    side = int(found.evaluate("c => c.width"))
    return np.array(found.evaluate(PIXELS)).reshape(-1, side, 4)[:, :, :3]


def test_the_large_view_tells_values_and_keeps_the_page_s_scale(page: Page, mapped: str) -> None:
    opened(page, mapped, "&view=map&scale=all")
    high = max(heat.highest(values_of(image, signed=False), 99.5) for image in IMAGES)
    page.locator(".map-row[data-image='3'] .map-open").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".ends")).to_contain_text("shared scale")
    values = values_of(3, signed=False)
    expected = heat.colourise(values, colours="inferno", high=high)
    assert np.abs(pixels_of(page, ".large-stage canvas").astype(int) - expected).max() <= 1
    row, column = 40, 170
    point_at(page, dialog.locator(".large-stage canvas"), row=row, column=column)
    tip = page.locator("#tip.value-tip")
    expect(tip).to_contain_text(f"row {row}, column {column}")
    assert float(tip.locator("b").inner_text()) == pytest.approx(values[row, column], rel=1e-3)
    dialog.get_by_text("Standard error", exact=True).click()
    expect(dialog.locator(".ends")).to_contain_text("its own scale")
    errors = values / 10
    expected = heat.colourise(errors, colours="inferno", high=heat.highest(errors, 99.5))
    assert np.abs(pixels_of(page, ".large-stage canvas").astype(int) - expected).max() <= 1
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert page.evaluate("document.activeElement.className") == "map-open"


def test_maps_of_another_selection_are_shown_image_by_image(page: Page, mapped: str) -> None:
    there = f"{mapped}/saliency?model=first&images=painted&models=first,second"
    page.goto(f"{there}&ids=5,0")
    expect(page.locator("canvas[data-painted]")).to_have_count(4)
    expect(page.locator("#saliency-root")).not_to_contain_text("not computed yet", ignore_case=True)
    expect(page.locator(".map-row").first).to_contain_text("del 0.900")  # image 5 under first: 5 / 10 + 0.4
    page.goto(f"{there}&ids=1,3")
    expect(page.locator("canvas[data-painted]")).to_have_count(2)
    expect(page.locator("#saliency-root")).to_contain_text("2 of 4 maps are not computed yet. Press Run.")
    page.goto(f"{there}&ids=0,3&p_seed=1")
    expect(page.locator("#saliency-root")).to_contain_text(
        "Not computed yet: 2 images by 2 models. Press Run."
    )


def test_images_and_models_are_ordered_by_their_curves(page: Page, mapped: str) -> None:
    opened(page, mapped)

    def shown() -> tuple[list[str], list[str]]:
        rows = page.locator(".map-row").evaluate_all("rows => rows.map((row) => row.dataset.image)")
        first = page.locator(".map-row").first.locator(".map-cell")
        return rows, first.evaluate_all("cells => cells.map((cell) => cell.dataset.model)")

    assert shown() == (["0", "3", "5"], ["first", "second"])
    page.get_by_label("Sort models").select_option("deletion")
    expect(page.locator(".map-heads b")).to_have_text(["second", "first"])
    assert shown() == (["0", "3", "5"], ["second", "first"])
    page.get_by_label("Order").select_option("confidence")
    assert shown()[0] == ["0", "3", "5"], "what is equal stays as it was chosen"
    page.get_by_label("Order").select_option("insertion")
    page.reload()
    expect(page.locator("canvas[data-painted]")).to_have_count(6)
    assert shown() == (["0", "3", "5"], ["second", "first"])


def test_pictures_as_in_reports_are_white_on_black_and_the_address_says_so(page: Page, mapped: str) -> None:
    opened(page, mapped)
    page.get_by_role("button", name="As in reports").click()
    expect(page).to_have_url(re.compile(r"view=map&colours=grey&clip=99"))
    values = values_of(5, signed=False)
    canvas = ".map-row[data-image='5'] [data-model='second'] canvas"
    expect(page.locator(canvas)).to_have_attribute("data-painted", re.compile("^grey"))
    expected = heat.colourise(values, colours="grey", high=heat.highest(values, 99))
    assert np.abs(pixels_of(page, canvas).astype(int) - expected).max() <= 1


def test_the_figure_is_what_the_address_shows(page: Page, mapped: str) -> None:
    opened(page, mapped, "&scale=all&strength=0.3")
    page.get_by_label("Color map").select_option("viridis")
    expect(page).to_have_url(re.compile("colours=viridis"))
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Figure").click()
    address = downloaded.value.url
    assert "strength=0.3" in address
    assert "scale=all" in address
    assert "colours=viridis" in address
    with Image.open(downloaded.value.path()) as picture:
        assert picture.format == "PNG"
        assert picture.width > 2 * 224


def test_a_label_is_right_where_its_class_is_predicted(page: Page, mapped: str) -> None:
    """The simulated worker predicts class 3 for every image."""
    opened(page, mapped)
    with urllib.request.urlopen(f"{mapped}/api/sql?q={quote(LABELS)}", timeout=20) as answer:
        labels = {row[0]: row[1] for row in json.load(answer)["rows"]}
    for image in IMAGES:
        label = labels.get(image)
        marks = page.locator(f".map-row[data-image='{image}'] [data-model='first'] .verdict-mark")
        kind = None if label is None else "right" if label == 3 else "wrong"
        expect(marks).to_have_count(0 if kind is None else 1)
        if kind:
            expect(marks).to_have_class(re.compile(kind))


def test_a_random_choice_stays_in_the_address_with_its_seed(page: Page, mapped: str) -> None:
    page.goto(f"{mapped}/saliency?model=first&images=painted")
    page.get_by_label("How many images to choose").fill("4")
    page.get_by_label("Seed of the random choice").fill("7")
    page.get_by_role("button", name="Random", exact=True).click()
    expect(page).to_have_url(re.compile(r"ids=[0-9,-]+.*n=4&seed=7"))
    expect(page.locator(".map-row")).to_have_count(4)
    chosen = page.get_by_label("Images by number").input_value()
    page.goto(f"{mapped}/saliency?model=first&images=painted&n=4&seed=7")
    page.get_by_role("button", name="Random", exact=True).click()
    expect(page.get_by_label("Images by number")).to_have_value(chosen)
    expect(page.get_by_label("Seed of the random choice")).to_have_value("7")


def test_images_of_a_class_are_chosen_by_its_name(page: Page, mapped: str) -> None:
    page.goto(f"{mapped}/saliency?model=first&images=painted")
    with page.expect_response(re.compile(r"/choices/labels\.json")) as answered:
        page.get_by_label("Class of the images to choose").click()
    label = answered.value.json()["labels"][0]
    page.get_by_label("Class of the images to choose").fill(label["name"])
    page.get_by_label("How many images to choose").fill("240")
    page.get_by_role("button", name="First", exact=True).click()
    expect(page.locator(".map-row")).to_have_count(label["images"])
    names = page.locator(".map-image .name").all_inner_texts()
    assert set(names) == {label["name"]}
    page.reload()
    expect(page.get_by_label("Class of the images to choose")).to_have_value(label["name"])
    page.get_by_label("Class of the images to choose").fill("nothing of this name")
    page.get_by_role("button", name="Random", exact=True).click()
    expect(page.locator(".job-line")).to_contain_text(
        "No image of painted is labeled “nothing of this name”."
    )


def test_what_is_selected_is_kept_over_pages_and_views_until_it_is_cleared(page: Page, mapped: str) -> None:
    page.goto(f"{mapped}/images?model=first&images=painted")
    box = page.get_by_role("checkbox", name="Select image 2", exact=True)
    box.focus()
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    page.get_by_role("checkbox", name="Select image 4", exact=True).click(modifiers=["Shift"], force=True)
    expect(page.locator("#images-selection")).to_contain_text("3 selected")
    page.get_by_role("link", name="Next").click()
    page.get_by_role("checkbox", name="Select image 100", exact=True).click(force=True)
    link = page.locator("#images-selection").get_by_role("link", name="Saliency")
    assert link.get_attribute("href") == "/saliency?model=first&images=painted&ids=2-4,100"
    page.get_by_role("button", name="Select all on this page").click()
    expect(page.locator("#images-selection")).to_contain_text("27 selected")
    page.get_by_label("View").select_option("table")
    page.wait_for_selector("tr.selected")
    assert page.locator("tr.selected [data-image]").evaluate_all(
        "b => b.map((one) => one.dataset.image)"
    ) == ["2", "3", "4"]
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#images-selection")).to_be_hidden()
    expect(page.locator("tr.selected")).to_have_count(0)


def test_pages_lead_to_the_maps_of_their_images(page: Page, mapped: str) -> None:
    page.goto(f"{mapped}/images?model=first&images=painted&sort=label")
    page.wait_for_selector(".thumbnails li")
    first = page.locator(".thumbnails [data-image]").evaluate_all(
        "boxes => boxes.map((box) => +box.dataset.image)"
    )
    page.get_by_role("link", name="Saliency of these images").click()
    expect(page.locator(".map-row")).to_have_count(6)
    shown = page.locator(".map-row").evaluate_all("rows => rows.map((row) => +row.dataset.image)")
    assert shown == first[:6]
    page.locator(".map-image").first.click()
    page.get_by_role("link", name="Saliency of this image").click()
    expect(page.get_by_label("Images by number")).to_have_value(str(first[0]))


def test_a_resting_finger_selects_and_a_tap_opens(phone: Page, mapped: str) -> None:
    phone.goto(f"{mapped}/images?model=first&images=painted")
    picture = phone.locator(".thumbnails li a").nth(5)
    picture.dispatch_event("pointerdown", {"pointerType": "touch"})
    expect(phone.get_by_role("checkbox", name="Select image 5", exact=True)).to_be_checked()
    picture.dispatch_event("pointerup", {"pointerType": "touch"})
    picture.dispatch_event("click")
    assert "/images" in phone.url, "the click that ends the hold opens nothing"
    picture.dispatch_event("pointerdown", {"pointerType": "touch"})
    picture.dispatch_event("pointerup", {"pointerType": "touch"})
    picture.click()
    phone.wait_for_url(re.compile(r"/image\?"))
