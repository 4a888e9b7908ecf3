"""torchvision's classifiers, with torchvision's weights or with a user's state dict."""

import contextlib
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from workers.models.checkpoints import (
    classes_in,
    first_convolution,
    fit_names,
    input_channels_in,
    load_exactly,
    read_checkpoint,
)
from workers.models.hub import HubUnreachable, fetch_file
from workers.models.networks import LoadedNetwork, ModelUnavailable, UnknownModel, WrongWeights, first_line
from workers.models.preprocessing import Interpolation, Preprocessing
from workers.models.vocabularies import Vocabulary, imagenet, vocabulary_of_labels
from workers.torchvision_import import import_library

_HUB_FOLDER = threading.Lock()


def architectures() -> list[str]:
    """Names of torchvision's image classifiers."""
    models = _models()
    # The other builders are in subpackages: torchvision.models.detection, .segmentation, .video, ...
    names: list[str] = models.list_models(module=models)
    return [name for name in names if not name.startswith("raft_")]


def load_torchvision(
    reference: str, *, name: str, models_folder: Path | None, hub_timeout: float
) -> LoadedNetwork:
    """Load `reference`: `NAME` for its default weights, or `NAME.WEIGHTS` such as `resnet50.IMAGENET1K_V1`.

    Raises:
        UnknownModel: no such architecture or weights.
        ModelUnavailable: the weights are neither installed nor downloadable.
    """
    architecture, weights = _weights(reference)
    file_name = Path(weights.url).name
    try:
        placed = models_folder / file_name if models_folder is not None else None
        if placed is not None and placed.is_file():
            path = placed
        else:
            from torch.hub import get_dir

            path = fetch_file(weights.url, Path(get_dir()) / "checkpoints" / file_name, timeout=hub_timeout)
    except HubUnreachable as error:
        raise ModelUnavailable(
            f"torchvision:{reference} cannot be fetched ({error}): download {weights.url} on a machine "
            f"with internet access and put it in {models_folder or 'the models folder'} as {file_name}"
        ) from error
    try:
        with _checkpoint(path):
            network: nn.Module = _models().get_model(architecture, weights=weights)
    except Exception as error:  # errors of torch.load, and a state dict of another network
        read_checkpoint(path)
        raise WrongWeights(
            f"expected the weights {weights.name} of {architecture} in {path}, got a file that does not match: "
            f"{first_line(error)}"
        ) from error
    return LoadedNetwork(
        network=network,
        source=f"torchvision:{architecture}.{weights.name}",
        architecture=architecture,
        preprocessing=preprocessing_of_weights(weights),
        vocabulary=vocabulary_of_labels(weights.meta["categories"], model=name),
        preprocessing_source=f"torchvision's weights {weights.name}",
        vocabulary_source=f"torchvision's weights {weights.name}",
    )


def load_torchvision_file(
    architecture: str, path: Path, *, name: str, source: str, transform_input: bool | None = None
) -> LoadedNetwork:
    """torchvision's `architecture` with the state dict in `path`; the preprocessing is its default weights'.

    Args:
        transform_input: whether GoogLeNet and Inception-v3 normalize once more, as the weights ported from
            TensorFlow need; None uses the value of torchvision's own weights, True.

    Raises:
        UnknownModel: no such architecture.
        WrongWeights: the state dict does not fit.
    """
    architecture, weights = _weights(architecture)
    ported = architecture in _PORTED
    if transform_input is not None and not ported:
        raise WrongWeights(
            f"transform_input: expected it for {' or '.join(_PORTED)} only, got it for {architecture}"
        )
    # their auxiliary classifiers are only used in training
    options: dict[str, Any] = {"aux_logits": False, "init_weights": False} if ported else {}
    read = read_checkpoint(path)
    read = replace(read, tensors={_OLD_NAMES.sub(r"\1\2", key): value for key, value in read.tensors.items()})
    network: nn.Module = _models().get_model(architecture, weights=None, **options)
    checkpoint = fit_names(read, network)
    if ported:
        tensors = {
            key: value for key, value in checkpoint.tensors.items() if not key.lower().startswith("aux")
        }
        checkpoint = replace(checkpoint, tensors=tensors)
    classes = classes_in(checkpoint.tensors, network)
    gray = input_channels_in(checkpoint.tensors, network) == 1
    notes = list(checkpoint.notes)
    if ported and not gray:
        options["transform_input"] = transform_input is not False
        if transform_input is None:
            notes.append(
                "transform_input is assumed to be true, as torchvision's own weights require; set "
                '"transform_input": false in convscope.json for a network trained from scratch'
            )
    if classes != 1000 or options:
        network = _models().get_model(architecture, weights=None, num_classes=classes, **options)
    if gray:
        _take_gray(network)
    load_exactly(network, checkpoint, architecture=architecture)
    preprocessing = preprocessing_of_weights(weights)
    note = f"assumed to be that of torchvision's own weights {weights.name}"
    if gray:
        preprocessing = preprocessing.in_gray()
        note += ", with the averages of its mean and std for the gray channel"
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=architecture,
        preprocessing=preprocessing,
        vocabulary=default_vocabulary(classes, model=name),
        preprocessing_note=note,
        preprocessing_source=f"torchvision's weights {weights.name}, assumed",
        vocabulary_source=vocabulary_assumed(classes),
        notes=tuple(notes),
        variant="transform_input" if options.get("transform_input") else "",
    )


