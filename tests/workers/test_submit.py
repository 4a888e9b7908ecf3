"""Requests become jobs identified by their content, or are refused in sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.atlas.store import Atlas
from db.ledger import jobs
from db.ledger.engine import Ledger
from db.queries import jobs as job_queries
from db.queries.inventory import layers, runs
from db.settings import Settings
from workers.requests.attacks import attack_job
from workers.requests.images import label_classes, parse_ids
from workers.requests.models import ModelRef, choose_models
from workers.requests.parameters import InvalidRequest
from workers.requests.saliency import faithfulness_job, parse_target, saliency_job
from workers.requests.submit import JobSubmitter


@pytest.fixture
def atlas(settings: Settings) -> Atlas:
    import_pictures(settings, painted_pictures(6), image_set="painted")
    add_run(settings, image_set="painted")
    return Atlas(settings)


MODEL = ModelRef("net", "folder", "d" * 64)


def request(atlas: Atlas, **changes: object) -> jobs.NewJob:
    options: dict[str, object] = {
        "models": [MODEL],
        "image_set": "painted",
        "image_ids": [0, 1],
        "method": "smoothgrad",
        "parameters": {},
    }
    return saliency_job(atlas, **(options | changes))  # type: ignore[arg-type]


def test_the_same_content_is_the_same_job_and_other_content_another(atlas: Atlas) -> None:
    base = request(atlas)
    same = [
        request(atlas, parameters={"samples": 25}),
        request(atlas, parameters={"samples": "25", "noise_level": "0.15"}),
        request(atlas, image_ids=[0, 1, 0]),
        request(atlas, target="prediction"),
        request(atlas, queue="batch"),
    ]
    other = [
        request(atlas, parameters={"samples": 26}),
        request(atlas, parameters={"seed": 1}),
        request(atlas, image_ids=[0]),
        request(atlas, method="gradient"),
        request(atlas, target=3),
        request(atlas, models=[ModelRef("net", "folder", "e" * 64)]),
    ]
    assert {new.key for new in same} == {base.key}
    assert len({new.key for new in [base, *other]}) == len(other) + 1


def test_a_layer_missing_from_an_indexed_model_is_refused_on_submission(atlas: Atlas) -> None:
    indexed = choose_models(atlas, ["synthetic"])
    rows = atlas.fetch(layers("synthetic"))
    module = rows[-1]["module"]
    block = module.rpartition(".")[0]
    # its layers, their module paths, repeated calls of these, the enclosing modules, and one module that is
    # not a layer
    for there in (rows[0]["layer"], module, f"{module}-2", block, "classifier", ""):
        assert request(atlas, models=indexed, method="gradcam", parameters={"layer": there}).items
    upper = rows[0]["layer"].upper() + "x"
    for wrong in ("nonsense", f"{block}.beside", f"{module}-1", "stage9.block1.dwconv.x.y", upper):
        with pytest.raises(
            InvalidRequest, match=f"layer: synthetic has no layer or module '{wrong}'; its layers"
        ):
            request(atlas, models=indexed, method="gradcam", parameters={"layer": wrong})
    near = rows[3]["layer"] + "n"
    with pytest.raises(InvalidRequest, match=f"did you mean '{rows[3]['layer']}'"):
        request(atlas, models=indexed, method="gradcam", parameters={"layer": near.replace(".", "-")})
    other = [ModelRef("synthetic", "elsewhere", "f" * 64)]
    assert request(atlas, models=other, method="gradcam", parameters={"layer": "nonsense"}).items, (
        "what is indexed under its name is another network"
    )


def test_every_image_under_every_model_is_an_item_and_an_images_maps_lie_together(atlas: Atlas) -> None:
    second = ModelRef("other", "elsewhere", "f" * 64)
    new = request(atlas, models=[MODEL, second], image_ids=[4, 2])
    assert [(item.model, item.image_id) for item in new.items] == [
        ("net", 4),
        ("other", 4),
        ("net", 2),
        ("other", 2),
    ]
    assert new.models == "net, other"
    assert len({item.image_key for item in new.items}) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_set": "nowhere"}, "there is no image set 'nowhere'; image sets are painted"),
        ({"image_ids": [6]}, "ids: painted has images 0 to 5, not 6"),
        ({"image_ids": [True]}, "ids: painted has images 0 to 5, not True"),
        ({"image_ids": []}, "expected at least one image id"),
        ({"method": "lime"}, "method: expected one of smoothgrad"),
        ({"target": -1}, "target: expected prediction, label or a class index"),
        ({"target": 1.5}, "target: expected prediction, label or a class index"),
        ({"queue": "x"}, "queue: expected one of interactive, batch"),
        ({"models": "synthetic", "target": 5000}, "target: synthetic has classes 0 to .*, not 5,000"),
        (
            {"models": [MODEL] * 5000 + [ModelRef(str(n), "", "") for n in range(5001)], "image_ids": [0, 1]},
            "10,000",
        ),
    ],
)
def test_invalid_requests_are_refused(atlas: Atlas, changes: dict[str, object], sentence: str) -> None:
    if changes.get("models") == "synthetic":
        changes = changes | {"models": choose_models(atlas, ["synthetic"])}
    with pytest.raises(InvalidRequest, match=sentence):
        request(atlas, **changes)


def test_labels_and_classes_that_do_not_occur_are_refused(atlas: Atlas) -> None:
    models = choose_models(atlas, ["synthetic"])
    assert request(atlas, models=models, target="label").kind == "saliency"
    with atlas.publish() as connection:
        connection.execute("UPDATE images SET wnid = NULL, label = 'arc'")
        connection.execute(
            "INSERT INTO label_matches (run, label, images, how) SELECT run, 'arc', 6, 'none' FROM runs"
        )
    sentence = "such as 'arc', is a class of synthetic: choose prediction or .* models map-labels synthetic"
    with pytest.raises(InvalidRequest, match=f"target: no label of these images, {sentence}"):
        request(atlas, models=models, target="label")
    with pytest.raises(InvalidRequest, match=f"relative_to: no label of these images, {sentence}"):
        attack_job(
            atlas, models=models, image_set="painted", image_ids=[0], parameters={}, relative_to="label"
        )
    with atlas.publish() as connection:
        connection.execute("UPDATE images SET wnid = NULL, label = NULL")
        connection.execute("UPDATE image_sets SET labelled = 0")
    with pytest.raises(
        InvalidRequest, match="target: no image of this request has a label: choose prediction or"
    ):
        request(atlas, models=models, target="label")
    with pytest.raises(InvalidRequest, match="relative_to: no image of this request has a label"):
        attack_job(
            atlas, models=models, image_set="painted", image_ids=[0], parameters={}, relative_to="label"
        )
    with pytest.raises(InvalidRequest, match="target: synthetic has classes 0 to"):
        attack_job(atlas, models=models, image_set="painted", image_ids=[0], parameters={}, target=5000)


def test_images_with_other_labels_are_another_request_where_it_goes_by_label(atlas: Atlas) -> None:
    run = atlas.fetch(runs())[0]
    model = ModelRef(run["model"], run["source"], run["digest"])

    def asked() -> list[str]:
        by_label = request(atlas, models=[model], method="gradient", parameters={}, target="label").key
        attack = {"models": [model], "image_set": "painted", "image_ids": [0, 1], "parameters": {}}
        jobs_ = [attack_job(atlas, **attack, relative_to=aim) for aim in ("label", "prediction")]  # type: ignore[arg-type]
        return [by_label, *(job.key for job in jobs_)]

    with atlas.publish() as connection:
        connection.execute("DELETE FROM label_matches")
        connection.execute("UPDATE images SET wnid = NULL, label = 'tench' WHERE image_id < 2")
        connection.execute(
            "INSERT INTO label_matches (run, label, class_index) VALUES ($run, 'tench', 3), ($run, 'crane', 4)",
            {"run": run["run"]},
        )
    before = asked()
    assert label_classes(atlas, model.name, "painted", [0, 1]) == {0: 3, 1: 3}
    with atlas.publish() as connection:  # as another import does
        connection.execute("UPDATE images SET label = 'crane' WHERE image_id = 0")
        connection.execute("UPDATE images SET label = 'no class' WHERE image_id = 1")
    after = asked()
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]
    assert label_classes(atlas, model.name, "painted", [0, 1]) == {0: 4}, "not the label of before"


def test_only_indexed_models_can_be_chosen_by_name(atlas: Atlas) -> None:
    assert [model.name for model in choose_models(atlas, ["synthetic", "synthetic"])] == ["synthetic"]
    with pytest.raises(InvalidRequest, match="'net' is not indexed; indexed models are synthetic"):
        choose_models(atlas, ["net"])


def test_an_empty_home_has_nothing_to_ask_about(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="there is no image set yet"):
        request(Atlas(settings))
    with pytest.raises(InvalidRequest, match="no model is indexed yet"):
        choose_models(Atlas(settings), ["net"])


def test_a_request_without_a_broker_is_kept_and_reported(
    settings: Settings, atlas: Atlas, ledger: Ledger
) -> None:
    office = JobSubmitter(settings, ledger)
    first = office.submit(request(atlas))
    assert (first.queued, first.sent) == (True, False)
    assert "the broker is unreachable" in first.sentence()
    again = office.submit(request(atlas))
    assert (again.job, again.queued) == (first.job, False)
    assert job_queries.job(ledger, first.job)["sent"] is None
    assert office.cancel(first.job) == "cancelled"
    assert office.retry(first.job).queued
    assert job_queries.job(ledger, first.job)["state"] == "queued"


def test_curves_of_maps_that_are_not_there_are_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidRequest, match="there is no map 3"):
        faithfulness_job(ledger, [3])


@pytest.mark.parametrize(
    ("text", "ids"),
    [("0", [0]), ("0,1,4", [0, 1, 4]), ("4-6, 1", [4, 5, 6, 1]), ("1,1-2", [1, 2]), (" 7 - 8 ", [7, 8])],
)
def test_image_numbers_accept_ranges_and_spaces(text: str, ids: list[int]) -> None:
    assert parse_ids(text) == ids


@given(st.text(max_size=20))
def test_a_text_is_numbers_or_refused_in_a_sentence(text: str) -> None:
    try:
        ids = parse_ids(text)
    except InvalidRequest as error:
        assert str(error).startswith("ids: expected")  # noqa: PT017  # both outcomes are valid
    else:
        assert ids
        assert all(isinstance(number, int) and number >= 0 for number in ids)
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("given", ["cat", -1, 1.5, True, None, [], 10**9, "", "1.0"])
def test_an_invalid_target_is_refused(given: object) -> None:
    with pytest.raises(InvalidRequest, match="target: expected prediction, label"):
        parse_target(given)
    assert parse_target("17") == parse_target(17) == 17
