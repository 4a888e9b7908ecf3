"""Training of `convnext-demo`, the ConvNeXt whose weights come with Convscope.

    python -m precompute.demo_model train --data DATA --work WORK      hours on two cores; goes on where it was
    python -m precompute.demo_model export --work WORK                 weights, log and curve into the checkout
    python -m precompute.demo_model evaluate --data DATA               the numbers of the model card

DATA holds `tiny-imagenet-50k.zip`, `imagenette-4500.zip` and `imagenet-sample-1000.tar`; WORK keeps what is
expensive (the pictures in one array, what the teacher says of them) and the state after each epoch.

The network is ConvNeXt-atto (Liu et al. 2022; the size is timm's) at 96 x 96 pixels over ImageNet-1k's 1,000
classes. It learns from labels and from a teacher, EfficientNet-Lite0, after "Knowledge distillation: a good
teacher is patient and consistent" (Beyer et al. 2022): the teacher's probabilities belong to the view that the
student sees, up to its place, size and light, and views are mixed together with their targets (mixup, Zhang et
al. 2018, and CutMix, Yun et al. 2019). Forward passes run in bfloat16, the weights are float32. A run is fixed
by its seed and settings: each epoch draws from a generator of its own, so that one which was stopped and went on
ends with the same weights.
"""

import csv
import io
import json
import math
import random
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from precompute.samples import PackageSource
from precompute.wordnet import imagenet_wnids
from workers.models import VisionModel, load_model
from workers.preprocessing import HALF
from workers.torchvision_import import import_library

SIDE = 96
CLASSES = 1000
TEACHER = "efficientnet-lite0"
TEACHER_SIDE = 160  # of 96 to 224, where the teacher reads enlarged 64-pixel pictures best
FOLDER = Path(__file__).parents[1] / "workers" / "convnext_demo"
_LOG = ("epoch", "side", "learning_rate", "loss", "top1", "agreement", "seconds")

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """What fixes a run.

    `teacher_share` is the teacher's part of each target, the label has the rest. `mixup` is the strength of the
    beta distribution, `cutmix_share` the part of the batches that are cut rather than blended. A view is enlarged
    by at most 1 / (1 - `zoom`), its contrast and brightness change by at most `light`. The first `small_share` of
    the epochs see `small_side` pixels.
    """

    epochs: int = 30
    batch: int = 128
    peak: float = 1.5e-3
    warmup_epochs: float = 1.5
    weight_decay: float = 0.05
    teacher_share: float = 0.5
    mixup: float = 0.2
    cutmix_share: float = 0.4
    zoom: float = 0.4
    light: float = 0.25
    small_side: int = 64
    small_share: float = 0.65
    average: float = 0.998
    seed: int = 0


# --- pictures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """Views of pictures: uint8 N,96,96,3, and the class of each among ImageNet-1k's, int64 N."""

    pixels: Bytes
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def tiny_imagenet(data: Path, split: str) -> Pictures:
    """Tiny-ImageNet's `train` or `val` pictures, enlarged from 64 x 64."""
    found = _zipped(data / "tiny-imagenet-50k.zip", split)
    return _gather(
        (np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), label)
        for picture, label in found
    )


def larger_pictures(data: Path, *, views: int, seed: int) -> Pictures:
    """`views` random crops of each of the 1,000 photographs and one of each training picture of Imagenette."""
    draw = random.Random(seed)

    def crops() -> Iterator[tuple[Bytes, int]]:
        for picture, label in _photographs(data / "imagenet-sample-1000.tar"):
            for _ in range(views):
                yield _crop(picture, draw), label
        for picture, label in _zipped(data / "imagenette-4500.zip", "train"):
            yield _crop(picture, draw), label

    return _gather(crops())


def _crop(picture: Image.Image, draw: random.Random) -> Bytes:
    """A square of 0.35 to 1 of the short side's square, resized to 96 x 96."""
    side = round(min(picture.size) * math.sqrt(draw.uniform(0.35, 1)))
    left, top = draw.randint(0, picture.width - side), draw.randint(0, picture.height - side)
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


def _gather(found: Iterator[tuple[Bytes, int]]) -> Pictures:
    pixels, labels = zip(*found, strict=True)
    return Pictures(np.stack(pixels), np.array(labels, dtype=np.int64))


