"""Reads weight files in all their variants: which tensors are the network's, and what a file without any is.

Reads safetensors, and what `torch.save` wrote if it contains only tensors and plain values. Nothing in a file
is ever executed. A choice made for the user (an average among several sets of weights, a prefix of the names)
becomes a note of the checkpoint.
"""

import argparse
import contextlib
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workers.models.networks import WrongWeights, first_line

# Where training scripts put the weights, in order of preference. timm's and torchvision's reference scripts
# evaluate an exponential moving average.
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_MAX_NESTED = 3
# Counters that wrappers and profilers leave among the tensors; not part of a network.
_LEFTOVERS = ("n_averaged", "total_ops", "total_params")
_SAFE_GLOBALS = threading.Lock()
_HOW = "save it again with torch.save(model.state_dict(), FILE)"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, from `path`; `notes` are sentences about choices made while reading."""

    path: Path
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a safetensors file, or in a torch file that contains only tensors and plain values.

    Raises:
        WrongWeights: the file is something else, is damaged, or would run code when read; the message says
            which.
    """
    if not path.is_file():
        raise WrongWeights(
            f"expected a file of weights at {path}, got {'a folder' if path.is_dir() else 'nothing'}"
        )
    notes: list[str] = []
    found = _read(path)
    taken: list[str] = []
    for _ in range(_MAX_NESTED):
        if not isinstance(found, dict) or _holds_tensors(found):
            break
        keys = [key for key in (*AVERAGES, *WEIGHTS) if isinstance(found.get(key), dict) and found[key]]
        if not keys:
            break
        taken.append(keys[0])
        if keys[0] in AVERAGES and len(keys) > 1:
            notes.append(
                f"{path.name} holds {' and '.join(repr(key) for key in keys)}: loaded {keys[0]!r}, the "
                "moving average, which training scripts evaluate"
            )
        found = found[keys[0]]
    where = f"{path}{''.join(f'[{key!r}]' for key in taken)}"
    if not isinstance(found, dict):
        raise WrongWeights(f"expected a state dict in {where}, got {_name_of(found)}: {_HOW}")
    if not _holds_tensors(found):
        raise WrongWeights(f"expected a state dict in {where}, got {_contents(found)}")
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        value = next(value for value in found.values() if not isinstance(value, Tensor))
        raise WrongWeights(
            f"expected a state dict in {where}, got values that are not tensors, the first is "
            f"{others[0]!r} ({type(value).__name__})"
        )
    tensors = {str(name): value for name, value in found.items()}
    if any("lora_" in name for name in tensors):
        raise WrongWeights(
            f"expected the weights of a whole network in {where}, got those of a LoRA adapter: merge it "
            "into its base model (merge_and_unload in PEFT) and save the result"
        )
    return Checkpoint(path, _without_leftovers(tensors), tuple(notes))


