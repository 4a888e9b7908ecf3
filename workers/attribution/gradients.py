"""Gradients of logits with respect to pixels, within a memory budget."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from workers.requests.parameters import Value

Progress = Callable[[int, int], None]

# Bytes that a pass may keep for its backward pass. On a CPU a larger budget is no faster. Buffers of almost
# the same size come on top of it.
_GRAPH_BYTES = {"cpu": 290 << 20, "cuda": 4 << 30, "mps": 1 << 30}
_MOST = 64


class Network(Protocol):
    """The part of a vision model that gradients need."""

    network: nn.Module

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Logits N,C of pixels N,3,H,W in [0, 1]."""


def input_gradients(model: Network, pixels: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """d objective(logits) / d pixels, N,3,H,W. `objective` sums over images. Only the input gets a gradient."""
    with torch.enable_grad():
        batch = pixels.detach().clone().requires_grad_()
        # images do not interact in the network: each one's gradient of the sum is its own
        (gradient,) = torch.autograd.grad(objective(model(batch)), batch)
    return gradient


def logit_gradients(model: Network, pixels: Tensor, targets: Tensor) -> Tensor:
    """d logit[i, targets[i]] / d pixels[i], N,3,H,W."""
    return input_gradients(model, pixels, lambda logits: logits.gather(1, targets.unsqueeze(1)).sum())


def precision(dtype: Value, device: torch.device) -> AbstractContextManager[Any]:
    """Context manager in which the network computes in `dtype`: `float32` or `bfloat16`.

    float32 on CUDA means full float32 without TF32, as in the index (`precompute.index.forward`).
    """
    if dtype == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    return nullcontext()


_graph_bytes: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]] = WeakKeyDictionary()


def chunk_size(model: Network, pixels: Tensor) -> int:
    """Number of images per forward and backward pass whose graph fits the memory budget.

    Measured with one forward pass of one image, once per model and input size.
    """
    known = _graph_bytes.setdefault(model.network, {})
    size = tuple(pixels.shape[1:])
    if size not in known:
        known[size] = max(1, _kept_by_graph(model, pixels[:1]))
    budget = _GRAPH_BYTES.get(pixels.device.type, _GRAPH_BYTES["cpu"])
    return max(1, min(_MOST, budget // known[size]))


def _kept_by_graph(model: Network, pixels: Tensor) -> int:
    """Bytes that one image's graph keeps, excluding weights and counting shared storage once."""
    weights = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*model.network.parameters(), *model.network.buffers())
    }
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(pixels.detach().clone().requires_grad_())
        del logits
    return sum(kept.values())
