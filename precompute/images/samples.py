"""The image set `samples`: photographs that installed packages carry, so that a bare machine shows real pictures.

Only files that lie in the packages are taken, nothing is fetched. Labels are given where they are certain:
Foolbox states ImageNet-1k indices in its file names; of scikit-image's and scikit-learn's pictures none has a
class that could be stated without guessing.
"""

import importlib.util
import re
from collections.abc import Container, Iterator
from pathlib import Path

from db.atlas.store import Atlas
from db.first_run import SAMPLES
from db.stores.images import ImageStore
from precompute.images.files import Progress
from precompute.images.importing import ImportReport, import_source
from precompute.images.sources.source import SourceImage, Step, no_step
from precompute.images.survey import Survey
from precompute.images.wordnet import Label, label_of_index

# Photographs and textures; drawings, masks and pages of text are left out.
_PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
    "skimage/data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "retina.jpg",
        "rocket.jpg",
    ),
}
_FOOLBOX = "foolbox/data"
_FOOLBOX_NAME = re.compile(r"imagenet_\d+_(\d{1,3})\.jpg")


def import_samples(atlas: Atlas, store: ImageStore, progress: Progress | None = None) -> ImportReport:
    """Make the set `samples`, or add to it what newer packages carry. Files are copied: packages come and go.

    Raises:
        ImportRefused: no package carries any of the photographs.
    """
    return import_source(
        atlas,
        store,
        image_set=SAMPLES,
        source=PackageSource(),
        origin="photographs of installed packages",
        progress=progress,
    )


class PackageSource:
    """The photographs, `<package>/<path in the package>`; packages that lack one are passed over."""

    def __init__(self) -> None:
        self._found = list(_find())

    def survey(self, _step: Step = no_step, /) -> Survey:
        """Nothing: each image comes with its label."""
        return Survey()

    def count(self) -> int | None:
        """Number of photographs found."""
        return len(self._found)

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:  # noqa: ARG002  # none is
        """The photographs, in order of package."""
        for name, path, label in self._found:
            data = path.read_bytes()
            yield SourceImage(name, len(data), data=data, label=label, folders=False)


def _find() -> Iterator[tuple[str, Path, Label | None]]:
    for path in sorted(_folder(_FOOLBOX).glob("imagenet_*.jpg")):
        stated = _FOOLBOX_NAME.fullmatch(path.name)
        if stated is not None:
            yield f"{_FOOLBOX}/{path.name}", path, label_of_index(int(stated[1]))
    for place, names in _PHOTOGRAPHS.items():
        for name in names:
            path = _folder(place) / name
            if path.is_file():
                yield f"{place}/{name}", path, None


def _folder(place: str) -> Path:
    """Folder `package/path`, without importing the package; one that is not there where the package is not."""
    package, _, path = place.partition("/")
    spec = importlib.util.find_spec(package)
    found = spec.submodule_search_locations if spec is not None else None
    return Path(found[0] if found else f"/no such package/{package}") / path
