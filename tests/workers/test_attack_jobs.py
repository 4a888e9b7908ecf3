"""Items of attack jobs with a real network: what is stored, shared and refused, and what follows an attack."""

import dataclasses
import gc
import io
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lab import Lab
from PIL import Image
from sqlalchemy import select, update
from torch import nn

from db.ledger.tables import Attack, AttackAblation, AttackLayer, AttackMap, AttackTransfer, AttackUnit, Job
from db.queries import attacks as attack_queries
from db.queries import jobs as job_queries
from workers.attacks.comparison import Panel, compare
from workers.attacks.shifts import shifts
from workers.attacks.steps import loss_gradient, perturbed
from workers.layers.taps import find_taps
from workers.models.vision import VisionModel
from workers.requests.attacks import attack_job, stored_attacks
from workers.requests.followups import ablation_job, comparison_job, transfer_job
from workers.requests.models import ModelRef


def rows(lab: Lab, table: Any, **wanted: Any) -> list[dict[str, Any]]:
    asked = select(table.__table__).filter_by(**wanted)
    with lab.ledger.read() as connection:
        return [dict(row) for row in connection.execute(asked).mappings()]


def picture(lab: Lab, file: str) -> torch.Tensor:
    image = Image.open(io.BytesIO(lab.results.path(file).read_bytes()))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def test_an_attack_is_the_smallest_on_its_grid_and_the_png_was_classified(
    lab: Lab, lite0: VisionModel
) -> None:
    job = lab.attack()
    assert job_queries.job(lab.ledger, job)["state"] == "done"
    found = rows(lab, Attack)
    assert [row["image_id"] for row in found] == [0, 1]
    for row in found:
        assert (row["outcome"], row["relative_to"], row["method"]) == ("flipped", "prediction", "fgsm")
        pixels = picture(lab, row["input_file"])[None]
        with torch.inference_mode():
            assert int(lite0(pixels).argmax()) == row["class_before"] == row["class_index"]
        direction = loss_gradient(lite0, pixels, torch.tensor([row["class_index"]])).sign()
        points = [i * 0.002 for i in range(1, 26)]
        moved = torch.cat([perturbed(pixels, direction, epsilon) for epsilon in points])
        with torch.inference_mode():
            predicted = lite0(moved).argmax(1).tolist()
        first = next(i for i, index in enumerate(predicted) if index != row["class_index"])
        assert row["epsilon"] == row["attacked_epsilon"] == pytest.approx(points[first])
        assert row["class_after"] == predicted[first]
        steps = lab.results.read_array(row["steps_file"])
        assert steps[:, 0].tolist() == list(range(first + 2))
        assert steps[1:, 2].tolist() == predicted[: first + 1]
        assert len(steps) == row["checked"]
        png = picture(lab, row["file"])
        assert torch.allclose(png, moved[first], atol=0.5 / 255 + 1e-6)
        with torch.inference_mode():
            verdict = lite0(png[None]).softmax(1)[0]
        assert row["png_class"] == int(verdict.argmax())
        assert row["png_probability"] == pytest.approx(float(verdict.max()), rel=1e-3)
        assert row["png_succeeds"] == (row["png_class"] != row["class_index"])
        before, after = lab.attacks.images(row)
        assert torch.equal(before, pixels[0])
        assert torch.allclose(after, moved[first], atol=1e-7)


def test_attacks_of_another_job_are_reused(lab: Lab) -> None:
    lab.attack(image_ids=[1])
    (row,) = rows(lab, Attack)

    def stored(ids: list[int], **changed: Any) -> list[int]:
        new = attack_job(
            lab.context.atlas,
            models=[lab.reference],
            image_set="painted",
            image_ids=ids,
            parameters={"step": 0.002, "cap": 0.05} | changed,
        )
        return [found["attack"] for found in stored_attacks(lab.context.atlas, lab.ledger, new, most=3)]

    assert stored([0, 1]) == [row["attack"]]
    assert stored([0]) == []
    assert stored([1], cap=0.1) == []
    assert stored([0, 2, 3, 1]) == [], "only so many are looked for"


