"""Pages over a set whose right answers are written down here, and the curve of Robustness under the pointer.

Twelve labeled images under two models. `good` has 10 of 12 right (83.3 %), `poor` 3 of 12 (25 %). FGSM leaving the
label under `good`: images 10 and 11 are wrong before any attack, 0 to 7 fall at the epsilons below, 8 and 9 resist up
to 0.5.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from browser import served
from ledger_rows import add_attack
from playwright.sync_api import Page, expect
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.atlas import Atlas
from db.jobs import NewItem, NewJob, submit_job
from db.ledger import Ledger
from db.settings import Settings, read_settings

pytestmark = pytest.mark.browser
SMALLEST = (0.001, 0.002, 0.003, 0.004, 0.01, 0.02, 0.03, 0.04)
HERE = "model=good&images=twelve"
LEADERS = (
    "SELECT count(*) FILTER (epsilon > 0 OR outcome = 'resisted') AS right_before, "
    "count(*) FILTER (epsilon = 0) AS wrong, max(epsilon) AS largest FROM attacks WHERE image_set = 'twelve'"
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a dashboard over that set."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("known"))})
    pictures = painted_pictures(12)
    pictures[6] = replace(pictures[6], wnid="n10000006", label="kind 6")
    import_pictures(settings, pictures, image_set="twelve")
    for seed, (model, right) in enumerate({"good": 10, "poor": 3}.items()):
        judge(settings, add_run(settings, image_set="twelve", model=model, seed=seed, divide=48), right)
    with served(settings) as url:
        attack(settings)
        yield url


def judge(settings: Settings, run: int, right: int) -> None:
    """Have the run name the first `right` images right and take the others for a class that no image has."""
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
    ledger = Ledger(settings)
    items = tuple(NewItem("good", image, "0") for image in range(12))
    job, _ = submit_job(ledger, NewJob("k", "attack", "batch", "good", "twelve", {}, items))
    with ledger.write() as connection:
        for image in range(12):
            found: dict[str, Any] = {
                "model": "good",
                "image_set": "twelve",
                "image_id": image,
                "relative_to": "label",
            }
            if image < 8:
                found |= {"epsilon": SMALLEST[image]}
            elif image < 10:
                found |= {"outcome": "resisted"}
            else:
                found |= {"epsilon": 0.0, "class_before": 7, "class_after": 7}
            add_attack(connection, job, **found)
    ledger.close()


def test_each_page_says_what_was_written_down(page: Page, known: str) -> None:
    page.goto(known)
    expect(page).to_have_url(f"{known}/?{HERE}")  # the more accurate model, though the other one is newer
    page.goto(f"{known}/overview?{HERE}")
    rows = page.get_by_role("region", name="Models").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_have_text(re.compile(r"good\s*12\s*83 %\s*100 %\s*75 %\s*75 %"))
    expect(rows.nth(1)).to_have_text(re.compile(r"poor\s*12\s*25 %\s*100 %\s*75 %\s*75 %"))
    page.goto(f"{known}/images?{HERE}&verdict=wrong")
    expect(page.locator("#images-body [data-image]")).to_have_count(2)
    page.goto(f"{known}/robustness?{HERE}")
    expect(page.locator("#robustness-body")).to_contain_text("robust accuracy")
    outcomes, leaders = (
        page.get_by_role("region", name=name).locator("tbody tr") for name in ("Outcomes", "Leaderboard")
    )
    # attacked, wrong before, changed, resist, no gradient
    expect(outcomes).to_have_text([re.compile(r"good\s*12\s*2\s*8\s*2\s*0")])
    # right at 0: 10 of 12; of those fall 3 up to 1/255, 5 up to 4/255, 7 up to 8/255; the fifth of ten falls at 0.01
    shares = r"good\s*12\s*83 %\s*58 %\s*42 %\s*25 %\s*0\.01 \(2\.55/255\)"
    expect(leaders).to_have_text([re.compile(shares)])
    page.goto(f"{known}/sql?" + urlencode({"q": LEADERS}))
    cells = page.locator("#sql-grid .ag-center-cols-container .ag-cell")
    expect(cells).to_have_text(["10", "2", "0.04"])


def test_a_point_of_a_curve_lists_its_images_and_leaves_the_model(page: Page, known: str) -> None:
    page.goto(f"{known}/robustness?model=poor&images=twelve")
    point = page.locator("#robustness-curve .scatterlayer path.point").nth(3)
    expect(point).to_be_visible()
    box = point.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile(r"listed=good&epsilon=0\.003"))
    expect(page.locator("#shell-model")).to_have_value("poor")
    assert "model=poor" in page.url
    # ten images were right before: a mark each, the triangles of the two that resist at the right end
    marks = page.locator("#robustness-strip .scatterlayer path.point")
    expect(marks).to_have_count(10)
    cut = marks.evaluate_all(
        """marks => marks.filter((mark) => {
            const box = mark.getBoundingClientRect(), frame = mark.closest('svg').getBoundingClientRect();
            return mark.closest('[clip-path]') || box.right > frame.right || box.left < frame.left;
        }).length"""
    )
    assert cut == 0
