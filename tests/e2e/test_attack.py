"""The Attack and Robustness pages with a real worker, a real broker and a real network, on real photos."""

import io
import json
import os
import re
import signal
import urllib.request
from typing import Any

import numpy as np
import pytest
import torch
from browser import hold, press_run
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from running import command, wait

from dashboard.pictures import heat as heat_rules
from db.ledger.engine import Ledger
from db.queries import jobs as job_queries
from db.queries.attacks import job_attacks
from db.settings import Settings
from workers.attacks.steps import loss_gradient, perturbed
from workers.attribution.smoothgrad import smoothgrad
from workers.models.vision import VisionModel, load_model

pytestmark = pytest.mark.browser
HERE = "model=efficientnet-lite0&images=samples"


def fetched(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


def pixels_of(address: str) -> torch.Tensor:
    with urllib.request.urlopen(address, timeout=30) as answer:
        picture = np.array(Image.open(io.BytesIO(answer.read())).convert("RGB"))
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def array_of(address: str) -> np.ndarray:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return np.asarray(np.load(io.BytesIO(answer.read())))


def drawn(canvas: Locator) -> np.ndarray:
    """Return a canvas as uint8 H,W,3."""
    values, height, width = canvas.evaluate(
        "c => [[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data], c.height, c.width]"
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[:, :, :3]


@pytest.fixture(scope="module")
def lite0() -> VisionModel:
    return load_model("efficientnet-lite0")


def run(page: Page, address: str) -> Locator:
    """Return the verdict of the attack that the URL requests, once it exists."""
    return press_run(page, address, arrives=".attack-verdict")


def shown_attack(page: Page, url: str) -> dict[str, Any]:
    number = page.locator(".attack-step").get_attribute("data-attack")
    found: dict[str, Any] = fetched(f"{url}/api/attacks/{number}")
    return found


def test_the_smallest_epsilon_changes_the_class_and_the_map_after_is_of_the_attacked_image(
    page: Page, first_run: tuple[str, Settings], lite0: VisionModel
) -> None:
    """The report's workflow on a real photo, on 8-bit levels: what is stored is what was attacked."""
    url, _ = first_run
    verdict = run(page, f"{url}/attack?{HERE}&ids=0&p_levels=8-bit")
    expect(verdict).to_contain_text("becomes")
    expect(verdict).to_contain_text("It still succeeds")
    told = shown_attack(page, url)
    before, after = pixels_of(url + told["input_png"]), pixels_of(url + told["png"])
    with torch.inference_mode():
        logits = lite0(torch.cat([before, after]))
    assert logits.argmax(1).tolist() == [told["class_before"], told["class_after"]]
    assert told["class_before"] != told["class_after"]
    assert float((after - before).abs().max()) == pytest.approx(told["epsilon"], abs=1e-6)
    direction = loss_gradient(lite0, before, torch.tensor([told["class_before"]])).sign()
    smaller = perturbed(before, direction, told["epsilon"] - 1 / 255, integer=True)
    with torch.inference_mode():
        assert int(lite0(smaller).argmax()) == told["class_before"], "one level less is not enough"
    expect(page.locator(".equation figcaption").nth(0)).to_contain_text(told["name_before"])
    expect(page.locator(".equation figcaption").nth(2)).to_contain_text(told["name_after"])

    page.get_by_label("samples", exact=True).last.fill("4")
    page.get_by_role("button", name="Compute").click()
    expect(page.locator(".map-panels canvas[data-painted]")).to_have_count(8, timeout=180_000)
    expect(page.locator(".attack-maps tbody tr")).to_have_count(4)
    maps = {found["panel"]: found for found in shown_attack(page, url)["maps"]}
    heat = array_of(url + maps["attacked"]["npy"])

    # all three maps share one scale: separately, each would reach the end of its own
    panels = [maps[name] for name in ("clean", "attacked", "attacked_own")]
    arrays = [array_of(url + panel["npy"]) for panel in panels]
    high = max(heat_rules.highest(values, 99.5) for values in arrays)
    for panel, values in zip(panels, arrays, strict=True):
        title = page.locator(".map-panels figure").filter(has=page.locator(f"a[href='{panel['npy']}']"))
        shown = drawn(title.locator("canvas")).astype(int)
        wanted = heat_rules.colourise(values, colours="inferno", high=high)
        assert np.abs(shown - wanted).max() <= 2

    def expected(pixels: torch.Tensor, target: int) -> np.ndarray:
        made = smoothgrad(lite0, pixels, torch.tensor([target]), samples=4, noise_level=0.15, seed=0)
        return made.map[0].numpy()

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))

    assert apart(heat, expected(after, told["class_before"])) < 0.02
    assert apart(heat, expected(before, told["class_before"])) > 0.05, "it is not that of the clean image"
    own = array_of(url + maps["attacked_own"]["npy"])
    assert apart(own, expected(after, told["class_after"])) < 0.02


