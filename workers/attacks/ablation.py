"""A causal check: do the channels that shift most under an attack carry it?

The channels are clamped to the mean of their map on the clean image, in every forward pass, and the search is
repeated on the clamped network. If the channels carry the attack, it needs a larger epsilon than when equally
many other live channels of the same layers are clamped: `judge` compares with many such random draws. All
searches run together, with one batch row per set of channels.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from workers.attribution.gradients import precision
from workers.layers.taps import Tap, Tappable, as_nchw, first_tensor, record_taps

# Channels to clamp, by layer.
Units = Mapping[str, Sequence[int]]
# Significance level: the chance that channels no different from random ones are said to carry the attack. A
# rank among n random draws can be that rare only if 1 / (n + 1) <= LEVEL, so from 19 draws.
LEVEL = 0.05
MIN_DRAWS = 19


def clean_means(model: Tappable, taps: Sequence[Tap], pixels: Tensor) -> dict[str, Tensor]:
    """C for each layer: the mean over positions of each channel's map for one image 3,H,W."""
    means: dict[str, Tensor] = {}

    def note(tap: Tap, output: Tensor) -> None:
        means[tap.layer] = as_nchw(tap, output)[0].flatten(1).mean(1).clone()

    with torch.inference_mode(), precision("float32", pixels.device), record_taps(model, taps, note):
        model(pixels.unsqueeze(0))
    return means


class Rows:
    """Which set of clamped channels applies to each image of the next forward pass; by default the first set."""

    def __init__(self) -> None:
        self.index: Tensor | None = None

    def choose(self, sets: Tensor) -> None:
        """Use set number `sets[i]` for row i; `sets` is N long."""
        self.index = sets


