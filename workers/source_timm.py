"""timm's classifiers, with timm's weights, a folder in timm's hub layout, or a state dict of one's own."""

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from workers.hub import HubUnreachable, fetch_file, fetch_repository
from workers.networks import (
    LoadedNetwork,
    ModelUnavailable,
    UnknownModel,
    WrongWeights,
    first_line,
    load_exactly,
    read_state_dict,
)
from workers.preprocessing import Preprocessing
from workers.source_torchvision import classes_in, default_vocabulary, unknown
from workers.torchvision_import import import_library
from workers.vocabularies import (
    IMAGENET,
    Vocabulary,
    imagenet,
    is_wnid,
    vocabulary_of_labels,
    vocabulary_of_wnids,
)


def load_timm(reference: str, *, name: str, models_folder: Path | None, hub_timeout: float) -> LoadedNetwork:
    """`reference` is a timm model name, with its pretrained tag or without (`resnet50.a1_in1k`, `resnet50`).

    Raises:
        UnknownModel: timm has no such model, or no weights for it.
        ModelUnavailable: the weights are neither here nor to be fetched.
    """
    timm = _timm()
    config = _config(reference)
    if not (config.hf_hub_id or config.url):
        raise UnknownModel(f"expected a timm model that has weights, got {reference!r}, which has none")
    tagged = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    if models_folder is not None and (models_folder / tagged / "config.json").is_file():
        return load_timm_folder(models_folder / tagged, name=name, source=f"timm:{tagged}")
    repository = config.hf_hub_id
    how = f"`hf download {repository} --local-dir {tagged}`" if repository else f"download {config.url}"
    try:
        if repository:
            folder = fetch_repository(repository, timeout=hub_timeout)
            return load_timm_folder(folder, name=name, source=f"timm:{tagged}")
        from torch.hub import get_dir

        path = fetch_file(
            config.url, Path(get_dir()) / "checkpoints" / Path(config.url).name, timeout=hub_timeout
        )
    except HubUnreachable as error:
        raise ModelUnavailable(
            f"timm:{reference} cannot be fetched ({error}): run {how} where there is internet and put the result "
            f"in {models_folder or 'the models folder'} under the name {tagged}"
        ) from error
    network = timm.create_model(tagged, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    return _loaded(network, name=name, source=f"timm:{tagged}")


def load_timm_folder(folder: Path, *, name: str, source: str) -> LoadedNetwork:
    """A folder as timm's `save_for_hf` writes it and the hub holds it: `config.json` and `model.safetensors`.

    Raises:
        WrongWeights: the folder does not hold what its `config.json` says.
    """
    timm = _timm()
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise WrongWeights(f"expected a timm model in {folder}, got: {first_line(error)}") from error
    return _loaded(network, name=name, source=source)


def load_timm_file(architecture: str, path: Path, *, name: str, source: str) -> LoadedNetwork:
    """timm's `architecture` with the state dict in `path`; the preprocessing is that of its default weights.

    Raises:
        UnknownModel: no such architecture.
        WrongWeights: the state dict does not fit.
    """
    timm = _timm()
    config = _config(architecture)
    tensors = read_state_dict(path)
    network: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=1000)
    classes = classes_in(tensors, network)
    if classes != 1000:
        network = timm.create_model(architecture, pretrained=False, num_classes=classes)
    load_exactly(network, tensors, path=path, architecture=architecture)
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=str(config.architecture),
        preprocessing=preprocessing_of_timm(network)[0],
        vocabulary=default_vocabulary(classes, model=name),
        preprocessing_note=f"assumed to be that of timm's {architecture}",
    )


def _timm() -> Any:
    return import_library("timm")


def _config(reference: str) -> Any:
    timm = _timm()
    architecture = reference.split(".")[0]
    if not timm.is_model(architecture):
        raise UnknownModel(unknown("timm", reference, timm.list_models()))
    try:
        config = timm.get_pretrained_cfg(reference, allow_unregistered=True)
    except RuntimeError:  # the architecture is there, the tag is not
        config = None
    if config is None:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise UnknownModel(f"expected weights of timm:{architecture} among {tags}, got {reference!r}")
    return config


def _loaded(network: nn.Module, *, name: str, source: str) -> LoadedNetwork:
    preprocessing, note = preprocessing_of_timm(network)
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=str(network.pretrained_cfg["architecture"]),  # type: ignore[index]
        preprocessing=preprocessing,
        vocabulary=_vocabulary(network, name=name),
        preprocessing_note=note,
    )


def preprocessing_of_timm(network: nn.Module) -> tuple[Preprocessing, str | None]:
    """(what timm's `create_transform` does for evaluation, from the same configuration, and a note)."""
    data = import_library("timm.data").resolve_model_data_config(network)
    _, height, width = data["input_size"]
    scaled = (math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"]))
    note = None
    resize: int | tuple[int, int] = min(scaled)
    if data["crop_mode"] == "squash":
        resize = scaled
    elif data["crop_mode"] != "center" or height != width:
        note = (
            f"timm's crop mode {data['crop_mode']!r} at {height} x {width} is approximated by a centre crop"
        )
    return (
        Preprocessing(
            input_size=(height, width),
            resize=resize,
            interpolation=data["interpolation"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        ),
        note,
    )


def _vocabulary(network: nn.Module, *, name: str) -> Vocabulary:
    timm_data = import_library("timm.data")
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    classes: int = network.num_classes  # type: ignore[assignment]
    labels = config.get("label_names")
    descriptions = config.get("label_descriptions") or {}
    if labels and len(labels) == classes:
        vocabulary = vocabulary_of_labels(list(labels), model=name)
        if vocabulary.name != IMAGENET and isinstance(descriptions, dict) and is_wnid(labels[0]):
            return vocabulary_of_wnids(list(labels), descriptions, model=name)
        return vocabulary
    subset = timm_data.infer_imagenet_subset({"num_classes": classes})
    if subset == "imagenet-1k":
        return imagenet()
    if subset is not None:
        info = timm_data.ImageNetInfo(subset)
        return vocabulary_of_wnids(info.label_names(), info.label_descriptions(as_dict=True), model=name)
    return default_vocabulary(classes, model=name)
