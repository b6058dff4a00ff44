"""How much of the processors other processes use."""

from __future__ import annotations

import os
import time


def machine_cpu_s(cpus: set[int] | None = None) -> float | None:
    """CPU time that `cpus` (default: all of the machine's) have spent, in seconds of one core; None where /proc/stat is not there.

    User, nice, system, interrupts and what the hypervisor took (steal). It ticks every 10 ms. Inside a container it is
    the host's. Where /proc/stat has no line for one of them, all count.
    """
    try:
        with open("/proc/stat", encoding="ascii") as stat:
            lines = {name: values for name, *values in map(str.split, stat) if name.startswith("cpu")}
        wanted = [f"cpu{cpu}" for cpu in cpus or ()]
        names = wanted if wanted and lines.keys() >= set(wanted) else ["cpu"]
        return sum(_spent(lines[name]) for name in names) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, KeyError):
        return None


def _spent(values: list[str]) -> int:
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, values[:8])
    return user + nice + system + irq + softirq + steal


def own_cpus() -> set[int] | None:
    """The processors this process and its workers may use, where that can be told."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


class LoadMeter:
    """Cores that other processes used, of those this process may use, since it was made."""

    def __init__(self) -> None:
        self._cpus = own_cpus()
        self._start = time.perf_counter()
        self._machine = machine_cpu_s(self._cpus)
        self._own = time.process_time()

    def other_load(self, worker_cpu_s: float) -> float | None:
        """On average, less this process's CPU time and `worker_cpu_s`; None where it cannot be told."""
        wall = time.perf_counter() - self._start
        own = time.process_time() - self._own
        machine = machine_cpu_s(self._cpus)
        if machine is None or self._machine is None:
            return None
        return max(0.0, (machine - self._machine - own - worker_cpu_s) / wall)
