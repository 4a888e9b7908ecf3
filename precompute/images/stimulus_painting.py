"""Painting of stimuli: one function per kind, from parameters and coordinates to RGB.

`x` and `y` are H,W, in image widths from the center, y up; the result is float32 H,W,3, approximately in [0,
1].
"""

import colorsys
import math
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Directions in RGB; the two opponent ones keep Rec. 601 luma constant.
COLORS = {
    "luminance": np.array([1.0, 1.0, 1.0], np.float32),
    "red-green": np.array([1.0, -0.299 / 0.587, 0.0], np.float32),
    "blue-yellow": np.array([-0.114 / 0.886, -0.114 / 0.886, 1.0], np.float32),
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Value = float | str
Values = Mapping[str, Value]
Plane = NDArray[np.floating[Any]]


def _real(values: Values, name: str) -> float:
    return float(values[name])


def _along(values: Values, x: Plane, y: Plane, turn: float = 0.0) -> tuple[Plane, Plane]:
    """Coordinates along and across the orientation."""
    angle = math.radians(_real(values, "orientation") + turn)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _placed(values: Values, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    return x - _real(values, "x"), y - _real(values, "y")


def _wave(values: Values, across: Plane) -> Plane:
    wave: Plane = np.cos(
        2 * np.pi * _real(values, "frequency") * across + math.radians(_real(values, "phase"))
    )
    return wave


def _colored(values: Values, pattern: Plane) -> Plane:
    """Gray, plus a pattern in [-1, 1] along the color axis."""
    axis = COLORS[str(values["colour"])]
    return 0.5 + 0.5 * _real(values, "contrast") * pattern[..., None] * axis


def _inked(values: Values, inside: NDArray[np.bool_]) -> Plane:
    """Light on dark, or dark on light."""
    ink, paper = (0.95, 0.25) if values["polarity"] == "light" else (0.05, 0.75)
    return np.repeat(np.where(inside, ink, paper)[..., None], 3, axis=2)


def _rgb(hue: float, saturation: float, value: float) -> Plane:
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value), np.float32)


def paint_grating(values: Values, x: Plane, y: Plane) -> Plane:
    return _colored(values, _wave(values, _along(values, x, y)[1]))


def paint_plaid(values: Values, x: Plane, y: Plane) -> Plane:
    other = _along(values, x, y, _real(values, "angle"))[1]
    return _colored(values, (_wave(values, _along(values, x, y)[1]) + _wave(values, other)) / 2)


def paint_checkerboard(values: Values, x: Plane, y: Plane) -> Plane:
    along, across = _along(values, x, y)
    return _colored(values, np.sign(_wave(values, along)) * np.sign(_wave(values, across)))


def paint_rings(values: Values, x: Plane, y: Plane) -> Plane:
    return _colored(values, _wave(values, np.hypot(x, y)))


def paint_spokes(values: Values, x: Plane, y: Plane) -> Plane:
    return _colored(values, _wave(values, np.arctan2(y, x) / (2 * np.pi)))


def paint_dots(values: Values, x: Plane, y: Plane) -> Plane:
    along, across = ((part * _real(values, "frequency") + 0.5) % 1 - 0.5 for part in _along(values, x, y))
    return _inked(values, np.hypot(along, across) < _real(values, "size") / 2)


def paint_edge(values: Values, x: Plane, y: Plane) -> Plane:
    return _colored(values, np.where(_along(values, x, y)[1] > 0, 1.0, -1.0))


def paint_bar(values: Values, x: Plane, y: Plane) -> Plane:
    across = _along(values, *_placed(values, x, y))[1]
    return _inked(values, np.abs(across) < _real(values, "size") / 2)


def paint_corner(values: Values, x: Plane, y: Plane) -> Plane:
    """A wedge that opens toward the orientation."""
    along, across = _along(values, *_placed(values, x, y))
    return _inked(values, np.abs(np.arctan2(across, along)) < math.radians(_real(values, "angle")) / 2)


def paint_arc(values: Values, x: Plane, y: Plane) -> Plane:
    """A third of a ring of radius `size` around the center, with its middle toward the orientation."""
    along, across = _along(values, x, y)
    band = np.abs(np.hypot(along, across) - _real(values, "size")) < 0.03
    return _inked(values, band & (np.abs(np.arctan2(across, along)) < np.pi / 3))


