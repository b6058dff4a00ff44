#!/usr/bin/env python3
"""Holds zoo's ONNX files to onnx's own checker.

    python bench/check_onnx.py --zoo target/release/zoo ['biformer-*' ..]

Each model (default: all) is exported without being run, checked (`onnx.checker`, full check: types and shapes are inferred
strictly), and deleted. A file must use ONNX's own operators alone and leave the batch open. One line for each model as it ends;
the exit status is 1 where any fails, 130 after Ctrl-C.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx


def names(zoo: str, patterns: list[str]) -> list[str]:
    """Of the models that match, in the registry's order."""
    listed = subprocess.run([zoo, "list", *patterns, "--json"], check=True, capture_output=True, text=True)
    return [model["name"] for model in json.loads(listed.stdout)["models"]]


def export(zoo: str, model: str, path: Path) -> str | None:
    """Writes the model's file; what zoo says where it can not."""
    command = [zoo, "export", model, "--onnx", str(path), "--no-verify", "--weights", "formula"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() or f"exit status {done.returncode}" if done.returncode else None


def faults(path: Path) -> str | None:
    """What is wrong with a file."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)
    graph = onnx.load(str(path), load_external_data=False).graph
    foreign = sorted({node.domain for node in graph.node} - {"", "ai.onnx"})
    if foreign:
        return f"operators of other domains: {', '.join(foreign)}"
    closed = [
        value.name
        for value in [*graph.input, *graph.output]
        if not value.type.tensor_type.shape.dim[0].dim_param
    ]
    return f"the batch is fixed: {', '.join(closed)}" if closed else None


def check(zoo: str, model: str) -> str | None:
    """What is wrong with a model's export."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{model}.onnx"
        return export(zoo, model, path) or faults(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["*"], help="models or globs")
    parser.add_argument("--zoo", default="target/release/zoo", help="the built command")
    arguments = parser.parse_args()
    try:
        models = names(arguments.zoo, arguments.models)
    except (OSError, subprocess.CalledProcessError) as error:
        print(getattr(error, "stderr", None) or f"{arguments.zoo}: {error}", file=sys.stderr)
        return 2
    failed = 0
    try:
        for model in models:
            fault = check(arguments.zoo, model)
            failed += fault is not None
            print(f"{model}: {fault or 'ok'}", flush=True)
    except KeyboardInterrupt:
        return 130
    print(f"{len(models) - failed} of {len(models)} pass onnx.checker {onnx.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