def test_the_slider_shows_the_image_and_the_classes_at_each_epsilon(
    page: Page, first_run: tuple[str, Settings]
) -> None:
    url, _ = first_run
    run(page, f"{url}/attack?{HERE}&ids=1&p_scan=full&p_cap=0.04&p_step=0.004")
    told = shown_attack(page, url)
    assert len(told["steps"]) == 11
    expect(page.locator(".plot-area .success")).to_have_count(
        sum(step["top"][0]["class_index"] != told["class_index"] for step in told["steps"])
    )
    slider = page.get_by_label("Epsilon", exact=True)
    slider.focus()
    before = pixels_of(url + told["input_png"])
    signs = (pixels_of(url + told["signs_png"]) * 255 - 128) / 127
    assert set(signs.unique().round().tolist()) <= {-1.0, 0.0, 1.0}
    for key, at in (("End", 10), ("Home", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        step = told["steps"][at]
        expect(page.locator(".curve-card output")).to_contain_text(f"({step['epsilon'] * 255:.3g}/255)")
        expect(page.locator(".top-five .bar").first).to_contain_text(f"({step['top'][0]['class_index']})")
        expected = (perturbed(before, signs.round(), step["epsilon"])[0].permute(1, 2, 0) * 255).numpy()
        canvas = page.locator(".equation canvas").nth(2)
        assert np.abs(drawn(canvas).astype(float) - expected).max() <= 0.51
    assert "at=0.004" in page.url
    page.reload()
    expect(page.locator(".curve-card output")).to_contain_text("0.004")


def test_a_condition_that_is_typed_chooses_images_and_the_last_choice_counts(
    page: Page, first_run: tuple[str, Settings]
) -> None:
    url, _ = first_run
    page.goto(f"{url}/attack?{HERE}&ids=0")
    where = page.locator("#attack-where")
    where.fill("image_id IN (3, 5) OR image_id = 4")
    where.press("Enter")
    expect(page.get_by_label("Images by number")).to_have_value("3-5")
    assert "where=image_id" in page.url
    page.reload()
    expect(where).to_have_value("image_id IN (3, 5) OR image_id = 4")
    where.fill("image_id > 1000")
    where.press("Enter")
    expect(page.locator(".problem")).to_have_text("No matching images in samples.")
    expect(page.get_by_label("Images by number")).to_have_value("3-5")
    # leaving the field and pressing All sends two requests; the first answer arrives last
    held, is_left = hold(page, "attack-where.value")
    where.fill("image_id < 2")
    with page.expect_request(is_left):
        where.press("Tab")
    page.locator(".pick").get_by_role("button", name="All").click()
    expect(page.get_by_label("Images by number")).to_have_value("0-35")
    with page.expect_response(lambda answer: is_left(answer.request)):
        held[0].continue_()
    page.wait_for_timeout(500)
    expect(page.get_by_label("Images by number")).to_have_value("0-35")


def test_resistance_and_failure_have_their_own_words(page: Page, first_run: tuple[str, Settings]) -> None:
    url, _ = first_run
    verdict = run(page, f"{url}/attack?{HERE}&ids=2&p_step=0.000001&p_cap=0.000002")
    expect(verdict).to_contain_text("Resisted up to")
    expect(verdict).to_contain_text("censored at the cap")
    told = shown_attack(page, url)
    verdict = run(page, f"{url}/attack?{HERE}&ids=2&target={told['class_before']}")
    expect(verdict).to_contain_text("No change is needed")
    expect(page.locator(".attack-maps")).to_contain_text("there is no adversarial map")
    unlabelled = next(row["image_id"] for row in unlabelled_images(first_run[1]))
    page.goto(f"{url}/attack?{HERE}&ids={unlabelled}&target=label")
    expect(page.get_by_text("no image of this request has a label").first).to_be_visible()
    expect(page.get_by_role("button", name="Run")).to_be_disabled()
    page.goto(f"{url}/attack?{HERE}&p_cap=7")
    expect(page.locator(".problem")).to_contain_text("cap: expected a number from 0 to 1, got '7'")
    expect(page.get_by_role("button", name="Run")).to_be_disabled()


def unlabelled_images(settings: Settings) -> list[dict[str, Any]]:
    from db.atlas.store import Atlas, Query

    return Atlas(settings).fetch(Query("SELECT image_id FROM images WHERE label IS NULL AND wnid IS NULL"))


def test_a_shifted_channel_leads_to_its_patches(page: Page, first_run: tuple[str, Settings]) -> None:
    url, _ = first_run
    run(page, f"{url}/attack?{HERE}&ids=3&p_mode=fixed&p_epsilon=0.03")
    expect(page.locator(".mover")).to_have_count(8)
    pills = page.locator(".network .pill")
    expect(pills).to_have_count(49)
    last = pills.last
    last.focus()
    page.keyboard.press("Enter")
    expect(last).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".mover")).to_have_count(5)
    page.get_by_role("button", name=re.compile("Clamp the 10 channels")).click()
    expect(page.locator(".asked tbody tr")).to_have_count(5, timeout=180_000)
    expect(page.locator(".asked").first).to_contain_text("Nothing clamped")
    expect(page.locator(".asked .verdict")).to_contain_text(
        re.compile("carry the attack|no more than random|Cannot say")
    )
    page.locator(".mover").first.click()
    expect(page).to_have_url(re.compile("/channel"))
    expect(page.locator("h1")).to_contain_text("Channel")


