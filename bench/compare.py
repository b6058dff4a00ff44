"""Times zoo and other engines on the same model, weights, input, threads and batch, taking turns in one run.

    python bench/compare.py shvit-s1 --engines zoo,eager,compile,ort,openvino --batch 1,8 --threads 4

Every engine is a process of its own. Before anything is timed their outputs are held to each other; an engine that
cannot run, that runs something else than it was asked, or whose outputs differ is left out and named, and the exit
status is 1. Ctrl-C prints what was measured so far.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import formula
from official import OFFICIAL
from protocol import WorkerFailed, WorkerProcess
from schedule import Case, Schedule, run

HERE = Path(__file__).resolve().parent
SALT, GAIN = "zoo", 0.7
BASE = "eager"
TOLERANCE = {"f32": 1e-4, "tf32": 5e-3, "bf16": 5e-2}
# Where rounding flips decisions: so many times the base's own distance from its next wider format, and never more than this.
SLACK, MOST = 3.0, 0.5
WIDER = {"f32": "f64", "tf32": "f64", "bf16": "f32"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="zoo's name, such as shvit-s1")
    parser.add_argument("--engines", default="zoo,eager,compile,ort,openvino",
                        help="also zoo:NAME for `zoo bench --engine NAME`, and eager+cl or compile+cl for channels last")
    parser.add_argument("--batch", default="1,8", help="batch sizes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--rounds", type=int, default=12, help="0: hold the outputs to each other and time nothing")
    parser.add_argument("--block", type=float, default=0.25, help="seconds of one block")
    parser.add_argument("--attempts", type=int, default=3, help="tries at each block until one is to keep")
    parser.add_argument("--limit", type=float, default=300, help="seconds after the warm-ups in which blocks are begun")
    parser.add_argument("--max-other-load", type=float, default=0.25, help="cores; a block beside more is discarded")
    parser.add_argument("--timm-model", help="timm's name, where it is not zoo's with _ for -")
    parser.add_argument("--official", help="folder of official repositories (official.py): the peer where they have the model")
    parser.add_argument("--gain", type=float, help="of the formula's weights (default: the official record's, or 0.7)")
    parser.add_argument("--weights", help="safetensors file in the peers' names (default: formula weights)")
    parser.add_argument("--zoo-weights", help="the same weights, for zoo (default: formula weights)")
    parser.add_argument("--zoo", default="zoo", help="the zoo program")
    parser.add_argument("--onnx", help="ONNX file for ort and openvino, instead of torch's export")
    parser.add_argument("--tolerance", type=float, help="largest difference of logits, max |a - b| / max |b|")
    parser.add_argument("--patience", type=float, default=300, help="seconds an engine has for one answer before the timing")
    parser.add_argument("--json", help="write the report to this file")
    args = parser.parse_args()
    if args.official and args.model not in OFFICIAL:
        args.official = None
    args.gain = args.gain or (OFFICIAL[args.model].gain if args.official else GAIN)
    args.zoo_weights = args.zoo_weights or f"formula:{SALT}:{args.gain}"
    args.timm_model = args.timm_model or args.model.replace("-", "_")
    flips = OFFICIAL[args.model].flips if args.official else 0.0
    args.decides = flips > 0
    args.tolerance = args.tolerance or max(flips, TOLERANCE[args.dtype])
    return args


def command(engine: str, args: argparse.Namespace) -> list[str]:
    """How to start the worker of an engine."""
    common = ["--threads", str(args.threads), "--dtype", args.dtype, "--device", args.device]
    kind, _, variant = engine.partition(":")
    if kind == "zoo":
        choice = ["--engine", variant] if variant else []
        return [args.zoo, "bench", "--worker", args.model, "--weights", args.zoo_weights, *common, *choice]
    peer, _, layout = engine.partition("+")
    if layout not in ("", "cl"):
        raise WorkerFailed(f"unknown variant +{layout}: +cl is there")
    extra = ["--channels-last"] if layout == "cl" else []
    extra += ["--onnx", args.onnx] if args.onnx else []
    extra += ["--official", args.official] if args.official else []
    return [sys.executable, str(HERE / "peer_worker.py"), "--engine", peer, "--model",
            args.model if args.official else args.timm_model, "--weights", args.weights, *common, *extra]


class Field:
    """The engines that run, and why the others do not."""

    def __init__(self) -> None:
        self.workers: list[WorkerProcess] = []
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.agreement: dict[str, float] = {}
        self.reference: dict[str, Any] | None = None
        """What logits were held to, where it is not the base's own: `dtype`, and the base's distance from it."""
        self.left_out: dict[str, str] = {}

    def start(self, engines: list[str], args: argparse.Namespace) -> None:
        env = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
        for engine in engines:
            try:
                self.workers.append(WorkerProcess(engine, command(engine, args), env))
            except WorkerFailed as why:
                self.left_out[engine] = str(why)
        self._keep(lambda worker: self._describe(worker, args))

    def _keep(self, check: Any) -> None:
        """Keeps the workers that pass `check`; the others are ended and their reason is noted."""
        kept = []
        for worker in self.workers:
            try:
                check(worker)
                kept.append(worker)
            except WorkerFailed as why:
                self.left_out[worker.label] = str(why)
                worker.close()
        self.workers = kept

    def _describe(self, worker: WorkerProcess, args: argparse.Namespace) -> None:
        description = worker.ask({"cmd": "describe"}, args.patience)
        for key, asked in (("dtype", args.dtype), ("threads", args.threads)):
            if description[key] != asked:
                raise WorkerFailed(f"{key} is {description[key]}, {asked} was asked")
        if description["device"].split()[0].split(":")[0] != args.device.split(":")[0]:
            raise WorkerFailed(f"device is {description['device']}, {args.device} was asked")
        self.descriptions[worker.label] = {**description, "name": worker.label}

    def agree(self, batches: list[int], args: argparse.Namespace) -> None:
        """Holds every worker's logits to the base's, at each batch size.

        Where rounding flips decisions (`args.decides`) and in bf16 the base itself is off, and no engine is right because it is near
        it: all are held to the base in its next wider format, and may be `SLACK` times as far from it as the base is.
        """
        self.workers.sort(key=lambda worker: worker.label != BASE)
        wider = WIDER[args.dtype] if args.decides or args.dtype == "bf16" else None
        reference: dict[int, list[list[float]]] = {}
        allowed: dict[int, float] = {}

        def check(worker: WorkerProcess) -> None:
            for batch in batches:
                request = {"cmd": "logits", "batch": batch, "salt": SALT}
                found = worker.ask(request, args.patience)["logits"]
                if batch not in reference:
                    reference[batch], allowed[batch] = found, args.tolerance
                    if wider and worker.label == BASE:
                        reference[batch] = worker.ask(request | {"dtype": wider}, args.patience)["logits"]
                        own = relative_difference(found, reference[batch])
                        allowed[batch] = min(MOST, max(args.tolerance, SLACK * own))
                        worst = max(own, (self.reference or {}).get("base_difference", 0.0))
                        self.reference = {"dtype": wider, "base_difference": worst}
                difference = relative_difference(found, reference[batch])
                self.agreement[worker.label] = max(difference, self.agreement.get(worker.label, 0.0))
                if not difference <= allowed[batch]:
                    raise WorkerFailed(f"its logits differ from {self.held_to()} by {difference:.1e} at batch "
                                       f"{batch}; {allowed[batch]:.0e} is allowed")

        self._keep(check)

    def held_to(self) -> str:
        """Whose logits the others were compared with."""
        return f"{self.workers[0].label}'s" + (f" in {self.reference['dtype']}" if self.reference else "")

    def close(self, grace_s: float = 5.0) -> None:
        for worker in self.workers:
            worker.close(grace_s)


def relative_difference(found: list[list[float]], reference: list[list[float]]) -> float:
    """max |a - b| / max |b|; infinite when the shapes differ, not a number when a logit is none (JSON's null too)."""
    if [len(row) for row in found] != [len(row) for row in reference]:
        return float("inf")
    pairs = [(a, b) for rows in zip(found, reference) for a, b in zip(*rows)]
    if any(x is None or x != x for pair in pairs for x in pair):
        return float("nan")
    return max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs)


