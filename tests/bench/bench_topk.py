"""What the index costs on top of the forward pass: `python tests/bench/bench_topk.py [--rounds N]`.

Full-size ConvNeXt-tiny with random weights, 58 layers, 41,184 channels, k = 20. All methods process the same
batch in the same process, one after the other, round after round. The reported ratio is the median over
rounds of a method's time divided by the bare forward pass of the same round. The steady state is that after
`--seen` images: the k-th best values are set to where that many images would have brought them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from workers.models.speedups.runtime import restart_with_settings

K = 20


def convnext_tiny(seed: int = 0) -> Any:
    """Build a `VisionModel` of ConvNeXt-tiny's size with random weights."""
    import torch

    from workers.models.networks import LoadedNetwork
    from workers.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
    from workers.models.vision import VisionModel
    from workers.models.vocabularies import imagenet
    from workers.torchvision_import import import_library

    transformers = import_library("transformers")
    torch.manual_seed(seed)
    network = transformers.ConvNextForImageClassification(transformers.ConvNextConfig(num_labels=1000))
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale_parameter"):
            # trained networks start from 1e-6, which would make the blocks do nothing
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    loaded = LoadedNetwork(
        network=network,
        source="random weights",
        architecture="ConvNextForImageClassification",
        preprocessing=Preprocessing((224, 224), 256, "bicubic", IMAGENET_MEAN, IMAGENET_STD),
        vocabulary=imagenet(),
    )
    return VisionModel(loaded, name="convnext-tiny").eval().requires_grad_(False)


class Report:
    """The report's method: channels first, the best position of each image, then all kept images sorted again."""

    def __init__(self, *, loops: bool) -> None:
        self.loops = loops
        self.kept: dict[str, Any] = {}

    def take(self, tap: Any, output: Any, ids: Any) -> None:
        import torch

        from workers.layers.taps import as_nchw

        maps = as_nchw(tap, output).contiguous().flatten(2)
        values, places = maps.max(2)
        old = self.kept.get(tap.layer)
        found = (values, ids[:, None].expand_as(values), places)
        both = found if old is None else tuple(torch.cat(pair) for pair in zip(old, found, strict=True))
        if not self.loops:
            order = both[0].argsort(dim=0, descending=True, stable=True)[:K]
            self.kept[tap.layer] = tuple(part.gather(0, order) for part in both)
            return
        columns: list[list[Any]] = [[], [], []]
        for channel in range(tap.channels):
            order = both[0][:, channel].argsort(dim=0, descending=True, stable=True)[:K]
            for column, part in zip(columns, both, strict=True):
                column.append(part[order, channel])
        self.kept[tap.layer] = tuple(torch.stack(column, 1) for column in columns)


class MaxAndMerge:
    """`torch.max` with its position, over whichever axis the memory format suggests, then a merge of everything."""

    def __init__(self, taps: Any) -> None:
        from precompute.index.topk import TopK

        self.topk = {tap.layer: TopK(tap.channels, K) for tap in taps}

    def take(self, tap: Any, output: Any, ids: Any) -> None:
        import torch

        from workers.layers.taps import as_nchw

        top, maps = self.topk[tap.layer], as_nchw(tap, output)
        by_position = maps.permute(0, 2, 3, 1).flatten(1, 2)
        values, places = by_position.max(1) if maps.stride(1) == 1 else maps.flatten(2).max(2)
        top._merge_all(top._keys(values.float() + 0.0, ids), places.to(torch.int32))


class Ours:
    """`TopK` alone."""

    def __init__(self, taps: Any) -> None:
        from precompute.index.topk import TopK

        self.topk = {tap.layer: TopK(tap.channels, K) for tap in taps}

    def take(self, tap: Any, output: Any, ids: Any) -> None:
        from workers.layers.taps import as_nchw

        self.topk[tap.layer].update(as_nchw(tap, output), ids)


class ZennitCrp:
    """Activation maximization of zennit-crp (Achtibat et al. 2023), using its own code."""

    def __init__(self, folder: Path) -> None:
        from crp.concepts import ChannelConcept
        from crp.maximization import Maximization

        self.concept = ChannelConcept()
        self.maximization = Maximization("activation", "max", path=folder)
        self.maximization.SAMPLE_SIZE = K

    def take(self, tap: Any, output: Any, ids: Any) -> None:
        from workers.layers.taps import as_nchw

        maps = as_nchw(tap, output)
        self.maximization.analyze_layer(maps, self.concept, tap.layer, ids.numpy(), [0] * len(ids))


