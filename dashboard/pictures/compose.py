"""Tiles and rows of tiles, cropped from thumbnails.

Pixels are uint8 H,W,3 in OpenCV's order B, G, R from decoding the thumbnail to encoding the row. Only the two
color constants below depend on that order.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from dashboard.pictures.geometry import Box, Placement, View

Pixels = npt.NDArray[np.uint8]

# Version of the rendering, part of each image's address: raise it if the same request would produce different
# pixels.
RENDERING = 6
# Multiples of 8, the JPEG block size; with full-resolution chroma no tile bleeds into its neighbor.
TILE_SIZES = (48, 64, 96, 128, 192, 256, 384)
QUALITY = 86
BLANK = (138, 132, 128)
FADING = 0.6  # share of the background color in areas outside the receptive field
FIELD_COLOUR = (60, 190, 255)
EFFECTIVE_COLOUR = (255, 214, 90)


def tile(picture: Pixels, where: Placement, shown: View, size: int) -> Pixels:
    """A tile of `size` x `size` pixels: the part of `picture` in `shown`, faded outside the receptive field.

    Areas beyond the image are blank (the image may be smaller than the input).

    Enlarges with a cubic filter at exact positions, reduces with area interpolation at whole pixels. A window
    that is not square keeps its aspect ratio.
    """
    canvas: Pixels = np.full((size, size, 3), BLANK, np.uint8)
    window_height, window_width = shown.window[2] - shown.window[0], shown.window[3] - shown.window[1]
    zoom = size / max(window_height, window_width)
    # tile = corner + zoom * (input - window's corner)
    corner = ((size - zoom * window_height) / 2, (size - zoom * window_width) / 2)
    target = _in_tile(_pictured(where, shown.window), shown.window, zoom, corner)
    top, left, bottom, right = (round(edge) for edge in target)
    if bottom <= top or right <= left:
        return canvas
    zoom_y, zoom_x = zoom / where.scale[0], zoom / where.scale[1]
    if min(zoom_y, zoom_x) >= 1:
        # the center of image pixel p lies at tile coordinate a * (p + 0.5) + b - 0.5
        shift_y = corner[0] - zoom * shown.window[0] - zoom_y * where.offset[0]
        shift_x = corner[1] - zoom * shown.window[1] - zoom_x * where.offset[1]
        matrix = np.array(
            [
                [zoom_x, 0, shift_x + 0.5 * zoom_x - 0.5 - left],
                [0, zoom_y, shift_y + 0.5 * zoom_y - 0.5 - top],
            ]
        )
        canvas[top:bottom, left:right] = cv2.warpAffine(
            picture,
            matrix,
            (right - left, bottom - top),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
    else:
        source = where.box(
            (
                shown.window[0] + (top - corner[0]) / zoom,
                shown.window[1] + (left - corner[1]) / zoom,
                shown.window[0] + (bottom - corner[0]) / zoom,
                shown.window[1] + (right - corner[1]) / zoom,
            )
        )
        y0, x0 = max(0, round(source[0])), max(0, round(source[1]))
        y1 = max(y0 + 1, min(picture.shape[0], round(source[2])))
        x1 = max(x0 + 1, min(picture.shape[1], round(source[3])))
        cropped = picture[min(y0, picture.shape[0] - 1) : y1, min(x0, picture.shape[1] - 1) : x1]
        canvas[top:bottom, left:right] = reduced(cropped, (right - left, bottom - top))
    _fade(canvas, _in_tile(shown.visible, shown.window, zoom, corner))
    for box, colour in zip(shown.boxes, (FIELD_COLOUR, EFFECTIVE_COLOUR), strict=False):
        _draw(canvas, _in_tile(box, shown.window, zoom, corner), colour)
    return canvas


def reduced(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """`picture` reduced to `size` (width, height) with area interpolation.

    Within two gray levels of `INTER_AREA`, and two to six times as fast. OpenCV's area interpolation is fast
    for integer factors, so this first resizes linearly, by a factor below two, to the nearest integer
    multiple of `size`.
    """
    height, width = picture.shape[:2]
    even = (size[0] * max(1, width // size[0]), size[1] * max(1, height // size[1]))
    if even != (width, height):
        picture = cv2.resize(picture, even, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    if even == size:
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _pictured(where: Placement, window: Box) -> Box:
    """The part of `window` covered by the image."""
    top = max(window[0], -where.offset[0] / where.scale[0])
    left = max(window[1], -where.offset[1] / where.scale[1])
    bottom = min(window[2], (where.size[0] - where.offset[0]) / where.scale[0])
    right = min(window[3], (where.size[1] - where.offset[1]) / where.scale[1])
    return (top, left, bottom, right)


def _fade(canvas: Pixels, seen: Box) -> None:
    """Blend everything outside `seen` toward the background color."""
    size = canvas.shape[0]
    top, left = max(0, round(seen[0])), max(0, round(seen[1]))
    bottom, right = min(size, round(seen[2])), min(size, round(seen[3]))
    if (top, left, bottom, right) == (0, 0, size, size):
        return
    blank = np.array(BLANK, np.float32) * FADING
    for part in (canvas[:top], canvas[bottom:], canvas[top:bottom, :left], canvas[top:bottom, right:]):
        part[:] = (part * (1 - FADING) + blank).astype(np.uint8)


def _in_tile(box: Box, window: Box, zoom: float, corner: tuple[float, float]) -> Box:
    return (
        corner[0] + zoom * (box[0] - window[0]),
        corner[1] + zoom * (box[1] - window[1]),
        corner[0] + zoom * (box[2] - window[0]),
        corner[1] + zoom * (box[3] - window[1]),
    )


def _draw(canvas: Pixels, box: Box, colour: tuple[int, int, int]) -> None:
    """Draw an outline inside `box`, next to a dark line that keeps it visible on any image."""
    size = canvas.shape[0]
    line = max(1, size // 64)
    top, left = max(0, round(box[0])), max(0, round(box[1]))
    bottom, right = min(size, round(box[2])) - 1, min(size, round(box[3])) - 1
    if bottom <= top or right <= left:
        return
    cv2.rectangle(canvas, (left, top), (right, bottom), (24, 20, 20), line + 2)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, line)


def missing(size: int) -> Pixels:
    """The tile of an image whose thumbnail is missing: blank, crossed out."""
    canvas: Pixels = np.full((size, size, 3), BLANK, np.uint8)
    quarter = size // 4
    for ends in (((quarter, quarter), (size - quarter, size - quarter)),
                 ((size - quarter, quarter), (quarter, size - quarter))):  # fmt: skip
        cv2.line(canvas, ends[0], ends[1], (90, 84, 80), max(1, size // 48), cv2.LINE_AA)
    return canvas


def row(tiles: Sequence[Pixels]) -> bytes:
    """Tiles side by side, as a JPEG."""
    picture = tiles[0] if len(tiles) == 1 else np.hstack(list(tiles))
    return encode(picture)


def encode(picture: Pixels) -> bytes:
    """JPEG of B, G, R pixels."""
    options = (cv2.IMWRITE_JPEG_QUALITY, QUALITY,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)  # fmt: skip
    done, data = cv2.imencode(".jpg", picture, options)
    if not done:
        raise RuntimeError(f"expected an image that can be encoded, got shape {picture.shape}")
    return data.tobytes()


@functools.lru_cache(maxsize=1)
def one_thread() -> None:
    """Limit OpenCV to one thread per image: the web server processes many images in parallel."""
    cv2.setNumThreads(1)