_PORTED = ("googlenet", "inception_v3")
# DenseNet checkpoints of torchvision's first years: norm.1 instead of norm1
_OLD_NAMES = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var|num_batches_tracked))$"
)


def _take_gray(network: nn.Module) -> None:
    """Give `network` a first convolution with one channel."""
    name, first = first_convolution(network)
    assert first is not None
    parent, _, child = name.rpartition(".")
    made = nn.Conv2d(
        1,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    setattr(network.get_submodule(parent), child, made)


def default_vocabulary(classes: int, *, model: str) -> Vocabulary:
    """The vocabulary of unnamed logits: ImageNet-1k for 1,000 of them; for any other number, numbers as names."""
    if classes == 1000:
        return imagenet()
    return vocabulary_of_labels([f"class {index}" for index in range(classes)], model=model)


def vocabulary_assumed(classes: int) -> str:
    """The source of `default_vocabulary`, as shown to users."""
    return (
        "ImageNet-1k, assumed from 1,000 logits"
        if classes == 1000
        else "numbers: the weights do not name classes"
    )


def _models() -> Any:
    return import_library("torchvision.models")


def _weights(reference: str) -> tuple[str, Any]:
    """(architecture, member of its weights enumeration)."""
    models = _models()
    architecture, _, wanted = reference.partition(".")
    if architecture not in architectures():
        raise UnknownModel(unknown("torchvision", architecture, architectures()))
    choices = models.get_model_weights(architecture)
    if not wanted:
        return architecture, choices.DEFAULT
    if wanted not in choices.__members__:
        listed = ", ".join(choices.__members__)
        raise UnknownModel(f"expected weights of torchvision:{architecture} among {listed}, got {wanted!r}")
    return architecture, choices[wanted]


def unknown(source: str, name: str, names: list[str]) -> str:
    """Error message for a name that `source` does not know, with near matches."""
    import difflib

    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    hint = f": similar names are {', '.join(near)}" if near else ""
    return f"expected a classifier of {source}, got {name!r}{hint}"


@contextlib.contextmanager
def _checkpoint(path: Path) -> Iterator[None]:
    """Make torchvision's own builder find `path` where it looks for downloads.

    Its builders know the renamed keys and auxiliary heads of old checkpoints, so they do the loading.
    """
    import torch.hub

    with _HUB_FOLDER, tempfile.TemporaryDirectory() as folder:
        before = torch.hub.get_dir()
        checkpoints = Path(folder) / "checkpoints"
        checkpoints.mkdir()
        (checkpoints / path.name).symlink_to(path.resolve())
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)


def preprocessing_of_weights(weights: Any) -> Preprocessing:
    """The preprocessing that the weights' own `transforms()` apply to an image."""
    settings = weights.transforms()
    interpolation: Interpolation = settings.interpolation.value
    (crop,) = settings.crop_size
    (resize,) = settings.resize_size
    return Preprocessing(
        input_size=(crop, crop),
        resize=resize,
        interpolation=interpolation,
        mean=tuple(settings.mean),
        std=tuple(settings.std),
    )
