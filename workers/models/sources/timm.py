"""timm's classifiers, with timm's weights, a folder in timm's hub layout, or a user's state dict."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workers.models.checkpoints import (
    WHOLE_FILES,
    Checkpoint,
    checked_folder,
    classes_in,
    fit_names,
    input_channels_in,
    load_exactly,
    mismatches,
    read_checkpoint,
    read_json,
)
from workers.models.hub import HubUnreachable, fetch_file, fetch_repository
from workers.models.networks import (
    LoadedNetwork,
    ModelUnavailable,
    UnknownModel,
    WrongWeights,
    check_problem,
    first_line,
)
from workers.models.preprocessing import Fit, Preprocessing
from workers.models.sources.torchvision import default_vocabulary, unknown, vocabulary_assumed
from workers.models.vocabularies import (
    IMAGENET,
    Vocabulary,
    imagenet,
    is_wnid,
    vocabulary_of_labels,
    vocabulary_of_wnids,
)
from workers.torchvision_import import import_library


def load_timm(reference: str, *, name: str, models_folder: Path | None, hub_timeout: float) -> LoadedNetwork:
    """Load `reference`: a timm model name, with or without its pretrained tag (`resnet50.a1_in1k`, `resnet50`).

    Raises:
        UnknownModel: timm has no such model, or no weights for it.
        ModelUnavailable: the weights are neither installed nor downloadable.
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
            f"timm:{reference} cannot be fetched ({error}): run {how} on a machine with internet access "
            f"and put the result in {models_folder or 'the models folder'} as {tagged}"
        ) from error
    try:
        network = timm.create_model(tagged, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    except Exception as error:  # whatever torch.load and the model's own loader raise
        read_checkpoint(path)
        raise WrongWeights(
            f"expected timm's weights of {tagged} in {path}, got a file that does not match: {first_line(error)}"
        ) from error
    return _loaded(network, name=name, source=f"timm:{tagged}", whose=f"timm's {tagged}")


def load_timm_folder(folder: Path, *, name: str, source: str) -> LoadedNetwork:
    """Load a folder as timm's `save_for_hf` writes it and the hub stores it: `config.json` and `model.safetensors`.

    transformers' TimmWrapper writes the same, with the prefix `timm_model.` on tensor names.

    Raises:
        UnknownModel: `config.json` names no timm architecture.
        WrongWeights: the folder does not contain what its `config.json` says.
    """
    timm = _timm()
    path = folder / "config.json"
    settings = read_json(path)
    architecture = settings.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise UnknownModel(f"{path}: architecture: {unknown('timm', str(architecture), timm.list_models())}")
    checked_folder(folder)
    described = isinstance(settings.get("pretrained_cfg"), dict)
    # timm does not define it; transformers' TimmWrapper writes it, and users put it next to the labels
    for place in (settings, settings["pretrained_cfg"] if described else {}):
        check_problem(place.get("problem_type"), folder)
    try:
        if described and settings.get("model_args", {}) is not None:
            network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=False)
        else:
            arguments = dict(settings.get("model_args") or {})
            if described:  # transformers' TimmWrapper writes null for no arguments, which timm does not read
                arguments["pretrained_cfg"] = settings["pretrained_cfg"]
            if isinstance(settings.get("num_classes"), int):
                arguments["num_classes"] = settings["num_classes"]
            network = timm.create_model(architecture, pretrained=False, **arguments)
    except Exception as error:  # an invalid value raises whatever it leads to
        raise WrongWeights(f"expected a timm model in {path}, got: {first_line(error)}") from error
    file = next(folder / file for file in WHOLE_FILES if (folder / file).is_file())
    checkpoint = fit_names(read_checkpoint(file), network)
    network, notes = _filled(
        network, checkpoint, architecture=architecture, folder=folder if described else None
    )
    labels = settings.get("label_names")
    loaded = _loaded(
        network,
        name=name,
        source=source,
        whose=str(path) if described else f"timm's default of {architecture}, assumed",
        labels=labels if isinstance(labels, list) else None,
    )
    return replace(loaded, notes=(*notes, *loaded.notes))


