#!/usr/bin/env bash
# OpenCV 5.0.0: cv2.imread and imdecode of 16-bit color TIFFs with separate bands (planar) return other samples
# than the file contains, compressed or not, without a message. 8-bit planar and 16-bit interleaved files are correct.
#
# Workaround: read such files with tifffile, or with Pillow through libtiff (PIL.TiffImagePlugin.READ_LIBTIFF = True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import cv2
import numpy as np
import tifffile

print("OpenCV", cv2.__version__)
y, x = np.mgrid[0:48, 0:64]
color = np.dstack([x * 1000, y * 1000, (x + y) * 500]).astype(np.uint16)


def is_right(samples, **options):
    """Whether OpenCV reads what the file holds, and tifffile too."""
    buffer = io.BytesIO()
    planar = options.get("planarconfig") == "separate"
    tifffile.imwrite(buffer, np.moveaxis(samples, -1, 0).copy() if planar else samples, photometric="rgb", **options)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    again = tifffile.imread(io.BytesIO(buffer.getvalue()))
    assert np.array_equal(np.moveaxis(again, 0, -1) if planar else again, samples), "the file is sound"
    read = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return read is not None and np.array_equal(read[:, :, ::-1], samples)


eight = (color >> 8).astype(np.uint8)
found = {
    "8-bit planar": is_right(eight, planarconfig="separate"),
    "16-bit interleaved": is_right(color),
    "16-bit planar": is_right(color, planarconfig="separate"),
    "16-bit planar, Deflate": is_right(color, planarconfig="separate", compression="zlib"),
}
for kind, right in found.items():
    print(f"{kind}: {'correct' if right else 'wrong'}")
assert list(found.values()) == [True, True, False, False], found
print("Confirmed: 16-bit planar color is read incorrectly.")
PYTHON
