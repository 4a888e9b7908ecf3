"""Samples of every bit depth and byte order are decoded as the file's header states, or refused because of it.

The oracle is NumPy: samples are generated here and written by tifffile, by OpenCV or from the parts of a
file, and the image must contain their high bytes.
"""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from db.stores.decoding import Note, UnreadableImage, read_picture, read_rgb

Samples = npt.NDArray[Any]

_Y, _X = np.mgrid[0:20, 0:33]
GRAY = (_X / 32 * 65535).round().astype(np.uint16)
COLOR = np.dstack([GRAY, (_Y / 19 * 65535).round(), ((_X + _Y) / 51 * 65535).round()]).astype(np.uint16)
OPAQUE = np.full_like(GRAY, 65535)


def tiff(samples: Samples, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def bands_apart(samples: Samples) -> Samples:
    return np.ascontiguousarray(np.moveaxis(samples, -1, 0))


def read(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(read_rgb(data))


def high(samples: Samples) -> npt.NDArray[np.uint8]:
    """Return the image of 16-bit samples: their high bytes, with gray as three channels."""
    levels = (samples >> 8).astype(np.uint8)
    return levels if levels.ndim == 3 else np.dstack([levels] * 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": 2}])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_sixteen_bit_tiffs_are_read_in_any_band_layout(
    order: str, packed: dict[str, Any], tile: tuple[int, int] | None
) -> None:
    options = {"byteorder": order, "tile": tile, **packed}
    assert np.array_equal(read(tiff(GRAY, photometric="minisblack", **options)), high(GRAY))
    assert np.array_equal(read(tiff(COLOR, photometric="rgb", **options)), high(COLOR))
    apart = tiff(bands_apart(COLOR), photometric="rgb", planarconfig="separate", **options)
    assert np.array_equal(read(apart), high(COLOR))


def test_eight_bit_bands_apart_are_read() -> None:
    data = tiff(bands_apart(high(COLOR)), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read(data), high(COLOR))


@pytest.mark.parametrize("rows", [None, 7])
def test_strips_and_turns_are_followed_in_bands_apart(rows: int | None) -> None:
    data = tiff(
        bands_apart(COLOR), photometric="rgb", planarconfig="separate", rowsperstrip=rows,
        extratags=[(274, 3, 1, 6, True)],
    )  # fmt: skip
    assert np.array_equal(read(data), np.rot90(high(COLOR), -1))


def test_big_tiff_is_read() -> None:
    assert np.array_equal(read(tiff(COLOR, photometric="rgb", bigtiff=True)), high(COLOR))


@pytest.mark.parametrize("packed", [{}, {"compression": "zlib"}])
def test_white_is_zero_is_turned_around_at_every_depth(packed: dict[str, Any]) -> None:
    wide = tiff(65535 - GRAY, photometric="miniswhite", **packed)
    assert np.array_equal(read(wide), high(GRAY))
    narrow = (255 - (GRAY >> 8)).astype(np.uint8)
    assert np.array_equal(read(tiff(narrow, photometric="miniswhite", **packed)), high(GRAY))
    bits = tiff(GRAY < 30000, photometric="miniswhite")
    assert np.array_equal(read(bits)[:, :, 0], np.where(GRAY < 30000, 0, 255))


def test_twelve_packed_bits_make_the_whole_range() -> None:
    samples = GRAY[:, :32] >> 4
    pairs = samples.reshape(20, 16, 2).astype(np.uint32)
    packed = (pairs[:, :, 0] << 12) | pairs[:, :, 1]
    rows = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=2).astype(np.uint8)
    data = _tiff_by_hand(32, 20, rows.tobytes(), bits=12)
    assert np.array_equal(read(data), high(GRAY[:, :32] & 0xFFF0))
    assert read_picture(data).notes == frozenset()


def _tiff_by_hand(width: int, height: int, pixels: bytes, *, bits: int) -> bytes:
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 277: 1, 278: height, 279: len(pixels)}
    entries[273] = 8 + 2 + 12 * (len(entries) + 1) + 4
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + bytes(4) + pixels