def test_a_batch_is_attacked_from_the_terminal_and_each_point_opens_its_image(
    page: Page, first_run: tuple[str, Settings]
) -> None:
    url, settings = first_run
    words = ("attack", "--model", "efficientnet-lite0", "--images", "samples", "--max", "0.02")
    made = command(*words, "--where", "label IS NOT NULL", "--wait", home=settings.home)
    assert made.returncode == 0, made.stderr
    number, summary = made.stdout.splitlines()
    assert re.match(
        r"\d+ changed, \d+ resisted up to the cap, 0 had no gradient; median smallest epsilon 0\.", summary
    )
    total = fetched(f"{url}/api/jobs/{number}")["items"]
    page.goto(f"{url}/robustness?{HERE}&protocol=FGSM, leaves the prediction, step 0.001 to 0.02")
    points = page.locator("#robustness-strip .scatterlayer .point")
    expect(points).to_have_count(total, timeout=90_000)
    expect(page.locator("#robustness-curve")).to_contain_text(f"efficientnet-lite0 ({total} images)")
    box = points.first.bounding_box()
    assert box is not None
    points.first.scroll_into_view_if_needed()
    box = points.first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(300)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page).to_have_url(re.compile(r"/attack\?(.*&)?attack=\d+"))
    expect(page.locator(".attack-verdict")).to_be_visible()
    page.go_back()
    page.get_by_label("Class", exact=True).select_option(index=2)
    expect(page).to_have_url(re.compile("label="))


def test_a_long_attack_is_cancelled_and_what_is_done_stays(
    page: Page, first_run: tuple[str, Settings]
) -> None:
    url, _ = first_run
    page.goto(f"{url}/attack?{HERE}&ids=0-20&p_scan=full&p_cap=0.2")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".job-note")).to_contain_text("epsilon", timeout=180_000)
    expect(page.locator(".attack-card.flipped").first).to_be_visible(timeout=180_000)
    page.locator(".job-now").get_by_role("button", name="Cancel").click()
    expect(page.locator(".job-now")).to_contain_text("cancelled", timeout=90_000)
    done = page.locator(".attack-card.flipped").count()
    assert 0 < done < 21
    page.reload()
    expect(page.locator(".attack-card.flipped")).to_have_count(done)


@pytest.mark.parametrize("path", ["attack", "robustness"])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    phone: Page, first_run: tuple[str, Settings], path: str
) -> None:
    url, _ = first_run
    phone.goto(f"{url}/{path}?{HERE}&ids=0")
    if path == "attack":
        run(phone, phone.url)
    else:
        expect(phone.locator("h1")).to_have_text("Robustness")
        phone.wait_for_timeout(1500)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_batch_that_is_cancelled_killed_and_resumed_has_each_image_once(
    first_run: tuple[str, Settings],
) -> None:
    _, settings = first_run
    words = (
        "attack",
        "--model",
        "efficientnet-lite0",
        "--images",
        "samples",
        "--step",
        "0.0005",
        "--max",
        "0.01",
    )
    job = int(command(*words, "--set", "scan=full", home=settings.home).stdout.strip())
    ledger = Ledger(settings)

    def done() -> int:
        return int(job_queries.job(ledger, job)["items_done"])

    def state() -> str:
        return str(job_queries.job(ledger, job)["state"])

    wait(lambda: done() >= 3, seconds=180, what=state)
    assert command("jobs", "cancel", str(job), home=settings.home).returncode == 0
    wait(lambda: state() == "cancelled", seconds=90, what=state)
    before = done()
    assert command("jobs", "retry", str(job), home=settings.home).returncode == 0
    wait(lambda: done() >= before + 3, seconds=180, what=state)
    for worker in job_queries.workers(ledger):
        os.kill(worker["pid"], signal.SIGKILL)
    wait(lambda: state() == "done", seconds=360, what=state)
    items = job_queries.job_items(ledger, job)
    attacks = job_attacks(ledger, job)
    assert [found["image_id"] for found in attacks] == [item["image_id"] for item in items] == list(range(36))
    assert len({found["attack"] for found in attacks}) == 36
    assert all(found["checked"] == 21 for found in attacks)
    ledger.close()
