#!/usr/bin/env bash
# Pillow 13.0.0: JPEG 2000 images with several components of more than 8 bits are rounded to 8 bits by adding one half
# without clamping, so the brightest samples wrap around: white, and everything within half a level of it, is read
# as black. Gray of more than 8 bits is read in full (mode I;16), and components of 8 bits are correct.
#
# Workaround: read such files with OpenCV (cv2.imdecode, IMREAD_UNCHANGED), which gives 16 bits, or refuse them. The depth
# is in the SIZ segment at the start of the codestream.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import cv2
import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
ramp = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (64, 1))


def read(samples):
    """What Pillow and OpenCV read of a lossless JPEG 2000 file of these samples, the last columns of the first row."""
    written, data = cv2.imencode(".jp2", samples, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    assert written
    pillow = np.asarray(Image.open(io.BytesIO(data.tobytes())))
    opencv = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    rows = [pillow[0, -3:], opencv[0, -3:]]
    return [row[:, 0] if row.ndim == 2 else row for row in rows]


pillow, opencv = read(np.dstack([ramp] * 3))
print("16-bit color, the last three of a ramp to white: OpenCV", opencv.tolist(), "Pillow", pillow.tolist())
assert abs(int(opencv[-1]) - 65535) <= 40, opencv
assert pillow[-2] > 245 and pillow[-1] == 0, pillow
narrow, _ = read(np.dstack([(ramp >> 8).astype(np.uint8)] * 3))
print("8-bit color: Pillow", narrow.tolist())
assert narrow[-1] >= 254, narrow
gray, _ = read(ramp)
print("16-bit gray: Pillow", gray.tolist())
assert gray[-1] >= 65500, gray
print("Confirmed: white in 16-bit color is read as black.")
PYTHON
