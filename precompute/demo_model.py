"""Training of `convnext-demo`, the ConvNeXt whose weights come with Convscope.

    python -m precompute.demo_model train --data DATA --work WORK      hours on two cores; goes on where it was
    python -m precompute.demo_model export --work WORK                 weights, log and curve into the checkout
    python -m precompute.demo_model evaluate --data DATA               the numbers of the model card

DATA holds `tiny-imagenet-50k.zip`, `imagenette-4500.zip` and `imagenet-sample-1000.tar`; WORK keeps what is
expensive (the pictures in one array, what the teacher says of them) and the state after each epoch.

The network is ConvNeXt-atto (Liu et al. 2022; the size is timm's) at 128 x 128 pixels over ImageNet-1k's 1,000
classes. It learns from labels and from a teacher, EfficientNet-Lite0, after "Knowledge distillation: a good
teacher is patient and consistent" (Beyer et al. 2022): the teacher's probabilities belong to the view that the
student sees, up to its place, size and light; they are softened by a temperature (Hinton et al. 2015), and views
are mixed together with their targets (mixup, Zhang et al. 2018). Matrices learn by Muon (Jordan et al. 2024), the
rest by AdamW. Forward passes run in bfloat16, the weights are float32.

Labels alone teach the 200 classes of Tiny-ImageNet and hardly any other. So a second stage starts from the teacher's
classifier and features (Chen et al. 2022) and from many squares of few photographs, which are enough for a teacher to
tell what it knows (Asano and Saeed 2023, "The augmented image prior").

A run is fixed by its seed and settings: each epoch draws from a generator of its own, so that one which was stopped
and went on ends with the same weights.
"""

import csv
import io
import json
import math
import random
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from precompute.images.samples import PackageSource
from precompute.images.wordnet import imagenet_wnids
from workers.models.preprocessing import HALF
from workers.models.vision import DEMO_FOLDER, VisionModel, load_model
from workers.torchvision_import import import_library

# More than in training: "Fixing the train-test resolution discrepancy" (Touvron et al. 2019).
SIDE = 128
CLASSES = 1000
TEACHER = "efficientnet-lite0"
TEACHER_FEATURES = 1280
TEACHER_SIDE = 160  # of 96 to 224, where the teacher reads enlarged 64-pixel pictures best
_LOG = ("epoch", "side", "learning_rate", "loss", "top1", "agreement", "seconds")
# Epochs whose weights are in the checkout too, for questions about how the network came to be.
KEPT_EPOCHS = (3, 6, 9, 12, 15, 18, 21, 28, 32, 36)
# The columns of the model card, by the names of `measure`.
_CARD = {
    "pictures": "how many",
    "top1": "right first",
    "top5": "right in five",
    "median_rank": "median rank of the label",
    "top1_of_occurring": "right first among the classes that occur",
    "agreement": "first as the teacher's",
    "teacher_top1": "teacher right first",
}

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """What fixes a stage of the training.

    Pictures: each photograph gives `photograph_views` squares and each picture of Imagenette `imagenette_views`, of
    at least `smallest_view` of the area of its largest square; all views are kept at `view_side` pixels.
    `labelled_views` says whether their labels count or the teacher alone, as Tiny-ImageNet's always do.

    `teacher_share` is the teacher's part of the loss, at `temperature`; the label has the rest. `feature_weight` is
    that of the distance to the teacher's features. `mixup` is the strength of the beta distribution. A view is
    enlarged by at most 1 / (1 - `zoom`), its contrast and brightness change by at most `light`. The first
    `small_share` of the epochs see `small_side` pixels, the others `large_side`.
    """

    epochs: int = 24
    batch: int = 64
    matrix_peak: float = 0.02
    other_peak: float = 1.5e-3
    warmup_epochs: float = 0.5
    weight_decay: float = 0.05
    teacher_share: float = 0.5
    temperature: float = 3.0
    mixup: float = 0.2
    zoom: float = 0.4
    light: float = 0.25
    small_side: int = 64
    large_side: int = 96
    small_share: float = 0.65
    average: float = 0.999
    view_side: int = 96
    photograph_views: int = 4
    imagenette_views: int = 1
    smallest_view: float = 0.35
    labelled_views: bool = True
    feature_weight: float = 0.0
    seed: int = 0


