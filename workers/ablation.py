"""A causal check: do the channels that an attack moves most carry it?

Channels are held at a constant, the mean of the clean image's map, for every image that passes; then the attack is
searched anew on the network so held. If they carry the attack, it needs a larger epsilon than where as many other
channels of the same layers are held.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workers.gradients import precision
from workers.taps import Tap, Tappable, as_nchw, record_taps

# Channels that are held, by layer.
Units = Mapping[str, Sequence[int]]


def clean_means(model: Tappable, taps: Sequence[Tap], pixels: Tensor) -> dict[str, Tensor]:
    """C for each layer: the mean over positions of each channel's map for one image 3,H,W."""
    means: dict[str, Tensor] = {}

    def note(tap: Tap, output: Tensor) -> None:
        means[tap.layer] = as_nchw(tap, output)[0].flatten(1).mean(1).clone()

    with torch.inference_mode(), precision("float32", pixels.device), record_taps(model, taps, note):
        model(pixels.unsqueeze(0))
    return means


@contextmanager
def held(model: Tappable, taps: Sequence[Tap], units: Units, means: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, the `units` of `model` give their value in `means` at every position, for every image."""
    by_module: dict[str, dict[int, Tap]] = {}
    for tap in taps:
        if units.get(tap.layer):
            by_module.setdefault(tap.module, {})[tap.call] = tap
    calls: Counter[str] = Counter()

    def begin(_network: nn.Module, _arguments: tuple[Any, ...]) -> None:
        calls.clear()  # counts calls of one forward pass

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def hold(_module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
            tap = by_module[name].get(calls[name])
            calls[name] += 1
            if tap is None:
                return None
            output = output.clone()
            channels = list(units[tap.layer])
            # a copy: means are made in inference mode, which autograd does not take
            values = means[tap.layer][channels].clone()
            if tap.order is None:
                as_nchw(tap, output)[:, channels] = values.view(1, -1, 1, 1)
            else:
                output[:, torch.tensor(tap.order)[:, None], torch.tensor(channels)] = values
            return output

        return hold

    with ExitStack() as stack:
        stack.callback(model.network.register_forward_pre_hook(begin).remove)
        for name in by_module:
            stack.callback(model.network.get_submodule(name).register_forward_hook(hook(name)).remove)
        yield


def random_units(taps: Sequence[Tap], units: Units, *, seed: int) -> dict[str, list[int]]:
    """As many channels of the same layers, none of them among `units` while others are left."""
    generator = torch.Generator().manual_seed(seed)
    channels = {tap.layer: tap.channels for tap in taps}
    drawn = {}
    for layer, taken in sorted(units.items()):
        order = torch.randperm(channels[layer], generator=generator).tolist()
        others = [channel for channel in order if channel not in taken]
        drawn[layer] = sorted((others + [channel for channel in order if channel in taken])[: len(taken)])
    return drawn
