"""Many models in every engine, as one table: `python bench/families.py --zoo target/release/zoo --official DIR --out results.jsonl`.

Runs `compare.py` for each model and format, and prints a line of the table as soon as it is known: PyTorch eager and torch.compile
(the official code with --official, else timm's where it has the model), torch.onnx's export in ONNX Runtime, zoo in libtorch, in
ONNX Runtime and in OpenVINO. Times are medians of block medians in milliseconds; a ratio above 1 says that the first is faster.

Reports are added to --out, one JSON line for each, at once. What is there (or in a --done file) is not run again, so a campaign
that was killed or ran out of its --budget goes on when the same command is given again. --table prints the table of such files.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import tables
from official import OFFICIAL

HERE = Path(__file__).resolve().parent

# One variant of each family by zoo's name, and timm's name where timm has the model.
FAMILIES: dict[str, str | None] = {
    "biformer-t": None,
    "halonet-26t": "halonet26t",
    "overlock-xt": None,
    "moh-transnext-s-75": None,
    "sparsifiner-s": None,
    "shvit-s1": "shvit_s1",
    "ninformer-cifar10": None,
    "activator-cifar10": None,
    "karat-tiny-g3b": None,
    "maxvit-stl": None,
    "deit-s": "deit_small_patch16_224",
    "mixer-b16": "mixer_b16_224",
    "resnet-50": "resnet50",
    "step-spikformer-cifar": None,
    "step-spikformer-imagenet": None,
    "step-sdt-cifar": None,
    "step-qkformer-cifar": None,
    "step-spikingformer-cifar": None,
}
# Other models that timm has and a campaign may name.
TIMM = {"halonet-50ts": "halonet50ts", "vit-s": "vit_small_patch16_224", "deit-t": "deit_tiny_patch16_224"}
ENGINES = "eager,compile,ort,zoo,zoo:ort,zoo:openvino"
# Formats that an engine has; others have all. ONNX Runtime has no bf16 kernels on the CPU.
FORMATS = {"ort": ["f32"], "zoo:ort": ["f32"]}
# Seconds under which no comparison is begun: it would end before its first block.
LEAST_S = 45.0
# A comparison is told to end three times this before the budget is over, and ended twice this later.
GRACE_S = 5.0


@dataclass(frozen=True)
class Job:
    """One run of compare.py."""

    model: str
    dtype: str
    device: str
    batch: str
    threads: int

    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def engines(job: Job, args: argparse.Namespace) -> list[str]:
    """Those asked for that can have the model in the format."""
    has_peer = (args.official and job.model in OFFICIAL) or FAMILIES.get(job.model) or TIMM.get(job.model)
    return [e for e in args.engines.split(",") if (has_peer or e.startswith("zoo")) and job.dtype in FORMATS.get(e, [job.dtype])]


def command(job: Job, args: argparse.Namespace, left_s: float, report: str) -> list[str]:
    options = [sys.executable, str(HERE / "compare.py"), job.model, "--engines", ",".join(engines(job, args)), "--dtype", job.dtype,
               "--device", job.device, "--batch", job.batch, "--threads", str(job.threads), "--rounds", str(args.rounds),
               "--limit", str(min(args.limit, left_s)), "--patience", str(min(args.patience, left_s)),
               "--max-other-load", str(args.max_other_load), "--zoo", args.zoo, "--json", report]
    timm = FAMILIES.get(job.model) or TIMM.get(job.model)
    options += ["--timm-model", timm] if timm else []
    options += ["--official", args.official] if args.official else []
    return options


def compare(job: Job, args: argparse.Namespace, end: float, running: set[subprocess.Popen[bytes]]) -> dict[str, Any] | None:
    """The report of one comparison without its raw blocks; None when it ended without one. What went wrong is on stderr.

    Its process is in `running` meanwhile; SIGTERM makes it end with what it has.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        left_s = end - time.monotonic()
        process = subprocess.Popen(command(job, args, left_s, report.name), stdout=sys.stderr)
        running.add(process)
        try:
            process.wait(timeout=max(0.0, left_s - 3 * GRACE_S))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=2 * GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        running.discard(process)
        text = Path(report.name).read_text(encoding="utf-8")
    if not text:
        return None
    result: dict[str, Any] = json.loads(text)
    for case in result["cases"]:
        del case["blocks"]
    return result


def cpu_sets(lanes: int, threads: int) -> list[set[int] | None]:
    """Disjoint processors for each lane, one of each core where the system tells which belong together; one lane is not pinned."""
    if lanes == 1:
        return [None]
    firsts = sorted(cpu for cpu in os.sched_getaffinity(0) if cpu == min(_siblings(cpu)))
    fitting = len(firsts) // threads
    if fitting < lanes:
        print(f"{len(firsts)} cores are enough for {max(fitting, 1)} lanes of {threads} threads, not {lanes}", file=sys.stderr)
        return cpu_sets(max(fitting, 1), threads)
    return [set(firsts[i * threads:(i + 1) * threads]) for i in range(lanes)]


