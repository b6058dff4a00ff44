"""How much of the machine other processes use."""

from __future__ import annotations

import os
import time


def machine_cpu_s() -> float | None:
    """CPU time the whole machine has spent, in seconds of one core; None where /proc/stat is not there.

    User, nice, system, interrupts and what the hypervisor took (steal). It ticks every 10 ms. Inside a container it is
    the host's.
    """
    try:
        with open("/proc/stat", encoding="ascii") as stat:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class LoadMeter:
    """Cores that other processes used since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._machine = machine_cpu_s()
        self._own = time.process_time()

    def other_load(self, worker_cpu_s: float) -> float | None:
        """On average, less this process's CPU time and `worker_cpu_s`; None where it cannot be told."""
        wall = time.perf_counter() - self._start
        own = time.process_time() - self._own
        machine = machine_cpu_s()
        if machine is None or self._machine is None:
            return None
        return max(0.0, (machine - self._machine - own - worker_cpu_s) / wall)
