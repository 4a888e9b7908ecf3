"""Models load completely with their own preprocessing and classes, or are refused with a sentence that says why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import HALF, IMAGENET_MEAN, Preprocessing
from workers.models.vision import (
    NAMED_MODELS,
    UnknownModel,
    VisionModel,
    WrongWeights,
    load_model,
    model_name,
)
from workers.models.vocabularies import (
    ClassEntry,
    imagenet,
    vocabulary_of_labels,
)
from workers.torchvision_import import import_library

SMALL = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}


def small_convnext(**settings: Any) -> Any:
    library = import_library("transformers")
    return library.ConvNextForImageClassification(library.ConvNextConfig(**SMALL, **settings))


@pytest.fixture
def convnext_folder(tmp_path: Path) -> Path:
    """A small ConvNeXt with random weights as `save_pretrained` writes it, with its image processor."""
    folder = tmp_path / "my convnext"
    labels = dict(enumerate(["cat", "dog", "crane", "crane"]))
    small_convnext(id2label=labels, label2id={}).save_pretrained(folder)
    processor = import_library("transformers").ConvNextImageProcessor(
        size={"shortest_edge": 64}, crop_pct=0.875, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    processor.save_pretrained(folder)
    return folder


# --- a model


def test_pixels_are_normalised_inside(lite0: VisionModel) -> None:
    pixels = torch.rand(2, 3, 224, 224)
    logits = lite0(pixels)
    assert logits.shape == (2, 1000)
    assert torch.equal(logits, lite0.network((pixels - 0.5) / 0.5))


def test_a_loaded_model_is_ready_for_inference(lite0: VisionModel) -> None:
    assert not lite0.training
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    assert lite0.parameter_count == 4_652_008
    pixels = torch.rand(1, 3, 224, 224, requires_grad=True)
    lite0(pixels).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_the_packaged_model_recognizes_photos(
    lite0: VisionModel, share_right: Callable[[VisionModel], float]
) -> None:
    assert share_right(lite0) >= 0.82


def test_reversed_channels_reach_the_network_reversed() -> None:
    loaded = LoadedNetwork(
        network=nn.Identity(),
        source="test",
        architecture="Identity",
        preprocessing=Preprocessing((8, 8), 8, "bilinear", (0.1, 0.2, 0.3), HALF),
        vocabulary=vocabulary_of_labels(["a"], model="test"),
        reverse_channels=True,
    )
    pixels = torch.rand(1, 3, 8, 8)
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    assert torch.equal(VisionModel(loaded, name="test")(pixels), ((pixels - mean) / 0.5)[:, [2, 1, 0]])


# --- folders


def test_a_saved_folder_loads_with_its_own_preprocessing_and_labels(convnext_folder: Path) -> None:
    model = load_model(str(convnext_folder))
    assert model.name == "my--convnext"
    assert model.architecture == "ConvNextForImageClassification"
    assert model.preprocessing == Preprocessing(
        (64, 64), 73, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), crop_rounding="down"
    )
    assert model.preprocessing_note is None
    assert model.vocabulary.name == "my--convnext-classes"
    assert [entry.name for entry in model.vocabulary.classes] == ["cat", "dog", "crane", "crane"]
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 4)


def test_loading_twice_gives_equal_weights_and_another_file_others(convnext_folder: Path) -> None:
    first, second = (load_model(str(convnext_folder)).weights_sha256() for _ in range(2))
    assert first == second
    weights = load_file(convnext_folder / "model.safetensors")
    weights["classifier.bias"] += 1e-3
    save_file(weights, convnext_folder / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(convnext_folder)).weights_sha256() != first


def test_a_folder_without_a_processor_gets_a_stated_default(convnext_folder: Path) -> None:
    (convnext_folder / "preprocessor_config.json").unlink()
    model = load_model(str(convnext_folder))
    assert model.preprocessing.input_size == (224, 224)
    assert model.preprocessing.resize == 256
    assert model.preprocessing.mean == IMAGENET_MEAN
    assert model.preprocessing_note == (
        "the folder has no preprocessor_config.json: assumed a bicubic resize to 256, a center crop of "
        "224 x 224, and ImageNet's mean and std"
    )


def test_a_missing_tensor_is_an_error_and_never_random(convnext_folder: Path) -> None:
    weights = load_file(convnext_folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, convnext_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongWeights, match=r"got none for 1 tensor \(classifier.weight\)"):
        load_model(str(convnext_folder))


def test_a_backbone_without_a_classifier_is_refused(tmp_path: Path) -> None:
    library = import_library("transformers")
    library.ConvNextModel(library.ConvNextConfig(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(WrongWeights, match="classifier"):
        load_model(str(tmp_path))


def test_truncated_weights_are_an_error(convnext_folder: Path) -> None:
    file = convnext_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WrongWeights, match=r"model.safetensors, got a file that is truncated"):
        load_model(str(convnext_folder))


def test_a_folder_without_a_model_states_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"expected config.json .* or convscope.json in .*, got neither"):
        load_model(str(tmp_path))


def test_a_timm_folder_loads_as_stored_on_the_hub(tmp_path: Path) -> None:
    timm = import_library("timm")
    network = timm.create_model("resnet10t", num_classes=3)
    import_library("timm.models._hub").save_for_hf(
        network, str(tmp_path / "net"), model_config={"label_names": ["a", "b", "c"]}, safe_serialization=True
    )
    model = load_model(str(tmp_path / "net"))
    assert model.architecture == "resnet10t"
    assert [entry.name for entry in model.vocabulary.classes] == ["a", "b", "c"]
    assert model.preprocessing.input_size == (176, 176)
    network.eval()
    pixels = torch.rand(1, 3, 176, 176)
    torch.testing.assert_close(model.network(pixels), network(pixels))


# --- own state dicts


@pytest.fixture
def mobilenet_folder(shared_data: Path, tmp_path: Path) -> Path:
    """A folder that describes the real MobileNetV2 in the shared data."""
    settings = {
        "architecture": "torchvision:mobilenet_v2",
        "weights": str(shared_data / "weights" / "mobilenet_v2_torchvision.safetensors"),
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "resize": 224,
    }
    folder = tmp_path / "mobilenet"
    folder.mkdir()
    (folder / "convscope.json").write_text(json.dumps(settings))
    return folder


def test_a_described_state_dict_uses_its_training_preprocessing(
    mobilenet_folder: Path, share_right: Callable[[VisionModel], float]
) -> None:
    model = load_model(str(mobilenet_folder))
    assert model.preprocessing.mean == HALF
    assert model.vocabulary is imagenet()
    assert model.preprocessing_note == "assumed to be that of torchvision's own weights IMAGENET1K_V2"
    assert share_right(model) >= 0.7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, "expected 'weights' with a string, got None"),
        (
            {"weights": "nothing.safetensors"},
            "expected a file of weights at .*nothing.safetensors, got nothing",
        ),
        (
            {"architecture": "torchvision:resnet18"},
            "expected the weights of resnet18 in .* missing.* that the model lacks",
        ),
        ({"architecture": "torchvision:mobilenet_v7"}, "similar names are mobilenet_v2"),
        ({"architecture": "keras:mobilenet"}, "expected an architecture torchvision:NAME or timm:NAME"),
        ({"mena": [0, 0, 0]}, "expected settings among architecture, weights, .* got 'mena'"),
        ({"std": [0, 1, 1]}, "std positive"),
        ({"std": [1, 1, float("nan")]}, "std positive"),
        ({"mean": [0, 1, float("inf")]}, "expected three numbers each"),
        ({"input_size": None}, "expected a number of pixels or .* for 'input_size', got None"),
        ({"input_size": 1.5}, "for 'input_size', got 1.5"),
        ({"input_size": "224"}, "for 'input_size', got '224'"),
        ({"resize": True}, "for 'resize', got True"),
        ({"resize": [0, 5]}, "for 'resize', got "),
        ({"mean": "0.5"}, "expected three numbers"),
        ({"vocabulary": "imagenet"}, "expected vocabulary 'imagenet-1k', .* got 'imagenet'"),
        ({"vocabulary": ["cat", "dog"]}, "expected 2 logits .* got a result of shape \\(1, 1000\\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_description_is_named(mobilenet_folder: Path, changes: dict[str, Any], message: str) -> None:
    path = mobilenet_folder / "convscope.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises((WrongWeights, UnknownModel), match=message):
        load_model(str(mobilenet_folder))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("architecture", ["torchvision:squeezenet1_1", "timm:test_vit"])
def test_an_architecture_and_a_file_make_a_model(tmp_path: Path, architecture: str, suffix: str) -> None:
    kind, name = architecture.split(":")
    if kind == "timm":
        network = import_library("timm").create_model(name, num_classes=7)
    else:
        network = import_library("torchvision.models").get_model(name, num_classes=7)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(
            {"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path
        )
    else:
        save_file(network.state_dict(), path)
    model = load_model(f"{architecture}@{path}")
    assert model.source == f"{architecture}@{path}"
    assert model.vocabulary.classes[6] == ClassEntry(6, None, "class 6", "class 6")
    for loaded, original in zip(model.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(loaded, original)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": Path("anything")}, path)
    with pytest.raises(WrongWeights, match="expected a state dict in"):
        load_model(f"torchvision:mobilenet_v2@{path}")


# --- search path for models


@pytest.mark.parametrize("place", ["convnext-tiny", "convnext-tiny-224", "facebook/convnext-tiny-224"])
@pytest.mark.parametrize("spec", ["convnext-tiny", "hf:facebook/convnext-tiny-224"])
def test_a_model_put_into_the_models_folder_is_found_before_any_hub(
    convnext_folder: Path, tmp_path: Path, place: str, spec: str
) -> None:
    shutil.copytree(convnext_folder, tmp_path / "models" / place)
    model = load_model(spec, models_folder=tmp_path / "models", hub_timeout=0.1)
    assert model.name == "convnext-tiny"
    assert model.source == "hf:facebook/convnext-tiny-224"


def test_torchvisions_own_file_put_into_the_models_folder_is_found(tmp_path: Path) -> None:
    network = import_library("torchvision.models").mobilenet_v2()
    torch.save(network.state_dict(), tmp_path / "mobilenet_v2-7ebf99e0.pth")
    model = load_model("mobilenet-v2", models_folder=tmp_path, hub_timeout=0.1)
    assert (model.name, model.source) == ("mobilenet-v2", "torchvision:mobilenet_v2.IMAGENET1K_V2")
    assert model.preprocessing == Preprocessing(
        (224, 224), 232, "bilinear", IMAGENET_MEAN, (0.229, 0.224, 0.225)
    )
    assert model.vocabulary is imagenet()
    assert torch.equal(model.network.classifier[1].weight, network.classifier[1].weight)  # type: ignore[index,union-attr]


def test_a_timm_model_in_the_stated_place_is_found(tmp_path: Path) -> None:
    network = import_library("timm").create_model("resnet10t.c3_in1k", pretrained=False)
    save = import_library("timm.models._hub").save_for_hf
    save(network, str(tmp_path / "resnet10t.c3_in1k"), safe_serialization=True)
    for spec in ("timm:resnet10t", "timm:resnet10t.c3_in1k"):
        model = load_model(spec, models_folder=tmp_path, hub_timeout=0.1)
        assert model.source == "timm:resnet10t.c3_in1k" or model.source == spec
        assert model.vocabulary is imagenet()


def test_a_user_model_in_the_models_folder_is_found_by_name(convnext_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(convnext_folder, tmp_path / "models" / "mine")
    assert load_model("mine", models_folder=tmp_path / "models").name == "mine"
    with pytest.raises(UnknownModel, match=r"got 'mien'; did you mean 'mine'"):
        load_model("mien", models_folder=tmp_path / "models")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "convnext-tyny",
            r"expected a model among convnext-tiny, .* got 'convnext-tyny'; did you mean 'convnext-tiny'",
        ),
        ("", "or a folder that exists, got ''"),
        ("hf:", "got 'hf:'"),
        ("hf:a/b/c", "expected hf:ORG/NAME, got 'hf:a/b/c'"),
        ("torchvision:resnet51", "similar names are resnet50"),
        ("torchvision:resnet50.V3", "among IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, got 'V3'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "expected a classifier of torchvision"),
        ("timm:resnot50", "similar names are resnet50"),
        ("timm:resnet50.mine", "expected weights of timm:resnet50 among .*a1_in1k"),
        ("timm:test_vit4", "expected weights|has none|no weights"),
        ("/nowhere/at/all", "or a folder that exists, got '/nowhere/at/all'"),
    ],
)
def test_a_wrong_name_lists_what_is_near(spec: str, message: str) -> None:
    with pytest.raises(UnknownModel, match=message):
        load_model(spec, hub_timeout=0.1)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("convnext-tiny", "convnext-tiny"),
        ("hf:facebook/convnext-tiny-224", "convnext-tiny"),
        ("hf:google/mobilenet_v2_1.0_224", "google--mobilenet_v2_1.0_224"),
        ("torchvision:resnet50.IMAGENET1K_V1", "torchvision-resnet50.IMAGENET1K_V1"),
        ("timm:resnet50.a1_in1k", "timm-resnet50.a1_in1k"),
        ("torchvision:resnet50@/data/my weights.pth", "torchvision-resnet50-my--weights"),
        ("/data/models/my net/", "my--net"),
    ],
)
def test_a_models_name_fits_an_address(spec: str, name: str) -> None:
    assert model_name(spec) == name


@pytest.mark.parametrize("name", ["", "a b", "-x", "../up", "x" * 101])
def test_a_name_given_must_fit_an_address_too(name: str) -> None:
    with pytest.raises(UnknownModel, match=r"^name: expected up to 100 letters, digits"):
        load_model("efficientnet-lite0", name=name)


def test_a_model_has_the_given_name() -> None:
    assert load_model("efficientnet-lite0", name="lite-2").name == "lite-2"


@pytest.mark.parametrize("spec", ["~nosuchperson/net", "timm:resnet18@~nosuchperson/w.pt"])
def test_a_home_of_nobody_is_nowhere(spec: str) -> None:
    with pytest.raises((UnknownModel, WrongWeights), match="~nosuchperson"):
        load_model(spec)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("preprocessor_config.json", []),
        ("preprocessor_config.json", {"size": {"shortest_edge": -3}}),
        ("preprocessor_config.json", {"image_std": [1, 1, 1, 1]}),
        ("config.json", {"patch_size": 0}),
        ("config.json", {"hidden_sizes": "x"}),
    ],
)
def test_a_folder_with_a_wrong_value_is_named(convnext_folder: Path, file: str, changes: Any) -> None:
    path = convnext_folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes if changes else changes))
    with pytest.raises(WrongWeights, match=rf"expected an? (image|JSON object) .*{convnext_folder.name}"):
        load_model(str(convnext_folder))


def test_the_reports_three_and_two_without_internet_are_named() -> None:
    assert {name: named.spec for name, named in NAMED_MODELS.items() if named.download} == {
        "convnext-tiny": "hf:facebook/convnext-tiny-224",
        "resnet-50": "hf:microsoft/resnet-50",
        "mobilenet-v2": "torchvision:mobilenet_v2",
    }
    assert {name for name, named in NAMED_MODELS.items() if not named.download} == {
        "convnext-demo",
        "efficientnet-lite0",
    }


def test_the_demo_model_is_a_convnext_of_imagenets_classes() -> None:
    model = load_model("convnext-demo")
    assert (model.name, model.source, model.architecture) == (
        "convnext-demo",
        "convnext-demo",
        "ConvNextForImageClassification",
    )
    assert model.parameter_count == 3_695_520
    assert model.preprocessing.input_size == (128, 128)
    assert model.preprocessing_note is None
    assert model.vocabulary == load_model("efficientnet-lite0").vocabulary