def steady(state: Any, best: Any, seen: int) -> None:
    """Set each k-th best value so that a share K / seen of the batch passes; `best` N,channels are the batch's maxima.

    In a random few channels one image passes, in all others none, as in a batch that arrives after `seen`
    images.
    """
    import torch

    from precompute.index.topk import TopK

    two = best.topk(2, dim=0).values
    random = torch.rand(best.shape[1], generator=torch.Generator().manual_seed(0))
    levels = torch.where(random < K / seen * len(best), two[1], two[0])
    start = 0
    for top in state.topk.values():
        filled = TopK(top.channels, K)
        level = levels[start : start + top.channels]
        filled.update(level.expand(K, -1)[:, :, None, None], torch.arange(K))
        top.restore(filled.keys, filled.positions)
        top._passed = K / seen
        start += top.channels


def main() -> None:
    """Measure and print the table."""
    restart_with_settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seen", type=int, default=10_000)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--only", nargs="*", help="names of implementations")
    parser.add_argument("--threads", type=int, help="number of torch threads (default: torch's choice)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="CPU time instead of wall time, for a busy machine, with --threads 1",
    )
    given = parser.parse_args()
    clock = time.process_time if given.processor_time else time.perf_counter
    import torch

    from precompute.index.state import IndexState
    from workers.layers.taps import find_taps, record_taps

    if given.threads:
        torch.set_num_threads(given.threads)
    model = convnext_tiny()
    taps = find_taps(model)
    channels = sum(tap.channels for tap in taps)
    pixels = torch.rand(given.batch, 3, 224, 224)
    precision = torch.autocast("cpu", torch.bfloat16) if given.dtype == "bfloat16" else nullcontext()
    labels: list[int | None] = [7] * given.batch

    whole = IndexState(taps, k=K, batch_size=given.batch, device=torch.device("cpu"))
    ours, merge = Ours(taps), MaxAndMerge(taps)
    ways: dict[str, Any] = {
        "top-k alone": ours,
        "max + merge": merge,
        "report, vectorised": Report(loops=False),
    }
    ways["report, loops"] = Report(loops=True)
    folder = tempfile.TemporaryDirectory()
    try:
        ways["zennit-crp"] = ZennitCrp(Path(folder.name))
    except ImportError:
        print("zennit-crp is not installed: `make bench` installs it")

    def bare(_number: int) -> None:
        model(pixels)

    def index(number: int) -> None:
        whole.begin(range(number, number + given.batch))
        with record_taps(model, taps, whole.take):
            logits = model(pixels)
        whole.end(logits, labels)

    def way(method: Any) -> Callable[[int], None]:
        def run(number: int) -> None:
            ids = torch.arange(number, number + given.batch)
            with record_taps(model, taps, lambda tap, output: method.take(tap, output, ids)):
                model(pixels)

        return run

    runs: dict[str, Callable[[int], None]] = {"forward pass": bare, "the index, all of it": index}
    runs |= {name: way(method) for name, method in ways.items()}
    if given.only:
        runs = {name: run for name, run in runs.items() if name in ["forward pass", *given.only]}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode(), precision:
        index(0)
        best = whole._best.clone()
        for name, run in runs.items():
            if "loops" not in name:
                run(given.batch)
        for round_ in range(given.rounds):
            for state in (whole, ours):
                steady(state, best, given.seen)
            for name, run in runs.items():
                started = clock()
                run(given.seen + round_ * given.batch)
                seconds[name].append(clock() - started)
    timed = " (processor time)" if given.processor_time else ""
    passed = statistics.mean(top._passed for top in whole.topk.values())
    print(
        f"{len(taps)} layers, {channels:,} channels, k={K}, {given.dtype}, batches of {given.batch}, "
        f"{torch.get_num_threads()} threads{timed}, steady state after {given.seen:,} images "
        f"({100 * passed:.2f} % of the pairs pass), medians of {given.rounds} rounds"
    )
    base = seconds["forward pass"]
    for name, times in seconds.items():
        each = statistics.median(times) / given.batch * 1000
        ratio = statistics.median(time / bare for time, bare in zip(times, base, strict=True))
        print(
            f"{name:24} {each:8.2f} ms/image  {ratio:5.2f}x  (least over least {min(times) / min(base):5.2f}x)"
        )


if __name__ == "__main__":
    main()