def test_on_8_bits_the_png_is_the_attack(lab: Lab) -> None:
    lab.attack(parameters={"levels": "8-bit", "cap": 0.1})
    for row in rows(lab, Attack):
        assert row["eight_bit"]
        assert row["png_succeeds"]
        assert (row["png_class"], row["png_name"]) == (row["class_after"], row["name_after"])
        assert row["png_probability"] == pytest.approx(row["probability_after"], rel=1e-3)
        assert row["epsilon"] * 255 == pytest.approx(round(row["epsilon"] * 255))
        assert torch.equal(picture(lab, row["file"]), lab.attacks.images(row)[1])


def test_a_resisting_image_is_stored_at_the_cap(lab: Lab) -> None:
    lab.attack(image_ids=[1], parameters={"step": 1e-7, "cap": 3e-7})
    (row,) = rows(lab, Attack)
    assert (row["outcome"], row["epsilon"], row["attacked_epsilon"]) == (
        "resisted",
        None,
        pytest.approx(3e-7),
    )
    assert row["class_after"] == row["class_before"]
    assert row["png_succeeds"] is False
    assert row["checked"] == 4


def test_an_image_that_is_wrong_already_needs_no_epsilon(lab: Lab) -> None:
    job = lab.attack(relative_to="label")
    found = job_queries.job(lab.ledger, job)
    assert found["state"] == "failed"
    assert "matches no class of" in found["error"]
    reached = rows(lab, Attack)
    assert reached == []
    lab.attack(image_ids=[0])
    (row,) = rows(lab, Attack)
    lab.attack(image_ids=[0], target=row["class_before"])
    (targeted,) = rows(lab, Attack, relative_to="target")
    assert (targeted["outcome"], targeted["epsilon"]) == ("flipped", 0.0)
    assert targeted["png_succeeds"]
    assert rows(lab, AttackUnit, attack=targeted["attack"]) == [], "nothing moved"


def test_a_target_is_reached(lab: Lab) -> None:
    lab.attack(image_ids=[0])
    (row,) = rows(lab, Attack)
    lab.attack(image_ids=[0], target=row["class_after"], parameters={"cap": 0.2, "step": 0.002})
    (targeted,) = rows(lab, Attack, relative_to="target")
    assert targeted["class_index"] == row["class_after"]
    assert targeted["outcome"] == "flipped"
    assert targeted["class_after"] == row["class_after"]


def test_pgd_finds_no_larger_epsilon_and_its_change_is_kept(lab: Lab, lite0: VisionModel) -> None:
    lab.attack(image_ids=[0], parameters={"levels": "8-bit"})
    lab.attack(image_ids=[0], method="pgd", parameters={"levels": "8-bit", "steps": 6, "step_size": 0.4})
    fgsm, pgd = rows(lab, Attack)
    assert (pgd["method"], pgd["outcome"]) == ("pgd", "flipped")
    assert pgd["epsilon"] <= fgsm["epsilon"]
    _, after = lab.attacks.images(pgd)
    assert torch.allclose(after, picture(lab, pgd["file"]), atol=1e-6)
    with torch.inference_mode():
        assert int(lite0(after[None]).argmax()) == pgd["class_after"] != pgd["class_before"]


def test_a_fixed_epsilon_is_looked_at_alone(lab: Lab) -> None:
    lab.attack(image_ids=[0], parameters={"mode": "fixed", "epsilon": 0.03})
    (row,) = rows(lab, Attack)
    assert (row["checked"], row["step"], row["cap"], row["attacked_epsilon"]) == (2, 0.03, 0.03, 0.03)


def test_a_full_scan_has_the_whole_curve_and_its_successes(lab: Lab) -> None:
    lab.attack(image_ids=[0], parameters={"scan": "full", "cap": 0.1, "step": 0.01})
    (row,) = rows(lab, Attack)
    steps = lab.results.read_array(row["steps_file"])
    assert len(steps) == row["checked"] == 11
    inside = [
        any(low <= i * 0.01 + 1e-9 and i * 0.01 <= high + 1e-9 for low, high in row["successes"])
        for i in range(11)
    ]
    assert inside == (steps[:, 2] != row["class_index"]).tolist()


