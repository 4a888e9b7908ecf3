"""Vision models: a network with the preprocessing and the vocabulary that its weights were trained with.

A model is named by a specification:

    convnext-tiny                   a named model, see `NAMED_MODELS`
    hf:ORG/NAME                     Hugging Face hub
    torchvision:NAME[.WEIGHTS]      torchvision, e.g. torchvision:resnet50.IMAGENET1K_V1
    timm:NAME[.TAG]                 timm, e.g. timm:resnet50.a1_in1k
    torchvision:NAME@FILE           your own state dict for that architecture; likewise timm:NAME@FILE
    a folder                        as `save_pretrained` writes it, or with a `convscope.json`
                                    (see `workers.models.sources.folder`)

Weights are never initialized at random: a model loads completely, or an exception explains why not.
"""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from workers.models.hub import HubUnreachable, fetch_repository
from workers.models.names import (
    LOADERS,
    NAMED_MODELS,
    NamedModel,
    model_name,
    name_problem,
    placed_folder,
    spec_path,
    unknown_model,
)
from workers.models.networks import (
    LoadedNetwork,
    ModelError,
    ModelUnavailable,
    UnknownModel,
    WrongWeights,
    first_line,
)
from workers.models.preprocessing import Preprocessing
from workers.models.sources.folder import load_efficientnet_lite0, load_file, load_folder
from workers.models.sources.huggingface import load_huggingface
from workers.models.sources.timm import load_timm
from workers.models.sources.torchvision import load_torchvision
from workers.models.vocabularies import ClassEntry, Vocabulary, two_classes

__all__ = [
    "NAMED_MODELS",
    "ClassEntry",
    "ModelError",
    "ModelUnavailable",
    "NamedModel",
    "UnknownModel",
    "VisionModel",
    "Vocabulary",
    "WrongWeights",
    "load_model",
    "model_name",
]


class VisionModel(nn.Module):
    """A classifier of pixels.

    Attributes:
        name: short and usable in URLs; shown in tables and pages.
        source: specification that loads it again.
        network: the bare network; its input is normalized.
        preprocessing_note: a sentence if the preprocessing is assumed or approximate, else None.
        one_logit: the network has one logit z, read as two classes with the logits -z/2 and z/2; `head_note`
            says so.
        preprocessing_source, vocabulary_source: where they were read, or whose they are assumed to be.
        notes: sentences about choices made while loading.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, loaded: LoadedNetwork, *, name: str) -> None:
        super().__init__()
        self.name = name
        self.source = loaded.source
        self.architecture = loaded.architecture
        self.preprocessing: Preprocessing = loaded.preprocessing
        self.preprocessing_note = loaded.preprocessing_note
        self.vocabulary = loaded.vocabulary
        self.reverse_channels = loaded.reverse_channels
        self.one_logit = False
        self.head_note: str | None = None
        self.variant = loaded.variant
        self.preprocessing_source = loaded.preprocessing_source
        self.vocabulary_source = loaded.vocabulary_source
        self.notes = loaded.notes
        self.network = loaded.network
        self.parameter_count = sum(parameter.numel() for parameter in self.network.parameters())
        self.register_buffer(
            "mean", torch.tensor(self.preprocessing.mean).view(1, -1, 1, 1), persistent=False
        )
        self.register_buffer("std", torch.tensor(self.preprocessing.std).view(1, -1, 1, 1), persistent=False)

    @property
    def channels(self) -> int:
        """Channels of the pixels that the model takes: 3 for R, G, B, 1 for gray."""
        return self.preprocessing.channels

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits N,C of `pixels`, float N,3,H,W (N,1,H,W for a gray model) in [0, 1].

        Normalizes inside, so gradients are with respect to pixels.
        """
        expected = (pixels.shape[0], self.channels)
        assert pixels.ndim == 4, f"expected pixels N,{self.channels},H,W, got {tuple(pixels.shape)}"
        assert pixels.shape[:2] == expected, (
            f"expected pixels N,{self.channels},H,W, got {tuple(pixels.shape)}"
        )
        normalised = (pixels - self.mean) / self.std
        if self.reverse_channels:
            normalised = normalised.flip(1)
        output = self.network(normalised)
        if isinstance(output, Tensor):
            logits = output
        else:
            # PP-LCNet in transformers returns its logits under the other name
            logits = output.logits if hasattr(output, "logits") else output.last_hidden_state
        # the softmax of -z/2 and z/2 is the sigmoid of z, so code for many classes also works for this one
        return torch.cat([-logits / 2, logits / 2], dim=1) if self.one_logit else logits

    def weights_sha256(self) -> str:
        """SHA-256 over the network's parameters and buffers in name order: names, types, shapes, bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy() if flat.numel() else b"")
        return digest.hexdigest()

    def digest(self, weights_sha256: str) -> str:
        """SHA-256 over everything that the model's numbers depend on: weights, preprocessing, classes."""
        facts = [
            weights_sha256,
            self.architecture,
            self.preprocessing,
            self.reverse_channels,
            self.vocabulary,
            *([self.variant] if self.variant else []),
        ]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def load_model(
    spec: str,
    *,
    device: str | torch.device = "cpu",
    hub_timeout: float = 20.0,
    models_folder: Path | None = None,
    name: str | None = None,
) -> VisionModel:
    """The model that `spec` names, in evaluation mode, its parameters without gradients.

    Args:
        spec: see the module docstring.
        hub_timeout: seconds without a byte from a hub before giving up.
        models_folder: where users put models downloaded elsewhere; searched before any hub.
        name: its name, of letters, digits and ``._-``; default `model_name(spec)`.

    Raises:
        UnknownModel: `spec` names nothing, or `name` has other characters.
        ModelUnavailable: the weights are not installed and cannot be downloaded in time.
        WrongWeights: the weights do not fill the network, or it does not classify.
    """
    spec = spec.strip()
    problem = name_problem(name)
    if problem is not None:
        raise UnknownModel(problem)
    name = name or model_name(spec)
    loaded = _load(spec, name=name, models_folder=models_folder, hub_timeout=hub_timeout)
    model = VisionModel(loaded, name=name).eval().requires_grad_(False)
    _settle_head(model)
    return model.to(device)


