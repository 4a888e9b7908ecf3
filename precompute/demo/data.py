"""Training and validation images: readers for the archives in DATA and for Foolbox's photos."""

import io
import math
import random
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from precompute.demo.recipe import SIDE, Recipe
from precompute.images.samples import PackageSource
from precompute.images.wordnet import imagenet_wnids

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """Views of images: `pixels` uint8 N,S,S,3 and `labels` int64 N, ImageNet-1k classes; -1 if unlabeled."""

    pixels: Bytes
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def tiny_imagenet(data: Path, split: str, side: int = SIDE) -> Images:
    """Tiny-ImageNet's `train` or `val` images, upscaled from 64 x 64."""
    found = zipped(data / "tiny-imagenet-50k.zip", split)
    return _gather(
        (np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)), label) for image, label in found
    )


def larger_images(data: Path, recipe: Recipe) -> Images:
    """Random square crops of the 1,000 photos and of Imagenette's training images."""
    draw = random.Random(recipe.seed)
    sources = (
        (_photos(data / "imagenet-sample-1000.tar"), recipe.photo_views),
        (zipped(data / "imagenette-4500.zip", "train"), recipe.imagenette_views),
    )
    return _gather(
        (_random_square(image, recipe, draw), label if recipe.labeled_views else -1)
        for images, views in sources
        for image, label in images
        for _ in range(views)
    )


def foolbox_photos() -> Images:
    """Foolbox's 20 labeled photos, center-cropped to 128 x 128; never trained on."""
    return _gather(
        (_center_square(Image.open(io.BytesIO(image.data)).convert("RGB")), image.label.index)
        for image in PackageSource().images()
        if image.data is not None and image.label is not None and image.label.index is not None
    )


def imagenette_validation(data: Path) -> Images:
    """Imagenette images from ImageNet's validation split, center-cropped to 128 x 128.

    The other images of its `val` come from ImageNet's training split, which the teacher may have seen.
    """
    found = zipped(data / "imagenette-4500.zip", "val", named="ILSVRC2012_val_")
    return _gather((_center_square(image), label) for image, label in found)


def _random_square(image: Image.Image, recipe: Recipe, draw: random.Random) -> Bytes:
    """A random square crop, resized."""
    side = round(min(image.size) * math.sqrt(draw.uniform(recipe.smallest_view, 1)))
    left, top = draw.randint(0, image.width - side), draw.randint(0, image.height - side)
    return _crop(image, left, top, side, recipe.view_side)


def _center_square(image: Image.Image) -> Bytes:
    side = min(image.size)
    return _crop(image, (image.width - side) // 2, (image.height - side) // 2, side, SIDE)


def _crop(image: Image.Image, left: int, top: int, side: int, to: int) -> Bytes:
    """The square of `side` pixels at `left`, `top`, resized to `to`."""
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((to, to), Image.Resampling.BICUBIC, box=box))


def _gather(found: Iterator[tuple[Bytes, int]]) -> Images:
    pixels, labels = zip(*found, strict=True)
    return Images(np.stack(pixels), np.array(labels, dtype=np.int64))


def zipped(archive: Path, split: str, named: str = "") -> Iterator[tuple[Image.Image, int]]:
    """Images and classes in the split's folders `<split>/<wnid>/` whose file names start with `named`."""
    indices = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            parts = name.split("/")
            if split in parts and parts[-1].startswith(named) and name.endswith(".JPEG"):
                yield Image.open(io.BytesIO(files.read(name))).convert("RGB"), indices[parts[-2]]


def _photos(archive: Path) -> Iterator[tuple[Image.Image, int]]:
    indices = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    with tarfile.open(archive) as files:
        for member in sorted(files.getmembers(), key=lambda member: member.name):
            data = files.extractfile(member) if member.name.endswith(".JPEG") else None
            if data is not None:
                yield Image.open(data).convert("RGB"), indices[member.name.split("/")[-2]]
