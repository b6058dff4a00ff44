"""Order statistics, defined as in zoo's own reports (docs/bench-report.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

COVERAGE = 0.95


def percentile(values: Sequence[float], p: float) -> float:
    """By linear interpolation between order statistics (numpy's default)."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * p / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(values: Sequence[float]) -> float:
    return percentile(values, 50)


def summary(times_s: Sequence[float], batch: int) -> dict[str, Any] | None:
    """The `stats` of a report; None for no calls."""
    if not times_s:
        return None
    p50 = median(times_s)
    mad = median([abs(t - p50) for t in times_s])
    limit = p50 + max(5 * 1.4826 * mad, 0.1 * p50)
    return {
        "calls": len(times_s),
        "min_s": min(times_s),
        "p50_s": p50,
        "p90_s": percentile(times_s, 90),
        "p99_s": percentile(times_s, 99),
        "max_s": max(times_s),
        "mean_s": sum(times_s) / len(times_s),
        "mad_s": mad,
        "images_per_s": batch / p50,
        "outlier_share": sum(t > limit for t in times_s) / len(times_s),
    }


def tail_warnings(stats: dict[str, Any] | None) -> list[str]:
    """What a reader of a p99 must know."""
    if stats is None:
        return []
    warnings = []
    if stats["p99_s"] > 2 * stats["p50_s"]:
        warnings.append(f"p99 is {stats['p99_s'] / stats['p50_s']:.1f} times p50 ({100 * stats['outlier_share']:.1f} % of "
                        "the calls are outliers): something else used the machine, or the clock rate changed")
    if stats["calls"] < 100:
        warnings.append(f"{stats['calls']} calls: p99 is little more than the slowest call")
    return warnings


def median_interval(values: Sequence[float]) -> dict[str, Any] | None:
    """Median with its order-statistic (sign test) interval: no distribution is assumed. None for no values.

    The narrowest [x(k), x(n+1-k)] whose coverage 1 - 2 P(Binomial(n, 1/2) < k) reaches 0.95, or [min, max].
    """
    if not values:
        return None
    n = len(values)
    ordered = sorted(values)

    def coverage(k: int) -> float:
        below = sum(math.comb(n, i) for i in range(k))
        return 1 - below / (1 << (n - 1))

    k = 1
    while 2 * (k + 1) <= n and coverage(k + 1) >= COVERAGE:
        k += 1
    return {
        "median": median(ordered),
        "low": ordered[k - 1],
        "high": ordered[n - k],
        "coverage": coverage(k),
        "rounds": n,
    }
