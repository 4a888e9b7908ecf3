"""What is derived from an image: the size of its thumbnail, a perceptual hash, and the colors of its cells."""

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 90
# JPEG is limited to 65,500 pixels per side, and a strip that long is useless as a thumbnail.
THUMBNAIL_LONGEST = 16 * THUMBNAIL_SIDE


def perceptual_hash(image: Image.Image) -> int:
    """64-bit difference hash (dHash): where the image, reduced to 9 x 8 in gray, gets brighter from left to right.

    Few bits change if an image is resized, saved again or slightly edited. Bits are in row order, the first
    is the most significant. Source: Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013; as in the
    package imagehash.
    """
    gray = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes())


def cell_colors(image: Image.Image) -> bytes:
    """Mean red, green and blue of the 8 x 8 cells of an RGB image, row by row: 192 bytes.

    These capture what a hash of gray levels cannot; `near_duplicates` uses both.
    """
    return image.resize((8, 8), Image.Resampling.BOX).tobytes()


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the thumbnail of a `width` x `height` image; never larger than the image."""
    scale = min(1.0, THUMBNAIL_SIDE / min(width, height), THUMBNAIL_LONGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
