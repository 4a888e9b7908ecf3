"""Pages over a set with hand-computed answers, and the curve on the Robustness page under the pointer.

Twelve labeled images and two models. `good` is correct on 10 of 12 (83.3 %), `poor` on 3 of 12 (25 %). FGSM
leaving the label, for `good`, on a grid of 0.001: images 10 and 11 are wrong before any attack, 0 to 7 flip
at the epsilons below, and 8 and 9 resist up to 0.5. For image 3 it was not recorded which epsilons failed.
Images 0 and 3 have maps for `good`: it predicts class 3 for both, which is image 3's label.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from browser import served_here
from ledger_rows import add_attack, attack_keys, claimed, finish_items, picture_of
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import insert
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.atlas.store import Atlas
from db.ledger import jobs
from db.ledger.engine import Ledger, now
from db.ledger.tables import MapScore
from db.queries.jobs import job_maps
from db.settings import Settings, read_settings
from db.stores.results import ResultStore
from workers.requests.attacks import attack_job
from workers.requests.models import choose_models
from workers.requests.saliency import saliency_job

pytestmark = pytest.mark.browser
SMALLEST = (0.001, 0.002, 0.003, 0.004, 0.01, 0.02, 0.03, 0.04)
HERE = "model=good&images=twelve"
ATTACKS = f"{HERE}&ids=0-11&target=label&p_grid=linear"
LEADERS = (
    "SELECT count(*) FILTER (epsilon > 0 OR outcome = 'resisted') AS right_before, "
    "count(*) FILTER (epsilon = 0) AS wrong, max(epsilon) AS largest FROM attacks WHERE image_set = 'twelve'"
)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a home with that set."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("known"))})
    pictures = painted_pictures(12)
    pictures[6] = replace(pictures[6], wnid="n10000006", label="kind 6")
    import_pictures(settings, pictures, image_set="twelve")
    for seed, (model, right) in enumerate({"good": 10, "poor": 3}.items()):
        judge(settings, add_run(settings, image_set="twelve", model=model, seed=seed, divide=48), right)
    return settings


@pytest.fixture(scope="module")
def known(twelve: Settings, visitor: Page) -> Iterator[str]:
    """URL of a dashboard over it."""
    with served_here(twelve) as url:
        attack(twelve)
        explain(twelve)
        yield url
        visitor.goto("about:blank")  # or the page would miss its server during shutdown


def judge(settings: Settings, run: int, right: int) -> None:
    """Make the run correct on the first `right` images and predict a class that no image has for the others."""
    with Atlas(settings).publish() as connection:
        connection.execute("DELETE FROM predictions WHERE run = ?", [run])
        connection.execute(
            "INSERT INTO predictions SELECT $run, image_id, 1, "
            "CASE WHEN image_id < $right THEN c.class_index ELSE other.class_index END, "
            "0.75, 2.0, image_id < $right FROM images i JOIN classes c ON c.wnid = i.wnid, "
            "(SELECT class_index FROM classes WHERE name = 'other 0') other",
            {"run": run, "right": right},
        )
        connection.execute(
            "INSERT INTO predictions SELECT $run, image_id, 2, c.class_index, 0.25, 1.0, true "
            "FROM images i JOIN classes c ON c.wnid = i.wnid WHERE image_id >= $right",
            {"run": run, "right": right},
        )


def attack(settings: Settings) -> None:
    atlas, ledger, store = Atlas(settings), Ledger(settings), ResultStore(settings)
    new = attack_job(
        atlas, models=choose_models(atlas, ["good"]), image_set="twelve", image_ids=range(12), method="fgsm",
        parameters={"grid": "linear"}, relative_to="label",
    )  # fmt: skip
    job, _ = jobs.submit_job(ledger, new)
    picture = picture_of(0)
    signs = np.where(np.arange(picture.size).reshape(picture.shape) % 2, 255, 1).astype(np.uint8)
    steps = np.full(
        (3, 12), -1, np.float32
    )  # point on the grid, P(label), then class and its probability, five times
    steps[:, :6] = [[0, 0.75, 3, 0.75, 5, 0.125], [9, 0.5, 3, 0.5, 5, 0.375], [10, 0.25, 5, 0.5, 3, 0.25]]
    with ledger.write() as connection:
        for (_, image), key in attack_keys(atlas, new).items():
            found: dict[str, Any] = {
                "model": "good", "image_set": "twelve", "image_id": image, "key": key,
                "image_key": new.items[image].image_key, "input_file": store.write_picture("inputs", key, picture),
                "parameters": dict(new.parameters["parameters"]),
            }  # fmt: skip
            if image < 8:
                found |= {
                    "epsilon": SMALLEST[image],
                    "last_failure": SMALLEST[image] - 0.001,
                    "at_most": image == 0,
                }
            elif image < 10:
                found |= {
                    "outcome": "resisted",
                    "class_after": 3,
                    "name_after": "a fish",
                    "probability_after": 0.625,
                }
            else:
                found |= {"epsilon": 0.0, "class_before": 7, "class_after": 7, "name_before": "a stone"}
            if image == 3:
                found["last_failure"] = None
            if image == 4:
                found |= {
                    "file": store.write_picture("attacks", key, picture),
                    "change_file": store.write_picture("attacks", f"{key}-signs", signs),
                    "steps_file": store.write_array("attacks", f"{key}-steps", steps),
                }
            add_attack(connection, job, **found)
    jobs.cancel(ledger, job)  # its rows exist, but not as its own: the page finds them by the request
    ledger.close()


def explain(settings: Settings) -> None:
    atlas, ledger = Atlas(settings), Ledger(settings)
    new = saliency_job(
        atlas, models=choose_models(atlas, ["good"]), image_set="twelve", image_ids=[0, 3], method="smoothgrad",
        parameters={},
    )  # fmt: skip
    job, _ = jobs.submit_job(ledger, new)
    finish_items(settings, ledger, claimed(ledger, job))
    with ledger.write() as connection:
        for found, (deletion, insertion) in zip(
            job_maps(ledger, job, steps=50), ((0.125, 0.75), (0.25, 0.5)), strict=True
        ):
            connection.execute(
                insert(MapScore).values(
                    map=found["map"], job=job, steps=50, deletion_auc=deletion, insertion_auc=insertion,
                    deletion=[1.0, 0.0], insertion=[0.0, 1.0], seconds=1.0, created=now(),
                )
            )  # fmt: skip
    ledger.close()


def test_the_first_page_and_those_of_accuracy_say_what_was_written_down(visitor: Page, known: str) -> None:
    visitor.goto(known)
    expect(visitor).to_have_url(f"{known}/?{HERE}")  # the more accurate model, though the other one is newer
    visitor.goto(f"{known}/overview?{HERE}")
    rows = visitor.get_by_role("region", name="Models").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_have_text(re.compile(r"good\s*12\s*83 %\s*100 %\s*75 %\s*75 %"))
    expect(rows.nth(1)).to_have_text(re.compile(r"poor\s*12\s*25 %\s*100 %\s*75 %\s*75 %"))
    visitor.goto(f"{known}/images?{HERE}&verdict=wrong")
    expect(visitor.locator("#images-body [data-image]")).to_have_count(2)
    visitor.goto(f"{known}/sql?" + urlencode({"q": LEADERS}))
    cells = visitor.locator("#sql-grid .ag-center-cols-container .ag-cell")
    expect(cells).to_have_text(["10", "2", "0.04"])


def test_robustness_says_what_was_written_down_and_a_point_of_a_curve_lists_its_images(
    visitor: Page, known: str
) -> None:
    visitor.goto(f"{known}/robustness?model=poor&images=twelve")
    expect(visitor.locator("#robustness-body")).to_contain_text("robust accuracy")
    outcomes, leaders = (
        visitor.get_by_role("region", name=name).locator("tbody tr") for name in ("Outcomes", "Leaderboard")
    )
    # attacked, wrong before, changed, resisted, no gradient
    expect(outcomes).to_have_text([re.compile(r"good\s*12\s*2\s*8\s*2\s*0")])
    # correct at 0: 10 of 12; 3 of those flip up to 1/255, 5 up to 4/255, 7 up to 8/255; the fifth of ten flips at 0.01
    shares = r"good\s*12\s*83 %\s*58 %\s*42 %\s*25 %\s*0\.01 \(2\.55/255\)"
    expect(leaders).to_have_text([re.compile(shares)])
    point = visitor.locator("#robustness-curve .scatterlayer path.point").nth(3)
    expect(point).to_be_visible()
    box = point.bounding_box()
    assert box is not None
    visitor.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visitor.wait_for_url(re.compile(r"listed=good&epsilon=0\.003"))
    expect(visitor.locator("#shell-model")).to_have_value("poor")
    assert "model=poor" in visitor.url
    # ten images were correct before: one mark each, with triangles at the right end for the two that resist
    marks = visitor.locator("#robustness-strip .scatterlayer path.point")
    expect(marks).to_have_count(10)
    cut = marks.evaluate_all(
        """marks => marks.filter((mark) => {
            const box = mark.getBoundingClientRect(), frame = mark.closest('svg').getBoundingClientRect();
            return mark.closest('[clip-path]') || box.right > frame.right || box.left < frame.left;
        }).length"""
    )
    assert cut == 0


# Image, the text of its card, and that of its verdict.
VERDICTS = {
    0: ("ε ≤ 0.001", ["a fish becomes a bird at ε ≤ 0.001 (0.26/255)", "successful epsilon is at most that"]),
    3: ("ε 0.004", ["a fish becomes a bird at ε 0.004 (1.02/255)", "Which smaller epsilons failed was not recorded."]),
    4: ("ε 0.01", [
        "a fish becomes a bird at ε 0.01 (2.55/255)",
        "0.009 (2.3/255) fails; the gap between the two, 10.0 % of epsilon, was not tested.",
        "FGSM to leave the label, a fish (3); steps of 0.001 from 0.001 (0.26/255) up to 0.5 (127.5/255); 11 epsilons",
    ]),
    8: ("resisted", ["Resisted up to ε 0.5 (127.5/255)", "Still a fish (3), 62.5 %", "censored at the cap"]),
    10: ("wrong already", ["No change is needed", "The model predicts a stone (7); the label is a fish (3)."]),
}  # fmt: skip


def test_attacks_say_what_was_written_down(visitor: Page, known: str) -> None:
    visitor.goto(f"{known}/attack?{ATTACKS}")
    cards = visitor.locator(".attack-card")
    wrong = ["wrong already"] * 2
    expect(cards.locator("b")).to_have_text(
        ["ε ≤ 0.001", *(f"ε {epsilon}" for epsilon in SMALLEST[1:]), "resisted", "resisted", *wrong]
    )
    with visitor.expect_download() as downloaded:
        visitor.get_by_role("link", name="CSV", exact=True).click()
    lines = downloaded.value.path().read_text().splitlines()
    assert len(lines) == 13
    assert [line.split(",")[1] for line in lines[1:]] == [str(image) for image in range(12)]
    for image, (card, words) in VERDICTS.items():
        expect(cards.nth(image).locator("b")).to_have_text(card)
        cards.nth(image).locator("a").click()
        for sentence in words:
            expect(visitor.locator(".attack-verdict")).to_contain_text(sentence)
        captions = visitor.locator(".equation figcaption")
        expect(captions.first).to_have_text("a stone (7)75.0 %" if image == 10 else "a fish (3)75.0 %")
        if image == 4:
            expect(captions.last).to_have_text("kind 5 (5)50.0 %")  # its name in the index
            expect(visitor.locator(".top-five .bar")).to_have_text(["kind 5 (5)50.0 %", "kind 3 (3)25.0 %"])
            expect(visitor.locator(".plot-area .success")).to_have_count(1)


def test_maps_say_what_was_written_down(visitor: Page, known: str) -> None:
    visitor.goto(f"{known}/saliency?{HERE}&ids=0,3")
    cells = visitor.locator(".map-row .map-cell figcaption")
    expect(cells).to_have_text(["a fish25.0 %del 0.125ins 0.750", "a fish25.0 %del 0.250ins 0.500"])
    marks = visitor.locator(".map-row .verdict-mark")
    expect(marks.nth(0)).to_have_class(re.compile("wrong"))
    expect(marks.nth(1)).to_have_class(re.compile("right"))
    visitor.locator(".map-row[data-image='3'] .map-open").click()
    dialog = visitor.get_by_role("dialog")
    for fact in ("class explaineda fish (3), 25.0 %", "samples25 drawn of 25", "agreement of halves0.500",
                 "mean standard error0.01"):  # fmt: skip
        expect(dialog.locator(".job-parameters")).to_contain_text(fact)
    expect(dialog.locator("figcaption")).to_have_text(["Deletionarea 0.250", "Insertionarea 0.500"])


@pytest.mark.usefixtures("known")
def test_a_damaged_ledger_is_named_once_and_the_header_stays_in_the_window(
    browser: Browser, twelve: Settings, tmp_path: Path
) -> None:
    shutil.copytree(twelve.home, tmp_path / "home")
    for file in (tmp_path / "home").glob("ledger.sqlite*"):
        file.unlink()
    (tmp_path / "home" / "ledger.sqlite").write_bytes(b"garbage!" * 10_000)
    with (
        served_here(read_settings({"CONVSCOPE_HOME": str(tmp_path / "home")})) as url,
        browser.new_context(viewport={"width": 1440, "height": 900}) as context,
    ):
        page = context.new_page()
        page.goto(f"{url}/attack?attack=5")
        expect(page.locator("#shell-busy")).to_contain_text("jobs do not answer")
        page.wait_for_timeout(300)
        expect(page.locator("#attack-root .problem")).to_have_text(
            [re.compile("ledger.sqlite cannot be read")]
        )
        expect(page.locator(".attack-card").first).to_contain_text("not known")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1440
