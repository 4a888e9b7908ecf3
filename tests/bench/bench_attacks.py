"""Compare our search for the smallest FGSM epsilon with a plain scan, Foolbox and bisection.

    python tests/bench/bench_attacks.py

The default search, on its geometric grid, runs as well as ours on the grid of the plain scan, both up to the
same cap.

EfficientNet-Lite0 with its real weights, on the photos in CONVSCOPE_TEST_DATA if it is set, else on the image
set `samples`. Each method runs in a separate process; the methods alternate, and the medians over rounds are
printed.

The plain scan follows PyTorch's FGSM tutorial, one image at a time: for each epsilon a forward and a backward
pass (with gradients of the weights), the step, and another forward pass. It uses the allocator's defaults, as
a script would, and so does Foolbox's first row. Foolbox's second row computes the gradient of the input only
and uses the settings of `workers.models.speedups.runtime`, as ours does. Where a plain scan is stopped early, the
remaining time is extrapolated from the epsilons tried so far: they all cost the same.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from workers.models.speedups.runtime import SETTINGS

STEP = 0.001
CAPS = (0.5, 0.1)
PHOTOGRAPHS = 24
# Maximum number of epsilons that the plain scan tries for one image before it is stopped.
MAX_SCANNED = 60
FOOLBOX_EPSILONS = 40
FOOLBOX_PHOTOGRAPHS = 4
ROUNDS = 3
METHODS = (
    "ours",
    "default grid",
    "tutorial",
    "input gradient",
    "foolbox",
    "foolbox, frozen",
    "ours at 40",
    "bisection",
)
# These run as a script would: allocator defaults, and gradients of the weights as well.
AS_IS = ("tutorial", "foolbox")


def photographs() -> Any:
    """Return pixels, float32 N,3,224,224 in [0, 1], and the model."""
    import numpy as np
    import torch
    from PIL import Image

    from workers.models.vision import load_model

    model = load_model("efficientnet-lite0")
    given = os.environ.get("CONVSCOPE_TEST_DATA")
    if given:
        with tarfile.open(Path(given) / "imagenet-sample-1000.tar") as archive:
            members = sorted(member.name for member in archive if member.name.endswith(".JPEG"))
            files = [archive.extractfile(name).read() for name in members[:: len(members) // PHOTOGRAPHS]]  # type: ignore[union-attr]
    else:
        from precompute.images.samples import PackageSource

        files = [image.data for image in PackageSource().images() if image.data is not None]
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[:PHOTOGRAPHS]]
    arrays = np.stack([model.preprocessing(picture) for picture in pictures])
    return model, torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous().float() / 255


def ours(
    model: Any, forward: Any, pixels: Any, cap: float, *, geometric: bool = False
) -> list[tuple[float | None, int]]:
    """Search as a worker does, image by image; return each epsilon and the number of forward passes it took."""
    from workers.attacks.search import smallest_epsilons
    from workers.requests.epsilons import GeometricGrid, Grid

    class Counting:
        network = forward.network
        images = 0

        def __call__(self, moved: Any) -> Any:
            self.images += len(moved)
            return forward(moved)

    grid = GeometricGrid(cap=cap) if geometric else Grid(step=STEP, cap=cap)
    found = []
    for image in pixels:
        counting = Counting()
        (search,) = smallest_epsilons(model, image.unsqueeze(0), grid=grid, forward=counting)
        found.append((search.epsilon, counting.images))
    return found


def scan(model: Any, image: Any, cap: float, *, weights: bool) -> tuple[float | None, int, float]:
    """Scan plainly; return the epsilon, how many epsilons were tried (at most MAX_SCANNED), and seconds."""
    import torch
    from torch.nn import functional as F

    model.requires_grad_(weights)
    with torch.no_grad():
        label = model(image[None]).argmax(1)
    begun = time.perf_counter()
    for i in range(1, round(cap / STEP) + 1):
        batch = image[None].clone().requires_grad_()
        loss = F.cross_entropy(model(batch), label)
        model.zero_grad()
        loss.backward()
        moved = (batch + i * STEP * batch.grad.sign()).clamp(0, 1).detach()
        with torch.no_grad():
            if int(model(moved).argmax()) != int(label):
                return i * STEP, i, time.perf_counter() - begun
        if i == MAX_SCANNED:
            return None, i, time.perf_counter() - begun
    return None, i, time.perf_counter() - begun


def foolbox_seconds(model: Any, pixels: Any) -> float:
    """Time Foolbox's FGSM at FOOLBOX_EPSILONS epsilons."""
    import foolbox
    import torch

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    labels = wrapped(pixels).argmax(1)
    epsilons = [i * STEP for i in range(1, FOOLBOX_EPSILONS + 1)]
    begun = time.perf_counter()
    for image, label in zip(pixels, labels, strict=True):
        foolbox.attacks.LinfFastGradientAttack()(
            wrapped, image[None], torch.tensor([int(label)]), epsilons=epsilons
        )
    return time.perf_counter() - begun


