#!/usr/bin/env bash
# Pillow 13.0.0: the transparent gray of a PNG (chunk tRNS) is kept at the file's bit depth while samples of 2 and 4 bits
# are scaled to 8, so convert("RGBA") leaves the transparent samples opaque and makes others transparent. In 16-bit
# color the transparent color keeps 16 bits and matches no 8-bit sample. Gray of 1 and 8 bits is correct.
#
# Workaround: for gray, multiply image.info["transparency"] by 85 (2 bits) or 17 (4 bits) before the conversion.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import zlib

import PIL
from PIL import Image

print("Pillow", PIL.__version__)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def opacity(depth, color, samples, transparent):
    """Of two pixels, the first of which has the transparent color."""
    head = struct.pack(">IIBBBBB", 2, 1, depth, color, 0, 0, 0)
    parts = [(b"IHDR", head), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + samples)), (b"IEND", b"")]
    image = Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)))
    alpha = image.convert("RGBA").getchannel("A")
    return [alpha.getpixel((0, 0)), alpha.getpixel((1, 0))]


key = struct.pack(">3H", 1000, 2000, 3000)
found = {
    "1-bit gray": opacity(1, 0, b"\x40", b"\0\0"),
    "2-bit gray": opacity(2, 0, b"\x60", b"\0\1"),
    "4-bit gray": opacity(4, 0, b"\x37", b"\0\3"),
    "8-bit gray": opacity(8, 0, b"\x0a\x01", b"\0\x0a"),
    "16-bit color": opacity(16, 2, key + struct.pack(">3H", 20000, 30000, 40000), key),
}
for kind, values in found.items():
    print(f"{kind}: opacity {values}, expected [0, 255]")
right = [kind for kind, values in found.items() if values == [0, 255]]
assert right == ["1-bit gray", "8-bit gray"], right
print("Confirmed: transparent samples of 2- and 4-bit gray and of 16-bit color are opaque.")
PYTHON