def fit_names(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """The checkpoint with the names that `network` has, without any prefix that a wrapper added.

    `module.` (DataParallel), `_orig_mod.` (torch.compile), `model.`, `net.`, `backbone.` or any other, if it
    precedes at least half of the network's names. Tensors outside the prefix belong to another network, and
    are noted.

    Raises:
        WrongWeights: the names of several networks fit.
    """
    expected = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    # compiled blocks also put it in the middle of names
    tensors = {name.replace("_orig_mod.", ""): value for name, value in checkpoint.tensors.items()}
    coverage = {
        prefix: sum(prefix + name in tensors for name in expected) for prefix in _prefixes(tensors, expected)
    }
    best = max(coverage.values(), default=0)
    fitting = [prefix for prefix, covered in coverage.items() if covered == best]
    if best < len(expected) / 2 or not fitting:
        return replace(checkpoint, tensors=tensors)
    chosen = fitting[0]
    notes = list(checkpoint.notes)
    if len(fitting) > 1:
        averages = [prefix for prefix in fitting if "ema" in re.split(r"[._]", prefix.lower())]
        listed = " and ".join(repr(prefix) for prefix in fitting)
        if len(averages) != 1:
            raise WrongWeights(
                f"expected the weights of one network in {checkpoint.path}, got several that fit, with names that "
                f"begin with {listed}: save the state dict of the intended one"
            )
        (chosen,) = averages
        notes.append(
            f"{checkpoint.path.name} holds networks with names that begin with {listed}: {chosen!r} was loaded, "
            "the moving average"
        )
    inside = {name.removeprefix(chosen): value for name, value in tensors.items() if name.startswith(chosen)}
    outside = [name for name in tensors if not name.startswith((chosen, *fitting))]
    if outside and chosen:
        notes.append(
            f"{_count(outside)} of {checkpoint.path.name} do not begin with {chosen!r} and were not used"
        )
    return replace(checkpoint, tensors=inside, notes=tuple(notes))


def load_exactly(network: nn.Module, checkpoint: Checkpoint, *, architecture: str) -> None:
    """Load the checkpoint into `network` with every name and shape accounted for.

    `num_batches_tracked` may be absent: it is not used in inference.

    Raises:
        WrongWeights: names, shapes or types differ; the message names the first of each kind.
    """
    expected, weights = network.state_dict(), checkpoint.tensors
    faults = mismatches(expected, weights)
    if faults:
        raise WrongWeights(f"expected the weights of {architecture} in {checkpoint.path}, got {faults}")
    network.load_state_dict(weights, strict=False)


def mismatches(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Why `weights` do not fill a network whose tensors are `expected`; empty if they do."""
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    foreign = [name for name in weights if name not in expected]
    common = {name: tensor for name, tensor in weights.items() if name in expected}
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
        for name, tensor in common.items()
        if tensor.shape != expected[name].shape
    ]
    whole = [
        f"{name} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in common.items()
        if expected[name].is_floating_point() and not tensor.is_floating_point()
    ]
    if whole:
        return f"quantized tensors, {_count(whole)}: valid are float32, float16, bfloat16 and float64"
    kinds = ((missing, "missing"), (foreign, "that the model lacks"), (misshapen, "of another shape"))
    return ", ".join(f"{_count(names)} {what}" for names, what in kinds if names)


def classes_in(tensors: Mapping[str, Tensor], network: nn.Module, classifier: str | None = None) -> int:
    """Number of logits in `tensors`: rows of the classifier's tensors, by default of the network's last tensor."""
    names = list(network.state_dict())
    last = names[-1]
    if classifier is not None:
        last = next((name for name in names if name.startswith(f"{classifier}.")), last)
    return tensors[last].shape[0] if last in tensors and tensors[last].ndim > 0 else 1000


def input_channels_in(tensors: Mapping[str, Tensor], network: nn.Module) -> int:
    """Input channels of the first convolution in `tensors`; 3 if the network has none or the tensors lack it."""
    name, convolution = first_convolution(network)
    weight = tensors.get(f"{name}.weight")
    return 3 if convolution is None or weight is None or weight.ndim != 4 else int(weight.shape[1])


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d | None]:
    """(name, module) of the first convolution in the order of registration."""
    return next(
        ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)),
        ("", None),
    )


def explain(path: Path) -> str:
    """What a file is that cannot be read as weights, to complete the sentence "got ..."."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page, as left by a failed download"
    if path.suffix in _SUFFIXES:
        return _SUFFIXES[path.suffix]
    if head.startswith(b"PK"):
        return _zip(path)
    if head.startswith(b"\x80") and path.suffix != ".safetensors":
        return "a pickle of Python objects"
    return "a file that is truncated, damaged or of an unknown format"


_CONVERT = "convert it to safetensors, or save the network from PyTorch"
_MAGIC = (
    (b"\x89HDF\r\n", f"Keras's HDF5: {_CONVERT}"),
    (b"GGUF", f"GGUF: {_CONVERT}"),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file: fetch it with `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)
_SUFFIXES = {
    ".onnx": f"ONNX: {_CONVERT}",
    ".h5": f"Keras's HDF5: {_CONVERT}",
    ".keras": f"Keras's format: {_CONVERT}",
    ".tflite": f"TensorFlow Lite: {_CONVERT}",
    ".pb": f"a TensorFlow graph: {_CONVERT}",
    ".index": f"a TensorFlow checkpoint's index: {_CONVERT}",
    ".msgpack": f"Flax's format: {_CONVERT}",
    ".npz": f"NumPy arrays: {_CONVERT}",
    ".npy": f"a NumPy array: {_CONVERT}",
}


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "a torch file that is truncated or damaged"
    if any("/code/" in name for name in names):
        return "a TorchScript program: save the state dict of the original network"
    if any(name.endswith("data.pkl") for name in names):
        return "a torch file that is damaged"
    shown = (names[0] if names else "empty") + (", ..." if len(names) > 1 else "")
    return f"a zip archive that is not a checkpoint ({shown})"


def _read(path: Path) -> Any:
    """The contents of the file; only tensors, containers, numbers, texts and a few plain classes are created."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with _SAFE_GLOBALS, _plain_classes():
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip, pickle and torch each raise their own
        what = explain(path)
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is not None:
            # torch's own message recommends reading the file with code execution allowed
            what = f"Python objects ({named.group(1)}), which cannot be loaded without running code: {_HOW}"
        raise WrongWeights(f"expected a state dict in {path}, got {what}") from error


def _plain_classes() -> contextlib.AbstractContextManager[None]:
    """Allows plain data that training scripts save with the weights: NumPy numbers, options."""
    numbers = (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_, np.uint8)
    kinds = [type(np.dtype(number)) for number in numbers]
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    allowed = [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *kinds,
        argparse.Namespace,
    ]
    return torch.serialization.safe_globals(allowed)


def _holds_tensors(found: Mapping[Any, Any]) -> bool:
    """Whether most values are tensors: a state dict, not a dict that contains one."""
    return 2 * sum(isinstance(value, Tensor) for value in found.values()) > len(found)


def _contents(found: Mapping[Any, Any]) -> str:
    keys = [str(key) for key in found]
    valid = ", ".join((*AVERAGES, *WEIGHTS))
    if not keys:
        return "an empty dict"
    if {"state", "param_groups"} <= set(keys):
        return f"an optimizer's state: {_HOW}"
    if "optimizer" in keys and not any(key in keys for key in (*AVERAGES, *WEIGHTS)):
        listed = ", ".join(keys[:8])
        return (
            f"an optimizer's state without weights (keys {listed}): weights are expected under one of {valid}"
        )
    listed = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
    return f"a dict with keys {listed}: weights are expected under one of {valid}"


def _name_of(found: Any) -> str:
    name = type(found).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _without_leftovers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in _LEFTOVERS}


def _prefixes(tensors: Mapping[str, Tensor], expected: list[str]) -> Iterator[str]:
    """All prefixes of a few expected names, shortest first."""
    probes = {expected[0], expected[len(expected) // 2], expected[-1]} if expected else set()
    found = {
        name[: -len(probe)]
        for name in tensors
        for probe in probes
        if name.endswith(f".{probe}") or name == probe
    }
    yield from sorted(found, key=lambda prefix: (len(prefix), prefix))


def _count(names: list[str]) -> str:
    """`3 tensors (first, ...)`."""
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({names[0]}{', ...' if len(names) > 1 else ''})"


def checked_folder(folder: Path) -> None:
    """Check that a folder's weights are files that transformers and timm read.

    Raises:
        WrongWeights: there are none, parts are missing, or they are an adapter's; the message says what was
            found.
    """
    names = sorted(path.name for path in folder.iterdir())
    if "adapter_config.json" in names:
        raise WrongWeights(
            f"expected the weights of a whole network in {folder}, got a PEFT adapter (adapter_config.json): "
            "merge it into its base model (merge_and_unload in PEFT) and save the result"
        )
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if index not in names or any(whole in names for whole in WHOLE_FILES):
            continue
        try:
            parts = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WrongWeights(
                f"expected an index of weights in {folder / index}, got a file that cannot be read: {first_line(error)}"
            ) from error
        absent = [part for part in parts if part not in names]
        if absent:
            raise WrongWeights(
                f"expected the {len(parts)} files that {folder / index} lists, got none for {', '.join(absent)}"
            )
        return
    if any(name in names for name in WHOLE_FILES):
        return
    others = [name for name in names if Path(name).suffix in _WEIGHT_SUFFIXES]
    there = f"{', '.join(others[:5])}" if others else "no file of weights"
    if others and Path(others[0]).suffix not in (".safetensors", ".bin", ".pt", ".pth"):
        there += f", which is {explain(folder / others[0])}"
    elif others:
        there += ": rename it to one of these"
    raise WrongWeights(f"expected {' or '.join(WHOLE_FILES)} in {folder}, got {there}")


WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
_WEIGHT_SUFFIXES = {*_SUFFIXES, ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf"}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        WrongWeights: the file contains something else, or cannot be read.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WrongWeights(f"expected JSON in {path}, got a file that cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise WrongWeights(f"expected a JSON object in {path}, got {type(found).__name__}")
    return found
