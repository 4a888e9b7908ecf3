"""What is made of an image beside its thumbnail: its size, a perceptual hash, the colors of its cells."""

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 90
# JPEG ends at 65,500 pixels a side, and a strip that long is no thumbnail.
THUMBNAIL_LONGEST = 16 * THUMBNAIL_SIDE


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that say where the picture, shrunk to 9 x 8 in grey, gets brighter from left to right (dHash).

    Few bits change where a picture is resized, saved again or slightly edited. Row by row, the first is the highest.
    Source: Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013; as in the package imagehash.
    """
    gray = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes())


def cell_colors(image: Image.Image) -> bytes:
    """Mean red, green and blue of the 8 x 8 cells of a picture (RGB), row by row: 192 bytes.

    What a hash of gray levels cannot see: `near_duplicates` asks for both.
    """
    return image.resize((8, 8), Image.Resampling.BOX).tobytes()


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the thumbnail of a `width` x `height` picture; never larger than the picture."""
    scale = min(1.0, THUMBNAIL_SIDE / min(width, height), THUMBNAIL_LONGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
