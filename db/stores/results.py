"""Result files in the home, named by content: float32 arrays as `.npy`, images as `.png`.

A file is written under a temporary name, synced to disk and renamed, so an existing file is always complete.
"""

import io
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from db.files import write_file
from db.settings import Settings


class ResultGone(LookupError):
    """A result's file is missing or damaged; the message is one sentence."""


def remove_results(home: Path, files: Iterable[str]) -> None:
    """Remove result files in a home; missing files are ignored.

    Raises:
        ValueError: a path is not that of a result file.
    """
    for file in files:
        if not file.startswith("results/") or ".." in Path(file).parts:
            raise ValueError(f"expected a file below results/, got {file!r}")
        (home / file).unlink(missing_ok=True)


class ResultStore:
    """The result files in one `CONVSCOPE_HOME`."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home

    def write_array(self, folder: str, name: str, array: npt.NDArray[np.float32]) -> str:
        """Store an array as `results/FOLDER/NA/NAME.npy`; returns its path relative to the home.

        Raises:
            OSError: it cannot be written; nothing is left behind.
        """
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
        file = f"results/{folder}/{name[:2]}/{name}.npy"
        write_file(self.home / file, buffer.getvalue(), synced=True)
        return file

    def write_picture(self, folder: str, name: str, pixels: npt.NDArray[np.uint8]) -> str:
        """Store uint8 H,W,3, or gray H,W,1, as `results/FOLDER/NA/NAME.png`; returns its path relative to the home.

        An existing file is kept.

        Raises:
            OSError: it cannot be written; nothing is left behind.
        """
        file = f"results/{folder}/{name[:2]}/{name}.png"
        if not (self.home / file).exists():
            buffer = io.BytesIO()
            Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
                buffer, "PNG", compress_level=1
            )
            write_file(self.home / file, buffer.getvalue(), synced=True)
        return file

    def remove_unfinished(self, *, older_than: float) -> int:
        """Remove partial files of killed writers that are at least `older_than` seconds old; returns their number."""
        before = time.time() - older_than
        removed = 0
        for file in (self.home / "results").rglob(".*"):
            try:
                if file.stat().st_mtime < before:
                    file.unlink()
                    removed += 1
            except FileNotFoundError:  # finished, or removed by another process
                continue
        return removed

    def read_picture(self, file: str) -> npt.NDArray[np.uint8]:
        """The stored image, uint8 H,W,3, or gray H,W,1.

        Raises:
            OSError: the file is missing or damaged.
        """
        pixels = np.array(Image.open(io.BytesIO(self.path(file).read_bytes())))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def path(self, file: str) -> Path:
        """The file at a path relative to the home; it need not exist."""
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise ValueError(f"expected a path below {self.home}, got {file!r}")
        return self.home / file

    def read_array(self, file: str) -> npt.NDArray[np.float32]:
        """The stored array.

        Raises:
            ResultGone: the file is missing or damaged.
        """
        try:
            array: npt.NDArray[np.float32] = np.load(self.path(file), allow_pickle=False)
        except FileNotFoundError as error:
            raise ResultGone(f"the file {file} is gone: compute it again") from error
        except (OSError, ValueError, EOFError) as error:
            raise ResultGone(f"the file {file} is damaged: compute it again") from error
        return array