# The second stage starts with the first one's weights and the teacher's classifier.
STAGES = (
    Recipe(),
    Recipe(
        epochs=16,
        batch=128,
        matrix_peak=0.008,
        other_peak=1e-3,
        zoom=0.3,
        small_share=0.5,
        view_side=128,
        photograph_views=40,
        imagenette_views=4,
        smallest_view=0.2,
        labelled_views=False,
        feature_weight=6.0,
    ),
)

# --- pictures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """Views of pictures: uint8 N,S,S,3, and the class of each among ImageNet-1k's, int64 N; -1 where none is told."""

    pixels: Bytes
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def tiny_imagenet(data: Path, split: str, side: int = SIDE) -> Pictures:
    """Tiny-ImageNet's `train` or `val` pictures, enlarged from 64 x 64."""
    found = _zipped(data / "tiny-imagenet-50k.zip", split)
    return _gather(
        (np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)), label)
        for picture, label in found
    )


def larger_pictures(data: Path, recipe: Recipe) -> Pictures:
    """Random squares of the 1,000 photographs and of the training pictures of Imagenette."""
    draw = random.Random(recipe.seed)
    sources = (
        (_photographs(data / "imagenet-sample-1000.tar"), recipe.photograph_views),
        (_zipped(data / "imagenette-4500.zip", "train"), recipe.imagenette_views),
    )
    return _gather(
        (_square(picture, recipe, draw), label if recipe.labelled_views else -1)
        for pictures, views in sources
        for picture, label in pictures
        for _ in range(views)
    )


def _square(picture: Image.Image, recipe: Recipe, draw: random.Random) -> Bytes:
    """A square somewhere in the picture, resized."""
    side = round(min(picture.size) * math.sqrt(draw.uniform(recipe.smallest_view, 1)))
    left, top = draw.randint(0, picture.width - side), draw.randint(0, picture.height - side)
    return _cut(picture, left, top, side, recipe.view_side)


def _cut(picture: Image.Image, left: int, top: int, side: int, to: int) -> Bytes:
    """The square of `side` pixels at left, top, resized to `to`."""
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((to, to), Image.Resampling.BICUBIC, box=box))


def _gather(found: Iterator[tuple[Bytes, int]]) -> Pictures:
    pixels, labels = zip(*found, strict=True)
    return Pictures(np.stack(pixels), np.array(labels, dtype=np.int64))


def _zipped(archive: Path, split: str, named: str = "") -> Iterator[tuple[Image.Image, int]]:
    indices = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            parts = name.split("/")
            if split in parts and parts[-1].startswith(named) and name.endswith(".JPEG"):
                yield Image.open(io.BytesIO(files.read(name))).convert("RGB"), indices[parts[-2]]


def _photographs(archive: Path) -> Iterator[tuple[Image.Image, int]]:
    indices = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    with tarfile.open(archive) as files:
        for member in sorted(files.getmembers(), key=lambda member: member.name):
            data = files.extractfile(member) if member.name.endswith(".JPEG") else None
            if data is not None:
                yield Image.open(data).convert("RGB"), indices[member.name.split("/")[-2]]


