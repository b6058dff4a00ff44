"""Warm-up, then rounds of interleaved blocks; blocks beside other processes' load are discarded and tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from load import LoadMeter
from protocol import WorkerFailed
from stats import median, median_interval, summary, tail_warnings


class Worker(Protocol):
    label: str

    def ask(self, request: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Schedule:
    """Times in seconds, load in cores."""

    rounds: int = 12
    block_s: float = 0.25
    max_other_load: float = 0.25
    attempts: int = 3
    max_s: float = 300.0
    warm_up: dict[str, float] = field(default_factory=lambda: {"min_s": 0.5, "max_s": 10.0, "settled": 0.05})


@dataclass
class Block:
    round: int
    first_s: float
    times_s: list[float]
    other_load: float | None
    kept: bool


@dataclass
class Case:
    """One worker at one batch size."""

    worker: Worker
    batch: int
    warm_up: dict[str, Any] | None = None
    blocks: list[Block] = field(default_factory=list)
    failure: str | None = None
    """What the worker said when it failed; it is not asked again."""

    def round_medians(self) -> dict[int, float]:
        return {b.round: median(b.times_s) for b in self.blocks if b.kept}

    def speed_up(self, base: Case) -> dict[str, Any] | None:
        """Over `base`, from the rounds that kept a block of both."""
        own = self.round_medians()
        return median_interval([b / own[r] for r, b in base.round_medians().items() if r in own])

    def report(self) -> dict[str, Any]:
        """An entry of a report's `cases`."""
        kept = [b for b in self.blocks if b.kept]
        lost = [b for b in self.blocks if not b.kept]
        medians = list(self.round_medians().values())
        stats = summary([t for b in kept for t in b.times_s], self.batch)
        return {
            "subject": self.worker.label,
            "batch": self.batch,
            "warm_up": self.warm_up,
            "stats": stats,
            "median_of_blocks_s": median(medians) if medians else None,
            "median_first_s": median([b.first_s for b in kept]) if kept else None,
            "discarded_stats": summary([t for b in lost for t in b.times_s], self.batch),
            "kept": len(kept),
            "discarded": len(lost),
            "warnings": tail_warnings(stats) + self._warnings(len(kept), len(lost)),
            "blocks": [asdict(b) for b in self.blocks],
        }

    def _warnings(self, kept: int, lost: int) -> list[str]:
        warnings = [f"it failed: {self.failure}"] if self.failure else []
        if kept == 0 and lost > 0:
            under_load = 1e3 * median([t for b in self.blocks for t in b.times_s])
            warnings.append(f"all {lost} blocks were discarded: other processes kept the machine busy; there is no "
                            f"figure (beside that load the median was {under_load:.1f} ms)")
        elif lost > kept:
            warnings.append(f"{lost} of {kept + lost} blocks were discarded: other processes keep the machine busy")
        if self.warm_up and not self.warm_up["settled"]:
            warnings.append(f"times had not settled after {self.warm_up['seconds']:.1f} s of warm-up")
        return warnings


def warm_up(case: Case, schedule: Schedule) -> None:
    """Blocks until the medians of two in a row agree, or the time is over."""
    limits = schedule.warm_up
    seconds, calls, previous, settled = 0.0, 0, 0.0, False
    while seconds < limits["max_s"] and not (settled and seconds >= limits["min_s"]):
        answer = case.worker.ask({"cmd": "block", "batch": case.batch, "seconds": schedule.block_s})
        current = median(answer["times_s"])
        settled = previous > 0 and abs(current / previous - 1) < limits["settled"]
        previous = current
        seconds += answer["first_s"] + sum(answer["times_s"])
        calls += 1 + len(answer["times_s"])
    case.warm_up = {"calls": calls, "seconds": seconds, "settled": settled}


def run(cases: list[Case], schedule: Schedule, progress: Callable[[str], None]) -> str:
    """Fills the cases' blocks. How it ended: `complete`, `stopped` by Ctrl-C, or by the `time_limit`.

    What was measured until then stands. Without rounds nothing is called, not even to warm up.
    """
    if schedule.rounds == 0:
        return "complete"
    try:
        for case in cases:
            progress(f"warming up {case.worker.label}, batch {case.batch}")
            _attempt(case, lambda: warm_up(case, schedule))
        end = time.monotonic() + schedule.max_s
        for number in range(schedule.rounds):
            progress(f"round {number + 1} of {schedule.rounds}")
            if not _round(cases, number, schedule, end):
                return "time_limit"
    except KeyboardInterrupt:
        return "stopped"
    return "complete"


def _attempt(case: Case, step: Callable[[], Any]) -> Any:
    """Does the step unless the case has failed; notes a failure. None for either."""
    if case.failure is None:
        try:
            return step()
        except WorkerFailed as why:
            case.failure = str(why)
    return None


def _round(cases: list[Case], number: int, schedule: Schedule, end: float) -> bool:
    """One block of each case, starting one later each round; those to discard are tried again after the others.

    False when the time was over before that.
    """
    start = number % len(cases)
    due = cases[start:] + cases[:start]
    for _ in range(schedule.attempts):
        again = []
        for case in due:
            if time.monotonic() >= end:
                return False
            if _attempt(case, lambda: _block(case, number, schedule)) is False:
                again.append(case)
        due = again
    return True


def _block(case: Case, number: int, schedule: Schedule) -> bool:
    meter = LoadMeter()
    answer = case.worker.ask({"cmd": "block", "batch": case.batch, "seconds": schedule.block_s})
    load = meter.other_load(answer["cpu_s"])
    kept = load is None or load <= schedule.max_other_load
    case.blocks.append(Block(number, answer["first_s"], answer["times_s"], load, kept))
    return kept
