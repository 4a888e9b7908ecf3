"""The image set `samples`: photos from installed packages, so that a bare machine has real images to show.

Only files in installed packages are used; nothing is downloaded. Labels are given only if they are certain:
Foolbox states ImageNet-1k indices in its file names. For the images of scikit-image and scikit-learn any
class would be a guess.
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

# Photos and textures; drawings, masks and pages of text are left out.
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
    """Create the set `samples`, or add what newer packages contain; files are copied, as packages may go
    away.

    Raises:
        ImportRefused: no package contains any of the photos.
    """
    return import_source(
        atlas,
        store,
        image_set=SAMPLES,
        source=PackageSource(),
        origin="photos from installed packages",
        progress=progress,
    )


class PackageSource:
    """The photos, named `<package>/<path in the package>`; missing packages and files are skipped."""

    def __init__(self) -> None:
        self._found = list(_find())

    def survey(self, _step: Step = no_step, /) -> Survey:
        """Empty: each image comes with its label."""
        return Survey()

    def count(self) -> int | None:
        """Number of photos found."""
        return len(self._found)

    def images(self, skip: Container[str] = ()) -> Iterator[SourceImage]:  # noqa: ARG002  # no image is ever skipped
        """The photos, in order of package."""
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
    """Folder `package/path`, without importing the package; a nonexistent path if the package is not installed."""
    package, _, path = place.partition("/")
    spec = importlib.util.find_spec(package)
    found = spec.submodule_search_locations if spec is not None else None
    return Path(found[0] if found else f"/no such package/{package}") / path
