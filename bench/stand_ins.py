"""Stand-ins for packages that official model code imports and inference does not need, and one for natten.

Installed only where the real package is missing; what they replaced is in the peer's description.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


def _module(name: str, **members: Any) -> None:
    """Registers a module and its parents."""
    parent = ""
    for part in name.split("."):
        path = f"{parent}.{part}" if parent else part
        if path not in sys.modules:
            module = ModuleType(path)
            module.__path__ = []
            module.__spec__ = ModuleSpec(path, None, is_package=True)
            sys.modules[path] = module
            if parent:
                setattr(sys.modules[parent], part, module)
        parent = path
    vars(sys.modules[name]).update(members)


def _unusable(*_: Any, **__: Any) -> Any:
    raise RuntimeError("this package is only a stand-in (bench/stand_ins.py)")


class _Base:
    """What a class that nobody makes an object of may inherit from."""


class _DistributionNotFound(Exception):
    pass


def _no_distribution(name: str) -> Any:
    raise _DistributionNotFound(name)


def na2d_av(attention: Any, value: Any, kernel_size: int) -> Any:
    """natten's operator of this name in plain PyTorch, as OverLoCK's own ContMix does without natten: every window unfolded.

    `attention` [B, G, H, W, k*k] and `value` [B, G, H, W, C] give [B, G, H, W, C]; windows are shifted at the border, so those
    near it are copies of the nearest whole window.
    """
    import torch
    from torch.nn import functional

    b, g, h, w, c = value.shape
    k = kernel_size
    maps = value.permute(0, 1, 4, 2, 3).reshape(b, g * c, h, w)
    windows = functional.unfold(maps, k).reshape(b, g * c * k * k, h - k + 1, w - k + 1)
    windows = functional.pad(windows, (k // 2, k // 2, k // 2, k // 2), mode="replicate")
    return torch.einsum("bghwk,bgckhw->bghwc", attention, windows.reshape(b, g, c, k * k, h, w))


STAND_INS: dict[str, tuple[str, dict[str, Any]]] = {
    # Gradient checkpointing.
    "fairscale": ("fairscale.nn.checkpoint", {"checkpoint_wrapper": lambda module, *_, **__: module}),
    # Downloads of checkpoints.
    "mmengine": ("mmengine.runner", {"load_checkpoint": _unusable}),
    "natten": ("natten.functional", {"na2d_av": na2d_av}),
    # Asked whether the CUDA extension swattention is installed.
    "pkg_resources": ("pkg_resources", {"get_distribution": _no_distribution, "DistributionNotFound": _DistributionNotFound}),
    # Imported and not used.
    "pandas": ("pandas.core.methods.describe", {"select_describe_func": _unusable}),
    "spikingjelly": ("spikingjelly.clock_driven.neuron", {"LIFNode": _Base}),
    "torchvision": ("torchvision.ops", {"DeformConv2d": _unusable}),
}


def install(packages: Iterable[str]) -> list[str]:
    """Registers a stand-in for each of the packages that is missing; their names."""
    missing = [name for name in packages if name not in sys.modules and importlib.util.find_spec(name) is None]
    for name in missing:
        path, members = STAND_INS[name]
        _module(path, **members)
    if "spikingjelly" in missing:
        _module("spikingjelly.clock_driven.surrogate")
    return missing


def bare_packages(root: Path, package: str) -> None:
    """Makes `package` below `root` and its sub-packages importable without running their `__init__`, which imports everything."""
    for init in [root / package / "__init__.py", *(root / package).rglob("__init__.py")]:
        name = ".".join(init.parent.relative_to(root).parts)
        module = ModuleType(name)
        module.__path__ = [str(init.parent)]
        sys.modules.setdefault(name, module)