# --- teacher ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What the teacher makes of each view.

    Attributes:
        features: its averaged features, what its classifier reads, float16 N,F.
        probabilities: float16 N,1000, rows that sum to one but for rounding.
    """

    features: npt.NDArray[np.float16]
    probabilities: npt.NDArray[np.float16]


def ask(teacher: VisionModel, pictures: Pictures, *, quick: bool = False) -> Answers:
    """The teacher's answers; `quick` in bfloat16, three times as many a second."""
    classifier = classifier_of(teacher)
    features = np.empty((len(pictures), classifier.in_features), np.float16)
    probabilities = np.empty((len(pictures), CLASSES), np.float16)
    teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    read: list[Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    with torch.inference_mode():
        for start in range(0, len(pictures), 64):
            chosen = slice(start, start + 64)
            large = F.interpolate(
                _to_pixels(pictures.pixels[chosen]), size=(TEACHER_SIDE,) * 2, mode="bicubic", antialias=True
            ).clamp(0, 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=quick):
                teacher(large.contiguous(memory_format=torch.channels_last))
            found = read.pop().float()
            features[chosen] = found.numpy()
            # in float32 also where it was quick; calling the classifier would be heard by the hook
            probabilities[chosen] = F.linear(found, classifier.weight, classifier.bias).softmax(1).numpy()
    hook.remove()
    return Answers(features, probabilities)


def classifier_of(teacher: VisionModel) -> nn.Linear:
    """The teacher's last layer."""
    classifier = teacher.network.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    return classifier


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
    for name, module in network.named_modules():
        # the usual 0.02 is made for wider layers
        if isinstance(module, nn.Linear | nn.Conv2d) and name != "classifier":
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return network


# --- training -----------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A run between two epochs: the network, its running average, a linear map from its features to the teacher's,
    the optimisers, and the lines of the log; `begun` of them are of earlier stages.
    """

    recipe: Recipe
    begun: int
    network: nn.Module
    average: nn.Module
    projection: nn.Linear
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    log: list[dict[str, float]]

    @classmethod
    def new(cls, recipe: Recipe) -> "Run":
        """A run before its first epoch."""
        network, average = new_network(recipe.seed), new_network(recipe.seed)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        projection = nn.Linear(network.config.hidden_sizes[-1], TEACHER_FEATURES)
        weights = dict(network.named_parameters())
        matrices = [name for name in weights if ".pwconv" in name and weights[name].ndim == 2]
        shrinking = [name for name in weights if weights[name].ndim > 1 and name not in matrices]
        free = [weight for weight in weights.values() if weight.ndim <= 1]
        muon = torch.optim.Muon(
            [weights[name] for name in matrices], lr=recipe.matrix_peak, weight_decay=recipe.weight_decay
        )
        adam = torch.optim.AdamW(
            [
                {"params": [weights[name] for name in shrinking], "weight_decay": recipe.weight_decay},
                {"params": [*free, *projection.parameters()], "weight_decay": 0.0},
            ],
            lr=recipe.other_peak,
            fused=True,
        )
        return cls(recipe, 0, network, average.requires_grad_(False), projection, (muon, adam), [])

    @classmethod
    def following(
        cls, run: "Run", recipe: Recipe, pictures: Pictures, answers: Answers, classifier: nn.Linear
    ) -> "Run":
        """The next stage, before its first epoch.

        Its network has the averaged weights of `run`, rounded as `export` rounds them. Its classifier is the
        teacher's behind the projection (Chen et al. 2022, "Knowledge distillation with the reused teacher
        classifier"), both one matrix: so it can name classes from the start of which it saw no label.
        """
        following = cls.new(recipe)
        following.begun, following.log = len(run.log), run.log
        weights = {name: weight.half().float() for name, weight in run.average.state_dict().items()}
        following.network.load_state_dict(weights)
        some = slice(None, None, max(1, len(pictures) // 16_000))
        _fit(following, pictures.pixels[some], answers.features[some])
        merged = {
            "weight": classifier.weight @ following.projection.weight,
            "bias": classifier(following.projection.bias),
        }
        following.network.get_submodule("classifier").load_state_dict(merged)
        following.average.load_state_dict(following.network.state_dict())
        return following

    def save(self, path: Path) -> None:
        """Write everything; a run that is stopped here keeps the file before."""
        part = path.with_suffix(".part")
        state = {
            "recipe": asdict(self.recipe),
            "begun": self.begun,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "projection": self.projection.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "log": self.log,
        }
        torch.save(state, part)
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Run":
        """The run that `save` wrote."""
        state = torch.load(path, weights_only=True)
        run = cls.new(Recipe(**state["recipe"]))
        run.begun, run.log = state["begun"], state["log"]
        for name in ("network", "average", "projection"):
            getattr(run, name).load_state_dict(state[name])
        for optimiser, held in zip(run.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(held)
        return run


def _fit(run: Run, pixels: Bytes, features: npt.NDArray[np.float16]) -> None:
    """Least squares for the projection, with a little shrinking: the network's features to the teacher's."""
    run.network.eval()
    read = []
    with torch.inference_mode():
        for start in range(0, len(pixels), 128):
            views = F.interpolate(
                _to_pixels(pixels[start : start + 128]),
                (run.recipe.large_side,) * 2,
                mode="bilinear",
                antialias=True,
            )
            read.append(_features(run.network, views).double())
    ours = F.pad(torch.cat(read), (0, 1), value=1.0)
    theirs = torch.from_numpy(features).double()
    normal = ours.T @ ours + 30 * torch.eye(ours.shape[1], dtype=torch.double)
    solved = torch.linalg.solve(normal, ours.T @ theirs).float()
    run.projection.load_state_dict({"weight": solved[:-1].T, "bias": solved[-1]})


def _features(network: nn.Module, pixels: Tensor) -> Tensor:
    """What the classifier reads, float32 N,320."""
    with torch.autocast("cpu", torch.bfloat16):
        given = _normalised(pixels).contiguous(memory_format=torch.channels_last)
        read: Tensor = network.get_submodule("convnext")(given).pooler_output
    return read.float()


def train_epoch(run: Run, pictures: Pictures, answers: Answers) -> dict[str, float]:
    """One pass over `pictures`; the line of the log without the validation's numbers."""
    recipe, epoch = run.recipe, len(run.log) - run.begun
    draw = torch.Generator().manual_seed(recipe.seed * 1000 + len(run.log))
    side = recipe.small_side if epoch < recipe.small_share * recipe.epochs else recipe.large_side
    order = torch.randperm(len(pictures), generator=draw)
    steps = len(pictures) // recipe.batch
    spread = answers.features[:: max(1, len(pictures) // 5000)].astype(np.float32).var(0).mean().item()
    run.network.train()
    losses = []
    for step in range(steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch].numpy()
        given = torch.from_numpy(pictures.labels[chosen])
        labels = F.one_hot(given.clamp(min=0), CLASSES) * (given >= 0).float()[:, None]
        said = _softened(torch.from_numpy(answers.probabilities[chosen]).float(), recipe.temperature)
        theirs = torch.from_numpy(answers.features[chosen]).float()
        pixels = _varied(_to_pixels(pictures.pixels[chosen]), side, recipe, draw)
        own = _beta(recipe.mixup, draw)
        pixels, labels, said, theirs = (
            part * own + part.flip(0) * (1 - own) for part in (pixels, labels, said, theirs)
        )
        ours = _features(run.network, pixels)
        loss = distillation_loss(run.network.get_submodule("classifier")(ours), labels, said, recipe)
        if recipe.feature_weight:
            loss = loss + recipe.feature_weight * F.mse_loss(run.projection(ours), theirs) / spread
        share = _rate(recipe, (epoch * steps + step) / steps)
        for optimiser, peak in zip(run.optimisers, (recipe.matrix_peak, recipe.other_peak), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * share
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        for optimiser in run.optimisers:
            optimiser.step()
        keep = min(recipe.average, (1 + epoch * steps + step) / (10 + epoch * steps + step))
        with torch.no_grad():
            weights = zip(run.average.parameters(), run.network.parameters(), strict=True)
            for kept, weight in weights:
                kept.lerp_(weight, 1 - keep)
        losses.append(loss.item())
    return {
        "epoch": len(run.log) + 1,
        "side": side,
        "learning_rate": recipe.matrix_peak * share,
        "loss": float(np.mean(losses)),
    }


def distillation_loss(logits: Tensor, labels: Tensor, said: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy with the labels, and that with the teacher's softened answer at the same temperature, whose
    gradient shrinks with the square of the temperature and is scaled back.
    """
    from_labels = F.cross_entropy(logits, labels)
    from_teacher = F.cross_entropy(logits / recipe.temperature, said) * recipe.temperature**2
    loss: Tensor = (1 - recipe.teacher_share) * from_labels + recipe.teacher_share * from_teacher
    return loss


def _softened(said: Tensor, temperature: float) -> Tensor:
    """Probabilities at a higher temperature. What float16 could not hold counts as its smallest number, so an answer
    that was sure of one class is softened more than it should be.
    """
    softened = said.clamp(min=6e-8) ** (1 / temperature)
    return softened / softened.sum(1, keepdim=True)


def _rate(recipe: Recipe, epoch: float) -> float:
    """Share of the peak: linear warm-up, then half a cosine down to a hundredth."""
    if epoch < recipe.warmup_epochs:
        return (epoch + 0.01) / (recipe.warmup_epochs + 0.01)
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def _beta(strength: float, draw: torch.Generator) -> float:
    """A draw of the beta distribution with both parameters `strength`; 1 for none."""
    if strength == 0:
        return 1.0
    return float(
        np.random.default_rng(int(torch.randint(2**31, (1,), generator=draw))).beta(strength, strength)
    )


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
    """Logits N,1000 of `pixels` uint8 N,S,S,3."""
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
    with the teacher about the first; and the median rank of the label, 1 for right."""
    logits = logits_of(network, pictures.pixels)
    labels = torch.from_numpy(pictures.labels)
    first = logits.argmax(1)
    occurring = torch.from_numpy(np.unique(pictures.labels))
    return {
        "pictures": len(pictures),
        "top1": (first == labels).double().mean().item(),
        "top5": (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item(),
        "median_rank": float(np.median(1 + (logits > logits.gather(1, labels[:, None])).sum(1).numpy())),
        "top1_of_occurring": (occurring[logits[:, occurring].argmax(1)] == labels).double().mean().item(),
        "agreement": float((first.numpy() == teacher.argmax(1)).mean()),
        "teacher_top1": float((teacher.argmax(1) == pictures.labels).mean()),
    }


def foolbox_photographs() -> Pictures:
    """The 20 labelled photographs of Foolbox, centre squares at 128 x 128. The network never saw them."""
    return _gather(
        (_centre(Image.open(io.BytesIO(image.data)).convert("RGB")), image.label.index)
        for image in PackageSource().images()
        if image.data is not None and image.label is not None and image.label.index is not None
    )


def imagenette_validation(data: Path) -> Pictures:
    """Imagenette's pictures that are ImageNet's validation pictures, centre squares at 128 x 128; the others of its
    `val` are training pictures of ImageNet, which the teacher may have seen."""
    found = _zipped(data / "imagenette-4500.zip", "val", named="ILSVRC2012_val_")
    return _gather((_centre(picture), label) for picture, label in found)


def _centre(picture: Image.Image) -> Bytes:
    side = min(picture.size)
    return _cut(picture, (picture.width - side) // 2, (picture.height - side) // 2, side, SIDE)


def curve(log: Sequence[dict[str, float]]) -> str:
    """The log as a picture, SVG: top-1 and agreement with the teacher over epochs, in the colours of either theme."""
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
    lines = [("top1", "#0f9488", "right first"), ("agreement", "#c2703d", "as the teacher")]
    above = 0.0
    for name, colour, words in sorted(lines, key=lambda line: -log[-1][line[0]]):
        points = [at(place, line[name]) for place, line in enumerate(log, 1)]
        end_x, end_y = (float(part) for part in points[-1].split(","))
        above = max(end_y, above + 15)  # names of lines that end together stand apart
        parts += [
            f'<polyline points="{" ".join(points)}" stroke="{colour}" stroke-width="2" fill="none"/>',
            f'<text x="{end_x + 6:.1f}" y="{above + 4:.1f}" style="fill:{colour}">{words}</text>',
        ]
    for epoch in range(0, epochs + 1, max(1, epochs // 6)):
        x = at(epoch, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle">{epoch}</text>')
    style = "<style>text{font:12px system-ui,sans-serif;fill:#6b7280}</style>"
    title = "<title>Validation pictures named right and as the teacher names them, by epoch</title>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{title}{style}'
    return f"{head}{''.join(parts)}</svg>\n"


# --- checkpoints --------------------------------------------------------------------------------------------


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights at half the size of float16: int8 with a scale for each row, what has no rows as float16."""
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
    """The network as it was after an epoch, from a file that `export` wrote; the weights are running averages."""
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
    """A number for each row, to be multiplied with `weight`."""
    return scale.view(-1, *(1,) * (weight.ndim - 1))


# --- commands -----------------------------------------------------------------------------------------------


@click.group(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, export or evaluate the demo model."""


_data = click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
_work = click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True)


@main.command()
@_data
@_work
@click.option("--seed", default=Recipe.seed, show_default=True)
@click.option("--until", type=int, help="Stop after this epoch; a later call goes on.")
def train(data: Path, work: Path, seed: int, until: int | None) -> None:
    """Train, or go on with the run in WORK."""
    work.mkdir(parents=True, exist_ok=True)
    state = work / "state.pt"
    stages = [replace(recipe, seed=seed) for recipe in STAGES]
    run = Run.load(state) if state.exists() else Run.new(stages[0])
    if run.recipe not in stages:
        raise click.UsageError(
            f"the run in {work} was begun with other settings (its seed is {run.recipe.seed}, {seed} was given): "
            "name its seed, or another folder"
        )
    teacher = load_model(TEACHER)
    validation, their = _kept(
        work / "validation.npz",
        lambda: tiny_imagenet(data, "val", stages[0].large_side),
        teacher,
        quick=False,
    )
    epochs = sum(recipe.epochs for recipe in stages)
    until = min(until or epochs, epochs)
    while len(run.log) < until:
        ended = len(run.log) - run.begun == run.recipe.epochs
        recipe = stages[stages.index(run.recipe) + 1] if ended else run.recipe
        views = work / f"stage-{stages.index(recipe) + 1}.npz"
        pictures, answers = _kept(views, partial(_training_pictures, data, recipe), teacher, quick=True)
        if ended:
            run = Run.following(run, recipe, pictures, answers, classifier_of(teacher))
        while len(run.log) < min(until, run.begun + recipe.epochs):
            began = time.monotonic()
            line = train_epoch(run, pictures, answers)
            numbers = measure(run.average, validation, their.probabilities)
            line |= {name: numbers[name] for name in ("top1", "agreement")}
            line["seconds"] = time.monotonic() - began
            run.log.append(line)
            run.save(state)
            if len(run.log) in KEPT_EPOCHS:
                small = {name: weight.half() for name, weight in run.average.state_dict().items()}
                torch.save(small, work / f"epoch-{len(run.log):03d}.pt")
            click.echo("  ".join(f"{name} {line[name]:.4g}" for name in _LOG))


def _training_pictures(data: Path, recipe: Recipe) -> Pictures:
    parts = tiny_imagenet(data, "train", recipe.view_side), larger_pictures(data, recipe)
    return Pictures(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts])
    )


def _kept(
    path: Path, read: Callable[[], Pictures], teacher: VisionModel, *, quick: bool
) -> tuple[Pictures, Answers]:
    """Pictures and what the teacher makes of them, from the file or made and kept there."""
    if not path.exists():
        pictures = read()
        click.echo(f"{path.stem}: {len(pictures):,} views read; asking the teacher")
        answers = ask(teacher, pictures, quick=quick)
        part = path.with_suffix(".part.npz")
        np.savez(part, pixels=pictures.pixels, labels=pictures.labels, **vars(answers))
        part.rename(path)
    with np.load(path) as kept:
        return Pictures(kept["pixels"], kept["labels"]), Answers(kept["features"], kept["probabilities"])


@main.command()
@_work
@click.option(
    "--to", default=DEMO_FOLDER, type=click.Path(file_okay=False, path_type=Path), show_default=True
)
def export(work: Path, to: Path) -> None:
    """Write the averaged weights as float16, with configuration, log, curve and checkpoints, into a model folder."""
    run = Run.load(work / "state.pt")
    to.mkdir(parents=True, exist_ok=True)
    run.average.half().save_pretrained(to)  # type: ignore[operator]
    processor = import_library("transformers").ConvNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_pct=1.0, image_mean=list(HALF), image_std=list(HALF), resample=3
    )
    processor.save_pretrained(to)
    stages = [asdict(replace(recipe, seed=run.recipe.seed)) for recipe in STAGES]
    (to / "recipe.json").write_text(json.dumps(stages, indent=2) + "\n")
    with (to / "training.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, _LOG, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{line[name]:.6g}" for name in _LOG} for line in run.log)
    (to / "training.svg").write_text(curve(run.log))
    (to / "checkpoints").mkdir(exist_ok=True)
    for epoch in (epoch for epoch in KEPT_EPOCHS if epoch <= len(run.log)):
        weights = torch.load(work / f"epoch-{epoch:03d}.pt", weights_only=True)
        save_file(packed(weights), to / "checkpoints" / f"epoch-{epoch:03d}.safetensors")


@main.command()
@_data
def evaluate(data: Path) -> None:
    """Print the model card's table, measured with the weights in the checkout."""
    network = load_model("convnext-demo").network
    teacher = load_model(TEACHER)
    click.echo(f"| pictures | {' | '.join(_CARD.values())} |\n|{' --- |' * (len(_CARD) + 1)}")
    for name, pictures in (
        ("Tiny-ImageNet, validation", tiny_imagenet(data, "val")),
        ("Imagenette, ImageNet's validation pictures", imagenette_validation(data)),
        ("photographs of Foolbox", foolbox_photographs()),
    ):
        click.echo(card_row(name, measure(network, pictures, ask(teacher, pictures).probabilities)))


def card_row(name: str, numbers: Mapping[str, float]) -> str:
    """The model card's line about these pictures."""
    words = {"pictures": f"{numbers['pictures']:,}", "median_rank": f"{numbers['median_rank']:g}"}
    cells = " | ".join(words[key] if key in words else f"{numbers[key]:.1%}" for key in _CARD)
    return f"| {name} | {cells} |"


if __name__ == "__main__":
    main()
