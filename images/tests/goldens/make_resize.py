"""Writes resize.json: sums of what Pillow makes of images that a formula gives.

    pip install pillow==13.0.0 && python make_resize.py > resize.json
"""

import hashlib
import json

import PIL
from PIL import Image

FILTERS = ["BOX", "BILINEAR", "BICUBIC", "LANCZOS"]
# (from, to): shrinking, enlarging, one axis each way, the same size, single rows and pixels, extreme ratios.
SIZES = [
    ((500, 375), (331, 248)), ((375, 500), (256, 341)), ((64, 48), (224, 168)), ((100, 40), (30, 90)),
    ((33, 33), (33, 33)), ((33, 17), (33, 40)), ((1, 1), (7, 5)), ((1, 97), (13, 8)), ((513, 1), (20, 3)),
    ((640, 3), (2, 2)), ((7, 5), (1, 1)), ((1600, 1200), (10, 9)),
]


def picture(width, height):
    """Byte i of the HWC pixels: a multiplicative hash of i, in stretches of hard black and white."""
    values = bytearray()
    for i in range(width * height * 3):
        hash = (i * 2654435761 + 12345) & 0xFFFFFFFF
        noise = (hash >> 13) & 0xFF
        values.append(noise if i & 512 else 255 * (noise >> 7))
    return Image.frombytes("RGB", (width, height), bytes(values))


cases = []
for size, target in SIZES:
    image = picture(*size)
    for name in FILTERS:
        pixels = image.resize(target, getattr(Image, name)).tobytes()
        digest = hashlib.sha256(pixels).hexdigest()
        cases.append({"from": size, "to": target, "filter": name, "sha256": digest})
print(json.dumps({"pillow": PIL.__version__, "cases": cases}, indent=1))
