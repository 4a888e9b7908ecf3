"""Accuracy of a network, its agreement with the teacher, and the table of the model card."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from precompute.demo.data import Bytes, Images
from precompute.demo.network import normalized, to_pixels

# Columns of the model card, by the keys of `measure`.
CARD_COLUMNS = {
    "images": "count",
    "top1": "top-1",
    "top5": "top-5",
    "median_rank": "median rank of the label",
    "top1_of_occurring": "top-1 among the classes that occur",
    "agreement": "agreement with the teacher's top-1",
    "teacher_top1": "teacher's top-1",
}


def logits_of(network: nn.Module, pixels: Bytes) -> Tensor:
    """Logits N,1000 of `pixels` uint8 N,S,S,3."""
    network.eval()
    with torch.inference_mode():
        return torch.cat(
            [
                network(normalized(to_pixels(pixels[start : start + 250]))).logits
                for start in range(0, len(pixels), 250)
            ]
        )


def measure(network: nn.Module, images: Images, teacher: npt.NDArray[np.float16]) -> dict[str, float]:
    """The values of `CARD_COLUMNS`: fractions of `images`, and the median rank of the label (1 if correct).

    Args:
        teacher: probabilities N,1000.
    """
    logits = logits_of(network, images.pixels)
    labels = torch.from_numpy(images.labels)
    first = logits.argmax(1)
    occurring = torch.from_numpy(np.unique(images.labels))
    return {
        "images": len(images),
        "top1": (first == labels).double().mean().item(),
        "top5": (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item(),
        "median_rank": float(np.median(1 + (logits > logits.gather(1, labels[:, None])).sum(1).numpy())),
        "top1_of_occurring": (occurring[logits[:, occurring].argmax(1)] == labels).double().mean().item(),
        "agreement": float((first.numpy() == teacher.argmax(1)).mean()),
        "teacher_top1": float((teacher.argmax(1) == images.labels).mean()),
    }


def card_row(name: str, numbers: Mapping[str, float]) -> str:
    """A row of the model card's table."""
    words = {"images": f"{numbers['images']:,}", "median_rank": f"{numbers['median_rank']:g}"}
    cells = " | ".join(words[key] if key in words else f"{numbers[key]:.1%}" for key in CARD_COLUMNS)
    return f"| {name} | {cells} |"
