"""The only module that decodes images.

`read_rgb` produces what every network and every thumbnail sees. Its conventions, the same for all formats:

- EXIF orientation is applied; of several frames, pages or panels, the first is read.
- Transparent images are composited over white.
- Grayscale becomes three equal channels. CMYK is converted without its ink profile, and color profiles are
  not applied, as in the pipelines that networks are trained with.
- 16-bit samples keep their high byte (65535 becomes 255), as Pillow does for 16-bit color. Samples of 9 to 15
  bits are scaled to the full range if the file states their bit depth, and otherwise kept as they are.
- Samples without an agreed range (signed or 32-bit integers, floating point) and bands not declared as colors
  are refused rather than guessed.
"""

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, UnidentifiedImageError

from db.stores.sample_formats import Header, header_of

# Pillow uses 4 bytes per pixel: an image at the limit takes 320 MB, and its conversion as much again.
MAX_PIXELS = 80_000_000
# Formats that have a signature and a decoder that reads only the given bytes (no EPS, no plugins that run
# programs), with the suffix of a stored original. MPO (concatenated JPEGs) is opened by Pillow's JPEG plugin.
FORMATS: dict[str, str] = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
}
FORMAT_NAMES = "JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, JPEG 2000 or PPM"
_TURNS: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


class Note(StrEnum):
    """A remark about a decoded image that the user should see; the value is its code in the thumbnail's comment."""

    LOW_BITS = "d"  # 16-bit samples all below 4096, as 12-bit cameras store them
    FIRST_OF_SEVERAL = "p"  # the first of several pages or frames


@dataclass(frozen=True)
class DecodedPicture:
    """An RGB image, the suffix for a file of its bytes (`.jpg`) regardless of its name, and notes."""

    image: Image.Image
    suffix: str
    notes: frozenset[Note]