def test_twelve_bits_in_sixteen_are_scaled_if_declared_and_noted_otherwise() -> None:
    low = GRAY >> 4
    ome = '<OME><Image><Pixels Type="uint16" SignificantBits="12"/></Image></OME>'
    said = read_picture(tiff(low, photometric="minisblack", description=ome, metadata=None))
    assert np.array_equal(np.asarray(said.image), high(GRAY & 0xFFF0))
    assert said.notes == frozenset()
    wrong = tiff(GRAY, photometric="minisblack", description=ome, metadata=None)
    assert np.array_equal(read(wrong), high(GRAY)), "more bits than the file says"
    for samples in (low, np.dstack([low] * 3)):
        kept = read_picture(tiff(samples, photometric="minisblack" if samples.ndim == 2 else "rgb"))
        assert np.array_equal(np.asarray(kept.image), high(samples))
        assert kept.notes == {Note.LOW_BITS}
        png = cv2.imencode(".png", samples)[1].tobytes()
        assert read_picture(png).notes == {Note.LOW_BITS}
    for samples in (GRAY, np.zeros_like(GRAY)):
        assert read_picture(tiff(samples, photometric="minisblack")).notes == frozenset()


def test_alpha_of_sixteen_bits_is_laid_over_white_associated_or_not() -> None:
    alpha = np.where(_Y < 10, 32768, 65535).astype(np.uint16)
    share = alpha[:, :, None] / 65535
    expected = (COLOR * share + 65535 * (1 - share)) / 257
    straight = tiff(np.dstack([COLOR, alpha]), photometric="rgb", extrasamples=["unassalpha"])
    multiplied = np.dstack([(COLOR * share).astype(np.uint16), alpha])
    associated = tiff(multiplied, photometric="rgb", extrasamples=["assocalpha"])
    apart = tiff(
        bands_apart(np.dstack([COLOR, alpha])), photometric="rgb", planarconfig="separate",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    for data in (straight, associated, apart):
        assert np.abs(read(data) - expected).max() <= 2.5


def test_palettes_and_inks_of_tiffs_are_read() -> None:
    index = (GRAY >> 8).astype(np.uint8)
    colors = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    expected = (colors >> 8).astype(np.uint8)[:, index].transpose(1, 2, 0)
    assert np.array_equal(read(tiff(index, photometric="palette", colormap=colors)), expected)
    inks = np.dstack([65535 - COLOR, np.zeros_like(GRAY)])
    assert np.array_equal(read(tiff(inks, photometric="separated")), high(COLOR))
    assert np.array_equal(read(tiff((inks >> 8).astype(np.uint8), photometric="separated")), high(COLOR))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiffs_of_other_writers_are_read(compression: str) -> None:
    smooth = np.clip(high(COLOR), 30, 220)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "TIFF", compression=compression)
    found = read(buffer.getvalue())
    assert np.abs(found.astype(int) - smooth).max() <= (16 if compression == "jpeg" else 0)


def test_the_first_page_is_the_image_and_it_is_noted() -> None:
    two = tiff(np.stack([GRAY, 65535 - GRAY]), photometric="minisblack")
    assert np.array_equal(read(two), high(GRAY))
    assert read_picture(two).notes == {Note.FIRST_OF_SEVERAL}
    buffer = io.BytesIO()
    frame = Image.fromarray(high(COLOR))
    frame.save(buffer, "GIF", save_all=True, append_images=[frame.transpose(Image.Transpose.ROTATE_180)])
    assert read_picture(buffer.getvalue()).notes == {Note.FIRST_OF_SEVERAL}
    buffer = io.BytesIO()
    frame.save(buffer, "GIF")
    assert read_picture(buffer.getvalue()).notes == frozenset()


def _refusals() -> list[tuple[str, bytes, str]]:
    share = GRAY / 65535
    wide, narrow = {"photometric": "minisblack"}, (GRAY >> 8).astype(np.uint8)
    chunky = {**wide, "planarconfig": "contig"}
    return [
        ("13 bands", tiff(np.dstack([GRAY] * 13), **chunky), "it has 13 bands of 16 bits and does not state"),
        ("bands apart", tiff(np.stack([narrow] * 4), **wide, planarconfig="separate"), "4 bands of 8 bits"),
        ("2 bands", tiff(np.dstack([narrow] * 2), **chunky), "it has 2 bands of 8 bits"),
        (
            "half",
            tiff(share.astype(np.float16), **wide),
            "16-bit floating-point samples have no defined range",
        ),
        ("float", tiff(share.astype(np.float32), **wide), "32-bit floating-point"),
        ("double", tiff(share.astype(np.float64), **wide), "64-bit floating-point"),
        ("float RGB", tiff(COLOR.astype(np.float32), photometric="rgb"), "32-bit floating-point"),
        ("complex", tiff(share.astype(np.complex64), **wide), "64-bit complex"),
        ("signed 16", tiff(GRAY.astype(np.int16), **wide), "16-bit signed integer"),
        ("signed 8", tiff(narrow.astype(np.int8), **wide), "8-bit signed integer"),
        ("32 bits", tiff(GRAY.astype(np.uint32), **wide), "32-bit integer"),
        ("Lab", tiff(high(COLOR), photometric="cielab"), "CIE L[*]a[*]b[*] colors"),
        ("raw", tiff(GRAY, photometric="cfa"), "color filter array"),
        (
            "16-bit gray and alpha",
            tiff(np.dstack([GRAY, OPAQUE]), **chunky, extrasamples=["unassalpha"]),
            "TIFF files of this kind are not read: gray, 2 samples of 16 bits, little-endian",
        ),
        (
            "white is zero, big-endian",
            tiff(GRAY, photometric="miniswhite", byteorder=">"),
            "gray with 0 as white, 1 sample of 16 bits, big-endian",
        ),
    ]


