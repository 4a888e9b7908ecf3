"""A network with one input channel works everywhere: index, maps, attacks and judges; epsilon is in gray pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab import Lab
from PIL import Image
from sqlalchemy import select

from db.atlas.store import Query
from db.ledger.tables import Attack, AttackTransfer
from db.queries import jobs as job_queries
from precompute.index.run import run_index
from workers.attribution.attribute import attribute
from workers.layers.taps import as_nchw, find_taps, record_taps
from workers.models.vision import VisionModel, load_model
from workers.requests.followups import comparison_job, transfer_job
from workers.requests.models import ModelRef
from workers.torchvision_import import import_library

MEAN, STD = 0.13, 0.31


@pytest.fixture
def gray(tmp_path: Path) -> VisionModel:
    """A small timm folder whose weights are for gray images of 64 x 64."""
    torch.manual_seed(0)
    network = import_library("timm").create_model(
        "test_resnet",
        num_classes=10,
        in_chans=1,
        pretrained_cfg_overlay={"input_size": (1, 64, 64), "mean": (MEAN,), "std": (STD,), "crop_pct": 1.0},
    )
    import_library("timm.models._hub").save_for_hf(network, str(tmp_path / "xray"), safe_serialization=True)
    return load_model(str(tmp_path / "xray"))


def reference(model: VisionModel) -> ModelRef:
    return ModelRef(model.name, model.source, model.digest(model.weights_sha256()))


def as_trained(model: VisionModel, image: Image.Image) -> torch.Tensor:
    """Return pixels 1,1,H,W in [0, 1] by Pillow's own steps: luminance, resize, center crop."""
    preprocessing = model.preprocessing
    height, width = preprocessing.resized_size(image.width, image.height)
    small = image.convert("RGB").convert("L").resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 64) / 2), round((height - 64) / 2)
    pixels = np.asarray(small.crop((left, top, left + 64, top + 64)))
    return torch.from_numpy(pixels.copy())[None, None].float() / 255


def images(lab: Lab) -> list[Image.Image]:
    rows = lab.context.atlas.fetch(Query("SELECT path FROM images ORDER BY image_id"))
    found = (lab.context.images.original_path(row["path"]).read_bytes() for row in rows)
    return [Image.open(io.BytesIO(data)) for data in found]


def test_the_index_of_a_gray_model_is_that_of_gray_images(lab: Lab, gray: VisionModel) -> None:
    assert (gray.channels, gray.preprocessing.mean, gray.preprocessing_note) == (1, (MEAN,), None)
    run_index(lab.context.atlas, lab.context.images, model=gray, image_set="painted", k=1)
    pixels = torch.cat([as_trained(gray, image) for image in images(lab)])
    taps = find_taps(gray)
    best: dict[str, Any] = {}
    with (
        torch.inference_mode(),
        record_taps(
            gray,
            taps,
            lambda tap, out: best.update({tap.layer: as_nchw(tap, out).amax((2, 3)).amax(0).clone()}),
        ),
    ):
        logits = gray.network((pixels - MEAN) / STD)
    rows = lab.context.atlas.fetch(
        Query("SELECT layer, list(activation ORDER BY channel) AS values FROM activations GROUP BY layer")
    )
    assert {row["layer"] for row in rows} == {tap.layer for tap in taps}
    for row in rows:
        assert np.allclose(row["values"], best[row["layer"]], rtol=1e-4, atol=1e-5)
    predicted = lab.context.atlas.fetch(
        Query("SELECT class_index FROM predictions WHERE rank = 1 ORDER BY image_id")
    )
    assert [row["class_index"] for row in predicted] == logits.argmax(1).tolist()
    (kept,) = lab.context.atlas.fetch(Query("SELECT mean, std, fit FROM models"))
    assert (kept["mean"], kept["std"]) == (pytest.approx([MEAN]), pytest.approx([STD]))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradient", {}),
        ("integrated_gradients", {"steps": 4, "baseline": "blur"}),
        ("occlusion", {"window": 32, "stride": 32}),
        ("smoothgrad", {"samples": 3}),
    ],
)
def test_maps_of_a_gray_model(lab: Lab, gray: VisionModel, method: str, options: dict[str, Any]) -> None:
    pixels = as_trained(gray, images(lab)[0])
    made = attribute(gray, pixels, torch.tensor([1]), method, options)
    assert made.map.shape == (1, 64, 64)
    if method == "gradient":
        asked = pixels.clone().requires_grad_()
        gray.network((asked - MEAN) / STD)[0, 1].backward()
        assert asked.grad is not None
        assert torch.allclose(made.map[0], asked.grad[0, 0].abs(), rtol=1e-3, atol=1e-6)


def test_attacks_move_gray_levels_and_others_judge_them(lab: Lab, gray: VisionModel) -> None:
    model = reference(gray)
    saliency = lab.run(models=[model], image_ids=[0], parameters={"samples": 2})
    assert job_queries.job(lab.ledger, saliency)["state"] == "done"
    for method, parameters in (
        ("fgsm", {"mode": "fixed", "epsilon": 8 / 255, "levels": "8-bit"}),
        ("pgd", {"mode": "fixed", "epsilon": 8 / 255, "levels": "8-bit", "steps": 2}),
    ):
        job = lab.attack(models=[model], image_ids=[0], method=method, parameters=parameters)
        assert job_queries.job(lab.ledger, job)["state"] == "done"
    with lab.ledger.read() as connection:
        found = [dict(row) for row in connection.execute(select(Attack.__table__)).mappings()]
    assert len(found) == 2
    for row in found:
        before, after = (
            Image.open(io.BytesIO(lab.results.path(row[file]).read_bytes()))
            for file in ("input_file", "file")
        )
        assert (before.mode, after.mode) == ("L", "L")
        assert torch.equal(
            torch.from_numpy(np.array(before)).float() / 255, as_trained(gray, images(lab)[0])[0, 0]
        )
        moved = np.abs(np.asarray(after).astype(int) - np.asarray(before).astype(int))
        assert 0 < moved.max() <= 8
    numbers = [row["attack"] for row in found]
    changed = lab.do(comparison_job(lab.ledger, numbers, {"samples": 2}))
    assert job_queries.job(lab.ledger, changed)["state"] == "done"
    judged = lab.do(transfer_job(lab.ledger, numbers, [lab.reference]))
    assert job_queries.job(lab.ledger, judged)["state"] == "done"
    colored = lab.attack(image_ids=[0], parameters={"mode": "fixed", "epsilon": 8 / 255})
    with lab.ledger.read() as connection:
        number = connection.execute(select(Attack.attack).where(Attack.job == colored)).scalar_one()
    back = lab.do(transfer_job(lab.ledger, [number], [model]))
    assert job_queries.job(lab.ledger, back)["state"] == "done"
    with lab.ledger.read() as connection:
        judges = connection.execute(select(AttackTransfer.judge)).scalars().all()
    assert sorted(judges) == sorted(["efficientnet-lite0", "efficientnet-lite0", gray.name])
