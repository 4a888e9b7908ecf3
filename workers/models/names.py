"""Names and specifications of models. Loads no torch: pages list them, and commands check them before loading."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from db.suggestions import hint


@dataclass(frozen=True)
class NamedModel:
    """A model with a short name.

    `spec` is its specification and `title` its display name; `download` is the size of its download in
    megabytes, 0 if the weights are installed with Convscope.
    """

    spec: str
    title: str
    download: int = 0


NAMED_MODELS: dict[str, NamedModel] = {
    "convnext-tiny": NamedModel("hf:facebook/convnext-tiny-224", "ConvNeXt-tiny (Liu et al. 2022)", 114),
    "resnet-50": NamedModel("hf:microsoft/resnet-50", "ResNet-50 (He et al. 2016)", 102),
    "mobilenet-v2": NamedModel("torchvision:mobilenet_v2", "MobileNetV2 (Sandler et al. 2018)", 14),
    "convnext-demo": NamedModel(
        "package:convnext-demo", "a small ConvNeXt-atto trained for Convscope, installed with it"
    ),
    "efficientnet-lite0": NamedModel(
        "package:efficientnet-lite0", "EfficientNet-Lite0 (Tan and Le 2019), installed with Convscope"
    ),
}
LOADERS = ("hf", "torchvision", "timm")
# The file that describes a model's folder, if `config.json` does not; see `workers.models.sources.folder`.
DESCRIPTION = "convscope.json"


def is_model_folder(folder: Path) -> bool:
    """Whether `folder` has one of the three layouts."""
    return (folder / DESCRIPTION).is_file() or (folder / "config.json").is_file()


def model_name(spec: str) -> str:
    """Short name of the model that `spec` specifies, of letters, digits and ``._-``.

    A named model keeps its name even if its specification is written out; a folder's name is the folder's
    own.
    """
    for known, named in NAMED_MODELS.items():
        if spec in (known, named.spec):
            return known
    kind, colon, reference = spec.partition(":")
    if colon and kind in LOADERS:
        architecture, at, file = reference.partition("@")
        text = f"{kind}-{architecture}-{Path(file).stem}" if at else f"{kind}-{reference}"
        text = text.removeprefix("hf-")
    else:
        text = spec_path(spec).resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "--", text).strip("-.") or "model"


def spec_path(text: str) -> Path:
    """The path with `~` expanded to the current user's home; `~nobody` stays as it is and does not exist."""
    with contextlib.suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def placed_folder(spec: str, reference: str, models_folder: Path | None) -> Path | None:
    """The folder below `models_folder` that a user filled for this model, by its short name or its hub name."""
    if models_folder is None:
        return None
    names = (model_name(spec), spec, reference, reference.replace("/", "--"), reference.rpartition("/")[2])
    for name in dict.fromkeys(names):
        candidate = models_folder / name
        if name and ".." not in name and is_model_folder(candidate):
            return candidate
    return None


def spec_problem(spec: str, models_folder: Path | None) -> str | None:
    """An error message if `spec` names no model, as far as is known without loading one; None if it may."""
    kind, _, reference = spec.strip().partition(":")
    if spec.strip() in NAMED_MODELS or (kind in LOADERS and reference) or spec.startswith("package:"):
        return None
    named = spec.strip() and (spec_path(spec.strip()).is_dir() or placed_folder(spec, spec, models_folder))
    return None if named else unknown_model(spec, models_folder)


def name_problem(name: str | None) -> str | None:
    """An error message if a model cannot have that name."""
    if name is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return None
    return f"name: expected up to 100 letters, digits and ._- after a letter or digit, got {name!r}"


def unknown_model(spec: str, models_folder: Path | None) -> str:
    """An error message for a specification that names nothing."""
    placed = []
    if models_folder is not None and models_folder.is_dir():
        placed = [path.name for path in models_folder.iterdir() if is_model_folder(path)]
    names = [*NAMED_MODELS, *placed]
    return (
        f"expected a model among {', '.join(names)}, or hf:ORG/NAME, torchvision:NAME, timm:NAME, "
        f"or a folder that exists, got {spec!r}{hint(spec, names)}"
    )