@pytest.mark.parametrize(
    ("data", "reason"), [one[1:] for one in _refusals()], ids=[one[0] for one in _refusals()]
)
def test_unsupported_samples_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        read_rgb(data)


def test_a_compression_that_is_not_read_is_named() -> None:
    data = bytearray(tiff(GRAY, photometric="minisblack"))
    at = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    for number, name in (
        (50002, r"JPEG XL \(50002\)"),
        (34887, r"LERC \(34887\)"),
        (65000, r"compression \(65000\)"),
    ):
        data[at : at + 2] = struct.pack("<H", number)
        with pytest.raises(UnreadableImage, match=name):
            read_rgb(bytes(data))


# ----------------------------------------------------------------------------------------- other formats


def png(width: int, height: int, *, depth: int, color: int, rows: bytes, hidden: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"tRNS", hidden) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "rows", "hidden", "expected"),
    [
        (1, b"\0\x40", 0, [255, 255]),
        (2, b"\0\x60", 1, [255, 170]),
        (4, b"\0\x37", 3, [255, 119]),
        (8, b"\0\x0a\x01", 10, [255, 1]),
        (16, b"\0" + struct.pack(">HH", 1000, 20000), 1000, [255, 78]),
    ],
)
def test_the_transparent_gray_of_a_png_is_white_at_every_depth(
    depth: int, rows: bytes, hidden: int, expected: list[int]
) -> None:
    data = png(2, 1, depth=depth, color=0, rows=rows, hidden=struct.pack(">H", hidden))
    assert read(data)[0, :, 0].tolist() == expected


def test_a_transparent_color_of_sixteen_bits_is_refused() -> None:
    rows = b"\0" + struct.pack(">6H", 1000, 2000, 3000, 1001, 2001, 3001)
    data = png(2, 1, depth=16, color=2, rows=rows, hidden=struct.pack(">HHH", 1000, 2000, 3000))
    with pytest.raises(UnreadableImage, match="transparent color is one of 16-bit RGB"):
        read_rgb(data)


def test_gray_jpeg_2000_is_read_at_sixteen_bits_and_deep_color_refused() -> None:
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    gray_samples, color_samples = np.tile(GRAY, (4, 2)), np.tile(COLOR, (4, 2, 1))
    gray = cv2.imencode(".jp2", gray_samples, lossless)[1].tobytes()
    assert np.abs(read(gray).astype(int) - high(gray_samples)).max() <= 1
    color = cv2.imencode(".jp2", color_samples, lossless)[1].tobytes()
    with pytest.raises(UnreadableImage, match="3 JPEG 2000 components have 16 bits"):
        read_rgb(color)
    eight = cv2.imencode(".jp2", high(color_samples), lossless)[1].tobytes()
    assert np.abs(read(eight)[:, :, ::-1].astype(int) - high(color_samples)).max() <= 1


def test_a_maximum_below_65535_is_the_whole_range_of_a_portable_map() -> None:
    samples = GRAY >> 4
    assert (
        np.abs(read(b"P5 33 20 4095\n" + samples.astype(">u2").tobytes()).astype(int) - high(GRAY)).max() <= 1
    )


@pytest.mark.parametrize(
    ("marker", "precision", "reason"),
    [(0xC1, 12, "JPEG samples have 12 bits"), (0xC3, 8, "lossless JPEG"), (0xF7, 8, "JPEG-LS")],
)
def test_unsupported_jpegs_are_refused_with_the_reason(marker: int, precision: int, reason: str) -> None:
    frame = struct.pack(">BBHBHHB3B", 0xFF, marker, 11, precision, 20, 33, 1, 1, 17, 0)
    with pytest.raises(UnreadableImage, match=reason):
        read_rgb(b"\xff\xd8" + struct.pack(">BBH3s", 0xFF, 0xFE, 5, b"any") + frame + b"\xff\xda\0\x02")
