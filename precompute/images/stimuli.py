"""The image set `stimuli`: labelled probe pictures in the tradition of visual neuroscience.

Gratings, plaids, checkerboards, dots, rings, spokes, edges, bars, corners, arcs, noise of stated spectra, textures,
letters, shapes and plain colours (Hubel and Wiesel 1962; De Valois, Albrecht and Thorell 1982; Hegdé and Van Essen
2000). A picture is a function of its name, `edge/orientation=30,contrast=1,colour=luminance.png`; the atlas's view
`stimuli` has the parameters as columns.

Angles are in degrees, counter-clockwise from the x axis: `orientation` is the direction along bars and stripes.
`frequency` is in cycles per picture, for spokes per turn; `size`, `x` and `y` are in picture widths, from the centre,
y up; `contrast` is Michelson's, of noise the root mean square over the mean.
"""

import colorsys
import itertools
import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from db.atlas.store import Atlas
from db.first_run import STIMULI
from db.stores.images import ImageStore
from precompute.images.files import Progress
from precompute.images.importing import ImportReport, import_source
from precompute.images.sources.source import SourceImage, Step, no_step
from precompute.images.survey import Survey
from precompute.images.wordnet import Label

FEWEST, USUAL, MOST = 400, 1_000, 50_000
SIDE = 224
# The gratings that tuning is read from; every set has all of them, at two phases, and a plain field of each hue.
ORIENTATIONS = tuple(range(0, 180, 15))
FREQUENCIES = (2, 3, 5, 8, 12, 18, 28, 44)
PHASES = (0, 90)
HUES = tuple(range(0, 360, 15))

# Directions in RGB; the two opponent ones keep the luma of Rec. 601.
COLOURS = {
    "luminance": np.array([1.0, 1.0, 1.0], np.float32),
    "red-green": np.array([1.0, -0.299 / 0.587, 0.0], np.float32),
    "blue-yellow": np.array([-0.114 / 0.886, -0.114 / 0.886, 1.0], np.float32),
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FINE = 3  # what has sharp edges is painted this many times larger and averaged

Value = float | str
Values = Mapping[str, Value]
Plane = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Stimulus:
    """A probe picture: its kind and its parameters."""

    kind: str
    values: Values

    @property
    def name(self) -> str:
        """The name, from which `parse` has the picture back."""
        told = ",".join(
            f"{name}={value if isinstance(value, str) else f'{value:g}'}"
            for name, value in self.values.items()
        )
        return f"{self.kind}/{told}.png"


def parse(name: str) -> Stimulus:
    """The stimulus of a name."""
    kind, told = name.removesuffix(".png").split("/")
    values: dict[str, Value] = {}
    for part in told.split(","):
        key, _, text = part.partition("=")
        values[key] = text if key in _WORDS else float(text)
    return Stimulus(kind, values)


_WORDS = frozenset({"colour", "polarity", "symbol"})


def design(count: int = USUAL, seed: int = 0) -> list[Stimulus]:
    """The gratings and hues that tuning is read from, then as many of each kind with parameters drawn by `seed`.

    A longer list begins with a shorter one of the same seed.

    Raises:
        ValueError: fewer than 400 or more than 50,000.
    """
    if not FEWEST <= count <= MOST:
        raise ValueError(f"count: expected {FEWEST} to {MOST:,} pictures, got {count:,}")
    found = [
        Stimulus("grating", _grating(float(orientation), float(frequency), float(phase), 1.0, "luminance"))
        for orientation, frequency, phase in itertools.product(ORIENTATIONS, FREQUENCIES, PHASES)
    ]
    found += [Stimulus("colour", {"hue": float(hue), "saturation": 1.0, "value": 1.0}) for hue in HUES]
    random = np.random.default_rng(seed)
    seen = {one.name for one in found}
    kinds = itertools.cycle(KINDS)
    while len(found) < count:
        kind = next(kinds)
        one = Stimulus(kind, KINDS[kind].draw(random))
        if one.name not in seen:
            seen.add(one.name)
            found.append(one)
    return found


def paint(stimulus: Stimulus, side: int) -> NDArray[np.uint8]:
    """The picture, (side, side, 3) in RGB."""
    kind = KINDS[stimulus.kind]
    fine = side * (_FINE if kind.sharp else 1)
    steps = ((np.arange(fine) + 0.5) / fine - 0.5).astype(np.float32)
    x, y = np.meshgrid(steps, -steps)
    picture = kind.paint(stimulus.values, x, y)
    if kind.sharp:
        picture = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def import_stimuli(
    atlas: Atlas,
    store: ImageStore,
    *,
    count: int = USUAL,
    seed: int = 0,
    progress: Progress | None = None,
) -> ImportReport:
    """Make the set `stimuli`, or add to it what a larger `count` or another `seed` brings.

    Raises:
        ValueError: fewer than 400 or more than 50,000.
    """
    return import_source(
        atlas,
        store,
        image_set=STIMULI,
        source=StimulusSource(count, seed),
        origin="painted by Convscope",
        progress=progress,
    )


class StimulusSource:
    """The pictures as PNG, labelled by their kind."""

    def __init__(self, count: int, seed: int) -> None:
        self._design = design(count, seed)

    def survey(self, _step: Step = no_step, /) -> Survey:
        """Nothing: each image comes with its label."""
        return Survey()

    def count(self) -> int | None:
        """Number of pictures."""
        return len(self._design)

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:  # noqa: ARG002  # none is
        """The pictures in order of the design."""
        for one in self._design:
            ok, data = cv2.imencode(".png", paint(one, SIDE)[..., ::-1])
            assert ok, "cv2 writes any picture of three channels"
            label = Label(None, None, one.kind)
            yield SourceImage(one.name, len(data), data=data.tobytes(), label=label, folders=False)


@dataclass(frozen=True)
class _Kind:
    """How parameters are drawn, how a picture (h, w, 3) is painted from them, and whether it has sharp edges."""

    draw: Callable[[np.random.Generator], dict[str, Value]]
    paint: Callable[[Values, Plane, Plane], Plane]
    sharp: bool = True


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


def _coloured(values: Values, pattern: Plane) -> Plane:
    """Grey, moved along the colour axis by a pattern in [-1, 1]."""
    axis = COLOURS[str(values["colour"])]
    return 0.5 + 0.5 * _real(values, "contrast") * pattern[..., None] * axis


def _inked(values: Values, inside: NDArray[np.bool_]) -> Plane:
    """Light on dark, or dark on light."""
    ink, paper = (0.95, 0.25) if values["polarity"] == "light" else (0.05, 0.75)
    return np.repeat(np.where(inside, ink, paper)[..., None], 3, axis=2)


def _rgb(hue: float, saturation: float, value: float) -> Plane:
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value), np.float32)


