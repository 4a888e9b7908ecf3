"""Where a unit looks: from its place in the feature map to a window in the model's input and in a picture.

All boxes are (y0, x0, y1, x1), half-open. A *field* is where a unit looks, input pixels, and may lie partly
in the padding around the input. A *window* is what a tile shows of it: per axis as long as the field, but
never longer than the input, and moved just so far that it lies within the input. What lies in the window and
not in the field is faded: so all tiles of one layer have one scale and are filled with picture, and what the
unit cannot see does not pass for what excites it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from workers.models.preprocessing import Interpolation, Preprocessing

Box = tuple[float, float, float, float]
Crop = Literal["field", "effective", "image"]
CROPS: dict[Crop, str] = {
    "field": "Theoretical field",
    "effective": "Effective field",
    "image": "Whole image",
}


@dataclass(frozen=True)
class LayerGeometry:
    """A layer's receptive field. Sizes in input pixels, pairs are (y, x); `size` None means global."""

    input_size: tuple[int, int]
    map_size: tuple[int, int]
    size: tuple[int, int] | None
    jump: tuple[float, float] | None
    start: tuple[float, float] | None
    effective: int

    def field(self, y: int, x: int) -> Box:
        """Theoretical field of the unit in row `y` and column `x`, not cut at the input's edge."""
        if self.size is None or self.jump is None or self.start is None:
            return (0.0, 0.0, float(self.input_size[0]), float(self.input_size[1]))
        top = self.start[0] + y * self.jump[0]
        left = self.start[1] + x * self.jump[1]
        return (top, left, top + self.size[0], left + self.size[1])

    def effective_field(self, y: int, x: int) -> Box:
        """Effective field around the same centre.

        A global field's start is the middle of its local part; without one it is centred on its cell of the map.
        """
        if self.jump is None or self.start is None:
            centre_y = (y + 0.5) * self.input_size[0] / self.map_size[0]
            centre_x = (x + 0.5) * self.input_size[1] / self.map_size[1]
        else:
            size = self.size or (0, 0)
            centre_y = self.start[0] + y * self.jump[0] + size[0] / 2
            centre_x = self.start[1] + x * self.jump[1] + size[1] / 2
        top = math.floor(centre_y - self.effective / 2)
        left = math.floor(centre_x - self.effective / 2)
        return (top, left, top + self.effective, left + self.effective)


@dataclass(frozen=True)
class View:
    """What a tile shows: the `window`, the part of it that is `visible` to the unit, and `boxes` to draw."""

    window: Box
    visible: Box
    boxes: tuple[Box, ...] = ()


def view(layer: LayerGeometry, y: int, x: int, crop: Crop) -> View:
    """What the tile of one unit shows, in input pixels."""
    height, width = layer.input_size
    if crop == "image":
        boxes = (
            cut(layer.field(y, x), layer.input_size),
            cut(layer.effective_field(y, x), layer.input_size),
        )
        everything = (0.0, 0.0, float(height), float(width))
        return View(everything, everything, boxes)
    box = layer.field(y, x) if crop == "field" else layer.effective_field(y, x)
    top, bottom = _within(box[0], box[2], height)
    left, right = _within(box[1], box[3], width)
    return View((top, left, bottom, right), cut(box, layer.input_size))


def _within(low: float, high: float, length: int) -> tuple[float, float]:
    """The interval, moved and if need be shortened to lie in 0 to `length`."""
    size = min(high - low, length)
    low = min(max(low, 0.0), length - size)
    return (low, low + size)


def cut(box: Box, input_size: tuple[int, int]) -> Box:
    """`box` cut at the edges of the input, in whole pixels: as the atlas's view `patches` gives it.

    One that lies wholly in the padding is empty, at the edge.
    """
    height, width = input_size
    return (
        float(min(height, max(0, math.floor(box[0])))),
        float(min(width, max(0, math.floor(box[1])))),
        float(max(0, min(height, math.ceil(box[2])))),
        float(max(0, min(width, math.ceil(box[3])))),
    )


@dataclass(frozen=True)
class Placement:
    """Affine map from input pixels to a picture's pixels: picture = offset + scale * input, per axis."""

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]  # (height, width) of the picture

    def box(self, box: Box) -> Box:
        """The same box in the picture's pixels, not clipped."""
        return (
            self.offset[0] + self.scale[0] * box[0],
            self.offset[1] + self.scale[1] * box[1],
            self.offset[0] + self.scale[0] * box[2],
            self.offset[1] + self.scale[1] * box[3],
        )


def placement(
    preprocessing: Preprocessing, image_size: tuple[int, int], picture_size: tuple[int, int]
) -> Placement:
    """How the input lies in a smaller copy (`picture_size`) of an image (`image_size`), both (height, width).

    The input's centre is always inside the image, so its place there, which is never clipped, fixes the map.
    """
    height, width = image_size
    input_height, input_width = preprocessing.input_size
    resized = preprocessing.resized_size(width, height)
    middle = (input_height / 2, input_width / 2)
    centre = preprocessing.box_in_image((*middle, *middle), width, height)
    shrink = (picture_size[0] / height, picture_size[1] / width)
    scale = (height / resized[0] * shrink[0], width / resized[1] * shrink[1])
    offset = (centre[0] * shrink[0] - scale[0] * middle[0], centre[1] * shrink[1] - scale[1] * middle[1])
    return Placement(scale, offset, picture_size)


def read_preprocessing(model: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing from the columns of the atlas's table `models`."""
    return Preprocessing(
        input_size=(model["input_height"], model["input_width"]),
        resize=(
            model["resize_width"]
            if model["resize_height"] is None
            else (model["resize_height"], model["resize_width"])
        ),
        interpolation=cast(Interpolation, model["interpolation"]),
        mean=tuple(model["mean"]),
        std=tuple(model["std"]),
        crop_rounding=model["crop_rounding"],
        fit=model["fit"],
    )


def read_layer_geometry(layer: Mapping[str, Any], model: Mapping[str, Any]) -> LayerGeometry:
    """A layer's geometry from the columns of the atlas's tables `layers` and `models`."""
    known = not layer["rf_global"] and layer["rf_size_y"] is not None
    return LayerGeometry(
        input_size=(model["input_height"], model["input_width"]),
        map_size=(layer["height"], layer["width"]),
        size=(layer["rf_size_y"], layer["rf_size_x"]) if known else None,
        jump=None if layer["jump_y"] is None else (layer["jump_y"], layer["jump_x"]),
        start=None if layer["start_y"] is None else (layer["start_y"], layer["start_x"]),
        effective=layer["erf_size"] or max(model["input_height"], model["input_width"]),
    )
