"""Compare SmoothGrad with Captum's NoiseTunnel, bfloat16 with float32, and early stopping with all samples.

    python tests/bench/bench_attribution.py

The first table (ConvNeXt-tiny) runs each method in a separate process, so that peak memory is measured per
method; the methods alternate. All of them, Captum included, use the C library settings of
`workers.models.speedups.runtime`. The other tables use real weights (EfficientNet-Lite0) and photos: those in
CONVSCOPE_TEST_DATA if it is set, else the image set `samples`.
"""

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from workers.models.speedups.runtime import restart_with_settings

SAMPLES = 25
ROUNDS = 3
LEVEL = 0.15
METHODS = {
    "ours, float32": {"dtype": "float32"},
    "ours, bfloat16": {"dtype": "bfloat16"},
    "Captum, 1 sample a pass": {"captum": 1},
    "Captum, 5 samples a pass": {"captum": 5},
    "Captum, 25 samples a pass": {"captum": 25},
}
PHOTOGRAPHS = 12


def convnext() -> Any:
    """Build a full-size ConvNeXt-tiny with random weights as a vision model."""
    import torch

    from workers.models.networks import LoadedNetwork
    from workers.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
    from workers.models.vision import VisionModel
    from workers.models.vocabularies import vocabulary_of_labels
    from workers.torchvision_import import import_library

    torch.manual_seed(0)
    library = import_library("transformers")
    network = library.ConvNextForImageClassification(library.ConvNextConfig(num_labels=1000))
    loaded = LoadedNetwork(
        network=network,
        source="bench",
        architecture="ConvNext",
        preprocessing=Preprocessing((224, 224), 224, "bicubic", IMAGENET_MEAN, IMAGENET_STD),
        vocabulary=vocabulary_of_labels([str(index) for index in range(1000)], model="bench"),
    )
    return VisionModel(loaded, name="bench").eval().requires_grad_(False)


def one(name: str) -> None:
    """In the child process: seconds per map after a warm-up, and peak memory above the loaded model."""
    import torch
    from captum.attr import NoiseTunnel, Saliency

    from workers.attribution.smoothgrad import smoothgrad
    from workers.models.speedups.pointwise import optimize_for_inference

    options = METHODS[name]
    model = convnext()
    if "captum" in options:
        model.network_logits = lambda x: model.network(x).logits
    else:
        optimize_for_inference(model.network)  # as in a worker
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        target = model(pixels).argmax(1)
    target = target.clone()
    loaded = peak()

    def ours() -> None:
        smoothgrad(
            model, pixels, target, samples=SAMPLES, noise_level=LEVEL, seed=0, dtype=str(options["dtype"])
        )

    def captums() -> None:
        normalised = ((pixels - model.mean) / model.std).requires_grad_()
        NoiseTunnel(Saliency(model.network_logits)).attribute(
            normalised,
            nt_type="smoothgrad",
            nt_samples=SAMPLES,
            nt_samples_batch_size=int(options["captum"]),
            stdevs=LEVEL * float(normalised.max() - normalised.min()),
            target=target,
            abs=False,
        )

    run = captums if "captum" in options else ours
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "megabytes": (peak() - loaded) / 1e6}))


