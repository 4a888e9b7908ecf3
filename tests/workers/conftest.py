"""Models and photos shared by the tests of `workers`."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lab import Lab
from PIL import Image
from torch import nn

from db.settings import Settings
from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import HALF, Preprocessing
from workers.models.vision import VisionModel, load_model
from workers.models.vocabularies import vocabulary_of_labels
from workers.requests.models import ModelRef

Wrap = Callable[..., VisionModel]


@pytest.fixture(scope="session")
def reference() -> ModelRef:
    """EfficientNet-Lite0 as a reference that a worker can load."""
    model = load_model("efficientnet-lite0")
    return ModelRef(model.name, model.source, model.digest(model.weights_sha256()))


@pytest.fixture
def lab(settings: Settings, reference: ModelRef) -> Iterator[Lab]:
    """See `lab.py`."""
    found = Lab(settings, reference)
    yield found
    found.ledger.close()


@pytest.fixture(scope="session")
def lite0() -> VisionModel:
    """EfficientNet-Lite0 with its real weights."""
    return load_model("efficientnet-lite0")


@pytest.fixture(scope="session")
def photographs(shared_data: Path) -> list[tuple[Image.Image, str]]:
    """100 ImageNet photos of 100 classes, with their WNIDs."""
    found = []
    with tarfile.open(shared_data / "imagenet-sample-1000.tar") as archive:
        members = sorted(member.name for member in archive if member.name.endswith(".JPEG"))
        for name in members[::10]:
            file = archive.extractfile(name)
            assert file is not None
            found.append((Image.open(io.BytesIO(file.read())).convert("RGB"), name.split("/")[1]))
    return found


@pytest.fixture(scope="session")
def share_right(photographs: list[tuple[Image.Image, str]]) -> Callable[[VisionModel], float]:
    """Computes a model's top-1 accuracy on the photos, by WNID."""

    def share(model: VisionModel) -> float:
        right = 0
        for start in range(0, len(photographs), 25):
            batch = photographs[start : start + 25]
            pixels = torch.stack([torch.from_numpy(model.preprocessing(image).copy()) for image, _ in batch])
            with torch.inference_mode():
                predicted = model(pixels.permute(0, 3, 1, 2).float() / 255).argmax(dim=1).tolist()
            wnids = [model.vocabulary.classes[index].wnid for index in predicted]
            right += sum(wnid == true for wnid, (_, true) in zip(wnids, batch, strict=True))
        return right / len(photographs)

    return share


@pytest.fixture(scope="session")
def as_model() -> Wrap:
    """Wraps a bare network as a vision model: square input of `size`, mean = std = 0.5."""

    def wrap(network: nn.Module, *, size: int = 224, classes: int = 1000) -> VisionModel:
        loaded = LoadedNetwork(
            network=network,
            source="test",
            architecture=type(network).__name__,
            preprocessing=Preprocessing((size, size), size, "bilinear", HALF, HALF),
            vocabulary=vocabulary_of_labels([f"class {index}" for index in range(classes)], model="test"),
        )
        return VisionModel(loaded, name="test").eval().requires_grad_(False)

    return wrap