def machine() -> dict[str, Any]:
    cpu = None
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"system": f"{platform.system().lower()} {platform.machine()}", "cpu": cpu, "cores": cores}


def report(field: Field, cases: list[Case], schedule: Schedule, ended: str) -> dict[str, Any]:
    """`zoo.bench/1`, with what only a comparison has under `comparison`."""
    base = field.workers[0].label
    bases = {case.batch: case for case in cases if case.worker.label == base}
    blind = any(block.other_load is None for case in cases for block in case.blocks)
    unavailable = {"kind": "unavailable", "why": "this system has no /proc/stat"}
    return {
        "schema": "zoo.bench/1",
        "tool": "bench/compare.py",
        "machine": machine(),
        "input": {"kind": "formula", "salt": SALT},
        "subjects": list(field.descriptions.values()),
        "schedule": vars(schedule),
        "other_load": unavailable if blind else {"kind": "measured"},
        "ended": ended,
        "cases": [case.report() for case in cases],
        "ratios": [
            {"subject": case.worker.label, "base": base, "batch": case.batch,
             "speed_up": case.speed_up(bases[case.batch])}
            for case in cases if case.worker.label != base
        ],
        "comparison": {"max_relative_difference": field.agreement, "reference": field.reference, "left_out": field.left_out},
    }


