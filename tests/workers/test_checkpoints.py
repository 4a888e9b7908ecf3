"""Checkpoints as found in practice load with the logits of the original network, or are refused with a reason.

`CASES` is the table in `docs/checkpoints.md`: habit, how it is made here, and the outcome for the user.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workers.models.networks import ModelError
from workers.models.vision import load_model
from workers.torchvision_import import import_library

DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoints.md"
CLASSES = 7


class OfOnesOwn(nn.Linear):
    """A class that exists only in someone's own project."""


def small(seed: int = 0, classes: int = CLASSES) -> nn.Module:
    """Return a torchvision network with its own random weights."""
    torch.manual_seed(seed)
    network: nn.Module = import_library("torchvision.models").squeezenet1_1(num_classes=classes)
    return network.eval()


def timm(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """Return a timm network whose normalizations are not the identity, so that fusing them has an effect."""
    torch.manual_seed(seed)
    network: nn.Module = import_library("timm").create_model(name, **({"num_classes": CLASSES} | options))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval()


def convnext(folder: Path, seed: int = 0, **settings: Any) -> nn.Module:
    """Return a transformers network, saved to `folder`."""
    torch.manual_seed(seed)
    library = import_library("transformers")
    config = library.ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_labels=CLASSES, **settings
    )
    network: nn.Module = library.ConvNextForImageClassification(config).eval()
    network.save_pretrained(folder)  # type: ignore[operator]
    return network


def edit(path: Path, **changes: Any) -> None:
    """Change settings in a JSON file; None removes one."""
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


Made = tuple[str, nn.Module | None]
TORCHVISION = "torchvision:squeezenet1_1@"


def saved(path: Path, found: Any, network: nn.Module | None = None) -> Made:
    torch.save(found, path)
    return f"{TORCHVISION}{path}", network


def prefixed(prefix: str) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        network = small()
        return saved(
            path / "w.pth", {f"{prefix}{key}": value for key, value in network.state_dict().items()}, network
        )

    return make


def lightning(path: Path) -> Made:
    network = small()
    weights = {f"model.{key}": value for key, value in network.state_dict().items()}
    weights["criterion.weight"] = torch.ones(CLASSES)
    return saved(
        path / "last.ckpt",
        {
            "state_dict": weights,
            "hyper_parameters": {"lr": 0.1},
            "epoch": 3,
            "pytorch-lightning_version": "2.5.0",
        },
        network,
    )


def average(path: Path) -> Made:
    network = small(1)
    return saved(
        path / "w.pth",
        {"state_dict": small(0).state_dict(), "state_dict_ema": network.state_dict()},
        network,
    )


def average_of_references(path: Path) -> Made:
    network = small(1)
    ema = {f"module.{key}": value for key, value in network.state_dict().items()}
    return saved(
        path / "w.pth",
        {
            "model": small(0).state_dict(),
            "model_ema": ema | {"n_averaged": torch.tensor(5)},
            "optimizer": {},
            "args": argparse.Namespace(lr=0.1),
        },
        network,
    )


def two_networks(path: Path) -> Made:
    both = {f"student.{key}": value for key, value in small(0).state_dict().items()}
    both |= {f"teacher.{key}": value for key, value in small(1).state_dict().items()}
    return saved(path / "w.pth", both)


def nested(path: Path) -> Made:
    network = small()
    return saved(path / "w.pth", {"model": {"state_dict": network.state_dict()}, "epoch": 1}, network)


def with_numbers(path: Path) -> Made:
    network = small()
    return saved(
        path / "w.pth",
        {
            "state_dict": network.state_dict(),
            "best_acc1": np.float64(71.3),
            "args": argparse.Namespace(lr=0.1),
        },
        network,
    )


def whole_module(path: Path) -> Made:
    return saved(path / "w.pth", small())


def whole_module_of_ones_own(path: Path) -> Made:
    return saved(path / "w.pth", {"state_dict": OfOnesOwn(2, 2)})


def half(path: Path) -> Made:
    network = small().half().float()
    weights = {key: value.half() for key, value in network.state_dict().items()}
    save_file(weights, path / "w.safetensors")
    return f"{TORCHVISION}{path / 'w.safetensors'}", network


