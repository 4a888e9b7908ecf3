"""The kinds of stimuli: how the parameters of each are drawn at random, and which function paints it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from precompute.images.stimulus_painting import (
    COLORS,
    LETTERS,
    SHAPES,
    Plane,
    Value,
    Values,
    paint_arc,
    paint_bar,
    paint_checkerboard,
    paint_color,
    paint_corner,
    paint_dots,
    paint_edge,
    paint_grating,
    paint_letter,
    paint_noise,
    paint_plaid,
    paint_rings,
    paint_shape,
    paint_spokes,
    paint_texture,
)


@dataclass(frozen=True)
class Kind:
    """One kind: random parameters, an image H,W,3 painted from them, and whether it has sharp edges."""

    draw: Callable[[np.random.Generator], dict[str, Value]]
    paint: Callable[[Values, Plane, Plane], Plane]
    sharp: bool = True


def grating(
    orientation: float, frequency: float, phase: float, contrast: float, colour: str
) -> dict[str, Value]:
    return {
        "orientation": orientation, "frequency": frequency, "phase": phase, "contrast": contrast, "colour": colour,
    }  # fmt: skip


# Random parameters, rounded so that the name states them exactly.
def _orientation(random: np.random.Generator, turn: int = 180) -> float:
    return round(float(random.uniform(0, turn)), 1) % turn


def _frequency(random: np.random.Generator, low: float = 2, high: float = 44) -> float:
    return round(float(np.exp(random.uniform(np.log(low), np.log(high)))), 2)


def _share(random: np.random.Generator, low: float, high: float) -> float:
    return round(float(random.uniform(low, high)), 3)


def _one_of(random: np.random.Generator, names: tuple[str, ...] | str) -> str:
    return names[int(random.integers(len(names)))]


def _draw_grating(random: np.random.Generator) -> dict[str, Value]:
    return grating(
        _orientation(random),
        _frequency(random),
        _orientation(random, 360),
        _share(random, 0.1, 1),
        _one_of(random, tuple(COLORS)),
    )


def _draw_turned(
    name: str, low: float, high: float, most: float
) -> Callable[[np.random.Generator], dict[str, Value]]:
    """A grating with the additional parameter `name`, if any."""

    def draw(random: np.random.Generator) -> dict[str, Value]:
        values = _draw_grating(random)
        values["frequency"] = _frequency(random, high=most)
        return values | ({name: _share(random, low, high)} if name else {})

    return draw


def _draw_round(whole: bool) -> Callable[[np.random.Generator], dict[str, Value]]:
    """Rings, or spokes with an integer frequency."""

    def draw(random: np.random.Generator) -> dict[str, Value]:
        values = _draw_grating(random)
        del values["orientation"]
        if whole:
            values["frequency"] = float(random.integers(2, 33))
        return values

    return draw


def _draw_ink(turn: int, **ranges: tuple[float, float]) -> Callable[[np.random.Generator], dict[str, Value]]:
    """An orientation within `turn` degrees (none if 0), parameters within their ranges, a polarity."""

    def draw(random: np.random.Generator) -> dict[str, Value]:
        values: dict[str, Value] = {"orientation": _orientation(random, turn)} if turn else {}
        values |= {name: _share(random, *ends) for name, ends in ranges.items()}
        return values | {"polarity": _one_of(random, ("light", "dark"))}

    return draw


def _draw_noise(random: np.random.Generator) -> dict[str, Value]:
    return {
        "exponent": round(float(random.uniform(0, 2)), 2),
        "contrast": _share(random, 0.1, 0.4),
        "colour": _one_of(random, tuple(COLORS)),
        "draw": float(random.integers(1_000_000)),
    }


def _draw_texture(random: np.random.Generator) -> dict[str, Value]:
    return {
        "orientation": _orientation(random),
        "frequency": _frequency(random, 4),
        "bandwidth": _share(random, 0.3, 1.5),
        "contrast": _share(random, 0.1, 0.4),
        "colour": _one_of(random, tuple(COLORS)),
        "draw": float(random.integers(1_000_000)),
    }


def _draw_letter(random: np.random.Generator) -> dict[str, Value]:
    return {"symbol": _one_of(random, LETTERS)} | _draw_ink(
        0, size=(0.15, 0.7), x=(-0.2, 0.2), y=(-0.2, 0.2)
    )(random)


def _draw_shape(random: np.random.Generator) -> dict[str, Value]:
    return {
        "symbol": _one_of(random, tuple(SHAPES)),
        "hue": _orientation(random, 360),
        "orientation": _orientation(random, 360),
        "size": _share(random, 0.1, 0.7),
        "x": _share(random, -0.25, 0.25),
        "y": _share(random, -0.25, 0.25),
    }


def _draw_color(random: np.random.Generator) -> dict[str, Value]:
    return {
        "hue": _orientation(random, 360),
        "saturation": _share(random, 0, 1),
        "value": _share(random, 0.2, 1),
    }


KINDS: dict[str, Kind] = {
    "grating": Kind(_draw_grating, paint_grating, sharp=False),
    "plaid": Kind(_draw_turned("angle", 30, 90, 44), paint_plaid, sharp=False),
    "checkerboard": Kind(_draw_turned("", 0, 0, 20), paint_checkerboard),
    "rings": Kind(_draw_round(whole=False), paint_rings, sharp=False),
    "spokes": Kind(_draw_round(whole=True), paint_spokes),
    "dots": Kind(_draw_ink(90, frequency=(3, 20), size=(0.2, 0.8)), paint_dots),
    "edge": Kind(
        lambda random: {
            "orientation": _orientation(random, 360),
            "contrast": _share(random, 0.2, 1),
            "colour": _one_of(random, tuple(COLORS)),
        },
        paint_edge,
    ),
    "bar": Kind(_draw_ink(180, size=(0.01, 0.3), x=(-0.3, 0.3), y=(-0.3, 0.3)), paint_bar),
    "corner": Kind(_draw_ink(360, angle=(20, 160), x=(-0.2, 0.2), y=(-0.2, 0.2)), paint_corner),
    "arc": Kind(_draw_ink(360, size=(0.05, 0.45)), paint_arc),
    "noise": Kind(_draw_noise, paint_noise, sharp=False),
    "texture": Kind(_draw_texture, paint_texture, sharp=False),
    "letter": Kind(_draw_letter, paint_letter),
    "shape": Kind(_draw_shape, paint_shape),
    "colour": Kind(_draw_color, paint_color, sharp=False),
}
