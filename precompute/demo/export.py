"""Export of the model folder (weights, configuration, recipe, log, curve) and of the checkpoints.

`CHECKPOINTS` contains the weights after ten of the epochs, for studies of the training itself. It exists in a
checkout only, not in the wheel or the container image.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from precompute.demo.network import new_network
from precompute.demo.recipe import KEPT_EPOCHS, LOG_FIELDS, SIDE, STAGES
from precompute.demo.run import Run
from workers.models.preprocessing import HALF
from workers.torchvision_import import import_library

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def export_run(run: Run, work: Path, to: Path, checkpoints: Path) -> None:
    """Write a model folder, and the checkpoints of the epochs reached so far.

    Args:
        run: its averaged weights are written as float16.
        work: where `train` stored the weights of `KEPT_EPOCHS`.
        to: the model folder.
        checkpoints: the folder of the checkpoints.
    """
    to.mkdir(parents=True, exist_ok=True)
    run.average.half().save_pretrained(to)  # type: ignore[operator]
    processor = import_library("transformers").ConvNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_pct=1.0, image_mean=list(HALF), image_std=list(HALF), resample=3
    )
    processor.save_pretrained(to)
    stages = [asdict(replace(recipe, seed=run.recipe.seed)) for recipe in STAGES]
    (to / "recipe.json").write_text(json.dumps(stages, indent=2) + "\n")
    with (to / "training.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{line[name]:.6g}" for name in LOG_FIELDS} for line in run.log)
    (to / "training.svg").write_text(curve(run.log))
    checkpoints.mkdir(exist_ok=True)
    for epoch in (epoch for epoch in KEPT_EPOCHS if epoch <= len(run.log)):
        weights = torch.load(work / f"epoch-{epoch:03d}.pt", weights_only=True)
        save_file(packed(weights), checkpoints / f"epoch-{epoch:03d}.safetensors")


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights at half the size of float16: matrices as int8 with a scale per row, vectors as float16."""
    small: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim < 2:
            small[name] = weight.half()
            continue
        scale = weight.float().flatten(1).abs().amax(1) / 127
        small[name] = (weight.float() / _by_row(scale.clamp(min=1e-12), weight)).round().to(torch.int8)
        small[f"{name}.scale"] = scale
    return small


def load_checkpoint(path: Path) -> nn.Module:
    """The network after an epoch, loaded from a file in `CHECKPOINTS`; its weights are running averages."""
    small = load_file(path)
    scales = {name.removesuffix(".scale"): small.pop(name) for name in list(small) if name.endswith(".scale")}
    network = new_network(0)
    network.load_state_dict(
        {
            name: weight.float() * (_by_row(scales[name], weight) if name in scales else 1)
            for name, weight in small.items()
        }
    )
    return network


def _by_row(scale: Tensor, weight: Tensor) -> Tensor:
    """`scale` per row, reshaped to broadcast with `weight`."""
    return scale.view(-1, *(1,) * (weight.ndim - 1))


def curve(log: Sequence[dict[str, float]]) -> str:
    """The log as SVG: top-1 accuracy and agreement with the teacher by epoch, in colors for both themes."""
    width, height, left, bottom = 640, 260, 46, 30
    epochs, most = len(log), max(0.1, *(line[name] for line in log for name in ("top1", "agreement")))

    def at(epoch: float, share: float) -> str:
        x = left + (width - left - 130) * epoch / max(1, epochs)
        return f"{x:.1f},{height - bottom - (height - bottom - 14) * share / most:.1f}"

    parts = []
    for tenth in range(int(most * 10) + 1):
        x, y = at(0, tenth / 10).split(",")
        parts += [
            f'<path d="M{x} {y}H{width - 130}" stroke="#8886" fill="none"/>',
            f'<text x="{left - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{tenth * 10} %</text>',
        ]
    lines = [("top1", "#0f9488", "top-1"), ("agreement", "#c2703d", "agreement")]
    above = 0.0
    for name, color, words in sorted(lines, key=lambda line: -log[-1][line[0]]):
        points = [at(place, line[name]) for place, line in enumerate(log, 1)]
        end_x, end_y = (float(part) for part in points[-1].split(","))
        above = max(end_y, above + 15)  # keeps labels of lines that end close together from overlapping
        parts += [
            f'<polyline points="{" ".join(points)}" stroke="{color}" stroke-width="2" fill="none"/>',
            f'<text x="{end_x + 6:.1f}" y="{above + 4:.1f}" style="fill:{color}">{words}</text>',
        ]
    for epoch in range(0, epochs + 1, max(1, epochs // 6)):
        x = at(epoch, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle">{epoch}</text>')
    style = "<style>text{font:12px system-ui,sans-serif;fill:#6b7280}</style>"
    title = "<title>Top-1 accuracy on validation images and agreement with the teacher, by epoch</title>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{title}{style}'
    return f"{head}{''.join(parts)}</svg>\n"
