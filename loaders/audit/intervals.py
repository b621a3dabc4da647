"""Intervals of a proportion."""

from __future__ import annotations

import math

Z = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of hits out of trials; (0, 1) of none.  Source: Wilson 1927."""
    if not trials:
        return 0.0, 1.0
    share = hits / trials
    middle = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)
