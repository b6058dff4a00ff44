"""Writes jpeg.json: small JPEG files, as hex, with the sum of the pixels that Pillow gives for them.

The pictures are formulas, so that no photograph is committed. Kinds: every subsampling that Pillow writes, baseline
and progressive, restart markers, gray, RGB without a colour transform, CMYK; odd sizes from 1 x 1.

    pip install pillow==13.0.0 && python make_jpeg.py > jpeg.json
"""

import hashlib
import io
import json

import PIL
from PIL import Image

KINDS = {
    "RGB 4:4:4": ("RGB", {"subsampling": 0}),
    "RGB 4:2:2": ("RGB", {"subsampling": 1}),
    "RGB 4:2:0": ("RGB", {"subsampling": 2}),
    "RGB 4:2:0 progressive": ("RGB", {"subsampling": 2, "progressive": True}),
    "RGB 4:2:0 restarts": ("RGB", {"subsampling": 2, "restart_marker_blocks": 2}),
    "RGB untransformed": ("RGB", {"subsampling": 0, "keep_rgb": True}),
    "gray": ("L", {}),
    "CMYK 4:4:4": ("CMYK", {"subsampling": 0}),
    "CMYK 4:2:2": ("CMYK", {"subsampling": 1}),
    "CMYK 4:2:0": ("CMYK", {"subsampling": 2}),
    "CMYK 4:2:0 progressive": ("CMYK", {"subsampling": 2, "progressive": True}),
}
SIZES = [(1, 1), (2, 3), (5, 17), (16, 16), (35, 21)]


def picture(mode, width, height):
    """Slanted ramps that wrap round, so that there are smooth parts and hard edges."""
    bands = len(mode) if mode != "L" else 1
    values = bytes(
        (x * (5 + 3 * band) + y * (11 - 2 * band) + 60 * band) % 256
        for y in range(height)
        for x in range(width)
        for band in range(bands)
    )
    return Image.frombytes(mode, (width, height), values)


cases = []
for name, (mode, options) in KINDS.items():
    for size in SIZES:
        file = io.BytesIO()
        picture(mode, *size).save(file, "JPEG", quality=60, optimize=True, **options)
        pixels = Image.open(io.BytesIO(file.getvalue())).convert("RGB").tobytes()
        digest = hashlib.sha256(pixels).hexdigest()
        cases.append({"kind": name, "size": size, "jpeg": file.getvalue().hex(), "sha256": digest})
print(json.dumps({"pillow": PIL.__version__, "cases": cases}, indent=1))
