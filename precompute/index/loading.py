"""Batches of preprocessed images, prefetched by threads while the network processes earlier ones."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.stores.decoding import UnreadableImage
from db.stores.images import ImageStore
from workers.jobs.stored_images import StoredImage, read_image
from workers.models.preprocessing import Preprocessing

# Decoding and resizing run in C without the GIL, a few milliseconds per image.
THREADS = 2


@dataclass(frozen=True)
class Unreadable:
    """An image that existed at import and cannot be read now."""

    image_id: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Batch:
    """Images of one forward pass, in the set's order.

    Attributes:
        images: those that were read, never more than the batch size.
        pixels: uint8 N,H,W,C, where N is always the batch size: the images are padded with zeros, so that
            every forward pass has the same shape and the network's sums the same order.
        unreadable: images that could not be read.
        next_place: position in the set at which the next batch starts.
    """

    images: tuple[StoredImage, ...]
    pixels: Tensor
    unreadable: tuple[Unreadable, ...]
    next_place: int


def batches(
    store: ImageStore,
    images: Sequence[StoredImage],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    start: int = 0,
    threads: int = THREADS,
) -> Iterator[Batch]:
    """All images from position `start` on, in order; unreadable ones are skipped and reported.

    The batches depend only on `start`, `batch_size` and which images are readable, not on timing. Memory: two
    batches of images.
    """
    ahead: deque[Future[npt.NDArray[np.uint8]]] = deque()
    submitted = start
    height, width = preprocessing.input_size
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            place = start
            while place < len(images):
                read: list[StoredImage] = []
                unreadable: list[Unreadable] = []
                pixels = torch.zeros(batch_size, height, width, preprocessing.channels, dtype=torch.uint8)
                rows = pixels.numpy()
                while place < len(images) and len(read) < batch_size:
                    while submitted < len(images) and len(ahead) < batch_size + threads:
                        ahead.append(pool.submit(read_image, store, images[submitted], preprocessing))
                        submitted += 1
                    image = images[place]
                    try:
                        rows[len(read)] = ahead.popleft().result()
                        read.append(image)
                    except UnreadableImage as error:
                        unreadable.append(Unreadable(image.image_id, image.name, error.reason))
                    place += 1
                yield Batch(tuple(read), pixels, tuple(unreadable), place)
        finally:
            for future in ahead:
                future.cancel()
