"""Receptive field geometry: from a unit's position in the feature map to windows in the input and the image.

All boxes are (y0, x0, y1, x1), half-open. A *field* is a unit's receptive field in input pixels; it may
extend into the padding around the input. A *window* is what a tile shows of it: along each axis as long as
the field but at most as long as the input, and shifted just enough to lie within the input. Areas of the
window outside the field are faded. All tiles of one layer thus share one scale and are filled with image
content, and what the unit cannot see is not mistaken for what activates it.
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
    """A layer's receptive field. Sizes are in input pixels, pairs are (y, x); a `size` of None means global."""

    input_size: tuple[int, int]
    map_size: tuple[int, int]
    size: tuple[int, int] | None
    jump: tuple[float, float] | None
    start: tuple[float, float] | None
    effective: int

    def field(self, y: int, x: int) -> Box:
        """Theoretical field of the unit at row `y` and column `x`, not clipped to the input."""
        if self.size is None or self.jump is None or self.start is None:
            return (0.0, 0.0, float(self.input_size[0]), float(self.input_size[1]))
        top = self.start[0] + y * self.jump[0]
        left = self.start[1] + x * self.jump[1]
        return (top, left, top + self.size[0], left + self.size[1])

    def effective_field(self, y: int, x: int) -> Box:
        """Effective field around the same center.

        For a global field, `start` is the center of its local part; without `start`, the effective field is
        centered on the unit's cell of the feature map.
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
    """What a tile shows: the `window`, its part `visible` to the unit, and the `boxes` to outline."""

    window: Box
    visible: Box
    boxes: tuple[Box, ...] = ()


def view(layer: LayerGeometry, y: int, x: int, crop: Crop) -> View:
    """The view of one unit's tile, in input pixels."""
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
    """The interval, shifted and if necessary shortened to lie within 0 and `length`."""
    size = min(high - low, length)
    low = min(max(low, 0.0), length - size)
    return (low, low + size)


def cut(box: Box, input_size: tuple[int, int]) -> Box:
    """`box` clipped to the input, in whole pixels, as in the atlas's view `patches`.

    A box entirely in the padding becomes empty, at the input's edge.
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
    """Affine map from input pixels to an image's pixels: image = offset + scale * input, per axis."""

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]  # (height, width) of the image

    def box(self, box: Box) -> Box:
        """The same box in the image's pixels, not clipped."""
        return (
            self.offset[0] + self.scale[0] * box[0],
            self.offset[1] + self.scale[1] * box[1],
            self.offset[0] + self.scale[0] * box[2],
            self.offset[1] + self.scale[1] * box[3],
        )


def placement(
    preprocessing: Preprocessing, image_size: tuple[int, int], picture_size: tuple[int, int]
) -> Placement:
    """Placement of the input in a copy of an image; `image_size` and `picture_size` (the copy's) are (height,
    width).

    The input's center is always inside the image, so its position there is never clipped and determines the
    map.
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
