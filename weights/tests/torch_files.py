"""Writes checkpoints of many kinds with PyTorch, and what PyTorch reads from them, for tests/torch.rs.

    python weights/tests/torch_files.py FOLDER
    ZOO_TORCH_FILES=FOLDER cargo test -p zoo-weights --test torch

FOLDER/manifest.json: a list of {file, container, tensors: {name: [dtype, shape, sha256 of the contiguous bytes]}}.
Needs torch and safetensors.
"""

import argparse
import collections
import copy
import hashlib
import json
import pathlib
import sys

import safetensors.torch
import torch

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
manifest = []


def raw(tensor):
    tensor = tensor.detach().contiguous().reshape(-1)
    return tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def record(file, tensors, container=None):
    listed = {
        name: [str(t.dtype).removeprefix("torch."), list(t.shape), hashlib.sha256(raw(t)).hexdigest()]
        for name, t in tensors.items()
    }
    manifest.append({"file": file, "container": container, "tensors": listed})


def both(name, value, tensors, container=None):
    for form, is_zip in (("zip", True), ("legacy", False)):
        file = f"{name}.{form}.pth"
        torch.save(value, out / file, _use_new_zipfile_serialization=is_zip)
        record(file, tensors, container)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.bn = torch.nn.BatchNorm2d(8)
        self.scale = torch.nn.Parameter(torch.rand(1))
        self.register_buffer("index", torch.arange(6).reshape(2, 3))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.nothing = None
        self.register_buffer("absent", None)
        self.seq = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2, bias=False))


model = Block()
state = model.state_dict()
both("plain", state, state)
both("dict", dict(state), state)

every = {
    "f64": torch.randn(3, 4, dtype=torch.float64),
    "f32": torch.randn(3, 4),
    "f16": torch.randn(3, 4).half(),
    "bf16": torch.randn(3, 4).bfloat16(),
    "i64": torch.randint(-(2**60), 2**60, (7,)),
    "i32": torch.randint(-9, 9, (7,), dtype=torch.int32),
    "i16": torch.randint(-9, 9, (7,), dtype=torch.int16),
    "i8": torch.randint(-9, 9, (7,), dtype=torch.int8),
    "u8": torch.randint(0, 255, (7,), dtype=torch.uint8),
    "bool": torch.rand(9) > 0.5,
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 3),
    "inf": torch.tensor([float("inf"), float("-inf")]),
}
both("dtypes", every, every)

base = torch.randn(6, 8, 10)
views = {
    "whole": base,
    "transposed": base.transpose(0, 2),
    "permuted": base.permute(1, 2, 0),
    "rows": base[2:4],
    "columns": base[:, :, 3:7],
    "strided": base[::2, 1::3, ::4],
    "element": base[1, 2, 3],
    "expanded": base[0, 0, :1].expand(4, 5),
    "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "t_half": torch.randn(5, 7).half().t(),
    "flat": base.view(-1)[17:23],
    "as_strided": base.as_strided((3, 4), (1, 2), 5),
    "no_rows": base[3:3],
}
both("views", views, views)

params = {"a": torch.nn.Parameter(torch.randn(3, 2)), "b": torch.nn.Parameter(torch.randn(4).bfloat16(), requires_grad=False)}
params["a"].note = "a Python attribute"
both("parameters", params, params)

optimizer = torch.optim.AdamW(model.parameters())
model.conv.weight.grad = torch.randn_like(model.conv.weight)
optimizer.step()
state = model.state_dict()
ema = collections.OrderedDict((k, v * 2) for k, v in state.items())
training = {
    "model": state,
    "optimizer": optimizer.state_dict(),
    "lr_scheduler": {"base": [0.1], "betas": (0.9, 0.999), "last": -1},
    "epoch": 299,
    "model_ema": ema,
    "scaler": {"scale": 65536.0, "big": 2**80, "neg": -(2**40)},
    "args": argparse.Namespace(lr=1e-3, name="shvit_s1", path=pathlib.PurePosixPath("/tmp/x"), device=torch.device("cpu")),
}
both("training", training, state)
for form in ("zip", "legacy"):
    record(f"training.{form}.pth", ema, "model_ema")

both("parallel", {"state_dict": torch.nn.DataParallel(copy.deepcopy(model)).state_dict(), "epoch": 3}, state)
both("compiled", {f"_orig_mod.{k}": v for k, v in state.items()}, state)
both("module", model, state)
both("module_inside", {"net": torch.nn.DataParallel(model), "ema": copy.deepcopy(model)}, state)
both("nested", {"checkpoint": {"weights_here": state}, "history": [1.0, 2.0]}, state)
tied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
tied[1].weight = tied[0].weight
both("tied", tied.state_dict(), tied.state_dict())
for protocol in (2, 3, 4, 5):
    torch.save(training, out / f"protocol{protocol}.pth", pickle_protocol=protocol)
    record(f"protocol{protocol}.pth", state)
    torch.save(model, out / f"module_protocol{protocol}.pth", pickle_protocol=protocol)
    record(f"module_protocol{protocol}.pth", state)

torch.serialization.set_crc32_options(False)
torch.save(state, out / "no_crc.pth")
record("no_crc.pth", state)
torch.serialization.set_crc32_options(True)

contiguous = {k: v.contiguous().clone() for k, v in (every | views).items()}
safetensors.torch.save_file(contiguous, out / "many.safetensors", metadata={"format": "pt"})
record("many.safetensors", contiguous)

for real in sys.argv[2:]:
    loaded = torch.load(real, map_location="cpu", weights_only=True)
    record(real, loaded.get("state_dict", loaded))

(out / "manifest.json").write_text(json.dumps(manifest, indent=1))
print(len(manifest), "checkpoints,", sum(len(m["tensors"]) for m in manifest), "tensors")