def peak() -> float:
    """Return this process's peak memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def speed_and_memory() -> None:
    """Print the first table."""
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    megabytes: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name in METHODS:
            words = [sys.executable, __file__, name]
            told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout
            found = json.loads(told.splitlines()[-1])
            seconds[name].append(found["seconds"])
            megabytes[name] = max(megabytes.get(name, 0.0), found["megabytes"])
    best = min(statistics.median(taken) for name, taken in seconds.items() if name.startswith("Captum"))
    exact = statistics.median(seconds["ours, float32"])
    print(f"SmoothGrad of {SAMPLES} samples, ConvNeXt-tiny 224 x 224, medians of {ROUNDS}\n")
    print(f"{'':<28}{'seconds':>9}{'over Captum at its best':>25}{'memory over the model':>23}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:<28}{median:>9.2f}{best / median:>24.2f}x{megabytes[name]:>20.0f} MB")
    rounded = statistics.median(seconds["ours, bfloat16"])
    print(f"\nbfloat16 is {exact / rounded:.2f}x as fast as float32\n")


def photos() -> list[Any]:
    """Return photos spread evenly over their set."""
    from PIL import Image

    folder = os.environ.get("CONVSCOPE_TEST_DATA")
    if folder:
        with tarfile.open(Path(folder) / "imagenet-sample-1000.tar") as archive:
            members = sorted(member.name for member in archive if member.name.endswith(".JPEG"))
            step = len(members) // PHOTOGRAPHS
            files = [archive.extractfile(name) for name in members[::step][:PHOTOGRAPHS]]
            return [Image.open(io.BytesIO(file.read())).convert("RGB") for file in files if file]
    from skimage import data

    names = ("astronaut", "coffee", "chelsea", "rocket")
    return [Image.fromarray(getattr(data, name)()).convert("RGB") for name in names]


def precision_and_stopping() -> None:
    """Print the other tables, on real weights."""
    import torch
    from scipy.stats import spearmanr

    from workers.attribution.smoothgrad import smoothgrad
    from workers.models.vision import load_model

    model = load_model("efficientnet-lite0")
    pictures = photos()
    pixels = torch.stack([torch.from_numpy(model.preprocessing(p).copy()) for p in pictures])
    pixels = pixels.permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        targets = model(pixels).argmax(1)
    targets = targets.clone()

    def maps(**options: Any) -> Any:
        return smoothgrad(model, pixels, targets, noise_level=LEVEL, **options)

    def alike(left: Any, right: Any) -> float:
        return statistics.median(
            float(spearmanr(a.flatten(), b.flatten()).statistic)
            for a, b in zip(left.map, right.map, strict=True)
        )

    exact = maps(samples=SAMPLES, seed=0)
    rounded = maps(samples=SAMPLES, seed=0, dtype="bfloat16")
    other = maps(samples=SAMPLES, seed=1)
    print(f"EfficientNet-Lite0 on {len(pictures)} photos, Spearman's correlation of maps, medians\n")
    print(f"float32 and bfloat16, the same noise         {alike(exact, rounded):.3f}")
    print(f"float32 and float32, other noise             {alike(exact, other):.3f}")
    print(f"the first is the error of rounding, the second that of sampling with n = {SAMPLES}\n")

    print("Early stop: samples until the halves agree (Spearman-Brown), at most 200\n")
    whole = maps(samples=200, seed=0)
    print(f"{'agreement':<12}{'mean samples':>14}{'most':>7}{'fixed n for all':>17}{'saved':>8}")
    for agreement in (0.4, 0.5, 0.6, 0.7):
        found = maps(samples=200, seed=0, agreement=agreement)
        mean = statistics.mean(found.samples)
        most = max(found.samples)
        reached = sum((value or 0) >= agreement for value in found.agreement)
        note = "" if reached == len(pictures) else f"   ({reached} of {len(pictures)} reach it)"
        print(f"{agreement:<12}{mean:>14.1f}{most:>7}{most:>17}{1 - mean / most:>8.0%}{note}")
    default = maps(samples=SAMPLES, seed=0, agreement=0.5)
    reached = sum((value or 0) >= 0.5 for value in default.agreement)
    mean = statistics.mean(default.samples)
    print(f"\nthe default, agreement 0.5 and at most {SAMPLES}: {mean:.1f} samples in the mean, ", end="")
    print(f"reached by {reached} of {len(pictures)}")
    print(f"agreement with 200 samples: median {statistics.median(whole.agreement):.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(sys.argv[1])
    else:
        restart_with_settings()
        speed_and_memory()
        precision_and_stopping()
