"""torchvision's classifiers, with torchvision's weights or with a state dict of one's own."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from workers.hub import HubUnreachable, fetch_file
from workers.networks import LoadedNetwork, ModelUnavailable, UnknownModel, load_exactly, read_state_dict
from workers.preprocessing import Interpolation, Preprocessing
from workers.torchvision_import import import_library
from workers.vocabularies import Vocabulary, imagenet, vocabulary_of_labels

_HUB_FOLDER = threading.Lock()


def architectures() -> list[str]:
    """Names of torchvision's image classifiers."""
    models = _models()
    # The other builders live in subpackages: torchvision.models.detection, .segmentation, .video, ...
    names: list[str] = models.list_models(module=models)
    return [name for name in names if not name.startswith("raft_")]


def load_torchvision(
    reference: str, *, name: str, models_folder: Path | None, hub_timeout: float
) -> LoadedNetwork:
    """`reference` is `NAME`, for its default weights, or `NAME.WEIGHTS` such as `resnet50.IMAGENET1K_V1`.

    Raises:
        UnknownModel: no such architecture or weights.
        ModelUnavailable: the weights are neither here nor to be fetched.
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
            f"torchvision:{reference} cannot be fetched ({error}): download {weights.url} where there is "
            f"internet and put it in {models_folder or 'the models folder'} under the name {file_name}"
        ) from error
    with _checkpoint(path):
        network: nn.Module = _models().get_model(architecture, weights=weights)
    return LoadedNetwork(
        network=network,
        source=f"torchvision:{architecture}.{weights.name}",
        architecture=architecture,
        preprocessing=preprocessing_of_weights(weights),
        vocabulary=vocabulary_of_labels(weights.meta["categories"], model=name),
    )


def load_torchvision_file(architecture: str, path: Path, *, name: str, source: str) -> LoadedNetwork:
    """torchvision's `architecture` with the state dict in `path`; the preprocessing is its default weights'.

    Raises:
        UnknownModel: no such architecture.
        WrongWeights: the state dict does not fit.
    """
    architecture, weights = _weights(architecture)
    tensors = read_state_dict(path)
    network: nn.Module = _models().get_model(architecture, weights=None)
    classes = classes_in(tensors, network)
    if classes != 1000:
        network = _models().get_model(architecture, weights=None, num_classes=classes)
    load_exactly(network, tensors, path=path, architecture=architecture)
    vocabulary = default_vocabulary(classes, model=name)
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=architecture,
        preprocessing=preprocessing_of_weights(weights),
        vocabulary=vocabulary,
        preprocessing_note=f"assumed to be that of torchvision's own weights {weights.name}",
    )


def classes_in(tensors: dict[str, Tensor], network: nn.Module) -> int:
    """Number of logits of the classifier in `tensors`: a classifier's last tensor has one row per logit."""
    last = list(network.state_dict())[-1]
    return tensors[last].shape[0] if last in tensors and tensors[last].ndim > 0 else 1000


def default_vocabulary(classes: int, *, model: str) -> Vocabulary:
    """1,000 logits without names are taken for ImageNet-1k; any other number gets numbers for names."""
    if classes == 1000:
        return imagenet()
    return vocabulary_of_labels([f"class {index}" for index in range(classes)], model=model)


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
    """Sentence for a name that `source` does not know, with near matches."""
    import difflib

    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    hint = f": near are {', '.join(near)}" if near else ""
    return f"expected a classifier of {source}, got {name!r}{hint}"


@contextlib.contextmanager
def _checkpoint(path: Path) -> Iterator[None]:
    """Let torchvision's own builder find `path` where it looks for downloads.

    Its builders know renamed keys and auxiliary heads of old checkpoints, so they do the loading.
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
    """What the weights' own `transforms()` do to a picture."""
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
