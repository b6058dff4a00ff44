"""The engines zoo is measured against. Each takes the same weights file and the same input.

A peer that cannot do what it was asked raises; none falls back to another engine, provider or dtype.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import formula

DTYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}


@dataclass(frozen=True)
class Task:
    """What to run and how."""

    model: str
    """timm's name, or zoo's where `official` is given."""
    weights: str
    """safetensors file in the model's own names; for official code also formula:SALT:GAIN."""
    threads: int
    dtype: str
    device: str
    channels_last: bool
    onnx: str | None
    """An ONNX file to run instead of torch's own export of the model."""
    official: str | None = None
    """Folder of official repositories to take the model from, instead of timm."""


@dataclass(frozen=True)
class Loaded:
    """A model in float32 on the CPU, giving logits, with every weight from the task's."""

    model: Any
    shape: tuple[int, int, int]
    """Of one input."""
    origin: list[str]
    """Whose code it is, for the description."""


def load_model(task: Task) -> Loaded:
    if task.official:
        return official_model(task, task.official)
    import timm
    from safetensors.torch import load_file

    model: Any = timm.create_model(task.model)
    model.load_state_dict(load_file(task.weights), strict=True)
    return Loaded(model.eval().requires_grad_(False), tuple(model.default_cfg["input_size"]), [f"timm {timm.__version__}"])


def official_model(task: Task, folder: str) -> Loaded:
    import official

    model, replaced = official.build(task.model, folder)
    if task.weights.startswith("formula:"):
        _, salt, gain = task.weights.split(":")
        official.fill(model, salt, float(gain))
    else:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(task.weights), strict=True)
    origin = [official.source(task.model), *(f"stand-in for {package}" for package in replaced)]
    return Loaded(official.logits_only(model).eval().requires_grad_(False), official.OFFICIAL[task.model].shape, origin)


def _rows(logits: NDArray[Any]) -> list[list[float]]:
    rows: list[list[float]] = logits.astype(np.float64).tolist()
    return rows


class Peer:
    """What the peers share: inputs by batch size, and the description."""

    name: str
    engine: str
    version: str

    def __init__(self, task: Task, loaded: Loaded) -> None:
        self.task = task
        self.shape = loaded.shape
        self.options = list(loaded.origin)
        self._inputs: dict[int, Any] = {}

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name, "engine": self.engine, "version": self.version, "model": self.task.model,
            "device": self.task.device, "dtype": self.task.dtype, "threads": self.task.threads,
            "input": list(self.shape), "options": self.options,
        }

    def logits(self, batch: int, salt: str) -> list[list[float]]:
        return self.forward(self.place(formula.images(salt, batch, self.shape)))

    def run_once(self, batch: int) -> None:
        if batch not in self._inputs:
            self._inputs[batch] = self.place(formula.images("zoo", batch, self.shape))
        self.call(self._inputs[batch])

    def place(self, images: NDArray[np.float32]) -> Any:
        """The images where and as the engine takes them; not timed."""
        raise NotImplementedError

    def call(self, images: Any) -> Any:
        """One forward pass, finished when it returns; timed."""
        raise NotImplementedError

    def forward(self, images: Any) -> list[list[float]]:
        """Logits of one forward pass."""
        raise NotImplementedError


