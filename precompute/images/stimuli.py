"""The image set `stimuli`: labeled probe images in the tradition of visual neuroscience.

Gratings, plaids, checkerboards, dots, rings, spokes, edges, bars, corners, arcs, noise with given spectra,
textures, letters, shapes and plain colors (Hubel and Wiesel 1962; De Valois, Albrecht and Thorell 1982; Hegdé
and Van Essen 2000). An image is a function of its name,
`edge/orientation=30,contrast=1,colour=luminance.png`; the atlas's view `stimuli` has the parameters as
columns.

Angles are in degrees, counter-clockwise from the x axis: `orientation` is the direction along bars and
stripes. `frequency` is in cycles per image, for spokes per turn; `size`, `x` and `y` are in image widths,
from the center, y up; `contrast` is Michelson contrast, for noise the root mean square over the mean.
"""

import itertools
from collections.abc import Container, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from db.atlas.store import Atlas
from db.first_run import STIMULI
from db.stores.images import ImageStore
from precompute.images.files import Progress
from precompute.images.importing import ImportReport, import_source
from precompute.images.sources.source import SourceImage, Step, no_step
from precompute.images.stimulus_kinds import KINDS, grating
from precompute.images.stimulus_painting import Value, Values
from precompute.images.survey import Survey
from precompute.images.wordnet import Label

FEWEST, USUAL, MOST = 400, 1_000, 50_000
SIDE = 224
# The gratings from which tuning is measured; every set contains all of them, at two phases, and a plain field
# of each hue.
ORIENTATIONS = tuple(range(0, 180, 15))
FREQUENCIES = (2, 3, 5, 8, 12, 18, 28, 44)
PHASES = (0, 90)
HUES = tuple(range(0, 360, 15))

_FINE = 3  # Stimuli with sharp edges are painted this many times larger and averaged.


@dataclass(frozen=True)
class Stimulus:
    """A probe image: its kind and its parameters."""

    kind: str
    values: Values

    @property
    def name(self) -> str:
        """The name, from which `parse` restores the stimulus."""
        told = ",".join(
            f"{name}={value if isinstance(value, str) else f'{value:g}'}"
            for name, value in self.values.items()
        )
        return f"{self.kind}/{told}.png"


def parse(name: str) -> Stimulus:
    """The stimulus with the given name."""
    kind, told = name.removesuffix(".png").split("/")
    values: dict[str, Value] = {}
    for part in told.split(","):
        key, _, text = part.partition("=")
        values[key] = text if key in _WORDS else float(text)
    return Stimulus(kind, values)


_WORDS = frozenset({"colour", "polarity", "symbol"})


def design(count: int = USUAL, seed: int = 0) -> list[Stimulus]:
    """The gratings and hues from which tuning is measured, then each kind in turn with random parameters.

    For a given `seed`, a longer list starts with any shorter one.

    Raises:
        ValueError: `count` is below 400 or above 50,000.
    """
    if not FEWEST <= count <= MOST:
        raise ValueError(f"count: expected {FEWEST} to {MOST:,} images, got {count:,}")
    found = [
        Stimulus("grating", grating(float(orientation), float(frequency), float(phase), 1.0, "luminance"))
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
    """The image, (side, side, 3) in RGB."""
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
    """Create the set `stimuli`, or add what a larger `count` or another `seed` contributes.

    Raises:
        ValueError: `count` is below 400 or above 50,000.
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
    """The stimuli as PNG, labeled by kind."""

    def __init__(self, count: int, seed: int) -> None:
        self._design = design(count, seed)

    def survey(self, _step: Step = no_step, /) -> Survey:
        """Empty: each image comes with its label."""
        return Survey()

    def count(self) -> int | None:
        """Number of images."""
        return len(self._design)

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:  # noqa: ARG002  # no image is ever skipped
        """The images in the order of the design."""
        for one in self._design:
            ok, data = cv2.imencode(".png", paint(one, SIDE)[..., ::-1])
            assert ok, "cv2 encodes any image of three channels"
            label = Label(None, None, one.kind)
            yield SourceImage(one.name, len(data), data=data.tobytes(), label=label, folders=False)