DEMO_FOLDER = Path(__file__).with_name("convnext_demo")


def _load(spec: str, *, name: str, models_folder: Path | None, hub_timeout: float) -> LoadedNetwork:
    wanted = NAMED_MODELS[spec].spec if spec in NAMED_MODELS else spec
    kind, _, reference = wanted.partition(":")
    if wanted == "package:efficientnet-lite0":
        return load_efficientnet_lite0(source=reference)
    if wanted == "package:convnext-demo":
        return load_folder(DEMO_FOLDER, name=name, source=reference)
    if kind in LOADERS and reference:
        architecture, at, file = reference.partition("@")
        if at:
            path = spec_path(file)
            return load_file(
                f"{kind}:{architecture}", path, name=name, source=f"{kind}:{architecture}@{path}"
            )
        placed = placed_folder(spec, reference, models_folder)
        if placed is not None:
            return load_folder(placed, name=name, source=wanted)
        if kind == "torchvision":
            return load_torchvision(
                reference, name=name, models_folder=models_folder, hub_timeout=hub_timeout
            )
        if kind == "timm":
            return load_timm(reference, name=name, models_folder=models_folder, hub_timeout=hub_timeout)
        return _from_hub(
            reference, spec=spec, name=name, models_folder=models_folder, hub_timeout=hub_timeout
        )
    folder = spec_path(wanted)
    if wanted and folder.is_dir():
        return load_folder(folder.resolve(), name=name, source=str(folder.resolve()))
    placed = placed_folder(spec, spec, models_folder) if spec and "/" not in spec else None
    if placed is not None:
        return load_folder(placed, name=name, source=str(placed))
    raise UnknownModel(unknown_model(spec, models_folder))


def _from_hub(
    repository: str, *, spec: str, name: str, models_folder: Path | None, hub_timeout: float
) -> LoadedNetwork:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise UnknownModel(f"expected hf:ORG/NAME, got {spec!r}")
    try:
        folder = fetch_repository(repository, timeout=hub_timeout)
    except HubUnreachable as error:
        target = (models_folder or Path("MODELS_FOLDER")) / name
        raise ModelUnavailable(
            f"hf:{repository} cannot be fetched ({error}): run `hf download {repository} --local-dir {name}` where "
            f"there is internet and copy that folder to {target}, or give the folder in place of {spec!r}"
        ) from error
    return load_huggingface(folder, name=name, source=f"hf:{repository}")


def _blank_logits(model: VisionModel) -> Tensor:
    """Logits of a black image.

    Raises:
        WrongWeights: the network does not accept what the preprocessing produces.
    """
    pre = model.preprocessing
    try:
        with torch.inference_mode():
            logits: Tensor = model(torch.zeros(1, model.channels, *pre.input_size))
    except Exception as error:  # the error depends on where in the network's code the input fails
        height, width = pre.input_size
        raise WrongWeights(
            f"expected {model.source} to take an input of {pre.channels} channel{'s' * (pre.channels > 1)} and "
            f"{height} x {width} pixels, as its preprocessing says ({model.preprocessing_source or 'its own'}), got: "
            f"{first_line(error)}"
        ) from error
    return logits


def _settle_head(model: VisionModel) -> None:
    """Read one logit as two classes, and check that there is one logit per class."""
    logits = _blank_logits(model)
    if logits.shape == (1, 1) and len(model.vocabulary.classes) <= 2:
        model.one_logit = True
        model.vocabulary = two_classes(model.vocabulary)
        negative, positive = (entry.name for entry in model.vocabulary.classes)
        model.head_note = (
            f"one logit z, read as two classes: {positive!r} has probability sigmoid(z), {negative!r} the rest; "
            "their logits are z/2 and -z/2"
        )
        logits = _blank_logits(model)
    classes = len(model.vocabulary.classes)
    if logits.shape != (1, classes):
        raise WrongWeights(
            f"expected {classes} logits from {model.source}, one for each class of {model.vocabulary.name}, "
            f"got a result of shape {tuple(logits.shape)}"
        )
