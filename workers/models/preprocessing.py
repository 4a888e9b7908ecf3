"""How an image becomes a network's input: resize, center crop, and the mapping back to the image's pixels.

Only Pillow and NumPy: the web process uses this to place boxes, and must not load torch. Normalization (mean,
std) is stored here because it belongs to the same configuration, but it is applied by the model, whose input
is pixels in [0, 1].
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
INTERPOLATIONS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

Fit = Literal["exact", "cover", "contain"]
# One number per channel: R, G, B, or gray only.
Channels = tuple[float, ...]
Triple = tuple[float, float, float]
Box = tuple[float, float, float, float]


# Pixels of a resized image before its crop, at 4 bytes each. A photo has a thousandth of that.
_MAX_RESIZED = 2**27


class TooThin(ValueError):
    """An image is so long and thin that resizing its short side makes it enormous; the message is a sentence."""


@dataclass(frozen=True, repr=False)
class Preprocessing:
    """One model's preprocessing. Sizes are (height, width) in pixels; mean and std are for pixels in [0, 1].

    Attributes:
        input_size: what the network sees.
        resize: shortest side before the crop, or a (height, width), which `fit` explains.
        interpolation: Pillow's filter of that name, always with antialiasing.
        mean, std: per channel R, G, B; (0, 0, 0) and (1, 1, 1) if the weights expect plain [0, 1]. One number
            each if the network takes one channel: gray, by Pillow's luminance (ITU-R 601) before the resize.
        crop_rounding: how half a pixel is rounded if an odd number of pixels is cropped. "half_even" is
            torchvision's and timm's `round`, "down" is transformers' integer division; they differ by one
            pixel.
        fit: how an image gets the (height, width) of `resize`: "exact" may change the aspect ratio; "cover"
            and "contain" keep it, so that the image just covers that size or just fits into it, like timm's
            `ResizeKeepRatio`.
        fill: 8-bit level per channel of the border around an image that is smaller than the crop; empty for
            0.
    """

    input_size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: Interpolation
    mean: Channels
    std: Channels
    crop_rounding: Literal["half_even", "down"] = "half_even"
    fit: Fit = "exact"
    fill: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """Model digests are computed from this text: a field added later appears only if it is not at its default."""
        names = [field.name for field in fields(self)]
        shown = names[:6] + [name for name in names[6:] if getattr(self, name) != _DEFAULTS[name]]
        return f"Preprocessing({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def channels(self) -> int:
        """3 for R, G, B; 1 for gray."""
        return len(self.mean)

    def in_gray(self) -> "Preprocessing":
        """A copy for one channel, with the averages of mean and std."""
        mean, std = (round(sum(values) / len(values), 6) for values in (self.mean, self.std))
        fill = (round(sum(self.fill) / len(self.fill)),) if self.fill else ()
        return replace(self, mean=(mean,), std=(std,), fill=fill)

    def __post_init__(self) -> None:
        resize = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        for name, pair in (("input_size", self.input_size), ("resize", resize)):
            if len(pair) != 2 or not all(isinstance(length, int) and length > 0 for length in pair):
                raise ValueError(f"{name}: expected positive (height, width), got {pair}")
        if self.interpolation not in INTERPOLATIONS:
            choices = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation: expected one of {choices}, got {self.interpolation!r}")
        numbers_fit = all(map(math.isfinite, (*self.mean, *self.std))) and all(s > 0 for s in self.std)
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or not numbers_fit:
            raise ValueError(
                "mean and std: expected three numbers each (or one, for one channel), std positive, "
                f"got {self.mean} and {self.std}"
            )
        if self.fit not in ("exact", "cover", "contain"):
            raise ValueError(f"fit: expected exact, cover or contain, got {self.fit!r}")
        if self.fit != "exact" and isinstance(self.resize, int):
            raise ValueError(f"resize: expected (height, width) to {self.fit}, got {self.resize}")
        if self.fill and (len(self.fill) != self.channels or not all(0 <= v <= 255 for v in self.fill)):
            raise ValueError(f"fill: expected a level of 0 to 255 per channel, got {self.fill}")

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of a `width` x `height` image after the resize and before the crop.

        The longer side is truncated, as in torchvision, timm and transformers.
        """
        if not isinstance(self.resize, int):
            if self.fit == "exact":
                return self.resize
            ratios = (height / self.resize[0], width / self.resize[1])
            ratio = min(ratios) if self.fit == "cover" else max(ratios)
            return (max(1, round(height / ratio)), max(1, round(width / ratio)))
        short, long = min(width, height), max(width, height)
        resized_long = int(self.resize * long / short)
        return (self.resize, resized_long) if height <= width else (resized_long, self.resize)

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """uint8 H,W,C of `input_size`, not normalized; an image smaller than the crop gets borders of `fill`.

        Raises:
            ValueError: the image is not RGB.
            TooThin: resized, it would have more than 2^27 pixels.
        """
        if image.mode != "RGB":
            raise ValueError(f"expected an RGB image, got mode {image.mode!r}")
        height, width = self.resized_size(image.width, image.height)
        if height * width > _MAX_RESIZED:
            raise TooThin(
                f"it has {image.width:,} x {image.height:,} pixels, resized to {width:,} x {height:,}; "
                f"the limit is {_MAX_RESIZED:,} pixels"
            )
        if self.channels == 1:
            image = image.convert("L")
        if (width, height) != image.size:
            image = image.resize((width, height), INTERPOLATIONS[self.interpolation])
        top, left = self._crop_corner(height, width)
        if self.fill and (top < 0 or left < 0):
            canvas = Image.new(
                image.mode, self.input_size[::-1], self.fill[0] if self.channels == 1 else self.fill
            )
            canvas.paste(image, (-left, -top))
            image = canvas
        else:
            # Pillow fills what is outside the image with zeros.
            image = image.crop((left, top, left + self.input_size[1], top + self.input_size[0]))
        pixels = np.asarray(image)
        return pixels[:, :, None] if self.channels == 1 else pixels

    def box_in_image(self, box: Box, width: int, height: int) -> Box:
        """`box` (y0, x0, y1, x1), in input pixels, converted to pixels of a `width` x `height` image.

        Clipped to the image; half-open like the input.
        """
        resized_height, resized_width = self.resized_size(width, height)
        top, left = self._crop_corner(resized_height, resized_width)
        y0, x0, y1, x1 = box
        scale_y, scale_x = height / resized_height, width / resized_width
        return (
            min(max((y0 + top) * scale_y, 0.0), float(height)),
            min(max((x0 + left) * scale_x, 0.0), float(width)),
            min(max((y1 + top) * scale_y, 0.0), float(height)),
            min(max((x1 + left) * scale_x, 0.0), float(width)),
        )

    def _crop_corner(self, height: int, width: int) -> tuple[int, int]:
        """(top, left) of the crop in the resized image; negative if the image is smaller than the crop."""
        return (
            self._centre(height, self.input_size[0]),
            self._centre(width, self.input_size[1]),
        )

    def _centre(self, size: int, crop: int) -> int:
        spare = size - crop
        if spare < 0:
            # All three libraries put the extra odd pixel of padding on the far side, except transformers' PIL
            # pipeline, which puts it on the near side: a difference of one border pixel.
            return -(-spare // 2)
        return round(spare / 2) if self.crop_rounding == "half_even" else spare // 2


_DEFAULTS = {field.name: field.default for field in fields(Preprocessing)}
