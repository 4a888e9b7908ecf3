"""Every kind of image is decoded correctly or refused with a reason; the store's files are complete or absent."""

import io
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from db.stores.decoding import MAX_PIXELS, UnreadableImage, original_suffix, read_rgb

Pixels = npt.NDArray[np.uint8]
KEY = "ab" * 32


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> Pixels:
    image = read_rgb(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def scene(height: int = 24, width: int = 40) -> Image.Image:
    """Return an image that is smooth, so that JPEG preserves it, and that changes under every rotation and flip."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 255 * (x + 3 * y) / (width + 3 * height)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def difference(one: Pixels, other: Pixels) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def opencv(data: bytes) -> Pixels:
    """Decode with OpenCV, EXIF orientation applied: an independent decoder."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(read[:, :, ::-1])


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Assemble a PNG from its parts (PNG specification, third edition, sections 5 to 11)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# ------------------------------------------------------------------------------------------ orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_opencv_applies_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), "JPEG", quality=95, exif=exif.tobytes())
    upright = pixels(data)
    assert upright.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    assert difference(upright, opencv(data)) <= 2  # two builds of libjpeg


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once_in_every_format(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    jpeg = pixels(encoded(scene(), "JPEG", quality=100, subsampling=0, exif=exif.tobytes()))
    assert difference(pixels(encoded(scene(), kind, exif=exif.tobytes(), **options)), jpeg) <= 6


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert pixels(encoded(scene(), "JPEG", exif=exif.tobytes())).shape == (24, 40, 3)


def test_damaged_exif_is_ignored_without_a_warning() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker with a name long enough to lie outside its entry"
    data = encoded(scene(), "JPEG", exif=exif.tobytes())
    at = data.index(b"Exif\0\0")
    for end in range(at + 8, at + 40, 3):
        damaged = data[:end] + b"\xff" * (at + 40 - end) + data[at + 40 :]
        assert sorted(pixels(damaged).shape) == [3, 24, 40]


# ---------------------------------------------------------------------------------------------- samples


def test_inverted_cmyk_as_photoshop_writes_it_is_read_as_opencv_reads_it() -> None:
    inks = np.zeros((16, 64, 4), np.uint8)
    inks[:, :16] = (255, 0, 0, 0)  # cyan
    inks[:, 16:32] = (0, 200, 0, 0)
    inks[:, 32:48] = (0, 0, 255, 40)
    data = encoded(Image.frombytes("CMYK", (64, 16), inks.tobytes()), "JPEG", quality=100)
    assert b"Adobe" in data[:200], "the marker that says that the inks are stored inverted"
    ours = pixels(data)
    assert difference(ours, opencv(data)) <= 4
    assert difference(ours[8, [4, 60]], np.array([[0, 255, 255], [255, 255, 255]], np.uint8)) <= 4


def test_grey_becomes_three_equal_channels() -> None:
    for kind in ("JPEG", "PNG", "TIFF"):
        read = pixels(encoded(scene().convert("L"), kind))
        assert (read[:, :, 0] == read[:, :, 1]).all()
        assert (read[:, :, 0] == read[:, :, 2]).all()
        assert read.max() > 200 > 50 > read.min()


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jp2", ".pgm"])
def test_sixteen_bit_grey_keeps_its_high_byte(suffix: str) -> None:
    samples = np.linspace(0, 65535, 96 * 128).astype(np.uint16).reshape(96, 128)
    ok, buffer = cv2.imencode(suffix, samples)
    assert ok
    read = pixels(buffer.tobytes())
    tolerance = 1 if suffix == ".jp2" else 0  # OpenCV writes lossy JPEG 2000
    assert difference(read[:, :, 1], (samples >> 8).astype(np.uint8)) <= tolerance
    assert read.min() == 0
    assert read.max() == 255


@pytest.mark.parametrize("suffix", [".png", ".ppm"])
def test_sixteen_bit_colour_is_within_a_level_of_the_exact_scale(suffix: str) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (24, 40, 3)).astype(np.uint16)
    ok, buffer = cv2.imencode(suffix, samples)
    assert ok
    exact = np.rint(samples[:, :, ::-1] / 257).astype(np.uint8)
    assert difference(pixels(buffer.tobytes()), exact) <= 1


def test_palettes_and_single_bits_are_read() -> None:
    painted = scene().quantize(64)
    assert difference(pixels(encoded(painted, "PNG")), np.asarray(painted.convert("RGB"))) == 0
    bits = scene().convert("1")
    assert difference(pixels(encoded(bits, "PNG")), np.asarray(bits.convert("RGB"))) == 0


def test_transparency_is_laid_over_white_however_it_is_stored() -> None:
    colour = np.zeros((8, 8, 4), np.uint8)
    colour[:] = (200, 0, 0, 255)
    colour[:4, :, 3] = 0  # hidden red
    colour[4, :, 3] = 128
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[:4] = 255
    expected[4] = (227, 127, 127)
    expected[5:] = (200, 0, 0)
    rgba = Image.fromarray(colour)
    assert difference(pixels(encoded(rgba, "PNG")), expected) <= 1
    assert difference(pixels(encoded(rgba, "TIFF")), expected) <= 1
    assert difference(pixels(encoded(rgba, "WEBP", lossless=True, exact=True)), expected) <= 1
    grey = rgba.convert("LA")
    assert (pixels(encoded(grey, "PNG"))[:4] == 255).all()


def test_a_transparent_colour_is_laid_over_white() -> None:
    def transparency(body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))

    # 2 x 1: a pixel of the transparent color, and one of another color
    rgb = png(
        2, 1, depth=8, colour=2, rows=b"\0\x0a\x14\x1e\x01\x02\x03", extra=transparency(b"\0\x0a\0\x14\0\x1e")
    )
    assert pixels(rgb).tolist() == [[[255, 255, 255], [1, 2, 3]]]
    grey = png(2, 1, depth=8, colour=0, rows=b"\0\x0a\x01", extra=transparency(b"\0\x0a"))
    assert pixels(grey).tolist() == [[[255, 255, 255], [1, 1, 1]]]
    painted = Image.new("P", (2, 1))
    painted.putpalette([9, 8, 7, 1, 2, 3])
    painted.putpixel((1, 0), 1)
    for one in (0, b"\0\xff"):  # one transparent entry, or an opacity per entry
        assert pixels(encoded(painted, "PNG", transparency=one)).tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_the_first_of_many_frames_is_used() -> None:
    red, blue = Image.new("RGB", (20, 10), (250, 0, 0)), Image.new("RGB", (20, 10), (0, 0, 250))
    for kind, options in {
        "GIF": {},
        "PNG": {},
        "WEBP": {"lossless": True},
        "TIFF": {},
        "MPO": {"quality": 95},
    }.items():
        data = encoded(red, kind, save_all=True, append_images=[blue], **options)
        assert difference(pixels(data)[5, 5], np.array([250, 0, 0], np.uint8)) <= 4, kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_a_single_pixel_is_an_image(kind: str) -> None:
    assert pixels(encoded(Image.new("RGB", (1, 1), "white"), kind)).tolist() == [[[255, 255, 255]]]


