"""Stores of an empty home, and images generated on the fly."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from db.atlas.store import Atlas
from db.settings import Settings
from db.stores.images import ImageStore
from precompute.images.importing import ImportReport, import_images

Photo = Callable[..., bytes]


@pytest.fixture
def atlas(settings: Settings) -> Atlas:
    """An atlas in which nothing was published."""
    return Atlas(settings)


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    """The image store that belongs to `atlas`."""
    return ImageStore(settings)


@pytest.fixture(scope="session")
def photo() -> Photo:
    """`photo(3)`: bytes of a small JPEG, different for every number; `kind` and `size` are options."""

    def make(number: int, *, kind: str = "JPEG", size: tuple[int, int] = (16, 12)) -> bytes:
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """`write_files({"a/b.jpg": ...})`: write the files into a separate folder."""

    def write(files: dict[str, bytes], folder: str = "source") -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return root

    return write


@pytest.fixture
def write_tar(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """`write_tar({"a/b.jpg": ...})`: write a tar file of the files."""

    def write(files: dict[str, bytes], name: str = "a.tar") -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def bring(atlas: Atlas, store: ImageStore) -> Callable[..., ImportReport]:
    """`bring(path)`: import it as the set `pictures`, unless `image_set` names another."""

    def bring(source: Path, image_set: str = "pictures", **options: Any) -> ImportReport:
        return import_images(atlas, store, image_set=image_set, source=source, **options)

    return bring


@pytest.fixture
def add_run(atlas: Atlas) -> Callable[..., None]:
    """`add_run("pictures", "a-model")`: insert the minimum that a run leaves in the atlas."""

    def add(image_set: str, model: str = "a-model") -> None:
        with atlas.publish() as connection:
            run = connection.execute("SELECT nextval('run_numbers')").fetchall()[0][0]
            values = {"run": run, "model": model, "image_set": image_set}
            connection.execute(
                "INSERT INTO runs BY NAME SELECT $run AS run, $model AS model, $image_set AS image_set",
                values,
            )
            if not connection.execute(
                "SELECT 1 FROM models WHERE model = $model", {"model": model}
            ).fetchall():
                connection.execute(
                    "INSERT INTO models BY NAME SELECT $model AS model, 'v-' || $model AS vocabulary",
                    {"model": model},
                )
                connection.execute(
                    "INSERT INTO classes BY NAME SELECT 'v-' || $model AS vocabulary", {"model": model}
                )
                connection.execute(
                    "INSERT INTO layers BY NAME SELECT $model AS model, 'l' AS layer", {"model": model}
                )
            for table in ("activations", "activations_by_image"):
                connection.execute(
                    f"INSERT INTO {table} BY NAME "
                    "SELECT $run AS run, 'l' AS layer, 0 AS channel, 1 AS rank, 0 AS image_id",
                    {"run": run},
                )
            for table in ("predictions", "channel_stats", "channel_histograms", "responses"):
                connection.execute(f"INSERT INTO {table} BY NAME SELECT $run AS run", {"run": run})

    return add