def _siblings(cpu: int) -> set[int]:
    """The logical processors of one core."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
        parts = [list(map(int, part.split("-"))) for part in text.strip().split(",")]
        return {c for part in parts for c in range(part[0], part[-1] + 1)}
    except (OSError, ValueError):
        return {cpu}


def read_results(paths: list[str]) -> dict[str, dict[str, Any]]:
    """The last report of each job; a line that was cut off is no report."""
    found = {}
    for path in paths:
        if not Path(path).exists():
            continue
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                found[Job(**entry["job"]).key()] = entry
            except (json.JSONDecodeError, KeyError, TypeError):
                print(f"{path}: a line that is no result is skipped", file=sys.stderr)
    return found


class Campaign:
    """Jobs that run until the budget is over, and the table that grows meanwhile."""

    def __init__(self, args: argparse.Namespace, jobs: list[Job], done: dict[str, dict[str, Any]]) -> None:
        self.args, self.done = args, done
        self.end = time.monotonic() + args.budget
        self.due: Queue[Job] = Queue()
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        for job in jobs:
            entry = done.get(job.key())
            if entry and entry["report"].get("ended") == "complete":
                self.show(job, entry["report"])
            else:
                self.due.put(job)

    def show(self, job: Job, report: dict[str, Any]) -> None:
        shown = self.args.engines.split(",")
        for batch in job.batch.split(","):
            print(tables.row(job.model, int(batch), job.dtype, report, shown), flush=True)

    def stop(self) -> None:
        """Begins nothing more; what runs ends with what it has."""
        self.end = 0.0
        for process in list(self.running):
            process.send_signal(signal.SIGTERM)

    def lane(self, cpus: set[int] | None) -> None:
        """Takes jobs; runs in a thread of its own, whose processors its comparisons inherit."""
        if cpus:
            os.sched_setaffinity(0, cpus)
        while self.end - time.monotonic() > LEAST_S:
            try:
                job = self.due.get_nowait()
            except Empty:
                return
            began = time.monotonic()
            report = compare(job, self.args, self.end, self.running)
            seconds = time.monotonic() - began
            with self.lock:
                if report is None:
                    print(f"{job.model} {job.dtype}: no report after {seconds:.0f} s", file=sys.stderr, flush=True)
                    continue
                entry = {"job": asdict(job), "seconds": seconds, "pinned": sorted(cpus or []), "report": report}
                self.done[job.key()] = entry
                self.show(job, report)
                if self.args.out:
                    with open(self.args.out, "a", encoding="utf-8") as out:
                        out.write(json.dumps(entry) + "\n")


def epilogue(entries: list[dict[str, Any]]) -> None:
    """Below the table: whose code the peers are, what was left out, the machine."""
    reports = [(entry["job"]["model"], entry["job"]["dtype"], entry["report"]) for entry in entries]
    peers = {f"{model}: {whose}" for model, _, report in reports if (whose := tables.peer(report))}
    remarks = [note for model, dtype, report in reports for note in tables.notes(model, dtype, report)]
    print("\n" + "\n".join(f"- {line}" for line in [*sorted(peers), *remarks]))
    print(f"\nMachine: {'; '.join(sorted({tables.machine(report) for _, _, report in reports}))}.", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="zoo's names; default: one variant of each family")
    parser.add_argument("--engines", default=ENGINES, help="as for compare.py; those a format or model lacks are left out")
    parser.add_argument("--official", help="folder of official repositories (official.py)")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8, help="0: start every engine and hold the outputs to each other; time nothing")
    parser.add_argument("--limit", type=float, default=120, help="seconds of blocks of one comparison")
    parser.add_argument("--patience", type=float, default=300, help="seconds an engine has for one answer before the timing")
    parser.add_argument("--max-other-load", type=float, default=0.25, help="cores; a block beside more is discarded")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for everything")
    parser.add_argument("--lanes", type=int, default=1, help="comparisons at a time, each pinned to cores of its own; they share memory "
                        "bandwidth and caches")
    parser.add_argument("--out", help="file to add reports to, JSON lines; what is in it is not run again")
    parser.add_argument("--done", nargs="*", default=[], help="other such files whose jobs are not run again")
    parser.add_argument("--table", action="store_true", help="run nothing: the table of --out and --done")
    parser.add_argument("--zoo", default="zoo", help="the zoo program")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    known = {**FAMILIES, **TIMM, **OFFICIAL}
    unknown = [model for model in args.models if model not in known]
    if unknown:
        print(f"no such model here: {', '.join(unknown)}", file=sys.stderr)
        return 2
    jobs = [Job(model, dtype, args.device, args.batch, args.threads)
            for dtype in args.dtypes.split(",") for model in args.models or FAMILIES]
    results = read_results([*args.done, *([args.out] if args.out else [])])
    if args.table:
        jobs = [Job(**entry["job"]) for entry in results.values()]
    print(f"Milliseconds of a call, {args.threads} threads, {args.device}; a ratio above 1: the first is faster.\n\n"
          + tables.header(args.engines.split(",")), flush=True)
    if args.table:
        campaign = Campaign(args, [], results)
        for job in jobs:
            campaign.show(job, results[job.key()]["report"])
    else:
        sets = cpu_sets(args.lanes, args.threads)
        campaign = Campaign(args, jobs, results)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with ThreadPoolExecutor(len(sets)) as lanes:
            try:
                list(lanes.map(campaign.lane, sets))
            except KeyboardInterrupt:
                campaign.stop()
    wanted = {job.key() for job in jobs}
    shown = [entry for key, entry in campaign.done.items() if key in wanted]
    if shown:
        epilogue(shown)
    missing = sum(job.key() not in campaign.done for job in jobs)
    if missing:
        print(f"{missing} of {len(jobs)} comparisons have no result yet", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
