"""Networks whose output is not a softmax over classes, and logits that are not finite."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from workers.attacks.search import smallest_epsilons
from workers.attribution.attribute import attribute
from workers.attribution.faithfulness import faithfulness
from workers.attribution.registry import METHODS
from workers.models.networks import WrongWeights
from workers.models.probabilities import NotFinite, class_probabilities
from workers.models.vision import VisionModel, load_model
from workers.requests.epsilons import Grid
from workers.torchvision_import import import_library

Save = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path) -> Save:
    """`saved(["cat"], problem_type=...)`: a tiny ResNet as transformers saves it."""

    def save(names: list[str], **config: Any) -> Path:
        library = import_library("transformers")
        torch.manual_seed(0)
        made = library.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
            id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)}, **config,
        )  # fmt: skip
        library.ResNetForImageClassification(made).save_pretrained(tmp_path / "net")
        library.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "net")
        return tmp_path / "net"

    return save


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def raw(model: VisionModel, pixels: Tensor) -> Tensor:
    """Return the network's own logit."""
    with torch.no_grad():
        return model.network((pixels - model.mean) / model.std).logits[:, 0]  # type: ignore[no-any-return]


def test_one_logit_is_two_classes_with_the_sigmoid(saved: Save, pixels: Tensor) -> None:
    model = load_model(str(saved(["pneumonia"])))
    assert [entry.name for entry in model.vocabulary.classes] == ["not pneumonia", "pneumonia"]
    assert model.head_note is not None
    assert "sigmoid(z)" in model.head_note
    found = class_probabilities(model(pixels))
    expected = 1 / (1 + torch.exp(-raw(model, pixels).double()))
    assert torch.allclose(found[:, 1], expected)
    assert torch.allclose(found.sum(1), torch.ones(3, dtype=torch.float64))


def test_one_logit_explains_for_and_against_with_opposite_signs(saved: Save, pixels: Tensor) -> None:
    model = load_model(str(saved(["pneumonia"])))
    against, towards = (
        attribute(model, pixels, torch.full((3,), target), "gradient", {"colours": "sum"}).map
        for target in (0, 1)
    )
    assert torch.allclose(against, -towards)
    batch = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.network((batch - model.mean) / model.std).logits.sum(), batch)
    assert torch.allclose(towards, gradient.sum(1) / 2, atol=1e-6)


def test_an_attack_on_one_logit_succeeds_where_its_sign_turns(saved: Save, pixels: Tensor) -> None:
    model = load_model(str(saved(["pneumonia"])))
    logits = raw(model, pixels)
    with torch.no_grad():  # near the decision boundary, so that a small step crosses it
        model.network.classifier[1].bias -= logits.mean()  # type: ignore[index,union-attr,operator]
    signs = raw(model, pixels) > 0
    found = smallest_epsilons(model, pixels, signs.long(), grid=Grid(0.01, 0.5))
    assert any(search.outcome == "flipped" for search in found)
    for search, image, sign in zip(found, pixels, signs, strict=True):
        if search.epsilon is not None:
            assert search.attacked is not None
            assert bool(raw(model, search.attacked[None])[0] > 0) is not bool(sign)
            assert float((search.attacked - image).abs().max()) <= search.epsilon + 1e-6


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        ("multi_label_classification", "a multi-label classifier, with a sigmoid per logit"),
        ("regression", "a regression model, whose outputs are not classes"),
    ],
)
def test_heads_whose_classes_do_not_exclude_each_other_are_refused(
    saved: Save, problem: str, sentence: str
) -> None:
    with pytest.raises(WrongWeights, match=f"{sentence} .problem_type '{problem}'"):
        load_model(str(saved(["cat", "dog", "tree"], problem_type=problem)))


@pytest.mark.parametrize("inside", [True, False])
def test_a_timm_folder_that_states_several_labels_an_image_is_refused(tmp_path: Path, inside: bool) -> None:
    timm = import_library("timm")
    network = timm.create_model("resnet10t", num_classes=3)
    settings = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": dict(network.pretrained_cfg)}
    (settings["pretrained_cfg"] if inside else settings)["problem_type"] = "multi_label_classification"
    (tmp_path / "config.json").write_text(json.dumps(settings, default=str))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WrongWeights, match="a multi-label classifier, with a sigmoid per logit"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("larger", [True, False])
def test_a_transformer_of_another_size_than_its_processors_gets_the_size_it_takes(
    tmp_path: Path, larger: bool
) -> None:
    """Like a ViT fine-tuned at 384 pixels that kept the image processor for 224."""
    library = import_library("transformers")
    config = library.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=48 if larger else 16, patch_size=8, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    library.ViTForImageClassification(config).save_pretrained(tmp_path)
    library.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    side = config.image_size
    assert model.preprocessing.input_size == (side, side)
    assert model.preprocessing.resize in (side, (side, side))
    said = f"config.json states image_size {side} x {side} and the image processor produces 32 x 32: the network takes "
    assert model.preprocessing_note == f"{said}{side} x {side} only and gets it"
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    again = library.ViTImageProcessorPil(size={"height": side, "width": side})(photo, return_tensors="pt")
    expected = (again["pixel_values"][0] * 0.5 + 0.5).permute(1, 2, 0) * 255
    assert np.abs(model.preprocessing(photo) - expected.numpy()).max() < 0.01


def test_single_label_heads_stay_as_they_are(saved: Save, pixels: Tensor) -> None:
    model = load_model(str(saved(["cat", "dog"], problem_type="single_label_classification")))
    assert model(pixels).shape == (3, 2)
    assert model.head_note is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_made_of_logits_that_are_not_finite(saved: Save, pixels: Tensor, value: float) -> None:
    model = load_model(str(saved(["cat", "dog"])))
    model.network.classifier[1].bias.data[0] = value  # type: ignore[index,union-attr]
    one = torch.tensor([1])
    for method in METHODS:
        with pytest.raises(NotFinite, match="1 of 2 logits are not finite"):
            attribute(model, pixels[:1], one, method, {})
    with pytest.raises(NotFinite):
        smallest_epsilons(model, pixels[:1], one, grid=Grid(0.01, 0.5))
    with pytest.raises(NotFinite):
        faithfulness(model, pixels[:1], 1, torch.rand(32, 32))
