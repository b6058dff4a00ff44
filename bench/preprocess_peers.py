"""JPEG bytes to model input with Pillow (or Pillow-SIMD) and torchvision, one thread, images a second.

The counterpart of `cargo bench -p zoo-images`: the same files, the same recipes, all files read before the clock
starts. Seconds are of this process's CPU time, so that others on the machine disturb less. Run it in the environment whose libraries are to be measured; what is not installed is skipped by name.

    ZOO_TEST_DATA=... python bench/preprocess_peers.py
"""

import io
import math
import os
import statistics
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

RECIPES = {"timm 0.9 bicubic": (0.9, "BICUBIC"), "torchvision 0.875 bilinear": (0.875, "BILINEAR")}
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PASSES = 15


def measure(name, files, step):
    step(files[0])
    seconds = []
    for _ in range(PASSES):
        start = time.process_time()
        for file in files:
            step(file)
        seconds.append(time.process_time() - start)
    best, median = min(seconds), statistics.median(seconds)
    print(f"{name:58} median {len(files) / median:7.0f}/s   best {len(files) / best:7.0f}/s")


def pillow(files):
    import PIL
    from PIL import Image

    label = f"Pillow {PIL.__version__}"

    def decode(file):
        return Image.open(io.BytesIO(file)).convert("RGB")

    def crop(image, crop_pct, filter):
        shorter = math.floor(SIZE / crop_pct)
        w, h = image.size
        size = (shorter, shorter * h // w) if w <= h else (shorter * w // h, shorter)
        left, top = (round((side - SIZE) / 2.0) for side in size)
        return image.resize(size, filter).crop((left, top, left + SIZE, top + SIZE))

    measure(f"{label}: decode", files, decode)
    images = [decode(file) for file in files]
    for name, (crop_pct, filter) in RECIPES.items():
        filter = getattr(Image, filter)
        measure(f"{label}: crop, {name}", images, lambda image: crop(image, crop_pct, filter))
        measure(f"{label}: decode and crop, {name}", files, lambda file: crop(decode(file), crop_pct, filter))


def torchvision(files):
    import torch
    import torchvision
    from PIL import Image
    from torchvision import io as tvio
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    label = f"torchvision {torchvision.__version__}"
    tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]

    def decode(data):
        return tvio.decode_jpeg(data, mode=tvio.ImageReadMode.RGB)

    measure(f"{label}: decode_jpeg", tensors, decode)
    images = [decode(data) for data in tensors]
    for name, (crop_pct, filter) in RECIPES.items():
        filter = getattr(v2.InterpolationMode, filter)
        resize = v2.Resize(math.floor(SIZE / crop_pct), interpolation=filter, antialias=True)
        finish = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
        cut = v2.Compose([resize, v2.CenterCrop(SIZE)])
        measure(f"{label} tensors: crop, {name}", images, cut)
        measure(f"{label} tensors: crop and normalise, {name}", images, lambda x: finish(cut(x)))
        measure(f"{label} tensors: all, {name}", tensors, lambda data: finish(cut(decode(data))))
        to_tensor = v2.Compose([v2.PILToTensor(), finish])
        measure(
            f"{label} on Pillow: all, {name}",
            files,
            lambda file: to_tensor(cut(Image.open(io.BytesIO(file)).convert("RGB"))),
        )


def main():
    folder = Path(os.environ["ZOO_TEST_DATA"]) / "imagenet-sample" / "val"
    files = [path.read_bytes() for path in sorted(folder.glob("*/*"))]
    print(f"{len(files)} files, one thread, {PASSES} passes")
    for peer in (pillow, torchvision):
        try:
            peer(files)
        except ImportError as error:
            print(f"{peer.__name__}: skipped, {error}")


if __name__ == "__main__":
    main()
