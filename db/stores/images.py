"""The files that Convscope keeps of images: originals without a file of their own, thumbnails, and their facts."""

import contextlib
import fcntl
import io
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from db.files import make_home, write_file
from db.settings import Settings
from db.stores.decoding import Note
from db.stores.thumbnails import THUMBNAIL_QUALITY, cell_colors, perceptual_hash, thumbnail_size

_KEY = re.compile(r"[0-9a-f]{64}")
_WRITTEN = re.compile(r"\.?(?P<key>[0-9a-f]{64})\.")  # with the dot before, on its way
_FACTS = re.compile(rb"(\d{1,10})x(\d{1,10}) ([0-9a-f]{16}) ([0-9a-f]{384})(?: ([a-z]+))?")


@dataclass(frozen=True)
class PictureFacts:
    """What is kept of a picture: size in pixels, upright, `perceptual_hash`, `cell_colors`, and notes."""

    width: int
    height: int
    dhash: int
    colors: bytes
    notes: frozenset[Note] = frozenset()


class StoreBusy(RuntimeError):
    """Another process changes the image files; the message is one sentence for the person who asked."""


class ImageStore:
    """The thumbnails and the copies of originals below one `CONVSCOPE_HOME`, found by content.

    A file is named by the SHA-256 of the original's bytes, written under a temporary name and renamed: who
    finds a file finds a whole one, and the same picture in several sets is one file.
    """

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home

    def folders(self) -> tuple[Path, ...]:
        """Where the pictures are kept; they need not exist."""
        return (self.home / "thumbnails", self.home / "originals")

    def original_path(self, path_column: str) -> Path:
        """The file behind `images.path`: absolute paths stay, others are below the home.

        Raises:
            ValueError: the path leaves the home.
        """
        path = Path(path_column)
        if path.is_absolute():
            return path
        if ".." in path.parts:
            raise ValueError(f"expected a path below {self.home}, got {path_column!r}")
        return self.home / path

    def thumbnail_path(self, key: str) -> Path:
        """JPEG of the picture, shortest side min(256, its own); it need not exist."""
        return self.home / "thumbnails" / _checked(key)[:2] / f"{key}.jpg"

    def add_original(self, key: str, data: bytes, suffix: str) -> str:
        """Keep a copy of a picture that has no file of its own; the value for `images.path`.

        Call `settle` before the atlas lists copies.
        """
        path_column = f"originals/{_checked(key)[:2]}/{key}{suffix}"
        path = self.home / path_column
        try:
            present = path.stat().st_size == len(data)
        except FileNotFoundError:
            present = False
        if not present:
            write_file(path, data)
        return path_column

    def add_thumbnail(
        self, key: str, image: Image.Image, notes: frozenset[Note] = frozenset()
    ) -> PictureFacts:
        """Write the thumbnail of `image` (RGB); what it says of the picture."""
        width, height = thumbnail_size(image.width, image.height)
        small = image
        if (width, height) != image.size:
            # Lanczos after a box reduction to no less than three times the size: within one grey level of
            # Lanczos alone, and several times as quick on big photographs.
            small = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        facts = PictureFacts(image.width, image.height, perceptual_hash(small), cell_colors(small), notes)
        # The comment lets an interrupted import go on without decoding the original again.
        told = (
            f"{facts.width}x{facts.height}",
            f"{facts.dhash:016x}",
            facts.colors.hex(),
            "".join(sorted(notes)),
        )
        comment = " ".join(told).rstrip()
        small.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY, comment=comment.encode())
        write_file(self.thumbnail_path(key), buffer.getvalue())
        return facts

    def known_facts(self, key: str) -> PictureFacts | None:
        """Size and hash of the picture with that content, if its thumbnail was made; None otherwise."""
        try:
            with self.thumbnail_path(key).open("rb") as file:
                head = file.read(1024)
        except FileNotFoundError:
            return None
        # A JPEG comment: marker FF FE, two bytes of length, text.
        at = head.find(b"\xff\xfe")
        found = (
            _FACTS.fullmatch(head[at + 4 : at + 2 + int.from_bytes(head[at + 2 : at + 4])])
            if at > 0
            else None
        )
        if found is None:
            return None
        letters = (found[5] or b"").decode()
        notes = frozenset(note for note in Note if note.value in letters)
        return PictureFacts(
            int(found[1]), int(found[2]), int(found[3], 16), bytes.fromhex(found[4].decode()), notes
        )

    def settle(self) -> None:
        """Have all files that were added on the disk. Once an import: a sync per file doubles its time."""
        os.sync()

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Hold while files are added for images that the atlas does not list yet: nobody removes any.

        Raises:
            StoreBusy: files are being removed.
        """
        with self._locked(fcntl.LOCK_SH, "images are being removed"):
            yield

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """Hold while files are removed that the atlas does not list any more.

        Raises:
            StoreBusy: files are being added.
        """
        with self._locked(fcntl.LOCK_EX, "images are being imported or removed"):
            yield

    @contextlib.contextmanager
    def _locked(self, kind: int, otherwise: str) -> Iterator[None]:
        make_home(self.home)
        with (self.home / "IMAGES.LOCK").open("w") as lock:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreBusy(
                    f"{otherwise} in {self.home} right now: try again when that is done"
                ) from error
            yield

    def unlisted(self, listed: Collection[str], *, older_than: float = 0.0) -> list[Path]:
        """Files of images whose contents are not `listed`, and temporary ones, at least `older_than` seconds old."""
        before = time.time() - older_than
        found = []
        for folder in self.folders():
            for path in folder.glob("??/*"):
                key = _WRITTEN.match(path.name)
                if key is None or (key["key"] in listed and not path.name.startswith(".")):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime <= before:
                        found.append(path)
        return found

    def remove(self, keys: Iterable[str], originals: Iterable[str] = ()) -> None:
        """Remove the thumbnails of `keys` and the copies at `originals` (values of `images.path`).

        What is not there is not missed.

        Raises:
            ValueError: an original is not one of ours.
        """
        paths = [self.thumbnail_path(key) for key in keys]
        for path_column in originals:
            if not path_column.startswith("originals/"):
                raise ValueError(f"expected a copy in {self.home}, got {path_column!r}")
            paths.append(self.original_path(path_column))
        # Each waits for the file system's journal: side by side they take a quarter of the time.
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(partial(Path.unlink, missing_ok=True), paths):
                pass


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"expected a SHA-256 in 64 hexadecimal digits, got {key!r}")
    return key
