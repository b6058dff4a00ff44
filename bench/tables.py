"""The table of a campaign (families.py): one line for each model, batch size and format."""

from __future__ import annotations

from typing import Any

# What the report calls an engine, and the heading of its column.
COLUMNS = {
    "eager": "PyTorch eager",
    "compile": "torch.compile",
    "ort": "torch.onnx in ONNX Runtime",
    "openvino": "torch.onnx in OpenVINO",
    "zoo": "zoo, libtorch",
    "zoo:ort": "zoo, ONNX Runtime",
    "zoo:openvino": "zoo, OpenVINO",
}
# Engine and the one it is compared with, where both were timed.
RATIOS = [("zoo", "eager"), ("zoo", "compile"), ("zoo:ort", "ort")]


def header(engines: list[str]) -> str:
    cells = ["model", "batch", "format", *(COLUMNS.get(e, e) for e in engines), *(f"{a} / {b}" for a, b in _ratios(engines))]
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def _ratios(engines: list[str]) -> list[tuple[str, str]]:
    return [pair for pair in RATIOS if set(pair) <= set(engines)]


def times(report: dict[str, Any], batch: int) -> dict[str, float]:
    """Median of block medians of each engine that has one, in seconds."""
    found = {c["subject"]: c["median_of_blocks_s"] for c in report["cases"] if c["batch"] == batch}
    return {engine: time for engine, time in found.items() if time is not None}


def row(model: str, batch: int, dtype: str, report: dict[str, Any], engines: list[str]) -> str:
    """Milliseconds of a call; then how many times as fast the one engine is as the other."""
    found = times(report, batch)
    cells = [_milliseconds(found.get(engine)) for engine in engines]
    ratios = [f"{found[b] / found[a]:.2f}" if a in found and b in found else "-" for a, b in _ratios(engines)]
    return f"| {model} | {batch} | {dtype} | " + " | ".join(cells + ratios) + " |"


def _milliseconds(time: float | None) -> str:
    if time is None:
        return "-"
    return f"{1e3 * time:.1f}" if time >= 0.01 else f"{1e3 * time:.3f}"


def notes(model: str, dtype: str, report: dict[str, Any]) -> list[str]:
    """What a reader of the line must know: engines left out, an early end, blocks beside load, whose code the peer is."""
    lines = [f"{engine} left out: {why}" for engine, why in report.get("comparison", {}).get("left_out", {}).items()]
    if report.get("ended", "complete") != "complete":
        lines.append(f"ended early ({report['ended'].replace('_', ' ')})")
    for case in report["cases"]:
        if case["discarded"] > case["kept"]:
            lines.append(f"{case['subject']}, batch {case['batch']}: {case['discarded']} of "
                         f"{case['kept'] + case['discarded']} blocks discarded beside other load")
    return [f"{model} {dtype}: {line}" for line in lines]


def peer(report: dict[str, Any]) -> str | None:
    """Whose code the PyTorch peer is."""
    for subject in report.get("subjects", []):
        if subject["name"] == "eager":
            return ", ".join(option for option in subject["options"] if not option.startswith("channels"))
    return None


def machine(report: dict[str, Any]) -> str:
    """Processor, and the device of the subjects where that is not the processor."""
    devices = sorted({s["device"] for s in report.get("subjects", []) if s["device"] != "cpu"})
    cores = f"{report['machine']['cpu']}, {report['machine']['cores']} logical cores"
    return "; ".join([cores, *devices])