def _filtered(values: Values, weight: Callable[[Plane, Plane], Plane], shape: tuple[int, ...]) -> Plane:
    """White noise filtered by `weight` (cycles along x, cycles along y up), with root mean square 1."""
    random = np.random.default_rng(int(_real(values, "draw")))
    cycles_y = -np.fft.fftfreq(shape[0], 1 / shape[0])[:, None]
    cycles_x = np.fft.fftfreq(shape[1], 1 / shape[1])[None, :]
    spectrum = np.fft.fft2(random.standard_normal(shape)) * weight(cycles_x, cycles_y)
    spectrum[0, 0] = 0
    noise = np.fft.ifft2(spectrum).real
    return noise / max(float(noise.std()), 1e-12)


def paint_noise(values: Values, x: Plane, _y: Plane) -> Plane:
    """Noise with amplitude proportional to 1 / frequency^`exponent`: 0 is white, 1 as in natural scenes."""

    def weight(cycles_x: Plane, cycles_y: Plane) -> Plane:
        return np.maximum(np.hypot(cycles_x, cycles_y), 1) ** -_real(values, "exponent")

    return _colored(values, _filtered(values, weight, x.shape))


def paint_texture(values: Values, x: Plane, _y: Plane) -> Plane:
    """Noise around one frequency and orientation: a log-Gabor filter of `bandwidth` octaves (Field 1987)."""

    def weight(cycles_x: Plane, cycles_y: Plane) -> Plane:
        octaves = np.log2(np.maximum(np.hypot(cycles_x, cycles_y), 1e-9) / _real(values, "frequency"))
        normal = math.radians(_real(values, "orientation") + 90)
        turned = np.arctan2(cycles_y, cycles_x) - normal
        turned = (
            np.arctan2(np.sin(2 * turned), np.cos(2 * turned)) / 2
        )  # opposite directions are one orientation
        return np.exp(
            -((octaves / _real(values, "bandwidth")) ** 2) * 2 - (turned / math.radians(12)) ** 2 / 2
        )

    return _colored(values, _filtered(values, weight, x.shape))


def paint_letter(values: Values, x: Plane, _y: Plane) -> Plane:
    side = len(x)
    symbol, font = str(values["symbol"]), cv2.FONT_HERSHEY_DUPLEX
    (_, tall), _ = cv2.getTextSize(symbol, font, 1, 1)
    scale = _real(values, "size") * side / tall
    stroke = max(1, round(_real(values, "size") * side * 0.12))
    (wide, tall), _ = cv2.getTextSize(symbol, font, scale, stroke)
    corner = (
        round((0.5 + _real(values, "x")) * side - wide / 2),
        round((0.5 - _real(values, "y")) * side + tall / 2),
    )
    mask = cv2.putText(np.zeros((side, side), np.uint8), symbol, corner, font, scale, 1, stroke)
    return _inked(values, mask > 0)


def paint_shape(values: Values, x: Plane, y: Plane) -> Plane:
    """A shape in its hue on gray; `size` is its diameter, or the side of a square."""
    along, across = _along(values, *_placed(values, x, y))
    inside = SHAPES[str(values["symbol"])](along, across, _real(values, "size") / 2)
    return np.where(inside[..., None], _rgb(_real(values, "hue"), 0.9, 0.95), 0.5).astype(np.float32)


def paint_color(values: Values, x: Plane, _y: Plane) -> Plane:
    rgb = _rgb(_real(values, "hue"), _real(values, "saturation"), _real(values, "value"))
    return np.broadcast_to(rgb, (*x.shape, 3)).copy()


def _triangle(along: Plane, across: Plane, radius: float) -> NDArray[np.bool_]:
    """A triangle with one corner toward the orientation."""
    to_side = np.arctan2(across, along) % (2 * np.pi / 3) - np.pi / 3
    return np.hypot(along, across) * np.cos(to_side) < radius / 2


def _cross(along: Plane, across: Plane, radius: float) -> NDArray[np.bool_]:
    near, far = np.minimum(np.abs(along), np.abs(across)), np.maximum(np.abs(along), np.abs(across))
    return (near < radius / 3) & (far < radius)


# Functions of (along, across, radius) that return which pixels are inside.
SHAPES: dict[str, Callable[[Plane, Plane, float], NDArray[np.bool_]]] = {
    "circle": lambda along, across, radius: np.hypot(along, across) < radius,
    "square": lambda along, across, radius: np.maximum(np.abs(along), np.abs(across)) < radius,
    "triangle": _triangle,
    "star": lambda along, across, radius: (
        np.hypot(along, across) < radius * (0.7 + 0.3 * np.cos(5 * np.arctan2(across, along)))
    ),
    "cross": _cross,
    "ring": lambda along, across, radius: np.abs(np.hypot(along, across) - radius * 0.75) < radius * 0.25,
}
