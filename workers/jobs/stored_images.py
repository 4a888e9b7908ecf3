"""Images of the atlas, decoded as networks see them."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from db.stores.decoding import UnreadableImage, read_rgb
from db.stores.images import ImageStore
from workers.models.preprocessing import Preprocessing, TooThin


@dataclass(frozen=True)
class StoredImage:
    """An image of a set as the atlas lists it."""

    image_id: int
    name: str
    path: str
    key: str
    wnid: str | None
    label: str | None


def read_image(store: ImageStore, image: StoredImage, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """The image as uint8 H,W,C of the network's input size.

    Raises:
        UnreadableImage: as for `open_image`, or the image is too long and thin to be resized.
    """
    try:
        return preprocessing(open_image(store, image))
    except TooThin as error:
        raise UnreadableImage(str(error)) from error


def open_image(store: ImageStore, image: StoredImage) -> Image.Image:
    """The image as it was imported.

    Raises:
        UnreadableImage: the file is missing, has changed since the import, or cannot be decoded.
    """
    try:
        data = store.original_path(image.path).read_bytes()
    except FileNotFoundError as error:
        raise UnreadableImage("the file is missing") from error
    except OSError as error:
        raise UnreadableImage(f"the file cannot be opened ({error.strerror})") from error
    # Takes a tenth of a millisecond; without it, a patch of another image could be shown under this one's
    # name.
    if hashlib.sha256(data).hexdigest() != image.key:
        raise UnreadableImage("the file has changed since it was imported")
    return read_rgb(data)
