"""Reads sample formats from file headers, and finds files that Pillow would decode incorrectly.

Pillow opens some files with wrong values, or reports a valid file as no image. The result of `header_of`
decides how `decoding` reads the samples, or why it refuses the file. Headers are parsed according to the
specifications: TIFF 6.0 (1992) with its supplements, PNG (third edition), ISO/IEC 15444-1 (JPEG 2000), ITU-T
T.81 (JPEG).
"""

import io
import re
from dataclasses import dataclass

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Pillow's own reader for uncompressed TIFF mixes up the bytes of planar 16-bit bands; libtiff, which Pillow
# uses for compressed files, reads them correctly.
TiffImagePlugin.READ_LIBTIFF = True

_RANGE = "have no defined range: save it with 8 or 16 bits"
_EXPECTED = "expected gray, RGB, a palette or CMYK, each with alpha or without"
# TIFF tags and their values.
_BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES = 258, 259, 262, 270, 277
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
_COMPRESSIONS = {
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    22610: "JPEG XR",
    34934: "JPEG XR",
    34661: "JBIG",
}
_COLORS = {
    4: "a transparency mask",
    8: "CIE L*a*b* colors",
    9: "ICC L*a*b* colors",
    10: "ITU L*a*b* colors",
    32803: "raw samples of a color filter array",
    32844: "LogL samples",
    32845: "LogLuv samples",
    34892: "linear raw samples",
}
_KINDS = {0: "gray with 0 as white", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_BASE = {2: 3, 5: 4, 6: 3}
_SIGNIFICANT = re.compile(r'SignificantBits="(\d{1,2})"')


@dataclass(frozen=True)
class Header:
    """Sample format according to the header.

    Attributes:
        bits: bits per sample in the file.
        used: bits that make up the full range; fewer than `bits` if the file says so.
        white_is_zero: 0 is white (Pillow inverts samples of up to 8 bits, but not of 16).
        problem: why the file is refused, in one sentence; None if Pillow reads it.
        kind: description of the samples, for a file that Pillow does not recognize.
    """

    bits: int = 8
    used: int | None = None
    white_is_zero: bool = False
    problem: str | None = None
    kind: str | None = None


def header_of(data: bytes) -> Header:
    """Parse the header of a file; returns `Header()` if it is damaged or of another format."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 25:
        return _png(data)
    if data.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")):
        return _jpeg2000(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    return Header()


def _tiff(data: bytes) -> Header:
    try:
        tags = ImageFileDirectory_v2(data[:16] if b"+" in data[2:4] else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        numbers = {tag: _numbers(tags, tag) for tag in (_BITS, _SAMPLE_FORMAT, _EXTRA_SAMPLES)}
        compression, photometric, bands = (
            (_numbers(tags, tag) or (otherwise,))[0]
            for tag, otherwise in ((_COMPRESSION, 1), (_PHOTOMETRIC, 0), (_SAMPLES, 1))
        )
        description = tags.get(_DESCRIPTION, "")
    except Exception:  # a damaged directory may raise anything; Pillow reports the damage
        return Header()
    depths = set(numbers[_BITS] or (1,))
    formats = set(numbers[_SAMPLE_FORMAT] or (1,))
    bits = max(depths)
    order = "big-endian" if data.startswith(b"MM") else "little-endian"
    color = _KINDS.get(photometric, f"photometric {photometric}")
    kind = f"{color}, {_count(bands, 'sample')} of {_count(bits, 'bit')}, {order}"
    problem = None
    if compression in _COMPRESSIONS or compression not in TiffImagePlugin.COMPRESSION_INFO:
        problem = f"its TIFF compression {_COMPRESSIONS.get(compression, '')} ({compression}) is not read"
        problem = problem.replace("  ", " ")
    elif photometric in _COLORS:
        problem = f"it contains {_COLORS[photometric]}, which are not supported: {_EXPECTED}"
    elif formats & {2, 3, 5, 6}:
        what = {2: "signed integer", 3: "floating-point"}.get(max(formats), "complex")
        problem = f"its {bits}-bit {what} samples {_RANGE}"
    elif len(depths) > 1:
        problem = f"its samples differ in bits ({', '.join(map(str, numbers[_BITS]))}): {_EXPECTED}"
    elif bits > 16:
        problem = f"its {bits}-bit integer samples {_RANGE}"
    elif photometric in (0, 1) and bands > 1 and (bands > 2 or not set(numbers[_EXTRA_SAMPLES]) & {1, 2}):
        problem = f"it has {bands:,} bands of {bits} bits and does not state which are red, green and blue: {_EXPECTED}"
    said = _SIGNIFICANT.search(description) if bits == 16 and isinstance(description, str) else None
    used = int(said[1]) if said is not None and 8 <= int(said[1]) < 16 else bits
    return Header(bits, used, photometric == 0 and bits > 8, problem, kind)


def _numbers(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    values = value if isinstance(value, tuple) else (value,)
    return tuple(int(one) for one in values)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _png(data: bytes) -> Header:
    bits, color = data[24], data[25]
    problem = None
    if bits == 16 and color == 2 and _has_chunk(data, b"tRNS"):
        problem = (
            "its transparent color is one of 16-bit RGB, which is not read: save it with an alpha channel"
        )
    return Header(bits, bits, problem=problem)


def _has_chunk(data: bytes, name: bytes) -> bool:
    """Whether a PNG has the chunk before its pixels."""
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        if data[at + 4 : at + 8] == name:
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False


def _jpeg2000(data: bytes) -> Header:
    # the codestream's SIZ segment: 40 bytes, then (depth - 1, step, step) of each component
    at = data.find(b"\xff\x4f\xff\x51")
    count = int.from_bytes(data[at + 40 : at + 42]) if at >= 0 else 0
    depths = [(one & 0x7F) + 1 for one in data[at + 42 : at + 42 + 3 * count : 3]]
    if not depths:
        return Header()
    problem = None
    if count > 1 and max(depths) > 8:
        problem = (
            f"its {count} JPEG 2000 components have {max(depths)} bits, in which the decoder confuses "
            "white with black: save it with 8 bits, or as PNG or TIFF"
        )
    # Pillow shifts gray of 9 to 15 bits up to 16
    return Header(max(depths), problem=problem)


def _jpeg(data: bytes) -> Header:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            precision = data[at + 4]
            if marker in (0xC3, 0xC7, 0xCB, 0xCF):
                return Header(precision, problem="it is a lossless JPEG, which is not read: save it as PNG")
            if precision != 8:
                return Header(
                    precision,
                    problem=f"its JPEG samples have {precision} bits, which are not read: save it with 8, or as PNG",
                )
            return Header()
        if marker == 0xF7:
            return Header(problem="it is a JPEG-LS file, which is not read: save it as PNG")
        if marker == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return Header()