class Torch(Peer):
    """PyTorch eager, or compiled by inductor."""

    engine = "torch"
    version = torch.__version__

    def __init__(self, task: Task, compiled: bool) -> None:
        loaded = load_model(task)
        super().__init__(task, loaded)
        self.name = "compile" if compiled else "eager"
        self.engine = "torch.compile (inductor)" if compiled else "torch eager"
        # As zoo has it: f32 is f32 on a GPU too, unless TF32 is asked for by name.
        torch.backends.cuda.matmul.allow_tf32 = task.dtype == "tf32"
        torch.backends.cudnn.allow_tf32 = task.dtype == "tf32"
        self._format = torch.channels_last if task.channels_last else torch.contiguous_format
        if task.channels_last:
            self.options.append("channels_last")
        model = loaded.model.to(device=task.device, dtype=DTYPES[task.dtype], memory_format=self._format)
        # dynamic=False: one specialised program for each batch size, inductor's best.
        self._model: Any = torch.compile(model, dynamic=False) if compiled else model

    def describe(self) -> dict[str, Any]:
        device = self.task.device
        if device.startswith("cuda"):
            device = f"{device} {torch.cuda.get_device_name(device)}"
        return {**super().describe(), "device": device, "threads": torch.get_num_threads()}

    def place(self, images: NDArray[np.float32]) -> torch.Tensor:
        tensor = torch.from_numpy(images).to(self.task.device, DTYPES[self.task.dtype])
        return tensor.contiguous(memory_format=self._format)

    def logits(self, batch: int, salt: str, dtype: str | None = None) -> list[list[float]]:
        """With `dtype`: of the model in that format, built anew for it."""
        if dtype is None:
            return super().logits(batch, salt)
        images = torch.from_numpy(formula.images(salt, batch, self.shape)).to(self.task.device, DTYPES[dtype])
        model = load_model(self.task).model.to(device=self.task.device, dtype=DTYPES[dtype])
        with torch.inference_mode():
            return _rows(model(images).double().cpu().numpy())

    @torch.inference_mode()
    def call(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return logits

    def forward(self, images: torch.Tensor) -> list[list[float]]:
        return _rows(self.call(images).float().cpu().numpy())


def onnx_file(task: Task, folder: str) -> tuple[str, Loaded]:
    """The model as ONNX with a free batch axis (written into `folder`), and the model it is of."""
    loaded = load_model(task)
    if task.onnx:
        return task.onnx, loaded
    path = Path(folder) / f"{task.model}.onnx"
    # The TorchScript exporter: on these models its graphs ran faster than those of the newer one.
    torch.onnx.export(
        loaded.model, (torch.zeros(2, *loaded.shape),), str(path), dynamo=False, opset_version=17, input_names=["images"],
        output_names=["logits"], dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
    )
    return str(path), loaded


class OnnxRuntime(Peer):
    name = "ort"

    def __init__(self, task: Task) -> None:
        import onnxruntime as ort

        if task.dtype != "f32":
            raise ValueError("ONNX Runtime is run in f32 only: its CPU provider has no bf16 convolution")
        with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
            path, loaded = onnx_file(task, folder)
            super().__init__(task, loaded)
            self._open(ort, path)

    def _open(self, ort: Any, path: str) -> None:
        task = self.task
        options = ort.SessionOptions()
        options.intra_op_num_threads = task.threads
        options.inter_op_num_threads = 1
        # Idle ORT threads spin, and would slow down whoever runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._device = task.device.split(":")[0]
        provider = "CUDAExecutionProvider" if self._device == "cuda" else "CPUExecutionProvider"
        self._session = ort.InferenceSession(path, options, providers=[provider])
        if self._session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} was asked for, ONNX Runtime took {self._session.get_providers()}")
        self.engine, self.version = f"onnxruntime {provider}", ort.__version__
        self.options.append("graph " + ("given" if task.onnx else "by torch.onnx.export"))
        self._threads = self._session.get_session_options().intra_op_num_threads
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "threads": self._threads}

    def place(self, images: NDArray[np.float32]) -> Any:
        import onnxruntime as ort

        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, ort.OrtValue.ortvalue_from_numpy(images, self._device, 0))
        binding.bind_output(self._output, self._device)
        return binding

    def call(self, images: Any) -> None:
        self._session.run_with_iobinding(images)
        images.synchronize_outputs()

    def forward(self, images: Any) -> list[list[float]]:
        self.call(images)
        return _rows(images.copy_outputs_to_cpu()[0])


class OpenVino(Peer):
    name = "openvino"
    engine = "openvino CPU"

    def __init__(self, task: Task) -> None:
        import openvino as ov

        if task.device != "cpu":
            raise ValueError(f"OpenVINO has no device {task.device}")
        # Kept until the end: every batch size reads the file again.
        self._folder = tempfile.TemporaryDirectory(prefix="zoo-bench-")
        path, loaded = onnx_file(task, self._folder.name)
        super().__init__(task, loaded)
        self.version = ov.get_version()
        self.options.append("graph " + ("given" if task.onnx else "by torch.onnx.export"))
        self._ov, self._path = ov, path
        self._requests: dict[int, Any] = {}

    def _request(self, batch: int) -> Any:
        """One program for each batch size, as with torch.compile."""
        if batch not in self._requests:
            core = self._ov.Core()
            model = core.read_model(self._path)
            model.reshape([batch, *self.shape])
            config = {
                "INFERENCE_NUM_THREADS": self.task.threads,
                "PERFORMANCE_HINT": "LATENCY",
                # Left alone, OpenVINO takes bf16 on processors that have it.
                "INFERENCE_PRECISION_HINT": self.task.dtype,
            }
            self._requests[batch] = core.compile_model(model, "CPU", config).create_infer_request()
        return self._requests[batch]

    def describe(self) -> dict[str, Any]:
        program = self._request(1).get_compiled_model()
        threads = program.get_property("INFERENCE_NUM_THREADS")
        dtype = program.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return {**super().describe(), "threads": threads, "dtype": dtype}

    def place(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return images

    def call(self, images: NDArray[np.float32]) -> Any:
        return self._request(len(images)).infer([images], share_inputs=True, share_outputs=True)

    def forward(self, images: NDArray[np.float32]) -> list[list[float]]:
        return _rows(self.call(images)[0])


def make(engine: str, task: Task) -> Peer:
    """The peer called `engine`."""
    torch.set_num_threads(task.threads)
    match engine:
        case "eager" | "compile":
            return Torch(task, compiled=engine == "compile")
        case "ort":
            return OnnxRuntime(task)
        case "openvino":
            return OpenVino(task)
        case _:
            raise ValueError(f"no engine {engine!r}: eager, compile, ort and openvino are there")
