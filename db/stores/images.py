"""Image files that Convscope stores: copies of originals without a file of their own, thumbnails with image facts."""

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
_WRITTEN = re.compile(r"\.?(?P<key>[0-9a-f]{64})\.")  # a leading dot marks a temporary file
_FACTS = re.compile(rb"(\d{1,10})x(\d{1,10}) ([0-9a-f]{16}) ([0-9a-f]{384})(?: ([a-z]+))?")


@dataclass(frozen=True)
class PictureFacts:
    """Stored facts of an image: size in pixels after rotation, `perceptual_hash`, `cell_colors`, and notes."""

    width: int
    height: int
    dhash: int
    colors: bytes
    notes: frozenset[Note] = frozenset()


class StoreBusy(RuntimeError):
    """Another process is changing the image files; the message is one sentence for the user."""


class ImageStore:
    """The thumbnails and copies of originals in one `CONVSCOPE_HOME`, addressed by content.

    A file is named by the SHA-256 of the original's bytes, written under a temporary name and renamed. So an
    existing file is always complete, and an image in several sets is one file.
    """

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home

    def folders(self) -> tuple[Path, ...]:
        """The folders of image files; they need not exist."""
        return (self.home / "thumbnails", self.home / "originals")

    def original_path(self, path_column: str) -> Path:
        """The file that `images.path` refers to: absolute paths are kept, others are relative to the home.

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
        """JPEG of the image, whose shortest side is min(256, the image's own); it need not exist."""
        return self.home / "thumbnails" / _checked(key)[:2] / f"{key}.jpg"

    def add_original(self, key: str, data: bytes, suffix: str) -> str:
        """Store a copy of an image that has no file of its own; returns the value for `images.path`.

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
        """Write the thumbnail of `image` (RGB); returns the image's facts."""
        width, height = thumbnail_size(image.width, image.height)
        small = image
        if (width, height) != image.size:
            # Box reduction to at least three times the size, then Lanczos: within one gray level of Lanczos
            # alone, and several times faster on large photos.
            small = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        facts = PictureFacts(image.width, image.height, perceptual_hash(small), cell_colors(small), notes)
        # The comment lets an interrupted import resume without decoding the original again.
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
        """Facts of the image with this content key, if it has a thumbnail; otherwise None."""
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
        """Flush all added files to disk. Call once per import: a sync per file doubles its time."""
        os.sync()

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Prevent removals while files are added for images that the atlas does not list yet.

        Raises:
            StoreBusy: files are being removed.
        """
        with self._locked(fcntl.LOCK_SH, "images are being removed"):
            yield

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """Prevent additions while files that the atlas no longer lists are removed.

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
                raise StoreBusy(f"{otherwise} in {self.home} right now: try again afterwards") from error
            yield

    def unlisted(self, listed: Collection[str], *, older_than: float = 0.0) -> list[Path]:
        """Files whose content key is not in `listed`, and temporary files, if at least `older_than` seconds old."""
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

        Missing files are ignored.

        Raises:
            ValueError: an original is not one of Convscope's copies.
        """
        paths = [self.thumbnail_path(key) for key in keys]
        for path_column in originals:
            if not path_column.startswith("originals/"):
                raise ValueError(f"expected a copy in {self.home}, got {path_column!r}")
            paths.append(self.original_path(path_column))
        # Each removal waits for the file system's journal: in parallel they take a quarter of the time.
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(partial(Path.unlink, missing_ok=True), paths):
                pass


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"expected a SHA-256 in 64 hexadecimal digits, got {key!r}")
    return key