def _filled(
    network: nn.Module, checkpoint: Checkpoint, *, architecture: str, folder: Path | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """(`network` with the checkpoint's weights, notes); reparameterized if the checkpoint is.

    Args:
        folder: where timm's own loader finds the same weights: it knows the names used by other projects.

    Raises:
        WrongWeights: the weights do not fit.
    """
    if not mismatches(network.state_dict(), checkpoint.tensors):
        load_exactly(network, checkpoint, architecture=architecture)
        return network, checkpoint.notes
    fused = import_library("timm.utils").reparameterize_model(network)
    if not mismatches(fused.state_dict(), checkpoint.tensors):
        load_exactly(fused, checkpoint, architecture=architecture)
        note = (
            f"{checkpoint.path.name} contains the reparameterized network, with branches fused for inference"
        )
        return fused, (*checkpoint.notes, note)
    renamed = _renamed_by_timm(folder) if folder is not None else None
    if renamed is not None:
        return renamed, (*checkpoint.notes, f"timm translated the names in {checkpoint.path.name}")
    load_exactly(network, checkpoint, architecture=architecture)  # raises, with the mismatches
    raise AssertionError("mismatches that load_exactly accepts")


def _renamed_by_timm(folder: Path) -> nn.Module | None:
    """The folder's network as timm's own loader fills it; None if any tensor stays randomly initialized."""
    made: list[nn.Module] = []
    try:
        for seed in (0, 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                made.append(_timm().create_model(f"local-dir:{folder}", pretrained=True))
    except Exception:  # the caller reports what does not fit
        return None
    first, second = (network.state_dict() for network in made)
    return made[0] if all(torch.equal(first[name], second[name]) for name in first) else None


def load_timm_file(architecture: str, path: Path, *, name: str, source: str) -> LoadedNetwork:
    """timm's `architecture` with the state dict in `path`; the preprocessing is that of its default weights.

    Raises:
        UnknownModel: no such architecture.
        WrongWeights: the state dict does not fit.
    """
    timm = _timm()
    config = _config(architecture)
    read = read_checkpoint(path)
    network: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=1000)
    checkpoint = fit_names(read, network)
    classifier = config.classifier[0] if isinstance(config.classifier, tuple) else config.classifier
    classes = classes_in(checkpoint.tensors, network, classifier)
    channels = input_channels_in(checkpoint.tensors, network)
    if classes != 1000 or channels != 3:
        network = timm.create_model(architecture, pretrained=False, num_classes=classes, in_chans=channels)
    network, notes = _filled(network, checkpoint, architecture=architecture)
    preprocessing, note = preprocessing_of_timm(network)
    assumed = f"assumed to be that of timm's {architecture}"
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=str(config.architecture),
        preprocessing=preprocessing,
        vocabulary=default_vocabulary(classes, model=name),
        preprocessing_note=f"{assumed}; {note}" if note else assumed,
        preprocessing_source=f"timm's {architecture}, assumed",
        vocabulary_source=vocabulary_assumed(classes),
        notes=notes,
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
    except RuntimeError:  # the architecture exists, the tag does not
        config = None
    if config is None:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise UnknownModel(f"expected weights of timm:{architecture} among {tags}, got {reference!r}")
    return config


def _loaded(
    network: nn.Module, *, name: str, source: str, whose: str, labels: list[str] | None = None
) -> LoadedNetwork:
    preprocessing, note = preprocessing_of_timm(network)
    vocabulary, named_by = _vocabulary(network, name=name, whose=whose, labels=labels)
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=str(network.pretrained_cfg["architecture"]),  # type: ignore[index]
        preprocessing=preprocessing,
        vocabulary=vocabulary,
        preprocessing_note=note,
        preprocessing_source=whose,
        vocabulary_source=named_by,
    )


def preprocessing_of_timm(network: nn.Module) -> tuple[Preprocessing, str | None]:
    """(the preprocessing of timm's `create_transform` for evaluation, from the same configuration, and a note).

    Raises:
        WrongWeights: the configuration is not valid for evaluation, or the network takes neither 3 channels
            nor 1.
    """
    data = import_library("timm.data").resolve_model_data_config(network)
    channels = _channels(network, data["input_size"][0])
    _, height, width = data["input_size"]
    scaled = (math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"]))
    mean, std = tuple(data["mean"]), tuple(data["std"])
    note = None
    if channels == 1 and len(mean) == 3:
        note = "mean and std are given for three channels: using their averages for the gray channel"
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    if channels == 3 and len(mean) == 1:
        mean, std = mean * 3, std * 3
    resize: int | tuple[int, int] = scaled
    fit: Fit = "exact"
    fill: tuple[int, ...] = ()
    if data["crop_mode"] == "border":
        fit, fill = "contain", tuple(round(255 * value) for value in mean)
    elif data["crop_mode"] != "squash":  # timm treats any other text as its default, "center"
        if scaled[0] == scaled[1]:
            resize = scaled[0]
        else:
            fit = "cover"
    try:
        made = Preprocessing(
            input_size=(height, width),
            resize=resize,
            interpolation=data["interpolation"],
            mean=mean,
            std=std,
            fit=fit,
            fill=fill,
        )
    except ValueError as error:
        raise WrongWeights(f"expected preprocessing that timm uses for evaluation, got {error}") from error
    return made, note


def _channels(network: nn.Module, configured: int) -> int:
    """Channels of the network's input.

    Raises:
        WrongWeights: neither 3 nor 1.
    """
    found = import_library("timm.models").get_model_input_config(network)["input_size"][0]
    channels = int(found or configured)
    if channels not in (1, 3):
        raise WrongWeights(
            f"expected a network of 3 input channels (RGB) or 1 (gray), got one of {channels} (in_chans)"
        )
    return channels


def _vocabulary(
    network: nn.Module, *, name: str, whose: str, labels: list[str] | None
) -> tuple[Vocabulary, str]:
    """(vocabulary, source of its names)."""
    timm_data = import_library("timm.data")
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    classes: int = network.num_classes  # type: ignore[assignment]
    found = labels or config.get("label_names")
    descriptions = config.get("label_descriptions") or {}
    if isinstance(found, dict):  # timm's format for labels with gaps
        found = [found.get(index, found.get(str(index), f"class {index}")) for index in range(classes)]
    if found and len(found) == classes:
        vocabulary = vocabulary_of_labels(list(found), model=name)
        if vocabulary.name != IMAGENET and isinstance(descriptions, dict) and is_wnid(found[0]):
            vocabulary = vocabulary_of_wnids(list(found), descriptions, model=name)
        return vocabulary, f"label_names of {whose}"
    subset = timm_data.infer_imagenet_subset({"num_classes": classes})
    if subset == "imagenet-1k":
        return imagenet(), vocabulary_assumed(classes)
    if subset is not None:
        info = timm_data.ImageNetInfo(subset)
        vocabulary = vocabulary_of_wnids(
            info.label_names(), info.label_descriptions(as_dict=True), model=name
        )
        return vocabulary, f"{subset}, assumed from {classes:,} logits"
    return default_vocabulary(classes, model=name), vocabulary_assumed(classes)
