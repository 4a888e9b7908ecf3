"""What the Saliency page requests for a URL, and its error messages."""

from typing import Any

import pytest

from dashboard.pages import saliency_request
from dashboard.pages.request.frame import nothing_to_choose
from dashboard.state.context import Context, current
from db.atlas.store import Query


def shown(search: str) -> dict[str, Any]:
    context = current()
    assert nothing_to_choose(context.catalogue()) is None
    return saliency_request.read_page(context, context.catalogue(), search)


def test_an_address_without_anything_asks_for_the_first_images_of_the_newest_run(context: Context) -> None:
    del context
    page = shown("")
    assert (page["chosen"], page["image_set"], page["ids"]) == (["synthetic"], "painted", "0-2")
    assert page["request"]["parameters"]["samples"] == 25
    assert page["job"] is None
    assert page["problems"] == {}


def test_a_label_is_known_by_its_class_in_the_model_and_never_by_its_name(context: Context) -> None:
    rows = shown("?ids=0,1,2,6,13")["rows"]
    told = context.atlas.fetch(Query("SELECT image_id, class_index FROM predictions WHERE is_label"))
    expected = {row["image_id"]: row["class_index"] for row in told}
    assert rows[0]["classes"] == {"synthetic": expected[0]}
    for row in rows:
        assert row["classes"] == ({"synthetic": expected[row["id"]]} if row["id"] in expected else {})
    assert rows[3]["classes"] == {}, "without a label nothing is right or wrong"


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("?ids=x", "expected numbers such as 0,1,4-7"),
        ("?ids=99", "painted has images 0 to 59"),
        ("?method=lime", "method: expected one of"),
        ("?p_samples=0", "samples: expected a whole number"),
        ("?p_sigma=1", "no parameter 'sigma'"),
        ("?models=nobody", "'nobody' is not indexed"),
        ("?target=cat", "target: expected prediction"),
        ("?images=nothing", "There is no image set “nothing”"),
    ],
)
def test_invalid_addresses_are_reported_in_a_sentence(context: Context, search: str, sentence: str) -> None:
    del context
    assert sentence in " ".join(shown(search)["problems"].values())


def test_a_page_without_a_run_shows_the_command(empty_context: Context) -> None:
    assert "Nothing here yet" in str(nothing_to_choose(empty_context.catalogue()))


def test_the_address_of_some_images_asks_for_these(context: Context) -> None:
    del context
    page = shown("?" + saliency_request.saliency_of("synthetic", "painted", [4, 5, 6, 9]).partition("?")[2])
    assert page["ids"] == "4-6,9"
    assert [row["id"] for row in page["rows"]] == [4, 5, 6, 9]