def _zipped(archive: Path, split: str) -> Iterator[tuple[Image.Image, int]]:
    indices = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            parts = name.split("/")
            if split in parts and name.endswith(".JPEG"):
                yield Image.open(io.BytesIO(files.read(name))).convert("RGB"), indices[parts[-2]]


def _photographs(archive: Path) -> Iterator[tuple[Image.Image, int]]:
    indices = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    with tarfile.open(archive) as files:
        for member in sorted(files.getmembers(), key=lambda member: member.name):
            data = files.extractfile(member) if member.name.endswith(".JPEG") else None
            if data is not None:
                yield Image.open(data).convert("RGB"), indices[member.name.split("/")[-2]]


# --- teacher ------------------------------------------------------------------------------------------------


def teacher_probabilities(pictures: Pictures, teacher: VisionModel) -> npt.NDArray[np.float16]:
    """What the teacher says of each view: float16 N,1000, rows that sum to one but for rounding."""
    said = np.empty((len(pictures), CLASSES), np.float16)
    teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        for start in range(0, len(pictures), 32):
            pixels = _to_pixels(pictures.pixels[start : start + 32])
            large = F.interpolate(pixels, size=(TEACHER_SIDE,) * 2, mode="bicubic", antialias=True).clamp(
                0, 1
            )
            logits = teacher(large.contiguous(memory_format=torch.channels_last))
            said[start : start + 32] = logits.softmax(1).numpy()
    return said


def _to_pixels(pixels: Bytes) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255


# --- network ------------------------------------------------------------------------------------------------


def new_network(seed: int) -> nn.Module:
    """ConvNeXt-atto with random weights, 3.7 million parameters."""
    transformers = import_library("transformers")
    torch.manual_seed(seed)
    wnids = imagenet_wnids()
    config = transformers.ConvNextConfig(
        depths=[2, 2, 6, 2],
        hidden_sizes=[40, 80, 160, 320],
        image_size=SIDE,
        layer_scale_init_value=0.1,  # the usual 1e-6 needs longer schedules than this
        num_labels=CLASSES,
        id2label=dict(enumerate(wnids)),
        label2id={wnid: index for index, wnid in enumerate(wnids)},
    )
    network: nn.Module = transformers.ConvNextForImageClassification(config)
    return network


# --- training -----------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A run between two epochs: the network, its running average, the optimiser, and the lines of the log."""

    recipe: Recipe
    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    log: list[dict[str, float]]

    @classmethod
    def new(cls, recipe: Recipe) -> "Run":
        """A run before its first epoch."""
        network, average = new_network(recipe.seed), new_network(recipe.seed)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        shrinking = [weight for weight in network.parameters() if weight.ndim > 1]
        free = [weight for weight in network.parameters() if weight.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [
                {"params": shrinking, "weight_decay": recipe.weight_decay},
                {"params": free, "weight_decay": 0.0},
            ],
            lr=recipe.peak,
            fused=True,
        )
        return cls(recipe, network, average.requires_grad_(False), optimiser, [])

    def save(self, path: Path) -> None:
        """Write everything; a run that is stopped here keeps the file before."""
        part = path.with_suffix(".part")
        state = {
            "recipe": asdict(self.recipe),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "log": self.log,
        }
        torch.save(state, part)
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Run":
        """The run that `save` wrote."""
        state = torch.load(path, weights_only=True)
        run = cls.new(Recipe(**state["recipe"]))
        run.network.load_state_dict(state["network"])
        run.average.load_state_dict(state["average"])
        run.optimiser.load_state_dict(state["optimiser"])
        run.log = state["log"]
        return run


def train_epoch(run: Run, pictures: Pictures, teacher: npt.NDArray[np.float16]) -> dict[str, float]:
    """One pass over `pictures`; the line of the log without the validation's numbers."""
    recipe, epoch = run.recipe, len(run.log)
    draw = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
    side = recipe.small_side if epoch < recipe.small_share * recipe.epochs else SIDE
    order = torch.randperm(len(pictures), generator=draw)
    steps = len(pictures) // recipe.batch
    run.network.train()
    losses = []
    for step in range(steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch].numpy()
        labels = F.one_hot(torch.from_numpy(pictures.labels[chosen]), CLASSES).float()
        said = torch.from_numpy(teacher[chosen]).float()
        target = recipe.teacher_share * said + (1 - recipe.teacher_share) * labels
        pixels = _varied(_to_pixels(pictures.pixels[chosen]), side, recipe, draw)
        pixels, target = _mixed(pixels, target, recipe, draw)
        with torch.autocast("cpu", torch.bfloat16):
            logits = run.network(_normalised(pixels).contiguous(memory_format=torch.channels_last)).logits
        loss = F.cross_entropy(logits.float(), target)
        rate = _rate(recipe, (epoch * steps + step) / steps)
        for group in run.optimiser.param_groups:
            group["lr"] = rate
        run.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.optimiser.step()
        keep = min(recipe.average, (1 + epoch * steps + step) / (10 + epoch * steps + step))
        with torch.no_grad():
            weights = zip(run.average.parameters(), run.network.parameters(), strict=True)
            for kept, weight in weights:
                kept.lerp_(weight, 1 - keep)
        losses.append(loss.item())
    return {"epoch": epoch + 1, "side": side, "learning_rate": rate, "loss": float(np.mean(losses))}