def _grating(
    orientation: float, frequency: float, phase: float, contrast: float, colour: str
) -> dict[str, Value]:
    return {
        "orientation": orientation, "frequency": frequency, "phase": phase, "contrast": contrast, "colour": colour,
    }  # fmt: skip


# Draws. Rounded, so that the name says all.
def _orientation(random: np.random.Generator, turn: int = 180) -> float:
    return round(float(random.uniform(0, turn)), 1) % turn


def _frequency(random: np.random.Generator, low: float = 2, high: float = 44) -> float:
    return round(float(np.exp(random.uniform(np.log(low), np.log(high)))), 2)


def _share(random: np.random.Generator, low: float, high: float) -> float:
    return round(float(random.uniform(low, high)), 3)


def _one_of(random: np.random.Generator, names: tuple[str, ...] | str) -> str:
    return names[int(random.integers(len(names)))]


def _draw_grating(random: np.random.Generator) -> dict[str, Value]:
    return _grating(
        _orientation(random),
        _frequency(random),
        _orientation(random, 360),
        _share(random, 0.1, 1),
        _one_of(random, tuple(COLOURS)),
    )


def _draw_turned(
    name: str, low: float, high: float, most: float
) -> Callable[[np.random.Generator], dict[str, Value]]:
    """A grating with another parameter, or none."""

    def draw(random: np.random.Generator) -> dict[str, Value]:
        values = _draw_grating(random)
        values["frequency"] = _frequency(random, high=most)
        return values | ({name: _share(random, low, high)} if name else {})

    return draw


def _draw_round(whole: bool) -> Callable[[np.random.Generator], dict[str, Value]]:
    """Rings or spokes; spokes are a whole number."""

    def draw(random: np.random.Generator) -> dict[str, Value]:
        values = _draw_grating(random)
        del values["orientation"]
        if whole:
            values["frequency"] = float(random.integers(2, 33))
        return values

    return draw


def _draw_ink(turn: int, **ranges: tuple[float, float]) -> Callable[[np.random.Generator], dict[str, Value]]:
    """An orientation within `turn` degrees (none where it is 0), shares in their ranges, a polarity."""

    def draw(random: np.random.Generator) -> dict[str, Value]:
        values: dict[str, Value] = {"orientation": _orientation(random, turn)} if turn else {}
        values |= {name: _share(random, *ends) for name, ends in ranges.items()}
        return values | {"polarity": _one_of(random, ("light", "dark"))}

    return draw


def _draw_noise(random: np.random.Generator) -> dict[str, Value]:
    return {
        "exponent": round(float(random.uniform(0, 2)), 2),
        "contrast": _share(random, 0.1, 0.4),
        "colour": _one_of(random, tuple(COLOURS)),
        "draw": float(random.integers(1_000_000)),
    }


