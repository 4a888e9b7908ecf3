"""Stores of an empty home, and pictures made on the spot."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.atlas import Atlas
from db.images import ImageStore
from db.settings import Settings

Photo = Callable[..., bytes]


@pytest.fixture
def atlas(settings: Settings) -> Atlas:
    """An atlas in which nothing was published."""
    return Atlas(settings)


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    """The image store beside `atlas`."""
    return ImageStore(settings)


@pytest.fixture(scope="session")
def photo() -> Photo:
    """`photo(3)`: bytes of a small JPEG unlike that of every other number; `kind`, `size` on demand."""

    def make(number: int, *, kind: str = "JPEG", size: tuple[int, int] = (16, 12)) -> bytes:
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """`write_files({"a/b.jpg": ...})`: the files in a folder of their own."""

    def write(files: dict[str, bytes], folder: str = "source") -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return root

    return write