@contextmanager
def clamp_channels(
    model: Tappable, taps: Sequence[Tap], sets: Sequence[Units], means: Mapping[str, Tensor]
) -> Iterator[Rows]:
    """Within it, each image's set of channels, one of `sets`, has its value in `means` at every position."""
    rows = Rows()
    by_module: dict[str, dict[int, tuple[Tap, Tensor]]] = {}
    for tap in taps:
        mask = torch.zeros(len(sets), tap.channels, dtype=torch.bool)
        for number, units in enumerate(sets):
            mask[number, list(units.get(tap.layer, ()))] = True
        if mask.any():
            by_module.setdefault(tap.module, {})[tap.call] = tap, mask.to(means[tap.layer].device)
    calls: Counter[str] = Counter()

    def begin(_network: nn.Module, _arguments: tuple[Any, ...]) -> None:
        calls.clear()  # counts calls within one forward pass

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def hold(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
            found = by_module[name].get(calls[name])
            calls[name] += 1
            if found is None:
                return None
            tap, mask = found
            tensor, rebuilt = first_tensor(output)
            assert tensor is not None, f"expected a map from {tap.layer}, got {type(output).__name__}"
            index = rows.index
            chosen = mask[:1].expand(len(tensor), -1) if index is None else mask[index]
            assert len(chosen) == len(tensor), f"expected {len(chosen)} images, got {len(tensor)}"
            tensor = tensor.clone()
            maps = as_nchw(tap, tensor)
            # a copy: the means were made in inference mode, which autograd rejects
            values = means[tap.layer].clone().view(1, -1, 1, 1)
            kept = torch.where(chosen[:, :, None, None], values, maps)
            if tap.order is None:
                maps.copy_(kept)
            else:
                tensor[:, list(tap.order)] = kept.flatten(2).transpose(1, 2)
            return rebuilt(tensor)

        return hold

    with ExitStack() as stack:
        stack.callback(model.network.register_forward_pre_hook(begin).remove)
        for name in by_module:
            stack.callback(model.network.get_submodule(name).register_forward_hook(hook(name)).remove)
        yield rows


def random_sets(
    live: Mapping[str, Sequence[int]], units: Units, *, draws: int, seed: int
) -> tuple[list[dict[str, list[int]]], str | None]:
    """Distinct random sets of equally many live channels of the same layers, none of them among `units`.

    Returns fewer than `draws` sets, and the reason, if there are not enough.
    """
    pools = {layer: sorted(set(live[layer]) - set(taken)) for layer, taken in sorted(units.items())}
    for layer, pool in pools.items():
        if len(pool) < len(units[layer]):
            return [], f"{layer} has {len(pool)} other live channels, but {len(units[layer])} are needed"
    possible = math.prod(math.comb(len(pool), len(units[layer])) for layer, pool in pools.items())
    generator = torch.Generator().manual_seed(seed)
    found: list[dict[str, list[int]]] = []
    while len(found) < min(draws, possible):
        drawn = {
            layer: sorted(
                pool[i] for i in torch.randperm(len(pool), generator=generator)[: len(units[layer])]
            )
            for layer, pool in pools.items()
        }
        if drawn not in found:
            found.append(drawn)
    short = f"only {possible} sets of other live channels exist" if possible < draws else None
    return found, short


@dataclass(frozen=True)
class Verdict:
    """Whether clamped channels carry an attack.

    Attributes:
        verdict: `carry`, `no_more_than_random` or `cannot_say`.
        reason: a sentence with the numbers.
        counted: random draws that count: those that keep the class unchanged before any attack.
        less: counted draws that need a smaller epsilon than the channels in question.
        share_low, share_high: 95 % Clopper-Pearson interval of the share of random draws that need a smaller
            epsilon.
    """

    verdict: str
    reason: str
    counted: int = 0
    less: int = 0
    share_low: float | None = None
    share_high: float | None = None


def judge(
    attack: Mapping[str, Any],
    chosen: Mapping[str, Any],
    random: Sequence[Mapping[str, Any]],
    *,
    short: str | None = None,
) -> Verdict:
    """Compare, by rank, a search with the channels clamped to searches with random channels clamped.

    If the channels were no different from random ones, every rank among n draws would be equally likely:
    `less` of n are smaller, and a rank at least that large has probability (1 + n - less) / (n + 1). The
    channels carry the attack if this is at most `LEVEL` and if they need a larger epsilon than the unmodified
    network.

    Args:
        attack, chosen, random: `outcome` and `epsilon` of the attack itself, and of those with channels
            clamped.
        short: why there are fewer draws than requested.
    """
    if attack["outcome"] != "flipped" or not attack["epsilon"]:
        return Verdict("cannot_say", "the attack did not change the class")
    if chosen["outcome"] == "no_gradient":
        return Verdict("cannot_say", "with the channels clamped the gradient is zero")
    if chosen["epsilon"] == 0:
        return Verdict("cannot_say", "with the channels clamped the class changes before any attack")
    needed = [_needed(draw) for draw in random if draw["outcome"] != "no_gradient" and draw["epsilon"] != 0]
    mine = _needed(chosen)
    less = sum(epsilon < mine for epsilon in needed)
    if len(needed) < MIN_DRAWS:
        why = short or f"{len(needed)} of {len(random)} random draws keep the class before any attack"
        return Verdict("cannot_say", f"{why}; at least {MIN_DRAWS} are needed", len(needed), less)
    share = binomtest(less, len(needed)).proportion_ci(0.95, method="exact")
    chance = (1 + len(needed) - less) / (len(needed) + 1)
    counts = f"{less} of {len(needed)} random draws need a smaller epsilon"
    told = f"{counts} (95 % interval of that share {share.low:.0%} to {share.high:.0%}, chance {chance:.3f})"
    numbers = (len(needed), less, float(share.low), float(share.high))
    if mine <= attack["epsilon"]:
        held_back = "with the channels clamped the attack does not need a larger epsilon"
        return Verdict("no_more_than_random", f"{held_back}; {told}", *numbers)
    if chance <= LEVEL:
        return Verdict("carry", told, *numbers)
    if share.low <= 0.5:
        return Verdict("no_more_than_random", told, *numbers)
    return Verdict("cannot_say", f"{told}: more than most, but not significantly; use more draws", *numbers)


def _needed(search: Mapping[str, Any]) -> float:
    """The epsilon that a search needs: infinity if the image resisted."""
    return math.inf if search["epsilon"] is None else float(search["epsilon"])