def _draw_texture(random: np.random.Generator) -> dict[str, Value]:
    return {
        "orientation": _orientation(random),
        "frequency": _frequency(random, 4),
        "bandwidth": _share(random, 0.3, 1.5),
        "contrast": _share(random, 0.1, 0.4),
        "colour": _one_of(random, tuple(COLOURS)),
        "draw": float(random.integers(1_000_000)),
    }


def _draw_letter(random: np.random.Generator) -> dict[str, Value]:
    return {"symbol": _one_of(random, LETTERS)} | _draw_ink(
        0, size=(0.15, 0.7), x=(-0.2, 0.2), y=(-0.2, 0.2)
    )(random)


def _draw_shape(random: np.random.Generator) -> dict[str, Value]:
    return {
        "symbol": _one_of(random, tuple(_SHAPES)),
        "hue": _orientation(random, 360),
        "orientation": _orientation(random, 360),
        "size": _share(random, 0.1, 0.7),
        "x": _share(random, -0.25, 0.25),
        "y": _share(random, -0.25, 0.25),
    }


def _draw_colour(random: np.random.Generator) -> dict[str, Value]:
    return {
        "hue": _orientation(random, 360),
        "saturation": _share(random, 0, 1),
        "value": _share(random, 0.2, 1),
    }


# Pictures.
def _paint_grating(values: Values, x: Plane, y: Plane) -> Plane:
    return _coloured(values, _wave(values, _along(values, x, y)[1]))


def _paint_plaid(values: Values, x: Plane, y: Plane) -> Plane:
    other = _along(values, x, y, _real(values, "angle"))[1]
    return _coloured(values, (_wave(values, _along(values, x, y)[1]) + _wave(values, other)) / 2)


def _paint_checkerboard(values: Values, x: Plane, y: Plane) -> Plane:
    along, across = _along(values, x, y)
    return _coloured(values, np.sign(_wave(values, along)) * np.sign(_wave(values, across)))


def _paint_rings(values: Values, x: Plane, y: Plane) -> Plane:
    return _coloured(values, _wave(values, np.hypot(x, y)))


def _paint_spokes(values: Values, x: Plane, y: Plane) -> Plane:
    return _coloured(values, _wave(values, np.arctan2(y, x) / (2 * np.pi)))


def _paint_dots(values: Values, x: Plane, y: Plane) -> Plane:
    along, across = ((part * _real(values, "frequency") + 0.5) % 1 - 0.5 for part in _along(values, x, y))
    return _inked(values, np.hypot(along, across) < _real(values, "size") / 2)


def _paint_edge(values: Values, x: Plane, y: Plane) -> Plane:
    return _coloured(values, np.where(_along(values, x, y)[1] > 0, 1.0, -1.0))


def _paint_bar(values: Values, x: Plane, y: Plane) -> Plane:
    across = _along(values, *_placed(values, x, y))[1]
    return _inked(values, np.abs(across) < _real(values, "size") / 2)


def _paint_corner(values: Values, x: Plane, y: Plane) -> Plane:
    """A wedge that opens towards the orientation."""
    along, across = _along(values, *_placed(values, x, y))
    return _inked(values, np.abs(np.arctan2(across, along)) < math.radians(_real(values, "angle")) / 2)


def _paint_arc(values: Values, x: Plane, y: Plane) -> Plane:
    """A third of a ring of radius `size` around the centre, its middle towards the orientation."""
    along, across = _along(values, x, y)
    band = np.abs(np.hypot(along, across) - _real(values, "size")) < 0.03
    return _inked(values, band & (np.abs(np.arctan2(across, along)) < np.pi / 3))


def _filtered(values: Values, weight: Callable[[Plane, Plane], Plane], shape: tuple[int, ...]) -> Plane:
    """White noise through a filter over (cycles along x, cycles along y up), of root mean square 1."""
    random = np.random.default_rng(int(_real(values, "draw")))
    cycles_y = -np.fft.fftfreq(shape[0], 1 / shape[0])[:, None]
    cycles_x = np.fft.fftfreq(shape[1], 1 / shape[1])[None, :]
    spectrum = np.fft.fft2(random.standard_normal(shape)) * weight(cycles_x, cycles_y)
    spectrum[0, 0] = 0
    noise = np.fft.ifft2(spectrum).real
    return noise / max(float(noise.std()), 1e-12)


def _paint_noise(values: Values, x: Plane, _y: Plane) -> Plane:
    """Amplitude falls with frequency to the power of `exponent`: 0 is white, 1 is that of natural scenes."""

    def weight(cycles_x: Plane, cycles_y: Plane) -> Plane:
        return np.maximum(np.hypot(cycles_x, cycles_y), 1) ** -_real(values, "exponent")

    return _coloured(values, _filtered(values, weight, x.shape))