def test_the_same_attack_is_found_again_and_not_computed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lab.attack()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patched:
        patched.setattr("workers.jobs.attack.smallest_epsilons", never)
        assert lab.attack() == first
        second = lab.attack(image_ids=[1])
    assert second != first
    results = [[item["result"] for item in job_queries.job_items(lab.ledger, job)] for job in (first, second)]
    assert results[1] == results[0][1:]
    lab.attack(image_ids=[0, 1, 2])
    assert [row["image_id"] for row in rows(lab, Attack)] == [0, 1, 2], "a batch can be extended"


def test_an_attack_whose_file_was_removed_is_computed_again_under_its_number(lab: Lab) -> None:
    job = lab.attack(image_ids=[0])
    (row,) = rows(lab, Attack)
    kept = lab.results.path(row["file"]).read_bytes()
    lab.results.path(row["file"]).unlink()
    assert lab.attack(image_ids=[0]) == job
    assert lab.results.path(row["file"]).read_bytes() == kept
    assert [again["attack"] for again in rows(lab, Attack)] == [row["attack"]]


def test_shifts_by_layer_are_stored_with_the_attack(lab: Lab, lite0: VisionModel) -> None:
    lab.attack(image_ids=[0])
    (row,) = rows(lab, Attack)
    taps = find_taps(lite0)
    expected = {shift.tap.layer: shift for shift in shifts(lite0, taps, *lab.attacks.images(row))}
    layers = rows(lab, AttackLayer)
    assert [layer["layer"] for layer in layers] == [tap.layer for tap in taps]
    for layer in layers:
        shift = expected[layer["layer"]]
        assert layer["mean_shift"] == pytest.approx(float(shift.shift.abs().mean()), rel=1e-2)
        assert layer["relative_change"] == pytest.approx(shift.relative_change, rel=1e-2)
        assert layer["mean_deviations"] is None, "this set was not indexed"
    units = rows(lab, AttackUnit)
    assert len(units) == 5 * len(taps)
    for unit in units:
        shift = expected[unit["layer"]]
        assert unit["shift"] == pytest.approx(float(shift.shift[unit["channel"]]), rel=1e-2, abs=1e-3)
        assert unit["activation_after"] == pytest.approx(unit["activation_before"] + unit["shift"], abs=1e-5)
    first = [unit for unit in units if unit["layer"] == taps[0].layer]
    sizes = [abs(unit["shift"]) for unit in first]
    assert sizes == sorted(sizes, reverse=True)
    assert [unit["rank"] for unit in first] == [1, 2, 3, 4, 5]


