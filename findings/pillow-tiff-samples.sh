#!/usr/bin/env bash
# Pillow 13.0.0 opens these valid TIFF files without a message and returns other samples than they contain:
# - 16-bit color with separate bands (planar), not compressed: the bytes of the samples are mixed up. The same
#   file with LZW or Deflate is correct, because libtiff reads it;
# - 16-bit gray with white as zero: not inverted, as 8 bits and fewer are, so the image is a negative;
# - packed 12-bit gray: 0 to 4095 in a mode whose white is 65535, so the image is nearly black;
# - signed 8-bit gray: read as unsigned, so -1 is brighter than 1.
#
# Workaround: set PIL.TiffImagePlugin.READ_LIBTIFF = True, which reads planar files correctly; check the tags
# PhotometricInterpretation, BitsPerSample and SampleFormat (image.tag_v2) and invert, scale or refuse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct

import numpy as np
import PIL
import tifffile
from PIL import Image, TiffImagePlugin

print("Pillow", PIL.__version__)
ramp = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (48, 1))


def read(samples, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    image = Image.open(io.BytesIO(buffer.getvalue()))
    return image.mode, np.asarray(image)


color = np.dstack([ramp, ramp[:, ::-1], np.full_like(ramp, 12345)])
bands = np.ascontiguousarray(np.moveaxis(color, -1, 0))
options = {"photometric": "rgb", "planarconfig": "separate"}
_, plain = read(bands, **options)
_, packed = read(bands, compression="zlib", **options)
TiffImagePlugin.READ_LIBTIFF = True
_, forced = read(bands, **options)
TiffImagePlugin.READ_LIBTIFF = False
wanted = (color >> 8).astype(np.uint8)
print("planar 16-bit color at (20, 40): stored", wanted[20, 40], "read", plain[20, 40], "Deflate", packed[20, 40])
assert np.array_equal(packed, wanted) and np.array_equal(forced, wanted)
assert not np.array_equal(plain, wanted)

mode, wide = read(65535 - ramp, photometric="miniswhite")
_, narrow = read((255 - (ramp >> 8)).astype(np.uint8), photometric="miniswhite")
print("white is zero, the darkest sample: 8 bits", narrow[0, 0], "16 bits", wide[0, 0], mode)
assert narrow[0, 0] == 0 and wide[0, 0] == 65535

mode, signed = read(np.array([[-1, 1]], np.int8), photometric="minisblack")
print("signed 8 bits: -1 and 1 are read as", signed[0].tolist(), mode)
assert signed[0].tolist() == [255, 1]

white = b"\xff" * 6  # four samples of 12 bits
entries = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: len(white)}
body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
file = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + bytes(4) + white
image = Image.open(io.BytesIO(file))
print("packed 12 bits, white:", np.asarray(image)[0].tolist(), image.mode)
assert image.mode == "I;16" and np.asarray(image).max() == 4095
print("Confirmed: four kinds of TIFF are read incorrectly without a message.")
PYTHON