def _rate(recipe: Recipe, epoch: float) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    if epoch < recipe.warmup_epochs:
        return recipe.peak * (epoch + 0.01) / recipe.warmup_epochs
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.peak * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def _mixed(pixels: Tensor, target: Tensor, recipe: Recipe, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each view blended with that at the batch's other end, or with a box of it in its place; the targets alike."""
    if recipe.mixup == 0:
        return pixels, target
    random = np.random.default_rng(int(torch.randint(2**31, (1,), generator=draw)))
    height, width = pixels.shape[2:]
    if random.random() < recipe.cutmix_share:
        share = math.sqrt(random.random())
        y, x = random.integers(height), random.integers(width)
        rows = slice(max(0, int(y - share * height / 2)), int(y + share * height / 2))
        columns = slice(max(0, int(x - share * width / 2)), int(x + share * width / 2))
        mixed = pixels.clone()
        mixed[:, :, rows, columns] = pixels.flip(0)[:, :, rows, columns]
        own = 1 - mixed[0, 0, rows, columns].numel() / (height * width)
    else:
        own = float(random.beta(recipe.mixup, recipe.mixup))
        mixed = pixels * own + pixels.flip(0) * (1 - own)
    return mixed, target * own + target.flip(0) * (1 - own)


def _varied(pixels: Tensor, side: int, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Each picture's view moved, enlarged, mirrored and lit at random, at `side` pixels."""
    count = len(pixels)
    scale = 1 - torch.rand(count, generator=draw) * recipe.zoom
    shift = (torch.rand(count, 2, generator=draw) * 2 - 1) * (1 - scale[:, None] + recipe.zoom / 8)
    mirror = torch.randint(2, (count,), generator=draw) * 2.0 - 1
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(affine, [count, 3, side, side], align_corners=False)
    moved: Tensor = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    contrast, brightness = 1 + (torch.rand(2, count, 1, 1, 1, generator=draw) * 2 - 1) * recipe.light
    mean = moved.mean((1, 2, 3), keepdim=True)
    lit: Tensor = (moved - mean) * contrast + mean * brightness
    return lit


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels - 0.5) / 0.5


# --- numbers ------------------------------------------------------------------------------------------------


def logits_of(network: nn.Module, pixels: Bytes) -> Tensor:
    """Logits N,1000 of `pixels` uint8 N,96,96,3."""
    network.eval()
    with torch.inference_mode():
        return torch.cat(
            [
                network(_normalised(_to_pixels(pixels[start : start + 250]))).logits
                for start in range(0, len(pixels), 250)
            ]
        )


def measure(network: nn.Module, pictures: Pictures, teacher: npt.NDArray[np.float16]) -> dict[str, float]:
    """Shares of `pictures`: right first, right in five, right first among the classes that occur, and agreed
    with the teacher about the first."""
    logits = logits_of(network, pictures.pixels)
    labels = torch.from_numpy(pictures.labels)
    first = logits.argmax(1)
    occurring = torch.from_numpy(np.unique(pictures.labels))
    return {
        "pictures": len(pictures),
        "top1": (first == labels).double().mean().item(),
        "top5": (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item(),
        "top1_of_occurring": (occurring[logits[:, occurring].argmax(1)] == labels).double().mean().item(),
        "agreement": float((first.numpy() == teacher.argmax(1)).mean()),
        "teacher_top1": float((teacher.argmax(1) == pictures.labels).mean()),
    }


def foolbox_photographs() -> Pictures:
    """The 20 labelled photographs of Foolbox, centre squares at 96 x 96. The network never saw them."""

    def found() -> Iterator[tuple[Bytes, int]]:
        for image in PackageSource().images():
            if image.label is not None and image.label.index is not None and image.data is not None:
                picture = Image.open(io.BytesIO(image.data)).convert("RGB")
                side = min(picture.size)
                left, top = (picture.width - side) // 2, (picture.height - side) // 2
                box = (left, top, left + side, top + side)
                small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
                yield np.asarray(small), image.label.index

    return _gather(found())


# --- commands -----------------------------------------------------------------------------------------------


@click.group(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, export or evaluate the demo model."""


_data = click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
_work = click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True)


@main.command()
@_data
@_work
@click.option("--epochs", default=Recipe.epochs, show_default=True)
@click.option("--seed", default=Recipe.seed, show_default=True)
@click.option("--until", type=int, help="Stop after this epoch; a later call goes on.")
def train(data: Path, work: Path, epochs: int, seed: int, until: int | None) -> None:
    """Train, or go on with the run in WORK."""
    work.mkdir(parents=True, exist_ok=True)
    training = _kept(work, "train", lambda: _training_pictures(data, seed))
    validation = _kept(work, "val", lambda: tiny_imagenet(data, "val"))
    state = work / "state.pt"
    run = Run.load(state) if state.exists() else Run.new(Recipe(epochs=epochs, seed=seed))
    while len(run.log) < (until or run.recipe.epochs):
        began = time.monotonic()
        line = train_epoch(run, *training)
        numbers = measure(run.average, *validation)
        line |= {name: numbers[name] for name in ("top1", "agreement")} | {
            "seconds": time.monotonic() - began
        }
        run.log.append(line)
        run.save(state)
        if len(run.log) % max(1, run.recipe.epochs // 8) == 0:
            small = {name: weight.half() for name, weight in run.average.state_dict().items()}
            torch.save(small, work / f"epoch-{len(run.log):03d}.pt")
        click.echo("  ".join(f"{name} {line[name]:.4g}" for name in _LOG))


def _training_pictures(data: Path, seed: int) -> Pictures:
    parts = tiny_imagenet(data, "train"), larger_pictures(data, views=4, seed=seed)
    return Pictures(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts])
    )


def _kept(work: Path, name: str, read: Any) -> tuple[Pictures, npt.NDArray[np.float16]]:
    """Pictures and what the teacher says of them, from WORK or made and kept there."""
    path = work / f"{name}.npz"
    if not path.exists():
        pictures = read()
        click.echo(f"{name}: {len(pictures):,} views read; asking the teacher")
        said = teacher_probabilities(pictures, load_model(TEACHER))
        part = path.with_suffix(".part.npz")
        np.savez(part, pixels=pictures.pixels, labels=pictures.labels, teacher=said)
        part.rename(path)
    with np.load(path) as kept:
        return Pictures(kept["pixels"], kept["labels"]), kept["teacher"]


@main.command()
@_work
@click.option("--to", default=FOLDER, type=click.Path(file_okay=False, path_type=Path), show_default=True)
def export(work: Path, to: Path) -> None:
    """Write the averaged weights as float16, with configuration, log and curve, into a model folder."""
    run = Run.load(work / "state.pt")
    to.mkdir(parents=True, exist_ok=True)
    run.average.half().save_pretrained(to)  # type: ignore[operator]
    processor = import_library("transformers").ConvNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_pct=1.0, image_mean=list(HALF), image_std=list(HALF), resample=3
    )
    processor.save_pretrained(to)
    (to / "recipe.json").write_text(json.dumps(asdict(run.recipe), indent=2) + "\n")
    with (to / "training.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, _LOG, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{line[name]:.6g}" for name in _LOG} for line in run.log)


@main.command()
@_data
def evaluate(data: Path) -> None:
    """Print the model card's numbers, measured with the weights in the checkout."""
    network = load_model(str(FOLDER)).network
    teacher = load_model(TEACHER)
    for name, pictures in (
        ("Tiny-ImageNet, validation", tiny_imagenet(data, "val")),
        ("Foolbox's photographs", foolbox_photographs()),
    ):
        numbers = measure(network, pictures, teacher_probabilities(pictures, teacher))
        click.echo(f"{name}: {numbers.pop('pictures')} pictures")
        for key, share in numbers.items():
            click.echo(f"  {key:18} {share:6.1%}")


if __name__ == "__main__":
    main()