def profiled(path: Path) -> Made:
    network = small()
    weights = {**network.state_dict(), "features.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    return saved(path / "w.pth", weights, network)


def without_head(path: Path) -> Made:
    weights = {k: v for k, v in small().state_dict().items() if not k.startswith("classifier")}
    return saved(path / "w.pth", weights)


def of_another(path: Path) -> Made:
    return saved(path / "w.pth", import_library("torchvision.models").mobilenet_v3_small().state_dict())


def optimizer_alone(path: Path) -> Made:
    return saved(path / "w.pth", torch.optim.SGD(small().parameters(), lr=0.1, momentum=0.9).state_dict())


def metrics_alone(path: Path) -> Made:
    return saved(path / "w.pth", {"epoch": 3, "best": 0.7, "history": [1, 2]})


def truncated(path: Path) -> Made:
    made = saved(path / "w.pth", small().state_dict())
    (path / "w.pth").write_bytes((path / "w.pth").read_bytes()[:5000])
    return made


def truncated_safetensors(path: Path) -> Made:
    file = path / "w.safetensors"
    save_file(small().state_dict(), file)
    file.write_bytes(file.read_bytes()[:5000])
    return f"{TORCHVISION}{file}", None


def other_zip(path: Path) -> Made:
    with zipfile.ZipFile(path / "w.pth", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    return f"{TORCHVISION}{path / 'w.pth'}", None


def script(path: Path) -> Made:
    with zipfile.ZipFile(path / "w.pt", "w") as archive:
        archive.writestr("net/data.pkl", "")
        archive.writestr("net/code/__torch__/net.py", "")
    return f"{TORCHVISION}{path / 'w.pt'}", None


def plain_pickle(path: Path) -> Made:
    (path / "w.pkl").write_bytes(pickle.dumps({"weights": [1.0]}))
    return f"{TORCHVISION}{path / 'w.pkl'}", None


def some_bytes(name: str, data: bytes) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        (path / name).write_bytes(data)
        return f"{TORCHVISION}{path / name}", None

    return make


def quantized_file(path: Path) -> Made:
    weights = {
        key: value.mul(100).to(torch.int8) if key.endswith("weight") else value
        for key, value in small().state_dict().items()
    }
    return saved(path / "w.pth", weights)


def lora_file(path: Path) -> Made:
    return saved(path / "w.pth", {"base_model.model.fc.lora_A.weight": torch.zeros(2, 2)})


def googlenet(path: Path) -> Made:
    torch.manual_seed(0)
    models = import_library("torchvision.models")
    network = models.googlenet(
        num_classes=CLASSES, transform_input=True, init_weights=False, aux_logits=True
    ).eval()
    torch.save(network.state_dict(), path / "w.pth")
    return f"torchvision:googlenet@{path / 'w.pth'}", network


def inception(path: Path) -> Made:
    torch.manual_seed(0)
    models = import_library("torchvision.models")
    network = models.inception_v3(
        num_classes=CLASSES, transform_input=True, init_weights=False, aux_logits=False
    ).eval()
    torch.save(network.state_dict(), path / "w.pth")
    return f"torchvision:inception_v3@{path / 'w.pth'}", network


def gray_stem(path: Path) -> Made:
    torch.manual_seed(0)
    network = small()
    network.features[0] = nn.Conv2d(1, 64, 3, stride=2)  # type: ignore[index,operator]
    return saved(path / "w.pth", network.state_dict(), network)


def reparameterized(name: str) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        network = import_library("timm.utils").reparameterize_model(timm(name))
        torch.save(network.state_dict(), path / "w.pth")
        return f"timm:{name}@{path / 'w.pth'}", network

    return make


def reparameterized_folder(path: Path) -> Made:
    plain = timm("mobileone_s0")
    save = import_library("timm.models._hub").save_for_hf
    save(plain, str(path / "net"), safe_serialization=True)
    network = import_library("timm.utils").reparameterize_model(plain)
    save_file(
        {key: value.contiguous() for key, value in network.state_dict().items()},
        path / "net" / "model.safetensors",
    )
    return str(path / "net"), network


def wrapped_timm(path: Path) -> Made:
    torch.manual_seed(0)
    library = import_library("transformers")
    config = library.TimmWrapperConfig(
        architecture="test_resnet",
        num_labels=CLASSES,
        pretrained_cfg={"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9},
    )
    network = library.TimmWrapperForImageClassification(config).eval()
    network.save_pretrained(path)
    return str(path), network.timm_model


def pp_lcnet(path: Path) -> Made:
    torch.manual_seed(0)
    library = import_library("transformers")
    config = library.PPLCNetConfig(num_labels=CLASSES)
    network = library.PPLCNetForImageClassification(config).eval()
    network.save_pretrained(path)
    library.PPLCNetImageProcessor().save_pretrained(path)
    return str(path), network


def sharded(path: Path) -> Made:
    network = convnext(path)
    (path / "model.safetensors").unlink()
    network.save_pretrained(path, max_shard_size="10KB")  # type: ignore[operator]
    assert len(list(path.glob("*.safetensors"))) > 1
    return str(path), network


def shard_missing(path: Path) -> Made:
    sharded(path)
    min(path.glob("*.safetensors")).unlink()
    return str(path), None


def folder_with(change: Callable[[Path], object], *, loads: bool = False) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        network = convnext(path)
        change(path)
        return str(path), network if loads else None

    return make


def renamed_weights(path: Path) -> None:
    (path / "model.safetensors").rename(path / "convnext_best.safetensors")


def keras_only(path: Path) -> None:
    (path / "model.safetensors").rename(path / "tf_model.h5")


def pickled_module(path: Path) -> None:
    (path / "model.safetensors").unlink()
    torch.save({"net": OfOnesOwn(2, 2)}, path / "pytorch_model.bin")


def half_of_the_bits(path: Path) -> Made:
    network = convnext(path)
    network.half().save_pretrained(path)  # type: ignore[operator]
    return str(path), network.float()


def lost_head(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    del weights["classifier.weight"], weights["classifier.bias"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def labels_from_one(path: Path) -> None:
    edit(path / "config.json", id2label={str(i): f"name {i}" for i in range(1, CLASSES + 1)}, label2id=None)


def labels_with_gaps(path: Path) -> None:
    names = {str(i): f"name {i}" for i in range(CLASSES) if i not in (2, 4)}
    edit(path / "config.json", id2label=names, label2id=None)


def fewer_labels(path: Path) -> None:
    edit(path / "config.json", id2label={"0": "a", "1": "b"}, label2id=None)


def own_code(path: Path) -> None:
    edit(
        path / "config.json",
        model_type="my-net",
        auto_map={"AutoConfig": "mine.C", "AutoModelForImageClassification": "mine.N"},
    )
    (path / "mine.py").write_text("raise SystemExit('this code ran')\n")


def own_processor(path: Path) -> None:
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.P"}})
    )
    (path / "mine.py").write_text("raise SystemExit('this code ran')\n")


def unknown_processor(path: Path) -> None:
    (path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Mine"}))


def own_code_of_known_kind(path: Path) -> None:
    edit(path / "config.json", auto_map={"AutoModelForImageClassification": "mine.N"})
    (path / "mine.py").write_text("raise SystemExit('this code ran')\n")


def weights_alone(path: Path) -> None:
    (path / "config.json").unlink()


def adapter(path: Path) -> None:
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))


@dataclass(frozen=True)
class Case:
    """A habit, how it is made, and the outcome: `says` occurs in the error, or in a note about what was loaded."""

    habit: str
    make: Callable[[Path], Made]
    loads: bool
    says: str = ""


LOADS, REFUSED = True, False
CASES = [
    Case("`module.` before the names (DataParallel, DDP)", prefixed("module."), LOADS),
    Case("`_orig_mod.` (torch.compile)", prefixed("_orig_mod."), LOADS),
    Case("`module._orig_mod.` (both)", prefixed("module._orig_mod."), LOADS),
    Case("`model.`", prefixed("model."), LOADS),
    Case("`net.`", prefixed("net."), LOADS),
    Case("`backbone.`", prefixed("backbone."), LOADS),
    Case("Lightning: `state_dict` beside `hyper_parameters`, a loss's weight", lightning, LOADS,
         "1 tensor (criterion.weight) of last.ckpt do not begin with 'model.' and were not used"),
    Case("timm: `state_dict` and `state_dict_ema`", average, LOADS, "loaded 'state_dict_ema', the moving average"),
    Case("torchvision's references: `model`, `model_ema`, `args`", average_of_references, LOADS,
         "loaded 'model_ema', the moving average"),
    Case("student and teacher in one file", two_networks, REFUSED,
         "got several that fit, with names that begin with 'student.' and 'teacher.'"),
    Case("`model` that holds `state_dict`", nested, LOADS),
    Case("NumPy numbers and options beside the weights", with_numbers, LOADS),
    Case("profiler's counters among the tensors (thop)", profiled, LOADS),
    Case("whole module pickled", whole_module, REFUSED,
         "got Python objects (torchvision.models.squeezenet.SqueezeNet), which cannot be loaded without running code"),
    Case("whole module of a class of one's own", whole_module_of_ones_own, REFUSED, "got Python objects ("),
    Case("half precision", half, LOADS),
    Case("without the classifier", without_head, REFUSED, "got 2 tensors (classifier.1.weight, ...) missing"),
    Case("another architecture's", of_another, REFUSED, "that the model lacks"),
    Case("optimizer's state alone", optimizer_alone, REFUSED, "got an optimizer's state"),
    Case("metrics alone", metrics_alone, REFUSED, "got a dict with keys epoch, best, history: weights are expected"),
    Case("truncated torch file", truncated, REFUSED, "got a torch file that is truncated or damaged"),
    Case("truncated safetensors", truncated_safetensors, REFUSED, "got a file that is truncated, damaged"),
    Case("zip archive of something else", other_zip, REFUSED, "got a zip archive that is not a checkpoint (notes.txt)"),
    Case("TorchScript", script, REFUSED, "got a TorchScript program"),
    Case("plain pickle", plain_pickle, REFUSED, "got a pickle of Python objects"),
    Case("ONNX", some_bytes("w.onnx", b"\x08\x07\x12\x07pytorch"), REFUSED, "got ONNX"),
    Case("Keras HDF5", some_bytes("w.h5", b"\x89HDF\r\n\x1a\n"), REFUSED, "got Keras's HDF5"),
    Case("TensorFlow checkpoint's index", some_bytes("model.ckpt.index", b"\x00\x00"), REFUSED,
         "got a TensorFlow checkpoint's index"),
    Case("GGUF", some_bytes("w.gguf", b"GGUF\x03"), REFUSED, "got GGUF"),
    Case("Git LFS pointer", some_bytes("w.pth", b"version https://git-lfs.github.com/spec/v1\n"), REFUSED,
         "got a Git LFS pointer in place of the file"),
    Case("saved web page", some_bytes("w.pth", b"<!DOCTYPE html><html>"), REFUSED, "got a web page"),
    Case("empty file", some_bytes("w.pth", b""), REFUSED, "got an empty file"),
    Case("int8 weights", quantized_file, REFUSED, "got quantized tensors, "),
    Case("LoRA tensors", lora_file, REFUSED, "got those of a LoRA adapter"),
    Case("GoogLeNet, auxiliary classifiers and all", googlenet, LOADS, "transform_input is assumed to be true"),
    Case("Inception-v3", inception, LOADS, "transform_input is assumed to be true"),
    Case("first convolution of one channel", gray_stem, LOADS),
    Case("RepVGG, reparameterized", reparameterized("repvgg_a0"), LOADS, "the reparameterized network"),
    Case("FastViT, reparameterized", reparameterized("fastvit_t8"), LOADS, "the reparameterized network"),
    Case("timm folder, reparameterized (MobileOne)", reparameterized_folder, LOADS, "the reparameterized network"),
    Case("`TimmWrapperForImageClassification` folder", wrapped_timm, LOADS),
    Case("PP-LCNet folder", pp_lcnet, LOADS),
    Case("folder in half precision", half_of_the_bits, LOADS),
    Case("sharded safetensors", sharded, LOADS),
    Case("index without one shard", shard_missing, REFUSED, "got none for model-00001-of-"),
    Case("safetensors of another name in a folder", folder_with(renamed_weights), REFUSED,
         "got convnext_best.safetensors: rename it to one of these"),
    Case("folder with Keras weights alone", folder_with(keras_only), REFUSED, "got tf_model.h5, which is Keras's HDF5"),
    Case("folder with a pickled module", folder_with(pickled_module), REFUSED, "got Python objects ("),
    Case("config without weights", folder_with(lambda path: (path / "model.safetensors").unlink()), REFUSED,
         "got no file of weights"),
    Case("weights without config", folder_with(weights_alone), REFUSED, "expected config.json"),
    Case("unknown architecture", folder_with(lambda path: edit(path / "config.json", model_type="convnxt")), REFUSED,
         "got 'convnxt': similar names are convnext"),
    Case("no classifier (`model_type` bert)", folder_with(lambda path: edit(path / "config.json", model_type="bert")),
         REFUSED, "got model_type 'bert', for which transformers has none"),
    Case("folder without the classifier's tensors", folder_with(lost_head), REFUSED,
         "got none for 2 tensors (classifier.bias, ...)"),
    Case("`id2label` from 1", folder_with(labels_from_one, loads=True), LOADS, "counts from 1: class 1 is logit 0"),
    Case("`id2label` with gaps", folder_with(labels_with_gaps, loads=True), LOADS, "does not name class 2, 4"),
    Case("other class count than the weights'", folder_with(fewer_labels), REFUSED,
         "of another shape (classifier.bias (7,) for (2,))"),
    Case("PEFT adapter folder", folder_with(adapter), REFUSED, "got a PEFT adapter (adapter_config.json)"),
    Case("quantized folder (bitsandbytes)",
         folder_with(lambda path: edit(path / "config.json", quantization_config={"quant_method": "bitsandbytes"})),
         REFUSED, "got quantized ones (quantization_config: bitsandbytes)"),
    Case("custom code (`auto_map`)", folder_with(own_code), REFUSED,
         "Convscope never runs code from a model's folder"),
    Case("custom code for a known `model_type`", folder_with(own_code_of_known_kind, loads=True), LOADS,
         "which is never run"),
    Case("image processor that transformers has not", folder_with(unknown_processor), REFUSED, "got 'Mine'"),
    Case("image processor with custom code", folder_with(own_processor), REFUSED,
         "Convscope never runs code from a model's folder"),
    Case("four input channels", folder_with(lambda path: edit(path / "config.json", num_channels=4)), REFUSED,
         "expected num_channels 3 (RGB) or 1 (gray)"),
]  # fmt: skip

# Wording that libraries address to developers, and that no user should read here.
FORBIDDEN = ("unexpected", "weights_only", "trust_remote_code", "ignore_mismatched_sizes", "Traceback")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.habit)
def test_a_checkpoint_loads_completely_or_names_its_format(case: Case, tmp_path: Path) -> None:
    spec, network = case.make(tmp_path)
    if not case.loads:
        with pytest.raises(ModelError) as caught:
            load_model(spec)
        sentence = str(caught.value)
        assert case.says in sentence
        assert str(tmp_path) in sentence
        assert "\n" not in sentence
        assert not [word for word in FORBIDDEN if word in sentence]
        return
    model = load_model(spec)
    assert network is not None
    pixels = torch.rand(2, model.channels, *model.preprocessing.input_size)
    with torch.inference_mode():
        ours, theirs = model.network(pixels), network(pixels)
    torch.testing.assert_close(getattr(ours, "logits", ours), getattr(theirs, "logits", theirs))
    notes = "; ".join(model.notes)
    assert case.says in notes if case.says else not model.notes
    assert model.preprocessing_source
    assert model.vocabulary_source


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "no terminal"])
def test_a_folders_code_is_never_run_and_never_prompted_for(tmp_path: Path, terminal: bool) -> None:
    """Nor is a user who would answer `y`: the library's own prompt never appears."""
    convnext(tmp_path / "net")
    own_code(tmp_path / "net")
    for file in ("config.json", "mine.py"):
        assert (tmp_path / "net" / file).exists()
    command = [
        sys.executable,
        str(DOCUMENT.parents[1] / "convscope.py"),
        "models",
        "show",
        str(tmp_path / "net"),
    ]
    keyboard, screen = os.openpty() if terminal else (None, subprocess.DEVNULL)
    if keyboard is not None:
        os.write(keyboard, b"y\ny\n")
    done = subprocess.run(
        command,
        stdin=screen,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "CONVSCOPE_HOME": str(tmp_path / "home")},
    )
    if keyboard is not None:
        os.close(keyboard)
        os.close(screen)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Convscope never runs code from a model's folder" in done.stderr
    assert not [word for word in (*FORBIDDEN, "[y/N]", "this code ran") if word in done.stderr]


def test_the_document_lists_these_cases() -> None:
    rows = [f"| {case.habit} | {'loads' if case.loads else 'refused'} | {case.says} |" for case in CASES]
    found = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    assert found[1:] == rows
