"""Items of saliency jobs with a real network: what is stored, shared and refused."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lab import Lab
from sqlalchemy import select

from db.ledger import jobs
from db.ledger.tables import SaliencyMap
from db.queries import jobs as job_queries
from db.settings import Settings
from db.stores.results import ResultGone
from workers.attribution.attribute import attribute
from workers.jobs.loaded_models import LoadedModels
from workers.models.networks import WrongWeights
from workers.models.vision import VisionModel
from workers.requests.models import ModelRef
from workers.requests.parameters import InvalidRequest
from workers.requests.saliency import faithfulness_job, saliency_job


def test_a_map_equals_the_method_on_the_model_input(lab: Lab, lite0: VisionModel) -> None:
    job = lab.run()
    maps = job_queries.job_maps(lab.ledger, job, steps=50)
    assert [found["image_id"] for found in maps] == [0, 1]
    for found in maps:
        picture = np.asarray(
            __import__("PIL.Image", fromlist=["open"]).open(lab.results.path(found["input_file"]))
        )
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            probabilities = lite0(pixels).softmax(1)[0]
        assert found["predicted_class"] == int(probabilities.argmax()) == found["target_class"]
        assert found["predicted_probability"] == pytest.approx(float(probabilities.max()), rel=1e-4)
        expected = attribute(
            lite0, pixels, torch.tensor([found["target_class"]]), "smoothgrad", {"samples": 4}
        )
        heat = lab.results.read_array(found["file"])
        assert np.allclose(heat, expected.map[0], rtol=1e-3, atol=1e-6)
        assert (found["lowest"], found["highest"]) == (float(heat.min()), float(heat.max()))
        assert found["samples"] == 4
        assert expected.standard_error is not None
        errors = lab.results.read_array(found["standard_error_file"])
        assert np.allclose(errors, expected.standard_error[0], rtol=1e-3, atol=1e-6)


def test_two_jobs_that_need_the_same_map_share_it(lab: Lab) -> None:
    first = lab.run(image_ids=[0])
    second = lab.run(image_ids=[0, 1])
    results = [[item["result"] for item in job_queries.job_items(lab.ledger, job)] for job in (first, second)]
    assert results[0][0] == results[1][0]
    target = job_queries.job_maps(lab.ledger, first, steps=50)[0]["target_class"]
    by_index = lab.run(image_ids=[0], target=target)
    assert job_queries.job_items(lab.ledger, by_index)[0]["result"] == results[0][0]


def test_a_map_whose_file_was_removed_is_computed_again_under_its_number(lab: Lab) -> None:
    job = lab.run(image_ids=[0])
    before = job_queries.job_maps(lab.ledger, job, steps=50)[0]
    heat = lab.results.read_array(before["file"])
    lab.results.path(before["file"]).unlink()
    with pytest.raises(ResultGone, match="is gone: compute it again"):
        lab.results.read_array(before["file"])
    assert lab.run(image_ids=[0]) == job
    after = job_queries.job_maps(lab.ledger, job, steps=50)[0]
    assert after["map"] == before["map"]
    assert np.allclose(lab.results.read_array(after["file"]), heat, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "label"}, "its label '<b>tench</b> & co' matches no class of efficientnet-lite0"),
        ({"target": 1000}, "target: efficientnet-lite0 has classes 0 to 999, not 1000"),
        ({"method": "gradcam", "parameters": {"layer": "x"}}, "layer: expected one of"),
        ({"method": "occlusion", "parameters": {"window": 300}}, "window: expected at most 224"),
    ],
)
def test_an_item_without_a_map_states_the_reason(lab: Lab, changes: dict[str, Any], sentence: str) -> None:
    found = job_queries.job(lab.ledger, lab.run(**({"image_ids": [0], "parameters": {}} | changes)))
    assert found["state"] == "failed"
    assert sentence in found["error"]
    assert found["traceback"] is None


def test_an_image_whose_file_is_gone_fails_alone(lab: Lab) -> None:
    rows = lab.context.atlas.fetch(
        __import__("db.atlas.image_sets", fromlist=["x"]).images_by_id("painted", [1])
    )
    lab.context.images.original_path(rows[0]["path"]).unlink()
    job = lab.run()
    found = job_queries.job(lab.ledger, job)
    assert (found["items_done"], found["items_failed"]) == (1, 1)
    assert "image 1 with efficientnet-lite0: the file is missing" in found["error"]


def test_an_image_that_is_another_by_now_is_refused(lab: Lab) -> None:
    new = saliency_job(
        lab.context.atlas,
        models=[lab.reference],
        image_set="painted",
        image_ids=[0],
        method="gradient",
        parameters={},
    )
    other = dataclasses.replace(new, items=(dataclasses.replace(new.items[0], image_key="0" * 64),))
    with pytest.raises(InvalidRequest, match="'painted' now has another image 0: submit the request again"):
        lab.submitter.submit(other)
    job, _ = jobs.submit_job(
        lab.ledger, other
    )  # the set changed between the request and the creation of the job
    lab.runner.run(job)
    assert (
        "painted has another image 0 than when the job was submitted"
        in job_queries.job(lab.ledger, job)["error"]
    )


def test_other_weights_under_the_same_name_are_refused(lab: Lab, reference: ModelRef) -> None:
    job = lab.run(models=[dataclasses.replace(reference, digest="0" * 64)])
    assert "has other weights, preprocessing or classes" in job_queries.job(lab.ledger, job)["error"]
    with pytest.raises(WrongWeights):
        lab.models.get(name="x", source="efficientnet-lite0", digest="1" * 64)


def test_curves_are_stored_with_their_map(lab: Lab) -> None:
    job = lab.run(image_ids=[0])
    number = job_queries.job_maps(lab.ledger, job, steps=50)[0]["map"]
    scoring = lab.do(faithfulness_job(lab.ledger, [number], steps=6))
    assert job_queries.job(lab.ledger, scoring)["state"] == "done"
    found = job_queries.saliency_map(lab.ledger, number, steps=6)
    assert found is not None
    assert found["steps"] == 6
    assert len(found["deletion"]) == len(found["insertion"]) == 7
    assert found["deletion"][0] == pytest.approx(found["target_probability"], rel=1e-3)
    assert found["deletion_auc"] == pytest.approx(np.trapezoid(found["deletion"], dx=1 / 6))
    other = lab.do(faithfulness_job(lab.ledger, [number], steps=3))
    assert other != scoring
    assert lab.do(faithfulness_job(lab.ledger, [number], steps=6)) == scoring, (
        "already exists for this request"
    )
    assert job_queries.saliency_map(lab.ledger, number, steps=6) == found, "and it is what it was"
    (listed,) = job_queries.job_maps(lab.ledger, scoring, steps=3)
    assert (listed["steps"], len(job_queries.scored_steps(lab.ledger, number))) == (3, 2)
    unscored = job_queries.saliency_map(lab.ledger, number, steps=50)
    assert unscored is not None
    assert (unscored["steps"], unscored["deletion_auc"]) == (None, None)


def test_a_worker_keeps_the_models_it_used_last(
    settings: Settings, reference: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    real: Callable[..., VisionModel] = __import__("workers.jobs.loaded_models", fromlist=["x"]).load_model

    def counted(_source: str, **options: Any) -> VisionModel:
        loads.append(options["name"])
        return real("efficientnet-lite0", **options)

    monkeypatch.setattr("workers.jobs.loaded_models.load_model", counted)
    models = LoadedModels(dataclasses.replace(settings, loaded_models=2), torch.device("cpu"))
    for name in ("a", "b", "a", "c", "a", "b"):
        models.get(name=name, source=name, digest=reference.digest)
    assert loads == ["a", "b", "c", "b"]


def test_no_result_is_half_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full during that very write."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    job = lab.run(image_ids=[0])
    found = job_queries.job(lab.ledger, job)
    assert (found["state"], found["attempts"]) == ("queued", 0)
    assert "no space left on the disk of" in found["note"]
    assert [path for path in lab.settings.home.glob("results/**/*") if path.is_file()] == []
    with lab.ledger.read() as connection:
        assert connection.execute(select(SaliencyMap.map)).all() == []
    assert jobs.cancel(lab.ledger, job) == "cancelled"
