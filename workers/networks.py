"""What every source of models hands over, and the ways in which loading can fail."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from workers.preprocessing import Preprocessing
from workers.vocabularies import Vocabulary


class ModelError(Exception):
    """A model cannot be had; the message is one sentence for the person who named it."""


class UnknownModel(ModelError, ValueError):
    """What was typed names no model that any source knows."""


class ModelUnavailable(ModelError):
    """The model exists, but its weights are not here and cannot be fetched."""


class WrongWeights(ModelError):
    """The weights at hand do not belong to the architecture, or are not an image classifier's."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights, and all that its weights' configuration says.

    Attributes:
        network: takes normalised N,3,H,W; returns logits, or an object with `logits`.
        source: specification that loads this network again.
        preprocessing_note: one sentence where the preprocessing is assumed or only near; None where it is the
            weights' own.
        reverse_channels: the weights want B, G, R.
    """

    network: nn.Module
    source: str
    architecture: str
    preprocessing: Preprocessing
    vocabulary: Vocabulary
    preprocessing_note: str | None = None
    reverse_channels: bool = False


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name from a safetensors file, or from a torch file that holds nothing but tensors.

    Raises:
        WrongWeights: the file is something else, or would run code when read.
    """
    if not path.is_file():
        raise WrongWeights(
            f"expected a file of weights at {path}, got {'a folder' if path.is_dir() else 'nothing'}"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip, pickle and torch each raise their own
        raise WrongWeights(
            f"expected a state dict in {path}, got a file that cannot be read: {first_line(error)}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise WrongWeights(
            f"expected a state dict in {path}, got {type(loaded).__name__} with other things than tensors"
        )
    # left by nn.DataParallel, which wraps the whole network
    if loaded and all(name.startswith("module.") for name in loaded):
        loaded = {name.removeprefix("module."): value for name, value in loaded.items()}
    return loaded


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def load_exactly(
    network: nn.Module, weights: dict[str, torch.Tensor], *, path: Path, architecture: str
) -> None:
    """Load `weights` into `network` with every name and shape accounted for.

    `num_batches_tracked` may be absent: it plays no part in inference.

    Raises:
        WrongWeights: names or shapes differ; the message names the first of each kind.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in expected]
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
        for name, tensor in weights.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    faults = [
        f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if faults:
        raise WrongWeights(
            f"expected the weights of {architecture} in {path}, got tensors {', '.join(faults)}"
        )
    network.load_state_dict(weights, strict=False)