class UnreadableImage(ValueError):
    """A file that cannot be read as an image; `reason` says why in one sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_rgb(data: bytes) -> Image.Image:
    """Decode `data` to an upright 8-bit RGB image; the module docstring states the conventions.

    Raises:
        UnreadableImage: `data` is not an image, is truncated or damaged, has more than `MAX_PIXELS` pixels,
            or has samples without an agreed range.
    """
    return read_picture(data).image


def read_picture(data: bytes) -> DecodedPicture:
    """Like `read_rgb`, with the suffix and notes about the file.

    Raises:
        UnreadableImage: see `read_rgb`.
    """
    with _quiet_pillow():
        header = header_of(data)
        image: Image.Image = _open(data, header)
        suffix = _suffix(image)
        notes = {Note.FIRST_OF_SEVERAL} if _has_frames(image) else set()
        try:
            image.load()
            # After load(): Pillow rotates TIFF there, and PNG may store its EXIF after the pixels.
            turn = _turn(image)
            image, is_dark = _to_rgb(image, header)
        except UnreadableImage:
            raise
        except MemoryError as error:
            raise UnreadableImage(f"not enough memory for {image.width} x {image.height} pixels") from error
        except Exception as error:
            # Decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError and more on damaged
            # files; in every case, the file cannot be read.
            raise UnreadableImage(_damage(error)) from error
    if is_dark:
        notes.add(Note.LOW_BITS)
    if turn is not None:
        image = image.transpose(turn)
    # Comments and profiles must not leak into files made from this image.
    image.info.clear()
    return DecodedPicture(image, suffix, frozenset(notes))


def _has_frames(image: Image.Image) -> bool:
    if image.format == "MPO":  # a photo with its preview or depth map
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame; the first is read or refused on its own
        return False


def _open(data: bytes, header: Header) -> Image.Image:
    if not data:
        raise UnreadableImage("the file is empty")
    if header.problem is not None:
        raise UnreadableImage(header.problem)
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS):,} pixels, the limit is {MAX_PIXELS:,}"
        ) from error
    except UnidentifiedImageError as error:
        if header.kind is not None:
            raise UnreadableImage(f"TIFF files of this kind are not read: {header.kind}") from error
        raise UnreadableImage(_what_it_is(data)) from error
    except Exception as error:
        raise UnreadableImage(_damage(error)) from error
    # Checked from the header, before any pixel is decoded.
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            f"it has {image.width:,} x {image.height:,} pixels, the limit is {MAX_PIXELS:,} in all"
        )
    return image


def _what_it_is(data: bytes) -> str:
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "it is a web page (HTML), not an image"
    if b"<svg" in head:
        return "it is an SVG drawing, not a pixel image"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return f"HEIC is not supported: expected {FORMAT_NAMES}"
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")):
        return "its header is damaged or truncated"
    return f"it is not a readable image: expected {FORMAT_NAMES}"


def _damage(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"the file is truncated ({text or 'no more data'})"
    return f"the file is damaged ({text or type(error).__name__})"


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF gives no orientation; the pixels are fine
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _to_rgb(image: Image.Image, header: Header) -> tuple[Image.Image, bool]:
    """The image in mode RGB, and whether its 16-bit samples leave the upper four bits unused."""
    mode = image.mode
    is_dark = False
    transparent = image.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        samples = np.asarray(image).clip(0, 65535).astype(np.uint16)
        hidden = samples == transparent if isinstance(transparent, int) else None
        used = header.used or 16
        top = int(samples.max(initial=0))
        if top >> used:  # the samples exceed the depth in the header
            used = 16
        if header.white_is_zero:
            samples = np.uint16(2**used - 1) - samples
        is_dark = used == 16 and _is_low(top)
        levels = (samples >> (used - 8)).astype(np.uint8)
        if hidden is not None:
            levels[hidden] = 255
        image = Image.fromarray(levels)
    elif mode in ("I", "F"):
        kind = "32-bit integer" if mode == "I" else "floating-point"
        raise UnreadableImage(f"its {kind} samples have no defined range: save it with 8 or 16 bits")
    else:
        if header.bits == 16 and mode in ("LA", "RGB", "RGBA"):
            tops = [high for _, high in image.getextrema()[: 1 if mode == "LA" else 3]]  # type: ignore[misc]
            is_dark = _is_low(256 * int(max(tops)))  # Pillow keeps the high byte of 16 bits
        if mode == "L" and header.bits in (2, 4) and isinstance(transparent, int):
            # the samples were scaled to 8 bits, the transparent value was not
            image.info["transparency"] = transparent * 255 // (2**header.bits - 1)
        if image.has_transparency_data:
            layer = image if mode == "RGBA" else image.convert("RGBA")
            image = Image.new("RGB", layer.size, "white")
            image.paste(layer, mask=layer.getchannel("A"))
    return image if image.mode == "RGB" else image.convert("RGB"), is_dark


def _is_low(top: int) -> bool:
    """Whether 16-bit samples up to `top` look like unscaled 12-bit samples. An all-black image is inconclusive."""
    return 0 < top < 4096


_quiet_lock = threading.Lock()
_quiet_depth = 0
_QUIET = ("ignore", None, Warning, re.compile(r"PIL(\.|$)"), 0)


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings (damaged EXIF, odd palettes): they are about images, not about the program.

    `warnings.catch_warnings` swaps the whole list of filters and is not thread-safe; this adds one filter
    while any thread decodes.
    """
    global _quiet_depth
    filters: list[object] = warnings.filters  # type: ignore[assignment]
    with _quiet_lock:
        _quiet_depth += 1
        if _QUIET not in filters:
            filters.insert(0, _QUIET)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _QUIET in filters:
                filters.remove(_QUIET)


def original_suffix(data: bytes) -> str:
    """The suffix that `read_picture` would return, from the header alone.

    Raises:
        UnreadableImage: see `read_rgb`, as far as the header shows.
    """
    with _quiet_pillow():
        return _suffix(_open(data, header_of(data)))


def _suffix(image: Image.Image) -> str:
    assert image.format is not None, "only for images as they were opened"
    return FORMATS["JPEG"] if image.format == "MPO" else FORMATS[image.format]