def bisection(model: Any, image: Any, cap: float) -> float | None:
    """Return the epsilon that bisection finds; None where the attack fails at the cap."""
    import torch

    from workers.attacks.steps import loss_gradient, perturbed

    with torch.no_grad():
        label = model(image[None]).argmax(1)
    direction = loss_gradient(model, image[None], label).sign()

    def succeeds(i: int) -> bool:
        with torch.no_grad():
            return int(model(perturbed(image[None], direction, i * STEP)).argmax()) != int(label)

    low, high = 0, round(cap / STEP)
    if not succeeds(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if succeeds(middle) else (middle, high)
    return high * STEP


def measure(method: str) -> dict[str, Any]:
    """Run one method in this process."""
    import warnings

    warnings.simplefilter("ignore")
    from workers.attacks.search import smallest_epsilons
    from workers.models.speedups.folding import folded
    from workers.models.speedups.pointwise import optimize_for_inference
    from workers.requests.epsilons import Grid

    model, pixels = photographs()
    if method.startswith("ours") or method == "default grid":
        optimize_for_inference(model.network)
        forward = folded(model, pixels[:1])  # as in a worker
        ours(model, forward, pixels[:2], 0.01)
        told: dict[str, Any] = {}
        if method == "ours at 40":
            begun = time.perf_counter()
            grid = Grid(step=STEP, cap=FOOLBOX_EPSILONS * STEP)
            for image in pixels[:FOOLBOX_PHOTOGRAPHS]:
                smallest_epsilons(model, image[None], grid=grid, full_scan=True, forward=forward)
            return {"seconds": time.perf_counter() - begun}
        for cap in CAPS:
            begun = time.perf_counter()
            found = ours(model, forward, pixels, cap, geometric=method == "default grid")
            told[str(cap)] = {
                "seconds": time.perf_counter() - begun,
                "epsilons": [epsilon for epsilon, _ in found],
                "images": sum(images for _, images in found),
            }
        return told
    if method.startswith("foolbox"):
        model.requires_grad_(method in AS_IS)
        foolbox_seconds(model, pixels[:1])
        return {"seconds": foolbox_seconds(model, pixels[:FOOLBOX_PHOTOGRAPHS])}
    if method == "bisection":
        return {str(cap): {"epsilons": [bisection(model, image, cap) for image in pixels]} for cap in CAPS}
    scan(model, pixels[0], 0.003, weights=method == "tutorial")
    rows = [scan(model, image, max(CAPS), weights=method == "tutorial") for image in pixels]
    return {"rows": rows}


def main() -> None:
    """Measure each method in a separate process and print the tables."""
    if len(sys.argv) == 2:
        print(json.dumps(measure(sys.argv[1])))
        return
    rounds: dict[str, list[Any]] = {method: [] for method in METHODS}
    for turn in range(ROUNDS):
        for method in METHODS:
            if turn and method == "bisection":
                continue  # not timed, so one round is enough
            settings = {} if method in AS_IS else SETTINGS
            made = subprocess.run(
                [sys.executable, __file__, method],
                env=os.environ | settings,
                stdout=subprocess.PIPE,
                check=True,
            )
            rounds[method].append(json.loads(made.stdout.splitlines()[-1]))
    for cap in CAPS:
        epsilons = rounds["ours"][0][str(cap)]["epsilons"]
        seconds = statistics.median(turn[str(cap)]["seconds"] for turn in rounds["ours"])
        resisting = sum(epsilon is None for epsilon in epsilons)
        print(f"\nsmallest epsilon, grid {STEP} to {cap}: {len(epsilons)} photographs, {resisting} resist")
        print(f"{'':<46}{'seconds':>10}{'ratio':>9}{'equal':>14}")
        print(f"{'ours':<46}{seconds:>10.1f}{1:>9.2f}")
        default = [turn[str(cap)] for turn in rounds["default grid"]]
        theirs = statistics.median(turn["seconds"] for turn in default)
        passed = [turn["images"] / len(epsilons) for turn in (default[0], rounds["ours"][0][str(cap)])]
        words = "default grid, from 1/4080 in ratios of 1.5"
        told = f"{passed[0]:.1f} forward passes an image, ours here {passed[1]:.1f}"
        print(f"{words:<46}{theirs:>10.1f}{theirs / seconds:>9.2f}   {told}")
        wanted = [round((epsilon or cap) / STEP) for epsilon in epsilons]
        for method, words in (("tutorial", "as in the tutorial"), ("input gradient", "input gradient alone")):
            total = statistics.median(
                sum(spent * n / looked for (_, looked, spent), n in zip(turn["rows"], wanted, strict=True))
                for turn in rounds[method]
            )
            walked = [
                (ours_, theirs)
                for ours_, (theirs, looked, _) in zip(epsilons, rounds[method][0]["rows"], strict=True)
                if (theirs is not None and theirs <= cap) or looked >= round(cap / STEP)
            ]
            equal = f"{sum(one == other for one, other in walked)} of {len(walked)}"
            print(f"{f'plain scan, {words}':<46}{total:>10.1f}{total / seconds:>9.2f}{equal:>14}")
        halved = rounds["bisection"][0][str(cap)]["epsilons"]
        wrong = sum(one != other for one, other in zip(epsilons, halved, strict=True))
        print(f"bisection is wrong on {wrong} of {len(epsilons)}")
    spent = statistics.median(turn["seconds"] for turn in rounds["ours at 40"])
    print(f"\n{FOOLBOX_EPSILONS} epsilons on {FOOLBOX_PHOTOGRAPHS} photographs: ours {spent:.1f} s")
    for method, words in (
        ("foolbox", "as a script has it"),
        ("foolbox, frozen", "weights frozen, our settings"),
    ):
        seconds = statistics.median(turn["seconds"] for turn in rounds[method])
        print(f"{f'Foolbox, {words}':<46}{seconds:>10.1f}{seconds / spent:>9.2f}")


if __name__ == "__main__":
    main()
