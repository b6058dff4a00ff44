"""Tensors made by a formula, so that every engine has the same weights and the same input without a download.

Element i of tensor NAME comes from splitmix64 seeded with fnv1a64("SALT/NAME"); the rules by name and rank are those of
zoo's own formula weights (`formula:SALT:GAIN`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

U64 = np.uint64


def uniform(salt: str, name: str, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1)."""
    key = 0xCBF29CE484222325
    for byte in f"{salt}/{name}".encode():
        key = ((key ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    z = U64(key) + np.arange(count, dtype=U64) + U64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    z ^= z >> U64(31)
    return (z >> U64(11)).astype(np.float64) * 2.0**-53


def images(salt: str, batch: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """A batch of inputs, [batch, channels, height, width]: mean 0 and variance 1."""
    whole = (batch, *shape)
    u = uniform(salt, "input", math.prod(whole))
    return ((2 * u - 1) * math.sqrt(3)).astype(np.float32).reshape(whole)


def weight(salt: str, gain: float, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The tensor called `name`."""
    count = math.prod(shape)
    u = uniform(salt, name, count)
    if name.endswith("running_var"):
        values = 0.5 + u
    elif name.endswith("running_mean"):
        values = (u - 0.5) * 0.2
    elif len(shape) >= 2:
        values = (2 * u - 1) * math.sqrt(3 / (count / shape[0])) * gain
    elif len(shape) == 0 or name.endswith((".weight", ".gamma", ".scale")):
        values = 0.5 + u
    else:
        values = (u - 0.5) * 0.2
    return values.astype(np.float32).reshape(tuple(shape))


def shvit_official_name(timm_name: str) -> str:
    """The official name of a tensor of timm's SHViT; formula weights are made under official names."""
    if match := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)", timm_name):
        stage, block, rest = int(match[1]), int(match[2]), match[3]
        return f"blocks{stage + 1}.{block if stage == 0 else block + 3}.{rest}"
    if match := re.fullmatch(r"stages\.(\d+)\.downsample\.(\d+)\.(.+)", timm_name):
        stage, part, rest = int(match[1]), int(match[2]), match[3]
        place = {0: "0.0", 1: "0.1", 2: "1", 3: "2.0", 4: "2.1"}[part]
        return f"blocks{stage + 1}.{place}.{rest}"
    return timm_name


def write_shvit(timm_model: str, salt: str, gain: float, path: str) -> None:
    """Writes formula weights of a SHViT in timm's names, for machines where `zoo weights convert` is not at hand."""
    import timm
    from safetensors.numpy import save_file

    if not timm_model.startswith("shvit_"):
        raise SystemExit(f"{timm_model}: only SHViT's names are known here; make the file with `zoo weights convert "
                         f"formula:{salt}:{gain} FILE --model MODEL --names timm` and give it with --weights")
    state = timm.create_model(timm_model).state_dict()
    tensors = {
        name: weight(salt, gain, shvit_official_name(name), tensor.shape)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(tensors, path)
