"""The request form as functions: controls to address, classes by name, order of maps, and what keeps jobs waiting."""

from typing import Any

import pytest

from dashboard.pages import job_progress, saliency_request
from dashboard.pages.request.changes import changes_of
from dashboard.pages.request.classes import find_class, find_label
from dashboard.pages.request.filling import fill
from dashboard.pages.request.form import merged
from dashboard.pages.saliency_grid import in_order
from dashboard.state.context import Context

NAMES = ["Crane", "goldfish", "great white shark", "crane", "tiger shark"]
SEARCH = "?model=synthetic&images=painted&ids=0,3&p_samples=8&view=map"


@pytest.mark.parametrize(
    ("text", "index"),
    [("goldfish", 1), (" GOLD", 1), ("1", 1), ("1: goldfish", 1), ("4:", 4), ("tiger", 4)],
)
def test_a_class_is_found_by_its_index_its_name_or_a_part_of_it(text: str, index: int) -> None:
    assert find_class(NAMES, text, "m") == (index, "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("crane", "2 classes of m match “crane”: 0: Crane, 3: crane."),
        ("shark", "2 classes of m match “shark”: 2: great white shark, 4: tiger shark."),
        ("5", "No class of m is called “5”: expected a name, or an index from 0 to 4."),
        ("cat", "No class of m is called “cat”: expected a name, or an index from 0 to 4."),
        ("", "No class of m is called “”: expected a name, or an index from 0 to 4."),
    ],
)
def test_an_unknown_or_ambiguous_class_is_reported_in_a_sentence(text: str, sentence: str) -> None:
    assert find_class(NAMES, text, "m") == (None, sentence)


def test_a_label_with_the_whole_name_comes_before_one_that_contains_it() -> None:
    rows = [{"label": "tiger shark", "class": "n2"}, {"label": "Shark", "class": "n1"}]
    assert find_label(rows, "shark") == "n1"
    assert find_label(rows, "TIGER") == "n2"
    assert find_label(rows, "cat") == ""


def changed(context: Context, search: str = SEARCH, **controls: Any) -> str:
    """The address after these controls were changed by hand."""
    page = saliency_request.read_page(context, context.catalogue(), search)
    filled = fill(saliency_request.FORM, context, page, search)["filled"]
    changes, _ = changes_of(saliency_request.FORM, context, controls, filled, search)
    return merged(search, changes)


def test_each_control_writes_its_part_of_the_address(context: Context) -> None:
    base = "?model=synthetic&images=painted"
    assert changed(context, ids=" 1-4 ") == f"{base}&ids=1-4&p_samples=8&view=map"
    assert changed(context, p_samples="9") == f"{base}&ids=0,3&p_samples=9&view=map"
    assert changed(context, p_samples="25") == f"{base}&ids=0,3&view=map", "a default is left out"
    assert changed(context, target="label") == f"{base}&ids=0,3&p_samples=8&view=map&target=label"


def test_another_method_drops_the_parameters_of_the_one_before(context: Context) -> None:
    assert changed(context, method="gradient") == (
        "?model=synthetic&images=painted&ids=0,3&view=map&method=gradient"
    )
    assert changed(context, SEARCH + "&method=gradient", method="smoothgrad") == (
        "?model=synthetic&images=painted&ids=0,3&view=map"
    )


def test_a_picked_choice_is_dropped_when_ids_are_typed(context: Context) -> None:
    picked = SEARCH + "&n=2&seed=7&verdict=right&where=width"
    assert changed(context, picked, ids="1") == "?model=synthetic&images=painted&ids=1&p_samples=8&view=map"


def test_a_request_is_the_same_whatever_is_only_displayed() -> None:
    about = saliency_request.FORM.about
    assert about("?ids=0,3&model=a") == about("?model=a&ids=0,3&view=map&strength=0.2&order=deletion&n=4")
    assert about("?ids=0,3&model=a") != about("?ids=0,4&model=a")


def test_rows_and_columns_are_ordered_by_the_mean_of_their_scores() -> None:
    areas = {(0, "a"): 0.5, (0, "b"): 0.1, (1, "a"): 0.2, (1, "b"): 0.1, (2, "a"): None, (2, "b"): None}
    maps = [
        {
            "image_id": image, "model": model, "deletion_auc": area, "agreement": None,
            "insertion_auc": None if area is None else 1 - area, "predicted_probability": 0.5,
        }
        for (image, model), area in areas.items()
    ]  # fmt: skip
    rows = [{"id": 2}, {"id": 0}, {"id": 1}]

    def shown(order: str, models: str) -> tuple[list[int], list[str]]:
        found, columns = in_order(rows, ["a", "b"], maps, order, models)
        return [row["id"] for row in found], columns

    assert shown("chosen", "chosen") == ([2, 0, 1], ["a", "b"])
    assert shown("deletion", "deletion") == ([1, 0, 2], ["b", "a"]), "without a score is last"
    assert shown("insertion", "insertion") == ([1, 0, 2], ["b", "a"])
    assert shown("confidence", "chosen")[0] == [2, 0, 1], "equal ones stay as chosen"
    assert shown("agreement", "chosen")[0] == [2, 0, 1]


@pytest.mark.parametrize(
    ("work", "begins"),
    [
        ({"trouble": "", "workers": 1, "broker": True, "queued": 2}, ""),
        ({"trouble": "", "workers": 0, "broker": True, "queued": 2}, "No worker: 2 waiting"),
        ({"trouble": "", "workers": 1, "broker": False, "queued": 1}, "Broker away: 1 waiting"),
        ({"trouble": "the ledger is locked"}, "Jobs cannot be read: the ledger is locked."),
        ({}, ""),
    ],
)
def test_what_keeps_jobs_waiting_is_named(work: dict[str, Any], begins: str) -> None:
    found = job_progress.obstacle(work)
    assert found.startswith(begins)
    assert bool(found) == bool(begins)
