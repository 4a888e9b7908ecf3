"""One training epoch: augmentation, loss, learning rate, optimizer steps, running average of the weights."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precompute.demo.data import Images
from precompute.demo.network import student_features, to_pixels
from precompute.demo.recipe import CLASSES, Recipe
from precompute.demo.run import Run
from precompute.demo.teacher import Answers


def train_epoch(run: Run, images: Images, answers: Answers) -> dict[str, float]:
    """One pass over `images`; returns the epoch's line of the log, without validation results."""
    recipe, epoch = run.recipe, len(run.log) - run.begun
    draw = torch.Generator().manual_seed(recipe.seed * 1000 + len(run.log))
    side = recipe.small_side if epoch < recipe.small_share * recipe.epochs else recipe.large_side
    order = torch.randperm(len(images), generator=draw)
    steps = len(images) // recipe.batch
    spread = answers.features[:: max(1, len(images) // 5000)].astype(np.float32).var(0).mean().item()
    run.network.train()
    losses = []
    for step in range(steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch].numpy()
        given = torch.from_numpy(images.labels[chosen])
        labels = F.one_hot(given.clamp(min=0), CLASSES) * (given >= 0).float()[:, None]
        answered = softened(torch.from_numpy(answers.probabilities[chosen]).float(), recipe.temperature)
        theirs = torch.from_numpy(answers.features[chosen]).float()
        pixels = augmented(to_pixels(images.pixels[chosen]), side, recipe, draw)
        own = mixup_share(recipe.mixup, draw)
        pixels, labels, answered, theirs = (
            part * own + part.flip(0) * (1 - own) for part in (pixels, labels, answered, theirs)
        )
        ours = student_features(run.network, pixels)
        loss = distillation_loss(run.network.get_submodule("classifier")(ours), labels, answered, recipe)
        if recipe.feature_weight:
            loss = loss + recipe.feature_weight * F.mse_loss(run.projection(ours), theirs) / spread
        share = learning_rate_share(recipe, (epoch * steps + step) / steps)
        for optimizer, peak in zip(run.optimizers, (recipe.matrix_peak, recipe.other_peak), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        for optimizer in run.optimizers:
            optimizer.step()
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


def distillation_loss(logits: Tensor, labels: Tensor, answered: Tensor, recipe: Recipe) -> Tensor:
    """Weighted sum of the cross-entropies with the labels and with the teacher's softened probabilities.

    The second one uses the logits at the same temperature and is scaled by its square, because the gradient
    shrinks accordingly (Hinton et al. 2015).

    Args:
        logits, labels, answered: N,C; `labels` one-hot or mixed, `answered` as returned by `softened`.
    """
    from_labels = F.cross_entropy(logits, labels)
    from_teacher = F.cross_entropy(logits / recipe.temperature, answered) * recipe.temperature**2
    loss: Tensor = (1 - recipe.teacher_share) * from_labels + recipe.teacher_share * from_teacher
    return loss


def softened(answered: Tensor, temperature: float) -> Tensor:
    """Probabilities at a higher temperature.

    Probabilities that underflowed in float16 are set to its smallest number, so confident outputs are
    softened slightly too much.
    """
    powers = answered.clamp(min=6e-8) ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


def learning_rate_share(recipe: Recipe, epoch: float) -> float:
    """Fraction of the peak learning rate: linear warm-up, then cosine decay to 1 % of the peak."""
    if epoch < recipe.warmup_epochs:
        return (epoch + 0.01) / (recipe.warmup_epochs + 0.01)
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def mixup_share(strength: float, draw: torch.Generator) -> float:
    """A draw from Beta(`strength`, `strength`); 1 if `strength` is 0."""
    if strength == 0:
        return 1.0
    return float(
        np.random.default_rng(int(torch.randint(2**31, (1,), generator=draw))).beta(strength, strength)
    )


def augmented(pixels: Tensor, side: int, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Random shift, zoom, flip, contrast and brightness of each view, at `side` pixels."""
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
