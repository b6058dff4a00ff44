"""One variant of each family in every engine, as a table: `python bench/families.py --zoo target/release/zoo > docs/engines-speed.md`.

Runs `compare.py` for each model and format: PyTorch eager and torch.compile where timm has the model, zoo in libtorch, in ONNX
Runtime and in OpenVINO. Cells are the median of block medians in milliseconds, and in brackets the speed-up over the first column.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# zoo's name, and timm's where timm has the model.
FAMILIES = {
    "shvit-s1": "shvit_s1",
    "halonet-26t": "halonet26t",
    "deit-s": "deit_small_patch16_224",
    "resnet-50": "resnet50",
    "mixer-b16": "mixer_b16_224",
    "biformer-t": None,
    "moh-transnext-s-75": None,
    "overlock-xt": None,
    "sparsifiner-t": None,
    "karat-tiny-g3b": None,
    "ninformer-cifar10": None,
    "activator-cifar10": None,
    "maxvit-stl": None,
}
ZOO = ["zoo", "zoo:ort", "zoo:openvino"]
# ONNX Runtime has no bf16 kernels on the CPU.
ENGINES = {"f32": ["eager", "compile", *ZOO], "bf16": ["eager", "compile", "zoo", "zoo:openvino"]}
NAMES = {"eager": "PyTorch eager", "compile": "torch.compile", "zoo": "zoo, libtorch", "zoo:ort": "zoo, ONNX Runtime",
         "zoo:openvino": "zoo, OpenVINO"}


def compare(model: str, timm: str | None, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    """The report of one comparison; what went wrong goes to stderr."""
    engines = [e for e in ENGINES[dtype] if timm or e.startswith("zoo")]
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, str(HERE / "compare.py"), model, "--engines", ",".join(engines), "--dtype", dtype,
                   "--batch", args.batch, "--threads", str(args.threads), "--rounds", str(args.rounds),
                   "--max-other-load", str(args.max_other_load), "--zoo", args.zoo, "--json", report.name]
        command += ["--timm-model", timm] if timm else []
        done = subprocess.run(command, stdout=sys.stderr)
        text = Path(report.name).read_text(encoding="utf-8")
    if not text:
        print(f"{model} {dtype}: no report (status {done.returncode})", file=sys.stderr)
        return {"cases": []}
    result: dict[str, Any] = json.loads(text)
    return result


def cell(time: float | None, base: float | None) -> str:
    """Milliseconds, and the speed-up over the base."""
    if time is None:
        return "-"
    return f"{1e3 * time:.1f}" + (f" ({base / time:.2f}x)" if base is not None and base != time else "")


def row(model: str, batch: int, dtype: str, report: dict[str, Any]) -> str:
    """The line of one model at one batch size."""
    times = {c["subject"]: c["median_of_blocks_s"] for c in report["cases"] if c["batch"] == batch}
    first = next((times[e] for e in NAMES if times.get(e) is not None), None)
    cells = [cell(times.get(engine), first) for engine in NAMES]
    return f"| {model} | {batch} | {dtype} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="of the table's models; default: all")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--max-other-load", type=float, default=0.25, help="cores; a block beside more is discarded")
    parser.add_argument("--zoo", default="zoo", help="the zoo program")
    args = parser.parse_args()
    unknown = set(args.models) - set(FAMILIES)
    if unknown:
        parser.error(f"not in the table: {', '.join(sorted(unknown))}")

    print(f"# One variant of each family in every engine\n\nmilliseconds per call, {args.threads} threads; in brackets the speed-up "
          "over the first figure of the line. Made by `bench/families.py`; `-`: the engine has no such model or format.\n")
    print("| model | batch | format | " + " | ".join(NAMES.values()) + " |")
    print("|---|---|---|" + "---|" * len(NAMES))
    machine = ""
    for model in args.models or FAMILIES:
        for dtype in args.dtypes.split(","):
            report = compare(model, FAMILIES[model], dtype, args)
            for batch in args.batch.split(","):
                print(row(model, int(batch), dtype, report), flush=True)
            if report["cases"]:
                machine = f"{report['machine']['cpu']}, {report['machine']['cores']} logical cores"
    print(f"\nMachine: {machine}.")


if __name__ == "__main__":
    main()
