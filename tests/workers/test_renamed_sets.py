"""Results follow their image set to its new name, and do not belong to another set that takes the old name."""

from typing import Any

import pytest
from lab import Lab
from sqlalchemy import select
from synthetic_atlas import import_pictures, painted_pictures

from db.ledger.tables import Attack, SaliencyMap
from db.queries import jobs as job_queries
from db.queries.set_changes import remove_image_set, rename_set
from db.stores.images import ImageStore

FIXED = {"mode": "fixed", "epsilon": 0.1}


def rows(lab: Lab, table: Any) -> list[dict[str, Any]]:
    with lab.ledger.read() as connection:
        found = connection.execute(select(table.__table__).order_by(*table.__table__.primary_key.columns))
        return [dict(row) for row in found.mappings()]


def results(lab: Lab, job: int) -> list[int]:
    return [item["result"] for item in job_queries.job_items(lab.ledger, job)]


def test_results_are_found_under_the_new_name_and_the_old_name_is_another_sets(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas, store = lab.context.atlas, ImageStore(lab.settings)
    maps = lab.run(method="gradient", parameters={})
    attacks = lab.attack(parameters=FIXED)
    before = rows(lab, SaliencyMap), rows(lab, Attack)
    rename_set(atlas, store, lab.ledger, "painted", "renamed")
    import_pictures(
        lab.settings, painted_pictures(4), image_set="painted"
    )  # the same images under the old name

    with monkeypatch.context() as patch:  # the same under the new name: no computation, no new job
        patch.setattr("workers.jobs.saliency.attribute", None)
        patch.setattr("workers.jobs.attack.smallest_epsilons", None)
        assert lab.run(image_set="renamed", method="gradient", parameters={}) == maps
        assert lab.attack(image_set="renamed", parameters=FIXED) == attacks
        # one image alone is another request with the same results
        assert results(
            lab, lab.run(image_set="renamed", image_ids=[1], method="gradient", parameters={})
        ) == [2]
        assert results(lab, lab.attack(image_set="renamed", image_ids=[1], parameters=FIXED)) == [2]
    after = rows(lab, SaliencyMap), rows(lab, Attack)
    assert [row["image_set"] for row in (*after[0], *after[1])] == ["renamed"] * 4
    named = ("image_set", "key")
    for now, then in zip((*after[0], *after[1]), (*before[0], *before[1]), strict=True):
        assert {k: v for k, v in now.items() if k not in named} == {
            k: v for k, v in then.items() if k not in named
        }

    # the set that now has the old name has no results yet, and its requests are its own
    other = lab.run(method="gradient", parameters={})
    assert other != maps
    assert results(lab, other) == [3, 4]
    assert results(lab, lab.attack(parameters=FIXED)) == [3, 4]
    assert [row["image_set"] for row in rows(lab, SaliencyMap)] == [
        "renamed",
        "renamed",
        "painted",
        "painted",
    ]
    assert [row["image_set"] for row in rows(lab, Attack)] == ["renamed", "renamed", "painted", "painted"]
    files = [row["file"] for row in rows(lab, SaliencyMap)]
    assert files[:2] == files[2:], "equal images share their files"

    remove_image_set(atlas, store, lab.ledger, "renamed")
    assert [row["map"] for row in rows(lab, SaliencyMap)] == [3, 4]
    assert [row["attack"] for row in rows(lab, Attack)] == [3, 4]
    for row in (*rows(lab, SaliencyMap), *rows(lab, Attack)):
        assert lab.results.path(row["file"]).exists(), "the other set needs it"
    remove_image_set(atlas, store, lab.ledger, "painted")
    assert [path for path in (lab.settings.home / "results").rglob("*") if path.is_file()] == []
