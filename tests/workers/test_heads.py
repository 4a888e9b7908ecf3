"""Networks whose output is no softmax over classes, and logits that are not finite."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from workers.attack_requests import Grid
from workers.attacks import smallest_epsilons
from workers.attribution import attribute
from workers.faithfulness import faithfulness
from workers.methods import METHODS
from workers.models import VisionModel, load_model
from workers.networks import WrongWeights
from workers.probabilities import NotFinite, class_probabilities
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
    """The network's own logit."""
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
    with torch.no_grad():  # near the decision, so that a small step turns it
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
        ("multi_label_classification", "a multi-label classifier, whose logits have a sigmoid each"),
        ("regression", "a regression, whose numbers are no classes"),
    ],
)
def test_heads_whose_classes_do_not_exclude_each_other_are_refused(
    saved: Save, problem: str, sentence: str
) -> None:
    with pytest.raises(WrongWeights, match=f"{sentence} .problem_type '{problem}'"):
        load_model(str(saved(["cat", "dog", "tree"], problem_type=problem)))


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