def table(result: dict[str, Any]) -> str:
    """The report for reading."""
    ratios = {(r["subject"], r["batch"]): r["speed_up"] for r in result["ratios"]}
    base = next(iter(result["cases"]))["subject"] if result["cases"] else BASE
    rows = [["batch", "engine", "median ms", "p90", "p99", "images/s", f"speed-up over {base}", "blocks kept/discarded"]]
    for case in sorted(result["cases"], key=lambda case: case["batch"]):
        stats, ratio = case["stats"], ratios.get((case["subject"], case["batch"]))
        figures = ["-"] * 4
        if stats:
            per_block = case["median_of_blocks_s"]
            times = [per_block, stats["p90_s"], stats["p99_s"]]
            figures = [f"{1e3 * t:.2f}" for t in times] + [f"{case['batch'] / per_block:.1f}"]
        speed_up = "-"
        if case["subject"] == base and stats:
            speed_up = "1"
        elif ratio:
            speed_up = f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] {100 * ratio['coverage']:.0f} %"
        blocks = f"{case['kept']}/{case['discarded']}"
        rows.append([str(case["batch"]), case["subject"], *figures, speed_up, blocks])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for case in result["cases"]:
        lines += [f"warning: {case['subject']}, batch {case['batch']}: {text}" for text in case["warnings"]]
    if result["other_load"]["kind"] == "unavailable":
        lines.append(f"warning: other processes' load is unknown ({result['other_load']['why']}); no block was discarded")
    if result["ended"] != "complete":
        lines.append(f"ended early ({result['ended'].replace('_', ' ')}): these are the figures up to then")
    return "\n".join(lines)


def peer_weights(args: argparse.Namespace) -> None:
    """Writes the formula's weights in timm's names for the peers; only zoo knows the names of other models than SHViT.

    Official modules are filled by the formula under their own names.
    """
    if all(engine.startswith("zoo") for engine in args.engines.split(",")):
        return
    if args.official:
        args.weights = args.zoo_weights
        return
    if args.timm_model.startswith("shvit_"):
        formula.write_shvit(args.timm_model, SALT, args.gain, args.weights)
        return
    convert = [args.zoo, "weights", "convert", args.zoo_weights, args.weights, "--model", args.model, "--names"]
    # Models whose official names are timm's have no other names for it.
    for names in ("timm", "official"):
        result = subprocess.run([*convert, names], capture_output=True, text=True)
        if result.returncode == 0:
            return
    raise SystemExit(f"{args.model}: {result.stderr.strip()}; give weights in timm's names with --weights")


def compare(args: argparse.Namespace, field: Field) -> int:
    batches = [int(batch) for batch in args.batch.split(",")]
    schedule = Schedule(args.rounds, args.block, args.max_other_load, args.attempts, args.limit)
    field.start(args.engines.split(","), args)
    field.agree(batches, args)
    for label, description in field.descriptions.items():
        if label not in field.left_out:
            options = ", ".join(description["options"])
            print(f"{label}: {description['engine']} {description['version']}, {description['device']}, "
                  f"{description['dtype']}, {description['threads']} threads{options and ', ' + options}; "
                  f"logits within {field.agreement[label]:.1e} of {field.held_to()}")
    for engine, why in field.left_out.items():
        print(f"{engine}: LEFT OUT: {why}")
    if not field.workers:
        return 1
    cases = [Case(worker, batch) for batch in batches for worker in field.workers]
    ended = run(cases, schedule, lambda step: print(step, file=sys.stderr))
    result = report(field, cases, schedule, ended)
    print(table(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if ended == "stopped":
        return 130
    return 1 if field.left_out or any(case.failure for case in cases) else 0


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    field = Field()
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        try:
            if not args.weights:
                args.weights = str(Path(folder) / "formula.safetensors")
                peer_weights(args)
            return compare(args, field)
        except KeyboardInterrupt:
            field.close(grace_s=0.0)
            print("interrupted before anything was timed", file=sys.stderr)
            return 130
        finally:
            field.close()


if __name__ == "__main__":
    sys.exit(main())