def _paint_texture(values: Values, x: Plane, _y: Plane) -> Plane:
    """Noise around one frequency and orientation: a log-Gabor filter of `bandwidth` octaves (Field 1987)."""

    def weight(cycles_x: Plane, cycles_y: Plane) -> Plane:
        octaves = np.log2(np.maximum(np.hypot(cycles_x, cycles_y), 1e-9) / _real(values, "frequency"))
        normal = math.radians(_real(values, "orientation") + 90)
        turned = np.arctan2(cycles_y, cycles_x) - normal
        turned = (
            np.arctan2(np.sin(2 * turned), np.cos(2 * turned)) / 2
        )  # a direction and its opposite are one
        return np.exp(
            -((octaves / _real(values, "bandwidth")) ** 2) * 2 - (turned / math.radians(12)) ** 2 / 2
        )

    return _coloured(values, _filtered(values, weight, x.shape))


def _paint_letter(values: Values, x: Plane, _y: Plane) -> Plane:
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


def _paint_shape(values: Values, x: Plane, y: Plane) -> Plane:
    """A shape in its hue on grey; `size` is its diameter, of a square its side."""
    along, across = _along(values, *_placed(values, x, y))
    inside = _SHAPES[str(values["symbol"])](along, across, _real(values, "size") / 2)
    return np.where(inside[..., None], _rgb(_real(values, "hue"), 0.9, 0.95), 0.5).astype(np.float32)


def _paint_colour(values: Values, x: Plane, _y: Plane) -> Plane:
    rgb = _rgb(_real(values, "hue"), _real(values, "saturation"), _real(values, "value"))
    return np.broadcast_to(rgb, (*x.shape, 3)).copy()


def _triangle(along: Plane, across: Plane, radius: float) -> NDArray[np.bool_]:
    """One corner towards the orientation."""
    to_side = np.arctan2(across, along) % (2 * np.pi / 3) - np.pi / 3
    return np.hypot(along, across) * np.cos(to_side) < radius / 2


def _cross(along: Plane, across: Plane, radius: float) -> NDArray[np.bool_]:
    near, far = np.minimum(np.abs(along), np.abs(across)), np.maximum(np.abs(along), np.abs(across))
    return (near < radius / 3) & (far < radius)


# Of (along, across, radius): what is inside.
_SHAPES: dict[str, Callable[[Plane, Plane, float], NDArray[np.bool_]]] = {
    "circle": lambda along, across, radius: np.hypot(along, across) < radius,
    "square": lambda along, across, radius: np.maximum(np.abs(along), np.abs(across)) < radius,
    "triangle": _triangle,
    "star": lambda along, across, radius: (
        np.hypot(along, across) < radius * (0.7 + 0.3 * np.cos(5 * np.arctan2(across, along)))
    ),
    "cross": _cross,
    "ring": lambda along, across, radius: np.abs(np.hypot(along, across) - radius * 0.75) < radius * 0.25,
}

KINDS: dict[str, _Kind] = {
    "grating": _Kind(_draw_grating, _paint_grating, sharp=False),
    "plaid": _Kind(_draw_turned("angle", 30, 90, 44), _paint_plaid, sharp=False),
    "checkerboard": _Kind(_draw_turned("", 0, 0, 20), _paint_checkerboard),
    "rings": _Kind(_draw_round(whole=False), _paint_rings, sharp=False),
    "spokes": _Kind(_draw_round(whole=True), _paint_spokes),
    "dots": _Kind(_draw_ink(90, frequency=(3, 20), size=(0.2, 0.8)), _paint_dots),
    "edge": _Kind(
        lambda random: {
            "orientation": _orientation(random, 360),
            "contrast": _share(random, 0.2, 1),
            "colour": _one_of(random, tuple(COLOURS)),
        },
        _paint_edge,
    ),
    "bar": _Kind(_draw_ink(180, size=(0.01, 0.3), x=(-0.3, 0.3), y=(-0.3, 0.3)), _paint_bar),
    "corner": _Kind(_draw_ink(360, angle=(20, 160), x=(-0.2, 0.2), y=(-0.2, 0.2)), _paint_corner),
    "arc": _Kind(_draw_ink(360, size=(0.05, 0.45)), _paint_arc),
    "noise": _Kind(_draw_noise, _paint_noise, sharp=False),
    "texture": _Kind(_draw_texture, _paint_texture, sharp=False),
    "letter": _Kind(_draw_letter, _paint_letter),
    "shape": _Kind(_draw_shape, _paint_shape),
    "colour": _Kind(_draw_colour, _paint_colour, sharp=False),
}