def test_the_suffix_follows_the_content() -> None:
    for kind, suffix in {
        "JPEG": ".jpg",
        "MPO": ".jpg",
        "PNG": ".png",
        "TIFF": ".tif",
        "WEBP": ".webp",
    }.items():
        assert original_suffix(encoded(scene(), kind)) == suffix


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\n <HTML>not found</HTML>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"hello", "not a readable image: expected JPEG"),
        (b"%PDF-1.7", "not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a readable image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC is not supported"),
        (b"\xff\xd8\xff\xe0", "damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n", "damaged or truncated"),
    ],
)
def test_files_that_are_not_images_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason) as refused:
        read_rgb(data)
    assert "\n" not in refused.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_a_truncated_file_is_refused_wherever_it_ends(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for share in (0.02, 0.1, 0.3, 0.5, 0.9):
        with pytest.raises(UnreadableImage):
            read_rgb(data[: int(len(data) * share)])


def jpeg_header(width: int, height: int) -> bytes:
    data = encoded(Image.new("RGB", (16, 16)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    "data",
    [
        png(50_000, 50_000, depth=8, colour=2, rows=bytes(1000)),
        png(10_000, 8_001, depth=1, colour=0, rows=bytes(1000)),
        jpeg_header(50_000, 50_000),
        jpeg_header(65_000, 1_300),
        b"GIF89a"
        + struct.pack("<HH", 50_000, 50_000)
        + b"\0\0\0"
        + b","
        + struct.pack("<HHHH", 0, 0, 50_000, 50_000)
        + b"\0\2",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"P6 50000 50000 255\n",
    ],
    ids=["png", "1-bit png", "jpeg", "long jpeg", "gif", "bmp", "ppm"],
)
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    before = time.process_time()
    with pytest.raises(UnreadableImage, match=f"{MAX_PIXELS:,}"):
        read_rgb(data)
    assert time.process_time() - before < 0.5, "the pixels were decoded first"


def test_samples_without_an_agreed_range_are_refused() -> None:
    for samples, words in (
        (np.ones((4, 4), np.float32), "floating-point"),
        (np.ones((4, 4), np.int32), "integer"),
    ):
        with pytest.raises(UnreadableImage, match=words):
            read_rgb(encoded(Image.fromarray(samples), "TIFF"))


PICTURES = {
    kind: encoded(scene(12, 9), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(sorted(PICTURES)), data=st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(PICTURES[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read_rgb(bytes(damaged))
    except UnreadableImage:
        return
    assert image.mode == "RGB"
    assert image.width * image.height <= MAX_PIXELS


def test_threads_that_read_at_once_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    exif = Image.Exif()
    exif[0x010F] = "a maker with a name long enough to lie outside its entry"
    data = encoded(scene(), "JPEG", exif=exif.tobytes())
    at = data.index(b"Exif\0\0") + 30
    damaged = data[:at] + b"\xff" * 10 + data[at + 10 :]
    with ThreadPoolExecutor(8) as pool:
        sizes = {image.size for image in pool.map(read_rgb, [data, damaged, data] * 40)}
    assert sizes == {(40, 24)}
    assert warnings.filters == before
