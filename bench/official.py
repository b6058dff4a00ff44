"""The official code of models that timm lacks: how each is imported from a folder of checkouts, built and filled.

    python bench/official.py --official DIR tests/goldens/biformer_tiny.json ..

holds the official modules, in float64, to the project's records. DIR holds each repository in the folder that `REPOSITORIES`
names; nothing of them is part of this project. KArAt has no public code, HaloNet and the baselines are timm's.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import formula
import stand_ins

# Folder below --official: the repository and the commit that the records were made from.
REPOSITORIES = {
    "biformer": ("rayleizhu/BiFormer", "1697bbbeafb8680524898f1dcaac10defd0604be"),
    "overlock": ("LMMMEng/OverLoCK", "2c8ab3b29e3a11fb4a2510d98e4d9ed8b33cf091"),
    "moh": ("SkyworkAI/MoH", "2cefd57b78196dd0fabc34a858a7739235f55356"),
    "shvit": ("ysj9909/SHViT", "6a729ccf18e0b941714b529638bd3d9bacebcef0"),
    "sparsifiner": ("lim142857/Sparsifiner", "9a11e2639c350b99bca3fa3f9d5ce9616505ca71"),
    "ninformer": ("Abdullah-88/NiNformer", "0ec85d46a82ea9472fdd28dde0b70dc0ca62a91a"),
    "fourier_ninformer": ("Abdullah-88/Fourier_NiNformer", "68fcf24aa12e2163d4f9ed2a78b8af2b149830ac"),
    "activator": ("Abdullah-88/Activator", "631c38a239b5ad1b4d211b080a4c06918a8e98cd"),
    "step": ("Fancyssc/STEP", "c0b31937b8ebd544084dbe59bef9a46846edbf95"),
    "braincog": ("BrainCog-X/Brain-Cog", "3998fd504c1a03376c2e96f14ddf98aee9f5370a"),
}

# Packages that a repository imports and inference does not need (natten is: it has a stand-in in plain PyTorch).
STAND_INS = {"biformer": ["fairscale"], "overlock": ["mmengine", "natten"], "moh": ["pkg_resources"],
             "step": ["pandas", "spikingjelly", "torchvision"]}

# Of Official.flips. Seen here: routes 5e-6, masks 8e-3, spikes 2e-4 (a flipped spike can move more, and larger nets have more of them).
ROUTES, MASKS, SPIKES = 1e-3, 2e-2, 2e-2


@dataclass(frozen=True)
class Official:
    """One model in its official code."""

    root: str
    """Folder to import from, below that of --official."""
    module: str
    """Module, or the script (`train.py`) of which only classes, functions and imports of the repository are executed."""
    factory: str
    gain: float
    """Of the formula's weights: the record's, at which neurons fire and logits keep their scale."""
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int] = (3, 224, 224)
    flips: float = 0.0
    """How far flipped choices (routes, masks, spikes) move the logits of an f32 run, max |a - b| / max |b|; 0: none are made."""


def _sparsifiner(dim: int, depth: int, heads: int, *, keep: float = 0.25, token_keep: float = 1.0,
                 thresholds: tuple[float, float] | None = None) -> dict[str, Any]:
    """The training script's arguments with the shipped configuration; its sparsity statistics are off, for they cost time."""
    prune_at = [3, 6, 9] if token_keep < 1 else []
    coefficient, score = thresholds or (0.05, 1e-4)
    spar = SimpleNamespace(
        BASIS_THRESHOLD=0.02, PRUNE_ATTN_MATRIX_ROW=False,
        BASIS_COEF=SimpleNamespace(USE_TOPK=thresholds is None, TOPK=8, THRESHOLD=coefficient),
        ATTN_SCORE=SimpleNamespace(USE_TOPK=thresholds is None, THRESHOLD=score),
        OUT_BASIS_SPARSITY=False, OUT_BASIS_COEF_SPARSITY=False, OUT_ATTN_MASK_SPARSITY=False,
    )
    return {
        "patch_size": 16, "embed_dim": dim, "depth": depth, "num_heads": heads, "distill": True,
        "attn_keep_rate_list": [keep] * depth, "reduce_n_factor": 6, "reduce_c_factor": 2, "share_inout_proj": False,
        "cfg": SimpleNamespace(SPAR=spar, LOSS=SimpleNamespace(USE_ATTN_RECON=False)),
        "token_keep_rate_list": [token_keep ** (i // 3) for i in range(depth)],
        "token_pruning_loc_indicator": [i in prune_at for i in range(depth)],
    }


def _deit(dim: int, heads: int, **options: Any) -> Official:
    arguments = _sparsifiner(dim, 12, heads, **options) | {"mlp_ratio": 4, "qkv_bias": True}
    return Official("sparsifiner/src", "models.sparsifiner", "Sparsifiner", 1.0, arguments, flips=MASKS)


def _lvvit(dim: int, depth: int, heads: int, **options: Any) -> Official:
    arguments = _sparsifiner(dim, depth, heads, **options)
    del arguments["token_keep_rate_list"], arguments["token_pruning_loc_indicator"]
    arguments |= {"mlp_ratio": 3, "p_emb": "4_2", "skip_lam": 2.0, "return_dense": True, "mix_token": True}
    return Official("sparsifiner/src", "models.sparsifiner_lvvit", "SparsifinerLVViT", 1.0, arguments, flips=MASKS)


def _step(module: str, factory: str, gain: float = 3.0, imagenet: bool = False, **options: Any) -> Official:
    shape = (3, 224, 224) if imagenet else (3, 32, 32)
    classes = {} if factory == "qkformer_imagenet" else {"num_classes": 1000 if imagenet else 10}
    sized = {"img_size": shape[1]} if factory != "qkformer_imagenet" else {}
    return Official("step/cls", f"models.static.{module}", factory, gain, {**sized, **classes, **options}, shape, flips=SPIKES)


def _script(root: str, script: str, factory: str, **options: Any) -> Official:
    size, channels = options.get("image_size", 32), options.get("in_channels", 3)
    return Official(root, script, factory, 1.0, options, (channels, size, size))


_OVERLOCK = {f"overlock-{v}{form}": Official("overlock", "models.overlock", f"overlock_{v}{form.replace('-', '_')}", 0.8)
             for v in ("xt", "t", "s", "b") for form in ("", "-reparam")}
_SHVIT = {f"shvit-s{i}{form}": Official("shvit", "model.build", f"shvit_s{i}", 0.7, {"distillation": bool(form)},
                                        (3, 256, 256) if i == 4 else (3, 224, 224))
          for i in (1, 2, 3, 4) for form in ("", "-dist")}
_MOH = {f"moh-transnext-{size[0]}-{share}": Official("moh/MoH-ViT", "transnext", f"moh_transnext_{size}_{share}", 1.0, flips=ROUTES)
        for size, share in (("small", 75), ("small", 80), ("base", 50), ("base", 75))}
_IMAGENET_STEP = {"step": 4, "patch_size": 16, "embed_dim": 512, "num_heads": 8, "depths": 8}

# zoo's names.
OFFICIAL: dict[str, Official] = {
    "biformer-t": Official("biformer", "models.biformer", "biformer_tiny", 0.7, flips=ROUTES),
    "biformer-s": Official("biformer", "models.biformer", "biformer_small", 0.7, flips=ROUTES),
    "biformer-b": Official("biformer", "models.biformer", "biformer_base", 0.7, flips=ROUTES),
    "biformer-stl": Official("biformer", "models.biformer_stl", "biformer_stl", 1.0, flips=ROUTES),
    "biformer-stl-nchw": Official("biformer", "models.biformer_stl_nchw", "biformer_stl_nchw", 1.0, flips=ROUTES),
    "maxvit-stl": Official("biformer", "models.maxvit_stl", "maxvit_stl", 1.0),
    **_OVERLOCK,
    **_MOH,
    **_SHVIT,
    "sparsifiner-t": _deit(192, 3),
    "sparsifiner-t-thr": _deit(192, 3, thresholds=(0.05, 0.2)),
    "sparsifiner-s": _deit(384, 6),
    "sparsifiner-s-keep10": _deit(384, 6, keep=0.1),
    "sparsifiner-s-keep50": _deit(384, 6, keep=0.5),
    "sparsifiner-s-tok70": _deit(384, 6, token_keep=0.7),
    "sparsifiner-s-tok50": _deit(384, 6, token_keep=0.5),
    "sparsifiner-b": _deit(768, 12),
    "sparsifiner-lvvit-s": _lvvit(384, 16, 6),
    "sparsifiner-lvvit-s-keep10": _lvvit(384, 16, 6, keep=0.1),
    "sparsifiner-lvvit-m": _lvvit(512, 20, 8),
    "ninformer-cifar10": _script("ninformer", "train.py", "NiNformerImageClassification"),
    "ninformer-cifar100": _script("ninformer", "train.py", "NiNformerImageClassification", num_classes=100),
    "ninformer-mnist": _script("ninformer", "train.py", "NiNformerImageClassification", image_size=28, in_channels=1, seq_len=49),
    "fourier-ninformer-cifar10": _script("fourier_ninformer", "train.py", "FourierNiNformerImageClassification"),
    "activator-cifar10": _script("activator", "train.py", "ACTIVATORImageClassification"),
    "activator-cifar100": _script("activator", "train.py", "ACTIVATORImageClassification", num_classes=100),
    "activator-only-geglu-cifar10": _script("activator", "train_only_GEGLU.py", "ACTIVATORImageClassification"),
    "activator-only-geglu-cifar100": _script("activator", "train_only_GEGLU.py", "ACTIVATORImageClassification", num_classes=100),
    "step-spikformer-cifar": _step("spikformer_cifar", "spikformer_cifar"),
    "step-sdt-cifar": _step("sdt_cifar", "sdt_cifar", embed_dim=512, num_heads=8, depths=2),
    "step-qkformer-cifar": _step("qkformer_cifar", "qkformer_cifar"),
    "step-spikingformer-cifar": _step("spikingformer_cifar", "spikingformer_cifar", 4.0),
    "step-sglformer-cifar": _step("sglformer_cifar", "sglformer_cifar", 4.0, embed_dim=384, num_heads=16, depths=1),
    "step-spikf-semm-cifar": _step("spikf_semm_cifar", "spikf_semm_cifar", 4.0),
    "step-spikformer-imagenet": _step("spikformer_imagenet", "spikformer_imagenet", imagenet=True, **_IMAGENET_STEP),
    "step-sdt-imagenet": _step("sdt_imagenet", "std_imagenet", imagenet=True, **_IMAGENET_STEP),
    "step-qkformer-imagenet": _step("qkformer_imagenet", "qkformer_imagenet", imagenet=True),
}


def _definitions(script: Path) -> ModuleType:
    """A script's classes, functions and imports of torch and of its neighbours, without running the training that it is."""
    neighbours = {"torch", *(path.stem for path in script.parent.glob("*.py"))}
    tree = ast.parse(script.read_text(encoding="utf-8"))

    def wanted(node: ast.stmt) -> bool:
        if isinstance(node, ast.Import):
            return all(alias.name.split(".")[0] in neighbours for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            return (node.module or "").split(".")[0] in neighbours and "torch.utils" not in (node.module or "")
        return isinstance(node, (ast.ClassDef, ast.FunctionDef))

    tree.body = [node for node in tree.body if wanted(node)]
    module = ModuleType(script.stem)
    exec(compile(tree, str(script), "exec"), vars(module))
    return module


def source(name: str) -> str:
    """Whose code the model is: repository and commit."""
    repository, commit = REPOSITORIES[OFFICIAL[name].root.split("/")[0]]
    return f"official code {repository} {commit[:8]}"


def build(name: str, folder: str) -> tuple[Any, list[str]]:
    """The official module of the model zoo calls `name`, as constructed, and the packages that stand-ins replaced.

    Modules of two repositories share names: one repository for each process.
    """
    official = OFFICIAL[name]
    root = Path(folder) / official.root
    repository_folder = official.root.split("/")[0]
    if not root.is_dir():
        repository, commit = REPOSITORIES[repository_folder]
        raise FileNotFoundError(f"{root}: {repository} at {commit} belongs there")
    replaced = stand_ins.install(STAND_INS.get(repository_folder, []))
    sys.path.insert(0, str(root))
    if repository_folder == "step":
        braincog = Path(folder) / "braincog"
        sys.path.insert(0, str(braincog))
        stand_ins.bare_packages(braincog, "braincog")
    if official.module.endswith(".py"):
        module = _definitions(root / official.module)
    else:
        module = importlib.import_module(official.module)
    return getattr(module, official.factory)(**official.options), replaced


def fill(model: Any, salt: str, gain: float) -> None:
    """Formula weights under the model's own names: parameters and running statistics; other buffers stay as constructed."""
    import torch

    tensors = dict(model.named_parameters())
    tensors |= {name: b for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(formula.weight(salt, gain, name, tensor.shape)))


def logits_only(model: Any) -> Any:
    """The model with its logits as the only output; Sparsifiner gives them among others."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Any) -> Any:
            found = self.model(images)
            return found["x"] if isinstance(found, dict) else found

    return Logits()


def difference(name: str, folder: str, record: dict[str, Any], stored: str) -> float:
    """max |a - b| / max |b| of the official module's logits in float64 and a record's."""
    import torch
    from safetensors.torch import load_file

    with contextlib.redirect_stdout(sys.stderr):
        model, _ = build(name, folder)
    fill(model, record["salt"], record["gain"])
    shape = OFFICIAL[name].shape
    batch, *sides = record["input_shape"]
    if tuple(sides) != shape:
        raise ValueError(f"the record's input is {sides}, the model's {list(shape)}")
    images = torch.from_numpy(formula.images(record["salt"], batch, shape)).double()
    with torch.inference_mode():
        found = logits_only(model).eval().double()(images)
    expected = load_file(stored)["logits"]
    return float((found - expected).abs().max() / expected.abs().max())


def zoo_name(record: str) -> str:
    """zoo's name of the model of a record."""
    short = {"tiny": "t", "small": "s", "base": "b"}
    return "-".join(short.get(part, part) for part in record.split("_"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", required=True, help="folder of the official repositories")
    parser.add_argument("records", nargs="+", help="records, NAME.json beside NAME.safetensors")
    args = parser.parse_args()
    failed = False
    for path in map(Path, args.records):
        record = json.loads(path.read_text(encoding="utf-8"))
        name = zoo_name(record["name"])
        if name not in OFFICIAL:
            print(f"{record['name']}: no official code known")
            continue
        stored = str(path.with_suffix(".safetensors"))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            try:
                found = process.submit(difference, name, args.official, record, stored).result()
                failed |= not found <= 1e-6
                print(f"{record['name']} ({name}): {found:.1e}", flush=True)
            except Exception as why:
                failed = True
                print(f"{record['name']} ({name}): {type(why).__name__}: {why}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