def test_ranks_of_an_earlier_rule_are_recomputed_on_request(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.attack(image_ids=[0])
    before = {table: rows(lab, table) for table in (Attack, AttackUnit, AttackLayer)}
    with lab.ledger.write() as connection:
        connection.execute(update(AttackLayer).values(dead=None, mean_shift=-1.0))
        connection.execute(update(AttackUnit).where(AttackUnit.rank == 1).values(channel=0))
        connection.execute(update(Job).values(key="of an earlier version"))
    monkeypatch.setattr("workers.jobs.attack.smallest_epsilons", None)  # the attack itself is not recomputed
    lab.attack(image_ids=[0])
    assert {table: rows(lab, table) for table in before} == before


def apart(one: np.ndarray, other: torch.Tensor) -> float:
    """Return the distance of two maps relative to the norm of the second; rounding alone causes about 0.001."""
    return float(np.linalg.norm(one - other.numpy()) / np.linalg.norm(other.numpy()))


def test_maps_after_are_of_the_attacked_image(lab: Lab, lite0: VisionModel) -> None:
    lab.attack(image_ids=[0])
    (row,) = rows(lab, Attack)
    job = lab.do(comparison_job(lab.ledger, [row["attack"]], {"samples": 4}))
    assert job_queries.job(lab.ledger, job)["state"] == "done"
    found = {one["panel"]: one for one in rows(lab, AttackMap)}
    assert list(found) == ["clean", "attacked", "attacked_own", "other_seed", "random_signs"]
    before, after = lab.attacks.images(row)
    targets = (row["class_before"], row["class_before"], row["class_after"])
    images = (before, after, after)
    expected = compare(
        lite0,
        [Panel(image, target, 0) for image, target in zip(images, targets, strict=True)],
        samples=4,
        noise_level=0.15,
    )
    for name, made in zip(("clean", "attacked", "attacked_own"), expected, strict=True):
        assert apart(lab.results.read_array(found[name]["file"]), made.map) < 0.01, name
    wrong = compare(lite0, [Panel(before, row["class_before"], 0)] * 2, samples=4, noise_level=0.15)
    heat = lab.results.read_array(found["attacked"]["file"])
    assert apart(heat, wrong[1].map) > 0.1, "it is not that of the clean image"
    for name in ("attacked", "attacked_own", "other_seed", "random_signs"):
        clean, here = (lab.results.read_array(found[one]["file"]) for one in ("clean", name))
        difference = lab.results.read_array(found[name]["difference_file"])
        assert np.allclose(difference, here - clean, atol=1e-6)
        assert found[name]["mean_difference"] == pytest.approx(np.abs(difference).mean(), rel=1e-4)
        errors = lab.results.read_array(found[name]["standard_error_file"])
        assert found[name]["mean_standard_error"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found["other_seed"]["seed"] == 1
    assert found["attacked_own"]["target_name"] == row["name_after"]


def test_asking_twice_for_the_maps_keeps_one_of_each(lab: Lab) -> None:
    lab.attack(image_ids=[0])
    new = comparison_job(lab.ledger, [1], {"samples": 2})
    first = lab.do(new)
    assert lab.do(new) == first
    lab.do(comparison_job(lab.ledger, [1], {"samples": 3}))
    assert len(rows(lab, AttackMap)) == 10
    newest, before = attack_queries.attack_maps(lab.ledger, 1)
    assert ({row["samples"] for row in newest}, {row["samples"] for row in before}) == ({3}, {2})


def test_another_model_judges_its_own_input(lab: Lab, lite0: VisionModel) -> None:
    lab.attack(image_ids=[0], parameters={"mode": "fixed", "epsilon": 0.1})
    (row,) = rows(lab, Attack)
    judge = ModelRef("twin", lab.reference.source, lab.reference.digest)
    with pytest.raises(ValueError, match="expected a model other than the attacked one"):
        transfer_job(lab.ledger, [row["attack"]], [judge])
    # the same weights under another digest are refused on loading
    other = dataclasses.replace(judge, digest="0" * 64)
    job = lab.do(transfer_job(lab.ledger, [row["attack"]], [other]))
    assert "has other weights" in job_queries.job(lab.ledger, job)["error"]
    lab.models._kept[(judge.source, other.digest)] = lite0
    lab.runner.run(lab.submitter.retry(job).job)
    (said,) = rows(lab, AttackTransfer)
    assert (said["class_before"], said["class_after"]) == (row["class_before"], row["class_after"])
    assert said["probability_after"] == pytest.approx(row["probability_after"], rel=1e-2)
    assert said["moved"] == (row["class_before"] != row["class_after"])
    assert said["right_before"] is None, "its label is none of the judge's classes"


def test_clamping_the_most_shifted_channels_repeats_the_search(lab: Lab) -> None:
    lab.attack(image_ids=[0])
    job = lab.do(ablation_job(lab.ledger, lab.context.atlas, [1], channels=6, draws=2))
    assert job_queries.job(lab.ledger, job)["state"] == "done"
    (found,) = rows(lab, AttackAblation)
    assert len(found["units"]) == 6
    moved = {(unit["layer"], unit["channel"]) for unit in rows(lab, AttackUnit)}
    assert {tuple(unit) for unit in found["units"]} <= moved
    assert len(found["random"]) == 2
    assert (found["verdict"], found["counted"]) == ("cannot_say", 2)
    assert "at least 19 are needed" in found["reason"]
    for draw in [found, *found["random"]]:
        assert draw["outcome"] in ("flipped", "resisted")
        assert (draw["epsilon"] is None) == (draw["outcome"] == "resisted")
        assert 0 <= draw["probability"] <= 1
    other = lab.do(ablation_job(lab.ledger, lab.context.atlas, [1], channels=6, draws=1, seed=4))
    assert other != job
    kept = next(row for row in rows(lab, AttackAblation) if row["draws"] == 2)
    assert kept == found, "another request leaves it as it is"
    lab.do(ablation_job(lab.ledger, lab.context.atlas, [1], channels=3, draws=1, layer="blocks.2.0"))
    asked = [
        (row["draws"], row["seed"], row["layer"]) for row in attack_queries.attack_ablations(lab.ledger, 1)
    ]
    assert asked == [(1, 0, "blocks.2.0"), (1, 4, ""), (2, 0, "")], "the newest first"
    of_block = next(row for row in rows(lab, AttackAblation) if row["layer"])
    assert {layer for layer, _ in of_block["units"]} == {"blocks.2.0"}
    assert len(of_block["units"]) == 3
    job = lab.do(ablation_job(lab.ledger, lab.context.atlas, [1], layer="blocks.2.9"))
    assert "layer: expected one of" in job_queries.job(lab.ledger, job)["error"]


def test_invalid_follow_ups_are_refused(lab: Lab) -> None:
    lab.attack(image_ids=[0])
    lab.attack(image_ids=[0], target=rows(lab, Attack)[0]["class_before"])
    with pytest.raises(ValueError, match="there is no attack 9"):
        comparison_job(lab.ledger, [9], {})
    with pytest.raises(ValueError, match="attack 2 did not change the image"):
        ablation_job(lab.ledger, lab.context.atlas, [2])
    with pytest.raises(ValueError, match="from 1 to 10,000 attacks, got 0"):
        comparison_job(lab.ledger, [], {})
    with pytest.raises(ValueError, match="samples: expected 2 or more"):
        comparison_job(lab.ledger, [1], {"samples": 1})
    with pytest.raises(ValueError, match="maps have no parameter 'variant'"):
        comparison_job(lab.ledger, [1], {"variant": "squared"})
    with pytest.raises(ValueError, match="channels: expected a whole number from 1 to 100, got 0"):
        ablation_job(lab.ledger, lab.context.atlas, [1], channels=0)
    with pytest.raises(ValueError, match=r"layer: expected a layer such as .*, got 'a..b'"):
        ablation_job(lab.ledger, lab.context.atlas, [1], layer="a..b")


def test_the_job_shows_the_current_epsilon(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, int, str | None]] = []

    def note(_watch: Any, done: int, total: int, note: str | None = None) -> None:
        said.append((done, total, note))

    monkeypatch.setattr("workers.queue.runner.LeaseKeeper.progress", note)
    lab.attack(image_ids=[0], parameters={"step": 1e-4, "cap": 0.02})
    spoken = [words for _, _, words in said if words]
    assert spoken[0] == "gradient"
    assert spoken[1].startswith("epsilon 0.0002: ")
    assert spoken[-1] == "shifts by layer"
    assert all(0 <= done <= total for done, total, _ in said)


@pytest.mark.parametrize("norms", [0, 1])
def test_the_quicker_copy_does_not_keep_a_model_that_was_dropped(
    lab: Lab, as_model: Callable[..., VisionModel], norms: int
) -> None:
    after = [nn.BatchNorm2d(4)] * norms
    network = nn.Sequential(nn.Conv2d(3, 4, 3), *after, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = as_model(network.eval(), size=32, classes=4)
    assert (lab.attacks.folded(model, torch.rand(1, 3, 32, 32)) is not None) == bool(norms)
    dropped = weakref.ref(model)
    del model
    gc.collect()
    assert dropped() is None
